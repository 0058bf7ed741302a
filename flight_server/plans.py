"""A statement and its plan: the values that travel between planning and streaming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from catalog.tables import Pin
from flight_server.analysis import Reads
from flight_server.names import Reference, Resolved
from flight_server.sqltext import SqlText


@dataclass(frozen=True, slots=True)
class Options:
    """What a session sets.

    Attributes:
        schema: the namespace of names without one.
        time_zone: of literals and of ``now()``.
        endpoints: how many shares the rows may come in, where a statement can be divided.
        timeout_s: shortens the server's own limit for each statement; None: that limit.
    """

    schema: str = "default"
    time_zone: str = "UTC"
    timeout_s: float | None = None
    endpoints: int = 1


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text and values.

    Attributes:
        sql: one statement; parameters are ``?`` or ``$1``.
        parameters: a column per parameter; each row is one execution, their rows follow each
            other in one result. None: nothing bound.
        substrait: a serialised Substrait plan; ``sql`` is then what is shown of it.
    """

    sql: str
    parameters: pa.RecordBatch | None = None
    substrait: bytes | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What planning over stubs showed.

    Attributes:
        text: the statement's text, bounded and rewritten.
        found: what each name means.
        reads: what the optimized plan scans; None: parameters are missing.
        divisible: each row of the one scan is treated by itself; looked at only where the session
            wants several endpoints.
    """

    text: SqlText
    found: Mapping[Reference, Resolved]
    reads: Reads | None
    divisible: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned statement: everything that another process needs to stream it.

    Attributes:
        statement: what was planned.
        options: the session's.
        schema: exactly what the stream will have: plain types.
        pins: one version per table that the statement names.
        parameter_schema: a field ``$n`` per parameter; type null where none can be inferred.
        described: the same for clients: a CAST says a type too. Only where nothing is bound.
        explain: the statement is EXPLAIN or EXPLAIN ANALYZE.
        prepared: the engine's own; stays in the process.
    """

    statement: Statement
    options: Options
    schema: pa.Schema
    pins: tuple[Pin, ...]
    parameter_schema: pa.Schema
    explain: bool
    described: pa.Schema
    prepared: Prepared = field(repr=False, compare=False)
