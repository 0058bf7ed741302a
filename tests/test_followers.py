"""Followers and standbys: exact answers without flushing, and taking a table over."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import flight
from support_fleet import NAME, Node
from support_flight import descriptor, read
from support_ingest import SCHEMA, WAIT_S, World, committed, reached, running
from support_kafka import Broker
from support_log import Log, assert_answer, real_log
from support_log import spec_of as spec_of_log

from catalog.errors import BrokerUnavailable, NotReady
from catalog.ingest import Sources
from catalog.kafka import TopicReader
from catalog.offsets import Offsets
from catalog.pins import Pin
from catalog.pulse import Beat, Pulse, Watch
from catalog.segments import LiveReader
from catalog.spec import LiveSpec, Role, TableSpec
from catalog.tables import Tables
from flight_server.protocol import messages

_NOTHING = Offsets()
ALL = messages.StatementQuery(f"select * from {NAME}")


def beside(world: World, name: str, role: Role) -> tuple[World, Sources]:
    """The same world from another machine: its live folder, and what its ingest is given."""
    live = LiveSpec(
        world.folder / name, grace_s=1.0, reload_s=0.1, role=role, take_over_after_s=1.0
    )
    other = replace(world, live=live)
    pulse = lambda table, head: Pulse(world.kafka, table, head)  # noqa: E731 - one use
    return other, other.sources(owner=name, pulse=pulse)


def spec_of(**changes: float) -> TableSpec:
    options = {"flush_age_s": 0.3, **changes}
    return TableSpec(NAME, ("t",), schema_id=7, **options)  # type: ignore[arg-type] # numbers


# --- following ----------------------------------------------------------------------------------


def test_a_follower_serves_the_same_tail_and_commits_nothing(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rules 5, 10 and 13: it publishes what it read, trims when the head moves, never flushes."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    far, follows = beside(world, "far", "follower")
    near, writes = beside(world, "near", "writer")
    log.write(100)
    with running(follows, spec_of(flush_rows=1)):  # there is no table yet: it waits for a writer
        assert far.manifest(NAME) is None
        with running(writes, spec_of(flush_age_s=3600)):
            near.wait(NAME, reached("t", *log.ends))
            tail = far.wait(NAME, reached("t", *log.ends))
            assert (tail.role, tail.owner, tail.epoch) == ("follower", "near", 1)
            assert sum(tail.committed.values()) == 0
            assert_answer(far, log)
        with running(beside(world, "near", "writer")[1], spec_of()):
            log.write(50)
            flushed = far.wait(NAME, committed("t", *log.ends))
            assert sum(one.rows for one in flushed.segments) == 0
            assert assert_answer(far, log).epoch == 2
    table = world.lake().head(NAME)
    assert table.marker is not None
    assert (table.marker.epoch, table.marker.owner) == (2, "near")
    assert len(world.history(NAME, None)) == 150


def test_a_follower_that_lags_ends_where_history_does(mock_broker: Broker, tmp_path: Path) -> None:
    """Rule 10: E is C where reading is not there yet; what it reads below C is not listed."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    far, follows = beside(world, "far", "follower")
    near, writes = beside(world, "near", "writer")
    log.write(100)
    with running(writes, spec_of()):
        near.wait(NAME, committed("t", *log.ends))
        follows = replace(follows, live=replace(follows.live, max_bytes=1))  # pauses at once
        with running(follows, spec_of()):
            for _ in range(5):
                log.write(100)
                far.wait(NAME, committed("t", *log.ends))
                version = assert_answer(far, log)
                for segment in version.segments:
                    assert any(
                        part.next > version.committed.at((part.topic, part.partition))
                        for part in segment.parts
                    )
    assert len(world.history(NAME, None)) == 600


