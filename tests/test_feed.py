"""The synthetic market: bytes as fastavro writes them, seeded, with the traits of an exchange."""

from __future__ import annotations

import io
import itertools
import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import fastavro
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.errors import BrokerUnavailable, RegistryUnavailable
from catalog.registry import open_registry
from flight_server.demo.broker import EmbeddedBroker
from flight_server.demo.encode import (
    encode_decimals,
    encode_longs,
    encode_nullable_longs,
    encode_numbered,
    join,
)
from flight_server.demo.feed import Feed, FeedSpec, publish_schemas
from flight_server.demo.market import SYMBOLS, Market
from flight_server.demo.schemas import Kind, schema_text

START_US = 1_760_000_000_000_000
KINDS: tuple[Kind, ...] = ("trades", "quotes")
PATIENCE_S = 60.0
LONGS = st.integers(-(2**63), 2**63 - 1)


def parsed(kind: Kind) -> object:
    return fastavro.parse_schema(json.loads(schema_text(kind)))


def records(kind: Kind, values: list[bytes]) -> list[dict[str, object]]:
    schema = parsed(kind)
    rows = []
    for value in values:
        body = io.BytesIO(value[5:])
        rows.append(fastavro.schemaless_reader(body, schema))
        assert body.read() == b"", "bytes after the record"
    return rows


def written(schema: object, value: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


@given(st.lists(LONGS, min_size=1, max_size=20))
def test_longs_are_encoded_as_fastavro_does(values: list[int]) -> None:
    assert join([encode_longs(np.array(values, dtype=np.int64))]) == [
        written("long", value) for value in values
    ]


@given(st.lists(LONGS, min_size=1, max_size=20), st.data())
def test_nullable_longs_are_encoded_as_fastavro_does(
    values: list[int], data: st.DataObject
) -> None:
    size = len(values)
    present = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    cells = encode_nullable_longs(np.array(values, dtype=np.int64), np.array(present))
    assert join([cells]) == [
        written(["null", "long"], value if there else None)
        for value, there in zip(values, present, strict=True)
    ]


@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1), min_size=1, max_size=20))
@example([0, -1, 127, 128, -128, -129, 32767, 32768, 10**18 - 1, -(10**18) + 1])
def test_decimals_are_the_shortest_that_fastavro_reads_back(values: list[int]) -> None:
    schema = fastavro.parse_schema(
        {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}
    )
    encoded = join([encode_decimals(np.array(values, dtype=np.int64))])
    for octets, value in zip(encoded, values, strict=True):
        assert fastavro.schemaless_reader(io.BytesIO(octets), schema) == Decimal(value).scaleb(-8)
        assert len(octets) == 1 + (value if value >= 0 else ~value).bit_length() // 8 + 1


def test_numbered_texts_keep_their_zeros() -> None:
    (octets,) = join([encode_numbered("x-", np.array([42], dtype=np.int64), 5)])
    assert octets == written("string", "x-00042")


@pytest.mark.parametrize("kind", KINDS)
def test_messages_are_byte_for_byte_what_fastavro_writes(kind: Kind) -> None:
    messages = Market(7, START_US).messages(kind, 3000, 1.0, 258)
    rows = records(kind, messages.values)
    schema = parsed(kind)
    for value, row, key in zip(messages.values, rows, messages.keys, strict=True):
        assert value == b"\x00\x00\x00\x01\x02" + written(schema, row)
        assert row["symbol"] == key.decode()


def test_the_seed_decides_every_byte() -> None:
    first, again, other = (Market(seed, START_US) for seed in (3, 3, 4))
    for kind in KINDS:
        expected = first.messages(kind, 500, 0.1, 1)
        assert again.messages(kind, 500, 0.1, 1) == expected
        assert other.messages(kind, 500, 0.1, 1).values != expected.values


def test_trades_have_the_traits_of_an_exchange_feed() -> None:
    rows = records("trades", Market(11, START_US).messages("trades", 20_000, 10.0, 1).values)
    assert {row["symbol"] for row in rows} == set(SYMBOLS)
    assert len(SYMBOLS) == 50
    times = [row["timestamp"] for row in rows]
    earliest = min(times[:100])
    assert sum(b < a for a, b in itertools.pairwise(times)) > 100, "out of order"
    assert sum((max(times[:n]) - times[n]).total_seconds() > 10 for n in range(1, 20_000, 40)), (
        "some are late by many seconds"
    )
    assert max(times) > earliest
    by_symbol: dict[str, list[Decimal]] = {}
    for row in rows:
        by_symbol.setdefault(str(row["symbol"]), []).append(row["price"])
    prices = max(by_symbol.values(), key=len)
    moves = [abs(b - a) for a, b in itertools.pairwise(prices)]
    assert 0.3 < sum(move == 0 for move in moves) / len(moves) < 0.7, "repeated prices"
    assert max(moves) <= Decimal("0.03")
    assert min(min(each) for each in by_symbol.values()) > 0
    assert len({row["message_id"] for row in rows}) == len(rows)


