"""What a table's ingest publishes: the one state that its threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from catalog import reasons
from catalog.cuts import oldest, reaches, share_above
from catalog.declaration import schema_id
from catalog.errors import CatalogError, LiveFolderFull
from catalog.heads import Head
from catalog.manifest import Manifest, State
from catalog.mapped import Told
from catalog.offsets import NOBODY, Offsets, TopicIdentity
from catalog.records import LogBounds, RejectReport, Segment, Unflushed
from catalog.segments import LiveWriter
from catalog.spec import TableName

_NONE = Offsets()


@dataclass(frozen=True, slots=True)
class Origin:
    """What an ingest of a table begins with.

    Attributes:
        topics: their identities when it began, sorted by name.
        schema_id: registry id of the declared schema.
        ends: the log's ends when it began; the table is catching up until it has reached them.
        live_max_bytes: the bound on live bytes.
    """

    name: TableName
    topics: tuple[TopicIdentity, ...]
    schema_id: int
    arrow_schema: pa.Schema
    ends: Offsets
    live_max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tail:
    """Some of the live table at one moment: ``segments`` cover [C, high) of every partition.

    ``leaders`` are the leader epochs at which it was read.
    """

    head: Head
    segments: tuple[Segment, ...]
    high: Offsets
    leaders: Offsets


class Publication:
    """The live table of one ingest run, and its manifest (docs/architecture.md rules 10, 12, 14).

    Invariant, under ``_lock``: ``_segments`` are oldest first and cover, per partition and without
    a hole, from C or below up to ``_high``; the manifest on disk is this state as it once was (or
    the one that was found at the start, until this state has reached it); E never goes back.

    Writers: the decoding thread extends, the merging thread replaces segments, the flushing thread
    moves the head and trims, the consuming thread says when it pauses. Any of them publishes; what
    one of them put in, each may publish, so rows come in only after their topic was verified.
    """

    def __init__(self, writer: LiveWriter, origin: Origin, head: Head) -> None:
        previous = writer.previous()
        same = previous is not None and previous.table_uuid == head.table_uuid
        self._writer = writer
        self._origin = origin
        self._lock = threading.Lock()
        self._head = head
        self._segments: tuple[Segment, ...] = ()
        self._high = self._committed()
        self._watermarks = origin.ends
        self._leaders = Offsets()
        self._log: tuple[LogBounds, ...] = ()
        self.told = Told(origin.arrow_schema)
        self._rows = self._bytes = 0
        self._oldest_s: float | None = None
        self._newer_s: float | None = None
        self._takes_all = True
        self._left = False
        self._in_use: list[tuple[Segment, ...]] = []
        self._held = previous if same else None
        self._sequence = previous.sequence if previous is not None else 0
        self._caught_up = self._paused = False
        self._writes = True
        self._stopped: CatalogError | None = None
        self._troubles: dict[str, CatalogError] = {}
        #: What is said about rejects: counts, and how many letters are recorded.
        self.rejects = RejectReport()
        self._unsaid: LiveFolderFull | None = None

    @property
    def head(self) -> Head:
        """The newest head of the table that this run knows."""
        return self._head

    @property
    def committed(self) -> Offsets:
        """C, the positions that the head records."""
        return self._committed()

    @property
    def held(self) -> Manifest | None:
        """The manifest of an earlier run that this one has not reached yet (rule 12)."""
        return self._held

    @property
    def owed(self) -> Offsets:
        """Where :attr:`held` ends, of the topics that are still read (rule 12).

        A topic that the declaration lost, or another one of its name, is never reached.
        """
        if self._held is None:
            return Offsets()
        read = {one.topic for one in {*self._held.topics} & {*self._origin.topics}}
        return Offsets({tp: position for tp, position in self._held.high.items() if tp[0] in read})

    @property
    def live_bytes(self) -> int:
        """Bytes of all live segments."""
        return sum(segment.bytes for segment in self._segments)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The live segments, oldest first."""
        return self._segments

    @property
    def unsaid(self) -> LiveFolderFull | None:
        """Why the manifest on disk is older than this state; None: it is not."""
        return self._unsaid

    @property
    def stopped(self) -> CatalogError | None:
        """The error that stopped the table."""
        return self._stopped

    def claimed(self, head: Head) -> None:
        """The table is ours from ``head`` on; the live table starts empty at its positions."""
        with self._lock:
            self._head = head
            self._high = self._committed()

    def extend(
        self,
        segment: Segment,
        watermarks: Offsets,
        declared: pa.Schema | None = None,
        leaders: Offsets = _NONE,
    ) -> None:
        """Adds what was read next. Its topic's identity was verified after it was read (rule 9).

        ``declared`` is the declaration of its rows and of the versions to come, None: as before;
        ``leaders`` the leader epochs at which it was read.
        """
        now = time.monotonic()
        with self._lock:
            if declared is not None:
                self.told.move_to(declared)
            if reaches(segment, self._committed()):  # a follower may lag behind history
                self._segments = (*self._segments, segment)
                self._rows += segment.rows
                self._bytes += segment.bytes
            moved = [((part.topic, part.partition), part.next) for part in segment.parts]
            self._high = self._high.with_positions(moved)
            self._watermarks = watermarks.max(self._high)
            self._leaders = leaders
            self._oldest_s = now if self._oldest_s is None else self._oldest_s
            self._newer_s = now if self._newer_s is None else self._newer_s

    def replace(self, inputs: Sequence[Segment], merged: Segment) -> None:
        """Puts a merged segment in the place of its inputs.

        Inputs that a moved head has dropped meanwhile do not matter: their rows lie below C. When
        all are gone, so is the merged one.
        """
        gone = set(inputs)
        with self._lock:
            at = next((i for i, one in enumerate(self._segments) if one in gone), None)
            if at is not None:
                kept = [one for one in self._segments if one not in gone]
                self._segments = (*kept[:at], merged, *kept[at:])

    def move_head(self, head: Head) -> None:
        """Follows the table (rules 10 and 13): segments wholly below its positions are dropped."""
        with self._lock:
            self._head = head
            committed = self._committed()
            self._segments = tuple(one for one in self._segments if reaches(one, committed))
            shares = [share_above(one, committed) for one in self._segments]
            self._rows = sum(rows for rows, _ in shares)
            self._bytes = sum(size for _, size in shares)

    def begin_flush(self, max_rows: int, max_bytes: int) -> Tail:
        """What a flush is to take: the oldest segments, up to the first that reaches a bound.

        Where that is all of them, ages count from here on for what comes later.
        """
        with self._lock:
            taken = oldest(self._segments, max_rows, max_bytes)
            self._takes_all = len(taken) == len(self._segments)
            if self._takes_all:
                self._newer_s = None
                return Tail(self._head, taken, self._high, self._leaders)
            ends = [
                ((part.topic, part.partition), part.next) for one in taken for part in one.parts
            ]
            high = self._committed().max(Offsets().with_positions(ends))
            return Tail(self._head, taken, high, self._leaders)

    def flushed(self) -> None:
        """What :meth:`begin_flush` gave is committed; what it left is as old as it was."""
        with self._lock:
            self._left = not self._takes_all
            if self._takes_all:
                self._oldest_s = self._newer_s

    def unflushed(self) -> Unflushed:
        """What a flush would take now."""
        with self._lock:
            age_s = None if self._oldest_s is None else time.monotonic() - self._oldest_s
            return Unflushed(self._rows, self._bytes, age_s, self._left)

    def say_paused(self, *, paused: bool) -> None:
        """Whether the consumer is paused."""
        with self._lock:
            self._paused = paused

    def say_log(self, log: tuple[LogBounds, ...]) -> bool:
        """What the log holds now, of all partitions; whether that is news."""
        ends = Offsets({(bounds.topic, bounds.partition): bounds.end for bounds in log})
        with self._lock:
            news = log != self._log
            self._log = log
            self._watermarks = ends.max(self._high)
            return news

    def say_role(self, *, writes: bool) -> None:
        """Whether this ingest flushes the table, or follows another one that does."""
        with self._lock:
            self._writes = writes

    def say_trouble(self, where: str, trouble: CatalogError | None) -> bool:
        """What is being retried at ``where``, None when it is over; whether that is news."""
        with self._lock:
            news = str(trouble) != str(self._troubles.get(where))
            self._troubles.pop(where, None)
            if trouble is not None:
                self._troubles[where] = trouble
            return news

    def stop(self, error: CatalogError) -> None:
        """Publishes that ``error`` stopped the table, on top of the newest exact prefix."""
        with self._lock:
            self._stopped = self._stopped or error
            if self._held is not None and not self._end().covers(self._held.high):
                self._write_held(self._held)
                return
        self.publish()

    def publish(self) -> Manifest | None:
        """Replaces the manifest (rule 10).

        None while an earlier run's reaches further: that one stays, and says how far this run has
        come (rule 12). None, too, while there is no room: see :attr:`unsaid`.
        """
        with self._lock:
            end = self._end()
            if self._held is not None and not end.covers(self.owed):
                self._write_held(self._held)
                return None
            self._held = None
            self._caught_up = self._caught_up or end.covers(self._origin.ends)
            self._sequence += 1
            owner = self._head.marker or NOBODY
            manifest = Manifest(
                table=self._origin.name,
                table_uuid=self._head.table_uuid,
                topics=self._origin.topics,
                snapshot_id=self._head.snapshot_id,
                metadata_location=self._head.metadata_location,
                committed=self._committed(),
                high=end,
                watermarks=self._watermarks,
                segments=self._segments,
                schema_id=schema_id(self.told.newest) or self._origin.schema_id,
                arrow_schema=self.told.newest,
                published_us=time.time_ns() // 1000,
                sequence=self._sequence,
                live_max_bytes=self._origin.live_max_bytes,
                log=self._log,
                older=self.told.older({one.declared for one in self._segments}),
                replays=owner.replays,
                rejects=self.rejects.counts,
                letters=self.rejects.letters,
                role="writer" if self._writes else "follower",
                owner=owner.owner,
                epoch=owner.epoch,
                leaders=owner.leaders_at(self._high, self._leaders),
            )
            return self._write(manifest)

    @contextmanager
    def using(self, segments: tuple[Segment, ...]) -> Iterator[None]:
        """Keeps the files of ``segments`` from being trimmed meanwhile."""
        with self._lock:
            self._in_use.append(segments)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.remove(segments)

    def trim(self) -> int:
        """Removes files that nobody needs any more (rule 14); returns the bytes freed."""
        with self._lock:
            keep = {*self._segments, *(one for used in self._in_use for one in used)}
            if self._held is not None:
                keep.update(self._held.segments)
            return self._writer.trim(keep, time.monotonic())

    def _write(self, manifest: Manifest) -> Manifest | None:
        """None where there is no room: the older manifest stays, and :attr:`unsaid` says why."""
        error = self._stopped or next(iter(self._troubles.values()), None)
        said = replace(_saying(manifest, self._state(), error), reason=self._reason())
        try:
            self._writer.publish(said)
        except LiveFolderFull as full:
            self._unsaid = full
            return None
        self._unsaid = None
        return said

    def _write_held(self, held: Manifest) -> None:
        """The version of an earlier run with the state, and the view of the log, of this one."""
        self._sequence += 1
        watermarks = held.watermarks.max(self._watermarks)
        said = replace(held, sequence=self._sequence, watermarks=watermarks, log=self._log)
        self._held = self._write(said) or held

    def _state(self) -> State:
        if self._stopped is not None:
            return "stopped"
        if self._paused or reasons.ROOM in self._troubles:
            return "paused"
        return "running" if self._caught_up else "catching_up"

    def _reason(self) -> str | None:
        if self._stopped is not None:
            return None  # its error says it
        if self._held is not None:
            return reasons.reading_again(self._committed(), self._end(), self.owed)
        if self._paused:
            return reasons.at_bound(self._origin.live_max_bytes)
        if reasons.ROOM in self._troubles:
            return reasons.NO_ROOM
        if not self._caught_up:
            return reasons.catching_up(self._end(), self._origin.ends)
        return None

    def _committed(self) -> Offsets:
        return (self._head.marker or NOBODY).positions

    def _end(self) -> Offsets:
        return self._committed().max(self._high)


def stop_previous(writer: LiveWriter, error: CatalogError) -> None:
    """Publishes that nobody continues the version of an earlier run, if there is one."""
    previous = writer.previous()
    if previous is not None:
        next_one = replace(previous, sequence=previous.sequence + 1)
        writer.publish(_saying(next_one, "stopped", error))


def _saying(manifest: Manifest, state: State, error: CatalogError | None) -> Manifest:
    return replace(
        manifest,
        state=state,
        error_code=None if error is None else error.code,
        error=None if error is None else f"{type(error).__name__}: {error}",
    )
