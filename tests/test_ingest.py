"""The ingest end to end: exactly the log's prefix is published, whatever happens."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pyiceberg.catalog import load_catalog
from support_ingest import (
    WAIT_S,
    Watching,
    World,
    committed,
    framed,
    reached,
    running,
)
from support_kafka import Broker
from support_log import (
    NAME,
    Child,
    Gated,
    Log,
    assert_answer,
    real_log,
    shaky,
    spec_of,
)

from catalog.errors import (
    BrokerUnavailable,
    CatalogError,
    CommitUnknown,
    Fenced,
    LakeUnavailable,
    LiveFolderInUse,
    LogEndsEarly,
    LogGap,
    MarkerLost,
    PoisonRecord,
    SchemaUnknown,
    SpecRefused,
    TopicRecreated,
)
from catalog.ingest import run_ingest
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.offsets import Offsets, TopicIdentity
from catalog.segments import LiveWriter
from catalog.spec import TableName, TableSpec

# --- the way of a record ------------------------------------------------------------------------


def test_rows_are_live_first_and_history_later(mock_broker: Broker, tmp_path: Path) -> None:
    """Rules 2 and 10: the version is exact before and after the flush, and never goes back."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(1000)
    watching = Watching()
    with running(world.sources(observer=watching), spec_of(log, flush_age_s=1.0)):
        live = world.wait(NAME, reached("t", *log.ends))
        assert_answer(world, log)
        flushed = world.wait(NAME, committed("t", *log.ends))
        assert_answer(world, log)
        log.write(10)
        world.wait(NAME, reached("t", *log.ends))
        assert_answer(world, log)
    assert flushed.high.covers(live.high)
    assert sum(one.rows for one in flushed.segments) == 0
    assert sum(one.rows for one in watching.commits) in (1000, 1010)
    assert watching.rows == 1010


@pytest.mark.parametrize("trigger", [{"flush_rows": 300}, {"flush_bytes": 10_000}])
def test_a_flush_starts_by_rows_or_bytes(
    trigger: dict[str, int], mock_broker: Broker, tmp_path: Path
) -> None:
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    with running(world.sources(), spec_of(log, **trigger)):
        log.write(50)
        before = world.wait(NAME, reached("t", *log.ends))
        assert not before.committed.covers(before.high)
        log.write(1000)
        world.wait(NAME, lambda m: sum(m.committed.values()) >= 300)
    assert_answer(world, log)


def test_many_small_segments_are_merged(mock_broker: Broker, tmp_path: Path) -> None:
    """Rules 10 and 14: merging changes nothing that a reader sees, and trims what it replaced."""
    log = Log(mock_broker, "t")
    world = World.make(tmp_path, mock_broker.properties, grace_s=0.1)
    with running(world.sources(), spec_of(log)):
        for _ in range(30):
            log.write(4)
            world.wait(NAME, reached("t", *log.ends))
        manifest = world.wait(NAME, lambda m: len(m.segments) < 20)
        assert_answer(world, log)
        listed = {Path(one.file).name for one in manifest.segments}
        folder = tmp_path / "live" / str(NAME)
        limit = time.monotonic() + WAIT_S
        while len(list(folder.glob("*.arrow"))) > len(listed):
            assert time.monotonic() < limit
            time.sleep(0.05)
    assert_answer(world, log)


def test_two_topics_feed_one_table(mock_broker: Broker, tmp_path: Path) -> None:
    """Rule 1: positions are per (topic, partition)."""
    one, two = Log(mock_broker, "one", 1), Log(mock_broker, "two", 1)
    world = World.make(tmp_path, mock_broker.properties)
    one.write(100)
    two.write(50)
    spec = replace(spec_of(one, flush_age_s=0.5), topics=("two", "one"))
    with running(world.sources(), spec):
        world.wait(NAME, lambda m: reached("one", 100)(m) and reached("two", 50)(m))
        world.wait(NAME, lambda m: m.committed.same_as(m.high))
    assert len(world.answer(NAME)[0]) == 150


# --- restarts -----------------------------------------------------------------------------------


