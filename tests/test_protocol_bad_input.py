"""Bytes from a hostile client: each is a message, or a typed error; the server goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight
from support_flight import Numbers, act, descriptor, fetch, hand, make_service, serving, unwrapped

from flight_server.protocol import FlightSqlServer, codec, messages

QUERY = messages.StatementQuery("select n from numbers")
#: What a client may be told about its bytes; never INTERNAL, UNKNOWN or a stack.
TYPED = (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError)
SEED = 20261122


@pytest.fixture(scope="module")
def server() -> Iterator[FlightSqlServer]:
    with serving(make_service(Numbers())) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: FlightSqlServer) -> Iterator[flight.FlightClient]:
    with hand(server) as client:
        yield client


def damaged(good: bytes, count: int) -> Iterator[bytes]:
    """``good`` cut short, with flipped bits, with pieces doubled; and bytes of no meaning."""
    chance = random.Random(SEED)
    for _ in range(count):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(bad))
            bad[place] ^= 1 << chance.randrange(8)
        yield bytes(bad)
        yield good[: chance.randrange(len(good))]
        place = chance.randrange(len(good))
        yield good[:place] + good[place : place + 9] + good[place:]
        yield chance.randbytes(chance.randrange(80))


def _ticket_of(client: flight.FlightClient) -> bytes:
    ticket: bytes = client.get_flight_info(descriptor(QUERY)).endpoints[0].ticket.ticket
    return ticket


def _calls(client: flight.FlightClient) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """Name of each place for bytes → good bytes, and the call with other ones."""

    def do_action(name: str) -> Callable[[bytes], object]:
        return lambda body: list(client.do_action(flight.Action(name, body)))

    def get(data: bytes) -> object:
        return [chunk.data for chunk in client.do_get(flight.Ticket(data))]

    described = flight.FlightDescriptor.for_command
    (body,) = act(client, messages.CreatePreparedStatement(QUERY.query))
    handle = unwrapped(body, "ActionCreatePreparedStatementResult").prepared_statement_handle
    prepared = codec.encode_command(messages.PreparedStatementQuery(handle))
    ticket = _ticket_of(client)
    tables = codec.encode_command(messages.GetTables("lake", "d%", None, ("VIEW",), True))
    options = messages.SetSessionOptions({"schema": "x", "n": 5, "l": ("a", "b"), "f": 0.5})
    return {
        "descriptor": (codec.encode_command(QUERY), lambda d: client.get_flight_info(described(d))),
        "metadata": (tables, lambda d: client.get_flight_info(described(d))),
        "schema": (prepared, lambda d: client.get_schema(described(d))),
        "ticket": (ticket, get),
        "prepared ticket": (prepared, get),
        "prepare": (
            codec.encode_command(messages.CreatePreparedStatement(QUERY.query)),
            do_action("CreatePreparedStatement"),
        ),
        "close": (
            codec.encode_command(messages.ClosePreparedStatement(handle)),
            do_action("ClosePreparedStatement"),
        ),
        "cancel": (
            codec.encode_bare(messages.CancelFlightInfo((ticket,))),
            do_action("CancelFlightInfo"),
        ),
        "renew": (
            codec.encode_bare(messages.RenewFlightEndpoint(ticket)),
            do_action("RenewFlightEndpoint"),
        ),
        "options": (codec.encode_bare(options), do_action("SetSessionOptions")),
        "action": (b"CreatePreparedStatement", lambda d: do_action(d.hex())(b"")),
    }


@pytest.mark.parametrize(
    "place",
    [
        *("descriptor", "metadata", "schema", "ticket", "prepared ticket"),
        *("prepare", "close", "cancel", "renew", "options", "action"),
    ],
)
def test_damaged_bytes_are_an_answer_or_a_typed_error(
    client: flight.FlightClient, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Seeded; nothing becomes a defect: the log of unexpected errors stays empty."""
    good, call = _calls(client)[place]
    for bad in damaged(good, 40):
        try:
            call(bad)
        except TYPED as error:
            assert "Traceback" not in str(error)  # noqa: PT017 - some damage is a message
            assert ".py" not in str(error)  # noqa: PT017 - see above
    assert not caplog.records
    assert fetch(client, QUERY).num_rows == 5


# --- the put stream ------------------------------------------------------------------------------


def _array(kind: pa.DataType, size: int, *buffers: bytes | None, children: Any = None) -> pa.Array:
    wrapped = [None if each is None else pa.py_buffer(each) for each in buffers]
    return pa.Array.from_buffers(kind, size, wrapped, children=children)


