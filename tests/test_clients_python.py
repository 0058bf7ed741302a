"""Python's clients against `k2 serve`: ADBC, pyarrow.flight by hand, pandas, Polars, DuckDB.

What every backend has to do is in test_clients_adbc.py; here it is the server that users get:
every type of a table, TLS, users, tokens.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import adbc_driver_flightsql
import adbc_driver_manager
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from pyarrow import flight
from support_clients import AT, NUMBERS, PASSWORD, TOKEN, TYPES, USER, House
from support_flight import act, bare, descriptor, fetch, read, unwrapped

from flight_server.protocol import messages

ALL = "select * from demo.types order by id"
COUNT = "select n from demo.numbers where n > ? and label = ?"
PLAIN = ["id", "yes", "small", "big", "real", "double", "text", "bytes", "four"]
TIMES = ["day", "clock", "at", "at_utc"]
NESTED = ["list", "map", "struct"]
DECIMALS = ["price", "wide"]
COOKIES = {DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true"}


@pytest.fixture
def connection(client_house: House) -> Iterator[Any]:
    with dbapi.connect(client_house.uri, db_kwargs=COOKIES, autocommit=True) as connection:
        yield connection


@pytest.fixture
def client(client_house: House) -> Iterator[flight.FlightClient]:
    with flight.connect(client_house.uri) as client:
        yield client


def table(connection: Any, sql: str, parameters: tuple[object, ...] = ()) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def cells(columns: list[str], row: int = 0) -> list[object]:
    return [TYPES[name][row].as_py() for name in columns]


# --- ADBC ----------------------------------------------------------------------------------------

ADBC_TYPES = [
    pytest.param(columns, marks=pytest.mark.feature("ADBC", feature), id=feature)
    for feature, columns in {
        "numbers, text, binary": PLAIN,
        "decimals": DECIMALS,
        "dates and timestamps": TIMES,
        "lists, maps, structs": NESTED,
        "nulls": TYPES.schema.names,
    }.items()
]


@pytest.mark.parametrize("columns", ADBC_TYPES)
def test_adbc_gets_every_type_as_it_is(columns: list[str], connection: Any) -> None:
    """The very Arrow types, not only values that look alike."""
    found = table(connection, ALL).select(columns)
    assert found.schema.remove_metadata().types == TYPES.select(columns).schema.types
    assert found.to_pylist() == TYPES.select(columns).to_pylist()


@pytest.mark.feature("ADBC", "queries")
@pytest.mark.feature("ADBC", "parameters")
def test_adbc_queries(connection: Any) -> None:
    assert table(connection, "select * from demo.numbers order by n").equals(NUMBERS)
    assert table(connection, COUNT, (1, "five")).to_pydict() == {"n": [5]}
    at = table(connection, "select id from demo.types where at = ?", (AT,))
    assert at.to_pydict() == {"id": [1]}


@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "columns"])
@pytest.mark.feature("ADBC", "catalogs and schemas")
@pytest.mark.feature("ADBC", "tables")
@pytest.mark.feature("ADBC", "columns")
@pytest.mark.feature("ADBC", "keys")
def test_adbc_get_objects(depth: str, connection: Any) -> None:
    """Depth by depth; below it, nothing."""
    (lake,) = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
    names = ["catalogs", "db_schemas", "tables", "columns"]
    level, found = names.index(depth), [lake]
    for key, wanted in (
        ("catalog_db_schemas", {"demo"}),
        ("db_schema_tables", {"numbers", "types"}),
        ("table_columns", {*NUMBERS.schema.names, *TYPES.schema.names}),
    ):
        below = [item for parent in found for item in parent[key] or []]
        if key == "catalog_db_schemas":
            below = [item for item in below if item["db_schema_name"] == "demo"]
        assert {next(iter(item.values())) for item in below} == (wanted if level > 0 else set())
        if key == "table_columns" and level > 0:
            assert all(table["table_constraints"] == [] for table in found)
        level, found = level - 1, below


@pytest.mark.feature("ADBC", "columns")
def test_adbc_table_schema(connection: Any) -> None:
    schema = connection.adbc_get_table_schema("types", db_schema_filter="demo")
    assert schema.types == TYPES.schema.types


@pytest.mark.feature("ADBC", "server info")
def test_adbc_info_and_table_types(connection: Any) -> None:
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "K2 Flight"
    assert connection.adbc_get_table_types() == ["BASE TABLE", "VIEW"]


@pytest.mark.feature("ADBC", "partitions")
def test_adbc_partitions(connection: Any, client_house: House) -> None:
    with connection.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("select n from demo.numbers")
    assert schema.names == ["n"]
    total = 0
    with dbapi.connect(client_house.uri, autocommit=True) as other, other.cursor() as cursor:
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            total += sum(row[0] for row in cursor.fetchall())
    assert total == 15


@pytest.mark.feature("ADBC", "session options")
def test_adbc_session_options(connection: Any) -> None:
    """The schema of the session completes names without one."""
    connection.adbc_current_db_schema = "demo"
    assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("lake", "demo")
    assert table(connection, "select max(n) as m from numbers")["m"].to_pylist() == [5]
    database = connection.adbc_connection
    database.set_options(**{"adbc.flight.sql.session.option.time_zone": "Europe/Berlin"})
    assert database.get_option("adbc.flight.sql.session.option.time_zone") == "Europe/Berlin"
    database.set_options(**{"adbc.flight.sql.session.optionerase.time_zone": ""})
    assert database.get_option("adbc.flight.sql.session.option.time_zone") == "UTC"
    with pytest.raises(connection.Error, match=r"statement_timeout.*invalid value"):
        database.set_options(**{"adbc.flight.sql.session.option.statement_timeout": "soon"})


@pytest.mark.feature("ADBC", "cancelling")
def test_adbc_cancels(connection: Any, client_house: House) -> None:
    froms = ", ".join(f"demo.numbers t{i}" for i in range(12))
    with connection.cursor() as cursor:
        cursor.execute(f"select t0.n, t3.label as adbc from {froms}")
        batches = cursor.fetch_record_batch()
        batches.read_next_batch()
        cursor.adbc_cancel()
        with pytest.raises(OSError, match=r"[Cc]ancel"):
            for _ in batches:
                pass
    assert client_house.states("%as adbc%") == {"cancelled"}


def test_adbc_low_level(client_house: House) -> None:
    """Database, connection, statement: without the DBAPI."""
    options = {"uri": client_house.uri}
    with (
        adbc_driver_flightsql.connect(**options) as database,
        adbc_driver_manager.AdbcConnection(database) as connection,
        adbc_driver_manager.AdbcStatement(connection) as statement,
    ):
        statement.set_sql_query("select count(*) as c from demo.numbers")
        stream, _ = statement.execute_query()
        assert pa.RecordBatchReader.from_stream(stream).read_all().to_pydict() == {"c": [5]}


def login(uri: str, **options: str) -> list[object]:
    with dbapi.connect(uri, db_kwargs=options, autocommit=True) as connection:
        return table(connection, "select 40 + 2 as answer")["answer"].to_pylist()


BASIC = {"username": USER, "password": PASSWORD}
BEARER = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {TOKEN}"}


@pytest.mark.feature("ADBC", "user and password")
@pytest.mark.feature("ADBC", "token")
def test_adbc_logs_in(client_house: House) -> None:
    uri = f"grpc://127.0.0.1:{client_house.users.port}"
    assert login(uri, **BASIC) == login(uri, **BEARER) == [42]
    for wrong in ({}, {**BASIC, "password": "wrong"}):
        with pytest.raises(dbapi.Error, match="UNAUTHENTICATED"):
            login(uri, **wrong)


@pytest.mark.feature("ADBC", "TLS")
def test_adbc_by_tls(client_house: House) -> None:
    uri = f"grpc+tls://127.0.0.1:{client_house.tls.port}"
    trusted = {DatabaseOptions.TLS_ROOT_CERTS.value: client_house.authority.read_text()}
    assert login(uri, **trusted, **BASIC) == login(uri, **trusted, **BEARER) == [42]
    with pytest.raises(dbapi.Error, match="certificate"):
        login(uri, **BEARER)


# --- pyarrow.flight ------------------------------------------------------------------------------


@pytest.mark.feature("pyarrow", "queries")
@pytest.mark.feature("pyarrow", "numbers, text, binary")
@pytest.mark.feature("pyarrow", "decimals")
@pytest.mark.feature("pyarrow", "dates and timestamps")
@pytest.mark.feature("pyarrow", "lists, maps, structs")
@pytest.mark.feature("pyarrow", "nulls")
def test_pyarrow_gets_every_type(client: flight.FlightClient) -> None:
    found = fetch(client, messages.StatementQuery(ALL))
    assert found.schema.types == TYPES.schema.types
    assert found.to_pylist() == TYPES.to_pylist()


@pytest.mark.feature("pyarrow", "parameters")
def test_pyarrow_binds(client: flight.FlightClient) -> None:
    (body,) = act(client, messages.CreatePreparedStatement(COUNT))
    prepared = unwrapped(body, "ActionCreatePreparedStatementResult")
    batch = pa.record_batch({"0": [1], "1": ["five"]})
    command = descriptor(messages.PreparedStatementQuery(prepared.prepared_statement_handle))
    writer, answers = client.do_put(command, batch.schema)
    with writer:
        writer.write_batch(batch)
        writer.done_writing()
        answer = answers.read().to_pybytes()
    handle = bare_sql(answer).prepared_statement_handle
    assert fetch(client, messages.PreparedStatementQuery(handle)).to_pydict() == {"n": [5]}


def bare_sql(body: bytes) -> Any:
    return bare(body, "sql.DoPutPreparedStatementResult")


@pytest.mark.feature("pyarrow", "catalogs and schemas")
@pytest.mark.feature("pyarrow", "tables")
@pytest.mark.feature("pyarrow", "columns")
def test_pyarrow_reads_the_metadata(client: flight.FlightClient) -> None:
    assert fetch(client, messages.GetCatalogs()).to_pydict() == {"catalog_name": ["lake"]}
    schemas = fetch(client, messages.GetDbSchemas(db_schema_filter_pattern="d%"))
    assert schemas["db_schema_name"].to_pylist() == ["demo"]
    command = messages.GetTables(table_name_filter_pattern="types", include_schema=True)
    (types,) = fetch(client, command).to_pylist()
    assert pa.ipc.read_schema(pa.py_buffer(types["table_schema"])).types == TYPES.schema.types


@pytest.mark.feature("pyarrow", "keys")
@pytest.mark.feature("pyarrow", "server info")
def test_pyarrow_reads_keys_and_info(client: flight.FlightClient) -> None:
    assert fetch(client, messages.GetPrimaryKeys("lake", "demo", "numbers")).num_rows == 0
    info = fetch(client, messages.GetSqlInfo((0, 3)))
    assert dict(zip(*info.to_pydict().values(), strict=True)) == {0: "K2 Flight", 3: True}


@pytest.mark.feature("pyarrow", "partitions")
def test_pyarrow_fetches_an_endpoint_elsewhere(
    client: flight.FlightClient, client_house: House
) -> None:
    info = client.get_flight_info(descriptor(messages.StatementQuery(ALL)))
    with flight.connect(client_house.uri) as other:
        tables = [read(other.do_get(endpoint.ticket)) for endpoint in info.endpoints]
    assert pa.concat_tables(tables).to_pylist() == TYPES.to_pylist()


class Cookies(flight.ClientMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Sends back the cookie that the server has set."""

    def __init__(self) -> None:
        self.cookie: str | None = None

    def start_call(self, _info: Any) -> flight.ClientMiddleware:
        """Of pyarrow."""
        return Cookie(self)