def test_a_restart_leaves_the_old_version_until_it_has_reached_it(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 12: nothing is published, and no old segment removed, before the old end is reached."""
    log = Log(mock_broker, "t")
    world = World.make(tmp_path, mock_broker.properties, grace_s=0.05, reload_s=0.05)
    log.write(100)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, reached("t", *log.ends))
    old = assert_answer(world, log)
    log.write(20)
    Gated.gate.clear()
    sources = world.sources(reader=lambda spec: Gated(world.kafka, spec.topics))
    with running(sources, spec_of(log)):
        said = world.wait(NAME, lambda m: sum(m.watermarks.values()) == 120)
        time.sleep(0.5)  # ten reloads and trims
        held = assert_answer(world, log)
        assert held.segments == old.segments
        assert (held.high, held.snapshot_id) == (old.high, old.snapshot_id)
        assert held.published_us == old.published_us
        assert said.state == "catching_up"
        assert "before the restart: 0 of 100 positions" in (said.reason or "")
        Gated.gate.set()
        new = world.wait(NAME, reached("t", *log.ends))
    assert_answer(world, log)
    assert (new.state, new.reason) == ("running", None)
    assert new.high.covers(old.high)
    assert not {one.file for one in new.segments} & {one.file for one in old.segments}


def test_a_log_that_ends_below_the_published_end_stops_the_table(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 12: the broker lost what readers have seen."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(10)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, reached("t", *log.ends))
    old = world.manifest(NAME)
    assert old is not None
    further = old.high.with_positions([(("t", 1), 99)])
    LiveWriter(world.live.folder, NAME, 1.0).publish(replace(old, high=further))
    with running(world.sources(), spec_of(log)) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], LogEndsEarly)
    assert "t[1] ends at offset 5, below position 99" in (stopped.error or "")
    assert stopped.high == further


def test_a_table_created_anew_is_fed_from_the_log_again(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 12: an old manifest of another table is replaced at once."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(10)
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        world.wait(NAME, committed("t", *log.ends))
    load_catalog("lake", **world.properties).drop_table(str(NAME))
    Gated.gate.clear()
    sources = world.sources(reader=lambda spec: Gated(world.kafka, spec.topics))
    with running(sources, spec_of(log)):
        world.wait(NAME, lambda m: not sum(m.high.values()))
        Gated.gate.set()
        world.wait(NAME, reached("t", *log.ends))
        assert_answer(world, log)


def test_a_second_ingest_of_the_same_folder_is_refused(mock_broker: Broker, tmp_path: Path) -> None:
    """Rule 11."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, lambda _: True)
        with pytest.raises(LiveFolderInUse):
            run_ingest([spec_of(log)], world.sources(), threading.Event())


def test_a_topic_that_the_declaration_lost_does_not_hold_the_table(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 12: positions of a topic that nobody reads any more cannot be reached."""
    kept, lost = Log(mock_broker, "kept", 1), Log(mock_broker, "lost", 1)
    world = World.make(tmp_path, mock_broker.properties)
    kept.write(10)
    lost.write(10)
    both = replace(spec_of(kept), topics=("kept", "lost"))
    with running(world.sources(), both):
        world.wait(NAME, lambda m: reached("kept", 10)(m) and reached("lost", 10)(m))
    kept.write(5)
    with running(world.sources(), spec_of(kept)):
        world.wait(NAME, reached("kept", 15))
        assert len(world.answer(NAME)[0]) == 15


def test_a_topic_more_does_not_hide_that_the_log_ends_early(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 12: every topic that feeds the table still is held to what was published of it."""
    log, more = Log(mock_broker, "t", 1), Log(mock_broker, "more", 1)
    world = World.make(tmp_path, mock_broker.properties)
    log.write(10)
    more.write(10)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, reached("t", 10))
    old = world.manifest(NAME)
    assert old is not None
    further = replace(old, high=old.high.with_positions([(("t", 0), 99)]))
    LiveWriter(world.live.folder, NAME, 1.0).publish(further)
    with running(world.sources(), replace(spec_of(log), topics=("more", "t"))) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], LogEndsEarly)
    assert stopped.high == further.high


