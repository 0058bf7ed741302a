"""Rule 2 under an ingest that runs or starts again: what other tools do to a table's history."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.table import Table
from support_ingest import World, committed, running
from support_kafka import Broker
from support_lake import Place, expire_all_but_head
from support_log import NAME, Log, assert_answer, real_log, spec_of

from catalog.diagnosis import Choice, diagnose, log_state, plan
from catalog.errors import LogGap, MarkerLost, RepairRefused
from catalog.kafka import TopicReader
from catalog.offsets import Offsets
from catalog.repair import LogState, apply
from catalog.verify import verify


@pytest.fixture
def log(mock_broker: Broker) -> Log:
    return Log(mock_broker, "t")


@pytest.fixture
def world(mock_broker: Broker, tmp_path: Path) -> World:
    return World.make(tmp_path, mock_broker.properties)


def foreign(world: World) -> Table:
    """The table as other tools see it."""
    return load_catalog("lake", **world.properties).load_table(str(NAME))


def head_id(world: World) -> int:
    snapshot = foreign(world).current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def ingested(world: World, log: Log, *sizes: int) -> list[int]:
    """Runs an ingest that commits so many records at a time; the snapshots after each commit."""
    ids = []
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        for size in sizes:
            log.write(size)
            world.wait(NAME, committed(log.topic, *log.ends))
            ids.append(head_id(world))
    return ids


def compact(world: World) -> None:
    """All rows in new files, as tools do it that know nothing of positions."""
    table = foreign(world)
    table.overwrite(table.scan().to_arrow())


def expire_as_pyiceberg(world: World) -> None:
    """The parents of what is left are wiped out."""
    table = foreign(world)
    gone = [s.snapshot_id for s in table.snapshots() if s != table.current_snapshot()]
    table.maintenance.expire_snapshots().by_ids(gone).commit()


def expire_as_java(world: World, log: Log) -> None:
    expire_all_but_head(Place(world.properties, spec_of(log)))


def assert_proved(world: World) -> None:
    report = verify(world.lake(), NAME)
    assert report.state == "proved", report.findings


def log_of(world: World, log: Log) -> LogState:
    reader = TopicReader(world.kafka, (log.topic,))
    try:
        return log_state(reader, world.lake(), NAME)
    finally:
        reader.close()


def repaired(world: World, log: Log, choice: Choice, given: Offsets | None = None) -> None:
    made = plan(world.lake(), NAME, log_of(world, log), choice, given)
    apply(world.lake(), NAME, made, who="a test", why="")


def goes_on(world: World, log: Log) -> None:
    """An ingest started now brings the table to the log's end, exactly."""
    log.write(10)
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        world.wait(NAME, committed(log.topic, *log.ends))
    assert_answer(world, log)
    assert_proved(world)


# --- what a marker survives ---------------------------------------------------------------------


def test_a_running_ingest_follows_a_rollback_and_reads_the_rows_again(
    world: World, log: Log
) -> None:
    """Rules 2 and 13: positions go back with the rows; a later flush goes on from there."""
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        log.write(100)
        world.wait(NAME, committed("t", *log.ends))
        first = head_id(world)
        log.write(50)
        world.wait(NAME, committed("t", *log.ends))
        epoch = world.lake().head(NAME).marker.epoch  # type: ignore[union-attr] # an ingest claimed it
        foreign(world).manage_snapshots().rollback_to_snapshot(first).commit()
        world.wait(
            NAME,
            lambda m: (
                m.snapshot_id not in (None, first)
                and committed("t", *log.ends)(m)
                and world.lake().head(NAME).snapshot_id == m.snapshot_id
            ),
        )
        log.write(10)
        world.wait(NAME, committed("t", *log.ends))
        assert_answer(world, log)
    marker = world.lake().head(NAME).marker
    assert marker is not None
    assert marker.epoch >= epoch
    assert_proved(world)


def test_a_rollback_while_nothing_runs_is_read_again(world: World, log: Log) -> None:
    first, *_ = ingested(world, log, 100, 50)
    foreign(world).manage_snapshots().rollback_to_snapshot(first).commit()
    assert_proved(world)
    goes_on(world, log)


def test_a_branch_moved_back_and_forth_keeps_positions_with_rows(world: World, log: Log) -> None:
    """Rule 2: whichever snapshot is the head, its own ancestry says where it stands."""
    first, second, third = ingested(world, log, 20, 30, 40)
    for target, rows in ((first, 20), (third, 90), (second, 50)):
        foreign(world).manage_snapshots().set_current_snapshot(snapshot_id=target).commit()
        marker = world.lake().head(NAME).marker
        assert marker is not None
        assert sum(marker.positions.values()) == rows
        assert_proved(world)
    goes_on(world, log)


def test_a_fast_forward_to_a_branch_is_followed(world: World, log: Log) -> None:
    first, second = ingested(world, log, 20, 30)
    table = foreign(world)
    table.manage_snapshots().create_branch(second, "ahead").commit()
    table.manage_snapshots().rollback_to_snapshot(first).commit()
    table.manage_snapshots().set_current_snapshot(ref_name="ahead").commit()
    assert head_id(world) == second
    goes_on(world, log)


