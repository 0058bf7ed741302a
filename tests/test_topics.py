"""Topics that change under a running ingest, or while it is down: partitions, retention, identity.

On a real broker: the mock cluster has no topic admin, no retention and no transactions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support_flight import until
from support_ingest import WAIT_S, World, committed, framed, reached, running
from support_kafka import Broker
from support_log import NAME, assert_answer, real_log, shaky, spec_of

from catalog.errors import LogGap, TopicRecreated
from catalog.kafka import TopicReader
from catalog.manifest import Manifest
from catalog.offsets import Offsets
from catalog.reports import lag_table
from catalog.spec import TableSpec
from flight_server.metrics import IngestMetrics

pytestmark = pytest.mark.broker
REPAIR = "`k2 repair TABLE --skip-lost-records` goes on without them"


def lag(world: World, spec: TableSpec) -> list[dict[str, Any]]:
    """``system.lag`` of the table, one row per partition."""
    rows: list[dict[str, Any]] = lag_table(
        [(spec, world.manifest(spec.name))], time.time_ns() // 1000
    ).to_pylist()
    return rows


def wait_for_lag(
    world: World, spec: TableSpec, done: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """The first ``system.lag`` that ``done`` likes."""
    limit = time.monotonic() + WAIT_S
    while not done(rows := lag(world, spec)):
        assert time.monotonic() < limit, rows
        time.sleep(0.02)
    return rows


def partitions(*wanted: int) -> Callable[[Manifest], bool]:
    """Whether a version's snapshot holds this many positions, in any order of partitions."""
    return lambda manifest: sorted(manifest.committed.values()) == sorted(wanted)


@contextmanager
def watched(world: World) -> Iterator[list[Manifest]]:
    """Asks for all rows without a pause: each answer is whole per partition, and none goes back."""
    seen: list[Manifest] = []
    faults: list[BaseException] = []
    over = threading.Event()

    def look() -> None:
        try:
            while not over.is_set():
                rows, manifest = world.answer(NAME)
                assert [row[:2] for row in rows] == [
                    (partition, offset)
                    for (_, partition), end in manifest.high.items()
                    for offset in range(end)
                ]
                assert not seen or manifest.high.covers(seen[-1].high)
                seen.append(manifest)
        except BaseException as fault:  # noqa: BLE001 - raised in the test's thread
            faults.append(fault)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(WAIT_S)
    if faults:
        raise faults[0]


# --- partitions ---------------------------------------------------------------------------------


def test_partitions_added_while_running_are_found_and_answers_stay_prefixes(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rules 1 and 16: from 2 to 5 partitions, written to before anybody has noticed them."""
    log, world = real_log(kafka, 2), World.make(tmp_path, kafka.properties)
    log.write(100)
    with running(world.sources(), spec_of(log, flush_age_s=0.5)):
        world.wait(NAME, reached(log.topic, 50, 50))
        with watched(world) as seen:
            log.grow(5)
            for _ in range(10):
                log.write(100)
            world.wait(NAME, committed(log.topic, *log.ends))
    assert log.ends == (250, 250, 200, 200, 200)
    assert len(seen) > 2
    assert_answer(world, log)


def test_partitions_added_while_nothing_ran_are_read_from_their_start(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rule 1: a position that the marker lacks is 0, not the end of the log."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    log.write(10)
    with running(world.sources(), spec_of(log, flush_age_s=0.3)):
        world.wait(NAME, committed(log.topic, 10))
    log.grow(4)
    log.write(40)
    with running(world.sources(), spec_of(log, flush_age_s=0.3)), watched(world):
        world.wait(NAME, committed(log.topic, *log.ends))
    assert_answer(world, log)
    assert sum(log.ends) == 50


_NOTHING = Offsets()


class Unhurried(TopicReader):
    """A reader that looks for new partitions when it is told to."""

    gate: threading.Event

    def discover(self, committed: Offsets = _NOTHING) -> tuple[tuple[str, int], ...]:
        """None before the gate is open."""
        return super().discover(committed) if self.gate.is_set() else ()


@pytest.mark.parametrize("when", ["running", "down"])
def test_a_new_partition_that_lost_its_start_is_a_gap(
    when: str, kafka: Broker, tmp_path: Path
) -> None:
    """Rule 1: it starts at 0 or not at all; what was read of the others is saved and served."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    log.write(10)
    Unhurried.gate = threading.Event()
    sources = world.sources(reader=lambda spec: Unhurried(world.kafka, spec.topics))
    with running(sources, spec_of(log)) as it:
        world.wait(NAME, reached(log.topic, 10))
        kafka.add_partitions(log.topic, 2)
        kafka.produce(log.topic, [framed(n) for n in range(5)], partition=1)
        kafka.delete_records(log.topic, {1: 3})
        if when == "running":
            Unhurried.gate.set()
            world.wait(NAME, lambda m: m.state == "stopped" and m.committed == m.high)
    if when == "down":
        with running(world.sources(), spec_of(log)) as it:
            world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], LogGap)
    assert f"{log.topic}[1] holds nothing below offset 3, but position 0" in str(it.errors[NAME])
    assert REPAIR in str(it.errors[NAME])
    assert_answer(world, log)


# --- retention ----------------------------------------------------------------------------------


