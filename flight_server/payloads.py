"""What a ticket says: statement, parameters, options, pins, share. No segment files (rule 17)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import pyarrow as pa

from catalog.errors import VersionGone
from catalog.offsets import MALFORMED
from catalog.tables import Pin
from flight_server.plans import Options, Plan, Statement
from flight_server.shares import Share

#: Length of the JSON part; a Substrait plan (its length is in the JSON part) and the parameters, as
#: an Arrow IPC stream, follow.
_HEAD = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Payload:
    """What a ticket says.

    Attributes:
        statement, options, pins: the plan's.
        share: which rows; None: all.
    """

    statement: Statement
    options: Options
    pins: tuple[Pin, ...]
    share: Share | None = None


def payload_of(plan: Plan, share: Share | None = None) -> bytes:
    """What :func:`read_payload` reads, here or on another server."""
    options, substrait = plan.options, plan.statement.substrait or b""
    head = {
        "q": plan.statement.sql,
        "o": [options.schema, options.time_zone, options.timeout_s],
        "p": [pin.to_json() for pin in plan.pins],
        "s": None if share is None else [share.by, share.first, share.next],
        "b": len(substrait),
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return _HEAD.pack(len(text)) + text + substrait + _to_ipc(plan.statement.parameters)


def read_payload(payload: bytes) -> Payload:
    """The inverse of :func:`payload_of`; the seal has been checked.

    Raises:
        VersionGone: another version of this program made it.
    """
    try:
        (size,) = _HEAD.unpack_from(payload)
        head = json.loads(payload[_HEAD.size : _HEAD.size + size])
        sql, options, pins = head["q"], Options(*head["o"]), head["p"]
        share = None if head["s"] is None else Share(*head["s"])
        start, length = _HEAD.size + size, head["b"]
        substrait = payload[start : start + length] if length else None
        parameters = _from_ipc(payload[start + length :])
    except (struct.error, *MALFORMED, OSError, pa.ArrowException, StopIteration) as error:
        raise VersionGone(
            "another version of this server made the ticket: plan the statement again"
        ) from error
    found = tuple(Pin.from_json(pin) for pin in pins)
    return Payload(Statement(sql, parameters, substrait), options, found, share)


def session_payload(sql: str) -> bytes:
    """A ticket about the session: no JSON part, and the statement as text."""
    return _HEAD.pack(0) + sql.encode()


def read_session_payload(payload: bytes) -> str | None:
    """The statement of :func:`session_payload`; None: the payload is another one."""
    if len(payload) <= _HEAD.size or any(payload[: _HEAD.size]):
        return None
    return payload[_HEAD.size :].decode()


def _to_ipc(parameters: pa.RecordBatch | None) -> bytes:
    if parameters is None:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, parameters.schema) as writer:
        writer.write_batch(parameters)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _from_ipc(encoded: bytes) -> pa.RecordBatch | None:
    return pa.ipc.open_stream(encoded).read_next_batch() if encoded else None