KILLS = (
    "decode.before:3",
    "decode.after:3",
    "segment.written:2",
    "publish.before:3",
    "publish.renamed:4",
    "merge.written:1",
    "merge.published:1",
    "flush.files_written:1",
    "commit.before_send:2",
    "commit.landed:2",
    "commit.before_publish:1",
    "trim.before:3",
    "trim.half:1",
)


@pytest.mark.parametrize("point", KILLS)
def test_killed_anywhere_and_started_again_nothing_is_lost_or_doubled(
    point: str, mock_broker: Broker, tmp_path: Path
) -> None:
    """Rules 2, 4 to 6, 10, 12 and 14: the log is replayed from the newest snapshot's positions."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    often = {"flush_rows": 10**9, "flush_age_s": 3600} if "merge" in point else {}
    child = Child(world, log, {"K2_KILL_POINT": point}, **often)
    with child:
        limit = time.monotonic() + WAIT_S
        while child.process.poll() is None:
            assert time.monotonic() < limit, f"{point} was never reached"
            log.write(20)
            time.sleep(0.02)
        assert child.process.returncode == -signal.SIGKILL
    if world.manifest(NAME) is not None:
        assert_answer(world, log)
    log.write(40)
    with running(world.sources(), spec_of(log, flush_age_s=0.3)):
        world.wait(NAME, committed("t", *log.ends))
    manifest = assert_answer(world, log)
    assert sorted(world.history(NAME, manifest.snapshot_id)) == world.answer(NAME)[0]


# --- the head moves -----------------------------------------------------------------------------


def test_the_manifest_follows_a_foreign_commit_while_the_topic_is_idle(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 13."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(10)
    with running(world.sources(), spec_of(log)):
        before = world.wait(NAME, reached("t", *log.ends))
        table = load_catalog("lake", **world.properties).load_table(str(NAME))
        with table.transaction() as transaction:
            transaction.update_snapshot().fast_append().commit()
        after = world.wait(NAME, lambda m: m.snapshot_id != before.snapshot_id)
        assert_answer(world, log)
    assert after.high == before.high
    assert after.committed == before.committed


def test_an_ingest_that_lost_its_table_to_another_stops_and_does_not_fight(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 5: the newer epoch owns the table; the older one writes nothing and claims nothing."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(10)
    with running(world.sources(), spec_of(log)) as it:
        before = world.wait(NAME, reached("t", *log.ends))
        lake = world.lake()
        claimed = lake.claim(NAME, before.topics, "another", 7, Offsets())
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert "taken over by another ingest, writer another (epoch 2); ours is epoch 1" in (
            stopped.error or ""
        )
        assert lake.head(NAME) == claimed
    assert isinstance(it.errors[NAME], Fenced)
    assert_answer(world, log)


def test_a_table_set_back_to_an_older_snapshot_is_fed_again(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 4: the tail must continue the head without a hole, else the log is read again."""
    log = Log(mock_broker, "t")
    world = World.make(tmp_path, mock_broker.properties, grace_s=0.1)
    with running(world.sources(), spec_of(log, flush_rows=10)):
        for _ in range(2):
            log.write(10)
            before = world.wait(NAME, committed("t", *log.ends))
        table = load_catalog("lake", **world.properties).load_table(str(NAME))
        older = next(s for s in table.snapshots() if s.summary and "added-records" in s.summary)
        table.manage_snapshots().rollback_to_snapshot(older.snapshot_id).commit()
        world.wait(NAME, lambda m: m.sequence > before.sequence)
        assert_answer(world, log)  # never a version with the hole in it
        log.write(10)
        world.wait(NAME, committed("t", *log.ends))
    assert_answer(world, log)


