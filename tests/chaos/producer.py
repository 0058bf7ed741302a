"""The producers: flat out in bursts, one of them in transactions that it often aborts.

What a producer was told it wrote is appended to its journal: (partition, offset, number) per
committed record; the number of a poison record, which is cut off, is negative. A *mark* is a moment
before which everything it sent stands in the journal.
"""

from __future__ import annotations

import multiprocessing.synchronize
import os
import random
import time
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Protocol

import numpy as np
from confluent_kafka import Message, Producer

from chaos.market import cut_off, pool

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
        poison_every: one record in so many cannot be decoded; 0: none.
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
    poison_every: int
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
        self._draw = np.random.default_rng(order.seed)
        numbers, records = pool(order.seed, POOL)
        sound = zip(numbers.tolist(), records, strict=True)
        poison = zip((-numbers).tolist(), map(cut_off, records), strict=True)
        self._messages = [
            {"key": int(number).to_bytes(8, "little", signed=True), "value": value}
            for number, value in (*sound, *poison)
        ]
        self._reports: list[Message] = []
        self._failures: list[str] = []
        self._journal = order.journal.open("ab", buffering=0)
        config: dict[str, object] = {
            "bootstrap.servers": order.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 2,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 20 * BURST,
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
                self._reports.clear()
            else:
                self._producer.commit_transaction(30)
                self._write_down()

    def _send(self, rows: int) -> None:
        """A record of the pool, to a partition, each by chance; ``rows`` fit the client's queue."""
        chosen = self._draw.integers(POOL, size=rows)
        if every := self._order.poison_every:
            chosen += POOL * (self._draw.integers(every, size=rows) == 0)
        places = self._draw.integers(self._order.partitions, size=rows)
        for place in range(self._order.partitions):
            messages = [self._messages[at] for at in chosen[places == place].tolist()]
            queued = self._producer.produce_batch(
                self._order.topic, messages, partition=place, on_delivery=self._delivered
            )
            if queued != len(messages):
                raise RuntimeError(f"only {queued} of {len(messages)} records were queued")
        self.sent += rows
        while self._producer.flush(5):
            pass
        if self._failures:
            raise RuntimeError(f"not delivered: {self._failures[:3]}")

    def _delivered(self, error: object, message: Message) -> None:
        if error is not None:
            self._failures.append(str(error))
        else:
            self._reports.append(message)

    def _write_down(self) -> None:
        entries = np.empty((len(self._reports), 3), "<i8")
        entries[:, 0] = [report.partition() for report in self._reports]
        entries[:, 1] = [report.offset() for report in self._reports]
        keys = b"".join([bytes(report.key() or b"") for report in self._reports])
        entries[:, 2] = np.frombuffer(keys, "<i8")
        self._journal.write(entries.tobytes())
        self._reports.clear()

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()
