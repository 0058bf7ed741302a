"""Proves answers: pure, knows the log and nothing of how an answer was made.

The log of a topic is what its producer was told it wrote (delivery reports): per partition the
offsets that hold a committed record, with a hash of the record's content. An answer is the rows
that a reader got: topic, partition, offset and the hash computed from the row's columns. The claim:

* per partition, an answer is an exact prefix of the log: no offset twice, none missing, none that
  the log lacks (an aborted record, say), and every row's content is the record's content;
* within a session the prefixes never get shorter;
* every record that was acknowledged is there once the producer has stopped and the reader waited.

Offsets that hold no record (control records, aborted transactions) are not in the log, so a
prefix steps over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

#: (topic, partition)
Place = tuple[str, int]
#: [first, next) of offsets, several of them, in any order.
Ranges = Sequence[tuple[int, int]]
#: The end of a range that has none.
OPEN = (1 << 63) - 1
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Log:
    """One partition's records.

    Attributes:
        offsets: where the records stand, ascending.
        hashes: the content's hash, in the same order.
    """

    offsets: Ints
    hashes: Hashes

    @classmethod
    def of(cls, records: Mapping[int, int]) -> Log:
        """A log from offset → hash."""
        offsets = np.fromiter(sorted(records), np.int64, len(records))
        hashes = np.fromiter((records[int(o)] for o in offsets), np.uint64, len(records))
        return cls(offsets, hashes)


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of one answer, one entry per row in each array, in any order."""

    partitions: Mapping[Place, tuple[Ints, Hashes]]

    @property
    def ends(self) -> dict[Place, int]:
        """Per partition the offset after the last row."""
        return {
            place: int(offsets.max()) + 1
            for place, (offsets, _) in self.partitions.items()
            if len(offsets)
        }

    @property
    def rows(self) -> int:
        """How many rows the answer has."""
        return sum(len(offsets) for offsets, _ in self.partitions.values())


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which an answer is wrong.

    Attributes:
        kind: doubled, missing, foreign, torn or regressed.
        place: the partition.
        count: how many rows are concerned.
        example: the first offset (for regressed: the end before, then now; for a digest: its last).
    """

    kind: str
    place: Place
    count: int
    example: tuple[int, ...]

    def __str__(self) -> str:
        topic, partition = self.place
        return f"{self.count} {self.kind} in {topic}[{partition}], first {self.example}"


def check_answer(answer: Answer, log: Mapping[Place, Log]) -> list[Fault]:
    """Every way in which ``answer`` is not an exact prefix of ``log`` per partition."""
    faults: list[Fault] = []
    for place, (offsets, hashes) in answer.partitions.items():
        order = np.argsort(offsets, kind="stable")
        faults += _check_partition(place, offsets[order], hashes[order], log.get(place))
    return faults


def _check_partition(place: Place, offsets: Ints, hashes: Hashes, log: Log | None) -> list[Fault]:
    if log is None:
        return [Fault("foreign", place, len(offsets), (int(offsets[0]),))] if len(offsets) else []
    faults = []
    again = np.flatnonzero(np.diff(offsets) == 0)
    if len(again):
        faults.append(Fault("doubled", place, len(again), (int(offsets[again[0]]),)))
        keep = np.concatenate(([True], np.diff(offsets) != 0))
        offsets, hashes = offsets[keep], hashes[keep]
    at = np.searchsorted(log.offsets, offsets)
    known = at < len(log.offsets)
    known[known] = log.offsets[at[known]] == offsets[known]
    if not known.all():
        strange = offsets[~known]
        faults.append(Fault("foreign", place, len(strange), (int(strange[0]),)))
        at, hashes = at[known], hashes[known]
    if len(at) and int(at[-1]) + 1 != len(at):
        absent = np.setdiff1d(np.arange(int(at[-1]) + 1), at)
        faults.append(Fault("missing", place, len(absent), (int(log.offsets[absent[0]]),)))
    torn = np.flatnonzero(log.hashes[at] != hashes)
    if len(torn):
        faults.append(Fault("torn", place, len(torn), (int(log.offsets[at[torn[0]]]),)))
    return faults


@dataclass(frozen=True, slots=True)
class Digest:
    """An answer that the engine has added up itself: one partition's aggregates.

    Attributes:
        rows: ``count(*)``.
        last: ``max(_offset)``.
        sums: sums over the partition's rows, ``sum(_offset)`` first, then of values that were
            drawn at random per record: a doubled and a missing row do not cancel out.
    """

    rows: int
    last: int
    sums: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """One partition's log with the running totals that digests are compared with.

    Attributes:
        offsets: where the records stand, ascending.
        sums: per summed value its running total, aligned with ``offsets``.
    """

    offsets: Ints
    sums: tuple[Ints, ...]

    @classmethod
    def of(cls, offsets: Ints, *values: Ints) -> Totals:
        """Running totals over the log; ``offsets`` is the first summed value."""
        return cls(offsets, tuple(np.cumsum(value) for value in (offsets, *values)))


def check_digest(place: Place, digest: Digest, totals: Totals | None) -> list[Fault]:
    """Whether the aggregates are those of the prefix that ends at the digest's last offset."""
    if totals is None:
        return [Fault("foreign", place, digest.rows, (digest.last,))]
    at = int(np.searchsorted(totals.offsets, digest.last))
    if at == len(totals.offsets) or int(totals.offsets[at]) != digest.last:
        return [Fault("foreign", place, 1, (digest.last,))]
    if digest.rows != at + 1:
        kind = "doubled" if digest.rows > at + 1 else "missing"
        return [Fault(kind, place, abs(at + 1 - digest.rows), (digest.last,))]
    expected = tuple(int(total[at]) for total in totals.sums)
    return [] if expected == digest.sums else [Fault("torn", place, 1, (digest.last,))]


