"""The log: partitions assigned at positions of ours, read in chunks (the only user of the client).

Positions are kept by the caller (in Iceberg snapshots), never in consumer groups. What a poll moved
over is taken from the consumer's position, so control records and aborted transactions are part
of a range although no row of theirs appears (docs/architecture.md rules 1 and 3).

Who publishes reads the topics' identities again when :attr:`TopicReader.changes` moved (rule 9;
catalog/kafka_client.py says why).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from catalog.cutoffs import cut_at, cut_off, cuts, refuse_cuts
from catalog.errors import (
    BrokerUnavailable,
    CatalogError,
    LogGap,
    SpecRefused,
    shorten,
)
from catalog.kafka_client import (
    MOCK_CLUSTER,
    NO_TOPIC,
    OUT_OF_RANGE,
    ClientLog,
    admin_properties,
    check_all,
    check_bounds,
    consumer_properties,
    name_of,
    reason_of,
)
from catalog.logbounds import BoundsLook
from catalog.messages import Places, Rows, in_log_order, take_apart, to_chunk
from catalog.offsets import Offsets, TopicIdentity
from catalog.offsets import TopicPartition as Place
from catalog.records import Chunk, Range
from catalog.schemas import metadata_schema

T = TypeVar("T")
_NONE = Offsets()

#: Longest wait for one answer of a broker, in seconds: a start has to fail within 10.
REQUEST_S = 4.0
#: Longest wait for what the admin client answers by itself after :data:`REQUEST_S`.
ANSWER_S = REQUEST_S + 1
#: Messages taken from the client at a time. Small on purpose: the client's message objects stay in
#: the processor's cache (0.43 µs a message at 2,000, 0.86 µs at 30,000).
DRAIN_ROWS = 2_000
#: Value bytes after which a chunk takes no more, whatever its records' size: three times what a
#: full chunk of narrow ones holds. A chunk passes it by one drain at most, and that is sized by
#: the records before it.
CHUNK_BYTES = 16 * 1024**2


class TopicReader:
    """One consumer over all partitions of a table's topics.

    :meth:`identities`, :attr:`changes` and :meth:`commit_monitor` may be called by any thread; all
    else belongs to the one thread that polls (at start, to the thread that assigns before it).
    """

    def __init__(
        self,
        properties: Mapping[str, str],
        topics: Sequence[str],
        *,
        key: bool = False,
        headers: bool = False,
        monitor_group: str | None = None,
    ) -> None:
        """Builds the clients; nothing is sent yet.

        Args:
            properties: librdkafka's, ``bootstrap.servers`` at least.
            topics: names of topics, not patterns.
            key: fill ``_key``.
            headers: fill ``_headers``.
            monitor_group: the group to which :meth:`commit_monitor` writes; never read.

        Raises:
            SpecRefused: the client refuses a property.
        """
        self._properties = properties
        self._topics = tuple(sorted(topics))
        self._places = Places(self._topics, metadata_schema(key=key, headers=headers))
        self._monitor = monitor_group
        self._bootstrap = properties.get("bootstrap.servers", "")
        self._client_log = ClientLog()
        try:
            self._consumer = Consumer(
                {
                    **consumer_properties(properties, monitor_group),
                    "error_cb": self._client_log.failed,
                },
                logger=self._client_log,
            )
            self._admin = AdminClient(admin_properties(properties), logger=ClientLog())
        except (KafkaException, ValueError, TypeError) as error:
            raise SpecRefused(
                f"the Kafka client refuses its settings: {reason_of(error)}"
            ) from error
        self._next: dict[Place, int] = {}
        self._leaders: dict[Place, int] = {}  # -1: not known
        self._ends: dict[Place, int] = {}
        self._handles: list[TopicPartition] = []
        self._failed: Message | None = None
        # Taken from the client, in no chunk yet: a request that fails in between loses nothing.
        self._taken: list[Rows] = []
        self._paused = self._closed = False

    @property
    def changes(self) -> int:
        """Grows when a connection was lost or a topic's metadata changed (rule 9)."""
        return self._client_log.changes

    @property
    def positions(self) -> Offsets:
        """The next offset to read of every assigned partition."""
        return Offsets(self._next)

    @property
    def leaders(self) -> Offsets:
        """The leader epochs at which the partitions were read up to :attr:`positions`."""
        return Offsets({place: epoch for place, epoch in self._leaders.items() if epoch >= 0})

    @property
    def watermarks(self) -> Offsets:
        """The log's high watermarks as the last fetch of each partition saw them; no request."""
        seen = {}
        for place, position in self._next.items():
            high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1]
            seen[place] = max(high, position, self._ends.get(place, 0))
        return Offsets(seen)

    def identities(self) -> tuple[TopicIdentity, ...]:
        """Who the topics are now, sorted by name; asked from the broker anew (rule 9).

        Raises:
            SpecRefused: a topic does not exist.
            BrokerUnavailable: no answer.
        """
        cluster = self._call(partial(self._admin.list_topics, timeout=REQUEST_S)).cluster_id or ""
        if cluster.startswith(MOCK_CLUSTER):
            return tuple(TopicIdentity(topic, cluster, "") for topic in self._topics)
        wish = TopicCollection(list(self._topics))
        found = self._admin.describe_topics(wish, request_timeout=REQUEST_S)
        ids = {topic: self._call(partial(found[topic].result, ANSWER_S)) for topic in self._topics}
        return tuple(TopicIdentity(topic, cluster, str(ids[topic].topic_id)) for topic in ids)

    def partitions(self) -> tuple[Place, ...]:
        """All partitions that the topics have now.

        Raises:
            SpecRefused: a topic does not exist.
            BrokerUnavailable: no answer.
        """
        places: list[Place] = []
        for topic in self._topics:
            answer = self._call(partial(self._consumer.list_topics, topic, timeout=REQUEST_S))
            found = answer.topics[topic]
            if found.error is not None:
                raise self._error(found.error, topic)
            places += [(topic, partition) for partition in found.partitions]
        return tuple(sorted(places))

    def beginnings(self) -> Offsets:
        """The first offset that the log still holds, of every partition."""
        return Offsets({place: low for place, (low, _) in self._bounds().items()})

    def ends(self) -> Offsets:
        """The end of what a read_committed reader can see, of every partition."""
        return Offsets({place: high for place, (_, high) in self._bounds().items()})

    def look(self) -> BoundsLook:
        """Asks what the log holds of every assigned partition; does not wait for the answer."""
        return BoundsLook(self._admin, self._next, REQUEST_S)

    def cuts(self, positions: Offsets, leaders: Offsets) -> Offsets:
        """Where logs were cut off since they were read; see ``catalog.cutoffs.cuts``."""
        return cuts(self._properties, positions, leaders, REQUEST_S)

    def assign(self, positions: Offsets, leaders: Offsets = _NONE) -> None:
        """Reads every partition from its position on; one that is not named, strictly from 0.

        Positions of topics that are not this reader's are left alone.

        Raises:
            LogGap: the log begins after a position.
            LogEndsEarly: the log ends before a position, or was cut off there since it was read at
                the epochs ``leaders`` (rule 12).
            SpecRefused: a topic does not exist.
            BrokerUnavailable: no answer.
        """
        bounds = self._bounds()
        check_all({p: n for p, n in positions.items() if p[0] in self._topics}, bounds)
        self._next = {place: positions.at(place) for place in bounds}
        self._leaders = {place: leaders[place] for place in bounds if place in leaders}
        refuse_cuts(positions, self.cuts(positions, self.leaders))
        self._ends = {place: high for place, (_, high) in bounds.items()}
        self._failed, self._taken = None, []
        wish = [
            TopicPartition(*place, position, leader_epoch=self._leaders.get(place, -1))
            for place, position in self._next.items()
        ]
        self._call(partial(self._consumer.assign, wish))
        self._handles = [TopicPartition(*place) for place in self._next]
        self._paused = False

    def discover(self, committed: Offsets = _NONE) -> tuple[Place, ...]:
        """Adds the partitions that the topics got since, read from what history has of them on.

        Raises:
            LogGap, LogEndsEarly: a new partition's log does not hold that position, 0 as a rule.
            SpecRefused, BrokerUnavailable: a topic does not exist; no answer.
        """
        new = tuple(place for place in self.partitions() if place not in self._next)
        if new:
            for place in new:
                low, high = self._bounds_of(place)
                check_bounds(place, committed.at(place), low, high)
                self._ends[place] = high
            self._next = dict(sorted({**self._next, **{p: committed.at(p) for p in new}}.items()))
            self._consumer.incremental_assign([TopicPartition(*p, self._next[p]) for p in new])
            self._handles = [TopicPartition(*place) for place in self._next]
            if self._paused:
                self._consumer.pause(self._handles)
        return new

    def poll(self, max_rows: int, timeout_s: float) -> Chunk | None:
        """The next records, or progress without records, or None after ``timeout_s`` seconds.

        Progress without records (an aborted tail, rule 3) is reported when nothing else came
        within the timeout; else it is part of the next chunk's ranges.

        Raises:
            LogGap: a position is no longer in the log, or the log went backwards.
            LogEndsEarly: the log ends before a position, or was cut off there.
            BrokerUnavailable: the client lost its brokers, or a topic is gone; poll again.
        """
        self._raise_failure()
        first = self._call(partial(self._consumer.poll, timeout_s))
        if first is not None:
            self._drain(first, max_rows)
            if not self._taken:
                self._raise_failure()
        return self._chunk()

    def pause(self) -> None:
        """Stops fetching; :meth:`poll` gives nothing but goes on serving the client's events."""
        if not self._paused:
            self._paused = True
            self._call(partial(self._consumer.pause, self._handles))

    def resume(self) -> None:
        """Fetches again."""
        if self._paused:
            self._paused = False
            self._call(partial(self._consumer.resume, self._handles))

    def commit_monitor(self, positions: Offsets) -> None:
        """Tells lag tools the positions; nobody reads them back."""
        if self._monitor and positions:
            offsets = [TopicPartition(*place, n) for place, n in positions.items()]
            self._call(partial(self._consumer.commit, offsets=offsets, asynchronous=True))

    def close(self) -> None:
        """Ends the consumer; idempotent."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _drain(self, first: Message, max_rows: int) -> None:
        """Takes what the client has queued, the first record included.

        About ``max_rows`` records, or :data:`CHUNK_BYTES` bytes of values.
        """
        messages, rows, size = [first], 0, 0
        while messages:
            good = self._without_errors(messages)
            if good:
                self._taken.append(take_apart(good, self._places))
                rows, size = rows + len(good), size + sum(map(len, good))
            mean = size // rows if rows else 0
            left = min(DRAIN_ROWS, max_rows - rows, (CHUNK_BYTES - size) // max(1, mean))
            if left <= 0 or self._failed is not None:
                break
            messages = self._call(partial(self._consumer.consume, left, 0))

    def _without_errors(self, messages: list[Message]) -> list[Message]:
        """The messages that are records; the first error is kept for the poll after them."""
        if any(map(Message.error, messages)):
            self._failed = self._failed or next(filter(Message.error, messages))
            return [message for message in messages if message.error() is None]
        return messages

    def _chunk(self) -> Chunk | None:
        """The taken rows with what the positions moved over; None if nothing moved."""
        ranges = self._moved()
        if not ranges and not self._taken:
            return None
        chunk = to_chunk(in_log_order(self._taken), ranges, self._places)
        self._next.update({(r.topic, r.partition): r.next for r in ranges})
        self._taken = []
        return chunk

    def _moved(self) -> tuple[Range, ...]:
        """The ranges that the consumer's positions moved over since the last chunk (rule 1)."""
        moved = []
        for handle in self._call(partial(self._consumer.position, self._handles)):
            place = (handle.topic, handle.partition)
            first = self._next[place]
            if handle.offset < 0 or handle.offset == first:  # negative: nothing was read yet
                continue
            epoch = handle.leader_epoch
            self._leaders[place] = -1 if epoch is None else max(epoch, self._leaders.get(place, -1))
            if handle.offset < first:
                raise LogGap(
                    f"{name_of(place)} went back from position {first} to {handle.offset}: "
                    "the broker lost records that were read"
                )
            moved.append(Range(*place, first, handle.offset))
        return tuple(moved)

    def _bounds(self) -> dict[Place, tuple[int, int]]:
        return {place: self._bounds_of(place) for place in self.partitions()}

    def _bounds_of(self, place: Place) -> tuple[int, int]:
        ask = partial(self._consumer.get_watermark_offsets, TopicPartition(*place))
        found: tuple[int, int] | None = self._call(partial(ask, timeout=REQUEST_S))
        if found is None:
            raise self._unavailable("no answer in time")
        return found

    def _raise_failure(self) -> None:
        failed = self._failed
        error = failed.error() if failed is not None else None
        if failed is None or error is None:
            return
        found = self._error(error, failed.topic(), failed.partition())
        # The client says "out of range" once and fetches no more: to be asked until it is known.
        if error.code() not in OUT_OF_RANGE or not found.retriable:
            self._failed = None
        raise found

    def _call(self, request: Callable[[], T]) -> T:
        try:
            return request()
        except KafkaException as error:
            raise self._error(error.args[0]) from error
        except TimeoutError as error:
            raise self._unavailable("no answer in time") from error
        except RuntimeError as error:
            raise BrokerUnavailable("the Kafka client is closed") from error

    def _error(
        self, error: KafkaError, topic: str | None = None, partition: int | None = None
    ) -> CatalogError:
        """Our error for one of the client's."""
        if error.code() in OUT_OF_RANGE and topic is not None and partition is not None:
            return self._out_of_range((topic, partition), cut_at(error))
        if error.code() in NO_TOPIC:
            return SpecRefused(
                f"topic {topic or ', '.join(self._topics)} does not exist: "
                "create it, or correct the table's topics"
            )
        return self._unavailable(error.str())

    def _out_of_range(self, place: Place, end: int | None) -> CatalogError:
        position = self._next[place]
        if end is not None:
            return cut_off(place, position, end)
        try:
            low, high = self._bounds_of(place)
            check_bounds(place, position, low, high)
        except CatalogError as error:
            return error
        return LogGap(f"{name_of(place)} has no offset {position} (log: {low} to {high})")

    def _unavailable(self, reason: str) -> BrokerUnavailable:
        last = self._client_log.last
        because = f"{reason}; {last}" if last and last not in reason else reason
        return BrokerUnavailable(
            f"no Kafka broker answers at {shorten(self._bootstrap)} ({shorten(because)}): "
            "check kafka.bootstrap.servers, the network and the broker"
        )
