"""Plans that are kept: the same text is planned once, and nothing that changed is ever missed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import SessionContext
from datafusion.substrait import Producer
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import StringType
from support_lake import sqlite_properties

import flight_server.engine
from catalog.errors import LakeUnavailable
from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.tables import Tables
from flight_server.engine import Engine
from flight_server.limits import Limits
from flight_server.plans import Options, Plan, Statement
from flight_server.protocol.errors import NotFound
from flight_server.shapes import MAX_BOUND, MAX_TEXT, MAX_VALUES, Shapes
from flight_server.sqltext import read

NUMBERS = pa.table({"n": pa.array([1, 2, 3], pa.int64())})


DEMO = Options(schema="demo")


class House:
    """A catalog that its owner changes, and an engine that looks at it anew each time."""

    def __init__(self, folder: Path) -> None:
        self.catalog = SqlCatalog("lake", **sqlite_properties(folder))
        for namespace in ("demo", "other"):
            self.catalog.create_namespace(namespace)
        self.catalog.create_table("demo.t", NUMBERS.schema).append(NUMBERS)
        self.lake = Lake.open("lake", sqlite_properties(folder), timeout_s=60)
        tables = Tables(self.lake, LiveReader(folder / "live"), [], refresh_ms=0)
        self.engine = Engine(tables, self.lake, Limits())

    def ask(self, sql: str, schema: str = "demo", zone: str = "UTC") -> pa.Table:
        """The answer to a session with these options."""
        options = Options(schema=schema, time_zone=zone)
        return self.engine.stream(self.engine.plan(Statement(sql), options)).read_all()

    def close(self) -> None:
        """Ends the engine's thread and the connections."""
        self.engine.close()
        self.lake.close()
        self.catalog.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with closing(House(tmp_path)) as house:
        yield house


@contextmanager
def texts_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that are lexed, hence planned, inside the block."""
    found: list[str] = []

    def counting(sql: str, bounds: object) -> object:
        found.append(sql)
        return read(sql, bounds)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(flight_server.engine, "read", counting)
        yield found


def test_the_same_text_is_planned_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with texts_read(monkeypatch) as texts:
        for _ in range(3):
            assert house.ask("select sum(n) as s from t")["s"].to_pylist() == [6]
            assert house.ask("select 1 as one")["one"].to_pylist() == [1]
    assert texts == ["select sum(n) as s from t", "select 1 as one"]


def test_rows_written_between_two_statements_are_seen(house: House) -> None:
    """Versions are pinned by each statement; only what a text means is kept."""
    assert house.ask("select n from t").num_rows == 3
    house.catalog.load_table("demo.t").append(NUMBERS)
    assert house.ask("select n from t").num_rows == 6


def test_a_table_created_altered_dropped_and_created_anew_is_seen(house: House) -> None:
    with pytest.raises(NotFound):
        house.ask("select * from late")
    house.catalog.create_table("demo.late", NUMBERS.schema).append(NUMBERS)
    assert house.ask("select * from late").column_names == ["n"]
    with house.catalog.load_table("demo.late").update_schema() as change:
        change.add_column("label", StringType())
    assert house.ask("select * from late").column_names == ["n", "label"]
    with house.catalog.load_table("demo.late").update_schema() as change:
        change.rename_column("n", "number")
    assert house.ask("select * from late").column_names == ["number", "label"]
    house.catalog.drop_table("demo.late")
    with pytest.raises(NotFound):
        house.ask("select * from late")
    other = pa.table({"text": ["x"]})
    house.catalog.create_table("demo.late", other.schema).append(other)
    assert house.ask("select * from late").to_pylist() == [{"text": "x"}]


def test_a_table_that_takes_a_functions_name_is_seen(house: House) -> None:
    """The engine looks for a table before it takes the function."""
    sql = "select count(*) as n from generate_series(1, 5)"
    assert house.ask(sql)["n"].to_pylist() == [5]
    assert len(house.engine._shapes) == 0


def test_sessions_with_other_options_do_not_share_plans(house: House) -> None:
    house.catalog.create_table("other.t", pa.schema([("text", pa.string())]))
    assert house.ask("select * from t").column_names == ["n"]
    assert house.ask("select * from t", schema="other").column_names == ["text"]
    moment = "select timestamptz '2026-01-01T00:00:00Z' as at"
    assert house.ask(moment).schema.field("at").type.tz == "UTC"
    assert house.ask(moment, zone="Asia/Tokyo").schema.field("at").type.tz == "Asia/Tokyo"


def test_a_clock_and_lists_of_tables_are_planned_every_time(house: House) -> None:
    first = house.ask("select now() as at")["at"].to_pylist()
    time.sleep(0.002)
    assert house.ask("select now() as at")["at"].to_pylist() > first
    listed = "select table_name from information_schema.tables where table_schema = 'demo'"
    assert house.ask(listed)["table_name"].to_pylist() == ["t"]
    house.catalog.create_table("demo.u", NUMBERS.schema)
    assert sorted(house.ask(listed)["table_name"].to_pylist()) == ["t", "u"]
    assert len(house.engine._shapes) == 0


def test_bound_values_are_planned_once_each(house: House) -> None:
    """They decide which files are read; GetFlightInfo and DoGet come with the same ones."""

    def bound(value: object) -> Plan:
        statement = Statement("select n from t where n = ?", pa.record_batch({"p": [value]}))
        return house.engine.plan(statement, Options(schema="demo"))

    for wanted in (1, 3):
        one, again = bound(wanted), bound(wanted)
        assert again.prepared.reads is one.prepared.reads
        assert house.engine.stream(again).read_all()["n"].to_pylist() == [wanted]
    assert bound(1.0).prepared.reads is not bound(1).prepared.reads
    assert len(house.engine._shapes) == 3


def test_values_that_are_said_by_number_are_not_taken_for_others(house: House) -> None:
    """A batch's own bytes do not hold its dictionaries; the files are pruned by what they say."""
    house.catalog.load_table("demo.t").append(pa.table({"n": pa.array([7], pa.int64())}))
    for wanted in (7, 1):
        values = pa.record_batch({"p": pa.array([wanted]).dictionary_encode()})
        plan = house.engine.plan(Statement("select n from t where n = ?", values), DEMO)
        assert house.engine.stream(plan).read_all()["n"].to_pylist() == [wanted]


