"""The real Publication, the real cut and the real Tables over a folder and a lake of plain values.

Each function is one decision: a value in, a value out, cached.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa

from catalog import cuts
from catalog.errors import CatalogError, FileMissing, SegmentMissing, VersionGone
from catalog.manifest import Manifest
from catalog.offsets import Offsets
from catalog.publication import Origin, Publication
from catalog.records import Segment
from catalog.spec import TableName, TableSpec
from catalog.tables import Tables
from model.values import (
    NAME,
    SCHEMA,
    TOPIC,
    Lake,
    Man,
    Positions,
    Row,
    Seg,
    Snapped,
    batch,
    head,
    identity,
    manifest,
    offsets,
    pin,
    plain_manifest,
    plain_segment,
    positions,
    rows_of,
    segment,
)


class Pub(NamedTuple):
    """The state of a Publication.

    Attributes:
        known: the head that it continues.
        segs: the live segments.
        high: the consumer's positions.
        held: the manifest of an earlier run that it has not reached.
        topic: the topic's generation when the run began.
    """

    known: Snapped
    segs: tuple[Seg, ...]
    high: Positions
    held: Man | None
    topic: int


class _Folder:
    """The writer that a Publication publishes with: it remembers what it was told."""

    def __init__(self, man: Man | None) -> None:
        self._man = man
        self.published: Manifest | None = None
        self.kept: Collection[Segment] = ()

    def previous(self) -> Manifest | None:
        return None if self._man is None else manifest(self._man)

    def publish(self, made: Manifest) -> None:
        self.published = made

    def trim(self, keep: Collection[Segment], now_s: float) -> int:  # noqa: ARG002 - no grace: any pin outlives it
        self.kept = keep
        return 0


def _real(pub: Pub) -> tuple[Publication, _Folder]:
    folder = _Folder(pub.held)
    origin = Origin(NAME, (identity(pub.topic),), 7, SCHEMA, Offsets())
    made = Publication(folder, origin, head(pub.known))  # type: ignore[arg-type]
    made._segments = tuple(segment(seg) for seg in pub.segs)
    made._high = offsets(pub.high)
    return made, folder


def _plain(made: Publication, pub: Pub) -> Pub:
    count = len(pub.high)
    segs = tuple(plain_segment(one) for one in made.segments)
    held = pub.held if made.held is not None else None
    return pub._replace(segs=segs, high=positions(made._high, count), held=held)


@cache
def opened(previous: Man | None, topic: int, known: Snapped) -> Pub:
    """A run begins, with its claim landed."""
    pub = Pub(known, (), known.marker.at, previous, topic)
    made, _ = _real(pub)
    made.claimed(head(known))
    return _plain(made, pub)


@cache
def owed(pub: Pub) -> Offsets:
    """How far the log must reach (rule 12)."""
    return _real(pub)[0].owed


@cache
def extended(pub: Pub, seg: Seg) -> Pub:
    """Something was read."""
    made, _ = _real(pub)
    made.extend(segment(seg), Offsets())
    return _plain(made, pub)


@cache
def moved(pub: Pub, known: Snapped) -> Pub:
    """The head moved."""
    made, _ = _real(pub)
    made.move_head(head(known))
    return _plain(made, pub)._replace(known=known)


@cache
def published(pub: Pub) -> tuple[Pub, Man | None]:
    """What publishing leaves, and the manifest that it writes; None: it may not yet."""
    made, folder = _real(pub)
    made.publish()
    after = _plain(made, pub)
    if folder.published is None:
        return after, None
    return after, plain_manifest(folder.published, len(pub.high))


@cache
def to_flush(pub: Pub, most: int) -> tuple[tuple[Seg, ...], Offsets]:
    """The segments that a flush of at most ``most`` rows takes, and where they end."""
    tail = _real(pub)[0].begin_flush(most, 2**40)
    return tuple(plain_segment(one) for one in tail.segments), tail.high


@cache
def kept(pub: Pub) -> frozenset[Seg]:
    """What a trim leaves beside the segments that the published manifest lists (rule 14)."""
    made, folder = _real(pub)
    made.trim()
    return frozenset(plain_segment(one) for one in folder.kept)


@cache
def merged(pub: Pub, inputs: tuple[Seg, ...]) -> tuple[Pub, Seg]:
    """Some neighbours become one segment."""
    whole = _merge(inputs)
    made, _ = _real(pub)
    made.replace([segment(one) for one in inputs], segment(whole))
    return _plain(made, pub), whole


def _merge(inputs: tuple[Seg, ...]) -> Seg:
    parts = []
    for p in sorted({part[0] for seg in inputs for part in seg.parts}):
        shares = [
            (part, batch(seg))
            for seg in inputs
            for part in segment(seg).parts
            if part.partition == p
        ]
        share = cuts.joined(shares, 0)
        rows = [offset for _, _, offset in rows_of(share.slices)]
        parts += [
            (p, one.first, one.next, tuple(o for o in rows if one.first <= o < one.next))
            for one in share.parts
        ]
    return Seg(inputs[0].topic, tuple(parts))


@cache
def read(segs: tuple[Seg, ...], first: Positions, next_: Offsets) -> tuple[Row, ...]:
    """The rows of a flush.

    Raises:
        LogGap: the segments leave a hole (rule 4).
    """
    taken = cuts.cut([segment(seg) for seg in segs], offsets(first), next_, _open_any)
    return tuple(sorted(rows_of(taken)))


def _open_any(found: Segment) -> pa.RecordBatch:
    return batch(plain_segment(found))


class _Live:
    """One machine's live folder, as a server reads it."""

    def __init__(self, man: Man, disk: frozenset[Seg]) -> None:
        self._man, self._disk = man, disk

    def manifest(self, name: TableName) -> Manifest:  # noqa: ARG002
        return manifest(self._man)

    def known(self, found: Manifest) -> tuple[Segment, ...]:
        own = set(self._man.segs)
        others = sorted(seg for seg in self._disk - own if seg.topic == self._man.topic)
        return (*found.segments, *(segment(seg) for seg in others))

    def batches(
        self, segments: Sequence[Segment], first: Offsets, next_: Offsets
    ) -> list[pa.RecordBatch]:
        return cuts.cut(segments, first, next_, self._open)

    def _open(self, found: Segment) -> pa.RecordBatch:
        seg = plain_segment(found)
        if seg not in self._disk:
            raise SegmentMissing("gone")
        return batch(seg)


