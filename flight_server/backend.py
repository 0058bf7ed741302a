"""``protocol.Backend`` made of the engine, the query log and the sessions.

``plan`` pins and plans and executes nothing; the ticket's payload is all that ``open`` needs, on
this server or on another one with the same catalog and topics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol
from zoneinfo import available_timezones

import pyarrow as pa

from catalog.errors import CatalogError, NotReady, TableNotFound, Unsupported
from catalog.offsets import Offsets
from catalog.spec import TableName
from flight_server import protocol
from flight_server.engine import Engine, Listed
from flight_server.metrics import Query, QueryLog
from flight_server.payloads import payload_of, read_payload
from flight_server.plans import Options, Plan, Statement
from flight_server.protocol import Call, Planned, Prepared, TableEntry
from flight_server.protocol.backend import COMPRESSIONS, SqlInfoValue
from flight_server.protocol.errors import FlightSqlError, InvalidArgument, NotFound, cut
from flight_server.protocol.messages import OptionValue
from flight_server.sessions import Session
from flight_server.wire_errors import to_wire_error, wire_errors

#: SQL types of tables, as Power BI and Grafana ask for them.
_TABLE_TYPES = ("BASE TABLE", "VIEW")
_INFORMATION_SCHEMA = "information_schema"
_SYSTEM = "system"
#: More streams than this from one client gain nothing: each of them takes a slot.
MAX_ENDPOINTS = 64
_NO_COMPRESSION = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the backend needs to know.

    Attributes:
        catalog: the one catalog's name in SQL.
        options: what a session starts with.
        statement_timeout_s: the server's own limit, told in GetSqlInfo.
        session_wait_s: how long a statement waits for a table to get as far as its session has
            seen (rule 20), before it answers NotReady.
    """

    catalog: str = "lake"
    options: Options = Options()  # noqa: RUF009 - frozen
    statement_timeout_s: float = 300.0
    session_wait_s: float = 5.0


