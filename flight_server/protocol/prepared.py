"""Prepared statements: prepare, bind, plan, close. A handle is a sealed statement.

Nothing is remembered between two calls: any server with the same key takes a handle. What is
remembered is only what was withdrawn (closed, or replaced by a later bind), in bounds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

import pyarrow as pa

from flight_server.protocol import codec, messages
from flight_server.protocol.backend import Call, Statement
from flight_server.protocol.errors import ResourceExhausted, StaleHandle, Unimplemented
from flight_server.protocol.handles import Opened, Purpose
from flight_server.protocol.metadata import describe
from flight_server.protocol.statements import (
    Info,
    Service,
    Stream,
    info_of,
    plan_statement,
    require_no_transaction,
    substrait,
)

#: Bound parameters travel inside the handle up to this size (they go back and forth twice).
MAX_PARAMETER_BYTES = 1024 * 1024
#: number of parameters, length of the statement
_HANDLE = struct.Struct(">HI")
#: Instead of a number of parameters: the statement is a Substrait plan.
_IS_PLAN = 0xFFFF


def prepare(
    service: Service, command: messages.CreatePreparedStatement, call: Call
) -> Iterable[bytes]:
    """A handle that holds the statement, the schema of its rows and of its parameters."""
    require_no_transaction(command.transaction_id)
    return _prepared(service, Statement(command.query), call)


def prepare_substrait(
    service: Service, command: messages.CreatePreparedSubstraitPlan, call: Call
) -> Iterable[bytes]:
    """A handle that holds the plan, and the schema of its rows."""
    return _prepared(service, substrait(service, command), call)


def _prepared(service: Service, statement: Statement, call: Call) -> Iterable[bytes]:
    service.authorize_statement(statement, call.principal)
    prepared = service.backend.prepare(statement, call)
    bound = _Bound(statement, len(prepared.parameters))
    payload = _handle_payload(bound, b"")
    handle = _seal_statement(service, payload, call)
    rows = b"" if prepared.is_update else describe(prepared.schema).serialize().to_pybytes()
    parameters = prepared.parameters.serialize().to_pybytes()
    yield codec.prepared_result(handle, rows, parameters, is_update=prepared.is_update)


def bind(
    service: Service,
    command: messages.PreparedStatementQuery,
    batches: Iterable[pa.RecordBatch],
    call: Call,
) -> bytes:
    """A new handle that holds the parameters too; a bound one that it replaces is stale."""
    opened, bound = _unseal_statement(service, command.prepared_statement_handle, call)
    parameters = _parameters_to_ipc(batches)
    if parameters and bound.statement.plan is not None:
        raise Unimplemented("Substrait plans have no parameters here: write values into the plan")
    payload = _handle_payload(bound, parameters)
    handle = _seal_statement(service, payload, call)
    if bound.statement.parameters is not None:
        service.retired.add(opened.id)
    return codec.bound_result(handle)


def prepared_info(service: Service, command: messages.PreparedStatementQuery, call: Call) -> Info:
    """Plan the statement with its bound parameters."""
    return info_of(
        service, plan_statement(service, _bound_statement(service, command, call), call), call
    )


def prepared_schema(
    service: Service, command: messages.PreparedStatementQuery, call: Call
) -> pa.Schema:
    """The schema of the rows; of unbound parameters, their inferred types are taken."""
    _, bound = _unseal_statement(service, command.prepared_statement_handle, call)
    if bound.lacks_parameters:
        return describe(service.backend.prepare(bound.statement, call).schema)
    return describe(plan_statement(service, bound.statement, call).schema)


def open_prepared(service: Service, command: messages.PreparedStatementQuery, call: Call) -> Stream:
    """Plan and open at once: the command itself may be used as a ticket."""
    planned = plan_statement(service, _bound_statement(service, command, call), call)
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


def prepared_statement(service: Service, sealed: bytes, call: Call) -> Statement:
    """The statement in a handle, with its bound parameters if there are any.

    Raises:
        HandleRefused, StaleHandle, PermissionDenied: see ``handles.py``.
    """
    _, bound = _unseal_statement(service, sealed, call)
    return bound.statement


@dataclass(frozen=True, slots=True)
class _Bound:
    statement: Statement
    count: int

    @property
    def lacks_parameters(self) -> bool:
        return self.count > 0 and self.statement.parameters is None


def _bound_statement(
    service: Service, command: messages.PreparedStatementQuery, call: Call
) -> Statement:
    _, bound = _unseal_statement(service, command.prepared_statement_handle, call)
    if bound.lacks_parameters:
        raise StaleHandle(
            f"the statement has {bound.count} parameter(s) and this handle has none bound: bind "
            "them with DoPut, then use the handle that its answer holds"
        )
    return bound.statement


def _seal_statement(service: Service, payload: bytes, call: Call) -> bytes:
    life_s = service.facts.statement_life_s
    return service.sealer.seal(Purpose.STATEMENT, call.principal.name, payload, life_s)


def _unseal_statement(service: Service, sealed: bytes, call: Call) -> tuple[Opened, _Bound]:
    opened = service.sealer.unseal_for(Purpose.STATEMENT, sealed, call.principal.name)
    if opened.id in service.retired:
        raise StaleHandle("this statement handle was closed, or replaced by a later bind")
    return opened, _bound_from_payload(opened.payload)


def _handle_payload(bound: _Bound, parameters: bytes) -> bytes:
    plan = bound.statement.plan
    if plan is not None:
        return _HANDLE.pack(_IS_PLAN, len(plan)) + plan
    text = bound.statement.query.encode()
    return _HANDLE.pack(bound.count, len(text)) + text + parameters


def _bound_from_payload(payload: bytes) -> _Bound:
    count, size = _HANDLE.unpack_from(payload)
    start = _HANDLE.size + size
    if count == _IS_PLAN:
        return _Bound(Statement("", None, payload[_HANDLE.size :]), 0)
    query = payload[_HANDLE.size : start].decode()
    return _Bound(Statement(query, _parameters_from_ipc(payload[start:])), count)


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
