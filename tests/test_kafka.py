"""The log as the ingest reads it: positions, ranges, gaps, identities (rules 1, 3, 9 and 12)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from support_kafka import Broker

import catalog.kafka
from catalog.errors import BrokerUnavailable, LogEndsEarly, LogGap, SpecRefused
from catalog.kafka import TopicReader
from catalog.offsets import Offsets
from catalog.records import Chunk

WAIT_S = 120.0


def reader(broker: Broker, *topics: str, **options: Any) -> closing[TopicReader]:
    return closing(TopicReader(broker.properties, topics, **options))


def poll_until(
    source: TopicReader, done: Callable[[list[Chunk]], bool], max_rows: int = 1000
) -> list[Chunk]:
    """Chunks until ``done`` says so; the bound is for a broken reader only."""
    chunks: list[Chunk] = []
    limit = time.monotonic() + WAIT_S
    while not done(chunks):
        assert time.monotonic() < limit, f"only {rows_of(chunks)} came"
        chunk = source.poll(max_rows, 0.1)
        if chunk is not None:
            chunks.append(chunk)
    return chunks


def rows_of(chunks: list[Chunk]) -> list[tuple[str, int, int, bytes | None]]:
    return [
        (row["_topic"], row["_partition"], row["_offset"], value)
        for chunk in chunks
        for row, value in zip(chunk.metadata.to_pylist(), chunk.values, strict=True)
    ]


def count(chunks: list[Chunk]) -> int:
    return sum(len(chunk.values) for chunk in chunks)


def assert_contiguous(chunks: list[Chunk], start: Offsets) -> Offsets:
    """Ranges follow each other per partition, and rows lie inside them; returns the end."""
    at = start
    for chunk in chunks:
        assert list(chunk.ranges) == sorted(chunk.ranges)
        for moved in chunk.ranges:
            place = (moved.topic, moved.partition)
            assert moved.first == at.at(place)
            assert moved.next > moved.first
            at = at.with_positions([(place, moved.next)])
    return at


def test_every_record_comes_once_in_order_with_its_metadata(mock_broker: Broker) -> None:
    """Rule 1: rows by (topic, partition, offset), ranges contiguous, over several topics."""
    producer = mock_broker.producer()
    for topic in ("b", "a"):
        producer.list_topics(topic, timeout=WAIT_S)
        for number in range(500):
            producer.produce(topic, b"%d" % number, partition=number % 4, timestamp=1000 + number)
    producer.flush(WAIT_S)
    with reader(mock_broker, "b", "a") as source:
        source.assign(Offsets())
        chunks = poll_until(source, lambda seen: count(seen) >= 1000, max_rows=97)
        assert source.poll(10, 0.2) is None
    for chunk in chunks:
        keys = [(t, p, o) for t, p, o, _ in rows_of([chunk])]
        assert keys == sorted(keys)
        assert len(keys) <= 97
        assert chunk.metadata.column("_kafka_timestamp").cast("int64").to_pylist() == [
            1000 * (1000 + int(value or b"")) for value in chunk.values
        ]
    got = sorted(rows_of(chunks))
    assert got == sorted(
        (topic, n % 4, n // 4, b"%d" % n) for topic in ("a", "b") for n in range(500)
    )
    end = assert_contiguous(chunks, Offsets())
    assert end.same_as(Offsets({(t, p): 125 for t in ("a", "b") for p in range(4)}))
    assert source.positions.same_as(end)


def test_null_values_keys_and_headers_come_as_they_are(mock_broker: Broker) -> None:
    producer = mock_broker.producer()
    producer.produce("t", None, key=b"k", partition=0)
    producer.produce("t", b"", partition=0, headers=[("h", b"1"), ("n", None)])
    producer.flush(WAIT_S)
    with reader(mock_broker, "t", key=True, headers=True) as source:
        source.assign(Offsets())
        chunks = poll_until(source, lambda seen: count(seen) == 2)  # one fetch or two bring them
    assert [value for chunk in chunks for value in chunk.values] == [None, b""]
    metadata = pa.concat_batches([chunk.metadata for chunk in chunks])
    assert metadata.column("_key").to_pylist() == [b"k", None]
    assert metadata.column("_headers").to_pylist() == [
        None,
        [{"key": "h", "value": b"1"}, {"key": "n", "value": None}],
    ]


def test_a_position_inside_the_log_is_where_reading_starts(mock_broker: Broker) -> None:
    producer = mock_broker.producer()
    for number in range(10):
        producer.produce("t", b"%d" % number, partition=0)
    producer.flush(WAIT_S)
    with reader(mock_broker, "t") as source:
        source.assign(Offsets({("t", 0): 7}))
        chunks = poll_until(source, lambda seen: count(seen) == 3)
        assert source.watermarks.at(("t", 0)) == 10
    assert [o for _, _, o, _ in rows_of(chunks)] == [7, 8, 9]
    assert chunks[0].ranges[0].first == 7


def test_a_position_beyond_the_log_ends_early(mock_broker: Broker) -> None:
    """Rule 12: the log ends below what is recorded."""
    mock_broker.producer().list_topics("t", timeout=WAIT_S)
    with reader(mock_broker, "t") as source:
        with pytest.raises(LogEndsEarly, match=r"t\[0\] ends at offset 0, below position 5"):
            source.assign(Offsets({("t", 0): 5}))
        with pytest.raises(LogEndsEarly, match=r"t\[99\] does not exist"):
            source.assign(Offsets({("t", 99): 5}))
        source.assign(Offsets({("gone", 0): 5}))  # a topic that the table no longer reads


def test_nothing_is_lost_or_doubled_around_pauses(mock_broker: Broker) -> None:
    """Rule 14: at the bound the consumer pauses and nothing is dropped."""
    producer = mock_broker.producer()
    for number in range(3000):
        producer.produce("t", b"%d" % number, partition=0)
    producer.flush(WAIT_S)
    chunks: list[Chunk] = []
    with reader(mock_broker, "t") as source:
        source.assign(Offsets())
        while count(chunks) < 3000:
            chunks += poll_until(source, lambda seen: count(seen) > 0, max_rows=300)
            source.pause()
            while (late := source.poll(300, 0.05)) is not None:
                chunks.append(late)
            source.resume()
    assert [int(v or b"") for *_, v in rows_of(chunks)] == list(range(3000))
    assert_contiguous(chunks, Offsets())


def test_a_chunk_is_bounded_by_bytes_at_any_size_of_records(
    mock_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 14: rows alone bound nothing where records are large; small ones come many at a time."""
    monkeypatch.setattr(catalog.kafka, "CHUNK_BYTES", 100_000)
    values = [bytes(20_000)] * 150 + [b"x"] * 2000
    mock_broker.produce("t", values, partition=0)
    with reader(mock_broker, "t") as source:
        source.assign(Offsets())
        time.sleep(0.5)  # the client's queue fills, or every chunk would be small anyway
        chunks = poll_until(source, lambda seen: count(seen) == len(values), max_rows=50_000)
    sizes = [sum(len(value or b"") for value in chunk.values) for chunk in chunks]
    assert max(sizes) <= 2 * 100_000  # the bound, and one drain
    assert max(len(chunk.values) for chunk in chunks) > 100
    assert [value for *_, value in rows_of(chunks)] == values
    assert_contiguous(chunks, Offsets())