class EngineBackend:
    """The server's backend. Any thread; holds nothing between two calls but the query log."""

    def __init__(self, engine: Engine, log: QueryLog, settings: Settings | None = None) -> None:
        self._engine = engine
        self._log = log
        self._settings = settings or Settings()

    def plan(self, statement: protocol.Statement, call: Call) -> Planned:
        """Pin and plan; failures are in the query log, successes once they are opened."""
        mine = Statement(statement.query, statement.parameters)
        with _logged_failure(self._log, call, mine.sql), wire_errors():
            plan = self._plan(mine, call)
            shares = self._engine.divide(plan)
        _saw(call, plan)
        compression = call.session.options.get("compression")
        return Planned(
            plan.schema,
            payload_of(plan),
            tuple(payload_of(plan, share) for share in shares),
            None if compression is None else str(compression),
        )

    def prepare(self, query: str, call: Call) -> Prepared:
        """Plan with the parameters unbound."""
        with _logged_failure(self._log, call, query), wire_errors():
            plan = self._plan(Statement(query), call)
        return Prepared(plan.schema, plan.parameter_schema)

    def open(self, payload: bytes, call: Call) -> protocol.Rows:
        """Plan over the very pins of the payload, and start (rule 17)."""
        with wire_errors():
            told = read_payload(payload)
        query = self._log.begin(call.principal.name, told.statement.sql)
        try:
            with wire_errors():
                plan = self._engine.plan(told.statement, told.options, pins=told.pins)
                query.planned(_pin_texts(plan))
                stream = self._engine.stream(plan, share=told.share)
        except BaseException as error:
            query.finish(_code(error))
            raise
        _saw(call, plan)
        return _LoggedRows(stream, query)

    def catalogs(self, call: Call) -> Iterable[str]:
        """The one catalog."""
        del call
        return (self._settings.catalog,)

    def schemas(self, call: Call) -> Iterable[tuple[str | None, str]]:
        """The namespaces that hold tables, and the server's own two."""
        del call
        with wire_errors():
            names = {listed.schema for listed in self._engine.list_tables()}
        return [(self._settings.catalog, n) for n in {*names, _SYSTEM, _INFORMATION_SCHEMA}]

    def tables(self, call: Call) -> Iterable[TableEntry]:
        """Every table.

        A hybrid one that was never published, one dropped since and one with a column of a type
        that cannot be read are listed without columns: one table never spoils the list.
        """
        del call
        with wire_errors():
            listed = self._engine.list_tables()
        return [
            TableEntry(t.catalog, t.schema, t.name, t.type, _columns(t), t.version) for t in listed
        ]

    def table_types(self) -> Iterable[str]:
        """Those of :meth:`tables`."""
        return _TABLE_TYPES

    def sql_info(self) -> Mapping[int, SqlInfoValue]:
        """What differs from the kernel's defaults."""
        return {
            100: int(self._settings.statement_timeout_s * 1000),
            508: ("explain", "ilike", "limit", "offset", "qualify", "replace", "rlike", "show"),
            533: 0,
        }

    def check_option(self, name: str, value: OptionValue) -> OptionValue:
        """The value to store; text is taken for every option.

        Raises:
            NotFound: no such option.
            InvalidArgument: not a value for it.
        """
        check = _OPTIONS.get(name)
        if check is None:
            raise NotFound(f"there is no session option {cut(name, 200)!r}")
        return None if value is None else check(self._settings, value)

    def options(self, call: Call) -> Mapping[str, OptionValue]:
        """The options in force."""
        options = self._options(call)
        timeout_s = options.timeout_s or self._settings.statement_timeout_s
        return {
            "catalog": self._settings.catalog,
            "schema": options.schema,
            "time_zone": options.time_zone,
            "statement_timeout": timeout_s,
            "endpoints": options.endpoints,
            "compression": call.session.options.get("compression", _NO_COMPRESSION),
        }

    def _plan(self, statement: Statement, call: Call) -> Plan:
        """Planned at or after everything that the session has seen (rule 20)."""
        options = self._options(call)
        seen = call.session.seen() if isinstance(call.session, Session) else {}
        try:
            return self._engine.plan(
                statement, options, at_least=seen, wait_s=self._settings.session_wait_s
            )
        except NotReady:
            if not seen:
                raise
            return self._plan_anew(statement, options, call, seen)

    def _plan_anew(
        self,
        statement: Statement,
        options: Options,
        call: Call,
        seen: Mapping[TableName, Offsets],
    ) -> Plan:
        """Behind what the session saw: right only if the table is another one by now."""
        plan = self._engine.plan(statement, options)
        for pin in plan.pins:
            same = isinstance(call.session, Session) and call.session.knows(
                pin.name, pin.table_uuid
            )
            if same and pin.name in seen and not pin.high.covers(seen[pin.name]):
                raise NotReady(
                    f"{pin.name}: this server is behind what the session has seen: try again"
                )
        return plan

    def _options(self, call: Call) -> Options:
        found = call.session.options
        changes: dict[str, object] = {}
        for option, attribute in _ATTRIBUTES.items():
            if option in found:
                changes[attribute] = found[option]
        return replace(self._settings.options, **changes)  # type: ignore[arg-type]  # check_option saw to the types


