"""Statements: plan, prepare, bind, open, cancel. Nothing is remembered between two calls.

A ticket is a sealed plan, a statement handle a sealed statement: any server with the same key takes
them. What is remembered is only what was withdrawn (closed, replaced, cancelled), in bounds.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO

import pyarrow as pa

from flight_server.protocol import codec, messages
from flight_server.protocol.backend import (
    COMPRESSIONS,
    Backend,
    Call,
    Permission,
    Planned,
    Policy,
    Principal,
    Rows,
    Sessions,
    Statement,
    allow_all,
)
from flight_server.protocol.defaults import NoSessions
from flight_server.protocol.errors import (
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    StaleHandle,
    Unimplemented,
)
from flight_server.protocol.handles import Opened, Purpose, Retired, Sealer
from flight_server.protocol.metadata import EncodedSchemas, describe
from flight_server.protocol.running import Running

#: Bound parameters travel inside the handle up to this size (they go back and forth twice).
MAX_PARAMETER_BYTES = 1024 * 1024
#: number of parameters, length of the query
_HANDLE = struct.Struct(">HI")
#: All tickets of one answer together, in bytes: some clients refuse messages over 4 MiB. A
#: statement whose shares take more gets one ticket for the whole.
_MAX_TICKETS_BYTES = 2 * 1024 * 1024
#: fingerprint of the promised schema, number of the compression
_TICKET = struct.Struct(">IB")
#: Their places are the numbers.
_COMPRESSIONS = (None, *COMPRESSIONS)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself.

    Attributes:
        name, version: in GetSqlInfo.
        ticket_life_s: how long a ticket can be redeemed.
        statement_life_s: how long a statement handle can be used.
    """

    name: str = "Flight SQL server"
    version: str = "0"
    ticket_life_s: float = 600.0
    statement_life_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Service:
    """What every route works with. Immutable but for the three bounded registers."""

    backend: Backend
    sealer: Sealer
    sessions: Sessions = field(default_factory=NoSessions)
    facts: Facts = field(default_factory=Facts)
    policy: Policy = allow_all
    retired: Retired = field(default_factory=Retired)
    running: Running = field(default_factory=Running)
    encoded: EncodedSchemas = field(default_factory=EncodedSchemas)

    def authorize(self, permission: Permission, principal: Principal) -> None:
        """Ask the policy.

        Raises:
            PermissionDenied: it says no.
        """
        if not self.policy(permission, principal):
            raise PermissionDenied(f"{principal.name} lacks the permission {permission.value!r}")


@dataclass(frozen=True, slots=True)
class Info:
    """The answer to GetFlightInfo: one endpoint per ticket.

    Attributes:
        schema: of each stream.
        tickets: for DoGet; the rows of several are in no order.
        expires_s: seconds since the epoch until which the ticket can be redeemed, again and
            again; None: no promise.
    """

    schema: pa.Schema
    tickets: tuple[bytes, ...]
    expires_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """The answer to DoGet.

    Attributes:
        schema: what is announced: the rows' schema and SQL types in the fields' metadata.
        rows: the source.
        ticket_id: what CancelFlightInfo knows it by.
        compression: of the buffers; None: none.
    """

    schema: pa.Schema
    rows: Rows
    ticket_id: bytes | None = None
    compression: str | None = None


# --- statements --------------------------------------------------------------------------------


def query_info(service: Service, command: messages.StatementQuery, call: Call) -> Info:
    """Plan the statement and seal the plan into a ticket."""
    return _info(service, _plan(service, _statement(command), call), call)


def query_schema(service: Service, command: messages.StatementQuery, call: Call) -> pa.Schema:
    """Plan the statement."""
    return describe(_plan(service, _statement(command), call).schema)


def open_ticket(service: Service, command: messages.TicketStatementQuery, call: Call) -> Stream:
    """Open the plan in a ticket.

    Raises:
        HandleRefused, PermissionDenied: see ``handles.py``.
        StaleHandle: the ticket has expired or was cancelled.
    """
    opened = _unseal_ticket(service, command.statement_handle, call)
    if opened.id in service.retired:
        raise StaleHandle("this ticket was cancelled; plan the statement again")
    promised, compression = _TICKET.unpack_from(opened.payload)
    rows = service.backend.open(opened.payload[_TICKET.size :], call)
    if _fingerprint(rows.schema) != promised:
        rows.close()
        raise Internal("the stream's schema is not the one that was promised; plan it again")
    return Stream(describe(rows.schema), rows, opened.id, _COMPRESSIONS[compression])


