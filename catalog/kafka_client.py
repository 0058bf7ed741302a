"""What every Kafka client here is told, how it speaks, and what its words mean in our errors.

librdkafka goes on *silently* at the old position when a topic is deleted and created anew. What it
does say is a debug line of its metadata code, which arrives in the same queue as the messages and
before the first message of the new topic: :class:`ClientLog` counts it (rule 9).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from confluent_kafka import KafkaError

from catalog.errors import LogEndsEarly, LogGap, shorten
from catalog.offsets import TopicPartition as Place

_log = logging.getLogger(__name__)

#: librdkafka's in-process mock cluster names itself so; it has no topic ids and no topic admin.
MOCK_CLUSTER = "mockCluster"

_DEFAULTS: Mapping[str, str | int | float | bool] = {
    "client.id": "k2-flight",
    # A consumer needs the name of a group even if it never joins one.
    "group.id": "k2-flight",
    # The default of a second stalls a fast reader whenever the client's own queue was full.
    "fetch.queue.backoff.ms": 5,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": 30_000,
}
#: What exactness rests on: not to be changed by settings.
_FIXED: Mapping[str, str | int | float | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
}
OUT_OF_RANGE = frozenset((KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE))  # noqa: SLF001 - public constants whose names begin with an underscore
NO_TOPIC = frozenset(
    (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)  # noqa: SLF001 - as above
)


class ClientLog:
    """Takes the client's log lines instead of standard error.

    Invariant: ``changes`` only grows; it grows before a message of another connection or of a
    topic with another id is handed out. Written by whichever thread polls the client.
    """

    def __init__(self) -> None:
        self.changes = 0
        self.last = ""

    def log(self, level: int, message: str, *args: object) -> None:
        """The client's callback (the signature of :meth:`logging.Logger.log`)."""
        line = message % args if args else message
        if level > logging.DEBUG:
            self.last = line
            self.changes += 1
        elif "changed id from" in line:
            self.changes += 1
        _log.debug("client line=%s", line)

    def failed(self, error: KafkaError) -> None:
        """The client's callback for errors of connections."""
        self.last = error.str()
        self.changes += 1


def consumer_properties(
    properties: Mapping[str, str], monitor_group: str | None
) -> dict[str, str | int | float | bool]:
    """The consumer's configuration: defaults, then the settings, then what is fixed."""
    group = {"group.id": monitor_group} if monitor_group else {}
    # "topic" makes the client say that a topic's id changed; it writes nothing per message.
    debug = ",".join(filter(None, (properties.get("debug"), "topic")))
    return {**_DEFAULTS, **properties, **group, **_FIXED, "debug": debug}


def admin_properties(properties: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """The configuration of the client that asks who a topic is."""
    return {"client.id": "k2-flight", **properties}


def check_bounds(place: Place, position: int, low: int, high: int) -> None:
    """Whether the log ``[low, high)`` can be read from ``position`` on.

    Raises:
        LogGap: it begins after the position.
        LogEndsEarly: it ends before the position (rule 12).
    """
    if low > position:
        raise LogGap(
            f"{name_of(place)} holds nothing below offset {low}, but position {position} is next: "
            f"the {low - position} between were deleted before they were read; keep records longer "
            "(retention); `k2 repair TABLE --skip-lost-records` goes on without them"
        )
    if high < position:
        raise LogEndsEarly(
            f"{name_of(place)} ends at offset {high}, below position {position}: the broker lost "
            "records that the table already holds; restore them, or see `k2 repair TABLE`"
        )


def check_all(positions: Mapping[Place, int], bounds: Mapping[Place, tuple[int, int]]) -> None:
    """Whether a log can be read from positions on, and holds all of their partitions.

    Raises:
        LogGap, LogEndsEarly: not so; see :func:`check_bounds`.
    """
    for place, position in positions.items():
        if place not in bounds:
            raise LogEndsEarly(
                f"{name_of(place)} does not exist, but position {position} of it is recorded: "
                "the topic was deleted or lost partitions"
            )
    for place, (low, high) in bounds.items():
        check_bounds(place, positions.get(place, 0), low, high)


def name_of(place: Place) -> str:
    """``topic[partition]``, as messages say it."""
    return f"{place[0]}[{place[1]}]"


def reason_of(error: Exception) -> str:
    """What the client says, without its class and numbers."""
    first = error.args[0] if error.args else error
    return shorten(first.str() if isinstance(first, KafkaError) else first)
