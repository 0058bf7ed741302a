"""Stock clients against every backend: ADBC (DBAPI, low level), pandas, Polars, pyarrow.flight.

The same suite runs over two engines, DuckDB in ninety lines and the real one: what it asks is the
contract of ``protocol.Backend``.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import adbc_driver_manager
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from support_backend import NUMBERS_ROWS, Site
from support_duck import Duck
from support_flight import (
    act,
    connect,
    descriptor,
    fetch,
    hand,
    make_service,
    read,
    serving,
    until,
    unwrapped,
)

from flight_server.plans import Options
from flight_server.protocol import FlightSqlServer, messages

QUERY = "select n, label from numbers order by n"
ROWS = [(row["n"], row["label"]) for row in NUMBERS_ROWS.to_pylist()]


@pytest.fixture(scope="module", params=["duckdb", "engine"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlightSqlServer]:
    """Either engine behind the kernel, with the table ``lake.demo.numbers``."""
    if request.param == "duckdb":
        with serving(make_service(Duck())) as server:
            yield server
        return
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish()
    with serving(site.service(backend=site.backend(options=Options(schema="demo")))) as server:
        yield server
    site.close()


@pytest.fixture
def connection(server: FlightSqlServer) -> Iterator[Any]:
    with connect(server) as connection:
        yield connection


@pytest.fixture
def cursor(connection: Any) -> Iterator[Any]:
    with connection.cursor() as cursor:
        yield cursor


# --- queries -------------------------------------------------------------------------------------


def test_rows_come_back(cursor: Any) -> None:
    cursor.execute(QUERY)
    assert [column[0] for column in cursor.description] == ["n", "label"]
    assert cursor.fetchall() == ROWS


def test_a_statement_without_prepare(cursor: Any) -> None:
    """The low-level way: CommandStatementQuery."""
    statement = adbc_driver_manager.AdbcStatement(cursor.connection.adbc_connection)
    statement.set_sql_query(QUERY)
    handle, _ = statement.execute_query()
    table = pa.RecordBatchReader._import_from_c(handle.address).read_all()
    assert [tuple(row.values()) for row in table.to_pylist()] == ROWS
    statement.close()


def test_an_empty_result_keeps_its_schema(cursor: Any) -> None:
    cursor.execute("select n, label from numbers where n > 100")
    table = cursor.fetch_arrow_table()
    assert (table.num_rows, table.schema.names) == (0, ["n", "label"])
    assert table.schema.types == [pa.int64(), pa.string()]


def test_the_schema_without_the_rows(cursor: Any) -> None:
    schema = cursor.adbc_execute_schema("select n, label, n + 1 as m from numbers")
    assert (schema.names, schema.types[:2]) == (["n", "label", "m"], [pa.int64(), pa.string()])


def test_a_result_of_many_batches(cursor: Any) -> None:
    froms = ", ".join(f"numbers t{i}" for i in range(7))
    cursor.execute(f"select t0.n, t1.n * 10.5e0 as x, t2.label from {froms}")
    reader = cursor.fetch_record_batch()
    sizes = [batch.nbytes for batch in reader]
    assert len(sizes) > 1
    assert max(sizes) <= 2 * 1024 * 1024


def test_a_statement_is_executed_as_often_as_asked(cursor: Any) -> None:
    for _ in range(3):
        cursor.execute(QUERY)
        assert cursor.fetchall() == ROWS


def test_partitions_can_be_read_by_another_connection(server: FlightSqlServer, cursor: Any) -> None:
    """The ticket is all that is needed: nothing stays with the connection."""
    partitions, schema = cursor.adbc_execute_partitions(QUERY)
    assert schema.names == ["n", "label"]
    (partition,) = partitions
    with connect(server) as other, other.cursor() as reader:
        for _ in range(2):
            reader.adbc_read_partition(partition)
            assert reader.fetchall() == ROWS


def test_a_big_answer_can_be_left_half_read(server: FlightSqlServer) -> None:
    """Nothing hangs, and the connection goes on."""
    froms = ", ".join(f"numbers t{i}" for i in range(9))
    with connect(server) as connection:
        for _ in range(3):
            with connection.cursor() as cursor:
                cursor.execute(f"select t0.n, t1.label, t2.n * 0.5e0 as x from {froms}")
                assert cursor.fetchone() is not None
        with connection.cursor() as cursor:
            cursor.execute(QUERY)
            assert cursor.fetchall() == ROWS


def test_a_cancelled_statement_ends_and_the_connection_goes_on(connection: Any) -> None:
    froms = ", ".join(f"numbers t{i}" for i in range(11))
    with connection.cursor() as cursor:
        cursor.execute(f"select t0.n, t1.label, t2.n * 0.5e0 as x from {froms}")
        reader = cursor.fetch_record_batch()
        reader.read_next_batch()
        cursor.adbc_cancel()
        with pytest.raises(OSError, match=r"[Cc]ancel"):
            for _ in reader:
                pass
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        assert cursor.fetchall() == ROWS


def test_many_clients_at_once(server: FlightSqlServer) -> None:
    def client(number: int) -> int:
        with connect(server) as connection, connection.cursor() as cursor:
            total = 0
            for _ in range(5):
                cursor.execute("select sum(n) from numbers where n > ?", (number % 3,))
                total += int(cursor.fetchone()[0])
            return total

    with ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(client, range(16)))
    expected = [5 * sum(n for n in range(1, 6) if n > number % 3) for number in range(16)]
    assert sums == expected


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [("?", "?"), ("$1", "$2"), ("$2", "$1")], ids=" ".join)
def test_parameters(cursor: Any, marks: tuple[str, str]) -> None:
    values = (2, "five") if marks != ("$2", "$1") else ("five", 2)
    cursor.execute(f"select n from numbers where n > {marks[0]} and label = {marks[1]}", values)
    assert cursor.fetchall() == [(5,)]


@pytest.mark.parametrize(
    "value",
    [
        42,
        -(2**62),
        1.5,
        "täxt 'with\" quotes",
        b"\x00\xff",
        True,
        Decimal("12.34"),
        dt.date(2024, 2, 29),
        dt.datetime(2024, 2, 29, 12, 30, 15, 123456),  # noqa: DTZ001 - without a zone is the case
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_type_that_python_sends_comes_back(cursor: Any, value: object) -> None:
    cursor.execute("select ? as v, n from numbers where n = 1", (value,))
    ((found, _),) = cursor.fetchall()
    assert found == value


def test_nulls_are_values_too(cursor: Any) -> None:
    cursor.execute("select count(*) from numbers where label is not distinct from ?", (None,))
    assert cursor.fetchone() == (1,)


def test_a_statement_is_bound_again_and_again(connection: Any) -> None:
    """Every bind gives a new handle; ADBC goes on with it."""
    statement = adbc_driver_manager.AdbcStatement(connection.adbc_connection)
    statement.set_sql_query("select n from numbers where n > ? order by n")
    statement.prepare()
    for least in (1, 3, 4):
        batch = pa.record_batch({"0": pa.array([least], pa.int64())})
        statement.bind(*batch.__arrow_c_array__()[::-1])
        handle, _ = statement.execute_query()
        table = pa.RecordBatchReader._import_from_c(handle.address).read_all()
        assert table["n"].to_pylist() == list(range(least + 1, 6))
    statement.close()


def test_parameter_schema(connection: Any) -> None:
    """One field per parameter, in order, also where two have the same number."""
    with connection.cursor() as cursor:
        schema = cursor.adbc_prepare("select n from numbers where n > ? and label = ?")
        assert len(schema) == 2
        assert len(cursor.adbc_prepare("select n from numbers where n > $1 or n = $1")) == 1
        schema = cursor.adbc_prepare(QUERY)
        assert schema is None or len(schema) == 0


def test_unbound_parameters_are_named(server: FlightSqlServer) -> None:
    """A client that ignores the bound handle is told so, in words."""
    with hand(server) as client:
        request = messages.CreatePreparedStatement("select n from numbers where n > ?")
        (body,) = act(client, request)
        prepared = unwrapped(body, "ActionCreatePreparedStatementResult")
        command = messages.PreparedStatementQuery(prepared.prepared_statement_handle)
        assert client.get_schema(descriptor(command)).schema.names == ["n"]
        with pytest.raises(pa.ArrowInvalid, match="none bound"):
            client.get_flight_info(descriptor(command))


def test_a_replaced_handle_is_stale(server: FlightSqlServer) -> None:
    """Binding a bound handle invalidates it: its parameters must not come back by accident."""
    with hand(server) as client:
        request = messages.CreatePreparedStatement("select n from numbers where n > ? order by n")
        (body,) = act(client, request)
        first = unwrapped(body, "ActionCreatePreparedStatementResult").prepared_statement_handle
        second, third = _bind(client, first, 1), None
        third = _bind(client, second, 4)
        table = fetch(client, messages.PreparedStatementQuery(third))
        assert table["n"].to_pylist() == [5]
        with pytest.raises(pa.ArrowInvalid, match="replaced"):
            client.get_flight_info(descriptor(messages.PreparedStatementQuery(second)))


def _bind(client: Any, handle: bytes, value: int) -> bytes:
    batch = pa.record_batch({"0": pa.array([value], pa.int64())})
    command = descriptor(messages.PreparedStatementQuery(handle))
    writer, reader = client.do_put(command, batch.schema)
    with writer:
        writer.write_batch(batch)
        writer.done_writing()
        data = reader.read().to_pybytes()
    from flight_server.protocol import codec  # noqa: PLC0415 - the reply is bare, of the SQL package

    result = codec._parse(f"{messages.SQL_PACKAGE}.DoPutPreparedStatementResult", data)
    new: bytes = result.prepared_statement_handle
    assert new != handle
    return new


# --- metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "columns", "all"])
def test_get_objects_at_every_depth(connection: Any, depth: str) -> None:
    (catalog,) = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
    assert catalog["catalog_name"] == "lake"
    schemas = catalog["catalog_db_schemas"]
    if depth == "catalogs":
        assert schemas is None
        return
    (demo,) = (s for s in schemas if s["db_schema_name"] == "demo")
    if depth == "db_schemas":
        assert demo["db_schema_tables"] is None
        return
    (numbers,) = (t for t in demo["db_schema_tables"] if t["table_name"] == "numbers")
    assert numbers["table_type"] == "BASE TABLE"
    if depth == "tables":
        assert numbers["table_columns"] is None
        return
    columns = [(c["column_name"], c["xdbc_type_name"]) for c in numbers["table_columns"]]
    assert columns == [("n", "BIGINT"), ("label", "VARCHAR")]


def test_get_objects_with_filters(connection: Any) -> None:
    def found(**filters: Any) -> set[str]:
        catalogs = connection.adbc_get_objects(depth="tables", **filters).read_all().to_pylist()
        return {
            table["table_name"]
            for catalog in catalogs
            for schema in catalog["catalog_db_schemas"] or []
            for table in schema["db_schema_tables"] or []
        }

    assert found(db_schema_filter="demo", table_name_filter="num%") == {"numbers"}
    assert found(db_schema_filter="dem_") == {"numbers"}
    assert found(db_schema_filter="demo", table_name_filter="nothing") == set()
    assert found(catalog_filter="nowhere") == set()
    assert found(db_schema_filter="demo", table_types_filter=["VIEW"]) == set()
    assert found(db_schema_filter="demo", table_types_filter=["BASE TABLE"]) == {"numbers"}


def test_get_table_schema(connection: Any) -> None:
    expected = NUMBERS_ROWS.schema
    assert connection.adbc_get_table_schema("numbers").equals(expected)
    filters = {"catalog_filter": "lake", "db_schema_filter": "demo"}
    assert connection.adbc_get_table_schema("numbers", **filters).equals(expected)
    with pytest.raises(connection.ProgrammingError, match="NOT_FOUND"):
        connection.adbc_get_table_schema("nothing")


def test_get_info_and_table_types(connection: Any) -> None:
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Flight SQL server"
    assert info["vendor_arrow_version"] == pa.__version__
    assert "BASE TABLE" in connection.adbc_get_table_types()


def test_the_current_catalog_and_schema(connection: Any) -> None:
    assert connection.adbc_current_catalog == "lake"
    assert connection.adbc_current_db_schema == "demo"
    connection.adbc_current_db_schema = "demo"
    with pytest.raises(connection.Error):
        connection.adbc_current_catalog = "nowhere"


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "status"),
    [
        ("selec 1", "INVALID_ARGUMENT"),
        ("select nothing from numbers", "INVALID_ARGUMENT|NOT_FOUND"),
        ("select * from nowhere", "NOT_FOUND"),
        ("insert into numbers values (1, 'x')", "NOT_IMPLEMENTED"),
    ],
)
def test_errors_have_a_status_and_no_stack(connection: Any, sql: str, status: str) -> None:
    with connection.cursor() as cursor, pytest.raises(connection.Error, match=status) as caught:
        cursor.execute(sql)
    text = str(caught.value)
    assert "Traceback" not in text
    assert ".py" not in text
    assert len(text.encode()) <= 2048


def test_bulk_inserts_are_refused_in_words(cursor: Any) -> None:
    with pytest.raises(cursor.connection.NotSupportedError, match="writes nothing"):
        cursor.adbc_ingest("t", NUMBERS_ROWS, mode="create")


def test_transactions_are_not_offered(server: FlightSqlServer) -> None:
    """SqlInfo 8 is 0: the DBAPI warns, and autocommits."""
    with pytest.warns(Warning, match="autocommit"):
        connection = dbapi.connect(f"grpc://127.0.0.1:{server.port}", autocommit=False)
    connection.close()


# --- other clients -------------------------------------------------------------------------------


def test_pandas(connection: Any) -> None:
    frame = pd.read_sql(QUERY, connection)
    assert frame["n"].tolist() == [1, 2, 3, 4, 5]
    assert frame["label"].isna().tolist() == [False, False, True, False, False]


def test_polars(server: FlightSqlServer, connection: Any) -> None:
    frame = pl.read_database(QUERY, connection)
    assert frame.rows() == ROWS
    assert frame.schema == {"n": pl.Int64, "label": pl.String}
    uri = f"grpc://127.0.0.1:{server.port}"
    with dbapi.connect(uri, autocommit=True) as other:
        assert pl.read_database("select count(*) as c from numbers", other)["c"].item() == 5


def test_pyarrow_flight_by_hand(server: FlightSqlServer) -> None:
    with hand(server) as client:
        command = messages.StatementQuery(QUERY)
        info = client.get_flight_info(descriptor(command))
        assert (info.total_records, info.total_bytes) == (-1, -1)
        tables = [read(client.do_get(info.endpoints[0].ticket)) for _ in range(2)]
        assert tables[0] == tables[1] == fetch(client, command)
        assert client.get_schema(descriptor(command)).schema == info.schema


def test_clients_without_cookies(server: FlightSqlServer) -> None:
    """ADBC's default: every call stands alone, and closing is no error."""
    options = {DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "false"}
    with connect(server, **options) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        assert cursor.fetchall() == ROWS


def test_a_thread_may_use_another_cursor(connection: Any) -> None:
    sums: list[float] = []

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute("select avg(n) from numbers")
            sums.append(float(cursor.fetchone()[0]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(math.isclose(value, 3.0) for value in sums)
    assert len(sums) == 4


def test_a_client_that_goes_away_gives_the_engine_back(tmp_path: Path) -> None:
    """Blocked in a long aggregate there is no batch to notice by: the watcher ends it."""
    with closing(Site(tmp_path)) as site:
        site.publish()
        backend = site.backend(options=Options(schema="demo"))
        froms = ", ".join(f"numbers t{i}" for i in range(12))
        sql = f"select sum(t0.n * t5.n + t11.n) as s from {froms}"
        with serving(site.service(backend=backend)) as server, hand(server) as client:
            info = client.get_flight_info(descriptor(messages.StatementQuery(sql)))
            reader = client.do_get(info.endpoints[0].ticket)
            until(lambda: site.engine.admission.running == 1)
            reader.cancel()
            until(lambda: site.engine.admission.running == 0)
        assert [record.state for record in site.log.records()] == ["cancelled"]
