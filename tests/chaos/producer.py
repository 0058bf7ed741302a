"""The producers: flat out in bursts, one of them in transactions that it often aborts.

What a producer was told it wrote is appended to its journal: (partition, offset, number) per
committed record. A *mark* is a moment before which everything it sent stands in the journal.
"""

from __future__ import annotations

import multiprocessing.synchronize
import os
import random
import struct
import time
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Protocol

from confluent_kafka import Message, Producer

from chaos.market import pool

#: One journal entry: partition, offset, number.
ENTRY = struct.Struct("<qqq")
#: Different records per producer; they repeat, a torn row still shows.
POOL = 20_000
#: Rows between two looks at the clock and the wishes.
BURST = 2_000


class Stop(Protocol):
    """An event of multiprocessing."""

    def is_set(self) -> bool:
        """Whether to stop."""


@dataclass(frozen=True)
class Order:
    """What one producer is to do.

    Attributes:
        bootstrap: the broker.
        topic: where to.
        partitions: how many the topic has.
        seed: of the records and of their partitions.
        transactional: in transactions, three in ten aborted.
        journal: the file for what was committed.
        budget: rows that may have been sent by now; the harness raises it (shared).
        mark: the last mark, a time of the monotonic clock (shared).
        stop: ends the producer at its next mark.
    """

    bootstrap: str
    topic: str
    partitions: int
    seed: int
    transactional: bool
    journal: Path
    budget: Synchronized[int]
    mark: Synchronized[float]
    stop: multiprocessing.synchronize.Event


def produce(order: Order) -> None:
    """Sends until it is told to stop (the body of a process)."""
    parent = os.getppid()
    work = _Work(order)
    while not order.stop.is_set() and os.getppid() == parent:
        wished = order.budget.value - work.sent
        began = time.monotonic()
        if wished > 0:
            work.burst(min(wished, 10 * BURST))
        else:
            time.sleep(0.02)
        order.mark.value = began
    order.mark.value = time.monotonic()
    work.close()


class _Work:
    """One producer's connection, records and journal."""

    def __init__(self, order: Order) -> None:
        self.sent = 0
        self._order = order
        self._random = random.Random(order.seed)
        numbers, records = pool(order.seed, POOL)
        self._records = list(
            zip([ENTRY.pack(0, 0, int(n))[16:] for n in numbers], records, strict=True)
        )
        self._entries: list[bytes] = []
        self._failures: list[str] = []
        self._journal = order.journal.open("ab", buffering=0)
        config: dict[str, object] = {
            "bootstrap.servers": order.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 2,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
        }
        if order.transactional:
            config["transactional.id"] = f"chaos-{order.topic}-{order.seed}"
        self._producer = Producer(config)
        if order.transactional:
            self._producer.init_transactions(30)

    def burst(self, rows: int) -> None:
        """Sends ``rows`` records and writes down those that count."""
        if not self._order.transactional:
            self._send(rows)
            self._write_down()
            return
        while rows > 0:
            size = min(rows, self._random.choice((1, 50, BURST)))
            rows -= size
            self._producer.begin_transaction()
            self._send(size)
            if self._random.random() < 0.3:
                self._producer.abort_transaction(30)
                self._entries.clear()
            else:
                self._producer.commit_transaction(30)
                self._write_down()

    def _send(self, rows: int) -> None:
        produce, poll = self._producer.produce, self._producer.poll
        choose, partitions = self._random.choice, range(self._order.partitions)
        for _ in range(rows):
            tail, value = choose(self._records)
            while True:
                try:
                    produce(
                        self._order.topic,
                        value,
                        tail,
                        partition=choose(partitions),
                        on_delivery=self._delivered,
                    )
                    break
                except BufferError:
                    poll(0.05)
        self.sent += rows
        while self._producer.flush(5):
            pass
        if self._failures:
            raise RuntimeError(f"not delivered: {self._failures[:3]}")

    def _delivered(self, error: object, message: Message) -> None:
        if error is not None:
            self._failures.append(str(error))
            return
        key = message.key()
        head = ENTRY.pack(message.partition() or 0, message.offset() or 0, 0)[:16]
        self._entries.append(head + (key if isinstance(key, bytes) else b""))

    def _write_down(self) -> None:
        self._journal.write(b"".join(self._entries))
        self._entries.clear()

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()