def test_many_bound_values_are_not_kept(house: House) -> None:
    for value in ("x" * MAX_VALUES, "x" * (MAX_VALUES + 1)):
        bound = Statement("select ? as text", pa.record_batch({"p": [value]}))
        house.engine.plan(bound, Options(schema="demo"))
    assert len(house.engine._shapes) == 0
    for number in range(2 * MAX_BOUND):
        bound = Statement("select n from t where n = ?", pa.record_batch({"p": [number]}))
        house.engine.plan(bound, Options(schema="demo"))
    assert len(house.engine._shapes) == MAX_BOUND


def test_a_prepared_text_and_a_bound_one_are_two_things(house: House) -> None:
    sql = "select n from t where n = ?"
    options = Options(schema="demo")
    for _ in range(2):
        assert house.engine.plan(Statement(sql), options).parameter_schema.types == [pa.int64()]
    bound = Statement(sql, pa.record_batch({"p": [2]}))
    plan = house.engine.plan(bound, options)
    assert plan.prepared.reads is not None  # the values prune
    assert house.engine.stream(plan).read_all()["n"].to_pylist() == [2]


def test_an_unreachable_table_is_an_error_whether_its_plan_is_kept_or_not(
    house: House,
) -> None:
    assert house.ask("select n from t").num_rows == 3
    with house.catalog.engine.begin() as connection:
        connection.exec_driver_sql("drop table iceberg_tables")
    for sql in ("select n from t", "select n + 1 from t"):
        with pytest.raises(LakeUnavailable):
            house.ask(sql)


def test_kept_plans_have_a_bound_and_long_texts_are_not_kept(house: House) -> None:
    shapes = house.engine._shapes = Shapes(capacity=10)
    for number in range(50):
        assert house.ask(f"select {number} as n")["n"].to_pylist() == [number]
    assert len(shapes) == 10
    shapes = house.engine._shapes = Shapes()
    assert house.ask(f"select 1 as n -- {'x' * MAX_TEXT}").num_rows == 1
    assert len(shapes) == 0


def test_plans_of_one_size_are_told_apart(house: House) -> None:
    """A Substrait plan is shown by its size; it is kept by what it says."""
    context = SessionContext()
    context.register_record_batches("t", [NUMBERS.to_batches()])
    context.sql("create schema demo")
    found = []
    for number in (1, 2, 3):
        frame = context.sql(f"select n from t where n = {number}")
        plan = Producer.to_substrait_plan(frame.logical_plan(), context).encode()
        statement = Statement("the same text", substrait=plan)
        options = Options(schema="demo")
        for _ in range(2):
            answer = house.engine.stream(house.engine.plan(statement, options)).read_all()
            found += answer["n"].to_pylist()
    assert found == [1, 1, 2, 2, 3, 3]
