"""The embedded broker: librdkafka's mock cluster, a real Kafka protocol over loopback, no Java.

What it is not: it keeps about 5 MB per partition (older records are dropped, the low watermark
moves), has four partitions per topic, forgets everything when it ends, has a new cluster id each
time, no topic ids and no topic administration. So the demo compresses, flushes often, and takes a
new topic every time.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from flight_server.exits import ExitCode
from flight_server.lifeline import say_ready

#: Seconds that the cluster, in this very process, may take to answer.
_START_S = 10.0


class EmbeddedBroker:
    """A mock cluster of one broker; lives until ``close``, on threads of librdkafka's own."""

    def __init__(self) -> None:
        # The cluster belongs to the client instance that names it; log level 3 keeps its notice
        # of having replaced bootstrap.servers from the terminal.
        self._owner: Producer | None = Producer({"test.mock.num.brokers": 1, "log_level": 3})
        metadata = self._owner.list_topics(timeout=_START_S)
        broker = next(iter(metadata.brokers.values()))
        self.bootstrap = f"{broker.host}:{broker.port}"

    def close(self) -> None:
        """Ends the cluster; idempotent."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def broker_until(stop: threading.Event) -> int:
    """The broker's process: says where it listens, ends when ``stop`` is set."""
    with EmbeddedBroker() as broker:
        say_ready(bootstrap=broker.bootstrap)
        stop.wait()
    return ExitCode.OK