def test_a_table_set_back_to_before_its_owner_is_claimed_and_fed_again(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 5: an older epoch at the head is nobody who took the table over."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    for _ in range(2):  # two owners, one flush each
        log.write(10)
        with running(world.sources(), spec_of(log, flush_rows=10)):
            world.wait(NAME, committed("t", *log.ends))
    log.write(10)
    with running(world.sources(), spec_of(log, flush_rows=10)) as it:
        before = world.wait(NAME, committed("t", *log.ends))
        table = load_catalog("lake", **world.properties).load_table(str(NAME))
        older = next(s for s in table.snapshots() if s.summary and "added-records" in s.summary)
        table.manage_snapshots().rollback_to_snapshot(older.snapshot_id).commit()
        world.wait(NAME, lambda m: m.sequence > before.sequence)
        log.write(10)
        world.wait(NAME, committed("t", *log.ends))
    assert not it.errors
    assert_answer(world, log)


def test_a_stopped_table_that_is_set_back_is_read_again_up_to_the_same_place(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 4: a new reading begins like the first, and meets the same record."""
    log, world = Log(mock_broker, "t", 1), World.make(tmp_path, mock_broker.properties)
    log.write(10)
    log.raw(b"", partition=0)
    with running(world.sources(), spec_of(log)) as it:
        before = world.wait(NAME, lambda m: m.state == "stopped" and m.committed == m.high)
        table = load_catalog("lake", **world.properties).load_table(str(NAME))
        table.manage_snapshots().rollback_to_snapshot(table.snapshots()[0].snapshot_id).commit()
        after = world.wait(
            NAME, lambda m: m.snapshot_id != before.snapshot_id and m.committed == m.high
        )
        assert (after.state, after.high) == ("stopped", before.high)
        assert_answer(world, log)
    assert isinstance(it.errors[NAME], PoisonRecord)


# --- the lake misbehaves ------------------------------------------------------------------------


def test_unknown_outcomes_are_settled_by_the_recorded_positions(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 6: whether a commit landed, the head says; nothing is written twice or not at all."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(100)
    lake = shaky(
        world,
        ("after", CommitUnknown("the answer was lost")),
        ("before", CommitUnknown("the request was lost")),
        ("after", CommitUnknown("the answer was lost again")),
    )
    with running(world.sources(lake=lake), spec_of(log, flush_age_s=0.2)):
        world.wait(NAME, committed("t", *log.ends))
        log.write(100)
        world.wait(NAME, committed("t", *log.ends))
    manifest = assert_answer(world, log)
    assert not lake.script
    assert len(world.history(NAME, manifest.snapshot_id)) == 200


def test_a_lake_that_is_away_shows_and_mends(mock_broker: Broker, tmp_path: Path) -> None:
    """Rows stay live and visible, the trouble is in the manifest, then the flush goes through."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(100)
    lake = shaky(world, *[("before", LakeUnavailable("the catalog is away"))] * 3)
    watching = Watching()
    sources = world.sources(lake=lake, observer=watching)
    with running(sources, spec_of(log, flush_age_s=0.2)):
        troubled = world.wait(NAME, lambda m: m.error is not None)
        assert (troubled.state, troubled.error_code) == ("running", "UNAVAILABLE")
        assert_answer(world, log)
        mended = world.wait(NAME, committed("t", *log.ends))
        world.wait(NAME, lambda m: m.error is None)
    assert mended.state == "running"
    assert [str(trouble) for trouble in watching.troubles] == ["the catalog is away"]


def test_at_the_bound_the_consumer_pauses_and_nothing_is_dropped(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 14: staleness is visible, live bytes are bounded, all rows arrive in the end."""
    log = Log(mock_broker, "t")
    world = World.make(tmp_path, mock_broker.properties, max_bytes=100_000)
    lake = shaky(world)
    lake.gate.clear()
    with running(world.sources(lake=lake), spec_of(log)):
        limit = time.monotonic() + WAIT_S
        while (now := world.manifest(NAME)) is None or now.state != "paused":
            assert time.monotonic() < limit
            log.write(200)
        log.write(5000)
        behind = world.wait(NAME, lambda m: m.watermarks.covers(_ends(log)))
        assert behind.state == "paused"
        assert behind.high.behind(_ends(log))
        assert sum(one.bytes for one in behind.segments) < 1_000_000
        assert_answer(world, log)
        lake.gate.set()
        world.wait(NAME, reached("t", *log.ends))
        world.wait(NAME, lambda m: m.state == "running")
    assert_answer(world, log)


def _ends(log: Log) -> Offsets:
    return Offsets({(log.topic, p): end for p, end in enumerate(log.ends)})


def test_a_flush_that_is_tried_again_writes_its_files_once(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 6: files of a failed commit are committed later, or an outage would fill the store."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(100)
    lake = shaky(
        world,
        ("before", LakeUnavailable("the catalog is away")),
        ("before", CommitUnknown("the request was lost")),
        ("after", CommitUnknown("the answer was lost")),
    )
    with running(world.sources(lake=lake), spec_of(log, flush_rows=100)):
        world.wait(NAME, lambda m: m.error is not None)
        log.write(10)  # what comes meanwhile waits for the next flush
        flushed = world.wait(NAME, lambda m: sum(m.committed.values()) >= 100)
        assert_answer(world, log)
        world.wait(NAME, reached("t", *log.ends))
        assert_answer(world, log)
    assert not lake.script
    assert sum(flushed.committed.values()) == 100
    assert len(list((tmp_path / "warehouse").rglob("*.parquet"))) == 1


class Forgetful(TopicReader):
    """A reader whose broker cannot say, for a while, who its topics are."""

    failures: list[CatalogError]

    def identities(self) -> tuple[TopicIdentity, ...]:
        """As the broker says, or the next failure."""
        if threading.current_thread().name.startswith("table") and self.failures:
            raise self.failures.pop()
        return super().identities()


@pytest.mark.parametrize("kind", [BrokerUnavailable, SpecRefused])
def test_a_broker_away_at_a_flush_shows_and_mends_and_costs_no_file(
    kind: type[CatalogError], mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 9: without the topics' identities nothing is written; a lost topic may come back."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(100)
    Forgetful.failures = [kind("the broker forgot the topic")] * 3
    sources = world.sources(reader=lambda spec: Forgetful(world.kafka, spec.topics))
    with running(sources, spec_of(log, flush_age_s=0.2)):
        world.wait(NAME, lambda m: m.error is not None)
        world.wait(NAME, committed("t", *log.ends))
    assert_answer(world, log)
    assert not Forgetful.failures
    assert len(list((tmp_path / "warehouse").rglob("*.parquet"))) == 1


# --- what cannot become a row -------------------------------------------------------------------

POISON = {
    "no magic": b"\x01" + framed(1)[1:],
    "unknown schema": framed(1, schema_id=999),
    "truncated": framed(1)[:-1],
    "trailing": framed(1) + b"\0",
    "two records": framed(1) + framed(2),
    "empty": b"",
    "tombstone": None,
}


@pytest.mark.parametrize("kind", POISON)
def test_a_poison_record_stops_its_table_and_no_other(
    kind: str, mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 1: positions never pass it; what came before it is published and flushed."""
    bad, good = Log(mock_broker, "bad"), Log(mock_broker, "good")
    world = World.make(tmp_path, mock_broker.properties)
    bad.write(40)
    bad.raw(POISON[kind], partition=1)
    bad.write(40)
    other = TableName("market_data", "other")
    watching = Watching()
    sources = world.sources(observer=watching)
    with running(sources, spec_of(bad), spec_of(good, other)) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped" and m.committed == m.high)
        assert stopped.high.at(("bad", 1)) == 20
        for part in ("PoisonRecord", "'bad'", "partition 1", "offset 20", "schema id"):
            assert part in (stopped.error or "")
        assert_answer(world, bad)
        good.write(100)
        world.wait(other, reached("good", *good.ends))
        assert_answer(world, good, other)
    assert isinstance(it.errors[NAME], PoisonRecord)
    assert other not in it.errors
    assert list(watching.stops) == [NAME]
    with running(world.sources(), spec_of(bad)):  # again: the same place, nothing new
        again = world.wait(NAME, lambda m: m.state == "stopped" and m.sequence > stopped.sequence)
    assert again.high == stopped.high
    assert_answer(world, bad)


# --- starts that fail ---------------------------------------------------------------------------


def test_an_unreachable_broker_fails_the_start(tmp_path: Path) -> None:
    """Within 10 seconds, naming the place."""
    world = World.make(tmp_path, {"bootstrap.servers": "127.0.0.1:9"})
    spec = TableSpec(NAME, ("t",), schema_id=7)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9"):
        run_ingest([spec], world.sources(), threading.Event())
    assert time.monotonic() - began < 10.0  # the promise itself


def test_a_schema_that_nobody_knows_fails_the_start(mock_broker: Broker, tmp_path: Path) -> None:
    world = World.make(tmp_path, mock_broker.properties)
    with pytest.raises(SchemaUnknown, match="8"):
        run_ingest([TableSpec(NAME, ("t",), schema_id=8)], world.sources(), threading.Event())


def test_a_claim_of_unknown_outcome_fails_the_start(mock_broker: Broker, tmp_path: Path) -> None:
    """It may mend, so it ends the process, which is started again, and not the table alone."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)

    class Lost(Lake):
        def claim(self, *args: Any, **options: Any) -> Any:
            del args, options
            raise CommitUnknown("the answer was lost")

    lake = Lost(load_catalog("lake", **world.properties))
    with pytest.raises(CommitUnknown), running(world.sources(lake=lake), spec_of(log)) as it:
        it.thread.join(WAIT_S)


def test_positions_lost_while_nothing_ran_stop_the_table_in_its_manifest(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 2: who reads the version of the last run is told that nobody continues it."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(10)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, reached("t", *log.ends))
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    with table.transaction() as transaction:
        transaction.set_properties({"k2.marker": "{}"})
        transaction.update_snapshot().fast_append().commit()
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    table.maintenance.expire_snapshots().by_id(table.snapshots()[0].snapshot_id).commit()
    with running(world.sources(), spec_of(log)) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert "MarkerLost" in (stopped.error or "")
        assert stopped.high.covers(_ends(log))
    assert isinstance(it.errors[NAME], MarkerLost)


def test_an_interrupt_ends_the_tables_before_the_folder_is_given_back(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 11: in a script or a notebook Ctrl-C comes as an exception."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return super().wait(timeout)

    stop = Interrupted()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_ingest([spec_of(log)], world.sources(), stop)
        assert not [one for one in threading.enumerate() if str(NAME) in one.name]
    finally:
        stop.set()


def test_a_broker_that_goes_away_while_running_shows_and_the_rows_stay(tmp_path: Path) -> None:
    """Rule 14: staleness is visible, and the version stays what it was."""
    options = {"bootstrap.servers": "ignored", "test.mock.num.brokers": 1, "log_level": 0}
    owners = [Producer(options)]
    found = next(iter(owners[0].list_topics(timeout=WAIT_S).brokers.values()))
    log = Log(Broker(f"{found.host}:{found.port}"), "t")
    world = World.make(tmp_path, log.broker.properties)
    log.write(10)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, reached("t", *log.ends))
        owners.clear()
        troubled = world.wait(NAME, lambda m: m.error is not None)
        assert (troubled.state, troubled.error_code) == ("running", "UNAVAILABLE")
        assert "BrokerUnavailable" in (troubled.error or "")
        assert_answer(world, log)


# --- on a real broker ---------------------------------------------------------------------------


@pytest.mark.broker
def test_transactions_leave_no_aborted_row_and_their_gaps_are_no_gaps(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rules 1 and 3: an aborted tail without any row is committed progress, by age."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    producer = kafka.producer(transactional_id=f"tx-{log.topic}")
    producer.init_transactions(WAIT_S)

    def transaction(*numbers: int, commit: bool) -> None:
        producer.begin_transaction()
        for number in numbers:
            producer.produce(log.topic, framed(number), partition=0)
        producer.flush(WAIT_S)
        if commit:
            producer.commit_transaction(WAIT_S)
        else:
            producer.abort_transaction(WAIT_S)

    with running(world.sources(), spec_of(log, flush_age_s=0.5)):
        transaction(1, 2, commit=True)
        transaction(3, 4, 5, commit=False)
        transaction(6, commit=True)
        world.wait(NAME, committed(log.topic, 9))
        log.sent = {0: [(0, 1), (1, 2), (7, 6)]}
        assert_answer(world, log)
        transaction(7, 8, commit=False)
        empty = world.wait(NAME, committed(log.topic, 12))
        assert_answer(world, log)
    assert len(world.history(NAME, empty.snapshot_id)) == 3


@pytest.mark.broker
def test_partitions_added_while_running_are_read_from_their_start(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rule 1."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    log.write(10, partition=0)
    with running(world.sources(), spec_of(log, flush_age_s=0.3)):
        world.wait(NAME, committed(log.topic, 10))
        kafka.add_partitions(log.topic, 3)
        log.write(10, partition=1)
        log.write(10, partition=2)
        world.wait(NAME, committed(log.topic, 10, 10, 10))
    assert_answer(world, log)


@pytest.mark.broker
def test_a_topic_recreated_while_running_stops_before_its_rows_show(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rule 9: the client goes on silently at the old position; nothing of that is published."""
    log = real_log(kafka, 1)
    world = World.make(tmp_path, kafka.properties, reload_s=60)  # no look by chance
    log.write(5)
    with running(world.sources(), spec_of(log)) as it:
        world.wait(NAME, reached(log.topic, 5))
        kafka.delete_topic(log.topic)
        kafka.create_topic(1, name=log.topic)
        kafka.produce(log.topic, [framed(1000 + n) for n in range(20)], partition=0)
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert "TopicRecreated" in (stopped.error or "")
        assert_answer(world, log)
    assert isinstance(it.errors[NAME], TopicRecreated)
    with running(world.sources(), spec_of(log)) as again:
        world.wait(NAME, lambda m: m.sequence > stopped.sequence)
    assert isinstance(again.errors[NAME], TopicRecreated)


@pytest.mark.broker
def test_a_topic_recreated_before_a_flush_is_not_committed(kafka: Broker, tmp_path: Path) -> None:
    """Rule 9: the identity is read again after a flush's last row and before its first POST."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties, reload_s=60)
    log.write(5)
    with running(world.sources(), spec_of(log, flush_age_s=1.5)) as it:
        before = world.wait(NAME, reached(log.topic, 5))
        kafka.delete_topic(log.topic)
        kafka.create_topic(1, name=log.topic)
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], TopicRecreated)
    assert stopped.snapshot_id == before.snapshot_id
    assert world.lake().head(NAME).snapshot_id == before.snapshot_id


@pytest.mark.broker
def test_records_deleted_unread_are_a_gap_and_the_rest_goes_on(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rule 1: never an answer with a hole, at the start and while running."""
    log, other = real_log(kafka, 1), real_log(kafka, 1)
    world = World.make(tmp_path, kafka.properties)
    log.write(10)
    with running(world.sources(), spec_of(log, flush_age_s=0.3)):
        world.wait(NAME, committed(log.topic, 10))
    log.write(10)
    kafka.delete_records(log.topic, {0: 15})
    second = TableName("market_data", "second")
    with running(world.sources(), spec_of(log), spec_of(other, second)) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert "holds nothing below offset 15, but position 10 is next" in (stopped.error or "")
        other.write(5)
        world.wait(second, reached(other.topic, 5))
    assert isinstance(it.errors[NAME], LogGap)
    assert len(world.answer(NAME)[0]) == 10


@pytest.mark.broker
def test_a_first_claim_starts_where_the_log_starts(kafka: Broker, tmp_path: Path) -> None:
    """Rule 1: what retention deleted before the table existed is no gap, and it is recorded."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    log.write(10)
    kafka.delete_records(log.topic, {0: 4})
    with running(world.sources(), spec_of(log)):
        first = world.wait(NAME, reached(log.topic, 10))
    assert first.committed.at((log.topic, 0)) == 4
    log.sent[0] = log.sent[0][4:]
    assert_answer(world, log)


@pytest.mark.broker
def test_rows_of_a_lost_log_are_saved_into_history(kafka: Broker, tmp_path: Path) -> None:
    """A gap ends reading; what was read before may exist nowhere else, so it is flushed."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    log.write(10)
    Gated.gate.set()
    sources = world.sources(reader=lambda spec: Gated(world.kafka, spec.topics))
    with running(sources, spec_of(log)) as it:
        world.wait(NAME, reached(log.topic, 10))
        Gated.gate.clear()
        time.sleep(0.3)  # the poll that is under way
        log.write(10)
        kafka.delete_records(log.topic, {0: 20})
        Gated.gate.set()
        stopped = world.wait(NAME, lambda m: m.state == "stopped" and m.committed == m.high)
    assert stopped.high.at((log.topic, 0)) == 10
    assert isinstance(it.errors[NAME], LogGap)
    assert_answer(world, log)
