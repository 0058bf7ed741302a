"""What planning a text over stubs showed, kept for the next time the same text comes.

A client's one ``execute`` plans three times (prepare, GetFlightInfo, DoGet), and dashboards send
the same text all day. Planning depends on nothing but the text, the session's schema and time zone,
and the columns of what its names mean: all of that is the key, or is looked at again before a
shape counts. Versions are never kept: each statement pins its own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from cachetools import LRUCache

from catalog.spec import TableName
from flight_server.analysis import VOLATILE_WORDS, Reads
from flight_server.names import Part, Reference, Scope
from flight_server.plans import Options, Statement
from flight_server.sqltext import SqlText

#: Texts that are kept; a dashboard has dozens.
MAX_SHAPES = 512
#: Texts with bound values that are kept: GetFlightInfo plans with them, and DoGet soon after.
MAX_BOUND = 64
#: Bytes of bound values with which a text is kept.
MAX_VALUES = 1024
#: Longer texts are not kept: they are written by programs and do not come back.
MAX_TEXT = 8 * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """A plan without versions.

    Attributes:
        text: bounded and rewritten.
        names: what each reference came to mean: part, table and columns.
        schema: of the rows, in plain types.
        parameter_schema: a field per parameter; ``described``: the same as clients see it.
        reads: what the optimized plan scans; None: parameters are missing.
        divisible: rows can be shared out; looked at only where the session wants several endpoints.
    """

    text: SqlText
    names: Mapping[Reference, tuple[Part, TableName | None, pa.Schema]]
    schema: pa.Schema
    parameter_schema: pa.Schema
    described: pa.Schema
    reads: Reads | None
    divisible: bool

    def holds(self, scope: Scope) -> bool:
        """Whether every name still means what it did; pins the tables that the statement names.

        Raises:
            CatalogError: a table cannot be pinned now.
        """
        for at, meant in self.names.items():
            found = scope.resolve(at)
            if found is None or (found.part, found.name, found.schema) != meant:
                return False
        return True


def names_of(scope: Scope) -> dict[Reference, tuple[Part, TableName | None, pa.Schema]]:
    """What a planned statement's names mean, without their rows."""
    return {at: (found.part, found.name, found.schema) for at, found in scope.found.items()}


#: Text or plan, schema of names without one, time zone, whether several endpoints are wanted, and
#: the bound values.
_Key = tuple[str | bytes, str, str, bool, bytes]


class Shapes:
    """Shapes by text and options, the longest unused ones dropped first. Any thread; one lock.

    Bound values are part of a key, for they prune files; they have a place of their own, so that
    values that do not come back take no other text's.
    """

    def __init__(self, capacity: int = MAX_SHAPES) -> None:
        self._lock = threading.Lock()
        self._kept: LRUCache[_Key, Shape] = LRUCache(capacity)
        self._bound: LRUCache[_Key, Shape] = LRUCache(MAX_BOUND)

    def get(self, statement: Statement, options: Options) -> Shape | None:
        """What was kept; whether it still :meth:`Shape.holds` is the caller's to ask."""
        key = _key(statement, options)
        if key is None:
            return None
        with self._lock:
            return self._place(statement).get(key)

    def put(self, statement: Statement, options: Options, shape: Shape, scope: Scope) -> None:
        """Keeps a shape, if planning the text again would give the same one.

        Not kept: many bound values, texts with a clock or a dice, those that list other tables than
        they name (information_schema), and names that were not there: somebody may create a table
        of that name.
        """
        words, key = shape.text.words, _key(statement, options)
        if key is None or len(_said(statement)) > MAX_TEXT:
            return
        if scope.missing or scope.listed or words & VOLATILE_WORDS or shape.text.first == "show":
            return
        with self._lock:
            self._place(statement)[key] = shape

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept) + len(self._bound)

    def _place(self, statement: Statement) -> LRUCache[_Key, Shape]:
        return self._kept if statement.parameters is None else self._bound


def _key(statement: Statement, options: Options) -> _Key | None:
    """None: too many values."""
    values, bound = b"", statement.parameters
    if bound is not None:
        if bound.nbytes > MAX_VALUES:
            return None
        values = _bytes_of(bound)
    return (
        _said(statement),
        options.schema,
        options.time_zone,
        options.endpoints > 1,
        values,
    )


def _bytes_of(values: pa.RecordBatch) -> bytes:
    """All that the values are: a stream holds the dictionaries, too; a batch alone does not."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, values.schema) as stream:
        stream.write_batch(values)
    return bytes(sink.getvalue())


def _said(statement: Statement) -> str | bytes:
    return statement.sql if statement.substrait is None else statement.substrait
