"""A writer's pulse: how a standby on another machine learns that the writer is gone.

The writer leaves a *beat* twice a second where both can see it: as the metadata of an offset of a
consumer group that nobody joins. A standby reads it and counts, by its own clock, for how long no
new one came. No clocks are compared, no topic is needed, and no broker setting bounds how fast it
is (members of a group are given six seconds at least).

A pulse decides *liveness only*. Whatever it says wrongly, the fence inside the commit decides who
writes (docs/architecture.md rule 5): a writer that was taken for dead finds a newer epoch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from catalog.errors import BrokerUnavailable, CatalogError, SpecRefused
from catalog.heads import Head
from catalog.kafka_client import ClientLog, admin_properties, reason_of
from catalog.spec import TableName

_log = logging.getLogger(__name__)

#: Seconds between beats, and between looks at them.
BEAT_S = 0.5
#: Longest wait for the broker, in seconds. A beat that takes longer is as good as none.
REQUEST_S = 2.0
#: Longest step of waiting for a beat's answer, in seconds.
_ANSWER_S = 0.02
#: Offsets stand below this name: ``k2.writer.<table>.<table uuid>``.
GROUP_PREFIX = "k2.writer."


@dataclass(frozen=True, slots=True)
class Beat:
    """One sign of life.

    Attributes:
        epoch: the writer's (rule 5).
        writer: its random id.
        count: different from the beat before; None: a farewell, the writer has ended in order.
    """

    epoch: int
    writer: str
    count: int | None

    def to_text(self) -> str:
        """``epoch writer count``."""
        return f"{self.epoch} {self.writer} {'gone' if self.count is None else self.count}"

    @classmethod
    def from_text(cls, text: str | None) -> Beat | None:
        """The inverse of :meth:`to_text`; None for any other text: no sign of life."""
        try:
            epoch, writer, count = (text or "").split(" ")
            return cls(int(epoch), writer, None if count == "gone" else int(count))
        except ValueError:
            return None


class Watch:
    """Whether the pulse of an owner has stopped. Pure: beats and times go in.

    Silence counts only while it is watched: from a reading on that succeeded, without a gap. A
    broker that does not answer hides the living too, and a machine that was suspended takes its
    writer's silence for its own sleep.

    Args:
        epoch: the owner's; beats of an older epoch are those of a ghost and prove nothing.
        after_s: seconds of silence after which the writer is taken for gone.
    """

    def __init__(self, epoch: int, after_s: float) -> None:
        self.epoch = epoch
        self._after_s = after_s
        self._last: Beat | None = None
        self._since_s: float | None = None
        self._read_s: float | None = None

    def read(self, beat: Beat | None, now_s: float) -> bool:
        """Takes one reading at ``now_s`` of a clock that never goes back; whether it is gone."""
        if beat is not None and beat.epoch < self.epoch:
            beat = None
        watched = self._read_s is not None and now_s - self._read_s < self._after_s
        self._read_s = now_s
        if beat is not None and beat.count is None:
            return True
        if self._since_s is None or not watched or (beat is not None and beat != self._last):
            self._last, self._since_s = beat, now_s
        return now_s - self._since_s >= self._after_s

    def unread(self) -> None:
        """The broker did not answer: silence counts anew from the next reading on."""
        self._since_s = self._read_s = None


class Pulse:
    """Where one table's beats lie. Any thread.

    Args:
        properties: librdkafka's, ``bootstrap.servers`` at least.
        name: the table.
        head: any head of it that has a marker: identity and first topic name the place.
    """

    def __init__(self, properties: Mapping[str, str], name: TableName, head: Head) -> None:
        assert head.marker is not None  # noqa: S101 - a table without a marker has no writer
        self.group = f"{GROUP_PREFIX}{name}.{head.table_uuid}"
        self._topic = min(identity.topic for identity in head.marker.topics)
        # A consumer that never joins, and no admin client: librdkafka 2.16 aborts the process where
        # a connection is lost under an admin request to a group's coordinator (its issue 4605).
        settings = {
            **admin_properties(properties),
            "group.id": self.group,
            "enable.auto.commit": False,
            "on_commit": self._committed,
        }
        self._told: KafkaError | bool | None = None
        try:
            self._consumer = Consumer(settings, logger=ClientLog())
        except (KafkaException, ValueError, TypeError) as error:
            raise SpecRefused(
                f"the Kafka client refuses its settings: {reason_of(error)}"
            ) from error

    def beat(self, beat: Beat) -> None:
        """Leaves a beat.

        Raises:
            BrokerUnavailable: it is not known to have arrived.
        """
        self._told, limit = None, time.monotonic() + REQUEST_S
        place = TopicPartition(self._topic, 0, 0, beat.to_text())
        try:  # a commit that waits for its answer may wait for a session's 45 s
            self._consumer.commit(offsets=[place], asynchronous=True)
            while self._told is None and time.monotonic() < limit:
                self._consumer.poll(_ANSWER_S)
        except KafkaException as error:
            raise self._trouble(reason_of(error)) from error
        if self._told is not True:
            raise self._trouble("no answer in time" if self._told is None else self._told.str())

    def read(self) -> Beat | None:
        """The last beat; None where there never was one.

        Raises:
            BrokerUnavailable: no answer.
        """
        try:
            wish = [TopicPartition(self._topic, 0)]
            (place,) = self._consumer.committed(wish, timeout=REQUEST_S)
        except KafkaException as error:
            raise self._trouble(reason_of(error)) from error
        if place.error is not None:
            raise self._trouble(place.error.str())
        return Beat.from_text(place.metadata)

    def _committed(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        failed = error or next((one.error for one in places if one.error is not None), None)
        self._told = failed or True

    def _trouble(self, reason: str) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"the writer's pulse cannot be kept in consumer group {self.group} ({reason}): "
            f"allow groups that begin with {GROUP_PREFIX!r}"
        )


class Heart:
    """Beats for one owner from a thread of its own, until :meth:`end`."""

    def __init__(self, pulse: Pulse, epoch: int, writer: str) -> None:
        self._pulse, self._epoch, self._writer = pulse, epoch, writer
        self._over = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"pulse {pulse.group}", daemon=True)
        self._thread.start()

    def end(self, *, gone: bool) -> None:
        """Stops; with a farewell if the writer has ended in order: a standby need not wait."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            if gone:
                self._beat(None)

    def _run(self) -> None:
        count = 0
        while not self._over.is_set():
            self._beat(count)
            count += 1
            self._over.wait(BEAT_S)

    def _beat(self, count: int | None) -> None:
        """Leaves a beat; a failure is logged when it begins: standbys see that it is missing."""
        try:
            self._pulse.beat(Beat(self._epoch, self._writer, count))
        except CatalogError as error:
            if str(error) != self._trouble:
                _log.warning("pulse_trouble error=%s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""