class _Runs:
    """The snapshots that can be read: id → rows; None where a data file is gone."""

    def __init__(self, rows: dict[int, tuple[Row, ...] | None]) -> None:
        self._rows = rows

    def entries(self, _name: TableName, snapshot_id: int, *_: object) -> tuple[Row, ...]:
        if snapshot_id not in self._rows:
            raise VersionGone("expired")
        rows = self._rows[snapshot_id]
        if rows is None:
            raise FileMissing("gone")
        return rows

    def only_fed(self, _name: TableName, _location: str, since: int | None, _until: object) -> bool:
        return since is None or since in self._rows


def _tables(man: Man, disk: frozenset[Seg], rows: dict[int, tuple[Row, ...] | None]) -> Tables:
    spec = TableSpec(NAME, (TOPIC,))
    runs: Any = _Runs(rows)
    live: Any = _Live(man, disk)
    return Tables(runs, live, [spec], refresh_ms=0)


@cache
def refusal_to_pin(man: Man, at_least: Positions) -> CatalogError | None:
    """Why a server that publishes ``man`` does not answer a session that saw ``at_least``."""
    try:
        pinned = _tables(man, frozenset(), {}).pin(NAME, at_least=offsets(at_least))
    except CatalogError as error:
        return error
    assert pinned == pin(man)
    return None


def readable(lake: Lake, *snapshots: int) -> tuple[tuple[int, tuple[Row, ...] | None], ...]:
    """The rows of some snapshots: those that are not expired; None where a file is gone."""
    files = dict(lake.files)
    found = []
    for snapshot_id in sorted(set(snapshots)):
        if (snap := lake.snap(snapshot_id)) is not None:
            whole = all(file in files for file in snap.files)
            rows = tuple(row for file in snap.files for row in files[file]) if whole else None
            found.append((snapshot_id, rows))
    return tuple(found)


@cache
def answered(
    man: Man,
    disk: frozenset[Seg],
    rows: tuple[tuple[int, tuple[Row, ...] | None], ...],
    pinned: Man,
) -> tuple[Row, ...] | CatalogError:
    """What a server answers a pin with: all rows, sorted, or its typed error."""
    try:
        version = _tables(man, disk, dict(rows)).open(pin(pinned))
    except CatalogError as error:
        return error
    runs: Any = version.entries
    return tuple(sorted((*runs, *rows_of(version.live))))


def forget() -> None:
    """Empties the caches."""
    for cached in (
        opened, owed, extended, moved, published, to_flush, kept, merged, read, refusal_to_pin,
        answered,
    ):  # fmt: skip
        cached.cache_clear()
