"""Bytes ↔ the frozen values of ``messages.py``. The only importer of protobuf.

The protocol's descriptors live in a private pool, so that a client library that registers the same
names can sit in the same process; type URLs are the protocol's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar  # Any: protobuf's classes are made at run time

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from flight_server.protocol.errors import MalformedMessage, Unimplemented, cut
from flight_server.protocol.messages import (
    ACTIONS,
    COMMANDS,
    FLIGHT_PACKAGE,
    SQL_PACKAGE,
    CancelFlightInfo,
    CancelStatus,
    CloseStatus,
    Message,
    OptionError,
    OptionValue,
    RenewFlightEndpoint,
    SetSessionOptions,
    SubstraitPlan,
    TableDefinitionOptions,
)

_TYPE_URL = "type.googleapis.com/"

#: Field 4 (optional bool) of ActionCreatePreparedStatementResult, newer than our copy of the
#: protocol: whether the statement gives rows, said explicitly (JDBC otherwise guesses by the
#: schema).
_IS_UPDATE = {False: b"\x20\x00", True: b"\x20\x01"}


def _load_pool() -> descriptor_pool.DescriptorPool:
    compiled = files("flight_server.protocol").joinpath("proto/flight_sql.desc").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.Add(file)
    return pool


#: Ours alone: protobuf's default pool knows nothing of it.
POOL = _load_pool()


@cache
def _proto_class(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


M = TypeVar("M", bound=Message)


def decode_command(data: bytes) -> Message:
    """The command in a descriptor or ticket.

    Raises:
        MalformedMessage: the bytes are no message, or no command of Flight SQL.
        Unimplemented: a command of Flight SQL that this version of the protocol does not know.
    """
    try:
        wrapped = _parse("google.protobuf.Any", data)
    except MalformedMessage as error:
        raise _unknown_command("") from error
    name = wrapped.type_url.rpartition("/")[2]
    kind = COMMANDS.get(name)
    if kind is None:
        raise _unknown_command(name)
    return _from_proto(kind, _parse(name, wrapped.value))


def _unknown_command(name: str) -> MalformedMessage | Unimplemented:
    if name.startswith(SQL_PACKAGE + "."):
        return Unimplemented(f"{cut(name, 200)} is not a command that this server knows")
    return MalformedMessage(
        "the descriptor or ticket holds no Flight SQL command: use a Flight SQL client, or wrap "
        f"a message of {SQL_PACKAGE} in google.protobuf.Any"
    )


def decode_action(name: str, body: bytes) -> Message:
    """The request in an action's body; SQL actions are wrapped in Any, Flight's own are not.

    Raises:
        Unimplemented: no such action.
        MalformedMessage: the body is not its request.
    """
    kind = ACTIONS.get(name)
    if kind is None:
        raise Unimplemented(
            f"there is no action {cut(name, 200)!r}; ListActions names those there are"
        )
    if not kind.proto.startswith(SQL_PACKAGE + "."):
        return _from_proto(kind, _parse(kind.proto, body))
    wrapped = _parse("google.protobuf.Any", body)
    if wrapped.type_url.rpartition("/")[2] != kind.proto:
        raise MalformedMessage(f"the body of action {name} is not a {kind.proto} in an Any")
    return _from_proto(kind, _parse(kind.proto, wrapped.value))


def decode_as(kind: type[M], data: bytes) -> M:
    """``data`` as a bare message of ``kind``."""
    value = _from_proto(kind, _parse(kind.proto, data))
    assert isinstance(value, kind)  # noqa: S101 - for the type checker: _from_proto built it
    return value


def decode_flight_info_tickets(data: bytes) -> tuple[bytes, ...]:
    """The tickets in a serialised FlightInfo (what CancelQuery carries)."""
    return _tickets(_parse(f"{FLIGHT_PACKAGE}.FlightInfo", data))


def encode_command(message: Message) -> bytes:
    """``message`` wrapped in an Any: a descriptor's command, a ticket, an SQL action's body."""
    return _wrap(message.proto, encode_bare(message))


def encode_bare(message: Message) -> bytes:
    """``message`` without an Any."""
    encoded: bytes = _to_proto(message).SerializeToString(deterministic=True)
    return encoded


def prepared_result(
    handle: bytes, dataset_schema: bytes, parameter_schema: bytes, *, is_update: bool
) -> bytes:
    """ActionCreatePreparedStatementResult in an Any; schemas as IPC."""
    name = f"{SQL_PACKAGE}.ActionCreatePreparedStatementResult"
    result = _proto_class(name)(
        prepared_statement_handle=handle,
        dataset_schema=dataset_schema,
        parameter_schema=parameter_schema,
    )
    return _wrap(name, result.SerializeToString() + _IS_UPDATE[is_update])


def update_result(record_count: int) -> bytes:
    """DoPutUpdateResult (bare); -1: not known."""
    return _bare("DoPutUpdateResult", SQL_PACKAGE, record_count=record_count)


def bound_result(handle: bytes) -> bytes:
    """DoPutPreparedStatementResult (bare): the handle that replaces the one bound."""
    return _bare("DoPutPreparedStatementResult", SQL_PACKAGE, prepared_statement_handle=handle)


def cancel_query_result(status: CancelStatus) -> bytes:
    """ActionCancelQueryResult in an Any."""
    name = f"{SQL_PACKAGE}.ActionCancelQueryResult"
    return _wrap(name, _proto_class(name)(result=int(status)).SerializeToString())


def cancel_flight_info_result(status: CancelStatus) -> bytes:
    """CancelFlightInfoResult (bare)."""
    return _bare("CancelFlightInfoResult", FLIGHT_PACKAGE, status=int(status))


def endpoint_result(ticket: bytes, expires_s: float) -> bytes:
    """FlightEndpoint (bare) with no location and the expiry in seconds since the epoch."""
    endpoint = _proto_class(f"{FLIGHT_PACKAGE}.FlightEndpoint")()
    endpoint.ticket.ticket = ticket
    endpoint.expiration_time.seconds = int(expires_s)
    encoded: bytes = endpoint.SerializeToString()
    return encoded


def close_session_result(status: CloseStatus) -> bytes:
    """CloseSessionResult (bare)."""
    return _bare("CloseSessionResult", FLIGHT_PACKAGE, status=int(status))


def set_options_result(errors: Mapping[str, OptionError]) -> bytes:
    """SetSessionOptionsResult (bare): only the names that were not set."""
    result = _proto_class(f"{FLIGHT_PACKAGE}.SetSessionOptionsResult")()
    for name, error in errors.items():
        result.errors[name].value = int(error)
    encoded: bytes = result.SerializeToString()
    return encoded


def get_options_result(options: Mapping[str, OptionValue]) -> bytes:
    """GetSessionOptionsResult (bare)."""
    result = _proto_class(f"{FLIGHT_PACKAGE}.GetSessionOptionsResult")()
    for name, value in options.items():
        _set_option(result.session_options[name], value)
    encoded: bytes = result.SerializeToString()
    return encoded


# --- generic conversion ------------------------------------------------------------------------


def _parse(name: str, data: bytes) -> Any:
    try:
        return _proto_class(name).FromString(data)
    except (DecodeError, ValueError, TypeError) as error:
        raise MalformedMessage(f"these {len(data)} bytes are no {name}") from error


def _wrap(name: str, value: bytes) -> bytes:
    wrapped = _proto_class("google.protobuf.Any")(type_url=_TYPE_URL + name, value=value)
    encoded: bytes = wrapped.SerializeToString(deterministic=True)
    return encoded


def _bare(name: str, package: str, **values: object) -> bytes:
    encoded: bytes = _proto_class(f"{package}.{name}")(**values).SerializeToString()
    return encoded


def _from_proto(kind: type[Message], parsed: Any) -> Message:
    return kind(**{name: read(parsed) for name, read in _READERS[kind]})


def _reader(kind: type[Message], name: str) -> Callable[[Any], object]:
    special = _SPECIAL.get((kind, name))
    if special is not None:
        return special
    described = POOL.FindMessageTypeByName(kind.proto).fields_by_name[name]
    if described.is_repeated:
        if described.message_type is not None:  # a map<string, string>
            return lambda parsed: dict(getattr(parsed, name))
        return lambda parsed: tuple(getattr(parsed, name))
    if described.message_type is not None:
        inner = _NESTED[described.message_type.full_name]
        return lambda parsed: (
            _from_proto(inner, getattr(parsed, name)) if parsed.HasField(name) else None
        )
    if described.has_presence:
        return lambda parsed: getattr(parsed, name) if parsed.HasField(name) else None
    return lambda parsed: getattr(parsed, name)


def _to_proto(message: Message) -> Any:
    built = _proto_class(message.proto)()
    for f in fields(message):  # type: ignore[arg-type]  # every Message is a dataclass
        value = getattr(message, f.name)
        write = _SPECIAL_WRITE.get((type(message), f.name))
        if write is not None:
            write(built, value)
        elif isinstance(value, Message):
            getattr(built, f.name).CopyFrom(_to_proto(value))
        elif isinstance(value, Mapping):
            getattr(built, f.name).update(value)
        elif isinstance(value, tuple):
            getattr(built, f.name).extend(value)
        elif value is not None:
            setattr(built, f.name, value)
    return built


def _tickets(info: Any) -> tuple[bytes, ...]:
    return tuple(endpoint.ticket.ticket for endpoint in info.endpoint)


def _add_tickets(request: Any, tickets: tuple[bytes, ...]) -> None:
    for ticket in tickets:
        request.info.endpoint.add().ticket.ticket = ticket


def _get_option(value: Any) -> OptionValue:
    which = value.WhichOneof("option_value")
    if which is None:
        return None
    found = getattr(value, which)
    return tuple(found.values) if which == "string_list_value" else found


def _set_option(target: Any, value: OptionValue) -> None:
    if isinstance(value, tuple):
        target.string_list_value.values.extend(value)
    elif isinstance(value, bool):  # before int: a bool is one
        target.bool_value = value
    elif isinstance(value, int):
        target.int64_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif value is not None:
        target.string_value = value
    else:
        target.ClearField("string_value")


def _set_options(request: Any, options: Mapping[str, OptionValue]) -> None:
    for name, value in options.items():
        _set_option(request.session_options[name], value)


def _set_endpoint(request: Any, ticket: bytes) -> None:
    request.endpoint.ticket.ticket = ticket


_NESTED: Mapping[str, type[Message]] = {
    kind.proto: kind for kind in (SubstraitPlan, TableDefinitionOptions)
}

_SPECIAL: Mapping[tuple[type[Message], str], Callable[[Any], object]] = {
    (CancelFlightInfo, "info"): lambda parsed: _tickets(parsed.info),
    (RenewFlightEndpoint, "endpoint"): lambda parsed: parsed.endpoint.ticket.ticket,
    (SetSessionOptions, "session_options"): lambda parsed: {
        name: _get_option(value) for name, value in parsed.session_options.items()
    },
}

_SPECIAL_WRITE: Mapping[tuple[type[Message], str], Callable[[Any, Any], None]] = {
    (CancelFlightInfo, "info"): _add_tickets,
    (RenewFlightEndpoint, "endpoint"): _set_endpoint,
    (SetSessionOptions, "session_options"): _set_options,
}

_READERS: Mapping[type[Message], tuple[tuple[str, Callable[[Any], object]], ...]] = {
    kind: tuple((f.name, _reader(kind, f.name)) for f in fields(kind))  # type: ignore[arg-type]  # every Message is a dataclass
    for kind in (*COMMANDS.values(), *ACTIONS.values(), *_NESTED.values())
}