def _statement(command: messages.StatementQuery) -> Statement:
    _refuse_transaction(command.transaction_id)
    return Statement(command.query)


def _refuse_transaction(transaction_id: bytes | None) -> None:
    if transaction_id:
        raise Unimplemented("there are no transactions: send statements without transaction_id")


def _plan(service: Service, statement: Statement, call: Call) -> Planned:
    return service.backend.plan(statement, call)


def _info(service: Service, planned: Planned, call: Call) -> Info:
    compression = _COMPRESSIONS.index(planned.compression)
    head = _TICKET.pack(_fingerprint(planned.schema), compression)
    name, life_s = call.principal.name, service.facts.ticket_life_s
    fits = sum(map(len, planned.shares)) <= _MAX_TICKETS_BYTES
    tickets = (
        service.sealer.seal(Purpose.TICKET, name, head + payload, life_s)
        for payload in (planned.shares if planned.shares and fits else (planned.payload,))
    )
    encoded = (codec.encode_command(messages.TicketStatementQuery(each)) for each in tickets)
    return Info(describe(planned.schema), tuple(encoded), time.time() + life_s)


def _fingerprint(schema: pa.Schema) -> int:
    return zlib.crc32(schema.serialize())


def _unseal_ticket(service: Service, sealed: bytes, call: Call) -> Opened:
    return service.sealer.unseal_for(Purpose.TICKET, sealed, call.principal.name)


# --- prepared statements -----------------------------------------------------------------------


def prepare(
    service: Service, command: messages.CreatePreparedStatement, call: Call
) -> Iterable[bytes]:
    """A handle that holds the statement, the schema of its rows and of its parameters."""
    _refuse_transaction(command.transaction_id)
    prepared = service.backend.prepare(command.query, call)
    payload = _handle_payload(command.query, len(prepared.parameters), b"")
    handle = _seal_statement(service, payload, call)
    rows, parameters = describe(prepared.schema), prepared.parameters
    yield codec.prepared_result(
        handle, rows.serialize().to_pybytes(), parameters.serialize().to_pybytes()
    )


def bind(
    service: Service,
    command: messages.PreparedStatementQuery,
    batches: Iterable[pa.RecordBatch],
    call: Call,
) -> bytes:
    """A new handle that holds the parameters too; a bound one that it replaces is stale."""
    opened, bound = _unseal_statement(service, command.prepared_statement_handle, call)
    parameters = _parameters_to_ipc(batches)
    payload = _handle_payload(bound.query, bound.count, parameters)
    handle = _seal_statement(service, payload, call)
    if bound.parameters is not None:
        service.retired.add(opened.id)
    return codec.bound_result(handle)


def prepared_info(service: Service, command: messages.PreparedStatementQuery, call: Call) -> Info:
    """Plan the statement with its bound parameters."""
    return _info(service, _plan(service, _bound_statement(service, command, call), call), call)


def prepared_schema(
    service: Service, command: messages.PreparedStatementQuery, call: Call
) -> pa.Schema:
    """The schema of the rows; of unbound parameters, their inferred types are taken."""
    _, bound = _unseal_statement(service, command.prepared_statement_handle, call)
    if bound.count and bound.parameters is None:
        return describe(service.backend.prepare(bound.query, call).schema)
    return describe(_plan(service, Statement(bound.query, bound.parameters), call).schema)


def open_prepared(service: Service, command: messages.PreparedStatementQuery, call: Call) -> Stream:
    """Plan and open at once: the command itself may be used as a ticket."""
    planned = _plan(service, _bound_statement(service, command, call), call)
    rows = service.backend.open(planned.payload, call)
    return Stream(describe(rows.schema), rows, compression=planned.compression)


def close_prepared(
    service: Service, command: messages.ClosePreparedStatement, call: Call
) -> Iterable[bytes]:
    """The handle is refused from now on (on this server); closing twice is fine."""
    sealed = command.prepared_statement_handle
    try:
        opened = service.sealer.unseal_for(Purpose.STATEMENT, sealed, call.principal.name)
    except StaleHandle:
        return ()
    service.retired.add(opened.id)
    return ()


