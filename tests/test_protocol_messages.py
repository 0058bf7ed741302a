"""Bytes and messages: there and back, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_server.protocol import codec, messages
from flight_server.protocol.errors import FlightSqlError, MalformedMessage, Unimplemented

KINDS = (*messages.COMMANDS.values(), *messages.ACTIONS.values())

_OPTIONS = st.one_of(
    st.none(),
    st.text(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text()).map(tuple),
)
_SPECIAL: dict[Any, st.SearchStrategy[Any]] = {
    (messages.GetSqlInfo, "info"): st.lists(st.integers(0, 2**32 - 1)).map(tuple),
    (messages.GetXdbcTypeInfo, "data_type"): st.none() | st.integers(-(2**31), 2**31 - 1),
    (messages.SetSessionOptions, "session_options"): st.dictionaries(st.text(), _OPTIONS),
    (messages.StatementIngest, "options"): st.dictionaries(st.text(), st.text()),
}
_BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 3),
    bytes: st.binary(),
    str: st.text(),
    bool: st.booleans(),
    bytes | None: st.none() | st.binary(),
    str | None: st.none() | st.text(),
    tuple[str, ...]: st.lists(st.text()).map(tuple),
    tuple[bytes, ...]: st.lists(st.binary()).map(tuple),
}


def _values(kind: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    fields = {}
    for f in dataclasses.fields(kind):
        hint = hints[f.name]
        inner = [a for a in getattr(hint, "__args__", ()) if dataclasses.is_dataclass(a)]
        nested = st.none() | _values(inner[0]) if inner else None
        special = _SPECIAL.get((kind, f.name))
        fields[f.name] = next(s for s in (special, nested, _BY_TYPE.get(hint)) if s is not None)
    return st.builds(kind, **fields)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_message_survives_its_bytes(kind: type[messages.Message], data: st.DataObject) -> None:
    message = data.draw(_values(kind))
    if kind.proto in messages.COMMANDS:
        assert codec.decode_command(codec.encode_command(message)) == message
        return
    wrapped = kind.proto.startswith(codec.SQL_PACKAGE + ".")
    body = codec.encode_command(message) if wrapped else codec.encode_bare(message)
    assert codec.decode_action(messages.action_type(kind), body) == message


@given(junk=st.binary(max_size=300))
def test_junk_is_a_typed_error(junk: bytes) -> None:
    for decode in (
        codec.decode_command,
        codec.decode_flight_info_tickets,
        lambda data: codec.decode_action("CreatePreparedStatement", data),
        lambda data: codec.decode_action("SetSessionOptions", data),
    ):
        try:
            decode(junk)
        except FlightSqlError as error:
            assert error.code == "INVALID_ARGUMENT"  # noqa: PT017 - some junk is a message


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.integers(0, 30))
def test_damaged_commands_are_messages_or_typed_errors(position: int, flip: int, cut: int) -> None:
    command = messages.GetTables("lake", "market%", None, ("BASE TABLE",), include_schema=True)
    data = bytearray(codec.encode_command(command))
    data[position % len(data)] ^= flip
    try:
        codec.decode_command(bytes(data[: len(data) - cut]))
    except FlightSqlError as error:
        assert error.code in {"INVALID_ARGUMENT", "UNIMPLEMENTED"}  # noqa: PT017 - see above


def test_a_command_of_a_later_protocol_is_unimplemented() -> None:
    data = codec.encode_command(messages.GetCatalogs()).replace(b"GetCatalogs", b"GetMagicals")
    with pytest.raises(Unimplemented, match="CommandGetMagicals"):
        codec.decode_command(data)


def test_no_command_at_all_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="Flight SQL client"):
        codec.decode_command(b"")


def test_an_action_with_another_actions_body_is_malformed() -> None:
    body = codec.encode_command(messages.BeginTransaction())
    with pytest.raises(MalformedMessage, match="CreatePreparedStatement"):
        codec.decode_action("CreatePreparedStatement", body)


def test_text_that_is_no_utf8_is_malformed() -> None:
    data = codec.encode_command(messages.StatementQuery("select 1")).replace(
        b"select", b"s\xfflect"
    )
    with pytest.raises(MalformedMessage):
        codec.decode_command(data)


def test_a_prepared_result_says_that_it_is_no_update() -> None:
    """Field 4, explicitly false: JDBC otherwise guesses from the schema."""
    wrapped = codec._proto_class("google.protobuf.Any").FromString(
        codec.prepared_result(b"h", b"d", b"p", is_update=False)
    )
    assert wrapped.type_url.endswith("ActionCreatePreparedStatementResult")
    assert wrapped.value.endswith(b"\x20\x00")
    parsed = codec._proto_class(wrapped.type_url.rpartition("/")[2]).FromString(wrapped.value)
    assert (parsed.prepared_statement_handle, parsed.dataset_schema) == (b"h", b"d")
