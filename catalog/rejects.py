"""What happens to a record that cannot become a row: stop in front of it, skip it, or keep it.

* ``stop``: the rows before it count, the positions stay in front of it, and the error names it.
* ``skip``: its offset is passed and it is counted.
* ``dead_letter``: the same, and the next flush records it in the dead letter table.

A null value (a tombstone) is a reject, or passed over and counted on its own (``tombstones``).
Where more than ``max_reject_share`` of the last ``reject_window`` records were rejects, the topic
is wrong and not a record: the table stops in front of the chunk that showed it.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import PoisonRecord, TooManyRejects, shorten
from catalog.letters import Recorded, Waiting, letters_of
from catalog.offsets import Offsets, TopicPartition
from catalog.records import Chunk, Decoded, Range, Reject, RejectCount, RejectKind, RejectReport
from catalog.schemas import OFFSET, PARTITION, TOPIC
from catalog.spec import TableSpec
from catalog.tallies import Tallies, Tally

#: What a tombstone that is passed over is counted as.
TOMBSTONE = "tombstone"


@dataclass(frozen=True, slots=True)
class Judged:
    """What of a chunk counts.

    Attributes:
        batch, ranges: what becomes a segment.
        error: what stops the table behind that; None: nothing does.
        counted: rejects that were passed by kind, and tombstones that were passed over.
    """

    batch: pa.RecordBatch
    ranges: tuple[Range, ...]
    error: PoisonRecord | None = None
    counted: Mapping[str, int] = field(default_factory=dict)


class Passed:
    """Offsets of records that became no row, until a flush has counted them (``k2 verify``).

    Invariant, under ``_lock``: in the order in which they were read, so ascending. The decoding
    thread adds, the flushing thread counts and removes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offsets: dict[TopicPartition, array[int]] = {}

    def add(self, rejects: Iterable[Reject]) -> None:
        """Before their range is published: a flush that takes the range finds them."""
        with self._lock:
            for reject in rejects:
                place = reject.topic, reject.partition
                self._offsets.setdefault(place, array("q")).append(reject.offset)

    def between(self, first: Offsets, target: Offsets) -> Tallies:
        """How many lie in ``[first, target)``, as ``rejects`` of each partition.

        Those below ``first``, the recorded positions, are counted already, and forgotten.
        """
        counts: dict[TopicPartition, int] = {}
        with self._lock:
            for place, offsets in self._offsets.items():
                del offsets[: bisect_left(offsets, first.at(place))]
                counts[place] = bisect_left(offsets, target.at(place))
        return Tallies({place: Tally(0, rejects=n) for place, n in counts.items() if n})


