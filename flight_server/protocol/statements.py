"""Statements: plan, open, cancel, renew. Nothing is remembered between two calls.

A ticket is a sealed plan: any server with the same key takes it. What is
remembered is only what was withdrawn (closed, replaced, cancelled), in bounds.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

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
    MalformedMessage,
    PermissionDenied,
    StaleHandle,
    Unimplemented,
)
from flight_server.protocol.handles import Opened, Purpose, Retired, Sealer
from flight_server.protocol.metadata import EncodedSchemas, describe
from flight_server.protocol.running import Running

#: All tickets of one answer together, in bytes: some clients refuse messages over 4 MiB. A
#: statement whose shares take more gets one ticket for the whole.
_MAX_TICKETS_BYTES = 2 * 1024 * 1024
#: fingerprint of the promised schema, number of the compression
_TICKET = struct.Struct(">IB")
#: The code of GetSqlInfo that says whether Substrait plans are taken.
SUBSTRAIT = 5
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

    def authorize_statement(
        self, statement: Statement, principal: Principal, least: Permission | None = None
    ) -> None:
        """Ask the policy for what the statement itself needs, ``least`` where it says nothing.

        Raises:
            PermissionDenied: it says no.
        """
        permission = self.backend.permission(statement) or least
        if permission is not None:
            self.authorize(permission, principal)


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
    return info_of(service, plan_statement(service, _statement(command), call), call)


def query_schema(service: Service, command: messages.StatementQuery, call: Call) -> pa.Schema:
    """Plan the statement."""
    return describe(plan_statement(service, _statement(command), call).schema)


def substrait_info(service: Service, command: messages.StatementSubstraitPlan, call: Call) -> Info:
    """Plan the Substrait plan and seal that into a ticket."""
    return info_of(service, plan_statement(service, substrait(service, command), call), call)


def substrait_schema(
    service: Service, command: messages.StatementSubstraitPlan, call: Call
) -> pa.Schema:
    """Plan the Substrait plan."""
    return describe(plan_statement(service, substrait(service, command), call).schema)


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
    require_no_transaction(command.transaction_id)
    return Statement(command.query)


def substrait(
    service: Service,
    command: messages.StatementSubstraitPlan | messages.CreatePreparedSubstraitPlan,
) -> Statement:
    """The plan as a statement.

    Raises:
        Unimplemented: the backend takes none, as GetSqlInfo says.
        MalformedMessage: the command has none.
    """
    require_no_transaction(command.transaction_id)
    if not service.backend.sql_info().get(SUBSTRAIT):
        raise Unimplemented("Substrait plans are not offered: send SQL")
    if command.plan is None or not command.plan.plan:
        raise MalformedMessage("the command holds no Substrait plan")
    return Statement("", None, command.plan.plan)


def require_no_transaction(transaction_id: bytes | None) -> None:
    """Raises Unimplemented where there is one."""
    if transaction_id:
        raise Unimplemented("there are no transactions: send statements without transaction_id")


def plan_statement(service: Service, statement: Statement, call: Call) -> Planned:
    """The backend's plan, once the caller may do what the statement does."""
    service.authorize_statement(statement, call.principal)
    return service.backend.plan(statement, call)


def info_of(service: Service, planned: Planned, call: Call) -> Info:
    """A plan, sealed into tickets."""
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
