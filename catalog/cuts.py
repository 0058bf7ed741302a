"""Ranges and rows: the cut ``[first, next)`` of every partition out of segments (rule 16).

Pure: it decides on ranges, and slices batches that somebody else opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import LogGap
from catalog.offsets import Offsets, TopicPartition
from catalog.records import Part, Range, Segment
from catalog.schemas import OFFSET, PARTITION, TOPIC


class Pick(NamedTuple):
    """The offsets ``[first, next)`` out of one part of one segment.

    Attributes:
        place: which segment, by its place in the sequence that was looked at.
    """

    place: int
    part: Part
    first: int
    next: int


class Joined(NamedTuple):
    """One partition's parts and rows in the result of a merge; ``row`` is the one after them."""

    parts: list[Part]
    slices: list[pa.RecordBatch]
    row: int


def cover(segments: Sequence[Segment], first: Offsets, next_: Offsets) -> list[Pick]:
    """Which parts make up ``[first, next)`` of every partition, no offset twice (rules 1, 16).

    Segments may overlap each other and the range; where two hold the same offsets, one is taken.

    Args:
        segments: any order.
        first: lower end, inclusive.
        next_: upper end, exclusive; a partition that it lacks ends at 0.

    Raises:
        LogGap: the ranges of a partition leave a hole (rules 4 and 19).
    """
    wanted = {tp: (first.at(tp), end) for tp, end in next_.items() if end > first.at(tp)}
    picks = _in_order(segments, wanted)
    return _sorted_out(segments, wanted) if picks is None else picks


def cut(
    segments: Sequence[Segment],
    first: Offsets,
    next_: Offsets,
    open_segment: Callable[[Segment], pa.RecordBatch],
) -> list[pa.RecordBatch]:
    """The rows of ``[first, next)``: slices of the segments' batches, neighbours joined.

    Args:
        segments: oldest first: the batches come out in this order.
        first: lower end, inclusive.
        next_: upper end, exclusive.
        open_segment: gives a segment's batch; asked only for segments that a row is taken from.

    Returns:
        Batches with at least one row each; no row is copied.

    Raises:
        LogGap: the segments do not cover the range without a hole.
        CatalogError: what ``open_segment`` raises.
    """
    by_segment: dict[int, list[Pick]] = {}
    for pick in cover(segments, first, next_):
        if pick.part.row_first < pick.part.row_next:
            by_segment.setdefault(pick.place, []).append(pick)
    return [
        piece
        for index in sorted(by_segment)
        for piece in _slices(open_segment(segments[index]), by_segment[index])
    ]


def parts_of(batch: pa.RecordBatch, ranges: Sequence[Range]) -> tuple[Part, ...]:
    """Which rows belong to which range, with the order that everything later relies on checked.

    Args:
        batch: rows ordered by (topic, partition, offset).
        ranges: sorted, one per partition; a range may hold no row (rule 3).

    Raises:
        ValueError: rows are out of order or outside the ranges.
    """
    offsets = batch.column(OFFSET).to_numpy(zero_copy_only=True)
    parts: list[Part] = []
    row = 0
    runs = _runs(batch, several_topics=len({r.topic for r in ranges}) > 1)
    for r in ranges:
        stop = runs.pop((r.topic, r.partition), row)
        own = offsets[row:stop]
        if len(own) and not (
            own[0] >= r.first and own[-1] < r.next and bool(np.all(own[1:] > own[:-1]))
        ):
            raise ValueError(f"rows of {r.topic}[{r.partition}] leave [{r.first}, {r.next})")
        parts.append(Part(r.topic, r.partition, r.first, r.next, row, stop))
        row = stop
    if runs or row != batch.num_rows:
        raise ValueError("rows are not ordered by (topic, partition) as their ranges are")
    return tuple(parts)


def joined(shares: Sequence[tuple[Part, pa.RecordBatch]], row: int) -> Joined:
    """One partition's share of a merge.

    Ranges that follow each other become one part. Where the inputs leave a hole, it stays one
    (rule 4): that is so when a segment between them lay below the committed positions in all its
    partitions and was dropped, while an older one is still wanted for another partition.

    Args:
        shares: the partition's parts with the batches that hold them, oldest first.
        row: the result's row at which this partition starts.

    Raises:
        LogGap: a range starts before the end of the one before it.
    """
    parts: list[Part] = []
    slices: list[pa.RecordBatch] = []
    for part, batch in shares:
        count = part.row_next - part.row_first
        last = parts[-1] if parts else None
        if last and part.first < last.next:
            raise LogGap(
                f"{part.topic}[{part.partition}]: segments to merge go back from position "
                f"{last.next} to {part.first}"
            )
        if last and part.first == last.next:
            parts[-1] = replace(last, next=part.next, row_next=row + count)
        else:
            parts.append(replace(part, row_first=row, row_next=row + count))
        row += count
        if count:
            slices.append(batch.slice(part.row_first, count))
    return Joined(parts, slices, row)


