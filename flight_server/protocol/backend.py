"""What the kernel asks of an engine: the seam between the protocol and everything else.

An engine offers :class:`Backend`; :class:`ReadOnlyBackend` fills in what can be derived, so that
the smallest one has three methods: ``plan``, ``open`` and ``tables`` (README.md shows it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import pyarrow as pa

from flight_server.protocol.errors import NotFound, cut
from flight_server.protocol.messages import OptionValue

#: What GetSqlInfo may answer; the child of the union follows the code (sqlinfo.py).
SqlInfoValue = str | bool | int | tuple[str, ...] | Mapping[int, tuple[int, ...]]


#: What Arrow's IPC format knows to compress buffers with.
COMPRESSIONS = ("lz4", "zstd")


class Permission(Enum):
    """What a route needs; asked of the policy before anything else is done."""

    QUERY = "query"
    METADATA = "metadata"
    WRITE = "write"
    SESSION = "session"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls.

    Attributes:
        name: unique; tickets and handles are sealed for it.
        roles: what a policy may look at.
    """

    name: str
    roles: frozenset[str] = frozenset()


#: May this principal do that? Asked on every route.
Policy = Callable[[Permission, Principal], bool]


def allow_all(_permission: Permission, _principal: Principal) -> bool:
    """The default policy."""
    return True


class Session(Protocol):
    """What a cookie stands for. Lives on one server."""

    @property
    def options(self) -> Mapping[str, OptionValue]:
        """The options that were set, by name."""

    def set_option(self, name: str, value: OptionValue) -> None:
        """Set one option; None erases it. From here on the session is remembered."""


class Sessions(Protocol):
    """Where sessions are kept. Any thread."""

    def resolve(self, cookie: str | None, principal: str) -> tuple[Session, str | None]:
        """The session of ``cookie``, or a new one and the cookie to hand out for it.

        A new session is kept only when it comes back with its cookie, or has an option set, so
        that clients without cookies leave nothing behind.
        """

    def close(self, session: Session) -> bool:
        """Forget ``session``; False where it was not kept."""


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC, as the backend may know it."""

    principal: Principal
    session: Session


@dataclass(frozen=True, slots=True)
class Statement:
    """What is to be answered.

    Attributes:
        query: SQL text.
        parameters: one column per parameter, in order; one row per set; None: nothing bound.
        plan: a serialised Substrait plan in the place of the text; only for backends whose
            ``sql_info`` says that they take them (5).
    """

    query: str
    parameters: pa.RecordBatch | None = None
    plan: bytes | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A planned statement.

    Attributes:
        schema: exactly what :meth:`Backend.open` will stream.
        payload: all that is needed to open it, here or on another server; at most 8 MiB.
        shares: payloads whose rows together are exactly those of ``payload``, each row once, in
            any order: one endpoint each. None: one endpoint, in the order of the statement.
        compression: of the buffers on the wire, one of :data:`COMPRESSIONS`; None: none.
    """

    schema: pa.Schema
    payload: bytes
    shares: tuple[bytes, ...] = ()
    compression: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared statement: the rows it gives, and one field per parameter, in order.

    Attributes:
        is_update: it gives no rows, and clients had better execute it as an update.
    """

    schema: pa.Schema
    parameters: pa.Schema = field(default_factory=lambda: pa.schema([]))
    is_update: bool = False


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table. ``columns`` is called only when the caller asks for schemas.

    Attributes:
        version: names exactly what ``columns`` would give: as long as it stays, they are not asked
            for again. None: they are asked for every time.
    """

    catalog: str | None
    schema: str | None
    name: str
    type: str
    columns: Callable[[], pa.Schema]
    version: str | None = None


class Rows(Protocol):
    """An open result. One thread iterates; ``cancel`` may come from any."""

    @property
    def schema(self) -> pa.Schema:
        """Plain types only: no view, large or dictionary types."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches, all of the planned schema, at most 2 MiB each."""

    def cancel(self) -> None:
        """Stop soon: a blocked iteration wakes up and raises ``Cancelled``. Idempotent."""

    def close(self) -> None:
        """Release everything; called once by the iterating thread, at the end or on failure."""


class Backend(Protocol):
    """An engine. Methods run on any thread, many at a time; they raise ``FlightSqlError`` only."""

    def plan(self, statement: Statement, call: Call) -> Planned:
        """Plan and never execute."""

    def prepare(self, statement: Statement, call: Call) -> Prepared:
        """The schemas of a statement whose parameters are not known yet."""

    def open(self, payload: bytes, call: Call) -> Rows:
        """Start to answer what ``payload`` says."""

    def update(self, statement: Statement, call: Call) -> int | None:
        """Execute a statement that gives no rows.

        Returns:
            How many rows it changed, -1 where that is not known; None: it is none that is offered
            as an update, and nothing was done.
        """

    def permission(self, statement: Statement) -> Permission | None:
        """What a statement needs beside its route's permission; never raises."""

    def catalogs(self, call: Call) -> Iterable[str]:
        """Names of the catalogs, any order."""

    def schemas(self, call: Call) -> Iterable[tuple[str | None, str]]:
        """(catalog, schema) pairs, any order."""

    def tables(self, call: Call) -> Iterable[TableEntry]:
        """All tables and views that the caller may see, any order."""

    def table_types(self) -> Iterable[str]:
        """Every type that :meth:`tables` may give."""

    def sql_info(self) -> Mapping[int, SqlInfoValue]:
        """Codes whose answer is not the kernel's default (sqlinfo.py)."""

    def check_option(self, name: str, value: OptionValue) -> OptionValue:
        """The value to store for a session option that is being set.

        Raises:
            NotFound: no such option.
            InvalidArgument: not a value for it.
        """

    def options(self, call: Call) -> Mapping[str, OptionValue]:
        """The options in force: the session's own over the defaults."""


class ReadOnlyBackend(ABC):
    """A Backend's smaller half, derived from three methods."""

    @abstractmethod
    def plan(self, statement: Statement, call: Call) -> Planned:
        """See :meth:`Backend.plan`."""

    @abstractmethod
    def open(self, payload: bytes, call: Call) -> Rows:
        """See :meth:`Backend.open`."""

    @abstractmethod
    def tables(self, call: Call) -> Iterable[TableEntry]:
        """See :meth:`Backend.tables`."""

    def prepare(self, statement: Statement, call: Call) -> Prepared:
        """No parameters; the rows of the plan."""
        return Prepared(self.plan(statement, call).schema)

    def update(self, statement: Statement, call: Call) -> int | None:
        """There are no updates."""
        del statement, call
        return None

    def permission(self, statement: Statement) -> Permission | None:
        """Nothing more."""
        del statement
        return None

    def catalogs(self, call: Call) -> Iterable[str]:
        """Those of the tables."""
        return {table.catalog for table in self.tables(call) if table.catalog is not None}

    def schemas(self, call: Call) -> Iterable[tuple[str | None, str]]:
        """Those of the tables."""
        return {(t.catalog, t.schema) for t in self.tables(call) if t.schema is not None}

    def table_types(self) -> Iterable[str]:
        """Base tables and views."""
        return ("BASE TABLE", "VIEW")

    def sql_info(self) -> Mapping[int, SqlInfoValue]:
        """Nothing beyond the defaults."""
        return {}

    def check_option(self, name: str, value: OptionValue) -> OptionValue:
        """There are no options."""
        del value
        raise NotFound(f"there is no session option {cut(name, 200)!r}")

    def options(self, call: Call) -> Mapping[str, OptionValue]:
        """What the session holds."""
        return call.session.options
