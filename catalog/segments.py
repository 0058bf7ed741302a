"""One table's live folder: segments written, merged and trimmed; the manifest published and read.

The ingest process holds one :class:`LiveWriter` per table, any number of other processes a
:class:`LiveReader`. They share nothing but immutable files and one file that is replaced by a
rename. Nothing is synced to disk: the folder is a cache of Kafka.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from catalog import faults
from catalog.cuts import cut, joined, parts_of
from catalog.errors import LogEndsEarly, NotReady
from catalog.folderlock import FolderLock
from catalog.ipcfile import checksum_of, write_file
from catalog.manifest import Manifest, schema_key
from catalog.mapped import Declarations, lineage, map_segment
from catalog.offsets import Offsets, TopicPartition
from catalog.records import Part, Range, Segment
from catalog.room import RESERVE_FILE, Reserve, room_for
from catalog.spec import TableName
from catalog.structs import masked
from catalog.tiers import merge_due

__all__ = [
    "FolderLock",
    "LiveReader",
    "LiveWriter",
    "Manifest",
    "Part",
    "Segment",
    "merge_due",
    "table_folder",
]

_log = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
#: A merge that could pass this is refused: a column of strings or lists holds 2 GiB at most.
MAX_MERGE_BYTES = 2**31 - 1
#: Mapped bytes of unlisted segments, kept for tickets (rule 17): a minute of 10,000 rows a second.
RETIRED_BYTES = 256 * 1024**2
#: Ranges of unlisted segments remembered per table: a few flushes' worth.
RETIRED_SEGMENTS = 1024


def table_folder(name: TableName) -> str:
    """The table's folder, relative to the live folder; one path component for any name."""
    return quote(str(name), safe="")


