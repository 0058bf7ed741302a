"""Commands that write are decoded and refused in words, and the server says so beforehand."""

# ruff: noqa: SIM117 - connections and expectations nest as the test reads

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight
from support_backend import Site
from support_flight import (
    NUMBERS,
    Numbers,
    act,
    connect,
    descriptor,
    fetch,
    hand,
    make_service,
    serving,
    unwrapped,
)

from flight_server.protocol import FlightSqlServer, messages

INGEST = messages.StatementIngest(
    messages.TableDefinitionOptions(1, 2), "ticks", "market_data", "lake", False, None, {}
)


@pytest.fixture
def numbers() -> Iterator[FlightSqlServer]:
    with serving(make_service(Numbers())) as server:
        yield server


@pytest.fixture
def client(numbers: FlightSqlServer) -> Iterator[flight.FlightClient]:
    with hand(numbers) as client:
        yield client


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (messages.StatementUpdate("delete from numbers"), "writes nothing.*'delete from numbers'"),
        (messages.PreparedStatementUpdate(b"x"), "writes nothing.*execute it as a query"),
        (INGEST, "nothing was stored in 'lake.market_data.ticks'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_writes_is_refused_in_words(
    client: flight.FlightClient, command: messages.Message, words: str
) -> None:
    """By DoPut, the call that such a command has; the upload is not read."""
    writer, reader = client.do_put(descriptor(command), NUMBERS.schema)
    assert reader.read() is None
    with pytest.raises(pa.ArrowNotImplementedError, match=words):
        writer.close()
    with pytest.raises(pa.ArrowNotImplementedError, match="no use in this kind of call"):
        client.get_flight_info(descriptor(command))


@pytest.mark.parametrize(
    "request_",
    [
        messages.BeginTransaction(),
        messages.BeginSavepoint(b"t", "x"),
        messages.EndTransaction(b"t", 1),
        messages.EndSavepoint(b"s", 2),
    ],
    ids=lambda request_: type(request_).__name__,
)
def test_transactions_are_refused_in_words(
    client: flight.FlightClient, request_: messages.Message
) -> None:
    name = messages.action_type(type(request_))
    with pytest.raises(pa.ArrowNotImplementedError, match=f"{name}: there are no transactions"):
        act(client, request_)


def test_a_go_clients_update_is_answered_without_reading_its_upload(
    numbers: FlightSqlServer,
) -> None:
    """ADBC sends CommandStatementUpdate without a schema message: a read would fail or wait."""
    with connect(numbers) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query("delete from numbers")
        with pytest.raises(connection.NotSupportedError, match="writes nothing by Flight SQL"):
            cursor.adbc_statement.execute_update()


def test_an_ingest_is_refused_without_reading_its_rows(numbers: FlightSqlServer) -> None:
    """However much the client has to send."""
    rows = pa.table({"x": pa.array(range(1_000_000), pa.int64())})
    with connect(numbers) as connection, connection.cursor() as cursor:
        with pytest.raises(connection.NotSupportedError, match="nothing was stored in 't'"):
            cursor.adbc_ingest("t", rows, mode="create")


def test_the_server_says_beforehand_that_it_does_not_write(client: flight.FlightClient) -> None:
    """Read only; no transactions, no ingestion: GetSqlInfo 3, 8, 10, 11."""
    rows = fetch(client, messages.GetSqlInfo((3, 8, 10, 11))).to_pylist()
    found = {row["info_name"]: row["value"] for row in rows}
    assert found == {3: True, 8: 0, 10: False, 11: False}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    place = Site(tmp_path_factory.mktemp("site"))
    with serving(place.service()) as server, hand(server) as client:
        yield client
    place.close()


@pytest.mark.parametrize(
    "query",
    [
        "insert into demo.numbers values (6, 'six')",
        "delete from demo.numbers",
        "update demo.numbers set n = 1",
        "create table demo.x as select 1",
        "drop table demo.numbers",
        "copy demo.numbers to 'x.csv'",
    ],
)
def test_a_statement_that_writes_cannot_be_prepared_and_says_what_to_do(
    site: flight.FlightClient, query: str
) -> None:
    word = query.split(maxsplit=1)[0].upper()
    with pytest.raises(pa.ArrowNotImplementedError, match=f"{word} statements.*this server reads"):
        act(site, messages.CreatePreparedStatement(query))


def test_a_prepared_query_is_no_update(site: flight.FlightClient) -> None:
    """Field 4 is there and false; JDBC takes it before it looks at the schema."""
    (body,) = act(site, messages.CreatePreparedStatement("select n from demo.numbers"))
    result = unwrapped(body, "ActionCreatePreparedStatementResult")
    assert body.endswith(b"\x20\x00")
    assert pa.ipc.read_schema(pa.BufferReader(result.dataset_schema)).names == ["n"]
