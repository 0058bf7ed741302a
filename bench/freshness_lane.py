"""Freshness: how old a record is when SQL shows it, at a steady 50,000 messages/s.

The clock is the record's own Kafka timestamp (set by the producer, in milliseconds). A reader asks
through ADBC without a pause. Two figures come of it: the *age* of the newest row of an answer when
the answer is complete; and *seen*, the time from a record's production to the end of the first
answer that holds it, over all records, the reader's own period included.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import random
import time
from datetime import UTC, datetime

from confluent_kafka import Producer
from support_site import connect as connected

from bench.crowd import CLIENTS, crowd
from bench.figures import Figure, below
from bench.ingest_lane import consumer_at_start
from bench.stage import (
    PARTITIONS,
    PATIENCE_S,
    POOL,
    SEED,
    Stage,
    quantile,
    records,
    running,
    say,
    wait_for,
)

RATE = 50_000
SECONDS = 20
#: Ages without which there is no figure.
LEAST = 2
#: Past the broker's compilations, the first flushes, caches and tiers.
WARM_S = 15
#: The producer sends every so many seconds what is due.
TICK_S = 0.001
#: What a follower of the tail asks: what is there since the newest that it has seen.
_NEWEST = (
    "select max(_kafka_timestamp) as newest from market_data.trades"
    " where _kafka_timestamp >= timestamp '{:%Y-%m-%d %H:%M:%S.%f}'"
)


def lane(stage: Stage) -> list[Figure]:
    """Age and seen through SQL, beside a bare consumer's."""
    layout = stage.site("freshness", flush_rows=500_000)
    seconds = stage.seconds(SECONDS)
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    with running(layout, "serve"), connected(layout) as connection:
        wait_for(layout)
        feed = spawn.Process(
            target=steady, args=(stage.broker.bootstrap, layout.topic, stop), daemon=True
        )
        feed.start()
        try:
            time.sleep(stage.seconds(WARM_S))
            say("freshness: asking")
            with connection.cursor() as cursor:
                ages, seen, asked = _ask(cursor, seconds)
            say("freshness: asking while others do")
            with crowd(layout.uri), connection.cursor() as cursor:
                crowded, _, _ = _ask(cursor, seconds)
            say("freshness: bare consumer")
            bare = _bare(stage, layout.topic, max(seconds / 3, 1.0))
        finally:
            stop.set()
            feed.join(30)
    detail = {"answers": float(asked), "rate": float(RATE)}
    yardstick = "bare consumer"
    return [
        below(
            Figure(
                "freshness p50 (age of the newest row)",
                *(quantile(ages, 0.5), "ms", yardstick, quantile(bare, 0.5)),
                detail=detail,
            ),
            10,
        ),
        below(
            Figure(
                "freshness p99 (age of the newest row)",
                *(quantile(ages, 0.99), "ms", yardstick, quantile(bare, 0.99)),
            ),
            50,
        ),
        *(
            Figure(
                f"freshness {name} (age of the newest row), while {CLIENTS} clients query",
                *(quantile(crowded, share), "ms", "alone", quantile(ages, share)),
            )
            for name, share in (("p50", 0.5), ("p99", 0.99))
        ),
        Figure("freshness p50 (production → end of first answer)", quantile(seen, 0.5), "ms"),
        Figure("freshness p99 (production → end of first answer)", quantile(seen, 0.99), "ms"),
    ]


def steady(bootstrap: str, topic: str, stop: multiprocessing.synchronize.Event) -> None:
    """Sends at the rate until it is told to stop (the body of a process)."""
    values = records(SEED + 1)
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 0, "queue.buffering.max.messages": 500_000}
    )
    began, sent = time.perf_counter(), 0
    while not stop.is_set():
        due = int((time.perf_counter() - began) * RATE)
        for number in range(sent, due):
            producer.produce(topic, values[number % POOL], partition=number // 50 % PARTITIONS)
        sent = due
        producer.poll(0)
        time.sleep(TICK_S)
    producer.flush(30)


def _goes_on(limit: float, ages: list[float]) -> bool:
    """Until the time is up and something was seen at all: the feed needs a moment to start."""
    now = time.perf_counter()
    return now < limit or (len(ages) < LEAST and now < limit + PATIENCE_S)


def _ask(cursor: object, seconds: float) -> tuple[list[float], list[float], int]:
    chance = random.Random(1)
    ages: list[float] = []
    seen: list[float] = []
    before, newest = None, datetime.fromtimestamp(0, UTC)
    limit = time.perf_counter() + seconds
    while _goes_on(limit, ages):
        cursor.execute(_NEWEST.format(newest))  # type: ignore[attr-defined]
        (found,) = cursor.fetchone()  # type: ignore[attr-defined]
        now = time.time() * 1000
        newest = found or newest
        stamp = newest.timestamp() * 1000
        if before is not None and stamp > before:
            ages.append(now - stamp)
            # records of the interval are evenly spread: draw as many as are due per ms
            draws = max(1, int(stamp - before))
            seen += [now - chance.uniform(before, stamp) for _ in range(draws)]
        before = stamp
    return ages, seen, len(ages)


def _bare(stage: Stage, topic: str, seconds: float) -> list[float]:
    """Ages of messages as a consumer gets them that does nothing else."""
    consumer = consumer_at_start(stage, topic)
    for assigned in consumer.assignment():
        _, assigned.offset = consumer.get_watermark_offsets(assigned, timeout=10)
        consumer.seek(assigned)
    ages: list[float] = []
    limit = time.perf_counter() + seconds
    while _goes_on(limit, ages):
        message = consumer.poll(0.1)
        rest = consumer.consume(10_000, 0)
        now = time.time() * 1000
        newest = rest[-1] if rest else message
        if newest is not None and newest.error() is None:
            ages.append(now - newest.timestamp()[1])
    consumer.close()
    return ages[len(ages) // 10 :]