@dataclass(frozen=True, slots=True)
class _Bound:
    query: str
    count: int
    parameters: pa.RecordBatch | None


def _bound_statement(
    service: Service, command: messages.PreparedStatementQuery, call: Call
) -> Statement:
    _, bound = _unseal_statement(service, command.prepared_statement_handle, call)
    if bound.count and bound.parameters is None:
        raise StaleHandle(
            f"the statement has {bound.count} parameter(s) and this handle has none bound: bind "
            "them with DoPut, then use the handle that its answer holds"
        )
    return Statement(bound.query, bound.parameters)


def _seal_statement(service: Service, payload: bytes, call: Call) -> bytes:
    life_s = service.facts.statement_life_s
    return service.sealer.seal(Purpose.STATEMENT, call.principal.name, payload, life_s)


def _unseal_statement(service: Service, sealed: bytes, call: Call) -> tuple[Opened, _Bound]:
    opened = service.sealer.unseal_for(Purpose.STATEMENT, sealed, call.principal.name)
    if opened.id in service.retired:
        raise StaleHandle("this statement handle was closed, or replaced by a later bind")
    return opened, _bound_from_payload(opened.payload)


def _handle_payload(query: str, count: int, parameters: bytes) -> bytes:
    text = query.encode()
    return _HANDLE.pack(count, len(text)) + text + parameters


def _bound_from_payload(payload: bytes) -> _Bound:
    count, size = _HANDLE.unpack_from(payload)
    start = _HANDLE.size + size
    query = payload[_HANDLE.size : start].decode()
    return _Bound(query, count, _parameters_from_ipc(payload[start:]))


def _parameters_to_ipc(batches: Iterable[pa.RecordBatch]) -> bytes:
    """All batches as one Arrow IPC stream; nothing bound: no bytes.

    Raises:
        ResourceExhausted: above :data:`MAX_PARAMETER_BYTES`.
    """
    sink, writer = BytesIO(), None
    for batch in batches:
        if batch.num_rows == 0 or batch.num_columns == 0:
            continue
        if sink.tell() + batch.nbytes > MAX_PARAMETER_BYTES:
            raise ResourceExhausted(
                f"bound parameters may take {MAX_PARAMETER_BYTES} bytes: bind fewer rows at once"
            )
        writer = writer or pa.ipc.new_stream(sink, batch.schema)
        writer.write_batch(batch)
    if writer is None:
        return b""
    writer.close()
    return sink.getvalue()


def _parameters_from_ipc(encoded: bytes) -> pa.RecordBatch | None:
    if not encoded:
        return None
    table = pa.ipc.open_stream(encoded).read_all().combine_chunks()
    (batch,) = table.to_batches()
    return batch


# --- cancelling and renewing ---------------------------------------------------------------------


def cancel(service: Service, tickets: Iterable[bytes], call: Call) -> messages.CancelStatus:
    """Stop what the tickets started here, and refuse them from now on."""
    status = messages.CancelStatus.NOT_CANCELLABLE
    for ticket in tickets:
        command = codec.decode_command(ticket)
        if not isinstance(command, messages.TicketStatementQuery):
            continue  # metadata: answered faster than cancelled
        opened = _unseal_ticket(service, command.statement_handle, call)
        service.retired.add(opened.id)
        service.running.cancel(opened.id)
        status = messages.CancelStatus.CANCELLED
    return status


def renew(service: Service, command: messages.RenewFlightEndpoint, call: Call) -> Iterable[bytes]:
    """The same ticket with a new life."""
    inner = codec.decode_command(command.endpoint)
    if not isinstance(inner, messages.TicketStatementQuery):
        raise InvalidArgument("only the ticket of a statement has a life that can be renewed")
    opened = _unseal_ticket(service, inner.statement_handle, call)
    if opened.id in service.retired:
        raise StaleHandle("this ticket was cancelled; plan the statement again")
    name, life_s = call.principal.name, service.facts.ticket_life_s
    sealed = service.sealer.seal(Purpose.TICKET, name, opened.payload, life_s, opened.id)
    ticket = codec.encode_command(messages.TicketStatementQuery(sealed))
    yield codec.endpoint_result(ticket, time.time() + life_s)
