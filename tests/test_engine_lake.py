"""The engine over a real Iceberg catalog and real live segments, while both move."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import S3Store
from pyarrow import flight
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import StringType
from support_backend import NUMBERS, NUMBERS_ROWS, TICKS, Site
from support_flight import fetch, hand, serving
from support_lake import (
    SCHEMA,
    STARTS,
    TOPIC,
    Place,
    Writer,
    expire_all_but_head,
    log_rows,
    sqlite_properties,
)

from catalog.errors import CatalogError, FileMissing, VersionGone
from catalog.lake import Lake
from catalog.offsets import Offsets
from catalog.segments import LiveReader
from catalog.tables import Tables
from flight_server.backend import EngineBackend
from flight_server.engine import Engine, Options, Plan, Statement
from flight_server.limits import Limits
from flight_server.metrics import QueryLog
from flight_server.protocol import Sealer, Service
from flight_server.protocol.messages import GetTables

OPTIONS = Options(schema="market_data")
ALL = "select _partition, _offset, symbol, at, price, _topic from ticks order by 1, 2"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.publish()
    yield made
    made.close()


def ask(engine: Engine, text: str) -> pa.Table:
    return engine.stream(engine.plan(Statement(text), OPTIONS)).read_all()


def rows(engine: Engine, plan: Plan) -> pa.Table:
    return engine.stream(plan).read_all()


def expected(high: Offsets) -> pa.Table:
    """The exact prefix of the log that a version is."""
    columns = ["_partition", "_offset", "symbol", "at", "price", "_topic"]
    order = [("_partition", "ascending"), ("_offset", "ascending")]
    return log_rows(STARTS, high).select(columns).sort_by(order)


def assert_prefix(answer: pa.Table, high: Offsets) -> None:
    wanted = expected(high)
    assert answer.num_rows == wanted.num_rows
    assert answer.to_pylist() == wanted.to_pylist()


def test_history_and_tail_are_one_table(site: Site) -> None:
    site.consume(40)
    site.flush()
    site.consume(30)
    site.publish()
    plan = site.engine.plan(Statement(ALL), OPTIONS)
    assert_prefix(rows(site.engine, plan), plan.pins[0].high)
    parts = ask(
        site.engine,
        'select (select count(*) from "ticks$runs") as runs, '
        '(select count(*) from "ticks$live") as live, (select count(*) from ticks) as both',
    )
    assert parts.to_pylist() == [{"runs": 80, "live": 60, "both": 140}]


def test_a_plan_gives_the_same_rows_whatever_was_flushed_since(site: Site) -> None:
    """Rule 17: from S, and later from S', by another process."""
    site.consume(20)
    site.publish()
    plan = site.engine.plan(Statement(ALL), OPTIONS)
    before = rows(site.engine, plan)
    site.consume(20)
    site.flush()
    site.publish()
    assert rows(site.engine, plan).equals(before)
    other = site.make_engine()
    try:
        again = other.plan(Statement(ALL), OPTIONS, pins=plan.pins)
        with pytest.raises(VersionGone):  # C' is beyond the ticket's E, and its segments are gone
            other.stream(again)
    finally:
        other.close()


def test_readers_see_exact_prefixes_while_the_table_moves(site: Site) -> None:
    """Rules 16 and 17: every answer is a whole prefix of the log, and its plan says which one."""
    done = threading.Event()
    failures: list[str] = []
    answers = 0
    lock = threading.Lock()

    def read() -> None:
        nonlocal answers
        while not done.is_set():
            try:
                plan = site.engine.plan(Statement(ALL), OPTIONS)
                answer = rows(site.engine, plan)
            except CatalogError as error:
                if not error.retriable:
                    failures.append(f"{type(error).__name__}: {error}")
                continue
            if answer.to_pylist() != expected(plan.pins[0].high).to_pylist():
                failures.append(f"no prefix: {answer.num_rows} rows at {plan.pins[0].high}")
            with lock:
                answers += 1

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for round_ in range(40):
        site.consume(5)
        if round_ % 4 == 3:
            site.flush()
        site.publish()
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert answers > 0


def test_an_expired_version_is_gone_and_not_empty(site: Site) -> None:
    site.consume(10)
    site.flush()
    site.publish()
    plan = site.engine.plan(Statement('select * from "ticks$runs"'), OPTIONS)
    site.consume(10)
    site.flush()
    expire_all_but_head(site.place)
    Path(plan.pins[0].metadata_location.removeprefix("file://")).unlink()
    other = site.make_engine()
    try:
        with pytest.raises(VersionGone) as gone:
            other.stream(other.plan(Statement(plan.statement.sql), OPTIONS, pins=plan.pins))
        assert gone.value.retriable
    finally:
        other.close()


