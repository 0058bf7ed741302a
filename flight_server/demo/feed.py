"""Sends the synthetic market to a Kafka cluster and counts what the cluster acknowledged."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from catalog.errors import BrokerUnavailable, RegistryUnavailable, shorten
from flight_server.demo.market import Market, Messages
from flight_server.demo.schemas import Kind, schema_text
from flight_server.exits import ExitCode
from flight_server.lifeline import say_ready

#: Seconds between two sends: short against the freshness that is to be shown, long against what a
#: request costs the broker and its consumers (one per partition).
ROUND_S = 0.02
#: Seconds of market time that are made at once: the encoders cost nearly as much for 50 messages as
#: for 1,000.
BLOCK_S = 0.25
#: Messages made at once without a rate limit: where the encoders are at their fastest.
BLOCK_MESSAGES = 10_000
#: Messages that may wait for the broker; about 100 MB.
MAX_WAITING = 300_000
#: Seconds to wait for the first answer of the broker.
CONNECT_S = 5.0
#: Seconds between two reports.
REPORT_S = 0.2
#: Seconds to wait for the acknowledgements of what was sent last.
FLUSH_S = 30.0


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """What to send, where.

    Attributes:
        properties: librdkafka's, with ``bootstrap.servers``.
        topics: kind → topic; a kind that is missing is not sent.
        schema_ids: kind → registry id, for the frame.
        rate: messages per second over all kinds; 0 is as fast as it goes.
        count: messages in all; None sends until it is stopped.
        seed: of the market.
        start_us: first event time, microseconds since 1970.
        run: part of every message id.
    """

    properties: Mapping[str, str]
    topics: Mapping[Kind, str]
    schema_ids: Mapping[Kind, int]
    rate: float = 10_000
    count: int | None = None
    seed: int = 1
    start_us: int = 0
    run: str = "k2"


@dataclass(slots=True)
class FeedReport:
    """What the cluster acknowledged, by topic and partition; written by the feed's thread."""

    delivered: Counter[tuple[str, int]] = field(default_factory=Counter)
    sent: int = 0
    failed: int = 0
    first_error: str = ""

    def to_json(self, *, done: bool) -> dict[str, object]:
        """``{"sent", "failed", "error", "delivered": {topic: {partition: n}}, "done"}``."""
        topics: dict[str, dict[str, int]] = {}
        for (topic, partition), count in sorted(self.delivered.items()):
            topics.setdefault(topic, {})[str(partition)] = count
        return {
            "sent": self.sent,
            "failed": self.failed,
            "error": self.first_error,
            "delivered": topics,
            "done": done,
        }


@dataclass(slots=True)
class _Block:
    """Messages of all kinds over the same moments; ``sent`` is the share that is gone, 0 to 1."""

    messages: Mapping[Kind, Messages]
    size: int
    seconds: float
    sent: float = 0.0

    def take(self, share: float) -> Mapping[Kind, Messages]:
        """The next ``share`` of every kind; the last one takes what rounding left."""
        first, self.sent = self.sent, min(1.0, self.sent + share)
        return {kind: each.part(first, self.sent) for kind, each in self.messages.items()}