def test_rows_that_were_taken_when_a_request_failed_come_with_the_next_poll(
    mock_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 1: the client's position is past them, so dropping them would be a loss unseen."""
    producer = mock_broker.producer()
    for number in range(10):
        producer.produce("t", b"%d" % number, partition=0)
    producer.flush(WAIT_S)
    with reader(mock_broker, "t") as source:
        source.assign(Offsets())
        asked = source._moved

        def fail_once() -> object:
            if source._taken:
                monkeypatch.setattr(source, "_moved", asked)
                raise BrokerUnavailable("no answer")
            return asked()

        monkeypatch.setattr(source, "_moved", fail_once)
        with pytest.raises(BrokerUnavailable):
            poll_until(source, lambda seen: count(seen) > 0)
        chunks = poll_until(source, lambda seen: count(seen) >= 10)
    assert [value for _, _, _, value in rows_of(chunks)] == [b"%d" % n for n in range(10)]
    assert assert_contiguous(chunks, Offsets()).same_as(Offsets({("t", 0): 10}))


def test_an_unreachable_broker_is_named_within_ten_seconds() -> None:
    """The message says where and what to do, and holds no secret."""
    properties = {"bootstrap.servers": "127.0.0.1:9", "sasl.password": "hidden"}
    began = time.monotonic()
    with (
        closing(TopicReader(properties, ["t"])) as source,
        pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9 .*bootstrap") as caught,
    ):
        source.identities()
    assert time.monotonic() - began < 10.0  # the promise itself
    assert "hidden" not in str(caught.value)


def test_a_property_that_the_client_refuses_is_named() -> None:
    with pytest.raises(SpecRefused, match=r"no\.such\.property"):
        TopicReader({"bootstrap.servers": "x", "no.such.property": "1"}, ["t"])


def test_what_exactness_rests_on_cannot_be_configured(mock_broker: Broker) -> None:
    """Rule 1: no setting may move positions or show uncommitted records."""
    properties = {**mock_broker.properties, "auto.offset.reset": "latest", "debug": "conf"}
    mock_broker.produce("t", [b"0", b"1"], partition=0)
    with closing(TopicReader(properties, ["t"])) as source:
        source.assign(Offsets())
        assert count(poll_until(source, lambda seen: count(seen) == 2)) == 2


def transaction(broker: Broker, topic: str, *values: bytes, commit: bool) -> None:
    producer = broker.producer(transactional_id=f"tx-{topic}")
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.flush(WAIT_S)
    if commit:
        producer.commit_transaction(WAIT_S)
    else:
        producer.abort_transaction(WAIT_S)


@pytest.mark.broker
def test_positions_pass_control_records_and_aborted_transactions(kafka: Broker) -> None:
    """Rules 1 and 3: rows at 0, 1 and 7; the position is 9; an aborted tail is progress too."""
    topic = kafka.create_topic()
    transaction(kafka, topic, b"a", b"b", commit=True)
    transaction(kafka, topic, b"x", b"y", b"z", commit=False)
    transaction(kafka, topic, b"c", commit=True)
    with reader(kafka, topic) as source:
        source.assign(Offsets())
        chunks = poll_until(source, lambda _: source.positions.at((topic, 0)) == 9)
        assert [(o, v) for _, _, o, v in rows_of(chunks)] == [(0, b"a"), (1, b"b"), (7, b"c")]
        transaction(kafka, topic, b"x", commit=False)
        tail = poll_until(source, lambda _: source.positions.at((topic, 0)) == 11)
        assert not rows_of(tail)
        assert tail
    assert_contiguous([*chunks, *tail], Offsets())
    with reader(kafka, topic) as late:  # from within a purely aborted tail
        late.assign(Offsets({(topic, 0): 9}))
        (only,) = poll_until(late, bool)
        assert (only.ranges[0].first, only.ranges[0].next, len(only.values)) == (9, 11, 0)


@pytest.mark.broker
def test_an_open_transaction_holds_the_end_back(kafka: Broker) -> None:
    """Rule 1: nothing beyond the last stable offset is read, and ``ends`` says the same."""
    topic = kafka.create_topic()
    producer = kafka.producer(transactional_id=f"open-{topic}")
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(WAIT_S)
    kafka.produce(topic, [b"after"], partition=0)
    with reader(kafka, topic) as source:
        assert source.ends().at((topic, 0)) == 0
        source.assign(Offsets())
        assert source.poll(10, 0.5) is None
        producer.commit_transaction(WAIT_S)
        chunks = poll_until(source, lambda seen: count(seen) == 2)
    assert [v for *_, v in rows_of(chunks)] == [b"open", b"after"]


@pytest.mark.broker
def test_identities_name_cluster_and_topic_id(kafka: Broker) -> None:
    """Rule 9: a topic created again under its name is another topic."""
    topic = kafka.create_topic()
    with reader(kafka, topic) as source:
        (before,) = source.identities()
        assert before.topic == topic
        assert before.cluster_id
        assert before.topic_id
        assert source.identities() == (before,)
        kafka.delete_topic(topic)
        kafka.create_topic(name=topic)
        (after,) = source.identities()
    assert after.cluster_id == before.cluster_id
    assert after.topic_id != before.topic_id


@pytest.mark.broker
def test_a_topic_recreated_while_reading_is_noticed_before_its_records(kafka: Broker) -> None:
    """Rule 9: the client goes on silently, but ``changes`` moves before the new records come."""
    topic = kafka.create_topic()
    kafka.produce(topic, [b"old"] * 3, partition=0)
    with reader(kafka, topic) as source:
        source.assign(Offsets())
        poll_until(source, lambda seen: count(seen) == 3)
        before = source.changes
        kafka.delete_topic(topic)
        kafka.create_topic(name=topic)
        kafka.produce(topic, [b"new"] * 10, partition=0)
        seen = poll_until(source, lambda seen: count(seen) > 0)
        assert rows_of(seen)[0][2:] == (3, b"new")  # what goes wrong without rule 9
        assert source.changes > before


@pytest.mark.broker
def test_a_topic_that_does_not_exist_is_refused(kafka: Broker) -> None:
    with (
        reader(kafka, "no.such.topic") as source,
        pytest.raises(SpecRefused, match=r"no\.such\.topic does not exist: create it"),
    ):
        source.identities()


@pytest.mark.broker
def test_partitions_added_while_reading_start_at_zero(kafka: Broker) -> None:
    """Rule 1: what was written to a new partition before it was noticed is read too."""
    topic = kafka.create_topic()
    kafka.produce(topic, [b"0"], partition=0)
    with reader(kafka, topic) as source:
        source.assign(Offsets())
        chunks = poll_until(source, lambda seen: count(seen) == 1)
        kafka.add_partitions(topic, 3)
        kafka.produce(topic, [b"1a", b"1b"], partition=1)
        assert source.discover() == ((topic, 1), (topic, 2))
        assert source.discover() == ()
        kafka.produce(topic, [b"0b"], partition=0)
        chunks += poll_until(source, lambda seen: count(seen) == 3)
        assert source.positions.same_as(Offsets({(topic, 0): 2, (topic, 1): 2}))
    assert_contiguous(chunks, Offsets())


@pytest.mark.broker
def test_a_new_partition_without_its_beginning_is_a_gap(kafka: Broker) -> None:
    """Rule 1: a partition that was never read starts at 0 or not at all."""
    topic = kafka.create_topic()
    with reader(kafka, topic) as source:
        source.assign(Offsets())
        kafka.add_partitions(topic, 2)
        kafka.produce(topic, [b"a", b"b"], partition=1)
        kafka.delete_records(topic, {1: 1})
        with pytest.raises(LogGap, match=r"\[1\] holds nothing below offset 1"):
            source.discover()


@pytest.mark.broker
def test_records_deleted_past_the_position_are_a_gap(kafka: Broker) -> None:
    """Rule 1: never jump over records that were deleted unread, neither at start nor later."""
    topic = kafka.create_topic()
    kafka.produce(topic, [b"v"] * 10, partition=0)
    with reader(kafka, topic) as source:
        source.assign(Offsets({(topic, 0): 2}))
        source.pause()
        kafka.delete_records(topic, {0: 6})
        assert source.beginnings().at((topic, 0)) == 6
        source.resume()
        with pytest.raises(LogGap, match=r"\[0\] holds nothing below offset 6, but position 2"):
            poll_until(source, lambda seen: count(seen) == 10)
        with pytest.raises(LogGap, match="retention"):
            source.assign(Offsets({(topic, 0): 2}))


class Unsure(TopicReader):
    """A reader whose broker does not say at once where a log begins."""

    silent = 0

    def _bounds_of(self, place: tuple[str, int]) -> tuple[int, int]:
        if self.silent:
            self.silent -= 1
            raise BrokerUnavailable("no answer")
        return super()._bounds_of(place)


@pytest.mark.broker
def test_a_gap_is_not_forgotten_while_the_broker_is_silent(kafka: Broker) -> None:
    """The client says it once and fetches the partition no more."""
    topic = kafka.create_topic()
    kafka.produce(topic, [b"v"] * 10, partition=0)
    with closing(Unsure(kafka.properties, [topic])) as source:
        source.assign(Offsets({(topic, 0): 2}))
        source.pause()
        kafka.delete_records(topic, {0: 6})
        source.silent = 2
        source.resume()
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                poll_until(source, lambda seen: count(seen) == 10)
        with pytest.raises(LogGap, match="but position 2 is next"):
            poll_until(source, lambda seen: count(seen) == 10)


@pytest.mark.broker
def test_the_monitor_group_is_written_and_never_read(kafka: Broker) -> None:
    """Positions for lag tools: committed, and of no effect on where reading starts."""
    topic = kafka.create_topic()
    kafka.produce(topic, [b"v"] * 5, partition=0)
    group = f"monitor-{topic}"
    with reader(kafka, topic, monitor_group=group) as source:
        source.assign(Offsets())
        poll_until(source, lambda seen: count(seen) == 5)
        source.commit_monitor(source.positions)
        limit = time.monotonic() + WAIT_S
        while _committed(kafka, group, topic) != 5:
            assert time.monotonic() < limit
            source.poll(1, 0.1)
    with reader(kafka, topic, monitor_group=group) as again:
        again.assign(Offsets())
        assert count(poll_until(again, lambda seen: count(seen) == 5)) == 5


def _committed(broker: Broker, group: str, topic: str) -> int:
    wish = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
    (found,) = broker.admin.list_consumer_group_offsets([wish]).values()
    return int(found.result(WAIT_S).topic_partitions[0].offset)
