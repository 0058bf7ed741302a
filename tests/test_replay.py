"""Dead letters that become rows: exactly once, beside a running ingest, whatever is killed when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from support_ingest import WAIT_S, World, committed, running
from support_kafka import Broker
from support_poison import (
    BAD,
    NAME,
    PoisonLog,
    assert_proved,
    child,
    letters,
    places,
    replay,
    teach,
)

from catalog.errors import Fenced, MarkerLost, VersionGone
from catalog.lake import Lake
from catalog.replay import Replayed
from catalog.segments import LiveReader
from catalog.tables import Tables

KINDS = tuple(BAD)
LATE = ["unknown_schema"] * 3


@pytest.fixture
def log(kafka: Broker) -> PoisonLog:
    """An empty topic on a real broker."""
    return PoisonLog(kafka, kafka.create_topic(1))


@pytest.fixture
def world(kafka: Broker, tmp_path: Path) -> World:
    """An empty lake and live folder."""
    return World.make(tmp_path, kafka.properties)


def committed_letters(world: World, log: PoisonLog, *kinds: str) -> None:
    """Writes, ingests and flushes."""
    log.write(*kinds)
    with running(world.sources(), log.spec(flush_age_s=0.1)):
        world.wait(NAME, committed(log.topic, *log.ends))


def learn(world: World, log: PoisonLog) -> None:
    """What was rejected for its schema is a row from now on."""
    teach(world)
    for place, kind in list(log.bad.items()):
        if kind == "unknown_schema":
            del log.bad[place]
            log.good[place] = 1


def assert_settled(world: World, log: PoisonLog) -> None:
    """The table holds the good records, its letters the bad ones, each once."""
    head = world.lake().head(NAME)
    assert sorted(world.history(NAME, head.snapshot_id)) == log.rows()
    assert places(letters(world)) == sorted(log.bad)
    assert_proved(world, {0: len(log.bad)} if log.bad else {})


def test_letters_that_decode_now_become_rows_where_they_belong(
    log: PoisonLog, world: World
) -> None:
    """Every version before lacks the row, every one after has it; positions stay; others stay."""
    committed_letters(world, log, *KINDS, *LATE)
    before = world.lake().head(NAME)
    assert replay(world, log.spec()) == Replayed(7, 0)
    assert world.lake().head(NAME) == before
    learn(world, log)
    assert replay(world, log.spec()) == Replayed(7, 4)
    after = world.lake().head(NAME)
    assert before.marker is not None
    assert after.marker is not None
    assert after.marker.positions == before.marker.positions
    assert (before.marker.replays, after.marker.replays) == (0, 1)
    assert len(world.history(NAME, before.snapshot_id)) == len(log.rows()) - 4
    assert_settled(world, log)
    assert replay(world, log.spec()) == Replayed(3, 0)
    assert world.lake().head(NAME) == after


def test_a_running_ingest_follows_a_replay(log: PoisonLog, world: World) -> None:
    """Rule 13: its next flush is built on the replay; a restart changes nothing."""
    log.write(*LATE)
    with running(world.sources(), log.spec(flush_age_s=0.1)):
        world.wait(NAME, committed(log.topic, *log.ends))
        learn(world, log)
        assert replay(world, log.spec()).rows == 3
        manifest = world.wait(NAME, lambda m: m.replays == 1)
        assert world.answer(NAME)[0] == log.rows(below=manifest.high)
        log.write("malformed")
        world.wait(NAME, committed(log.topic, *log.ends))
    with running(world.sources(), log.spec(flush_age_s=0.1)):
        log.write("malformed")
        manifest = world.wait(NAME, committed(log.topic, *log.ends))
    assert manifest.replays == 1
    assert_settled(world, log)


def test_a_ticket_made_before_a_replay_never_shows_its_rows(log: PoisonLog, world: World) -> None:
    """Rule 17: the snapshot after it holds other rows below the same positions."""
    log.write(*LATE)
    with running(world.sources(), log.spec(flush_rows=1)):
        world.wait(NAME, committed(log.topic, *log.ends))
        tables = Tables(world.lake(), LiveReader(world.live.folder), [log.spec()], refresh_ms=0)
        pin = tables.pin(NAME)
        learn(world, log)
        assert replay(world, log.spec()).rows == 3
        world.wait(NAME, lambda m: m.replays == 1)
    assert tables.open(pin).pin.snapshot_id == pin.snapshot_id
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    table.maintenance.expire_snapshots().by_id(pin.snapshot_id or 0).commit()
    Path(pin.metadata_location.removeprefix("file://")).unlink()
    fresh = Tables(world.lake(), LiveReader(world.live.folder), [log.spec()], refresh_ms=0)
    with pytest.raises(VersionGone):
        fresh.open(pin)
    assert fresh.open(fresh.pin(NAME)).pin.replays == 1


POINTS = (
    "commit.before_send:1",
    "commit.landed:1",
    "replay.rows_committed:1",
    "commit.before_send:2",
    "replay.letters_taken_off:1",
)


@pytest.mark.parametrize("point", POINTS)
def test_a_replay_killed_anywhere_goes_on_when_run_again(
    point: str, log: PoisonLog, world: World
) -> None:
    """No row twice, none lost, also when an ingest starts in between."""
    committed_letters(world, log, *KINDS, *LATE)
    learn(world, log)
    with child(world, log, point, "replay") as process:
        assert process.wait(WAIT_S) == -signal.SIGKILL
    log.write("malformed")
    with running(world.sources(), log.spec(flush_age_s=0.1)):
        world.wait(NAME, committed(log.topic, *log.ends))
    replay(world, log.spec())
    assert_settled(world, log)


def test_what_the_ingest_will_read_again_is_not_replayed(log: PoisonLog, world: World) -> None:
    """A letter at or past the table's positions stays: its ingest holds it to be one."""
    log.write(*LATE)
    with child(world, log, "letters.committed:1") as process:
        assert process.wait(WAIT_S) == -signal.SIGKILL
    assert len(letters(world)) == 3
    teach(world)
    assert replay(world, log.spec()) == Replayed(3, 0)
    learn(world, log)
    with running(world.sources(), log.spec(flush_age_s=0.1)):
        world.wait(NAME, committed(log.topic, *log.ends))
    assert replay(world, log.spec()) == Replayed(3, 3)
    assert_settled(world, log)