def test_a_follower_declares_as_its_writer_does(mock_broker: Broker, tmp_path: Path) -> None:
    """Rule 17: the very same columns, so that their tickets mean the same; they may grow."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    venue = {"name": "venue", "type": ["null", "string"], "default": None}
    grown = {**SCHEMA, "fields": [*SCHEMA["fields"], venue]}  # type: ignore[misc] # a list
    (tmp_path / "schemas" / "8.avsc").write_text(json.dumps(grown))
    far, follows = beside(world, "far", "follower")
    near, writes = beside(world, "near", "writer")
    log.write(10)
    with running(writes, spec_of()):
        near.wait(NAME, committed("t", *log.ends))
    with running(follows, replace(spec_of(), schema_id=8)):
        first = far.wait(NAME, lambda m: m.epoch == 1)
        assert "venue" not in first.arrow_schema.names
        with running(beside(world, "near", "writer")[1], replace(spec_of(), schema_id=8)):
            log.write(10)
            near.wait(NAME, committed("t", *log.ends))
            far.wait(NAME, lambda m: "venue" in m.arrow_schema.names)
            far.wait(NAME, committed("t", *log.ends))
            here, there = assert_answer(far, log), assert_answer(near, log)
            assert here.arrow_schema.equals(there.arrow_schema, check_metadata=True)


# --- taking over --------------------------------------------------------------------------------


def test_silence_counts_only_while_it_is_watched() -> None:
    """Liveness: no beat proves death by itself, and a broker that is away hides the living."""
    watch = Watch(epoch=2, after_s=3.0)
    beats = [Beat(2, "w", n) for n in range(9)]
    assert not watch.read(beats[0], 0.0)
    assert not watch.read(beats[1], 2.0)  # it lives
    assert not watch.read(beats[1], 4.0)
    assert watch.read(beats[1], 5.0)  # three seconds without a new one

    watch = Watch(epoch=2, after_s=3.0)
    assert not watch.read(None, 0.0)
    assert not watch.read(None, 2.0)
    watch.unread()
    assert not watch.read(None, 4.0)
    assert not watch.read(None, 6.0)
    assert watch.read(None, 7.0)

    watch = Watch(epoch=2, after_s=3.0)
    assert not watch.read(beats[0], 0.0)
    assert not watch.read(beats[0], 60.0), "the watcher itself was suspended"
    assert watch.read(beats[0], 62.9) is False
    assert watch.read(beats[0], 63.0)


def test_a_ghosts_beats_prove_no_life_and_a_farewell_needs_no_silence() -> None:
    watch = Watch(epoch=2, after_s=3.0)
    assert not watch.read(Beat(1, "ghost", 1), 0.0)
    assert not watch.read(Beat(1, "ghost", 2), 2.0)
    assert watch.read(Beat(1, "ghost", 3), 3.0)
    assert not Watch(2, 3.0).read(Beat(1, "ghost", None), 0.0)
    assert Watch(2, 3.0).read(Beat(2, "w", None), 0.0)


@pytest.mark.parametrize("text", [None, "", "x", "1 w", "1 w x", "x w 1", "1 w 1 1", "\0"])
def test_what_is_no_beat_is_no_sign_of_life(text: str | None) -> None:
    assert Beat.from_text(text) is None


def test_beats_travel_through_the_broker(mock_broker: Broker, tmp_path: Path) -> None:
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    near, writes = beside(world, "near", "writer")
    with running(writes, spec_of()):
        near.wait(NAME, lambda _: True)
    pulse = Pulse(world.kafka, NAME, world.lake().head(NAME))
    farewell = pulse.read()
    assert farewell is not None
    assert (farewell.epoch, farewell.count) == (1, None)
    pulse.beat(Beat(5, "w", 7))
    assert pulse.read() == Beat(5, "w", 7)
    gone = Pulse({"bootstrap.servers": "127.0.0.1:9"}, NAME, world.lake().head(NAME))
    with pytest.raises(BrokerUnavailable, match=r"consumer group k2\.writer\.market_data"):
        gone.read()
    del log


def test_a_standby_takes_over_at_once_from_a_writer_that_ends_in_order(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 5: one epoch more, no row read again, and the rows go on."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    one, first = beside(world, "one", "standby")
    two, second = beside(world, "two", "standby")
    second = replace(second, live=replace(second.live, take_over_after_s=3600))
    log.write(100)
    with running(first, spec_of(flush_age_s=3600)) as owner:  # nobody owns it: it does
        before = one.wait(NAME, lambda m: m.role == "writer" and reached("t", *log.ends)(m))
        with running(second, spec_of()):
            tail = two.wait(NAME, reached("t", *log.ends))
            assert (before.epoch, tail.role) == (1, "follower")
            owner.end()
            flushed = two.wait(NAME, committed("t", *log.ends))
            assert (flushed.role, flushed.owner, flushed.epoch) == ("writer", "two", 2)
            log.write(10)
            two.wait(NAME, committed("t", *log.ends))
            assert_answer(two, log)
    assert len(world.history(NAME, None)) == 110


def test_a_fenced_standby_follows_without_reading_again(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 5: it lost the table, not its tail; its live folder goes on from where it was."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    one, first = beside(world, "one", "standby")
    two, second = beside(world, "two", "writer")
    log.write(100)
    with running(first, spec_of(flush_age_s=3600)) as it:
        before = one.wait(NAME, lambda m: m.role == "writer" and reached("t", *log.ends)(m))
        with running(second, spec_of(flush_age_s=3600)):  # a writer claims whoever had it
            fenced = one.wait(NAME, lambda m: m.role == "follower")
            assert (fenced.owner, fenced.epoch) == ("two", 2)
            assert {one.file for one in before.segments} <= {one.file for one in fenced.segments}
            log.write(10)
            one.wait(NAME, reached("t", *log.ends))
            assert_answer(one, log)
            two.wait(NAME, reached("t", *log.ends))
        after = one.wait(NAME, lambda m: m.role == "writer")  # it said farewell
        assert (after.owner, after.epoch) == ("one", 3)
        assert after.high.covers(before.high)
        assert_answer(one, log)
    assert not it.errors


@pytest.mark.broker
def test_killed_or_paused_writers_are_replaced_and_ghosts_follow(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rule 5: kill -9, a race of two standbys, SIGSTOP and SIGCONT; every record once.

    One of the two wins and the other goes on following; the ghost finds itself fenced.
    """
    log, world = Log(kafka, kafka.create_topic(2)), World.make(tmp_path, kafka.properties)
    one, two, three = (Node(world, log, name, "standby") for name in ("one", "two", "three"))
    with one.running():
        log.write(100)
        one.wait(lambda m: m.role == "writer")
        with two.running(), three.running():
            for node in (two, three):
                node.wait(lambda m: m.role == "follower" and reached(log.topic, *log.ends)(m))
            log.write(100)
            one.kill()
            log.write(100)
            winner, other = _winner(two, three)
            for node in (winner, other):
                assert node.wait_for_all().epoch == 2
                node.assert_exact()
            assert winner.manifest is not None
            assert other.manifest is not None
            assert (winner.manifest.role, other.manifest.role) == ("writer", "follower")
            assert other.manifest.owner.startswith(f"{winner.name}, process {winner.pid}, ")

            log.write(50)
            winner.signal(signal.SIGSTOP)
            log.write(50)
            other.wait(lambda m: m.role == "writer")
            assert other.wait_for_all().epoch == 3
            winner.signal(signal.SIGCONT)
            winner.wait(lambda m: m.role == "follower" and m.epoch == 3)
            log.write(50)
            for node in (winner, other):
                assert node.wait_for_all().state == "running"
                assert len(node.assert_exact()) == 450
    rows = world.history(NAME, None)
    assert len(rows) == len(set(rows)) == 450