def test_metadata_tables_and_explain_show_no_local_path(site: Site, tmp_path: Path) -> None:
    site.consume(10)
    site.flush()
    site.publish()
    for name in ("offsets", "snapshots", "files"):
        shown = ask(site.engine, f'select * from "ticks${name}"')
        assert shown.num_rows > 0
        assert str(tmp_path).strip("/") not in str(shown.to_pylist())
    explained = ask(site.engine, "explain analyze select * from ticks where symbol = 'S1'")
    text = "\n".join(explained.column(1).to_pylist())
    assert str(tmp_path).strip("/") not in text
    assert "1 of 1 files kept" in text
    assert f"{TOPIC}[0] committed 110 high 110" in text


def test_bounds_from_real_manifests_prune(site: Site) -> None:
    for _ in range(3):
        site.consume(50)
        site.flush()
    site.publish()
    plan = site.engine.plan(Statement("select * from ticks where _offset < 20"), OPTIONS)
    stream = site.engine.stream(plan)
    answer = stream.read_all()
    report = stream.reports["market_data", "ticks"]
    assert (report.files, report.kept) == (3, 1)
    assert answer.num_rows == 20
    assert ask(site.engine, "select count(*) from ticks where symbol = 'nobody'").to_pylist() == [
        {"count(*)": 0}
    ]


def test_a_plain_table_is_read_and_its_new_snapshots_are_seen(site: Site) -> None:
    numbers = "select * from demo.numbers order by n"
    assert ask(site.engine, numbers).to_pylist() == NUMBERS_ROWS.to_pylist()
    site.place.foreign().load_table(str(NUMBERS)).append(NUMBERS_ROWS)
    assert ask(site.engine, "select count(*) as n from demo.numbers").to_pylist() == [{"n": 10}]
    joined = ask(site.engine, "select count(*) as n from demo.numbers a, market_data.ticks b")
    assert joined.to_pylist() == [{"n": 0}]


def test_a_pinned_plain_table_does_not_move(site: Site) -> None:
    plan = site.engine.plan(Statement("select count(*) as n from demo.numbers"), OPTIONS)
    site.place.foreign().load_table(str(NUMBERS)).append(NUMBERS_ROWS)
    assert rows(site.engine, plan).to_pylist() == [{"n": 5}]


def test_columns_that_were_added_are_null_in_older_files(site: Site) -> None:
    table = site.place.foreign().load_table(str(NUMBERS))
    with table.update_schema() as update:
        update.add_column("extra", StringType())
    more = NUMBERS_ROWS.append_column("extra", pa.array(["x"] * 5))
    table.append(more)
    shown = ask(site.engine, "select extra, count(*) as n from demo.numbers group by 1 order by 1")
    assert shown.to_pylist() == [{"extra": "x", "n": 5}, {"extra": None, "n": 5}]


def test_a_column_that_was_renamed_keeps_its_values(site: Site) -> None:
    """By name, the older files' values would be null: such tables are read by field id."""
    table = site.place.foreign().load_table(str(NUMBERS))
    with table.update_schema() as update:
        update.rename_column("label", "title")
    shown = ask(site.engine, "select n, title from demo.numbers order by n")
    assert shown.column("title").to_pylist() == NUMBERS_ROWS["label"].to_pylist()


def test_a_name_that_was_dropped_and_used_again_does_not_bring_old_values_back(site: Site) -> None:
    table = site.place.foreign().load_table(str(NUMBERS))
    with table.update_schema() as update:
        update.delete_column("label")
    with table.update_schema() as update:
        update.add_column("label", StringType())
    shown = ask(site.engine, "select label from demo.numbers")
    assert shown.column("label").to_pylist() == [None] * 5


def test_rows_deleted_by_another_client_are_gone(site: Site) -> None:
    site.place.foreign().load_table(str(NUMBERS)).delete("n >= 4")
    assert ask(site.engine, "select n from demo.numbers order by n").column("n").to_pylist() == [
        1,
        2,
        3,
    ]


def test_tables_of_the_catalog_are_listed_lazily(site: Site) -> None:
    listed = {(t.schema, t.name): t for t in site.engine.list_tables()}
    assert ("market_data", "ticks") in listed
    assert ("demo", "numbers") in listed
    assert ("system", "lag") in listed
    assert listed["demo", "numbers"].columns().names == ["n", "label"]
    assert TICKS.name.table == "ticks"
    lag = ask(site.engine, 'select "table", "partition", high from system.lag order by 2')
    assert lag.column("high").to_pylist() == [100, 0]


