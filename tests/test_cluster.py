"""Brokers that die and come back, on a real cluster of three: nothing is lost, nothing doubled."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from support_cluster import Cluster, cluster
from support_ingest import WAIT_S, World, committed, framed, reached, running
from support_log import NAME, Log, assert_answer, spec_of
from support_stack import StackUnavailable

from catalog.diagnosis import diagnose, log_state
from catalog.errors import LogEndsEarly, LogLost
from catalog.kafka import TopicReader
from catalog.manifest import Manifest

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of this module's tests; each leaves all three brokers running."""
    try:
        with cluster(tmp_path_factory.mktemp("cluster")) as found:
            yield found
    except StackUnavailable as error:
        pytest.skip(str(error))


@contextmanager
def producing(log: Log) -> Iterator[None]:
    """Writes without a pause, by a producer that never doubles what it sends again."""
    over, faults = threading.Event(), []

    def write() -> None:
        try:
            while not over.is_set():
                log.write(200)
        except BaseException as fault:  # noqa: BLE001 - raised in the test's thread
            faults.append(fault)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * WAIT_S)
    if faults:
        raise faults[0]


def further(than: Manifest, rows: int) -> object:
    """Whether a version reaches so many rows further in every partition."""
    return lambda m: all(m.high.at(tp) >= end + rows for tp, end in than.high.items())


def test_a_leader_that_dies_costs_nothing_and_no_restart(brokers: Cluster, tmp_path: Path) -> None:
    """Rule 9: connections are lost, topics are the same; acks=all is what was acknowledged."""
    topic = brokers.create_replicated((2, 3, 1), (3, 2, 1), min_insync_replicas="2")
    log = Log(brokers, topic, 2, enable_idempotence=True)
    world = World.make(tmp_path, brokers.properties)
    with running(world.sources(), spec_of(log, flush_age_s=0.5)) as it:
        with producing(log):
            before = world.wait(NAME, lambda m: min(m.high.values(), default=0) > 0)
            leader = brokers.leader(topic)
            brokers.nodes[leader].kill()
            brokers.wait_until_led(topic, other_than=leader)
            before = world.wait(NAME, further(before, 500))
            brokers.nodes[leader].start()
            brokers.wait_until_in_sync(topic, leader)
            world.wait(NAME, further(before, 500))
        world.wait(NAME, committed(topic, *log.ends))
        with restarted_leader(brokers, topic, partition=1):
            aborted = log.ends[1] + 4  # three records and a marker, of a leader with no other
            abort(brokers, topic, partition=1)
            world.wait(NAME, committed(topic, log.ends[0], aborted))
        assert not it.errors
    assert_answer(world, log)
    with running(world.sources(), spec_of(log)) as it:  # and the log is still the one that was read
        log.write(4)
        world.wait(NAME, reached(topic, *log.ends))
    assert not it.errors
    assert_answer(world, log)


@contextmanager
def restarted_leader(brokers: Cluster, topic: str, partition: int) -> Iterator[None]:
    """A leader ends in order and another one takes its place; it is back after the block."""
    leader = brokers.leader(topic, partition)
    brokers.nodes[leader].end()
    brokers.wait_until_led(topic, other_than=leader, partition=partition)
    yield
    brokers.nodes[leader].start()
    brokers.wait_until_in_sync(topic, leader, partition)


def abort(brokers: Cluster, topic: str, partition: int) -> None:
    """Writes three records that nobody will read."""
    producer = brokers.producer(transactional_id=topic)
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    for number in range(3):
        producer.produce(topic, framed(number), partition=partition)
    producer.flush(WAIT_S)
    producer.abort_transaction(WAIT_S)


@contextmanager
def unclean(brokers: Cluster, world: World, log: Log, more: int) -> Iterator[Manifest]:
    """An ingest commits 10 records and then 30, of which a new leader knows 10; ``more`` follow.

    Gives the version that it stopped with; all brokers run again after the block.
    """
    leader, follower = 2, 3
    with running(world.sources(), spec_of(log, flush_age_s=0.1)) as it:
        log.write(10)
        world.wait(NAME, committed(log.topic, 10))
        brokers.nodes[follower].kill()
        brokers.wait_until_left(log.topic, follower)
        log.write(20)  # the leader alone has these
        world.wait(NAME, committed(log.topic, 30))
        brokers.nodes[leader].kill()
        brokers.nodes[follower].start()
        brokers.wait_until_led(log.topic, other_than=leader)
        brokers.produce(log.topic, [framed(1000 + n) for n in range(more)], partition=0)
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert_answer(world, log)
    assert isinstance(it.errors[NAME], LogLost)
    assert (stopped.error_code, stopped.high.at((log.topic, 0))) == ("DATA_LOSS", 30)
    yield stopped
    brokers.nodes[leader].start()
    brokers.wait_until_in_sync(log.topic, leader)


def test_an_unclean_leader_that_lost_records_is_a_typed_stop(
    brokers: Cluster, tmp_path: Path
) -> None:
    """Rule 12: the log went back below what was published."""
    topic = brokers.create_replicated((2, 3), unclean_leader_election_enable="true")
    log, world = Log(brokers, topic, 1), World.make(tmp_path, brokers.properties)
    with unclean(brokers, world, log, 0) as stopped:
        assert stopped.committed.at((topic, 0)) == 30


def test_a_log_that_was_cut_off_and_has_grown_again_is_a_typed_stop(
    brokers: Cluster, tmp_path: Path
) -> None:
    """Rule 12: told by its leaders' epochs, while it is read, published or recorded alone.

    A repair names the snapshot that stands within what is left, and from there it goes on exactly.
    """
    topic = brokers.create_replicated((2, 3), unclean_leader_election_enable="true")
    log, world = Log(brokers, topic, 1), World.make(tmp_path, brokers.properties)
    cut = rf"{topic}\[0\] was cut off at offset 10, below position 30"
    with unclean(brokers, world, log, 60) as stopped:
        assert re.search(cut, stopped.error or "")
        assert stopped.leaders.at((topic, 0)) == 0

        assert_stops(world, log, cut)
        shutil.rmtree(world.live.folder)  # the table alone knows what was read
        assert_stops(world, log, cut)

        reader = TopicReader(world.kafka, (topic,))
        state = log_state(reader, world.lake(), NAME)
        reader.close()
        assert state.ends.at((topic, 0)) == 10
        ends, named = diagnose(world.lake(), NAME, state)
        assert "ends at offset 10, below position 30" in ends
        table = load_catalog("lake", **world.properties).load_table(str(NAME))
        (number,) = re.findall(r"snapshot (\d+) stands within the log", named)
        table.manage_snapshots().set_current_snapshot(snapshot_id=int(number)).commit()
        shutil.rmtree(world.live.folder)
        log.sent[0] = [*log.sent[0][:10], *((10 + n, 1000 + n) for n in range(60))]
        with running(world.sources(), spec_of(log, flush_age_s=0.1)):
            world.wait(NAME, committed(topic, 70))
        assert assert_answer(world, log).leaders.at((topic, 0)) > 0


def assert_stops(world: World, log: Log, error: str) -> None:
    """An ingest that starts now stops by this error."""
    before = world.manifest(NAME)
    with running(world.sources(), spec_of(log)) as it:
        world.wait(NAME, lambda m: m.state == "stopped" and m != before)
    assert isinstance(it.errors[NAME], LogEndsEarly)
    assert re.search(error, str(it.errors[NAME]))