def _winner(two: Node, three: Node) -> tuple[Node, Node]:
    limit = time.monotonic() + WAIT_S
    while True:
        for winner, other in ((two, three), (three, two)):
            if winner.manifest is not None and winner.manifest.role == "writer":
                return winner, other
        assert time.monotonic() < limit
        time.sleep(0.05)


class Late(TopicReader):
    """A reader that sees new partitions when it is told to."""

    eyes: threading.Event

    def discover(self, committed: Offsets = _NOTHING) -> tuple[tuple[str, int], ...]:
        """None while its eyes are shut."""
        return super().discover(committed) if self.eyes.is_set() else ()


def late(sources: Sources, world: World) -> tuple[Sources, threading.Event]:
    eyes = threading.Event()

    def reader(spec: TableSpec) -> TopicReader:
        made = Late(world.kafka, spec.topics)
        made.eyes = eyes
        return made

    return replace(sources, reader=reader), eyes


def redeemed(maker: World, taker: World, spec: TableSpec) -> Pin:
    """A ticket of one, answered exactly by the other; what it was answered from."""
    tables = [
        Tables(one.lake(), LiveReader(one.live.folder), [spec], refresh_ms=0)
        for one in (maker, taker)
    ]
    asked = tables[0].pin(NAME)
    version = tables[1].open(asked)
    assert version.pin.high == asked.high
    rows = maker.history(NAME, version.pin.snapshot_id)
    for batch in version.live:
        columns = (batch.column(c).to_pylist() for c in ("_partition", "_offset", "number"))
        rows += zip(*columns, strict=True)
    wanted = {
        (partition, offset) for (_, partition), end in asked.high.items() for offset in range(end)
    }
    assert len(rows) == len(wanted)
    assert {row[:2] for row in rows} == wanted
    return version.pin


