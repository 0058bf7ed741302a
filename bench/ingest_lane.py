"""Ingest: records/s from the broker into live table and Iceberg, beside a bare consume loop."""

from __future__ import annotations

import io
import time

import fastavro
import pyarrow as pa
from chaos.market import _PARSED
from chaos.site import Layout, lay_out
from confluent_kafka import Consumer, TopicPartition
from support_site import connect as connected
from support_site import logs

from bench.crowd import CLIENTS, crowd
from bench.figures import Figure, at_least
from bench.stage import PARTITIONS, Stage, fill, manifest, running, say, set_keys, wait_for
from bench.turns import Turns

ROWS = 2_000_000
#: Flushes of the whole; and how long the last rows, too few for a flush, wait for theirs.
FLUSHES, FLUSH_AGE_S = 8, 0.5
#: Enough for a steady rate of the slow way, which makes some 30,000 rows/s.
SLOW_ROWS = 100_000
SLOW_WAY = "consume + fastavro + `from_pylist`"
TURNS = 3


def lane(stage: Stage) -> list[Figure]:
    """Ingest rate against the bare loop and against fastavro with from_pylist."""
    rows = stage.scaled(ROWS)
    topic = stage.broker.create_topic(PARTITIONS)
    say(f"ingest: writing {rows:,} trades")
    fill(stage.broker, topic, rows)
    taken: dict[str, list[float]] = {"bare": [], "slow": [], "live": [], "both": []}
    for turn in range(stage.turns(TURNS)):
        say(f"ingest: turn {turn + 1}")
        taken["bare"].append(rows / bare_loop(stage, topic, rows))
        taken["slow"].append(rows / slow_way(stage, topic, stage.scaled(SLOW_ROWS)))
        live_s, both_s = _ingested(stage, topic, rows, f"ingest{turn}")
        taken["live"].append(live_s)
        taken["both"].append(both_s)
    times = Turns(taken)
    whole, bare, slow = "ingest, broker → live and Iceberg", "bare `consume` loop", SLOW_WAY
    crowded = Figure(
        f"{whole}, while {CLIENTS} clients query",
        *(_crowded(stage, rows), "rows/s", "nobody queries", rows / times["both"]),
    )
    return [
        at_least(times.rate(whole, rows, "both", bare, "bare"), 0.55),
        at_least(times.rate(whole, rows, "both", slow, "slow"), 10),
        at_least(times.rate("ingest, broker → live", rows, "live", bare, "bare"), 0.55),
        crowded,
    ]


def _ingested(stage: Stage, topic: str, rows: int, name: str) -> tuple[float, float]:
    """Seconds until all rows of the topic are visible, and until they are committed, too."""
    folder = stage.folder / name
    layout = lay_out(folder, stage.broker.bootstrap, topic, rows // FLUSHES)
    set_keys(layout, flush_age_s=FLUSH_AGE_S)
    with running(layout, "ingest"):
        began = first_publication(layout)
        visible = wait_for(layout, visible=rows)
        return visible - began, wait_for(layout, committed=rows) - began


def _crowded(stage: Stage, rows: int) -> float:
    """rows/s until all are visible and committed, while clients query the table."""
    layout = stage.site("crowded", flush_rows=rows // FLUSHES)
    set_keys(layout, flush_age_s=FLUSH_AGE_S)
    few = rows // 20
    fill(stage.broker, layout.topic, few)
    say(f"ingest: {rows:,} more trades while {CLIENTS} clients query")
    with running(layout, "serve", "--no-ingest"), connected(layout):
        with running(layout, "ingest"):
            wait_for(layout, committed=few)
        fill(stage.broker, layout.topic, rows)
        with crowd(layout.uri), running(layout, "ingest"):
            began = wait_for(layout, visible=few + 1)
            return rows / (wait_for(layout, committed=few + rows) - began)


def first_publication(layout: Layout) -> float:
    """The moment the ingest begins to read: its start-up is no part of its rate."""
    limit = time.perf_counter() + 60
    while manifest(layout) is None:
        if time.perf_counter() > limit:
            raise TimeoutError(f"the ingest published nothing: {logs(layout)}")
        time.sleep(0.001)
    return time.perf_counter()


def consumer_at_start(stage: Stage, topic: str) -> Consumer:
    """A consumer with the ingest's own settings for throughput."""
    consumer = Consumer(
        {
            **stage.broker.properties,
            "group.id": "bench",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": 4 * 1024 * 1024,
            "queued.max.messages.kbytes": 256 * 1024,
            "queued.min.messages": 500_000,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer


def bare_loop(stage: Stage, topic: str, rows: int) -> float:
    """rows/s of ``consume`` alone."""
    consumer = consumer_at_start(stage, topic)
    first = consumer.poll(30)
    assert first is not None
    seen, began = 1, time.perf_counter()
    while seen < rows:
        seen += len(consumer.consume(10_000, 0.1))
    rate = rows / (time.perf_counter() - began)
    consumer.close()
    return rate


def slow_way(stage: Stage, topic: str, rows: int) -> float:
    """rows/s of what one would write first: decode to dictionaries, then ``from_pylist``."""
    consumer = consumer_at_start(stage, topic)
    seen, began, read = 0, time.perf_counter(), fastavro.schemaless_reader
    while seen < rows:
        messages = consumer.consume(10_000, 0.1)
        decoded = [read(io.BytesIO(message.value()[5:]), _PARSED) for message in messages]
        if decoded:
            pa.RecordBatch.from_pylist(decoded)
        seen += len(messages)
    rate = seen / (time.perf_counter() - began)
    consumer.close()
    return rate
