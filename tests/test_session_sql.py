"""SET, USE, SHOW and RESET through the server: what they do, when, for whom, and to whom not."""

# ruff: noqa: SIM117 - connections and expectations nest as the test reads

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from pyarrow import flight
from support_backend import Site
from support_flight import act, bare, connect, descriptor, fetch, hand, read, serving, unwrapped

from flight_server.protocol import FlightSqlServer, Permission, Principal, messages

DEFAULTS = {
    "catalog": "lake",
    "schema": "market_data",
    "time_zone": "UTC",
    "statement_timeout": "300",
    "endpoints": "1",
    "compression": "none",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with closing(Site(tmp_path_factory.mktemp("site"))) as site:
        site.publish()
        yield site


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[FlightSqlServer]:
    with serving(site.service()) as server:
        yield server


@pytest.fixture
def connection(server: FlightSqlServer) -> Iterator[Any]:
    with connect(server) as connection:
        yield connection


def ask(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def update(connection: Any, sql: str) -> int:
    """Low level: CommandStatementUpdate, as Go's Exec and ADBC's execute_update send it."""
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(sql)
        count: int = cursor.adbc_statement.execute_update()
        return count


def test_set_show_and_reset(connection: Any) -> None:
    assert dict(ask(connection, "show all")) == DEFAULTS
    assert ask(connection, "set time_zone = 'Europe/Zurich'") == []
    assert ask(connection, "show time zone") == [("time_zone", "Europe/Zurich")]
    ((now,),) = ask(connection, "select cast(arrow_typeof(now()) as varchar)")
    assert "Europe/Zurich" in now
    ask(connection, "reset time_zone")
    ask(connection, "set statement_timeout to 2.5")
    assert dict(ask(connection, "show all")) == DEFAULTS | {"statement_timeout": "2.5"}
    ask(connection, "reset all")
    assert dict(ask(connection, "show all")) == DEFAULTS


@pytest.mark.parametrize("sql", ["use demo", "USE lake.demo", "set schema 'demo'"])
def test_a_schema_in_use_is_that_of_names_without_one(connection: Any, sql: str) -> None:
    ask(connection, sql)
    assert ask(connection, "select count(*) from numbers") == [(5,)]
    assert connection.adbc_current_db_schema == "demo"


def test_the_actions_and_the_statements_see_one_another(connection: Any) -> None:
    """SetSessionOptions, SHOW, SET and GetSessionOptions are about one set of options."""
    connection.adbc_current_db_schema = "demo"
    assert ask(connection, "show schema") == [("schema", "demo")]
    ask(connection, "set schema = system")
    assert connection.adbc_current_db_schema == "system"


@pytest.mark.parametrize(
    "sql", ["set schema = demo", "use demo", "SET SCHEMA 'demo'", "-- now\nuse lake.demo;"]
)
def test_an_update_does_the_same_and_changes_no_row(connection: Any, sql: str) -> None:
    assert update(connection, sql) == 0
    assert ask(connection, "show schema") == [("schema", "demo")]
    assert update(connection, "reset all") == 0
    assert ask(connection, "show schema") == [("schema", "market_data")]


def test_a_script_sets_options(connection: Any) -> None:
    """``executescript`` sends the update command too."""
    with connection.cursor() as cursor:
        cursor.executescript("set endpoints = 4")
    assert ask(connection, "show endpoints") == [("endpoints", "4")]


@pytest.mark.parametrize("sql", ["select 1", "show all", "show tables", "delete from demo.numbers"])
def test_any_other_update_is_refused_as_before(connection: Any, sql: str) -> None:
    with pytest.raises(connection.NotSupportedError, match="writes nothing by Flight SQL"):
        update(connection, sql)


def test_planning_changes_nothing(connection: Any) -> None:
    """GetFlightInfo, GetSchema and preparing execute nothing: DoGet does, each time."""
    with connection.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("set schema = demo")
        assert schema.names == []
        cursor.adbc_prepare("set schema = system")
        assert ask(connection, "show schema") == [("schema", "market_data")]
        for _ in range(2):
            cursor.adbc_read_partition(partitions[0])
            assert cursor.fetchall() == []
            assert ask(connection, "show schema") == [("schema", "demo")]
            ask(connection, "reset all")


def test_one_session_is_not_anothers(server: FlightSqlServer, connection: Any) -> None:
    ask(connection, "set schema = demo")
    with connect(server) as other:
        assert ask(other, "show schema") == [("schema", "market_data")]


def test_what_is_prepared_is_an_update_without_columns(server: FlightSqlServer) -> None:
    """JDBC looks at ``is_update`` (field 4), older clients at the empty schema."""
    with hand(server) as client:
        (body,) = act(client, messages.CreatePreparedStatement("set schema = demo"))
        result = unwrapped(body, "ActionCreatePreparedStatementResult")
        assert body.endswith(b"\x20\x01")
        assert result.dataset_schema == b""
        (body,) = act(client, messages.CreatePreparedStatement("show schema"))
        result = unwrapped(body, "ActionCreatePreparedStatementResult")
        assert body.endswith(b"\x20\x00")
        shown = pa.ipc.read_schema(pa.BufferReader(result.dataset_schema))
        assert shown.names == ["name", "value"]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "set statment_timeout = 5",
            "no session option 'statment_timeout': did you mean statement",
        ),
        ("show colour", "no session option 'colour': did you mean catalog, .* or time_zone"),
        ("reset search_path", "no session option 'search_path'"),
        ("set datafusion.execution.batch_size = 1", "no session option 'datafusion.exec"),
        ("set time_zone = 'Mars/Base'", "time_zone is a name such as UTC"),
        ("set endpoints = 65", "endpoints is a whole number from 1 to 64"),
        ("set catalog = pond", "the only catalog is 'lake'"),
        ("use demmo", "no schema 'demmo' .* in the catalog 'lake': there are demo"),
        ("use pond.demo", r"no schema 'pond\.demo'"),
        ("use lake", "'lake' is the catalog"),
        ("set time_zone = Europe/Zurich", "line 1, column 23"),
    ],
)
@pytest.mark.parametrize("send", [ask, update])
def test_what_is_wrong_is_said_by_either_way(
    connection: Any, site: Site, send: Any, sql: str, words: str
) -> None:
    with pytest.raises(connection.ProgrammingError, match=words):
        send(connection, sql)
    assert dict(ask(connection, "show all")) == DEFAULTS
    logged = [record for record in site.log.records() if record.statement == sql]
    assert {record.state for record in logged} == {"failed"}


