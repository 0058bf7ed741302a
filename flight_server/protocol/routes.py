"""**The table**: what every command and every action of the protocol does here.

Each of them has a route (a test walks the descriptors); what writes has one that refuses it in
words. Calls that are not offered stand in :data:`UNSUPPORTED` with the reason. ListActions follows
from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any  # a route's functions take its own message type: the table is heterogeneous

import pyarrow as pa

from flight_server.protocol import codec, metadata, prepared, sqlinfo, statements, writes, xdbc
from flight_server.protocol import messages as m
from flight_server.protocol.backend import Call, Permission, SqlInfoValue
from flight_server.protocol.errors import (
    Cancelled,
    FlightSqlError,
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from flight_server.protocol.statements import Info, Service, Stream


@dataclass(frozen=True, slots=True)
class Route:
    """A command. A part that is None does not exist for it.

    Attributes:
        permission: what the caller needs, for every part.
        info: GetFlightInfo.
        schema: GetSchema.
        get: DoGet, with the command as (or in) the ticket.
        put: DoPut; the batches are validated and come as the client sends them, when asked for.
    """

    permission: Permission
    info: Callable[[Service, Any, Call], Info] | None = None
    schema: Callable[[Service, Any, Call], pa.Schema] | None = None
    get: Callable[[Service, Any, Call], Stream] | None = None
    put: Callable[[Service, Any, Iterable[pa.RecordBatch], Call], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """An action.

    Attributes:
        act: its bodies in order.
        description: what ListActions says; None: it is only refused.
        if_told: the code of GetSqlInfo by which the backend says that it is offered.
    """

    permission: Permission
    act: Callable[[Service, Any, Call], Iterable[bytes]]
    description: str | None
    if_told: int | None = None


class Batches:
    """Rows that are there already, or made as they are sent."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches
        self._cancelled = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            if self._cancelled:
                raise Cancelled("the caller went away")
            yield batch

    def cancel(self) -> None:
        """Stop before the next batch."""
        self._cancelled = True

    def close(self) -> None:
        """Nothing is held."""


def _metadata(
    schema: Callable[[Any], pa.Schema],
    build: Callable[[Service, Any, Call], Iterator[pa.RecordBatch]],
) -> Route:
    """A metadata command: its ticket is the command itself."""
    return Route(
        Permission.METADATA,
        info=lambda _service, command, _call: Info(
            schema(command), (codec.encode_command(command),)
        ),
        schema=lambda _service, command, _call: schema(command),
        get=lambda service, command, call: Stream(
            schema(command), Batches(schema(command), build(service, command, call))
        ),
    )


def _always(schema: pa.Schema) -> Callable[[object], pa.Schema]:
    return lambda _command: schema


_NO_KEYS = _metadata(_always(metadata.FOREIGN_KEYS), lambda *_: metadata.no_rows())

COMMANDS: Mapping[type[m.Message], Route] = {
    m.StatementQuery: Route(
        Permission.QUERY, info=statements.query_info, schema=statements.query_schema
    ),
    m.StatementSubstraitPlan: Route(
        Permission.QUERY,
        info=statements.substrait_info,
        schema=statements.substrait_schema,
        put=writes.refuse_plan,
    ),
    m.TicketStatementQuery: Route(Permission.QUERY, get=statements.open_ticket),
    m.PreparedStatementQuery: Route(
        Permission.QUERY,
        info=prepared.prepared_info,
        schema=prepared.prepared_schema,
        get=prepared.open_prepared,
        put=prepared.bind,
    ),
    # What else they need depends on the statement: statements.py asks.
    m.StatementUpdate: Route(Permission.QUERY, put=writes.update),
    m.PreparedStatementUpdate: Route(Permission.QUERY, put=writes.update_prepared),
    m.StatementIngest: Route(Permission.WRITE, put=writes.refuse_ingest),
    m.GetCatalogs: _metadata(
        _always(metadata.CATALOGS),
        lambda service, _, call: metadata.build_catalogs(service.backend.catalogs(call)),
    ),
    m.GetDbSchemas: _metadata(
        _always(metadata.DB_SCHEMAS),
        lambda service, command, call: metadata.build_db_schemas(
            command, service.backend.schemas(call)
        ),
    ),
    m.GetTables: _metadata(
        metadata.tables_schema,
        lambda service, command, call: metadata.build_tables(
            command, service.backend.tables(call), service.encoded
        ),
    ),
    m.GetTableTypes: _metadata(
        _always(metadata.TABLE_TYPES),
        lambda service, _, _call: metadata.build_table_types(service.backend.table_types()),
    ),
    m.GetSqlInfo: _metadata(
        _always(sqlinfo.SQL_INFO),
        lambda service, command, _: sqlinfo.build_sql_info(command.info, _sql_info(service)),
    ),
    m.GetXdbcTypeInfo: _metadata(
        _always(xdbc.XDBC_TYPE_INFO),
        lambda _service, command, _call: xdbc.build_type_info(command.data_type),
    ),
    m.GetPrimaryKeys: _metadata(_always(metadata.PRIMARY_KEYS), lambda *_: metadata.no_rows()),
    m.GetExportedKeys: _NO_KEYS,
    m.GetImportedKeys: _NO_KEYS,
    m.GetCrossReference: _NO_KEYS,
}


def _sql_info(service: Service) -> dict[int, SqlInfoValue]:
    facts = service.facts
    return {**sqlinfo.server_facts(facts.name, facts.version), **service.backend.sql_info()}