class Rejects:
    """The rejects of one reading of the log. The decoding thread judges.

    Args:
        spec: the table.
        recorded: records that are letters already.
    """

    def __init__(self, spec: TableSpec, recorded: Recorded | None = None) -> None:
        self._spec = spec
        self._recorded = recorded or Recorded()
        self._window: deque[tuple[int, int]] = deque()
        self._counts: dict[TopicPartition, RejectCount] = {}
        self.waiting = Waiting()
        self.passed = Passed()
        self.report = RejectReport()

    def judge(self, chunk: Chunk, decoded: Decoded) -> Judged:
        """What of a chunk may be published; counts its rejects, letters begin to wait.

        Letters wait before their range is published: a flush that takes the range finds them.
        """
        decoded = self._without_recorded(chunk, decoded)
        new = [r for r in decoded.rejects if not self._is_passed(r)]
        if self._spec.on_error == "stop":
            batch, ranges = rows_before(chunk, replace(decoded, rejects=tuple(new)))
            error = poison(new, self._spec)
        elif (flood := self._flood(len(chunk.values), len(new))) is not None:
            return Judged(decoded.batch.slice(0, 0), (), flood)
        else:
            batch, ranges, error = decoded.batch, chunk.ranges, None
            if new and self._spec.on_error == "dead_letter":
                self.waiting.add(letters_of(chunk, new, time.time_ns() // 1000))
        passed = [r for r in decoded.rejects if error is None or self._is_skipped(r)]
        self.passed.add(sorted(passed, key=lambda r: r.offset))
        self._count(passed)
        kinds = Counter(TOMBSTONE if self._is_skipped(r) else str(r.kind) for r in passed)
        return Judged(batch, ranges, error, kinds)

    def _without_recorded(self, chunk: Chunk, decoded: Decoded) -> Decoded:
        """Rows that are letters already become rejects again."""
        if not self._recorded.touches(chunk.ranges):
            return decoded
        hit = self._recorded.among(decoded.batch)
        if hit is None:
            return decoded
        why = "recorded as a dead letter before the table was read again"
        again = [
            Reject(-1, row[TOPIC], row[PARTITION], row[OFFSET], RejectKind.RECORDED, None, why)
            for row in decoded.batch.select([TOPIC, PARTITION, OFFSET])
            .filter(pa.array(hit))
            .to_pylist()
        ]
        return Decoded(decoded.batch.filter(pa.array(~hit)), (*decoded.rejects, *again))

    def _is_passed(self, reject: Reject) -> bool:
        """Whether nothing is to be done about it any more."""
        recorded = self._recorded.holds((reject.topic, reject.partition), reject.offset)
        return recorded or self._is_skipped(reject)

    def _is_skipped(self, reject: Reject) -> bool:
        return reject.kind == RejectKind.NULL_VALUE and self._spec.tombstones == "skip"

    def _flood(self, records: int, rejects: int) -> TooManyRejects | None:
        """Counts a chunk into the window; the error if the share is over the limit."""
        spec = self._spec
        self._window.append((records, rejects))
        seen = sum(count for count, _ in self._window)
        while seen - self._window[0][0] >= spec.reject_window:
            seen -= self._window.popleft()[0]
        bad = sum(count for _, count in self._window)
        if seen < spec.reject_window or bad <= spec.max_reject_share * seen:
            return None
        return TooManyRejects(
            f"table {spec.name}: {bad} of the last {seen} records cannot be decoded, more than "
            f"max_reject_share = {spec.max_reject_share:g}. The table stops in front of them; look "
            f"at system.rejects, correct the producer or the table's schema, or raise "
            f"max_reject_share (1.0 turns it off), then restart the ingest"
        )

    def _count(self, rejects: Sequence[Reject]) -> None:
        for reject in rejects:
            place = reject.topic, reject.partition
            known = self._counts.get(place) or RejectCount(*place)
            if self._is_skipped(reject):
                self._counts[place] = replace(known, tombstones=known.tombstones + 1)
            else:
                self._counts[place] = replace(
                    known,
                    rejected=known.rejected + 1,
                    last_offset=reject.offset,
                    last_error=str(reject.kind),
                    last_message=shorten(reject.reason),
                    last_us=time.time_ns() // 1000,
                )
        if rejects:
            self.report.counts = tuple(self._counts[place] for place in sorted(self._counts))


def poison(rejects: Sequence[Reject], spec: TableSpec) -> PoisonRecord | None:
    """The error that stops the table; None without rejects.

    Names the first one's topic, partition, offset and schema id, and how many partitions have one.
    """
    first = _first_of_each(rejects)
    if not first:
        return None
    reject = next(iter(first.values()))
    schema = "no schema id" if reject.schema_id is None else f"schema id {reject.schema_id}"
    more = f" ({len(first) - 1} more partitions have one)" if len(first) > 1 else ""
    return PoisonRecord(
        f"table {spec.name}: the record at topic {shorten(reject.topic)!r}, partition "
        f"{reject.partition}, offset {reject.offset} ({schema}) cannot be decoded: "
        f"{reject.reason}{more}. The table stops in front of it; set on_error to skip or "
        f"dead_letter, or correct the schema, then restart the ingest"
    )


def rows_before(chunk: Chunk, decoded: Decoded) -> tuple[pa.RecordBatch, tuple[Range, ...]]:
    """What of a chunk may be published although it holds rejects.

    Returns:
        The rows of every partition before its first reject, in the chunk's order, and the chunk's
        ranges cut to end at that reject's offset, so that positions never pass it; ranges that
        end where they begin are left out. Without rejects: everything.
    """
    stops = {tp: reject.offset for tp, reject in _first_of_each(decoded.rejects).items()}
    if not stops:
        return decoded.batch, chunk.ranges
    keep = np.ones(decoded.batch.num_rows, np.bool_)
    for (topic, partition), offset in stops.items():
        keep &= ~_at_or_after(decoded.batch, topic, partition, offset)
    ranges = (
        replace(r, next=min(r.next, stops.get((r.topic, r.partition), r.next)))
        for r in chunk.ranges
    )
    return decoded.batch.filter(pa.array(keep)), tuple(r for r in ranges if r.first < r.next)


def _first_of_each(rejects: Sequence[Reject]) -> dict[TopicPartition, Reject]:
    """The first reject of every partition that has one, in order of partition."""
    first: dict[TopicPartition, Reject] = {}
    for reject in sorted(rejects, key=lambda r: (r.topic, r.partition, r.offset)):
        first.setdefault((reject.topic, reject.partition), reject)
    return first


def _at_or_after(
    batch: pa.RecordBatch, topic: str, partition: int, offset: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    same_topic = pc.equal(batch.column(TOPIC), topic)
    same_partition = pc.equal(batch.column(PARTITION), pa.scalar(partition, pa.int32()))
    later = pc.greater_equal(batch.column(OFFSET), pa.scalar(offset, pa.int64()))
    return np.asarray(pc.and_(pc.and_(same_topic, same_partition), later), np.bool_)
