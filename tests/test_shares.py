"""Several endpoints: whatever is divided, the shares together are the statement's rows, once."""

# ruff: noqa: SIM117 - connections and expectations nest as the test reads

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext
from pyarrow import flight
from support_backend import NUMBERS, NUMBERS_ROWS, Site
from support_flight import Numbers, connect, hand, make_service, read, serving

from flight_server import shares
from flight_server.analysis import VOLATILE_WORDS
from flight_server.payloads import payload_of, read_payload
from flight_server.plans import Options, Plan, Statement
from flight_server.protocol import Batches, Call, Planned, Rows, messages
from flight_server.protocol import Statement as Asked
from flight_server.shares import Share

DIVIDED = [
    "select * from ticks",
    "select symbol, _offset * 2 as twice from ticks where price > 1 and _partition = 0",
    "select t.symbol from (select symbol, _offset from ticks where _offset > 3) as t",
    "with t as (select * from ticks) select _offset, _partition from t where symbol <> 'x'",
    'select * from "ticks$runs"',
    'select * from "ticks$live"',
    "select n, upper(label) from demo.numbers where n > 1",
]
WHOLE = [
    "select * from ticks limit 5",
    "select * from ticks offset 3",
    "select * from ticks order by _offset",
    "select count(*) from ticks",
    "select distinct symbol from ticks",
    "select symbol, row_number() over (order by _offset) from ticks",
    "select * from ticks union all select * from ticks",
    "select a._offset from ticks a join ticks b on a._offset = b._offset",
    "select _offset, random() from ticks",
    "select uuid() from ticks",
    "select rand() from ticks",
    "select * from ticks, generate_series(1, 2)",
    "select * from ticks where at < now()",
    "select * from ticks where _offset = (select max(_offset) from ticks)",
    "select * from ticks where _offset in (select n from demo.numbers)",
    "select _offset, (select max(n) from demo.numbers) from ticks",
    "select unnest([1, 2]) from ticks",
    "select * from system.tables",
    'select * from "ticks$offsets"',
    "select 1",
    "select * from ticks where false",
    "explain select * from ticks",
    "values (1), (2)",
]


def fill(folder: Path) -> Site:
    """Three flushes and three live segments, and an ordinary table of four files."""
    site = Site(folder)
    for rows in (10, 40, 5):
        site.consume(rows)
        site.flush()
    for rows in (7, 3, 9):
        site.consume(rows)
    site.publish()
    table = site.place.foreign().load_table(str(NUMBERS))
    for _ in range(3):
        table.append(NUMBERS_ROWS)
    return site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(fill(tmp_path)) as site:
        yield site


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that nobody changes."""
    with closing(fill(tmp_path_factory.mktemp("quiet"))) as site:
        yield site


def plan(site: Site, sql: str, endpoints: int, parameters: pa.RecordBatch | None = None) -> Plan:
    options = Options(schema="market_data", endpoints=endpoints)
    return site.engine.plan(Statement(sql, parameters), options)


def rows_of(site: Site, planned: Plan, share: Share | None) -> Counter[tuple[object, ...]]:
    """What a server answers that has the share's ticket and nothing else."""
    told = read_payload(payload_of(planned, share))
    again = site.engine.plan(told.statement, told.options, pins=told.pins)
    table = site.engine.stream(again, share=told.share).read_all()
    return Counter(tuple(str(v) for v in row.values()) for row in table.to_pylist())


@pytest.mark.parametrize("count", [2, 3, 7, 64])
@pytest.mark.parametrize("sql", DIVIDED)
def test_the_shares_together_are_exactly_the_statements_rows(
    quiet: Site, sql: str, count: int
) -> None:
    planned = plan(quiet, sql, count)
    parts = [rows_of(quiet, planned, share) for share in quiet.engine.divide(planned)]
    assert 2 <= len(parts) <= count
    assert sum(parts, Counter()) == rows_of(quiet, planned, None)


