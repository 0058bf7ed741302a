"""Logs that were cut off and have grown again: the epochs of their leaders tell (KIP-320).

Kafka numbers the leaders of a partition, and every record carries its leader's *epoch*. A replica
that comes to lead without all records (an unclean election) begins a newer one where its own
records end; so whoever read up to a position at an epoch asks where that epoch ends now. The answer
is at or above the position as long as what was read is still there.

Any epoch will do that was seen after the record below the position and while the log up to it was
there: an older log cannot have begun a newer one. Source: KIP-320, "OffsetForLeaderEpoch".
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from catalog.errors import BrokerUnavailable, LogEndsEarly
from catalog.kafka_client import OUT_OF_RANGE, ClientLog, consumer_properties, name_of, reason_of
from catalog.offsets import Offsets
from catalog.offsets import TopicPartition as Place

#: How the client says where what is left of an epoch ends; below 0: nothing is.
_END = re.compile(r"broker end offset is (-?\d+)")
#: To fetch little more than it takes to learn that a position is still good. The bounds are for
#: what lies in the client's queue: where they hold less than an answer of each partition, some of
#: them are asked again and again, and others never.
_LITTLE = {
    "enable.partition.eof": True,
    "isolation.level": "read_uncommitted",
    "fetch.message.max.bytes": 16 * 1024,
    "fetch.max.bytes": 4 * 1024 * 1024,
    "fetch.wait.max.ms": 1,
}


def cut_at(error: KafkaError) -> int | None:
    """Where the log was cut off, if that is what the client says."""
    found = _END.search(error.str())
    return None if found is None else max(0, int(found[1]))


def cut_off(place: Place, position: int, end: int) -> LogEndsEarly:
    """The error for a log that was cut off at ``end``, below ``position``."""
    return LogEndsEarly(
        f"{name_of(place)} was cut off at offset {end}, below position {position}: a broker that "
        "lacked records came to lead (an unclean election), so offsets that were read mean other "
        "records now; restore them, or see `k2 repair TABLE`"
    )


def refuse_cuts(positions: Offsets, found: Offsets) -> None:
    """Raises what :func:`cuts` found.

    Raises:
        LogEndsEarly: a log was cut off below a position (rule 12).
    """
    for place, end in found.items():
        raise cut_off(place, positions.at(place), end)


def cuts(
    properties: Mapping[str, str], positions: Offsets, leaders: Offsets, timeout_s: float
) -> Offsets:
    """Where logs were cut off below a position since that was read; without those that were not.

    A client that begins at a position asks when it learns who leads, if it has the position by
    then; one that is told to seek asks in any case. It begins at the logs' ends, and seeks once all
    of them have answered: at a position, it might be stopped (out of range) before it has asked,
    and the answer to where an end is, if it comes after the seek, is taken for the position.

    Args:
        properties: of the client.
        positions: what was read up to; of existing partitions.
        leaders: the epochs at which that was read. A partition without one is not asked about.
        timeout_s: longest wait for the next partition's answer, in seconds.

    Raises:
        BrokerUnavailable: no answer.
    """
    asked = {
        place: TopicPartition(*place, position, leader_epoch=leaders[place])
        for place, position in positions.items()
        if position and place in leaders
    }
    if not asked:
        return Offsets()
    log = ClientLog()
    consumer = Consumer(
        {**consumer_properties(properties, None), **_LITTLE, "error_cb": log.failed}, logger=log
    )
    try:
        for topic in {topic for topic, _ in asked}:  # or it waits half a second for their leaders
            consumer.list_topics(topic, timeout_s)
        consumer.assign([TopicPartition(*place, OFFSET_END) for place in asked])
        for _ in _firsts(consumer, asked, timeout_s):
            pass
        for place in asked.values():
            consumer.seek(place)
        return _answers(consumer, asked, timeout_s)
    except (KafkaException, TimeoutError) as error:
        why = "; ".join(filter(None, (reason_of(error), log.last)))
        raise BrokerUnavailable(
            f"no Kafka broker says whether the log was cut off ({why}): "
            "check kafka.bootstrap.servers, the network and the broker"
        ) from error
    finally:
        consumer.close()


def _answers(consumer: Consumer, asked: Iterable[Place], timeout_s: float) -> Offsets:
    """Where logs were cut off.

    A partition that has answered is paused, or what else it holds would come before the others.
    """
    found: dict[Place, int] = {}
    for place, error in _firsts(consumer, asked, timeout_s):
        end = None if error is None else cut_at(error)
        if end is not None:
            found[place] = end
        consumer.pause([TopicPartition(*place)])
    return Offsets(found)


def _firsts(
    consumer: Consumer, asked: Iterable[Place], timeout_s: float
) -> Iterator[tuple[Place, KafkaError | None]]:
    """What comes first of each partition: a record, the log's end, or an error at its position."""
    left, until_s = {*asked}, time.monotonic() + timeout_s
    while left:
        message = consumer.poll(max(0.0, until_s - time.monotonic()))
        if message is None:
            silent = ", ".join(map(name_of, sorted(left)[:3]))
            raise TimeoutError(f"no answer in time for {len(left)} partitions: {silent}")
        error, topic, partition = message.error(), message.topic(), message.partition()
        if topic is None or partition is None or (topic, partition) not in left:
            continue  # about the connection, or once more
        if error is not None and cut_at(error) is None and not _is_settled(error):
            raise KafkaException(error)
        left.discard((topic, partition))
        yield (topic, partition), error
        until_s = time.monotonic() + timeout_s


#: The log ends at the position, or lies elsewhere: for others to judge, but it was not cut off.
_SETTLED = OUT_OF_RANGE | {KafkaError._PARTITION_EOF}  # noqa: SLF001 - a public constant whose name begins with an underscore


def _is_settled(error: KafkaError) -> bool:
    """Whether it says that nothing was cut off; never where a client words a truncation anew."""
    return error.code() in _SETTLED and "truncat" not in error.str().lower()
