"""Which offsets were seen, and how often: a byte per offset, in windows of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from catalog.offsets import TopicPartition
from catalog.schemas import PARTITION, TOPIC
from catalog.tallies import checksum

Int64s: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
Bools: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]

#: Offsets of one window, a byte each: 10^9 offsets are looked at in four turns.
WINDOW_OFFSETS = 256 * 1024**2
#: Bits of a byte: the table holds the offset; the log does.
IN_TABLE, IN_LOG = 1, 2
#: Offsets that a finding names.
NAMED = 5
#: Bits of a row's code that hold the partition; the topic's number stands above them.
_PARTITION_BITS = 32


class Numbers:
    """Partitions by number: what a row is told apart by.

    Args:
        places: a partition's number is its index in them.
    """

    def __init__(self, places: Sequence[TopicPartition]) -> None:
        self._topics = {topic: n for n, topic in enumerate(sorted({t for t, _ in places}))}
        codes = [(self._topics[topic] << _PARTITION_BITS) + p for topic, p in places]
        # The last code is nobody's: of rows of other topics, and where there is no place at all.
        self._nobody = len(self._topics)
        codes.append(self._nobody << _PARTITION_BITS)
        self._codes = np.array(codes, np.int64)
        self._order = np.argsort(self._codes)
        self._sorted = self._codes[self._order]
        self._order[self._order == len(places)] = -1

    def of(self, batch: pa.RecordBatch) -> Int64s:
        """Each row's partition; -1: none of them.

        Args:
            batch: rows with ``_topic`` (text, or a dictionary of it) and ``_partition``.
        """
        topics = batch.column(TOPIC)
        if not pa.types.is_dictionary(topics.type):
            topics = topics.dictionary_encode()
        known = [self._topics.get(topic, self._nobody) for topic in topics.dictionary.to_pylist()]
        numbers = np.array([*known, self._nobody], np.int64)
        codes = numbers[topics.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        partitions = batch.column(PARTITION).fill_null(-1).to_numpy(zero_copy_only=False)
        codes = (codes << _PARTITION_BITS) + partitions
        at = np.minimum(np.searchsorted(self._sorted, codes), len(self._sorted) - 1)
        found: Int64s = np.where(self._sorted[at] == codes, self._order[at], -1)
        return found


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition that are looked at together, half-open.

    Attributes:
        counted: from here on rows and checksum are compared with the table's tally.
    """

    place: TopicPartition
    first: int
    next: int
    counted: int


@dataclass(slots=True)
class Count:
    """What was seen of one partition, added up over windows.

    Attributes:
        rows: rows in ``[counted, next)``.
        sum: the checksum of their offsets.
        older_rows: rows below ``counted``.
        doubled: rows whose offset another row has; ``named_doubles`` are the first of them.
    """

    rows: int = 0
    sum: int = 0
    older_rows: int = 0
    doubled: int = 0
    named_doubles: list[int] = field(default_factory=list)

    def add(self, offsets: Int64s, counted: int) -> None:
        """Takes in offsets."""
        newer = offsets if offsets.min() >= counted else offsets[offsets >= counted]
        self.older_rows += len(offsets) - len(newer)
        self.rows += len(newer)
        self.sum = (self.sum + checksum(newer)) % 2**64

    def add_doubled(self, offsets: Int64s) -> None:
        """Takes in offsets that were there already."""
        self.doubled += len(offsets)
        self.named_doubles += offsets[: max(0, NAMED - len(self.named_doubles))].tolist()


def windows(ranges: Sequence[Range], most: int = WINDOW_OFFSETS) -> Iterator[tuple[Range, ...]]:
    """The ranges in turns of at most ``most`` offsets: each turn the next share of every range.

    All partitions move on together because a file holds the rows of one time, of all of them.
    """
    total = sum(r.next - r.first for r in ranges)
    turns = max(1, -(-total // most))
    for turn in range(turns):
        yield tuple(
            Range(
                r.place,
                r.first + (r.next - r.first) * turn // turns,
                r.first + (r.next - r.first) * (turn + 1) // turns,
                r.counted,
            )
            for r in ranges
        )


class Window:
    """One turn. Belongs to one thread.

    Args:
        ranges: what it looks at; offsets outside are left to other turns.
        counts: per partition what all turns saw of the table, added to.
    """

    def __init__(self, ranges: Sequence[Range], counts: Mapping[TopicPartition, Count]) -> None:
        self._ranges = tuple(ranges)
        self._counts = counts
        self._first = np.array([r.first for r in ranges], np.int64)
        self._next = np.array([r.next for r in ranges], np.int64)
        self._base = np.concatenate(([0], np.cumsum(self._next - self._first)))
        self._bytes = np.zeros(int(self._base[-1]), np.uint8)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What this turn looks at."""
        return self._ranges

    def add_rows(self, places: Int64s, offsets: Int64s) -> None:
        """Rows of the table.

        Args:
            places: per row the number of its range.
            offsets: per row, in any order.
        """
        for at, mine in self._parted(places, offsets):
            here = self._part(at)
            slots = mine - self._first[at]
            again = here[slots] != 0
            count = self._counts[self._ranges[at].place]
            count.add(mine, self._ranges[at].counted)
            if again.any():
                count.add_doubled(np.sort(mine[again]))
            if _set(here, slots) != len(mine) - np.count_nonzero(again):
                count.add_doubled(_twice(mine[~again]))

    def add_log(self, places: Int64s, offsets: Int64s) -> None:
        """Records of the log, in any order."""
        for at, mine in self._parted(places, offsets):
            self._part(at)[mine - self._first[at]] |= IN_LOG

    def only(self, at: int, bit: int, first: int) -> Int64s:
        """Offsets of range ``at``, from ``first`` on, of which ``bit`` alone is set."""
        skipped = min(max(first - int(self._first[at]), 0), len(self._part(at)))
        found = np.flatnonzero(self._part(at)[skipped:] == bit)
        offsets: Int64s = found + (skipped + int(self._first[at]))
        return offsets

    def _part(self, at: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        return self._bytes[self._base[at] : self._base[at + 1]]

    def _parted(self, places: Int64s, offsets: Int64s) -> Iterator[tuple[int, Int64s]]:
        """The offsets that lie in this turn, range by range; unsorted: sorting costs most."""
        inside = (offsets >= self._first[places]) & (offsets < self._next[places])
        if not inside.all():
            places, offsets = places[inside], offsets[inside]
        if np.any(places[1:] < places[:-1]):
            few = len(self._ranges) <= np.iinfo(np.uint16).max
            keys = places.astype(np.uint16) if few else places  # 16 bits: a radix sort
            order = np.argsort(keys, kind="stable")
            places, offsets = places[order], offsets[order]
        edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
        for first, next_ in pairwise(edges):
            if next_ > first:
                yield int(places[first]), offsets[first:next_]


def _set(here: np.ndarray[tuple[int], np.dtype[np.uint8]], slots: Int64s) -> int:
    """Marks the slots; how many were not marked before, each counted once."""
    low, high = int(slots.min()), int(slots.max()) + 1
    reach = here[low:high].view(np.bool_)
    before = np.count_nonzero(reach)
    here[slots] = IN_TABLE
    return int(np.count_nonzero(reach) - before)


def _twice(offsets: Int64s) -> Int64s:
    """Those that are there already, sorted."""
    rising = np.sort(offsets)
    again: Int64s = rising[1:][rising[1:] == rising[:-1]]
    return again
