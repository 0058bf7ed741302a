"""Bound parameters over the wire: every type, many rows, the bound; handles that nobody closes."""

from __future__ import annotations

import datetime as dt
import resource
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight
from support_backend import Site
from support_flight import KEY, Numbers, act, descriptor, fetch, hand, make_service, serving
from support_flight import unwrapped as unwrap

from flight_server.protocol import Call, Principal, Sealer, codec, messages, routes
from flight_server.protocol.defaults import NoSession
from flight_server.protocol.handles import Retired


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[flight.FlightClient]:
    place = Site(tmp_path_factory.mktemp("site"))
    with serving(place.service()) as server, hand(server) as client:
        yield client
    place.close()


def prepare(client: flight.FlightClient, query: str) -> bytes:
    (body,) = act(client, messages.CreatePreparedStatement(query))
    handle: bytes = unwrap(body, "ActionCreatePreparedStatementResult").prepared_statement_handle
    return handle


def bind(client: flight.FlightClient, handle: bytes, table: pa.Table, rows: int = 1000) -> bytes:
    """The handle that takes the place of ``handle``."""
    writer, reader = client.do_put(
        descriptor(messages.PreparedStatementQuery(handle)), table.schema
    )
    writer.write_table(table, max_chunksize=rows)
    writer.done_writing()
    answer = reader.read()
    writer.close()
    name = f"{messages.SQL_PACKAGE}.DoPutPreparedStatementResult"
    new: bytes = codec._parse(name, answer.to_pybytes()).prepared_statement_handle
    return new


def answer(client: flight.FlightClient, query: str, table: pa.Table) -> list[dict[str, Any]]:
    handle = bind(client, prepare(client, query), table)
    rows: list[dict[str, Any]] = fetch(client, messages.PreparedStatementQuery(handle)).to_pylist()
    return rows


_DAY = dt.date(2026, 1, 2)
_TEXTS = [
    pa.array(["two"]),
    pa.array(["two"], pa.large_string()),
    pa.array(["two"], pa.string_view()),
    pa.array(["two"]).dictionary_encode(),
]
_NUMBERS = [
    *(pa.array([2], kind) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.int64())),
    *(pa.array([2.0], kind) for kind in (pa.float32(), pa.float64())),
    pa.array([Decimal("2.00")], pa.decimal128(9, 2)),
    pa.array([2]).dictionary_encode(),
]


@pytest.mark.parametrize("value", _TEXTS, ids=lambda value: str(value.type)[:20])
def test_text_may_come_in_any_of_its_types(client: flight.FlightClient, value: pa.Array) -> None:
    query = "select n from demo.numbers where label = ?"
    assert answer(client, query, pa.table({"x": value})) == [{"n": 2}]


@pytest.mark.parametrize("value", _NUMBERS, ids=lambda value: str(value.type)[:20])
def test_numbers_may_come_in_any_of_their_types(
    client: flight.FlightClient, value: pa.Array
) -> None:
    query = "select n from demo.numbers where n = $1"
    assert answer(client, query, pa.table({"x": value})) == [{"n": 2}]