def columns_of(client: flight.FlightClient, schema: str) -> dict[str, list[str]]:
    """Table → its columns, as a client's GetTables shows them."""
    listed = fetch(client, GetTables(db_schema_filter_pattern=schema, include_schema=True))
    return {
        row["table_name"]: pa.ipc.read_schema(pa.BufferReader(row["table_schema"])).names
        for row in listed.to_pylist()
    }


def test_tables_created_altered_and_dropped_show_in_the_next_list(tmp_path: Path) -> None:
    """Schemas that are kept by version never hide a change."""
    catalog = SqlCatalog("lake", **sqlite_properties(tmp_path))
    catalog.create_namespace("many")
    plain = pa.schema([("n", pa.int64())])
    catalog.create_table("many.one", plain)
    lake = Lake.open("lake", sqlite_properties(tmp_path), timeout_s=60)
    engine = Engine(Tables(lake, LiveReader(tmp_path / "live"), [], refresh_ms=0), lake, Limits())
    service = Service(EngineBackend(engine, QueryLog()), Sealer([b"k" * 32]))
    with closing(lake), closing(engine), serving(service) as server, hand(server) as client:
        assert columns_of(client, "many") == {"one": ["n"]}
        kept = service.encoded.kept_bytes
        assert kept > 0
        assert columns_of(client, "many") == {"one": ["n"]}
        catalog.create_table("many.two", plain)
        with catalog.load_table("many.one").update_schema() as change:
            change.add_column("label", StringType())
        assert columns_of(client, "many") == {"one": ["n", "label"], "two": ["n"]}
        catalog.drop_table("many.two")
        with catalog.load_table("many.one").update_schema() as change:
            change.rename_column("n", "number")
        assert columns_of(client, "many") == {"one": ["number", "label"]}
        catalog.create_table("many.two", pa.schema([("other", pa.int64())]))
        assert columns_of(client, "many")["two"] == ["other"]
    catalog.close()


def test_a_list_names_the_metadata_that_each_table_has_now(tmp_path: Path) -> None:
    """One question for all of them says what pyiceberg says one by one; views are no tables."""
    catalog = SqlCatalog("lake", **sqlite_properties(tmp_path))
    for name in ("a.one", "a.two", "a.b.three"):
        *space, _ = name.split(".")
        catalog.create_namespace_if_not_exists(tuple(space))
        catalog.create_table(name, pa.schema([("n", pa.int64())]))
    with closing(Lake.open("lake", sqlite_properties(tmp_path), timeout_s=60)) as lake:
        found = lake.listing()
        assert sorted(map(str, found)) == ["a.b.three", "a.one", "a.two"]
        assert found == {name: lake.head(name).metadata_location for name in found}
        with catalog.engine.begin() as connection:
            connection.exec_driver_sql(
                "update iceberg_tables set iceberg_type = 'VIEW' where table_name = 'two'"
            )
        assert sorted(map(str, lake.listing())) == ["a.b.three", "a.one"]
    catalog.close()


def test_files_in_an_s3_store_are_scanned_natively(tmp_path: Path, s3: S3Store) -> None:
    """The same exactness where files are objects; a missing object is an error (rule 18)."""
    properties = {
        **sqlite_properties(tmp_path),
        **s3.properties,
        "warehouse": f"s3://{s3.create_bucket()}/warehouse",
    }
    place = Place(properties, TICKS)
    lake = place.lake()
    lake.ensure_table(TICKS, SCHEMA)
    writer = Writer.claiming(place, "writer", lake)
    writer.append(50)
    writer.append(50)
    tables = Tables(lake, LiveReader(tmp_path / "live"), [], refresh_ms=0)
    engine = Engine(tables, lake, Limits())
    try:
        assert_prefix(ask(engine, ALL), writer.marker.positions)
        explained = ask(engine, "explain select * from ticks")
        assert "2 of 2 files kept" in "\n".join(explained.column(1).to_pylist())
        files = lake.entries(TICKS.name, writer.head.snapshot_id, writer.head.metadata_location)
        place.foreign_table().io.delete(files["path"][0].as_py())
        with pytest.raises(FileMissing):
            ask(engine, "select sum(_offset) from ticks")
    finally:
        engine.close()
        lake.close()