@pytest.mark.parametrize("send", [ask, update])
@pytest.mark.parametrize("sql", ["set schema = demo", "use demo", "reset all"])
def test_a_client_without_cookies_is_told_so(server: FlightSqlServer, send: Any, sql: str) -> None:
    """Nothing would come of it: an error, where a success would be a lie."""
    with dbapi.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True) as connection:
        with pytest.raises(
            connection.ProgrammingError, match=r"FAILED_PRECONDITION: .*with_cookie_middleware"
        ):
            send(connection, sql)
        assert dict(ask(connection, "show all")) == DEFAULTS


def test_the_refusal_brings_the_cookie_that_was_missing(server: FlightSqlServer) -> None:
    """A client whose very first call is an update sends it again and is served."""
    with flight.connect(
        f"grpc://127.0.0.1:{server.port}", middleware=[flight_cookies := Cookies()]
    ) as client:
        wanted = descriptor(messages.StatementUpdate("set schema = demo"))
        with pytest.raises(pa.ArrowInvalid, match="came without its cookie"):
            _put(client, wanted)
        assert flight_cookies.kept
        assert bare_count(_put(client, wanted)) == 0
        rows = fetch(client, messages.StatementQuery("show schema")).to_pylist()
        assert rows == [{"name": "schema", "value": "demo"}]