@pytest.mark.parametrize(
    ("sql_type", "value"),
    [
        ("date", pa.array([_DAY])),
        ("timestamp", pa.array([dt.datetime(2026, 1, 2, 3)], pa.timestamp("us"))),  # noqa: DTZ001
        ("timestamp", pa.array([dt.datetime(2026, 1, 2, 3)], pa.timestamp("ns"))),  # noqa: DTZ001
        ("time", pa.array([dt.time(1, 2, 3)], pa.time64("us"))),
        ("bytea", pa.array([b"\0\xff"])),
        ("boolean", pa.array([True])),
        ("double", pa.array([0.25])),
        ("decimal(9, 3)", pa.array([Decimal("1.125")])),
        ("bigint", pa.nulls(1)),
        ("varchar", pa.array([None], pa.int32())),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_a_value_comes_back_as_it_went(
    client: flight.FlightClient, sql_type: str, value: pa.Array
) -> None:
    (row,) = answer(client, f"select cast(? as {sql_type}) as x", pa.table({"x": value}))
    assert row["x"] == value[0].as_py()


def test_a_value_of_a_wrong_type_names_its_parameter(client: flight.FlightClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"parameter \$1 is of type int64.*'soon'"):
        answer(client, "select n from demo.numbers where n = ?", pa.table({"x": ["soon"]}))


def test_many_rows_are_one_execution_however_they_are_cut(client: flight.FlightClient) -> None:
    """All sets, in the order that they were sent, as one result."""
    sets = [i % 5 + 1 for i in range(1000)]
    query = "select n from demo.numbers where n = ?"
    handle = bind(client, prepare(client, query), pa.table({"x": sets}), rows=17)
    got = fetch(client, messages.PreparedStatementQuery(handle))["n"].to_pylist()
    assert got == sets


def test_too_many_rows_are_refused_in_words(client: flight.FlightClient) -> None:
    table = pa.table({"x": [1] * 1001})
    with pytest.raises(pa.ArrowInvalid, match=r"1001 sets of parameters.*1 to 1000"):
        answer(client, "select n from demo.numbers where n = ?", table)


def test_a_bound_handle_that_was_bound_anew_is_stale(client: flight.FlightClient) -> None:
    first = bind(
        client,
        prepare(client, "select n from demo.numbers where n = ?"),
        pa.table({"x": [1]}),
    )
    second = bind(client, first, pa.table({"x": [2]}))
    assert fetch(client, messages.PreparedStatementQuery(second)).to_pylist() == [{"n": 2}]
    with pytest.raises(pa.ArrowInvalid, match="replaced by a later bind"):
        fetch(client, messages.PreparedStatementQuery(first))


def test_one_mebibyte_is_bound_and_more_is_refused(client: flight.FlightClient) -> None:
    """It travels inside the handle, so it comes back with every use."""
    handle = prepare(client, "select length(?) as x")
    nearly = pa.table({"x": ["a" * (1024 * 1024 - 2000)]})
    bound = bind(client, handle, nearly)
    rows = fetch(client, messages.PreparedStatementQuery(bound)).to_pylist()
    assert rows == [{"x": 1024 * 1024 - 2000}]
    writer, reader = client.do_put(
        descriptor(messages.PreparedStatementQuery(handle)), nearly.schema
    )
    writer.write_table(pa.table({"x": ["a" * (1024 * 1024 + 1)]}))
    writer.done_writing()
    assert reader.read() is None
    with pytest.raises(flight.FlightInternalError, match=r"RESOURCE_EXHAUSTED.*bind fewer rows"):
        writer.close()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_a_hundred_thousand_statements_that_nobody_closes_leave_nothing_behind() -> None:
    """A handle is with its client, and only there: no register grows, no memory stays."""
    service = make_service(Numbers())
    call = Call(Principal("anonymous"), NoSession())

    def prepare_some(count: int) -> bytes:
        body = b""
        for i in range(count):
            query = "select n from numbers" + " " * (i % 1000)
            request = codec.encode_command(messages.CreatePreparedStatement(query))
            found, action = routes.find_action("CreatePreparedStatement", request)
            (body,) = action.act(service, found, call)
        return body

    prepare_some(5_000)
    before = _resident_bytes()
    body = prepare_some(100_000)
    assert _resident_bytes() - before < 8 * 1024 * 1024
    assert len(service.retired) == 0
    assert len(service.running) == 0
    handle = unwrap(body, "ActionCreatePreparedStatementResult").prepared_statement_handle
    command = messages.PreparedStatementQuery(handle)
    with serving(make_service(Numbers())) as server, hand(server) as client:
        assert fetch(client, command).num_rows == 5  # and elsewhere: nothing of it was kept


def test_what_is_remembered_of_closed_statements_is_bounded() -> None:
    """Ids of eight bytes, the newest; the forgotten ones expire by themselves."""
    service = make_service(Numbers(), sealer=Sealer([KEY]), retired=Retired(capacity=100))
    with serving(service) as server, hand(server) as client:
        for _ in range(150):
            handle = prepare(client, "select n from numbers")
            act(client, messages.ClosePreparedStatement(handle))
    assert len(service.retired) == 100