class Cookie(flight.ClientMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """One call of it."""

    def __init__(self, kept: Cookies) -> None:
        self._kept = kept

    def sending_headers(self) -> dict[str, str]:
        """Of pyarrow."""
        return {} if self._kept.cookie is None else {"cookie": self._kept.cookie}

    def received_headers(self, headers: dict[str, list[str]]) -> None:
        """Of pyarrow."""
        for cookie in headers.get("set-cookie", ()):
            self._kept.cookie = cookie.partition(";")[0]


@pytest.mark.feature("pyarrow", "session options")
def test_pyarrow_keeps_a_session_by_its_cookie(client_house: House) -> None:
    with flight.connect(client_house.uri, middleware=[Cookies()]) as client:
        (body,) = act(client, messages.SetSessionOptions({"schema": "demo"}))
        assert not bare(body, "SetSessionOptionsResult").errors
        found = fetch(client, messages.StatementQuery("select max(n) as m from numbers"))
        assert found.to_pydict() == {"m": [5]}


@pytest.mark.feature("pyarrow", "cancelling")
def test_pyarrow_cancels(client: flight.FlightClient, client_house: House) -> None:
    froms = ", ".join(f"demo.numbers t{i}" for i in range(12))
    sql = f"select t0.n, t4.label as by_hand from {froms}"
    info = client.get_flight_info(descriptor(messages.StatementQuery(sql)))
    stream = client.do_get(info.endpoints[0].ticket)
    stream.read_chunk()
    stream.cancel()
    with pytest.raises(flight.FlightCancelledError):
        read(stream)
    assert client_house.states("%as by_hand%") == {"cancelled"}


@pytest.mark.feature("pyarrow", "TLS")
@pytest.mark.feature("pyarrow", "user and password")
@pytest.mark.feature("pyarrow", "token")
def test_pyarrow_logs_in(client_house: House) -> None:
    uri = f"grpc+tls://127.0.0.1:{client_house.tls.port}"
    command = messages.StatementQuery("select 40 + 2 as answer")
    with flight.connect(uri, tls_root_certs=client_house.authority.read_bytes()) as client:
        basic = client.authenticate_basic_token(USER, PASSWORD)
        for header in (basic, (b"authorization", f"Bearer {TOKEN}".encode())):
            options = flight.FlightCallOptions(headers=[header])
            assert fetch(client, command, options=options)["answer"].to_pylist() == [42]
        with pytest.raises(flight.FlightUnauthenticatedError):
            fetch(client, command)


# --- pandas, Polars, DuckDB ----------------------------------------------------------------------


@pytest.mark.feature("pandas", "queries")
@pytest.mark.feature("pandas", "numbers, text, binary")
@pytest.mark.feature("pandas", "decimals")
@pytest.mark.feature("pandas", "dates and timestamps")
@pytest.mark.feature("pandas", "lists, maps, structs")
@pytest.mark.feature("pandas", "nulls")
def test_pandas(connection: Any) -> None:
    frame = pd.read_sql(ALL, connection)
    first = frame.iloc[0]
    assert list(frame.columns) == TYPES.schema.names
    assert [first[name] for name in [*PLAIN, *DECIMALS, "day", "clock"]] == cells(
        [*PLAIN, *DECIMALS, "day", "clock"]
    )
    assert (first["at"], first["at_utc"]) == (pd.Timestamp(AT), pd.Timestamp(AT, tz="UTC"))
    assert [*first["map"]] == [("a", 1), ("b", None)]
    assert first["struct"] == {"x": 1, "y": "one"}
    assert np.asarray(first["list"]).tolist()[::2] == [1, 3]
    assert frame.iloc[1].drop("id").isna().all()
    with pytest.raises(NotImplementedError, match="not implemented for ADBC"):
        pd.read_sql(COUNT, connection, params=(1, "five"))


@pytest.mark.feature("Polars", "queries")
@pytest.mark.feature("Polars", "parameters")
@pytest.mark.feature("Polars", "numbers, text, binary")
@pytest.mark.feature("Polars", "decimals")
@pytest.mark.feature("Polars", "dates and timestamps")
@pytest.mark.feature("Polars", "lists, maps, structs")
@pytest.mark.feature("Polars", "nulls")
def test_polars(connection: Any) -> None:
    frame = pl.read_database(ALL, connection)
    first, second = frame.to_dicts()
    names = [*PLAIN, *DECIMALS, "day", "clock", "at", "list", "struct"]
    assert [first[name] for name in names] == cells(names)
    assert first["at_utc"] == AT.replace(tzinfo=dt.UTC)
    assert first["map"] == {"a": 1, "b": None}
    assert frame.schema["wide"] == pl.Decimal(38, 10)
    assert {value for name, value in second.items() if name != "id"} == {None}
    options = {"parameters": (1, "five")}
    found = pl.read_database(COUNT, connection, execute_options=options)
    assert found["n"].to_list() == [5]


@pytest.mark.feature("DuckDB", "queries")
@pytest.mark.feature("DuckDB", "parameters")
@pytest.mark.feature("DuckDB", "numbers, text, binary")
@pytest.mark.feature("DuckDB", "decimals")
@pytest.mark.feature("DuckDB", "dates and timestamps")
@pytest.mark.feature("DuckDB", "lists, maps, structs")
@pytest.mark.feature("DuckDB", "nulls")
def test_duckdb_over_arrow(connection: Any) -> None:
    """DuckDB reads the stream as it comes, and joins it with tables of its own."""
    with duckdb.connect() as database, connection.cursor() as cursor:
        database.execute("set timezone = 'UTC'")
        cursor.execute(ALL)
        database.register("types", cursor.fetch_record_batch())
        rows = database.sql("select * from types order by id").to_arrow_table().to_pylist()
        names = [*PLAIN, *DECIMALS, "day", "clock", "at", "list", "map", "struct"]
        assert [rows[0][name] for name in names] == cells(names)
        assert rows[0]["at_utc"].astimezone(dt.UTC) == AT.replace(tzinfo=dt.UTC)
        assert {value for name, value in rows[1].items() if name != "id"} == {None}
        assert isinstance(rows[0]["wide"], Decimal)
        database.execute("create table mine as select 5 as n, 'V' as roman")
        cursor.execute(COUNT, (1, "five"))
        database.register("theirs", cursor.fetch_record_batch())
        assert database.sql("select roman from theirs join mine using (n)").fetchall() == [("V",)]
