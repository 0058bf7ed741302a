"""What the log holds, asked without waiting for the answer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]  # public, but not in its __all__

from catalog.offsets import TopicPartition as Place
from catalog.records import LogBounds

#: The library leaves it without types.
OffsetSpec: Any = _OffsetSpec
#: What is asked of every partition: where it begins, where it is stable, where it ends.
_ASKED = (
    (OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED),
    (OffsetSpec.latest(), IsolationLevel.READ_COMMITTED),
    (OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED),
)


class BoundsLook:
    """One look at the bounds of many partitions: a request per broker and bound, under way.

    The requests go over the admin client's own connections: on the consumer's they would wait
    behind its long polls, and a broker that hangs would hold up the reading of all others.

    Args:
        admin: the client that asks.
        places: the partitions, one at least.
        timeout_s: when the look is over at the latest, seconds.
    """

    def __init__(self, admin: AdminClient, places: Collection[Place], timeout_s: float) -> None:
        wish = [TopicPartition(*place) for place in places]
        self._answers: list[dict[Any, Any]] = [
            admin.list_offsets(
                dict.fromkeys(wish, spec), isolation_level=level, request_timeout=timeout_s
            )
            for spec, level in _ASKED
        ]

    @property
    def over(self) -> bool:
        """Whether every answer is there, or will not come."""
        return all(future.done() for answer in self._answers for future in answer.values())

    def found(self) -> tuple[LogBounds, ...]:
        """The partitions of which everything was answered, sorted; waits until it is over."""
        begin, stable, end = (_offsets(answer) for answer in self._answers)
        found = []
        for place in sorted(begin.keys() & stable.keys() & end.keys()):
            # The log moves between the three answers, but its bounds keep their order.
            held_to = max(begin[place], stable[place])
            found.append(LogBounds(*place, begin[place], held_to, max(held_to, end[place])))
        return tuple(found)


def _offsets(answer: dict[Any, Any]) -> dict[Place, int]:
    found = {}
    for asked, future in answer.items():
        try:
            offset = int(future.result().offset)
        except KafkaException:  # no leader just now: what was seen before stays
            continue
        if offset >= 0:  # OFFSET_INVALID: the connection was lost under the question
            found[(asked.topic, asked.partition)] = offset
    return found
