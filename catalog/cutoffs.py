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
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from catalog.errors import BrokerUnavailable, LogEndsEarly
from catalog.kafka_client import OUT_OF_RANGE, ClientLog, consumer_properties, name_of, reason_of
from catalog.offsets import Offsets
from catalog.offsets import TopicPartition as Place

#: How the client says where what is left of an epoch ends; below 0: nothing is.
_END = re.compile(r"broker end offset is (-?\d+)")
#: To fetch no more than it takes to learn that a position is still good.
_LEAST = {
    "enable.partition.eof": True,
    "isolation.level": "read_uncommitted",
    "fetch.message.max.bytes": 1,
    "fetch.wait.max.ms": 1,
    "queued.min.messages": 1,
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

    A client asks when it learns who leads, if it has a position by then: so it is a new one.

    Args:
        properties: of the client.
        positions: what was read up to; of existing partitions.
        leaders: the epochs at which that was read. A partition without one is not asked about.
        timeout_s: longest wait, in seconds.

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
        {**consumer_properties(properties, None), **_LEAST, "error_cb": log.failed}, logger=log
    )
    try:
        consumer.assign(list(asked.values()))
        return _answers(consumer, {*asked}, timeout_s)
    except (KafkaException, TimeoutError) as error:
        raise BrokerUnavailable(
            f"no Kafka broker says whether the log was cut off ({reason_of(error)}; {log.last}): "
            "check kafka.bootstrap.servers, the network and the broker"
        ) from error
    finally:
        consumer.close()


def _answers(consumer: Consumer, left: set[Place], timeout_s: float) -> Offsets:
    """One answer of each partition: a record, the log's end, or an error at its position."""
    found: dict[Place, int] = {}
    until_s = time.monotonic() + timeout_s
    while left:
        message = consumer.poll(max(0.0, until_s - time.monotonic()))
        if message is None:
            raise TimeoutError("no answer in time")
        error, topic, partition = message.error(), message.topic(), message.partition()
        if topic is None or partition is None:
            continue  # about the connection
        end = None if error is None else cut_at(error)
        if error is not None and end is None and not _is_settled(error):
            raise KafkaException(error)
        if end is not None:
            found[topic, partition] = end
        left.discard((topic, partition))
    return Offsets(found)


#: The log ends at the position, or lies elsewhere: for others to judge, but it was not cut off.
_SETTLED = OUT_OF_RANGE | {KafkaError._PARTITION_EOF}  # noqa: SLF001 - a public constant whose name begins with an underscore


def _is_settled(error: KafkaError) -> bool:
    """Whether it says that nothing was cut off; never where a client words a truncation anew."""
    return error.code() in _SETTLED and "truncat" not in error.str().lower()