def oldest(segments: tuple[Segment, ...], max_rows: int, max_bytes: int) -> tuple[Segment, ...]:
    """The first ones, up to the first with which they hold so many rows or bytes.

    Neighbours hold neighbouring positions, so the first ones are a prefix of every partition.
    """
    rows = size = 0
    for count, segment in enumerate(segments, start=1):
        rows, size = rows + segment.rows, size + segment.bytes
        if rows >= max_rows or size >= max_bytes:
            return segments[:count]
    return segments


def reaches(segment: Segment, committed: Offsets) -> bool:
    """Whether a partition of the segment goes beyond C."""
    return any(part.next > committed.at((part.topic, part.partition)) for part in segment.parts)


def share_above(segment: Segment, committed: Offsets) -> tuple[int, int]:
    """Rows and bytes above C; a part that C cuts counts by its share of positions."""
    rows = 0
    for part in segment.parts:
        above = part.next - max(part.first, committed.at((part.topic, part.partition)))
        if above > 0:
            rows += (part.row_next - part.row_first) * above // (part.next - part.first)
    return rows, segment.bytes * rows // max(segment.rows, 1)


def _in_order(
    segments: Sequence[Segment], wanted: Mapping[TopicPartition, tuple[int, int]]
) -> list[Pick] | None:
    """One pass over segments whose ranges follow each other; None where they do not."""
    positions = {tp: first for tp, (first, _) in wanted.items()}
    picks: list[Pick] = []
    for index, segment in enumerate(segments):
        for part in segment.parts:
            tp = part.topic, part.partition
            position = positions.get(tp)
            if position is None or part.next <= position:
                continue
            end = wanted[tp][1]
            if position >= end:
                continue
            if part.first > position:
                return None
            picks.append(Pick(index, part, position, min(part.next, end)))
            positions[tp] = part.next
    reached = all(positions[tp] >= end for tp, (_, end) in wanted.items())
    return picks if reached else None


def _sorted_out(
    segments: Sequence[Segment], wanted: Mapping[TopicPartition, tuple[int, int]]
) -> list[Pick]:
    """Any order, any overlap; the longest of the parts that start together comes first."""
    found: dict[TopicPartition, list[tuple[int, int, int, Part]]] = {tp: [] for tp in wanted}
    for index, segment in enumerate(segments):
        for part in segment.parts:
            ends = wanted.get((part.topic, part.partition))
            if ends and part.first < ends[1] and part.next > ends[0]:
                entry = (part.first, -part.next, index, part)
                found[part.topic, part.partition].append(entry)
    return [
        pick
        for tp, (position, end) in wanted.items()
        for pick in _walk(tp, sorted(found[tp], key=lambda entry: entry[:3]), position, end)
    ]


def _walk(
    tp: TopicPartition, entries: list[tuple[int, int, int, Part]], position: int, end: int
) -> Iterator[Pick]:
    for part_first, _, index, part in entries:
        if position >= end:
            return
        if part_first > position:
            break
        if part.next > position:
            yield Pick(index, part, position, min(part.next, end))
            position = part.next
    if position < end:
        live = next((str(e[0]) for e in entries if e[0] > position), "nowhere")
        raise LogGap(
            f"{tp[0]}[{tp[1]}]: no live rows at position {position}, they go on at {live} "
            f"(wanted up to {end}); the answer would have a hole"
        )


def _slices(batch: pa.RecordBatch, picks: list[Pick]) -> Iterator[pa.RecordBatch]:
    """The picked rows of one batch as few slices as possible."""
    runs: list[tuple[int, int]] = []
    for row_first, row_next in sorted(_rows(batch, pick) for pick in picks):
        if row_first == row_next:
            continue
        if runs and runs[-1][1] == row_first:
            runs[-1] = (runs[-1][0], row_next)
        else:
            runs.append((row_first, row_next))
    for row_first, row_next in runs:
        whole = row_next - row_first == batch.num_rows
        yield batch if whole else batch.slice(row_first, row_next - row_first)


def _rows(batch: pa.RecordBatch, pick: Pick) -> tuple[int, int]:
    """The rows of a pick: by binary search where it is less than its whole part."""
    part = pick.part
    if pick.first <= part.first and pick.next >= part.next:
        return part.row_first, part.row_next
    column = batch.column(batch.schema.get_field_index(OFFSET))
    offsets = column.to_numpy(zero_copy_only=True)[part.row_first : part.row_next]
    low, high = np.searchsorted(offsets, [pick.first, pick.next])
    return part.row_first + int(low), part.row_first + int(high)


def _runs(batch: pa.RecordBatch, *, several_topics: bool) -> dict[TopicPartition, int]:
    """(topic, partition) → the row after its last one; one entry per run of equal pairs."""
    if batch.num_rows == 0:
        return {}
    topics = batch.column(TOPIC)
    partitions = batch.column(PARTITION).to_numpy(zero_copy_only=True)
    changes = partitions[1:] != partitions[:-1]
    if several_topics:
        changed = pc.not_equal(topics.slice(1), topics.slice(0, len(topics) - 1))
        changes = changes | changed.to_numpy(zero_copy_only=False)
    stops = [*(int(i) + 1 for i in np.flatnonzero(changes)), batch.num_rows]
    return {(topics[stop - 1].as_py(), int(partitions[stop - 1])): stop for stop in stops}
