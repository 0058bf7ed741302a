"""A topic's schema changes while its table runs: one table, whatever a row was written by."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import LongType, StringType
from support_evolution import (
    NAME,
    OPTIONS,
    READER,
    VERSIONS,
    Topic,
    answering,
    ask,
    avro,
    encoded,
    ingesting,
    register,
    select,
)
from support_ingest import WAIT_S, World, committed, reached, running
from support_kafka import Broker

from catalog.declaration import ids
from catalog.errors import SchemaChanged, SchemaConflict
from catalog.manifest import Manifest
from catalog.offsets import Offsets
from flight_server.engine import Statement


@pytest.fixture
def topic(mock_broker: Broker) -> Topic:
    mock_broker.producer().list_topics("t", timeout=WAIT_S)
    return Topic(mock_broker, "t")


@pytest.fixture
def world(mock_broker: Broker, tmp_path: Path) -> World:
    made = World.make(tmp_path, mock_broker.properties)
    register(tmp_path, "t", 1, VERSIONS)
    return made


def assert_answer(world: World, topic: Topic) -> Manifest:
    """Every row is what Avro makes of its record, in the columns that the version has."""
    manifest = world.manifest(NAME)
    assert manifest is not None
    names = manifest.arrow_schema.names
    reader = avro(*(field for field in READER["fields"] if field["name"] in names))
    if "price" in names:
        reader = VERSIONS[1]
    with answering(world, topic.spec()) as engine:
        assert ask(engine, select(reader)) == topic.wanted(manifest, reader)
    return manifest


def test_rows_are_the_same_live_and_in_history_whatever_wrote_them(
    world: World, topic: Topic
) -> None:
    """Old files, new files and segments of several declarations are one table, by field id."""
    topic.send([1] * 20)
    with running(world.sources(), topic.spec(flush_age_s=0.3)):
        world.wait(NAME, committed("t", *topic.ends))
    with running(world.sources(), topic.spec()) as it:
        topic.send([1, 1, 1, 1, 2, 2, 1, 1, 2, 1])
        world.wait(NAME, reached("t", *topic.ends))
        topic.send([2, 2, 1, 3, 2, 1, 3, 3])
        world.wait(NAME, reached("t", *topic.ends))
        live = assert_answer(world, topic)
        assert not live.committed.covers(live.high)
    assert not it.errors
    with running(world.sources(), topic.spec(flush_age_s=0.3)):
        world.wait(NAME, committed("t", *topic.ends))
        manifest = assert_answer(world, topic)
        assert manifest.schema_id == 3
        topic.send([3, 1, 2] * 10)
        world.wait(NAME, committed("t", *topic.ends))
        assert_answer(world, topic)
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary["k2.schema-id"] == "3"
    assert snapshot.schema_id == table.schema().schema_id
    assert (
        table.schema().find_field("px").field_id == table.schemas()[0].find_field("price").field_id
    )


def test_files_from_before_a_column_hold_the_default_that_it_came_with(
    world: World, topic: Topic
) -> None:
    """In history as in the tail, and for filters on it; scanned natively, in groups by shape."""
    topic.send([1] * 10)
    with running(world.sources(), topic.spec(flush_age_s=0.2)):
        world.wait(NAME, committed("t", *topic.ends))
        topic.send([2, 1] * 5)
        world.wait(NAME, committed("t", *topic.ends))
        assert_answer(world, topic)
    dollars = sum(value[4] == 1 for value in topic.sent.values())
    with answering(world, topic.spec()) as engine:
        where = "from ticks where currency = 'USD' and side = 'BUY'"
        assert ask(engine, f"select count(*) as n {where}") == [{"n": dollars}]
        assert ask(engine, f"select px {where} and symbol = 'S1' order by px")
        plan = "\n".join(row["plan"] for row in ask(engine, f"explain select px {where}"))
    assert "file_type=parquet" in plan


def test_a_schema_that_the_table_cannot_become_ends_reading_in_front_of_it(
    world: World, topic: Topic
) -> None:
    """What came before it, in the same chunk too, is published and committed; nothing is lost."""
    topic.send([1] * 10)
    bad = avro({"name": "symbol", "type": "string"}, {"name": "price", "type": "string"})
    register(world.folder, "t", 1, {**VERSIONS, 4: bad})
    value = encoded(bad, {"symbol": "S", "price": "1.5"}, 4)
    topic.broker.produce("t", [value, value], partition=0)
    with running(world.sources(), topic.spec()) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped" and m.committed == m.high)
        for part in ("SchemaChanged", "schema id 4", "id 1", "'price'", "string", "float"):
            assert part in (stopped.error or "")
        assert [stopped.high.at(("t", p)) for p in (0, 1)] == [5, 5]
        assert_answer(world, topic)
    assert isinstance(it.errors[NAME], SchemaChanged)


def test_a_ticket_keeps_its_schema_and_its_rows_when_the_table_changes(
    world: World, topic: Topic
) -> None:
    """Rule 17: planned over one declaration, answered under the next one, live and flushed."""
    columns = ["symbol", "price", "size", "note"]
    text = f"select _partition, _offset, {', '.join(columns)}, venue from ticks order by 1, 2"
    topic.send([1] * 10)
    with running(world.sources(), topic.spec()), answering(world, topic.spec()) as engine:
        world.wait(NAME, reached("t", *topic.ends))
        plan = engine.plan(Statement(text), OPTIONS)
        before = engine.stream(plan).read_all()
        assert before.num_rows == 10
        topic.send([2, 1, 3, 2])
        world.wait(NAME, reached("t", *topic.ends))
        assert engine.stream(plan).read_all().equals(before)
        newest = engine.plan(Statement("select px, currency, depth from ticks"), OPTIONS)
        assert newest.schema.names == ["px", "currency", "depth"]
    with answering(world, topic.spec()) as other:  # a server that never saw the older manifest
        again = other.plan(Statement(text), OPTIONS, pins=plan.pins)
        assert again.schema.equals(plan.schema)
        assert other.stream(again).read_all().equals(before)


def foreign(world: World) -> Table:
    """The table as another tool has it."""
    return load_catalog("lake", **world.properties).load_table(str(NAME))


def test_what_other_tools_do_to_columns_is_followed(world: World, topic: Topic) -> None:
    """Renamed columns keep our rows, new ones are null in them, wider types are ours too."""
    topic.send([1] * 10)
    with running(world.sources(), topic.spec(flush_age_s=0.3)) as it:
        world.wait(NAME, committed("t", *topic.ends))
        with foreign(world).update_schema() as update:
            update.rename_column("symbol", "ticker")
            update.add_column("remark", StringType())
            update.update_column("size", LongType())
            update.move_first("note")
        topic.send([1] * 10)
        world.wait(NAME, committed("t", *topic.ends))
        topic.send([2, 3, 1] * 4)
        world.wait(NAME, committed("t", *topic.ends))
        assert_answer(world, topic)
    assert not it.errors
    rows = foreign(world).scan().to_arrow()
    assert rows["remark"].null_count == rows.num_rows == len(topic.sent)
    assert rows["ticker"].null_count == 0
    assert "symbol" not in rows.column_names
    with running(world.sources(), topic.spec(flush_age_s=0.3)) as it:  # and after a restart
        topic.send([3] * 4)
        world.wait(NAME, committed("t", *topic.ends))
        assert_answer(world, topic)
    assert not it.errors


def _drop(update: UpdateSchema) -> None:
    update.delete_column("size")


def _require(update: UpdateSchema) -> None:
    update.add_column("must", StringType(), required=True, default_value="x")


@pytest.mark.parametrize(
    ("change", "parts"),
    [(_drop, ("'size'", "int32", "no such column")), (_require, ("'must'", "requires a value"))],
)
def test_what_conflicts_with_the_topic_stops_the_table(
    world: World, topic: Topic, change: Callable[[UpdateSchema], None], parts: tuple[str, ...]
) -> None:
    """Nothing is written any more, and the error shows both sides."""
    topic.send([1] * 10)
    with running(world.sources(), topic.spec(flush_age_s=0.3)) as it:
        before = world.wait(NAME, committed("t", *topic.ends))
        table = foreign(world)
        with table.transaction() as transaction:
            transaction.set_properties({"format-version": "2"})
            with transaction.update_schema(allow_incompatible_changes=True) as update:
                change(update)
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert all(part in (stopped.error or "") for part in ("SchemaConflict", *parts))
        assert stopped.snapshot_id == before.snapshot_id
    assert isinstance(it.errors[NAME], SchemaConflict)


def test_a_name_that_another_tool_gave_away_is_not_ours_again(world: World, topic: Topic) -> None:
    """A column of the topic that is new would share the name of a column of another tool."""
    topic.send([1] * 10)
    with running(world.sources(), topic.spec(flush_age_s=0.3)) as it:
        world.wait(NAME, committed("t", *topic.ends))
        with foreign(world).update_schema() as update:
            update.add_column("currency", LongType())
        topic.send([2] * 2)
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert "SchemaConflict: column 'currency'" in (stopped.error or "")
    assert isinstance(it.errors[NAME], SchemaConflict)
    assert foreign(world).scan().to_arrow().num_rows == 10


def test_killed_anywhere_records_of_every_schema_are_replayed_exactly(
    kafka: Broker, tmp_path: Path
) -> None:
    """Between the files, the commit that evolves the table and its manifest; by fastavro's rules.

    After every death the version that is left is exact, and so is what the next process makes.
    """
    name = kafka.create_topic(2)
    topic = Topic(kafka, name)
    world = World.make(tmp_path, kafka.properties)
    register(tmp_path, name, 1, VERSIONS)
    points = ("segment.written:2", "flush.files_written", "commit.before_send:2", "commit.landed:2")
    sent = ([1] * 4 + [2] * 4, [3, 1, 2] * 4, [2, 1] * 4, [1, 3] * 4)
    for point, versions in zip(points, sent, strict=True):
        topic.send(versions[:4])
        with ingesting(world, topic, point) as child:  # it may die of what lies there already
            there = reached(name, *topic.ends)
            dead = child.poll
            world.wait(NAME, lambda m, there=there, dead=dead: there(m) or dead() is not None)
            topic.send(versions[4:])
            assert child.wait(WAIT_S) == -signal.SIGKILL, point
        assert_answer(world, topic)
    with ingesting(world, topic):
        world.wait(NAME, committed(name, *topic.ends))
        topic.send([3, 2, 1])
        world.wait(NAME, committed(name, *topic.ends))
    manifest = assert_answer(world, topic)
    with answering(world, topic.spec()) as engine:
        runs = ask(engine, 'select count(*) as n, count(distinct _offset) as o from "ticks$runs"')
    assert runs[0]["n"] == len(topic.sent)
    assert manifest.high.to_json() == {name: {"0": topic.ends[0], "1": topic.ends[1]}}


def test_a_field_id_that_another_tool_took_first_is_not_shared(world: World, topic: Topic) -> None:
    """Columns that are not committed yet get other ids; the tail is read once more."""
    topic.send([1] * 10)
    with running(world.sources(), topic.spec(flush_rows=24)) as it:
        world.wait(NAME, reached("t", *topic.ends))
        topic.send([2] * 10)
        before = world.wait(NAME, reached("t", *topic.ends))
        with foreign(world).update_schema() as update:
            update.add_column("theirs", LongType())
        after = world.wait(NAME, lambda m: m.metadata_location != before.metadata_location)
        assert after.high.same_as(before.high)
        assert not ids(after.arrow_schema) & {foreign(world).schema().find_field("theirs").field_id}
        topic.send([2] * 10)
        world.wait(NAME, reached("t", *topic.ends))
        assert_answer(world, topic)
    assert not it.errors
    with running(world.sources(), topic.spec(flush_age_s=0.2)) as it:
        world.wait(NAME, committed("t", *topic.ends))
        assert_answer(world, topic)
    assert not it.errors
    assert foreign(world).scan().to_arrow()["theirs"].null_count == len(topic.sent)


def test_a_restart_keeps_the_default_that_rows_were_served_with(world: World, topic: Topic) -> None:
    """The column is not committed, and the registry's newest schema gives it another default."""
    fields = [dict(field) for field in VERSIONS[3]["fields"]]
    other = avro(*(f | {"default": "CHF"} if f["name"] == "currency" else f for f in fields))
    topic.send([1] * 6 + [2] * 4)
    with running(world.sources(), topic.spec()):
        world.wait(NAME, reached("t", *topic.ends))
        first = assert_answer(world, topic)
    register(world.folder, "t", 5, {**VERSIONS, 5: other})
    with running(world.sources(), topic.spec(flush_age_s=0.3)) as it:
        world.wait(NAME, lambda m: m.sequence > first.sequence and m.committed.covers(first.high))
        assert_answer(world, topic)
    assert not it.errors