@pytest.mark.parametrize("sql", WHOLE)
def test_what_cannot_be_divided_soundly_stays_whole(quiet: Site, sql: str) -> None:
    assert quiet.engine.divide(plan(quiet, sql, 4)) == ()


def test_nothing_is_divided_unless_it_is_asked_for(quiet: Site) -> None:
    assert quiet.engine.divide(plan(quiet, "select * from ticks", 1)) == ()


def test_the_shares_are_of_about_the_same_size(quiet: Site) -> None:
    planned = plan(quiet, "select * from ticks", 4)
    sizes = [rows_of(quiet, planned, share).total() for share in quiet.engine.divide(planned)]
    assert len(sizes) == 4
    assert max(sizes) <= 2 * sum(sizes) / 4


def test_one_set_of_parameters_is_divided_and_several_are_not(quiet: Site) -> None:
    """Several sets are several executions whose rows follow each other."""
    sql = "select * from ticks where _offset < ?"
    one, two = (pa.record_batch({"x": pa.array(v, pa.int64())}) for v in ([30], [30, 40]))
    planned = plan(quiet, sql, 3, one)
    parts = [rows_of(quiet, planned, share) for share in quiet.engine.divide(planned)]
    assert len(parts) > 1
    assert sum(parts, Counter()) == rows_of(quiet, planned, None)
    assert quiet.engine.divide(plan(quiet, sql, 3, two)) == ()


@pytest.mark.parametrize("sql", [s for s in DIVIDED if "$" not in s])
def test_a_flush_between_two_shares_changes_nothing(site: Site, sql: str) -> None:
    """Rule 17: one share comes from segments, another from the files that replaced them."""
    planned = plan(site, sql, 4)
    parts = site.engine.divide(planned)
    whole, got = rows_of(site, planned, None), Counter[tuple[object, ...]]()
    for place, share in enumerate(parts):
        got += rows_of(site, planned, share)
        site.consume(2)
        if place % 2 == 0:
            site.flush()
            site.segments.trim([s.file for s in site.live], 0.0)
        site.publish()
        site.place.foreign().load_table(str(NUMBERS)).append(NUMBERS_ROWS)
    assert got == whole


def test_shares_hold_a_slot_only_while_the_engine_works(tmp_path: Path) -> None:
    """A client may open all of them and read one after the other: it must not wait for itself."""
    with closing(fill(tmp_path)) as site:
        site.engine.admission._free = 1
        whole = plan(site, "select * from ticks", 4)
        streams = [site.engine.stream(whole, share=each) for each in site.engine.divide(whole)]
        assert len(streams) == 4
        assert sum(stream.read_all().num_rows for stream in streams) > 0
        assert site.engine.admission._free == 1


def test_any_cuts_cover_every_row_once() -> None:
    """The estimates may be as wrong as they like: only the balance suffers."""
    chance = random.Random(7)
    for _ in range(200):
        cuts = [chance.randrange(-3, 50) for _ in range(chance.randrange(6))]
        made = shares._ranges("offset", cuts)
        if not made:
            assert not [cut for cut in cuts if cut > 0]
            continue
        for offset in range(60):
            inside = [s for s in made if s.first <= offset and (s.next is None or offset < s.next)]
            assert len(inside) == 1


def test_every_function_that_is_not_deterministic_is_known() -> None:
    """The engine lists them: a new one would be divided unsoundly."""
    settings = SessionConfig({"datafusion.catalog.information_schema": "true"})
    found = SessionContext(settings).sql(
        "select distinct routine_name from information_schema.routines where not is_deterministic"
    )
    names = set(found.to_pydict()["routine_name"]) - {"range", "generate_series"}  # give rows
    assert {"random", "uuid", "now"} <= names
    assert names <= VOLATILE_WORDS


# --- over the wire -------------------------------------------------------------------------------


def set_options(connection: Any, **options: str) -> None:
    named = {f"adbc.flight.sql.session.option.{name}": value for name, value in options.items()}
    connection.adbc_connection.set_options(**named)