def test_the_walk_goes_on_from_call_to_call() -> None:
    market = Market(5, START_US)
    last: dict[object, Decimal] = {}
    for _ in range(20):
        for row in records("trades", market.messages("trades", 200, 0.1, 1).values):
            before = last.get(row["symbol"])
            assert before is None or abs(row["price"] - before) <= Decimal("0.03")
            last[row["symbol"]] = row["price"]


def test_quotes_are_sometimes_locked_crossed_or_one_sided() -> None:
    rows = records("quotes", Market(13, START_US).messages("quotes", 20_000, 10.0, 1).values)
    spreads = Counter(int((row["ask_price"] - row["bid_price"]).scaleb(2)) for row in rows)
    assert 0 < spreads[0] < 600, "locked"
    assert 0 < spreads[-1] < 300, "crossed"
    sizes = [(row["bid_quantity"], row["ask_quantity"]) for row in rows]
    assert 0 < sum(bid == 0 for bid, _ in sizes) < 600
    assert 0 < sum(ask == 0 for _, ask in sizes) < 600


def test_bursts_average_to_the_rate() -> None:
    market = Market(17, START_US)
    bursts = [market.burst() for _ in range(5000)]
    assert math.isclose(sum(bursts) / len(bursts), 1.0, rel_tol=0.1)
    assert max(bursts) > 3 * min(bursts)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def feed_spec(broker: EmbeddedBroker, run: str, **changes: object) -> FeedSpec:
    spec = FeedSpec(
        properties={"bootstrap.servers": broker.bootstrap},
        topics={"trades": f"t-{run}", "quotes": f"q-{run}"},
        schema_ids={"trades": 1, "quotes": 2},
        start_us=START_US,
    )
    return FeedSpec(**{**{name: getattr(spec, name) for name in FeedSpec.__slots__}, **changes})


def consumed(broker: EmbeddedBroker, topic: str, delivered: dict[int, int]) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "t", "log_level": 3})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in delivered])
        wanted = sum(delivered.values())
        batch = consumer.consume(wanted, PATIENCE_S)
        assert len(batch) == wanted, "the broker has less than it acknowledged"
        return [message.value() for message in batch]
    finally:
        consumer.close()


def test_what_the_feed_counts_is_what_the_broker_holds(broker: EmbeddedBroker) -> None:
    feed = Feed(feed_spec(broker, "a", rate=0, count=10_001))
    try:
        feed.connect()
        report = feed.run(threading.Event())
    finally:
        feed.close()
    assert (report.sent, report.failed) == (10_001, 0)
    for kind, topic, expected in (("trades", "t-a", 5000), ("quotes", "q-a", 5001)):
        parts = {p: n for (name, p), n in report.delivered.items() if name == topic}
        assert sum(parts.values()) == expected
        assert len(parts) > 1, "the keys spread over the partitions"
        rows = records(kind, consumed(broker, topic, parts))
        assert len({row["message_id"] for row in rows}) == expected


def test_the_feed_stops_when_asked_and_reports_what_was_acknowledged(
    broker: EmbeddedBroker,
) -> None:
    stop = threading.Event()
    feed = Feed(feed_spec(broker, "b", rate=2000))
    try:
        report = feed.run(stop, lambda seen: stop.set() if seen.sent > 500 else None)
    finally:
        feed.close()
    assert report.failed == 0
    assert sum(report.delivered.values()) == report.sent > 500


def test_a_report_is_one_json_object(broker: EmbeddedBroker) -> None:
    feed = Feed(feed_spec(broker, "c", rate=0, count=100))
    try:
        report = feed.run(threading.Event())
    finally:
        feed.close()
    shown = json.loads(json.dumps(report.to_json(done=True)))
    assert shown["done"] is True
    assert sum(sum(parts.values()) for parts in shown["delivered"].values()) == 100


def test_an_unreachable_broker_is_named() -> None:
    spec = FeedSpec({"bootstrap.servers": "127.0.0.1:1"}, {"trades": "t"}, {"trades": 1})
    feed = Feed(spec)
    try:
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 .*--bootstrap"):
            feed.connect()
    finally:
        feed.close()


def test_schemas_go_to_a_folder_that_the_registry_reads(tmp_path: Path) -> None:
    url = f"file:{tmp_path / 'schemas'}"
    assert publish_schemas(url, {"trades": "t1", "quotes": "q1"}) == {"trades": 1, "quotes": 2}
    assert publish_schemas(url, {"trades": "t2"}) == {"trades": 1}
    registry = open_registry(url, {})
    for subject, schema_id in (("t1-value", 1), ("q1-value", 2), ("t2-value", 1)):
        assert registry.latest(subject).schema_id == schema_id


def test_an_unreachable_registry_is_a_typed_error() -> None:
    with pytest.raises(RegistryUnavailable, match="--registry"):
        publish_schemas("http://127.0.0.1:1", {"trades": "t"})