def test_a_declaration_that_is_fixed_moves_by_its_setting_only(world: World, topic: Topic) -> None:
    """``schema_id`` names the one schema; a newer id and a restart go on where reading ended."""
    topic.send([1] * 4 + [2] * 4)
    fixed = topic.spec(schema_id=1)
    with running(world.sources(), fixed) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert "schema_id = 2" in (stopped.error or "")
        assert stopped.high.same_as(Offsets({("t", 0): 2, ("t", 1): 2}))
    assert isinstance(it.errors[NAME], SchemaChanged)
    with running(world.sources(), topic.spec(schema_id=2)) as it:
        world.wait(NAME, reached("t", *topic.ends))
        assert_answer(world, topic)
    assert not it.errors


def test_settings_may_go_on_naming_a_column_as_it_was(world: World, topic: Topic) -> None:
    """Sorted by a column that was renamed, partitioned by one that was promoted; restarted."""
    settings = {"sort": ("price",), "partition": ("bucket(2, size)",), "flush_age_s": 0.3}
    for versions in ([1] * 8, [2, 1] * 4, [3] * 4):
        topic.send(versions)
        with running(world.sources(), topic.spec(**settings)) as it:
            world.wait(NAME, committed("t", *topic.ends))
            assert_answer(world, topic)
        assert not it.errors
