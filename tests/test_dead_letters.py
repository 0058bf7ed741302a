"""Records that cannot be decoded, end to end: skipped, kept as dead letters, or too many."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from support_ingest import WAIT_S, Watching, World, committed, reached, running
from support_kafka import Broker
from support_poison import (
    BAD,
    LATE_ID,
    LETTERS,
    MALFORMED,
    NAME,
    PoisonLog,
    assert_proved,
    child,
    letters,
    places,
    teach,
)

from catalog.dead_letters import claim_letters, prepare_letters
from catalog.errors import Fenced, PoisonRecord, RegistryUnavailable, TooManyRejects
from catalog.letters import LETTER_SCHEMA, Waiting
from catalog.offsets import Offsets, TopicIdentity
from catalog.records import RejectCount
from catalog.schemas import metadata_schema
from catalog.spec import TableName

KINDS = tuple(BAD)


@pytest.fixture
def log(kafka: Broker) -> PoisonLog:
    """An empty topic of two partitions on a real broker."""
    return PoisonLog(kafka, kafka.create_topic(2), 2)


@pytest.fixture
def world(kafka: Broker, tmp_path: Path) -> World:
    """An empty lake and live folder."""
    return World.make(tmp_path, kafka.properties)


def assert_one_place(world: World, log: PoisonLog) -> None:
    """Every record below the committed positions is a row or a letter, never both or neither."""
    rows, manifest = world.answer(NAME)
    assert rows == log.rows(below=manifest.high)
    history = Counter((p, o) for p, o, _ in world.history(NAME, manifest.snapshot_id))
    history.update(places(letters(world)))
    wanted = [(p, o) for p, o in [*log.good, *log.bad] if o < manifest.committed.at((log.topic, p))]
    assert history == Counter(wanted)


# --- what becomes of a bad record ----------------------------------------------------------------


def test_skipped_records_are_counted_and_their_offsets_passed(log: PoisonLog, world: World) -> None:
    """Rule 3: rows around bad records count; a range of bad records alone is progress."""
    log.write(*KINDS)
    log.write(*KINDS, count=0, partition=1)
    watching = Watching()
    with running(world.sources(observer=watching), log.spec(on_error="skip", flush_age_s=0.3)):
        manifest = world.wait(NAME, committed(log.topic, *log.ends))
        assert world.answer(NAME)[0] == log.rows()
    assert watching.rejects == dict.fromkeys(KINDS, 2)
    assert [(c.partition, c.rejected, c.tombstones) for c in manifest.rejects] == [
        (0, 4, 0),
        (1, 4, 0),
    ]
    last = max(place for place in log.bad if place[0] == 0)
    assert manifest.rejects[0].last_offset == last[1]
    assert manifest.rejects[0].last_error == log.bad[last]
    assert manifest.letters is None
    assert not world.lake().exists(LETTERS)
    assert_proved(world, {0: 4, 1: 4})


def test_dead_letters_hold_all_that_is_needed_to_decode_them_again(
    log: PoisonLog, world: World
) -> None:
    """The letter is the record, whole, and says what was wrong; live answers lack its row."""
    log.write(*KINDS)
    with running(world.sources(), log.spec()):
        world.wait(NAME, reached(log.topic, *log.ends))
        assert world.answer(NAME)[0] == log.rows()
        assert letters(world) == []
    with running(world.sources(), log.spec(flush_age_s=0.2)):
        manifest = world.wait(NAME, committed(log.topic, *log.ends))
    assert manifest.letters == len(KINDS)
    found = letters(world)
    assert places(found) == sorted(log.bad)
    assert [row["error"] for row in found] == [log.bad[place] for place in places(found)]
    assert [row["value"] for row in found] == [BAD[row["error"]] for row in found]
    assert {row["_key"] for row in found} == {b"key"}
    assert found[0]["_headers"] == [{"key": "trace", "value": b"1"}]
    assert {row["_topic"] for row in found} == {log.topic}
    ids = {row["error"]: row["schema_id"] for row in found}
    assert ids == {"null_value": None, "no_frame": None, "unknown_schema": 99, "malformed": 7}
    assert all(row["message"] and row["rejected"] and row["_kafka_timestamp"] for row in found)
    assert_one_place(world, log)
    assert_proved(world, {0: len(KINDS)})


@pytest.mark.parametrize("what", MALFORMED)
def test_every_way_of_being_malformed_is_one_letter(
    what: str, log: PoisonLog, world: World
) -> None:
    log.write()
    log.broker.produce(log.topic, [MALFORMED[what]], partition=0)
    with running(world.sources(), log.spec(flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, 2))
    assert [row["error"] for row in letters(world)] == ["malformed"]


def test_a_value_beyond_the_tables_bound_is_a_letter(log: PoisonLog, world: World) -> None:
    log.write()
    size = len(BAD["malformed"] or b"") + 1
    log.broker.produce(log.topic, [b"\0\0\0\0\7" + bytes(size)], partition=0)
    spec = log.spec(flush_age_s=0.2, max_value_bytes=size)
    with running(world.sources(), spec):
        world.wait(NAME, committed(log.topic, 2))
    (letter,) = letters(world)
    assert letter["error"] == "too_large"
    assert f"max_value_bytes ({size})" in letter["message"]


def test_tombstones_are_passed_over_where_the_table_says_so(log: PoisonLog, world: World) -> None:
    """A null value that is skipped stops no table, is no letter, and is counted on its own."""
    log.write("null_value", "null_value")
    with running(world.sources(), log.spec(on_error="stop", tombstones="skip")):
        manifest = world.wait(NAME, reached(log.topic, *log.ends))
        assert manifest.state != "stopped"
    assert manifest.rejects == (RejectCount(log.topic, 0, tombstones=2),)


def test_a_tombstone_that_is_a_reject_stops_the_table(log: PoisonLog, world: World) -> None:
    log.write("null_value")
    with running(world.sources(), log.spec(on_error="stop")) as it:
        world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], PoisonRecord)


def test_a_registry_that_is_away_makes_no_letters(log: PoisonLog, world: World) -> None:
    """What may be decoded later is waited for, never rejected."""
    log.write("unknown_schema")

    class Away:
        """The folder's registry, that cannot be asked for ids it does not know yet."""

        def __init__(self, known: Any) -> None:
            self.known, self.asked = known, 0

        def get(self, schema_id: int) -> Any:
            if schema_id == LATE_ID and self.asked < 2:
                self.asked += 1
                raise RegistryUnavailable("not now")
            return self.known.get(schema_id)

        def latest(self, subject: str) -> Any:
            return self.known.latest(subject)

        def close(self) -> None:
            self.known.close()

    teach(world)
    away = Away(world.sources().registry)
    with running(world.sources(registry=away), log.spec(flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, *log.ends))
    assert away.asked == 2
    assert letters(world) == []
    assert len(world.answer(NAME)[0]) == 3


