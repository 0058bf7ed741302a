"""Updates go to the backend; what else writes is refused in words, as GetSqlInfo said before."""

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

from flight_server.protocol import (
    Call,
    FlightSqlServer,
    Permission,
    Prepared,
    Principal,
    Statement,
    codec,
    messages,
)

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


def test_a_prepared_query_is_refused_as_an_update(client: flight.FlightClient) -> None:
    """What executemany sends; the rows of parameters are not read."""
    (body,) = act(client, messages.CreatePreparedStatement("select n from numbers"))
    handle = unwrapped(body, "ActionCreatePreparedStatementResult").prepared_statement_handle
    command = messages.PreparedStatementUpdate(handle)
    writer, _ = client.do_put(descriptor(command), NUMBERS.schema)
    with pytest.raises(pa.ArrowNotImplementedError, match=r"writes nothing.*execute it as a query"):
        writer.close()
    writer, _ = client.do_put(descriptor(messages.PreparedStatementUpdate(b"x")), NUMBERS.schema)
    with pytest.raises(pa.ArrowInvalid, match="not made by this server"):
        writer.close()


class Counting(Numbers):
    """Takes ``count`` as an update, for who has the permission CANCEL (any but the route's)."""

    def __init__(self) -> None:
        self.counted = 0

    def update(self, statement: Statement, _call: Call) -> int | None:
        """One more."""
        if statement.query != "count":
            return None
        self.counted += 1
        return -1

    def prepare(self, statement: Statement, _call: Call) -> Prepared:
        """An update has no columns."""
        return Prepared(pa.schema([]), is_update=statement.query == "count")

    def permission(self, statement: Statement) -> Permission | None:
        """More than a query needs."""
        return Permission.CANCEL if statement.query == "count" else None


def _updated(client: flight.FlightClient, command: messages.Message) -> int:
    writer, reader = client.do_put(descriptor(command), pa.schema([]))
    writer.done_writing()
    told = reader.read()
    writer.close()
    name = f"{messages.SQL_PACKAGE}.DoPutUpdateResult"
    count: int = codec._parse(name, told.to_pybytes()).record_count
    return count


def test_a_backend_that_updates_is_asked_once_and_its_count_comes_back() -> None:
    """By text and by a prepared handle; what it does not take is refused as ever."""
    backend = Counting()
    with serving(make_service(backend)) as server, hand(server) as client:
        assert _updated(client, messages.StatementUpdate("count")) == -1
        (body,) = act(client, messages.CreatePreparedStatement("count"))
        result = unwrapped(body, "ActionCreatePreparedStatementResult")
        assert (result.dataset_schema, body[-2:]) == (b"", b"\x20\x01")
        handle = result.prepared_statement_handle
        assert _updated(client, messages.PreparedStatementUpdate(handle)) == -1
        assert backend.counted == 2
        with pytest.raises(pa.ArrowNotImplementedError, match="writes nothing"):
            _updated(client, messages.StatementUpdate("select n from numbers"))
        with pytest.raises(pa.ArrowNotImplementedError, match="no transactions"):
            _updated(client, messages.StatementUpdate("count", b"t"))
        assert backend.counted == 2


@pytest.mark.parametrize(
    ("query", "needs"), [("count", "cancel"), ("delete from numbers", "write")]
)
def test_an_update_needs_what_its_statement_needs(query: str, needs: str) -> None:
    """The route's permission alone is not enough; without a word of the backend it is WRITE."""
    backend = Counting()

    def queries(permission: Permission, _: Principal) -> bool:
        return permission is Permission.QUERY

    with serving(make_service(backend, policy=queries)) as server, hand(server) as client:
        with pytest.raises(flight.FlightUnauthorizedError, match=f"permission '{needs}'"):
            _updated(client, messages.StatementUpdate(query))
    assert backend.counted == 0


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
