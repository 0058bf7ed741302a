"""Which live segments are merged, and when: the tiers of an LSM tree's level 0.

Publications come every few milliseconds and a query wants few batches, so neighbours of one size
class are merged eight at a time; each merge moves rows up a class, so a row is rewritten at most
once per class (classes 1 to 4), apart from the smallest class, whose merges cost little more than
the call itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from catalog.records import Segment

#: How many of one size class are merged into one: the fan-in of the tree.
FAN_IN = 8
#: Lower bounds of the size classes 1 to 4, in bytes: each eight times the last, so that eight of
#: one class make one of the next. The first is what about 4,000 narrow rows take, where writing
#: the file costs as much as writing the rows.
CLASS_BYTES = (512 * 1024, 4 * 1024**2, 32 * 1024**2, 128 * 1024**2)
#: Segments of this class are never merged again: one more merge would copy gigabytes, and a
#: column of strings holds 2 GiB at most. Merging stops as soon as a group has reached it.
LARGE = len(CLASS_BYTES)
LARGE_BYTES = CLASS_BYTES[-1]


def size_class(segment: Segment) -> int:
    """0 (smallest) to :data:`LARGE`."""
    return bisect_right(CLASS_BYTES, segment.bytes)


def merge_due(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The neighbours to merge next; empty where nothing is due.

    With nothing due, every class below LARGE has fewer than eight segments, and between two of
    them lies at most one smaller segment: at most 43 in all for any sizes, about 25 for even
    ones, beside the large ones, of which there are (live bytes / 128 MiB).

    Args:
        segments: the live list, oldest first. Neighbours in it hold neighbouring positions, so
            that any group of neighbours covers each partition without a hole.
    """
    classes = [size_class(segment) for segment in segments]
    for level in range(LARGE):
        for start, stop in _runs(classes, level):
            group = _due(segments[start:stop], level, closed=stop < len(segments))
            if group:
                return group
    return ()


def _runs(classes: Sequence[int], level: int) -> Iterator[tuple[int, int]]:
    """The longest runs ``[start, stop)`` of neighbours that are of this class or a lower one."""
    start = 0
    for index, found in enumerate(classes):
        if found > level:
            if start < index:
                yield start, index
            start = index + 1
    if start < len(classes):
        yield start, len(classes)


def _due(run: Sequence[Segment], level: int, *, closed: bool) -> tuple[Segment, ...]:
    """The part of a run that is due.

    Args:
        run: neighbours of class ``level`` or lower.
        level: the class.
        closed: a larger segment follows, so the run will never grow: it is merged as it is,
            or its small ones would stay for as long as the large ones do.
    """
    members = [index for index, segment in enumerate(run) if size_class(segment) == level]
    if closed and len(run) > 1:
        return _until_large(run)
    if len(members) >= FAN_IN:
        return _until_large(run[members[0] : members[FAN_IN - 1] + 1])
    if level == LARGE - 1 and sum(segment.bytes for segment in run) >= LARGE_BYTES:
        return _until_large(run)
    return ()


def _until_large(run: Sequence[Segment]) -> tuple[Segment, ...]:
    """The first members of a run, up to the one with which they become large."""
    total = 0
    for count, segment in enumerate(run, start=1):
        total += segment.bytes
        if total >= LARGE_BYTES and count > 1:
            return tuple(run[:count])
    return tuple(run)