# --- too many -----------------------------------------------------------------------------------


def test_a_share_of_rejects_above_the_limit_stops_the_table(log: PoisonLog, world: World) -> None:
    """Positions stay in front of the flood; what came before is flushed and served."""
    log.write("malformed", count=30)
    spec = log.spec(max_reject_share=0.2, reject_window=40)
    with running(world.sources(), spec) as it:
        world.wait(NAME, reached(log.topic, *log.ends))
        ends = log.ends
        log.write(*["malformed"] * 20, count=1)
        stopped = world.wait(NAME, lambda m: m.state == "stopped" and m.committed.same_as(m.high))
    assert isinstance(it.errors[NAME], TooManyRejects)
    assert "max_reject_share = 0.2" in str(it.errors[NAME])
    assert stopped.high.at((log.topic, 0)) >= ends[0]
    assert_one_place(world, log)
    with running(world.sources(), log.spec(max_reject_share=1.0, flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, *log.ends))
    assert_one_place(world, log)


def test_waiting_letters_are_bounded(
    log: PoisonLog, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the bound the consumer pauses and flushes; nothing is dropped (rule 14)."""
    monkeypatch.setattr("catalog.tailing.WAITING_BYTES", 2_000)
    with running(world.sources(), log.spec()):  # no flush by rows, bytes or age
        for _ in range(10):
            log.write(*KINDS * 5)
        world.wait(NAME, reached(log.topic, *log.ends))
        world.wait(NAME, lambda m: (m.letters or 0) >= len(log.bad) - 20)
    assert_one_place(world, log)


# --- two tables, one truth ------------------------------------------------------------------------

KILLS = (
    "flush.files_written:2",  # the letters', after the rows'
    "commit.before_send:3",  # of the letters: two claims come first
    "letters.committed:1",
    "commit.before_send:4",  # of the rows
    "commit.landed:4",
    "letters.committed:2",
)


@pytest.mark.parametrize("point", KILLS)
def test_killed_between_the_commits_every_record_is_in_one_place(
    point: str, log: PoisonLog, world: World
) -> None:
    """A letter stays one although its record would decode now, and is not recorded twice."""
    log.write(*KINDS, count=5)
    log.write(*KINDS, count=5, partition=1)
    again = point.endswith("committed:2")
    with child(world, log, point) as process:
        if again:
            world.wait(NAME, committed(log.topic, *log.ends))
            log.write(*KINDS, count=5)
        assert process.wait(WAIT_S) == -signal.SIGKILL
    recorded = letters(world)
    if "letters.committed" in point:
        assert len(recorded) == (12 if again else 8)
    teach(world)  # what was rejected for its schema decodes from now on
    log.write("malformed", count=5)
    with running(world.sources(), log.spec(flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, *log.ends))
    kept = set(places(recorded))
    for place, kind in list(log.bad.items()):
        if kind == "unknown_schema" and place not in kept:
            del log.bad[place]
            log.good[place] = 1
    assert_one_place(world, log)
    assert [
        row for row in letters(world) if (row["_partition"], row["_offset"]) in kept
    ] == recorded


def test_a_zombie_records_no_letters(log: PoisonLog, world: World) -> None:
    """Rule 5: the fence stands at the dead letter table, too; a late claim is refused there."""
    lake, spec = world.lake(), log.spec()
    lake.ensure_table(spec, metadata_schema(key=False, headers=False))
    prepare_letters(lake, spec)
    topics = (TopicIdentity(log.topic, "c", "t"),)
    old_head = lake.claim(NAME, topics, "old", 7, Offsets())
    old = claim_letters(lake, spec, old_head)
    new = claim_letters(lake, spec, lake.claim(NAME, topics, "new", 7, Offsets()))
    waiting = Waiting()
    waiting.add(one_letter(log))
    with pytest.raises(Fenced, match="belongs to another writer"):
        old.record(waiting, Offsets({(log.topic, 0): 1}))
    with pytest.raises(Fenced, match="taken over by another ingest"):
        claim_letters(lake, spec, old_head)
    assert letters(world) == []
    new.record(waiting, Offsets({(log.topic, 0): 1}))
    assert places(letters(world)) == [(0, 0)]
    assert waiting.rows == 0


def one_letter(log: PoisonLog) -> pa.RecordBatch:
    """The letter of a tombstone at offset 0."""
    row = {
        "_topic": log.topic,
        "_partition": 0,
        "_offset": 0,
        "error": "null_value",
        "message": "nothing",
        "rejected": 0,
    }
    return pa.RecordBatch.from_pylist([row], schema=LETTER_SCHEMA)


def test_letters_and_rows_are_flushed_although_the_catalog_fails_between(
    log: PoisonLog, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 6: an answer lost at either table is settled by what the tables record."""
    real, fails = Table._do_commit, Counter()

    def do_commit(table: Table, updates: Any, requirements: Any) -> None:
        name = table.name()[-1]
        fails[name] += 1
        real(table, updates, requirements)
        if fails[name] in (2, 3):
            raise ConnectionResetError

    monkeypatch.setattr(Table, "_do_commit", do_commit)
    log.write(*KINDS)
    with running(world.sources(), log.spec(flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, *log.ends))
        log.write(*KINDS)
        world.wait(NAME, committed(log.topic, *log.ends))
    assert fails["ticks_dead_letters"] >= 3
    assert_one_place(world, log)


def test_letters_of_a_table_that_no_longer_keeps_them_stay_letters(
    log: PoisonLog, world: World
) -> None:
    """The policy may change after a crash between the commits: the recorded ones stand."""
    log.write("unknown_schema", "malformed")
    with child(world, log, "letters.committed:1") as process:
        assert process.wait(WAIT_S) == -signal.SIGKILL
    teach(world)
    with running(world.sources(), log.spec(on_error="stop", flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, *log.ends))
    assert_one_place(world, log)


def test_a_table_created_anew_keeps_the_letters_of_the_old_one(
    log: PoisonLog, world: World
) -> None:
    log.write(*KINDS)
    with running(world.sources(), log.spec(flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, *log.ends))
    with running(world.sources(), log.spec(flush_age_s=0.2)):
        world.wait(NAME, committed(log.topic, *log.ends))  # a second epoch
    load_catalog("lake", **world.properties).drop_table(str(NAME))
    teach(world)
    with running(world.sources(), log.spec(flush_age_s=0.2)):
        log.write("malformed")
        world.wait(NAME, committed(log.topic, *log.ends))
    assert_one_place(world, log)


def test_the_dead_letter_table_may_be_named(log: PoisonLog, world: World) -> None:
    log.write("malformed")
    spec = log.spec(flush_age_s=0.2, dead_letter_table="quarantine.ticks")
    with running(world.sources(), spec):
        world.wait(NAME, committed(log.topic, *log.ends))
    table = load_catalog("lake", **world.properties).load_table("quarantine.ticks")
    assert table.scan().to_arrow().num_rows == 1
    assert not world.lake().exists(LETTERS)
    assert spec.dead_letters == TableName("quarantine", "ticks")
