"""Failures that other sinks met in production, provoked here (docs/reliability.md)."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table.snapshots import Operation
from support_ingest import WAIT_S, World, committed, framed, reached, running
from support_kafka import Broker
from support_lake import break_commits
from support_log import NAME, Log, assert_answer, spec_of

from catalog.heads import Head
from catalog.kafka import TopicReader
from catalog.offsets import Offsets


def blank_folder(world: World) -> None:
    shutil.rmtree(world.live.folder)


def nothing(world: World) -> None:
    assert world.live.folder.exists()


@pytest.mark.parametrize("forget", [nothing, blank_folder])
@pytest.mark.parametrize("group", [None, "another-group"])
def test_a_restart_goes_on_from_the_positions_in_the_table(
    forget: Callable[[World], None], group: str | None, mock_broker: Broker, tmp_path: Path
) -> None:
    """Rules 2 and 12: no run, group or folder knows anything that the table does not."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    log.write(100)
    with running(world.sources(), spec_of(log, flush_rows=100)):
        world.wait(NAME, committed("t", *log.ends))
        log.write(30)
        world.wait(NAME, reached("t", *log.ends))
    forget(world)
    log.write(70)
    second = world.sources(
        reader=lambda spec: TopicReader(world.kafka, spec.topics, monitor_group=group)
    )
    with running(second, spec_of(log, flush_rows=100)):
        manifest = world.wait(NAME, committed("t", *log.ends))
    assert_answer(world, log)
    assert len(world.history(NAME, manifest.snapshot_id)) == 200
    table = load_catalog("lake", **world.properties).load_table(str(NAME))
    assert {one.summary.operation for one in table.snapshots() if one.summary} == {Operation.APPEND}


def test_timestamps_decide_nothing(mock_broker: Broker, tmp_path: Path) -> None:
    """Rule 16: clocks that jump between 1971 and 2100 neither hide nor double a row."""
    seed = random.Random(5)
    log, world = Log(mock_broker, "t", 1), World.make(tmp_path, mock_broker.properties)
    with running(world.sources(), spec_of(log, flush_rows=40)):
        for _ in range(4):
            write_at(log, [seed.randrange(10**10, 4 * 10**12) for _ in range(25)])
            world.wait(NAME, reached("t", *log.ends))
            assert_answer(world, log)
        world.wait(NAME, lambda m: sum(m.committed.values()) >= 40)
    manifest = assert_answer(world, log)
    assert 0 < sum(manifest.committed.values()) <= 100


def write_at(log: Log, times_ms: list[int]) -> None:
    """Appends one record per time to partition 0."""
    producer = log.broker.producer()
    for at_ms in times_ms:
        number = len(log.sent[0])
        producer.produce(log.topic, framed(number), partition=0, timestamp=at_ms)
        log.sent[0].append((number, number))
    assert producer.flush(WAIT_S) == 0


def test_a_commit_that_was_acknowledged_and_forgotten_is_made_again(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rules 4 and 6: what counts is what the table records, not what the catalog answered."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    lake, forgot = world.lake(), threading.Event()

    def forgotten(send: Callable[[], object]) -> object:
        answer = send()
        with sqlite3.connect(tmp_path / "catalog.db") as catalog:
            catalog.execute(
                "UPDATE iceberg_tables SET metadata_location = previous_metadata_location"
            )
        catalog.close()
        forgot.set()
        return answer

    steps = [lambda send: send(), lambda send: send(), forgotten]  # declaration, claim, flush
    calls = break_commits(lake, iter(steps))
    log.write(100)
    with running(world.sources(lake=lake), spec_of(log, flush_age_s=0.2)):
        assert forgot.wait(WAIT_S)
        head = wait_for_positions(world, log)
        world.wait(NAME, lambda m: m.snapshot_id == head.snapshot_id)
    manifest = assert_answer(world, log)
    assert len(calls) >= 4
    assert len(world.history(NAME, manifest.snapshot_id)) == 100


def wait_for_positions(world: World, log: Log) -> Head:
    """The first head by which the table itself, not an answer about it, records the log's ends."""
    wanted = Offsets({(log.topic, p): end for p, end in enumerate(log.ends)})
    lake, limit = world.lake(), time.monotonic() + WAIT_S
    while True:
        head = lake.head(NAME) if lake.exists(NAME) else None
        if head is not None and head.marker is not None and head.marker.positions.covers(wanted):
            return head
        assert time.monotonic() < limit
        time.sleep(0.05)
