"""``protocol.Backend`` made of the engine, the query log and the sessions.

``plan`` pins and plans and executes nothing; the ticket's payload is all that ``open`` needs, on
this server or on another one with the same catalog and topics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from catalog.errors import CatalogError, NotReady, TableNotFound, Unsupported
from catalog.offsets import Offsets
from catalog.spec import TableName
from flight_server import protocol
from flight_server.engine import Engine, Listed
from flight_server.metrics import Query, QueryLog
from flight_server.options import Settings, check_option, engine_options, options_in_force
from flight_server.payloads import (
    payload_of,
    read_payload,
    read_session_payload,
    session_payload,
)
from flight_server.plans import Options, Plan, Statement
from flight_server.protocol import Batches, Call, Permission, Planned, Prepared, TableEntry
from flight_server.protocol.backend import SqlInfoValue
from flight_server.protocol.errors import FlightSqlError
from flight_server.protocol.messages import OptionValue
from flight_server.session_sql import NO_COLUMNS, SessionSql
from flight_server.sessions import Session
from flight_server.sqlsession import is_session_statement, read_session
from flight_server.substrait import VERSION as SUBSTRAIT_VERSION
from flight_server.wire_errors import to_wire_error, wire_errors

#: SQL types of tables, as Power BI and Grafana ask for them.
_TABLE_TYPES = ("BASE TABLE", "VIEW")
_INFORMATION_SCHEMA = "information_schema"
_SYSTEM = "system"


class EngineBackend:
    """The server's backend. Any thread; holds nothing between two calls but the query log."""

    def __init__(self, engine: Engine, log: QueryLog, settings: Settings | None = None) -> None:
        self._engine = engine
        self._log = log
        self._settings = settings or Settings()
        self._session_sql = SessionSql(self._settings, self._schema_names)

    def plan(self, statement: protocol.Statement, call: Call) -> Planned:
        """Pin and plan; failures are in the query log, successes once they are opened."""
        mine = _mine(statement)
        with _logged_failure(self._log, call, mine.sql), wire_errors():
            if (about_session := read_session(mine.sql)) is not None:
                schema = self._session_sql.plan(about_session)
                return Planned(schema, session_payload(mine.sql))
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

    def prepare(self, statement: protocol.Statement, call: Call) -> Prepared:
        """Plan with the parameters unbound."""
        mine = _mine(statement)
        with _logged_failure(self._log, call, mine.sql), wire_errors():
            if (about_session := read_session(mine.sql)) is not None:
                schema = self._session_sql.plan(about_session)
                return Prepared(schema, is_update=schema == NO_COLUMNS)
            plan = self._plan(mine, call)
        return Prepared(plan.schema, plan.described)

    def open(self, payload: bytes, call: Call) -> protocol.Rows:
        """Plan over the very pins of the payload, and start (rule 17)."""
        if (sql := read_session_payload(payload)) is not None:
            table = self._run_session_sql(sql, call)
            return Batches(table.schema, iter(table.to_batches()))
        with wire_errors():
            told = read_payload(payload)
        query = self._log.begin(call.principal.name, told.statement.sql)
        try:
            with wire_errors():
                plan = self._engine.plan(told.statement, told.options, pins=told.pins)
                query.planned(_pin_texts(plan))
                stream = self._engine.stream(
                    plan, share=told.share, wait_s=self._settings.session_wait_s
                )
        except BaseException as error:
            query.finish(_code(error))
            raise
        _saw(call, plan)
        return _LoggedRows(stream, query)

    def update(self, statement: protocol.Statement, call: Call) -> int | None:
        """SET, USE and RESET; nothing else is an update here."""
        with _logged_failure(self._log, call, statement.query), wire_errors():
            about_session = read_session(statement.query)
            if about_session is None or self._session_sql.plan(about_session) != NO_COLUMNS:
                return None
        self._run_session_sql(statement.query, call)
        return 0

    def permission(self, statement: protocol.Statement) -> Permission | None:
        """That of the actions which do the same."""
        return Permission.SESSION if is_session_statement(statement.query) else None

    def catalogs(self, call: Call) -> Iterable[str]:
        """The one catalog."""
        del call
        return (self._settings.catalog,)

    def schemas(self, call: Call) -> Iterable[tuple[str | None, str]]:
        """The namespaces that hold tables, and the server's own two."""
        del call
        with wire_errors():
            return [(self._settings.catalog, name) for name in self._schema_names()]

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
            5: True,
            **dict.fromkeys((6, 7), SUBSTRAIT_VERSION),
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
        return check_option(self._settings, name, value)

    def options(self, call: Call) -> Mapping[str, OptionValue]:
        """The options in force."""
        return options_in_force(self._settings, call.session)

    def _schema_names(self) -> set[str]:
        names = {listed.schema for listed in self._engine.list_tables()}
        return {*names, _SYSTEM, _INFORMATION_SCHEMA}

    def _run_session_sql(self, sql: str, call: Call) -> pa.Table:
        """What the statement shows; logged as any other."""
        with self._log.begin(call.principal.name, sql), wire_errors():
            statement = read_session(sql)
            assert statement is not None  # noqa: S101 - it was planned as one
            return self._session_sql.run(statement, call.session)

    def _plan(self, statement: Statement, call: Call) -> Plan:
        """Planned at or after everything that the session has seen (rule 20)."""
        options = engine_options(self._settings, call.session)
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
            newest = same and pin.name in seen and not pin.as_of
            if newest and not pin.high.covers(seen[pin.name]):
                raise NotReady(
                    f"{pin.name}: this server is behind what the session has seen: try again"
                )
        return plan


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


def _mine(statement: protocol.Statement) -> Statement:
    """A Substrait plan has no text; the query log shows what it is."""
    if statement.plan is None:
        return Statement(statement.query, statement.parameters)
    shown = f"-- Substrait plan of {len(statement.plan)} bytes"
    return Statement(shown, statement.parameters, statement.plan)


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