class LiveWriter:
    """The ingest's side of one table's folder.

    ``write`` belongs to the thread that consumes, ``merge`` may run beside it on another one,
    ``publish`` and ``trim`` belong to one thread at a time. Segments never change, and a file
    name is never used twice, not by a restarted process either.

    Args:
        folder: the live folder, locked by this process (rule 11).
        name: the table; its sub-folder is made where it is missing.
        grace_s: how long a file outlives the last manifest that listed it (rule 14).
    """

    def __init__(self, folder: Path, name: TableName, grace_s: float) -> None:
        self._folder = folder
        self._table = table_folder(name)
        self._grace_s = grace_s
        self._path.mkdir(parents=True, exist_ok=True)
        self._reserve = Reserve(self._path)
        self._run = f"{time.time_ns():x}{secrets.token_hex(2)}"
        self._numbers = itertools.count(1)
        self._texts: dict[str, str] = {}
        self._declared = Declarations()
        self._unlisted_since_s: dict[str, float] = {}
        self._published = self.previous()
        self._stamp_ns = self._manifest.stat().st_mtime_ns if self._manifest.exists() else 0

    @property
    def _path(self) -> Path:
        return self._folder / self._table

    @property
    def _manifest(self) -> Path:
        return self._path / MANIFEST_FILE

    def write(
        self,
        batch: pa.RecordBatch,
        ranges: tuple[Range, ...],
        declared: pa.Schema | None = None,
    ) -> Segment:
        """Writes one segment; it is not part of a version before a manifest lists it.

        Args:
            batch: rows of the declared schema, ordered by (topic, partition, offset).
            ranges: what the consumer moved over, sorted, one per partition; each row lies in one,
                and a range may hold no row (rule 3).
            declared: the declaration of the rows; None: that of every manifest to come.

        Raises:
            ValueError: rows are out of order or outside the ranges.
            LiveFolderFull: there is no room; nothing is left of it.
            OSError: the file cannot be written.
        """
        key = "" if declared is None else self._declared.add(declared)
        segment = self._store(batch, parts_of(batch, ranges), time.time_ns() // 1000, key)
        faults.reach("segment.written")
        return segment

    def merge(self, segments: Sequence[Segment]) -> Segment:
        """Writes the rows of neighbouring segments as one; the inputs stay as they are.

        The result follows the newest declaration among theirs.

        Args:
            segments: oldest first. A hole between their ranges stays one: it divides a part.

        Raises:
            LogGap: a partition's ranges go back (rule 4).
            SegmentMissing: an input is gone.
            LiveFolderFull: as :meth:`write`.
            ValueError: the result could pass :data:`MAX_MERGE_BYTES`, or there is no input.
        """
        if not segments or sum(segment.bytes for segment in segments) > MAX_MERGE_BYTES:
            raise ValueError(f"a merge takes 1 to {MAX_MERGE_BYTES} bytes of segments")
        newest = self.newest(segments)
        batches = [self._open(segment, newest) for segment in segments]
        shares: dict[TopicPartition, list[tuple[Part, pa.RecordBatch]]] = {}
        for segment, batch in zip(segments, batches, strict=True):
            for part in segment.parts:
                shares.setdefault((part.topic, part.partition), []).append((part, batch))
        parts: list[Part] = []
        slices = [batches[0].slice(0, 0)]
        row = 0
        for tp in sorted(shares):
            share = joined(shares[tp], row)
            parts += share.parts
            slices += share.slices
            row = share.row
        created_us = min(segment.created_us for segment in segments)
        key = "" if newest is None else schema_key(newest)
        merged = self._store(pa.concat_batches(slices), tuple(parts), created_us, key)
        faults.reach("merge.written")
        return merged

    def publish(self, manifest: Manifest) -> None:
        """Replaces the table's manifest by one rename (rule 10).

        Raises:
            ValueError: E lies below C somewhere.
            LogEndsEarly: E lies below the published one, of the same table and topics (rule 12).
            LiveFolderFull: there is no room; the published one stays.
            OSError: the file cannot be written.
        """
        if not manifest.high.covers(manifest.committed):
            raise ValueError("a version ends at or after the positions of its snapshot")
        old = self._published
        same = old and (old.table_uuid, old.topics) == (manifest.table_uuid, manifest.topics)
        if old and same and not manifest.high.covers(old.high):
            behind = ", ".join(f"{t}[{p}]" for t, p in manifest.high.behind(old.high))
            raise LogEndsEarly(
                f"{manifest.table}: {behind} would go back behind what was published"
            )
        faults.reach("publish.before")
        temporary = self._path / f"{MANIFEST_FILE}.{self._run}.tmp"
        self._reserve.write(temporary, manifest.to_json(self._texts))
        # Inode numbers are used again and clocks tick in milliseconds: without a time of its own
        # a manifest could look like the last but one to a reader, for ever on an idle topic.
        self._stamp_ns = max(time.time_ns(), self._stamp_ns + 1000)
        os.utime(temporary, ns=(self._stamp_ns, self._stamp_ns))
        temporary.replace(self._manifest)
        self._published = manifest
        faults.reach("publish.renamed")

    def previous(self) -> Manifest | None:
        """The manifest on disk (rule 12); None where there is none, or none that can be read."""
        try:
            return Manifest.from_json(self._manifest.read_bytes())
        except FileNotFoundError:
            return None
        except NotReady:
            _log.warning("manifest_unreadable table=%s", self._table)
            return None

    def trim(self, keep: Collection[Segment], now_s: float) -> int:
        """Removes what no published manifest has listed for the grace, strays included (rule 14).

        The grace of a file starts with the first call that finds it neither listed nor kept, so
        nothing goes in the first ``grace_s`` of a process: readers may hold what it found.

        Args:
            keep: segments that are written but not yet listed, or still needed.
            now_s: a clock that never goes back, in seconds.

        Returns:
            Bytes freed.
        """
        faults.reach("trim.before")
        listed = self._published.segments if self._published else ()
        names = {Path(segment.file).name for segment in (*listed, *keep)}
        needed = names | {MANIFEST_FILE, RESERVE_FILE}
        with os.scandir(self._path) as entries:
            loose = {entry.name: entry.stat().st_size for entry in entries}  # sizes by name
        for name in needed:
            loose.pop(name, None)
        since = {name: self._unlisted_since_s.get(name, now_s) for name in loose}
        self._unlisted_since_s = since
        due = [name for name in sorted(loose) if now_s - since[name] >= self._grace_s]
        for count, name in enumerate(due, start=1):
            (self._path / name).unlink(missing_ok=True)
            if count * 2 >= len(due) > (count - 1) * 2:
                faults.reach("trim.half")
        self._reserve.keep()
        return sum(loose[name] for name in due)

    def read(
        self,
        segments: Sequence[Segment],
        first: Offsets,
        next: Offsets,  # noqa: A002  # the half-open pair
    ) -> list[pa.RecordBatch]:
        """The rows of ``[first, next)`` of every partition, for a flush.

        They follow :meth:`newest` of the segments.

        Raises:
            LogGap: the segments leave a hole (rule 4).
            SegmentMissing: one of them is gone.
        """
        return cut(segments, first, next, partial(self._open, want=self.newest(segments)))

    def newest(self, segments: Iterable[Segment]) -> pa.Schema | None:
        """The newest declaration that one of the segments follows; None: it was never told."""
        return self._declared.newest(segment.declared for segment in segments)

    def _open(self, segment: Segment, want: pa.Schema | None) -> pa.RecordBatch:
        return self._declared.read(map_segment(self._folder, segment), segment, want)

    def _store(
        self, batch: pa.RecordBatch, parts: tuple[Part, ...], created_us: int, declared: str
    ) -> Segment:
        name = f"{self._run}-{next(self._numbers):08d}.arrow"
        with room_for(self._path / name):
            size = write_file(masked(batch), self._path / name)
        file, made = f"{self._table}/{name}", checksum_of(self._path / name)
        return Segment(file, batch.num_rows, size, parts, created_us, declared, made)


@dataclass(slots=True)
class _Seen:
    """What a reader knows of one table. Replaced as a whole, under the reader's lock.

    Attributes:
        key: time, inode and size of the manifest file that was read.
        retired: segments of the same lineage that earlier manifests listed, oldest first.
    """

    key: tuple[int, int, int]
    manifest: Manifest
    retired: dict[str, Segment] = field(default_factory=dict)


class LiveReader:
    """A server's side of the live folder: all tables, any thread.

    Mapped segments stay mapped: those that the newest manifest lists, and the youngest others up
    to a bound, so that a ticket is answered after its segments were merged or removed (rule 17).

    Invariant: ``_seen`` and ``_mapped`` change under ``_lock`` only; what they hold never does.

    Args:
        folder: the live folder; need not exist yet.
        retired_bytes: bound on mapped bytes that no manifest lists any more.
    """

    def __init__(self, folder: Path, *, retired_bytes: int = RETIRED_BYTES) -> None:
        self._folder = folder
        self._retired_bytes = retired_bytes
        self._lock = threading.Lock()
        self._seen: dict[TableName, _Seen] = {}
        self._declared = Declarations()
        self._mapped: dict[str, tuple[pa.RecordBatch, int]] = {}

    def manifest(self, name: TableName) -> Manifest | None:
        """The published manifest, the same object as long as it is unchanged.

        Returns:
            None where nothing was ever published.

        Raises:
            NotReady: it cannot be read.
        """
        path = self._folder / table_folder(name) / MANIFEST_FILE
        seen = self._seen.get(name)
        try:
            if seen and seen.key == _key(path.stat()):
                return seen.manifest
            with path.open("rb") as file:
                key, text = _key(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotReady(f"{name}: the live folder cannot be read: {error.strerror}") from error
        listed = {s.file: s for s in seen.manifest.segments} if seen else None
        manifest = Manifest.from_json(text, listed)
        if manifest.table != name:
            raise NotReady(f"{name}: the live folder holds another table under this name")
        self._remember(name, key, manifest)
        return manifest

    def known(self, manifest: Manifest) -> tuple[Segment, ...]:
        """The manifest's segments, and those before it that can still be opened (rule 17)."""
        with self._lock:
            seen = self._seen.get(manifest.table)
            if seen is None or lineage(seen.manifest) != lineage(manifest):
                return manifest.segments
            own = {segment.file for segment in manifest.segments}
            older = {**seen.retired, **{s.file: s for s in seen.manifest.segments}}
            mapped = set(self._mapped)
        return (
            *manifest.segments,
            *(
                segment
                for file, segment in older.items()
                if file not in own and (file in mapped or (self._folder / file).exists())
            ),
        )

    def batches(
        self,
        segments: Sequence[Segment],
        first: Offsets,
        next: Offsets,  # noqa: A002  # the half-open pair
        want: pa.Schema | None = None,
    ) -> list[pa.RecordBatch]:
        """The rows of ``[first, next)`` of every partition, zero-copy (rule 16).

        Those of segments of other declarations are read as rows of ``want``, by field id.

        Raises:
            LogGap: the segments leave a hole (rule 19).
            SegmentMissing: one of them is gone, and is not mapped here (rule 18).
            NotReady: one of them cannot be opened now.
        """
        return cut(segments, first, next, partial(self._open_as, want=want))

    def _open_as(self, segment: Segment, want: pa.Schema | None) -> pa.RecordBatch:
        return self._declared.read(self._open(segment), segment, want)

    def _open(self, segment: Segment) -> pa.RecordBatch:
        with self._lock:
            held = self._mapped.get(segment.file)
        if held is not None:
            return held[0]
        batch = map_segment(self._folder, segment)
        with self._lock:
            return self._mapped.setdefault(segment.file, (batch, segment.bytes))[0]

    def _remember(self, name: TableName, key: tuple[int, int, int], manifest: Manifest) -> None:
        for declared in (*manifest.older.values(), manifest.arrow_schema):
            self._declared.add(declared)
        with self._lock:
            old = self._seen.get(name)
            retired: dict[str, Segment] = {}
            if old and lineage(old.manifest) == lineage(manifest):
                retired = old.retired | {s.file: s for s in old.manifest.segments}
                for segment in manifest.segments:
                    retired.pop(segment.file, None)
                for file in list(retired)[: max(0, len(retired) - RETIRED_SEGMENTS)]:
                    del retired[file]
            self._seen[name] = _Seen(key, manifest, retired)
            self._unmap()

    def _unmap(self) -> None:
        """Lets go of the oldest mappings that no manifest lists, down to the bound."""
        listed = {s.file for seen in self._seen.values() for s in seen.manifest.segments}
        loose = [file for file in self._mapped if file not in listed]
        total = sum(self._mapped[file][1] for file in loose)
        for file in loose:
            if total <= self._retired_bytes:
                return
            total -= self._mapped.pop(file)[1]


def _key(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
