"""The model's plain values, and the catalog's own values that they stand for.

States are compared and hashed a million times, so they are tuples of numbers; what decides are the
real classes. Every translation is cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa

from catalog import heads
from catalog.heads import Head, marker_property
from catalog.manifest import Manifest
from catalog.offsets import (
    MARKER_PROPERTY,
    Marker,
    Offsets,
    TopicIdentity,
    marker_to_summary,
)
from catalog.pins import Pin
from catalog.records import Part, Segment
from catalog.spec import TableName

NAME = TableName("model", "t")
TOPIC = "t"
UUID = "uuid"
SCHEMA = pa.schema(
    [
        pa.field("generation", pa.int64(), nullable=False),
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
    ]
)

#: Next offset of each partition; 0 stands for "the map lacks it", which must be the same (rule 1).
Positions = tuple[int, ...]
#: (generation of the topic, partition, offset).
Row = tuple[int, int, int]


class Mk(NamedTuple):
    """A marker: positions, the topic's generation, epoch, writer's id, gc number."""

    at: Positions
    topic: int
    epoch: int
    writer: int
    gc: int


class Snap(NamedTuple):
    """A snapshot; ``marker`` None: another tool made it."""

    id: int
    parent: int | None
    marker: Mk | None
    files: tuple[int, ...]


class Lake(NamedTuple):
    """The Iceberg table and its store.

    Attributes:
        snaps: those that are not expired.
        head: the newest snapshot of main.
        copy: the marker in the table's properties with its snapshot's id.
        files: data files in the store with their rows.
    """

    snaps: tuple[Snap, ...]
    head: int
    copy: tuple[int, Mk]
    files: tuple[tuple[int, tuple[Row, ...]], ...]

    def snap(self, snapshot_id: int) -> Snap | None:
        """The snapshot, None where it is expired."""
        return next((one for one in self.snaps if one.id == snapshot_id), None)

    @property
    def top(self) -> Snap:
        """The head; it is never expired."""
        return next(one for one in self.snaps if one.id == self.head)

    def referenced(self) -> set[int]:
        """Files that a snapshot names."""
        return {file for one in self.snaps for file in one.files}


class Seg(NamedTuple):
    """A live segment: the topic's generation, and (partition, first, next, offsets with a row)."""

    topic: int
    parts: tuple[tuple[int, int, int, tuple[int, ...]], ...]


class Man(NamedTuple):
    """A published version: S, C, E, the live segments, the topic's generation."""

    snap: int
    committed: Positions
    high: Positions
    segs: tuple[Seg, ...]
    topic: int


class Snapped(NamedTuple):
    """A head: the snapshot and the marker that holds there."""

    snap: int
    marker: Mk


@cache
def offsets(at: Positions) -> Offsets:
    """Partitions at 0 are left out."""
    return Offsets({(TOPIC, p): n for p, n in enumerate(at) if n})


def positions(found: Offsets, count: int) -> Positions:
    """The inverse of :func:`offsets` for ``count`` partitions."""
    return tuple(found.at((TOPIC, p)) for p in range(count))


@cache
def identity(topic: int) -> TopicIdentity:
    """The topic of a generation: another id under the same name."""
    return TopicIdentity(TOPIC, "cluster", f"id-{topic}")


@cache
def marker(mk: Mk) -> Marker:
    """The real marker."""
    return Marker(offsets(mk.at), (identity(mk.topic),), mk.epoch, f"w{mk.writer}", 7, mk.gc)


def plain_marker(found: Marker, count: int) -> Mk:
    """The inverse of :func:`marker`."""
    topic = int(found.topics[0].topic_id.removeprefix("id-"))
    writer = int(found.writer.removeprefix("w"))
    return Mk(positions(found.positions, count), topic, found.epoch, writer, found.gc)


class Summary(NamedTuple):
    """What is read of a snapshot's summary."""

    additional_properties: dict[str, str]


class Node(NamedTuple):
    """What is read of a snapshot."""

    snapshot_id: int
    parent_snapshot_id: int | None
    sequence_number: int
    summary: Summary