def test_a_client_fetches_endpoints_in_parallel(quiet: Site) -> None:
    """Each by a connection of its own, without the session: the ticket says everything."""
    with serving(quiet.service()) as server, connect(server) as connection:
        set_options(connection, endpoints="4")
        with connection.cursor() as cursor:
            tickets, schema = cursor.adbc_execute_partitions("select * from ticks")
            infos = [flight.FlightInfo.deserialize(ticket) for ticket in tickets]
            assert len(infos) == 4

            def fetch(info: flight.FlightInfo) -> pa.Table:
                with hand(server) as client:
                    return read(client.do_get(info.endpoints[0].ticket))

            with ThreadPoolExecutor(4) as pool:
                tables = list(pool.map(fetch, infos))
            cursor.execute("select * from ticks")
            whole = cursor.fetch_arrow_table()
            assert all(table.schema.names == schema.names for table in tables)
            order = [("_partition", "ascending"), ("_offset", "ascending")]
            assert pa.concat_tables(tables).sort_by(order) == whole.sort_by(order)


class Dealt(Numbers):
    """Gives its rows in three shares."""

    def plan(self, statement: Asked, call: Call) -> Planned:
        """As always, and divided."""
        whole = super().plan(statement, call)
        return Planned(whole.schema, whole.payload, (b"0", b"1", b"2"))

    def open(self, payload: bytes, call: Call) -> Rows:
        """A share, or everything."""
        if payload == b"numbers":
            return super().open(payload, call)
        table = pa.table({"n": pa.array([int(payload)], pa.int64())})
        return Batches(table.schema, iter(table.to_batches()))


def test_the_flag_ordered_is_honest() -> None:
    """One endpoint keeps the statement's order; several are in none."""
    query = messages.StatementQuery("select n from numbers")
    from support_flight import descriptor  # noqa: PLC0415 - only here

    with serving(make_service(Dealt())) as server, hand(server) as client:
        info = client.get_flight_info(descriptor(query))
        assert (len(info.endpoints), info.ordered) == (3, False)
        got = [read(client.do_get(e.ticket))["n"].to_pylist() for e in info.endpoints]
        assert got == [[0], [1], [2]]
    with serving(make_service(Numbers())) as server, hand(server) as client:
        info = client.get_flight_info(descriptor(query))
        assert (len(info.endpoints), info.ordered) == (1, True)


@contextmanager
def counting(port: int) -> Iterator[tuple[int, list[int]]]:
    """A relay to ``port``: its own port, and the sizes of what the server sent through it."""
    sizes: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))
    sockets, threads = [listener], []

    def pump(source: socket.socket, target: socket.socket, seen: list[int]) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                seen.append(len(piece))
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                sockets.extend((near, far))
                for args in ((near, far, []), (far, near, sizes)):
                    threads.append(threading.Thread(target=pump, args=args))
                    threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1], sizes
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for each in sockets[1:]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for each in sockets:
            each.close()


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_buffers_are_compressed_as_the_session_says(quiet: Site, compression: str) -> None:
    """The rows are the same, the bytes on the wire are fewer."""
    sql = "select value, repeat('abc', 50) as text from generate_series(1, 20000)"
    with serving(quiet.service()) as server, connect(server) as connection:
        set_options(connection, compression=compression)
        with connection.cursor() as cursor:
            tickets, _ = cursor.adbc_execute_partitions(sql)
        (ticket,) = [flight.FlightInfo.deserialize(t).endpoints[0].ticket for t in tickets]
        with counting(server.port) as (port, sizes):
            with flight.connect(f"grpc://127.0.0.1:{port}") as client:
                table = read(client.do_get(ticket))
    assert table.num_rows == 20_000
    assert set(table["text"].to_pylist()) == {"abc" * 50}
    assert (sum(sizes) < table.nbytes / 4) == (compression != "none")
    assert sum(sizes) > (0 if compression != "none" else table.nbytes)
