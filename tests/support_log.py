"""A topic of numbered records, the table that it feeds, and what may go wrong between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from confluent_kafka import Producer
from pyiceberg.catalog import load_catalog
from support_ingest import WAIT_S, World, assert_exact, framed
from support_kafka import Broker

from catalog.errors import CatalogError
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.manifest import Manifest
from catalog.records import Chunk
from catalog.spec import TableName, TableSpec

NAME = TableName("market_data", "ticks")


@contextmanager
def mock_cluster() -> Iterator[Broker]:
    """The in-process mock cluster of librdkafka; it lives as long as its producer."""
    owner = Producer({"bootstrap.servers": "ignored", "test.mock.num.brokers": 1, "log_level": 0})
    found = next(iter(owner.list_topics(timeout=WAIT_S).brokers.values()))
    yield Broker(f"{found.host}:{found.port}")
    owner.flush(WAIT_S)


class Log:
    """A topic and what was written to it: per partition (offset, number)."""

    def __init__(self, broker: Broker, topic: str, partitions: int = 2, **producer: object) -> None:
        self.broker, self.topic, self.partitions = broker, topic, partitions
        self.sent: dict[int, list[tuple[int, int]]] = {p: [] for p in range(partitions)}
        self._number = 0
        self._producer = broker.producer(**producer)
        self._producer.list_topics(topic, timeout=WAIT_S)

    def write(self, count: int, partition: int | None = None) -> None:
        """Appends ``count`` records, round robin unless a partition is named."""
        producer = self._producer if partition is None else self.broker.producer()

        def delivered(error: object, message: Any) -> None:
            assert error is None
            number = int(message.key())
            self.sent.setdefault(message.partition(), []).append((message.offset(), number))

        for _ in range(count):
            at = self._number % self.partitions if partition is None else partition
            producer.produce(
                self.topic,
                framed(self._number),
                key=str(self._number),
                partition=at,
                on_delivery=delivered,
            )
            self._number += 1
            producer.poll(0)
        assert producer.flush(WAIT_S) == 0

    def grow(self, partitions: int) -> None:
        """Adds partitions, and writes to them from now on."""
        self.broker.add_partitions(self.topic, partitions)
        self.partitions = partitions
        self._producer = self.broker.producer()  # the old one learns of them minutes later

    def raw(self, value: bytes | None, partition: int = 0) -> None:
        """Appends one value as it is."""
        self.broker.produce(self.topic, [value], partition=partition)

    @property
    def ends(self) -> tuple[int, ...]:
        """One past the last record written, per partition."""
        return tuple(records[-1][0] + 1 if records else 0 for records in self.sent.values())


def spec_of(log: Log, name: TableName = NAME, **changes: Any) -> TableSpec:
    options = {"schema_id": 7, "flush_rows": 10**9, "flush_age_s": 3600.0, **changes}
    return TableSpec(name, (log.topic,), **options)


def assert_answer(world: World, log: Log, name: TableName = NAME) -> Manifest:
    rows, manifest = world.answer(name)
    assert_exact(rows, log.sent, manifest.high)
    return manifest


def real_log(kafka: Broker, partitions: int = 2) -> Log:
    return Log(kafka, kafka.create_topic(partitions), partitions)


class Gated(TopicReader):
    """A reader that gives nothing before its gate opens."""

    gate = threading.Event()

    def poll(self, max_rows: int, timeout_s: float) -> Chunk | None:
        """Nothing while the gate is shut, and nothing fetched ahead."""
        if not self.gate.is_set():
            self.pause()
            self.gate.wait(timeout_s)
            return None
        self.resume()
        return super().poll(max_rows, timeout_s)


class Shaky(Lake):
    """A lake whose commits fail as told: before or after they landed."""

    script: list[tuple[str, CatalogError]]
    gate: threading.Event

    def commit(self, *args: Any, **options: Any) -> Any:
        """As the script says."""
        self.gate.wait()
        when, error = self.script.pop(0) if self.script else ("never", None)
        if when == "before" and error is not None:
            raise error
        head = super().commit(*args, **options)
        if when == "after" and error is not None:
            raise error
        return head


def shaky(world: World, *script: tuple[str, CatalogError]) -> Shaky:
    lake = Shaky(load_catalog("lake", **world.properties))
    lake.script, lake.gate = list(script), threading.Event()
    lake.gate.set()
    return lake


class Child:
    """An ingest in a process of its own."""

    def __init__(
        self,
        world: World,
        log: Log,
        environment: Mapping[str, str] = MappingProxyType({}),
        **options: float,
    ) -> None:
        given = {
            "folder": str(world.folder),
            "kafka": world.kafka,
            "table": str(NAME),
            "topic": log.topic,
            **options,
        }
        here = Path(__file__).parent
        self.process = subprocess.Popen(
            [sys.executable, str(here / "support_ingest_child.py"), json.dumps(given)],
            env={**os.environ, **environment, "PYTHONPATH": f"{here.parent}:{here}"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