class Feed:
    """One run of the market. ``run`` belongs to one thread; the report may be read by others."""

    def __init__(self, spec: FeedSpec) -> None:
        self.spec = spec
        self.report = FeedReport()
        self._kinds = tuple(sorted(spec.topics))
        self._market = Market(spec.seed, spec.start_us, spec.run)
        # Idempotent: a retry inside the client can neither double nor reorder a message.
        self._producer = Producer(
            {
                "enable.idempotence": True,
                "linger.ms": 2,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 2 * MAX_WAITING,
                "queue.buffering.max.kbytes": 1_000_000,
                "log_level": 3,
                **spec.properties,
            }
        )

    def connect(self) -> None:
        """Asks the cluster for its metadata.

        Raises:
            BrokerUnavailable: nobody answered.
        """
        try:
            self._producer.list_topics(timeout=CONNECT_S)
        except KafkaException as error:
            server = self.spec.properties.get("bootstrap.servers", "")
            raise BrokerUnavailable(
                f"no Kafka broker answered at {shorten(server)} within {CONNECT_S:g} s: "
                "check the address (--bootstrap) and that the broker runs"
            ) from error

    def run(
        self, stop: threading.Event, progress: Callable[[FeedReport], None] | None = None
    ) -> FeedReport:
        """Sends until the count is reached or ``stop`` is set, then waits for what is under way.

        ``progress`` is called after every round.
        """
        due = time.monotonic()
        while not stop.is_set() and (size := self._next_size()):
            block = self._make(size)
            while not stop.is_set() and block.sent < 1:
                share, seconds = self._next_share(block)
                for kind, messages in block.take(share).items():
                    self._produce(self.spec.topics[kind], messages)
                due += seconds
                self._keep_pace(stop, due)
                if progress is not None:
                    progress(self.report)
        waiting = self._producer.flush(FLUSH_S)
        if waiting:
            self._failed(waiting, f"{waiting} messages were not acknowledged in {FLUSH_S:g} s")
        return self.report

    def close(self) -> None:
        """Lets the client go; idempotent."""
        self._producer.close()

    def _next_size(self) -> int:
        """Messages of the next block; 0: the count is reached."""
        size = round(self.spec.rate * BLOCK_S) if self.spec.rate else BLOCK_MESSAGES
        size = max(size, len(self._kinds))
        return size if self.spec.count is None else min(size, self.spec.count - self.report.sent)

    def _make(self, size: int) -> _Block:
        """The kinds share a block evenly; odd messages go to the first one."""
        seconds = size / (self.spec.rate or 100_000)
        share, odd = divmod(size, len(self._kinds))
        messages = {
            kind: self._market.messages(
                kind, share + (0 if number else odd), seconds, self.spec.schema_ids[kind]
            )
            for number, kind in enumerate(self._kinds)
        }
        self._market.advance(seconds)
        return _Block(messages, size, seconds)

    def _next_share(self, block: _Block) -> tuple[float, float]:
        """The share of the block that goes now, and the seconds until the next one is due."""
        if not self.spec.rate or block.seconds <= ROUND_S:
            return 1.0, block.seconds if self.spec.rate else 0.0
        # In a burst more goes at once; bursts average to 1, so the pace stays the rate.
        burst = self._market.burst()
        share = min(1 - block.sent, ROUND_S * burst / block.seconds)
        return share, share * block.seconds / burst

    def _produce(self, topic: str, messages: Messages) -> None:
        batch = [
            {"key": key, "value": value}
            for key, value in zip(messages.keys, messages.values, strict=True)
        ]
        if not batch:
            return
        queued = self._producer.produce_batch(topic, batch, on_delivery=self._on_delivery)
        if queued < len(batch):
            reason = next(str(each["_error"]) for each in batch if "_error" in each)
            self._failed(len(batch) - queued, reason)
        self.report.sent += len(batch)
        self._producer.poll(0)
        while len(self._producer) > MAX_WAITING:
            self._producer.poll(0.01)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.report.delivered[message.topic(), message.partition()] += 1  # type: ignore[index]  # a delivered message has both
        else:
            self._failed(1, error.str())

    def _failed(self, count: int, reason: str) -> None:
        self.report.failed += count
        self.report.first_error = self.report.first_error or shorten(reason)

    def _keep_pace(self, stop: threading.Event, due: float) -> None:
        """Serves delivery reports until the round's time has passed."""
        if not self.spec.rate:
            return
        while not stop.is_set() and (left := due - time.monotonic()) > 0:
            self._producer.poll(min(left, 0.1))


def publish_schemas(registry: str, topics: Mapping[Kind, str]) -> dict[Kind, int]:
    """Registers the schemas under ``<topic>-value``; returns their ids.

    Args:
        registry: ``http(s)://…``, or ``file:`` and a folder, which is made.
        topics: kind → topic.

    Raises:
        RegistryUnavailable: the registry did not answer, or refused.
    """
    if registry.startswith("file:"):
        folder = Path(registry.removeprefix("file:").removeprefix("//"))
        return _write_schemas(folder, topics)
    ids: dict[Kind, int] = {}
    for kind, topic in topics.items():
        url = f"{registry.rstrip('/')}/subjects/{topic}-value/versions"
        try:
            answer = httpx.post(url, json={"schema": schema_text(kind)}, timeout=CONNECT_S)
            answer.raise_for_status()
            ids[kind] = int(answer.json()["id"])
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise RegistryUnavailable(
                f"the registry did not take the schema of {topic} ({type(error).__name__}): "
                "check --registry and that it runs"
            ) from error
    return ids


def _write_schemas(folder: Path, topics: Mapping[Kind, str]) -> dict[Kind, int]:
    """``<id>.avsc`` and ``subjects.json``; ids are 1 and 2, other subjects are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    subjects_file = folder / "subjects.json"
    subjects = json.loads(subjects_file.read_text()) if subjects_file.exists() else {}
    ids: dict[Kind, int] = {"trades": 1, "quotes": 2}
    for kind, topic in topics.items():
        (folder / f"{ids[kind]}.avsc").write_text(schema_text(kind))
        subjects[f"{topic}-value"] = ids[kind]
    subjects_file.write_text(json.dumps(subjects, indent=1, sort_keys=True))
    return {kind: ids[kind] for kind in topics}


def feed_until(stop: threading.Event, spec: str) -> int:
    """The feed's process: reports as JSON lines on stdout, the last one when all is acknowledged.

    Args:
        stop: ends the feed.
        spec: a :class:`FeedSpec` as a JSON object.
    """
    feed = Feed(FeedSpec(**json.loads(spec)))
    feed.connect()
    say_ready(pid=os.getpid())
    reported_at = 0.0

    def progress(report: FeedReport) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= REPORT_S:
            reported_at = time.monotonic()
            _say(report, done=False)

    report = feed.run(stop, progress)
    feed.close()
    _say(report, done=True)
    return ExitCode.FAILED if report.failed else ExitCode.OK


def _say(report: FeedReport, *, done: bool) -> None:
    sys.stdout.write(json.dumps(report.to_json(done=done)) + "\n")
    sys.stdout.flush()
