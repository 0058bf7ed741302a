"""A live segment's rows: mapped, and read as rows of another declaration."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from pathlib import Path

import pyarrow as pa

from catalog.declaration import conform, is_numbered
from catalog.errors import NotReady, SegmentMissing
from catalog.ipcfile import map_file
from catalog.manifest import Manifest, schema_key
from catalog.records import Segment

#: Declarations before the current one that a manifest still tells, for tickets.
_OLDER = 8


class Told:
    """The declaration of the versions to come, and those before it; its user's lock guards it."""

    def __init__(self, newest: pa.Schema) -> None:
        self.newest = newest
        self._older: dict[str, pa.Schema] = {}

    def move_to(self, declared: pa.Schema) -> None:
        """From now on rows are read as rows of ``declared``."""
        if declared is not self.newest:
            self._older[schema_key(self.newest)] = self.newest
            self.newest = declared

    def older(self, live: Collection[str]) -> dict[str, pa.Schema]:
        """By key those that the ``live`` segments follow, and the last few others."""
        for key in [key for key in self._older if key not in live][:-_OLDER]:
            del self._older[key]
        return dict(self._older)


class Declarations:
    """Declarations by their keys, oldest first; a key never means another one. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, pa.Schema] = {}

    def add(self, declared: pa.Schema) -> str:
        """Remembers a declaration; its key."""
        key = schema_key(declared)
        with self._lock:
            self._known.setdefault(key, declared)
        return key

    def newest(self, keys: Iterable[str]) -> pa.Schema | None:
        """The one of these keys that was added last; None: none of them is known."""
        wanted = {*keys}
        with self._lock:
            found = [schema for key, schema in self._known.items() if key in wanted]
        return found[-1] if found else None

    def read(
        self, batch: pa.RecordBatch, segment: Segment, want: pa.Schema | None
    ) -> pa.RecordBatch:
        """A segment's rows as rows of ``want``."""
        have = self._known.get(segment.declared)
        return batch if want is None or have is None else conform(batch, have, want)


def lineage(manifest: Manifest) -> tuple[object, ...]:
    """Segments of two manifests may be mixed if this is the same for both.

    Rows of declarations with ids are read as each other's; of schemas without, they must be equal.
    """
    declared = manifest.arrow_schema
    key = "" if is_numbered(declared) else schema_key(declared)
    return manifest.table_uuid, manifest.topics, key


def map_segment(folder: Path, segment: Segment) -> pa.RecordBatch:
    """The rows of a segment's file, mapped.

    Raises:
        SegmentMissing: it is gone, or damaged.
        NotReady: it cannot be opened now.
    """
    name = f"live segment {Path(segment.file).stem}"
    try:
        batch = map_file(folder / segment.file, segment.bytes, segment.checksum)
    except FileNotFoundError as error:
        raise SegmentMissing(f"{name} is gone; plan the statement again") from error
    except pa.ArrowInvalid as error:
        raise SegmentMissing(f"{name} is damaged; the ingest reads the log again") from error
    except OSError as error:
        raise NotReady(f"{name} cannot be opened: {error.strerror}; try again") from error
    if batch.num_rows != segment.rows:
        raise SegmentMissing(f"{name} is damaged; the ingest reads the log again")
    return batch