class _Stream(Protocol):
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def rows(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def __iter__(self) -> Iterator[pa.RecordBatch]: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


class _LoggedRows:
    """A result whose end stands in the query log, whatever it was."""

    def __init__(self, stream: _Stream, query: Query) -> None:
        self._stream = stream
        self._query = query

    @property
    def schema(self) -> pa.Schema:
        return self._stream.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            with wire_errors():
                for batch in self._stream:
                    self._query.sent(self._stream.rows, self._stream.bytes)
                    yield batch
        except GeneratorExit:
            raise
        except BaseException as error:
            self._query.finish(_code(error))
            raise
        self._query.finish()

    def cancel(self) -> None:
        self._stream.cancel()

    def close(self) -> None:
        """A stream that did not get to its end was cancelled by whoever read it."""
        self._stream.close()
        self._query.finish("CANCELLED")


@contextmanager
def _logged_failure(log: QueryLog, call: Call, sql: str) -> Iterator[None]:
    """A statement that fails in the block is in the query log, with its status."""
    try:
        yield
    except BaseException as error:
        log.begin(call.principal.name, sql).finish(_code(error))
        raise


def _code(error: BaseException) -> str:
    if isinstance(error, CatalogError):
        return to_wire_error(error).code
    return error.code if isinstance(error, FlightSqlError) else "INTERNAL"


def _saw(call: Call, plan: Plan) -> None:
    """From here on the session stays at or after these versions (rule 20)."""
    if isinstance(call.session, Session):
        for pin in plan.pins:
            if pin.kind == "hybrid":
                call.session.saw(pin.name, pin.table_uuid, pin.high)


def _pin_texts(plan: Plan) -> list[str]:
    return [f"{pin.name}@{pin.snapshot_id}" for pin in plan.pins]


def _columns(listed: Listed) -> Callable[[], pa.Schema]:
    def columns() -> pa.Schema:
        with wire_errors():
            try:
                return listed.columns()
            except (NotReady, TableNotFound, Unsupported):
                return pa.schema([])

    return columns


def _catalog(settings: Settings, value: OptionValue) -> OptionValue:
    if value != settings.catalog:
        raise InvalidArgument(f"the only catalog is {settings.catalog!r}")
    return value


def _schema(_settings: Settings, value: OptionValue) -> OptionValue:
    if not isinstance(value, str) or not value:
        raise InvalidArgument("schema is the name of a namespace")
    return value


def _time_zone(_settings: Settings, value: OptionValue) -> OptionValue:
    if not isinstance(value, str) or (value != "UTC" and value not in available_timezones()):
        raise InvalidArgument("time_zone is a name such as UTC or Europe/Berlin")
    return value


def _timeout(settings: Settings, value: OptionValue) -> OptionValue:
    """Seconds, as a number or its text."""
    try:
        seconds = float(value)  # type: ignore[arg-type]  # a list is refused below
    except (TypeError, ValueError):
        seconds = 0.0
    if isinstance(value, bool) or not 0 < seconds <= settings.statement_timeout_s:
        raise InvalidArgument(
            f"statement_timeout is a number of seconds up to {settings.statement_timeout_s:g}"
        )
    return seconds


def _endpoints(_settings: Settings, value: OptionValue) -> OptionValue:
    """A whole number, or its text."""
    try:
        count = int(value)  # type: ignore[arg-type]  # a list is refused below
    except (TypeError, ValueError, OverflowError):
        count = 0
    if isinstance(value, (bool, float)) or not 1 <= count <= MAX_ENDPOINTS:
        raise InvalidArgument(f"endpoints is a whole number from 1 to {MAX_ENDPOINTS}")
    return count


def _compression(_settings: Settings, value: OptionValue) -> OptionValue:
    if value not in COMPRESSIONS and value != _NO_COMPRESSION:
        known = ", ".join((*COMPRESSIONS, _NO_COMPRESSION))
        raise InvalidArgument(f"compression is one of {known}")
    return None if value == _NO_COMPRESSION else value


_OPTIONS: Mapping[str, Callable[[Settings, OptionValue], OptionValue]] = {
    "catalog": _catalog,
    "schema": _schema,
    "time_zone": _time_zone,
    "statement_timeout": _timeout,
    "endpoints": _endpoints,
    "compression": _compression,
}
#: Session option → attribute of the engine's Options.
_ATTRIBUTES = {
    "schema": "schema",
    "time_zone": "time_zone",
    "statement_timeout": "timeout_s",
    "endpoints": "endpoints",
}