@dataclass(slots=True)
class Session:
    """What one session has seen; its prefixes never get shorter (rule 20).

    Attributes:
        seen: per partition the greatest end so far (the offset after the last row).
    """

    seen: dict[Place, int] = field(default_factory=dict)

    def check(self, ends: Mapping[Place, int]) -> list[Fault]:
        """The partitions in which an answer's ends are behind what this session has seen."""
        faults = []
        for place in sorted({*self.seen, *ends}):
            before, now = self.seen.get(place, 0), ends.get(place, 0)
            if now < before:
                faults.append(Fault("regressed", place, before - now, (before, now)))
            self.seen[place] = max(before, now)
        return faults


def check_complete(answer: Answer, log: Mapping[Place, Log]) -> list[Fault]:
    """The acknowledged records that ``answer`` lacks: for the end, when all must be visible."""
    faults = check_answer(answer, log)
    for place, records in log.items():
        offsets, _ = answer.partitions.get(place, (np.empty(0, np.int64), None))
        absent = np.setdiff1d(records.offsets, offsets)
        if len(absent) and not any(f.kind == "missing" and f.place == place for f in faults):
            faults.append(Fault("missing", place, len(absent), (int(absent[0]),)))
    return faults


def check_window(
    answer: Answer, log: Mapping[Place, Log], ranges: Mapping[Place, Ranges]
) -> list[Fault]:
    """Like :func:`check_answer` for an answer that was asked for the rows of ``ranges`` only."""
    cut = {place: _cut(records, ranges.get(place, ())) for place, records in log.items()}
    return check_answer(answer, cut)


def _cut(log: Log, ranges: Ranges) -> Log:
    """The records in any of the ranges, once each."""
    rows, seen = [np.empty(0, np.int64)], 0
    for bounds in sorted(ranges):
        first, end = (max(seen, int(at)) for at in np.searchsorted(log.offsets, bounds))
        rows.append(np.arange(first, end))
        seen = end
    kept = np.concatenate(rows)
    return Log(log.offsets[kept], log.hashes[kept])


def merge_logs(logs: Sequence[Mapping[Place, Log]]) -> dict[Place, Log]:
    """Several producers' reports as one log."""
    merged: dict[Place, Log] = {}
    for place in sorted({place for log in logs for place in log}):
        parts = [log[place] for log in logs if place in log]
        offsets = np.concatenate([part.offsets for part in parts])
        hashes = np.concatenate([part.hashes for part in parts])
        order = np.argsort(offsets, kind="stable")
        merged[place] = Log(offsets[order], hashes[order])
    return merged