def _cancel_flight_info(
    service: Service, request: m.CancelFlightInfo, call: Call
) -> Iterable[bytes]:
    yield codec.cancel_flight_info_result(statements.cancel(service, request.info, call))


def _cancel_query(service: Service, request: m.CancelQuery, call: Call) -> Iterable[bytes]:
    tickets = codec.decode_flight_info_tickets(request.info)
    yield codec.cancel_query_result(statements.cancel(service, tickets, call))


def _set_options(service: Service, request: m.SetSessionOptions, call: Call) -> Iterable[bytes]:
    errors = {}
    for name, value in request.session_options.items():
        try:
            call.session.set_option(name, service.backend.check_option(name, value))
        except FlightSqlError as error:
            errors[name] = _option_error(error)
    yield codec.set_options_result(errors)


def _option_error(error: FlightSqlError) -> m.OptionError:
    """The protocol has room for a number per name, not for words."""
    if isinstance(error, NotFound):
        return m.OptionError.INVALID_NAME
    return (
        m.OptionError.INVALID_VALUE if isinstance(error, InvalidArgument) else m.OptionError.ERROR
    )


def _close_session(service: Service, call: Call) -> Iterable[bytes]:
    if not service.sessions.close(call.session):
        raise NotFound("there is no session to close: no option was set, or no cookie was sent")
    yield codec.close_session_result(m.CloseStatus.CLOSED)


ACTIONS: Mapping[type[m.Message], Action] = {
    m.CreatePreparedStatement: Action(
        Permission.QUERY,
        prepared.prepare,
        "Prepare a statement. Request: ActionCreatePreparedStatementRequest in an Any; "
        "result: ActionCreatePreparedStatementResult in an Any.",
    ),
    m.CreatePreparedSubstraitPlan: Action(
        Permission.QUERY,
        prepared.prepare_substrait,
        "Prepare a Substrait plan. Request: ActionCreatePreparedSubstraitPlanRequest in an Any; "
        "result: ActionCreatePreparedStatementResult in an Any.",
        statements.SUBSTRAIT,
    ),
    m.ClosePreparedStatement: Action(
        Permission.QUERY,
        prepared.close_prepared,
        "Close a statement handle. Request: ActionClosePreparedStatementRequest in an Any; "
        "no result.",
    ),
    m.CancelFlightInfo: Action(
        Permission.CANCEL,
        _cancel_flight_info,
        "Stop the streams of a FlightInfo. Request: CancelFlightInfoRequest; "
        "result: CancelFlightInfoResult.",
    ),
    m.CancelQuery: Action(
        Permission.CANCEL,
        _cancel_query,
        "Deprecated form of CancelFlightInfo. Request: ActionCancelQueryRequest in an Any; "
        "result: ActionCancelQueryResult in an Any.",
    ),
    m.RenewFlightEndpoint: Action(
        Permission.QUERY,
        statements.renew,
        "Prolong the life of a ticket. Request: RenewFlightEndpointRequest; "
        "result: FlightEndpoint.",
    ),
    m.SetSessionOptions: Action(
        Permission.SESSION,
        _set_options,
        "Set options of the session (cookie). Request: SetSessionOptionsRequest; "
        "result: SetSessionOptionsResult.",
    ),
    m.GetSessionOptions: Action(
        Permission.SESSION,
        lambda service, _, call: (codec.get_options_result(service.backend.options(call)),),
        "The options of the session. Request: GetSessionOptionsRequest; "
        "result: GetSessionOptionsResult.",
    ),
    m.CloseSession: Action(
        Permission.SESSION,
        lambda service, _, call: _close_session(service, call),
        "End the session. Request: CloseSessionRequest; result: CloseSessionResult.",
    ),
    **dict.fromkeys(
        (m.BeginTransaction, m.BeginSavepoint, m.EndTransaction, m.EndSavepoint),
        Action(Permission.WRITE, writes.refuse_transaction, None),
    ),
}

#: Calls of the protocol that are not offered, with the reason in words.
UNSUPPORTED: Mapping[str, str] = {
    "PollFlightInfo": "pyarrow's server cannot offer it: use GetFlightInfo",
    "DoExchange": "Flight SQL has no use for it",
    "ListFlights": "statements are not listed: use GetFlightInfo",
}


def find_command(data: bytes, part: str) -> tuple[m.Message, Route]:
    """The command in ``data`` and its route, which has ``part``.

    Raises:
        MalformedMessage: no command.
        Unimplemented: it has no use in this kind of call.
    """
    command = codec.decode_command(data)
    route = COMMANDS[type(command)]  # a test walks the descriptors
    name = command.proto.rpartition(".")[2]
    if getattr(route, part) is None:
        raise Unimplemented(f"{name} has no use in this kind of call ({part})")
    return command, route


def find_action(name: str, body: bytes) -> tuple[m.Message, Action]:
    """The request of an action and its route.

    Raises:
        MalformedMessage: the body is not its request.
        Unimplemented: no such action.
    """
    request = codec.decode_action(name, body)
    return request, ACTIONS[type(request)]  # a test walks the descriptors


def list_actions(service: Service) -> list[tuple[str, str]]:
    """(type, description) of what is offered, sorted."""
    told = service.backend.sql_info()
    return sorted(
        (m.action_type(kind), action.description)
        for kind, action in ACTIONS.items()
        if action.description is not None and (action.if_told is None or told.get(action.if_told))
    )