def _int32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little", signed=True) for value in values)


FORGED = {
    "offset beyond the end": _array(pa.utf8(), 2, None, _int32(0, 10**9, 3), b"abc"),
    "offset that goes back": _array(pa.utf8(), 2, None, _int32(0, 3, 1), b"abc"),
    "negative offset": _array(pa.binary(), 2, None, _int32(0, -8, 3), b"abc"),
    "text that is no UTF-8": _array(pa.utf8(), 1, None, _int32(0, 3), b"\xff\xfe\xfd"),
    "list beyond its items": _array(
        pa.list_(pa.int8()), 2, None, _int32(0, 10**6, 1), children=[pa.array([1], pa.int8())]
    ),
    "index beyond the dictionary": pa.DictionaryArray.from_arrays(
        pa.array([7], pa.int32()), pa.array(["a"]), safe=False
    ),
    "decimal beyond its precision": _array(pa.decimal128(2, 0), 1, None, b"\xff" * 7 + b"\x7f" * 9),
}


def _prepared(client: flight.FlightClient) -> messages.PreparedStatementQuery:
    (body,) = act(client, messages.CreatePreparedStatement(QUERY.query))
    result = unwrapped(body, "ActionCreatePreparedStatementResult")
    return messages.PreparedStatementQuery(result.prepared_statement_handle)


@pytest.mark.parametrize("name", FORGED)
def test_forged_arrow_data_is_refused_before_anything_reads_it(
    client: flight.FlightClient, name: str
) -> None:
    """Offsets that point outside would end the process."""
    batch = pa.RecordBatch.from_arrays([FORGED[name]], ["x"])
    writer, reader = client.do_put(descriptor(_prepared(client)), batch.schema)
    writer.write_batch(batch)
    writer.done_writing()
    assert reader.read() is None
    with pytest.raises(pa.ArrowInvalid, match="Arrow data is not valid"):
        writer.close()


def _flight_data() -> list[tuple[bytes, bytes]]:
    """(header, body) of the messages of a sound upload."""
    batch = pa.record_batch({"x": ["a", "bcd", None], "y": [[1], [], [2, 3]]})
    found = []
    for encoded in (batch.schema.serialize(), batch.serialize()):
        message = pa.ipc.read_message(encoded)
        body = b"" if message.body is None else message.body.to_pybytes()
        found.append((message.metadata.to_pybytes(), body))
    return found


def _upload(server: FlightSqlServer, command: messages.Message, parts: Any) -> grpc.StatusCode:
    """The status that a hand-made DoPut ends with."""
    kind = codec._proto_class(f"{messages.FLIGHT_PACKAGE}.FlightData")

    def stream() -> Iterator[bytes]:
        for place, (header, body) in enumerate(parts):
            data = kind(data_header=header, data_body=body)
            if place == 0:
                data.flight_descriptor.type = 2
                data.flight_descriptor.cmd = codec.encode_command(command)
            yield data.SerializeToString()

    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
        answers = call(stream(), timeout=20)
        try:
            list(answers)
        except grpc.RpcError:
            text = answers.details() or ""
            assert "Traceback" not in text
            assert ".py" not in text
        code: grpc.StatusCode = answers.code()
        return code


def test_a_damaged_put_stream_is_an_answer_or_a_typed_error(
    server: FlightSqlServer, client: flight.FlightClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Header and body of schema and batch, damaged one by one.

    A first message whose schema cannot be parsed is refused before it comes to us: pyarrow opens
    the stream, and says UNKNOWN.
    """
    command = _prepared(client)
    good = _flight_data()
    assert _upload(server, command, good) is grpc.StatusCode.OK
    seen = set()
    for message in (0, 1):
        for part in (0, 1):
            if not good[message][part]:
                continue
            for bad in damaged(good[message][part], 15):
                parts = [list(each) for each in good]
                parts[message][part] = bad
                status = _upload(server, command, parts)
                if message == 1 or status is not grpc.StatusCode.UNKNOWN:
                    seen.add(status)
    assert seen <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    assert grpc.StatusCode.INVALID_ARGUMENT in seen
    assert not caplog.records
    assert fetch(client, QUERY).num_rows == 5


def test_a_put_without_rows_or_without_a_schema_is_answered(
    server: FlightSqlServer, client: flight.FlightClient
) -> None:
    command = _prepared(client)
    good = _flight_data()
    assert _upload(server, command, good[:1]) is grpc.StatusCode.OK
    assert _upload(server, command, [(b"", b"")]) in {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
    assert fetch(client, QUERY).num_rows == 5
