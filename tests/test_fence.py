"""Several writers of one table: positions and epoch inside the commit decide, whatever happens."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from support_fleet import NAME, Node
from support_ingest import World, committed, reached, running
from support_kafka import Broker
from support_log import Log, assert_answer

from catalog.errors import Fenced, LakeUnavailable
from catalog.lake import Lake
from catalog.offsets import Marker, Offsets, TopicIdentity, marker_from_summary, marker_to_summary
from catalog.owners import MAX_NODE_CHARS, named, this_process
from catalog.spec import LiveSpec, TableSpec

CLOCK = Path(__file__).parent / "clock"


@pytest.mark.broker
def test_a_writer_that_was_paused_is_fenced_and_told_by_whom(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 5: three owners in turn, each paused with rows in hand; the clocks are hours apart.

    Epochs increase, every record is in history once, and snapshots' times never go back.
    """
    log, world = Log(kafka, kafka.create_topic(2)), World.make(tmp_path, kafka.properties)
    monkeypatch.setenv("PYTHONPATH", str(CLOCK))
    before: Node | None = None
    with ExitStack() as stack:
        for epoch, wrong_by_s in enumerate((0, 7200, -7200), start=1):
            monkeypatch.setenv("WRONG_BY_S", str(wrong_by_s))
            node = stack.enter_context(Node(world, log, f"node-{epoch}", "writer").running())
            log.write(100)
            node.wait_for_all()
            if before is not None:
                before.signal(signal.SIGCONT)
                stopped = before.wait(lambda m: m.state == "stopped")
                assert f"{node.name}, process {node.pid}, started" in (stopped.error or "")
                assert f"(epoch {epoch})" in (stopped.error or "")
                before.assert_exact()
            log.write(30)
            node.wait(reached(log.topic, *log.ends))
            node.signal(signal.SIGSTOP)
            before = node
        assert before is not None
        before.signal(signal.SIGCONT)
        before.wait_for_all()
    rows = before.assert_exact()
    assert len(rows) == 390
    assert sorted(world.history(NAME, None)) == rows
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    times = [snapshot.timestamp_ms for snapshot in table.snapshots()]
    assert times == sorted(times)


class Cut(Lake):
    """A lake whose catalog cannot be reached for a while."""

    away: threading.Event

    def load(self, name: Any) -> Any:
        """As the lake, while it is there."""
        if self.away.is_set():
            raise LakeUnavailable("the catalog does not answer")
        return super().load(name)


def test_a_writer_cut_off_from_the_catalog_is_fenced_when_it_is_back(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 5: its rows stay live meanwhile; another one flushes them; nothing is there twice."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    other = replace(world, live=LiveSpec(tmp_path / "other", reload_s=0.2))
    spec = TableSpec(NAME, ("t",), schema_id=7, flush_age_s=0.3)
    lake = Cut(load_catalog("lake", **world.properties))
    lake.away = threading.Event()
    log.write(100)
    with running(world.sources(lake=lake), spec) as cut_off:
        world.wait(NAME, committed("t", *log.ends))
        lake.away.set()
        log.write(50)
        world.wait(NAME, lambda m: m.error is not None and reached("t", *log.ends)(m))
        with running(other.sources(owner="the other one"), spec):
            log.write(50)
            other.wait(NAME, committed("t", *log.ends))
            lake.away.clear()
            stopped = world.wait(NAME, lambda m: m.state == "stopped")
            assert "taken over by another ingest, the other one (epoch 2)" in (stopped.error or "")
            for each in (world, other):
                assert_answer(each, log)
    assert isinstance(cut_off.errors[NAME], Fenced)
    assert len(world.history(NAME, None)) == 200


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 0, 3_600_000])
def test_snapshots_of_wrong_clocks_stay_in_order(
    ahead_ms: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catalog refuses a snapshot older than the table; a clock that is behind must not matter."""
    world = World.make(tmp_path, {})
    spec = TableSpec(NAME, ("t",), schema_id=7)
    lake, topics = world.lake(), (TopicIdentity("t", "c", "1"),)
    lake.ensure_table(spec, pa.schema([pa.field("number", pa.int64())]))
    lake.claim(NAME, topics, "one", 7, Offsets())
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead_ms / 1000)
    lake.claim(NAME, topics, "two", 7, Offsets())
    monkeypatch.setattr(time, "time", real)
    lake.claim(NAME, topics, "three", 7, Offsets())
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    times = [snapshot.timestamp_ms for snapshot in table.snapshots()]
    assert len(times) == 3
    assert times == sorted(times)


def test_a_claim_over_one_owner_refuses_any_other(tmp_path: Path) -> None:
    """Rule 5: of two standbys that saw the same owner dead, the second one loses."""
    world = World.make(tmp_path, {})
    lake, topics = world.lake(), (TopicIdentity("t", "c", "1"),)
    schema = pa.schema([pa.field("number", pa.int64())])
    lake.ensure_table(TableSpec(NAME, ("t",), schema_id=7), schema)
    dead = lake.claim(NAME, topics, "dead", 7, Offsets()).marker
    won = lake.claim(NAME, topics, "first", 7, Offsets(), owner="the first", over=dead)
    with pytest.raises(Fenced, match=r"another writer now, the first \(epoch 2\)"):
        lake.claim(NAME, topics, "second", 7, Offsets(), over=dead)
    assert lake.head(NAME) == won
    assert lake.claim(NAME, topics, "first", 7, Offsets(), over=dead) == won, "its own, again"


def test_an_owner_is_named_in_bounded_words() -> None:
    """By the name that was given; by its id in a marker from before there were names."""
    words = this_process("x" * 1000)
    assert words.startswith("x" * MAX_NODE_CHARS + ", process ")
    marker = Marker(Offsets(), (), 3, "f00", 7, owner="y" * 1000)
    assert len(named(marker)) < 250
    read = marker_from_summary(marker_to_summary(marker))
    assert read is not None
    assert len(read.owner) == 200
    old = {k: v for k, v in marker_to_summary(marker).items() if k != "k2.owner"}
    assert named(marker_from_summary(old) or marker) == "writer f00 (epoch 3)"