def test_a_foreign_compaction_under_a_running_ingest_keeps_the_marker(
    world: World, log: Log
) -> None:
    """Rule 2: a head without a marker stands where its ancestor stands."""
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        log.write(100)
        world.wait(NAME, committed("t", *log.ends))
        compact(world)
        log.write(10)
        world.wait(NAME, committed("t", *log.ends))
        assert_answer(world, log)
    assert_proved(world)


def test_expiry_that_leaves_the_parents_id_finds_the_copy(world: World, log: Log) -> None:
    ingested(world, log, 100)
    compact_in_one(world)
    expire_as_java(world, log)
    goes_on(world, log)


def compact_in_one(world: World) -> None:
    """A compaction of one snapshot, as Java's libraries make it."""
    table = foreign(world)
    rows = table.scan().to_arrow()
    with table.transaction() as change, change.update_snapshot().overwrite() as overwrite:
        for task in table.scan().plan_files():
            overwrite.delete_data_file(task.file)
        for file in _dataframe_to_data_files(table.metadata, rows, table.io):
            overwrite.append_data_file(file)


# --- what it does not survive, and the way out --------------------------------------------------


def test_a_marker_expired_by_pyiceberg_is_found_again_in_its_copy(world: World, log: Log) -> None:
    """Fail closed, name the command; its copy counts exactly the rows, so it is right."""
    ingested(world, log, 100)
    compact(world)
    expire_as_pyiceberg(world)
    with running(world.sources(), spec_of(log)) as it:
        world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], MarkerLost)
    assert "k2 repair TABLE --marker-from-rows" in str(it.errors[NAME])
    made = plan(world.lake(), NAME, log_of(world, log), "marker-from-rows")
    assert all("its copy, which counts exactly these rows" in line for line in made.effects)
    repaired(world, log, "marker-from-rows")
    goes_on(world, log)


def test_without_a_copy_the_rows_say_where_to_go_on(world: World, log: Log) -> None:
    """A partition goes on after its last row: below its old position the log had no more."""
    ingested(world, log, 100)
    compact(world)
    with foreign(world).transaction() as transaction:
        transaction.remove_properties("k2.marker")
    expire_as_pyiceberg(world)
    with running(world.sources(), spec_of(log)) as it:
        world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], MarkerLost)
    given = Offsets({("t", 0): 49})
    with pytest.raises(
        RepairRefused, match="holds offset 49, so position 49 would bring rows twice"
    ):
        plan(world.lake(), NAME, log_of(world, log), "positions", given)
    repaired(world, log, "marker-from-rows")
    goes_on(world, log)


def test_a_cherry_picked_commit_is_refused_because_its_rows_would_come_twice(
    world: World, log: Log
) -> None:
    """Rule 2: the rows came along, the positions did not."""
    first, second = ingested(world, log, 20, 30)
    table = foreign(world)
    picked = [
        task.file
        for task in table.scan(snapshot_id=second).plan_files()
        if task.file.file_path
        not in {one.file.file_path for one in table.scan(snapshot_id=first).plan_files()}
    ]
    table.manage_snapshots().rollback_to_snapshot(first).commit()
    with table.transaction() as transaction:
        said = {"source-snapshot-id": str(second)}
        with transaction.update_snapshot(snapshot_properties=said).fast_append() as append:
            for file in picked:
                append.append_data_file(file)
    with running(world.sources(), spec_of(log)) as it:
        world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], MarkerLost)
    assert "cherry-picked" in str(it.errors[NAME])
    repaired(world, log, "marker-from-rows")
    goes_on(world, log)


@pytest.mark.broker
def test_a_rollback_below_what_the_log_holds_is_said_and_can_be_acknowledged(
    kafka: Broker, tmp_path: Path
) -> None:
    """Started again from the older positions, the log has lost them; the choice is recorded."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    with running(world.sources(), spec_of(log, flush_age_s=0.1)) as it:
        log.write(10)
        world.wait(NAME, committed(log.topic, 10))
        first = head_id(world)
        log.write(10)
        world.wait(NAME, committed(log.topic, 20))
        kafka.delete_records(log.topic, {0: 15})
        foreign(world).manage_snapshots().rollback_to_snapshot(first).commit()
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], LogGap)
    assert "k2 repair TABLE --skip-lost-records" in (stopped.error or "")
    lake = world.lake()
    assert diagnose(lake, NAME, log_of(world, log)) == [str(it.errors[NAME])]
    repaired(world, log, "skip-lost-records")
    assert diagnose(lake, NAME, log_of(world, log)) == []
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        world.wait(NAME, lambda m: m.state == "running" and committed(log.topic, 20)(m))
    log.sent[0] = log.sent[0][:10] + log.sent[0][15:]
    assert_answer(world, log)
    report = verify(world.lake(), NAME)
    assert report.state == "proved"
    assert report.partitions[0].lost == ((10, 15),)
    assert report.partitions[0].gaps == 5
    details = [finding.detail for finding in report.findings if finding.state == "noted"]
    assert any("lost, acknowledged: [10, 15)" in detail for detail in details)
    assert any('"what":"skip-lost-records"' in detail for detail in details)
    with pytest.raises(RepairRefused, match="nothing is lost"):
        repaired(world, log, "skip-lost-records")
