"""A Kafka broker as tests use it: topics that belong to one test, and what an operator does."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

#: Longest wait for the broker to carry out an operator's wish, in seconds.
ADMIN_S = 30.0


@dataclass(frozen=True)
class Broker:
    """A running broker.

    Attributes:
        bootstrap: ``host:port``.
        admin: a client for what this class does not wrap.
    """

    bootstrap: str
    admin: AdminClient = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "admin", AdminClient({"bootstrap.servers": self.bootstrap}))

    @property
    def properties(self) -> dict[str, str]:
        """What a client needs to reach it."""
        return {"bootstrap.servers": self.bootstrap}

    def wait_until_answers(self, timeout_s: float = ADMIN_S) -> None:
        """Returns when the broker knows its own cluster."""
        self.admin.list_topics(timeout=timeout_s)

    def create_topic(
        self,
        partitions: int = 1,
        *,
        name: str | None = None,
        config: Mapping[str, str] | None = None,
    ) -> str:
        """A new topic, ready to be written to; returns its name (unique unless given)."""
        topic = name or f"market.equities.trades.t{uuid.uuid4().hex[:12]}"
        wish = NewTopic(topic, partitions, 1, config=dict(config or {}))
        self._done(self.admin.create_topics([wish]))
        self._wait(lambda: self._partitions(topic) == partitions, f"{topic} exists")
        return topic

    def delete_topic(self, topic: str) -> None:
        """Deletes the topic and waits until the broker has forgotten it."""
        self._done(self.admin.delete_topics([topic]))
        self._wait(lambda: self._partitions(topic) == 0, f"{topic} is gone")

    def add_partitions(self, topic: str, total: int) -> None:
        """Grows the topic to ``total`` partitions."""
        self._done(self.admin.create_partitions([NewPartitions(topic, total)]))
        self._wait(lambda: self._partitions(topic) == total, f"{topic} has {total} partitions")

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Deletes the records below an offset, per partition."""
        wishes = [TopicPartition(topic, partition, first) for partition, first in before.items()]
        self._done(self.admin.delete_records(wishes))

    def producer(self, **config: object) -> Producer:
        """A producer; keyword ``transactional_id`` becomes ``transactional.id``."""
        dotted = {key.replace("_", "."): value for key, value in config.items()}
        return Producer({**self.properties, "linger.ms": 5, **dotted})

    def produce(self, topic: str, values: Iterable[bytes | None], *, partition: int = -1) -> None:
        """Writes the values and waits until the broker has them all.

        Raises:
            RuntimeError: the broker refused one.
        """
        failures: list[str] = []
        producer = self.producer()
        for value in values:
            while True:
                try:
                    producer.produce(
                        topic,
                        value,
                        partition=partition,
                        on_delivery=lambda error, _: failures.append(str(error)) if error else None,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        if producer.flush(ADMIN_S) or failures:
            raise RuntimeError(f"not delivered: {failures[:3]}")

    def _partitions(self, topic: str) -> int:
        found = self.admin.list_topics(timeout=ADMIN_S).topics.get(topic)
        if found is None or found.error is not None:
            return 0
        return sum(p.leader >= 0 and p.error is None for p in found.partitions.values())

    @staticmethod
    def _done(futures: Mapping[object, object]) -> None:
        for future in futures.values():
            future.result(ADMIN_S)  # type: ignore[attr-defined] # the client has no types

    @staticmethod
    def _wait(condition: Callable[[], bool], wanted: str, timeout_s: float = ADMIN_S) -> None:
        limit = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > limit:
                raise TimeoutError(f"not within {timeout_s:.0f} s: {wanted}")
            time.sleep(0.05)
