"""What is recorded of leaders' epochs, and what a log that disagrees is told by.

What brokers do when a leader lacks records is in test_cluster.py; here the epoch is one that no
leader ever had.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support_ingest import World, committed, reached, running
from support_kafka import Broker
from support_log import NAME, Log, assert_answer, spec_of

from catalog.cutoffs import cuts
from catalog.diagnosis import log_state
from catalog.errors import BrokerUnavailable, LogEndsEarly, RepairRefused
from catalog.heads import Head
from catalog.kafka import TopicReader
from catalog.offsets import Marker, Offsets, TopicIdentity
from catalog.repair import LogState, same_topic, skip_lost_records
from catalog.segments import LiveWriter

PLACE = ("t", 0)
#: Of the mock cluster's leaders, and of none.
KNOWN, UNKNOWN = Offsets({PLACE: 0}), Offsets({PLACE: 7})


@pytest.fixture
def log(mock_broker: Broker) -> Log:
    log = Log(mock_broker, "t", 1)
    log.write(10)
    return log


def recorded(world: World) -> Marker:
    marker = world.lake().head(NAME).marker
    assert marker is not None
    return marker


def assert_refused(world: World, log: Log, position: int) -> None:
    before = world.manifest(NAME)
    with running(world.sources(), spec_of(log)) as it:
        stopped = world.wait(NAME, lambda m: m != before and m.state == "stopped")
    assert isinstance(it.errors[NAME], LogEndsEarly)
    assert f"t[0] was cut off at offset 0, below position {position}" in str(it.errors[NAME])
    assert stopped.high.at(PLACE) == position


def test_a_log_is_asked_where_an_epoch_ends(log: Log) -> None:
    properties = log.broker.properties
    at = lambda position: Offsets({PLACE: position})  # noqa: E731 - one use
    assert cuts(properties, at(10), KNOWN, 4.0) == Offsets()
    assert cuts(properties, at(5), KNOWN, 4.0) == Offsets()
    assert cuts(properties, at(12), KNOWN, 4.0) == at(10)
    assert cuts(properties, at(5), UNKNOWN, 4.0) == at(0)
    assert cuts(properties, at(0), UNKNOWN, 4.0) == Offsets()
    assert cuts(properties, at(5), Offsets(), 4.0) == Offsets()
    with pytest.raises(BrokerUnavailable, match="whether the log was cut off"):
        cuts({"bootstrap.servers": "127.0.0.1:9"}, at(5), KNOWN, 0.2)


def test_every_partition_answers_however_many_there_are(kafka: Broker) -> None:
    """Each is asked until it has answered, whatever the others hold."""
    log = Log(kafka, kafka.create_topic(24), 24)
    log.write(24 * 50)
    places = [(log.topic, partition) for partition in range(24)]
    leaders = Offsets(dict.fromkeys(places, 0))
    for position in (1, 50):  # much is left of each, or nothing
        positions = Offsets(dict.fromkeys(places, position))
        assert cuts(kafka.properties, positions, leaders, 4.0) == Offsets()
    ahead = Offsets({**dict.fromkeys(places, 50), places[7]: 60})
    found = cuts(kafka.properties, ahead, leaders, 4.0)
    assert found == Offsets({places[7]: 50})


def test_a_client_that_words_it_in_another_way_stops_reading(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log ends is in the client's words only; what is not understood is no good news."""
    monkeypatch.setattr("catalog.cutoffs._END", re.compile("words of a later version"))
    with pytest.raises(BrokerUnavailable, match="truncat"):
        cuts(log.broker.properties, Offsets({PLACE: 5}), UNKNOWN, 4.0)


def test_positions_are_recorded_and_published_with_their_leaders_epochs(
    log: Log, tmp_path: Path
) -> None:
    """Rule 12: by the next start they tell whether the log is the one that was read."""
    world = World.make(tmp_path, log.broker.properties)
    with running(world.sources(), spec_of(log, flush_age_s=0.1)):
        assert world.wait(NAME, committed("t", 10)).leaders == KNOWN
    assert recorded(world).leaders == KNOWN
    with running(world.sources(), spec_of(log)):
        log.write(5)
        assert world.wait(NAME, reached("t", 15)).leaders == KNOWN
    assert_answer(world, log)


def test_a_log_that_is_not_the_published_one_is_refused(log: Log, tmp_path: Path) -> None:
    """Rule 12: also where history ends before what was published."""
    world = World.make(tmp_path, log.broker.properties)
    with running(world.sources(), spec_of(log)):
        old = world.wait(NAME, reached("t", 10))
    assert recorded(world).positions.at(PLACE) == 0
    LiveWriter(world.live.folder, NAME, 1.0).publish(replace(old, leaders=UNKNOWN))
    assert_refused(world, log, 10)


def test_a_log_that_is_not_the_recorded_one_is_refused(log: Log, tmp_path: Path) -> None:
    """Rule 12: by the table alone, on a machine that has never seen the log."""
    world = World.make(tmp_path, log.broker.properties)
    with running(world.sources(), spec_of(log)):
        world.wait(NAME, reached("t", 10))
    marker = recorded(world)
    new = marker.moved_to(marker.positions.with_positions([(PLACE, 5)]), UNKNOWN)
    world.lake().commit(NAME, None, expected=marker, new=new)
    elsewhere = replace(world, live=replace(world.live, folder=tmp_path / "elsewhere"))
    assert_refused(elsewhere, log, 5)
    with closing(TopicReader(world.kafka, ("t",))) as reader:
        state = log_state(reader, world.lake(), NAME)
    assert state.ends.at(PLACE) == 0, "for repairs the log ends where it was cut off"
    with pytest.raises(RepairRefused, match=r"t\[0\] ends at 0, below position 5"):
        skip_lost_records(world.lake().head(NAME), state)


def test_a_repaired_table_claims_no_leaders_epochs() -> None:
    """Those of a moved cluster begin anew: the recorded ones would refuse its log for ever."""
    then, now = TopicIdentity("t", "old", "a"), TopicIdentity("t", "new", "b")
    marker = Marker(Offsets({PLACE: 10}), (then,), 1, "w", 7, leaders=UNKNOWN)
    head = Head("m", "u", 1, marker, 0)
    made = same_topic(head, LogState((now,), Offsets({PLACE: 0}), Offsets({PLACE: 10})))
    assert made.new.leaders == Offsets()


def test_the_epochs_are_those_of_whoever_read_further() -> None:
    """A follower behind the table knows less of the log than the table's writer did."""
    other = ("t", 1)
    marker = Marker(Offsets({PLACE: 10, other: 10}), (), 1, "w", 7)
    marker = replace(marker, leaders=Offsets({PLACE: 3, other: 4}))
    own = Offsets({PLACE: 5, other: 6})
    assert marker.leaders_at(Offsets({PLACE: 10, other: 11}), own) == Offsets({PLACE: 3, other: 6})
    assert marker.leaders_at(Offsets({PLACE: 11, other: 11}), Offsets()) == Offsets()