class Metadata:
    """What the decisions read of pyiceberg's TableMetadata."""

    table_uuid = UUID
    default_spec_id = 0
    current_schema_id = 0
    last_column_id = 0

    def __init__(self, lake: Lake) -> None:
        self.snapshots = [_node(one) for one in lake.snaps]
        self._nodes = {one.snapshot_id: one for one in self.snapshots}
        self._head = lake.head
        self.properties = {MARKER_PROPERTY: marker_property(lake.copy[0], marker(lake.copy[1]))}

    def current_snapshot(self) -> Node:
        """The head of main."""
        return self._nodes[self._head]

    def snapshot_by_id(self, snapshot_id: int) -> Node | None:
        """None: expired."""
        return self._nodes.get(snapshot_id)


def _node(snap: Snap) -> Node:
    summary = {} if snap.marker is None else marker_to_summary(marker(snap.marker))
    return Node(snap.id, snap.parent, 1 if snap.parent is None else 2, Summary(summary))


@cache
def metadata(lake: Lake) -> Any:
    """What a load of the table tells."""
    return Metadata(lake._replace(files=()))


@cache
def head(known: Snapped) -> Head:
    """The real head."""
    return Head(f"m{known.snap}", UUID, known.snap, marker(known.marker), 0)


@cache
def found_marker(lake: Lake, snapshot_id: int | None = None) -> Marker | None:
    """The marker that holds at a snapshot, by the catalog's own walk (rule 2)."""
    return heads.recorded_marker(metadata(lake._replace(files=())), snapshot_id)


_BY_FILE: dict[str, Seg] = {}


@cache
def segment(seg: Seg) -> Segment:
    """The real segment; its file is named by what it holds."""
    parts: list[Part] = []
    row = 0
    for p, first, next_, rows in seg.parts:
        parts.append(Part(TOPIC, p, first, next_, row, row + len(rows)))
        row += len(rows)
    made = Segment(repr(tuple(seg)), row, 1, tuple(parts), 0)
    _BY_FILE[made.file] = seg
    return made


def plain_segment(found: Segment) -> Seg:
    """The inverse of :func:`segment`."""
    return _BY_FILE[found.file]


def plain_manifest(found: Manifest, count: int) -> Man:
    """The inverse of :func:`manifest`."""
    assert found.snapshot_id is not None
    return Man(
        found.snapshot_id,
        positions(found.committed, count),
        positions(found.high, count),
        tuple(plain_segment(one) for one in found.segments),
        int(found.topics[0].topic_id.removeprefix("id-")),
    )


@cache
def batch(seg: Seg) -> pa.RecordBatch:
    """The rows of a segment."""
    rows = [(p, offset) for p, _, _, held in seg.parts for offset in held]
    return pa.RecordBatch.from_pylist(
        [
            {"generation": seg.topic, "_topic": TOPIC, "_partition": p, "_offset": offset}
            for p, offset in rows
        ],
        SCHEMA,
    )


def rows_of(batches: Sequence[pa.RecordBatch]) -> tuple[Row, ...]:
    """The identities of all rows."""
    return tuple(
        row
        for one in batches
        for row in zip(
            one["generation"].to_pylist(),
            one["_partition"].to_pylist(),
            one["_offset"].to_pylist(),
            strict=True,
        )
    )


@cache
def manifest(man: Man) -> Manifest:
    """The real manifest."""
    return Manifest(
        table=NAME,
        table_uuid=UUID,
        topics=(identity(man.topic),),
        snapshot_id=man.snap,
        metadata_location=f"m{man.snap}",
        committed=offsets(man.committed),
        high=offsets(man.high),
        watermarks=offsets(man.high),
        segments=tuple(segment(seg) for seg in man.segs),
        schema_id=7,
        arrow_schema=SCHEMA,
        published_us=0,
        sequence=0,
    )


@cache
def pin(man: Man) -> Pin:
    """What a statement pins of a version."""
    return Pin.of(manifest(man))


_CACHES = (
    offsets, identity, marker, metadata, head, found_marker, segment, batch, manifest, pin,
)  # fmt: skip


def forget() -> None:
    """Empties the caches of what is decided: a rule may have been taken away since."""
    for cached in _CACHES:
        cached.cache_clear()
