"""Brokers that die and come back, on a real cluster of three: nothing is lost, nothing doubled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support_cluster import Cluster, cluster
from support_ingest import WAIT_S, World, committed, framed, reached, running
from support_log import NAME, Log, assert_answer, spec_of
from support_stack import StackUnavailable

from catalog.errors import LogLost
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
            for end in ("kill", "end"):  # a crash, then a restart in order
                leader = brokers.leader(topic)
                getattr(brokers.nodes[leader], end)()
                brokers.wait_until_led(topic, other_than=leader)
                before = world.wait(NAME, further(before, 500))
                brokers.nodes[leader].start()
                brokers.wait_until_in_sync(topic, leader)
                before = world.wait(NAME, further(before, 500))
        world.wait(NAME, committed(topic, *log.ends))
        assert not it.errors
    assert_answer(world, log)


@pytest.mark.parametrize("more", [0, 60], ids=["shorter", "longer"])
def test_an_unclean_leader_that_lost_records_is_a_typed_stop(
    more: int, brokers: Cluster, tmp_path: Path
) -> None:
    """Rule 12: the log went back below what was published, also when it has grown again since."""
    topic = brokers.create_replicated((2, 3), unclean_leader_election_enable="true")
    log, world = Log(brokers, topic, 1), World.make(tmp_path, brokers.properties)
    log.write(10)
    leader, follower = 2, 3
    brokers.nodes[follower].kill()
    brokers.wait_until_left(topic, follower)
    with running(world.sources(), spec_of(log)) as it:
        log.write(20)  # the leader alone has these
        world.wait(NAME, reached(topic, 30))
        brokers.nodes[leader].kill()
        brokers.nodes[follower].start()
        brokers.wait_until_led(topic, other_than=leader)
        brokers.produce(topic, [framed(1000 + n) for n in range(more)], partition=0)
        stopped = world.wait(NAME, lambda m: m.state == "stopped")
        assert stopped.high.at((topic, 0)) == 30
        assert_answer(world, log)
    brokers.nodes[leader].start()
    brokers.wait_until_in_sync(topic, leader)
    assert isinstance(it.errors[NAME], LogLost)
    assert stopped.error_code == "DATA_LOSS"