def test_records_deleted_past_the_position_while_running_are_a_gap(
    kafka: Broker, tmp_path: Path
) -> None:
    """RELIABILITY row 10: partition, positions and the command that goes on without them."""
    log = real_log(kafka, 1)
    world = World.make(tmp_path, kafka.properties, max_bytes=1)  # paused by the first rows
    log.write(10)
    lake = shaky(world)
    lake.gate.clear()
    with running(world.sources(lake=lake), spec_of(log)) as it:
        world.wait(NAME, lambda m: m.state == "paused")
        log.write(10)
        kafka.delete_records(log.topic, {0: 15})
        warned = wait_for_lag(world, spec_of(log), lambda rows: rows[0]["warning"] is not None)
        assert "15 positions were deleted before history had them" in warned[0]["warning"]
        lake.gate.set()
        stopped = world.wait(NAME, lambda m: m.state == "stopped" and m.committed == m.high)
    assert isinstance(it.errors[NAME], LogGap)
    assert f"{log.topic}[0] holds nothing below offset 15, but position 10 is next: the 5" in (
        stopped.error or ""
    )
    assert REPAIR in (stopped.error or "")
    log.sent[0] = log.sent[0][:10]
    assert_answer(world, log)


def test_retention_that_comes_close_is_a_warning_before_it_is_a_gap(
    kafka: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """RELIABILITY row 10: half of what the log holds is not committed, and stays so."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    spec = spec_of(log, flush_age_s=0.3)
    log.write(50)
    lake, metrics = shaky(world), IngestMetrics()
    with running(world.sources(lake=lake, observer=metrics), spec):
        world.wait(NAME, committed(log.topic, 50))
        calm = wait_for_lag(world, spec, lambda rows: rows[0]["watermark"] == 50)
        assert (calm[0]["uncommitted_share"], calm[0]["warning"]) == (None, None)
        lake.gate.clear()
        log.write(100)
        kafka.delete_records(log.topic, {0: 40})
        (row,) = wait_for_lag(world, spec, lambda rows: rows[0]["warning"] is not None)
        assert (row["log_start"], row["committed"], row["watermark"]) == (40, 50, 150)
        assert row["uncommitted_share"] == 100 / 110
        assert "history lacks 91% of what the log still holds" in row["warning"]
        labels = {"table": str(NAME)}
        until(lambda: metrics.registry.get_sample_value("k2_ingest_retention_close", labels) == 1)
        lake.gate.set()
        (row,) = wait_for_lag(world, spec, lambda rows: rows[0]["uncommitted_share"] == 0.0)
        assert row["warning"] is None
    warnings = [line for line in caplog.messages if line.startswith("retention_is_close")]
    assert len(warnings) == 1
    assert f"partition={log.topic}[0] begin=40 committed=50 end=150" in warnings[0]
    assert_answer(world, log)


# --- identity -----------------------------------------------------------------------------------


def test_a_topic_recreated_while_nothing_ran_stops_before_its_rows_show(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rule 9: the marker says which topic its positions are of."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    log.write(5)
    with running(world.sources(), spec_of(log, flush_age_s=0.2)):
        before = world.wait(NAME, committed(log.topic, 5))
    kafka.delete_topic(log.topic)
    kafka.create_topic(1, name=log.topic)
    kafka.produce(log.topic, [framed(1000 + n) for n in range(20)], partition=0)
    with running(world.sources(), spec_of(log, flush_age_s=0.2)) as it:
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
    assert isinstance(it.errors[NAME], TopicRecreated)
    assert (stopped.snapshot_id, stopped.high) == (before.snapshot_id, before.high)
    assert world.lake().head(NAME).snapshot_id == before.snapshot_id
    assert_answer(world, log)


# --- open transactions --------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["commit", "abort"])
def test_an_open_transaction_shows_as_a_lag_of_its_own(
    ends: str, kafka: Broker, tmp_path: Path
) -> None:
    """Rule 1: answers are exact below the last stable offset, and right after its end."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    spec = spec_of(log, flush_age_s=0.3)
    log.write(3)
    producer = kafka.producer(transactional_id=f"open-{log.topic}")
    producer.init_transactions(WAIT_S)
    with running(world.sources(), spec):
        world.wait(NAME, reached(log.topic, 3))
        producer.begin_transaction()
        for number in (100, 101):
            producer.produce(log.topic, framed(number), partition=0)
        producer.flush(WAIT_S)
        log.write(4)  # behind the transaction: nobody may see them yet
        (row,) = wait_for_lag(
            world, spec, lambda rows: rows[0]["held_rows"] == 6 and rows[0]["held_ms"] > 300
        )
        assert (row["high"], row["stable"], row["watermark"], row["lag_rows"]) == (3, 3, 9, 6)
        assert row["state"] == "running"
        assert len(world.answer(NAME)[0]) == 3
        if ends == "commit":
            producer.commit_transaction(WAIT_S)
            log.sent[0] = sorted([*log.sent[0], (3, 100), (4, 101)])
        else:
            producer.abort_transaction(WAIT_S)
        world.wait(NAME, committed(log.topic, 10))
        (row,) = wait_for_lag(world, spec, lambda rows: rows[0]["held_rows"] == 0)
        assert (row["stable"], row["held_ms"]) == (10, None)
    assert_answer(world, log)