def test_two_replays_at_once_make_no_row_twice(
    log: PoisonLog, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of replays is compared at every attempt: the second one starts again."""
    committed_letters(world, log, *LATE)
    learn(world, log)
    real = Lake.write_files

    def write_files(lake: Lake, *args: object) -> object:
        monkeypatch.setattr(Lake, "write_files", real)
        staged = real(lake, *args)  # type: ignore[arg-type] # passed on
        assert replay(world, log.spec()).rows == 3
        return staged

    monkeypatch.setattr(Lake, "write_files", write_files)
    with pytest.raises(Fenced, match="another replay came first"):
        replay(world, log.spec())
    assert_settled(world, log)


def test_a_table_set_back_before_a_replay_is_not_continued(log: PoisonLog, world: World) -> None:
    """Fails closed: the letters are off their table, and their rows are gone."""
    committed_letters(world, log, *LATE)
    before = world.lake().head(NAME)
    learn(world, log)
    replay(world, log.spec())
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    table.manage_snapshots().rollback_to_snapshot(before.snapshot_id or 0).commit()
    with pytest.raises(MarkerLost, match="went back to before replay 1"):
        replay(world, log.spec())
    with running(world.sources(), log.spec()) as it:
        world.wait(NAME, lambda m: m.state == "stopped")
    assert "went back to before replay 1" in str(it.errors[NAME])


def test_the_command_lists_and_replays(log: PoisonLog, world: World) -> None:
    committed_letters(world, log, *KINDS)
    config = world.folder / "k2.toml"
    config.write_text(f"""\
[registry]
url = "file:./schemas"
[catalog]
type = "sql"
uri = "{world.properties["uri"]}"
warehouse = "{world.properties["warehouse"]}"
[[table]]
name = "{NAME}"
topics = ["{log.topic}"]
schema_id = 7
on_error = "dead_letter"
""")

    def k2(*arguments: str) -> str:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("K2_")}
        command = [Path(sys.executable).with_name("k2"), "rejects", *arguments]
        return subprocess.run(
            [*command, "-c", config], check=True, capture_output=True, text=True, env=environ
        ).stdout

    listed = json.loads(k2("list", str(NAME), "--json", "--limit", "2"))
    assert [letter["error"] for letter in listed["letters"]] == list(KINDS[:2])
    assert listed["letters"][1]["value_bytes"] == len(BAD["no_frame"] or b"")
    assert listed["letters"][0]["key"] == "key"
    shown = k2("list", "ticks").splitlines()
    assert len(shown) == 4
    assert "malformed: number: the value ends inside the record" in shown[3]
    learn(world, log)
    assert json.loads(k2("replay", "ticks", "--json")) == {"table": "ticks", "rows": 1, "left": 3}
    assert_settled(world, log)