class Cookies(flight.ClientMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Keeps what Set-Cookie says."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: str | None = None

    def start_call(self, info: Any) -> Any:  # noqa: D102 - pyarrow's
        del info
        return Cookie(self)


class Cookie(flight.ClientMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """One call."""

    def __init__(self, jar: Cookies) -> None:
        super().__init__()
        self._jar = jar

    def sending_headers(self) -> dict[str, str]:  # noqa: D102 - pyarrow's
        return {} if self._jar.kept is None else {"cookie": self._jar.kept}

    def received_headers(self, headers: Any) -> None:  # noqa: D102 - pyarrow's
        for value in headers.get("set-cookie", ()):
            self._jar.kept = value


def _put(client: flight.FlightClient, wanted: flight.FlightDescriptor) -> bytes:
    writer, reader = client.do_put(wanted, pa.schema([]))
    writer.done_writing()
    told = reader.read()
    writer.close()
    return b"" if told is None else told.to_pybytes()


def bare_count(body: bytes) -> int:
    from flight_server.protocol import codec  # noqa: PLC0415 - only here

    name = f"{messages.SQL_PACKAGE}.DoPutUpdateResult"
    count: int = codec._parse(name, body).record_count
    return count


# --- permissions and the log ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        messages.StatementQuery("set schema = demo"),
        messages.StatementQuery("show all"),
        messages.StatementUpdate("set schema = demo"),
        messages.CreatePreparedStatement("use demo"),
    ],
    ids=lambda request_: type(request_).__name__,
)
def test_they_need_the_permission_of_the_actions(site: Site, request_: messages.Message) -> None:
    """Not WRITE, whichever way they come: a reader may set the options of the own session."""

    def no_sessions(permission: Permission, principal: Principal) -> bool:
        assert principal.name == "anonymous"
        return permission in {Permission.QUERY, Permission.WRITE}

    with serving(site.service(policy=no_sessions)) as server, hand(server) as client:
        with pytest.raises(flight.FlightUnauthorizedError, match="lacks the permission 'session'"):
            _sent(client, request_)


def _sent(client: flight.FlightClient, request: messages.Message) -> object:
    """By the call that such a message has."""
    if isinstance(request, messages.CreatePreparedStatement):
        return act(client, request)
    update_ = isinstance(request, messages.StatementUpdate)
    return _put(client, descriptor(request)) if update_ else fetch(client, request)


def test_a_reader_without_write_may_set_options(site: Site) -> None:
    def reader(permission: Permission, principal: Principal) -> bool:
        assert principal.name == "anonymous"
        return permission is not Permission.WRITE

    with serving(site.service(policy=reader)) as server, connect(server) as connection:
        assert update(connection, "set schema = demo") == 0
        with pytest.raises(connection.ProgrammingError, match="lacks the permission 'write'"):
            update(connection, "delete from demo.numbers")


def test_they_stand_in_the_query_log(site: Site, connection: Any) -> None:
    ask(connection, "set endpoints = 7")
    update(connection, "set endpoints = 8")
    logged = {r.statement: r.state for r in site.log.records() if "endpoints" in r.statement}
    assert logged["set endpoints = 7"] == logged["set endpoints = 8"] == "finished"


def test_a_ticket_of_a_show_shows_what_is_set_when_it_is_read(connection: Any) -> None:
    with connection.cursor() as cursor:
        partitions, _ = cursor.adbc_execute_partitions("show schema")
        ask(connection, "use demo")
        cursor.adbc_read_partition(partitions[0])
        assert cursor.fetchall() == [("schema", "demo")]


def test_get_session_options_and_a_schema_of_no_columns_by_hand(server: FlightSqlServer) -> None:
    """A bare client reads a stream without columns."""
    with hand(server) as client:
        info = client.get_flight_info(descriptor(messages.StatementQuery("set schema = demo")))
        assert info.schema == pa.schema([])
        with pytest.raises(pa.ArrowInvalid, match="came without its cookie"):
            read(client.do_get(info.endpoints[0].ticket))
        (body,) = act(client, messages.GetSessionOptions())
        shown = bare(body, "GetSessionOptionsResult").session_options
        assert shown["schema"].string_value == "market_data"


def test_the_engine_alone_refuses_them_in_words(tmp_path: Path) -> None:
    """In-process there is no session: flight_server.open() comes this way."""
    from flight_server.plans import Options, Statement  # noqa: PLC0415 - only here
    from flight_server.protocol.errors import Unimplemented  # noqa: PLC0415 - only here

    with closing(Site(tmp_path)) as site:
        for sql in ("set time_zone = 'UTC'", "use demo", "reset all", "explain set a = 1"):
            with pytest.raises(Unimplemented, match=r"they are about a session.*names in full"):
                site.engine.plan(Statement(sql), Options())