@pytest.mark.broker
def test_partitions_that_each_sees_in_an_order_of_its_own_stay_exact(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rules 1, 5 and 17: the follower sees one first, then its writer two; it takes over blind."""
    log, world = real_log(kafka, 1), World.make(tmp_path, kafka.properties)
    near, (first, near_eyes) = (found := beside(world, "near", "standby"))[0], late(found[1], world)
    far, (second, far_eyes) = (found := beside(world, "far", "standby"))[0], late(found[1], world)
    spec = spec_of_log(log, flush_age_s=0.2)
    with running(first, spec) as owner:
        near.wait(NAME, lambda m: m.role == "writer")
        with running(second, spec):
            log.write(20)
            far.wait(NAME, committed(log.topic, *log.ends))

            log.grow(2)  # the follower alone reads the second partition
            log.write(20)
            far_eyes.set()
            far.wait(NAME, reached(log.topic, *log.ends))
            near.wait(NAME, committed(log.topic, log.ends[0]))
            assert (log.topic, 1) not in near.wait(NAME, lambda _: True).high
            assert redeemed(near, far, spec).committed.at((log.topic, 1)) == 0
            with pytest.raises(NotReady, match="behind the ticket"):
                redeemed(far, near, spec)
            far_eyes.clear()

            log.grow(3)  # the writer alone reads the third one, and history has it
            log.write(30)
            near_eyes.set()
            near.wait(NAME, committed(log.topic, *log.ends))
            far.wait(NAME, committed(log.topic, *log.ends))
            assert_answer(far, log)
            redeemed(near, far, spec)
            redeemed(far, near, spec)
            kafka.delete_records(log.topic, {2: log.ends[2]})

            owner.end()
            far.wait(NAME, lambda m: m.role == "writer")
            log.write(30)
            before = far.wait(NAME, committed(log.topic, *log.ends[:2]))
            assert before.high.at((log.topic, 2)) < log.ends[2]
            assert_answer(far, log)
            far_eyes.set()  # it goes on behind what its predecessor committed
            all_in = committed(log.topic, *log.ends)
            last = far.wait(NAME, lambda m: m.state == "stopped" or all_in(m))
            assert (last.epoch, last.error) == (2, None)
            assert_answer(far, log)
    assert len(world.history(NAME, None)) == sum(log.ends)


# --- servers ------------------------------------------------------------------------------------


def _rows(client: flight.FlightClient, ticket: flight.Ticket) -> pa.Table:
    found = read(client.do_get(ticket))
    return found.sort_by([("_partition", "ascending"), ("_offset", "ascending")])


@pytest.mark.broker
def test_two_servers_with_live_folders_of_their_own_redeem_each_others_tickets(
    kafka: Broker, tmp_path: Path
) -> None:
    """Rules 17 and 20: the same rows, while rows come and are flushed; one that is behind waits."""
    log, world = Log(kafka, kafka.create_topic(2)), World.make(tmp_path, kafka.properties)
    near = Node(world, log, "near", "writer", flush_rows=150, flush_age_s=3600)
    far = Node(world, log, "far", "follower")
    with near.running("serve"), far.running("serve"):
        log.write(100)
        for node in (near, far):
            node.wait(reached(log.topic, *log.ends))
        with _client(near) as one, _client(far) as two:
            for number in range(10):
                log.write(37)
                maker, taker = ((one, two), (two, one))[number % 2]
                first, second = _both(maker, taker)
                assert first.num_rows >= 100
                assert first == second

            far.signal(signal.SIGSTOP)
            log.write(30)
            near.wait(reached(log.topic, *log.ends))
            ticket = one.get_flight_info(descriptor(ALL)).endpoints[0].ticket
            resume = threading.Timer(0.5, lambda: far.signal(signal.SIGCONT))
            resume.start()
            assert _rows(two, ticket).num_rows == 500
            resume.join()

            far.signal(signal.SIGSTOP)
            log.write(30)
            near.wait(reached(log.topic, *log.ends))
            ticket = one.get_flight_info(descriptor(ALL)).endpoints[0].ticket
            with pytest.raises(flight.FlightUnavailableError, match="behind the ticket"):
                two.do_get(ticket).read_all()
            far.signal(signal.SIGCONT)


def _client(node: Node) -> flight.FlightClient:
    limit = time.monotonic() + WAIT_S
    while True:
        client = flight.connect(node.layout.uri)
        try:
            client.wait_for_available(timeout=1)
        except flight.FlightUnavailableError:
            assert time.monotonic() < limit
        else:
            return client


def _both(maker: flight.FlightClient, taker: flight.FlightClient) -> tuple[pa.Table, pa.Table]:
    """The rows of one ticket at both servers; planned again where the answer says so."""
    limit = time.monotonic() + WAIT_S
    while True:
        ticket = maker.get_flight_info(descriptor(ALL)).endpoints[0].ticket
        try:
            return _rows(maker, ticket), _rows(taker, ticket)
        except flight.FlightUnavailableError as error:
            if "plan the statement again" not in str(error) or time.monotonic() > limit:
                raise
