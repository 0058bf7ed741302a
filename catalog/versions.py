"""Parsed metadata files and the stores that they live in, kept for tickets.

A metadata file never changes, so it is parsed once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import pyarrow as pa
from cachetools import LRUCache
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot, SnapshotLogEntry

from catalog.connect import lake_errors
from catalog.errors import FileMissing, LakeUnavailable, TableNotFound, VersionGone
from catalog.heads import Head, head_at
from catalog.iceberg_schema import plain_schema
from catalog.offsets import POSITIONS_KEY, REPAIR_KEY
from catalog.remembered import recent
from catalog.spec import TableName
from catalog.stores import credentials_end_s

S = TypeVar("S", Snapshot, SnapshotLogEntry)

#: Parsed metadata files that are kept, and the snapshots that they name in all: a table that is
#: flushed each minute has 10,000 in a week. One takes 3.7 KB (pyiceberg 0.12), named however often.
_MAX_METADATA, _MAX_SNAPSHOTS = 64, 200_000

#: How long before their end vended credentials are renewed, in s: longer than statements run, and
#: a sixth of the hour for which stores usually give them.
_RENEW_S = 600.0

#: Columns of ``$snapshots`` that come from Iceberg's summary.
_COUNTS: Mapping[str, str] = {
    "added_rows": "added-records",
    "deleted_rows": "deleted-records",
    "total_rows": "total-records",
    "added_files": "added-data-files",
    "deleted_files": "deleted-data-files",
    "total_files": "total-data-files",
    "total_delete_files": "total-delete-files",
}

SNAPSHOTS_SCHEMA = pa.schema(
    [
        pa.field("committed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("snapshot_id", pa.int64(), nullable=False),
        pa.field("parent_id", pa.int64()),
        pa.field("operation", pa.string()),
        *(pa.field(name, pa.int64()) for name in _COUNTS),
        pa.field("positions", pa.string()),
        pa.field("epoch", pa.int64()),
        pa.field("repair", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Version:
    """One metadata file and the store that its paths are read from."""

    metadata: TableMetadata
    io: FileIO
    _columns: dict[tuple[int | None, bool], pa.Schema] = field(
        default_factory=dict, repr=False, compare=False
    )
    _heads: dict[tuple[int | None, bool], Head] = field(
        default_factory=dict, repr=False, compare=False
    )

    def columns(self, schema_id: int | None, *, ids: bool = False) -> pa.Schema:
        """The columns by one of the table's schemas in plain types, the same object each time.

        Args:
            schema_id: None: the current one.
            ids: with Iceberg's field ids.

        Raises:
            VersionGone: no such schema.
            Unsupported: a column's type cannot be read.
        """
        found = self._columns.get((schema_id, ids))
        if found is None:
            found = plain_schema(schema_of(self.metadata, schema_id), ids=ids)
            self._columns[schema_id, ids] = found
        return found

    def head(self, location: str, snapshot_id: int | None, *, marked: bool) -> Head:
        """See :func:`catalog.heads.head_of`; worked out once, over snapshots by the thousand."""
        found = self._heads.get((snapshot_id, marked))
        if found is None:
            found = head_at(self.metadata, location, snapshot_id, marked=marked)
            self._heads[snapshot_id, marked] = found
        return found


@dataclass(frozen=True, slots=True)
class _Store:
    """A table's store; both times in s since the epoch.

    Attributes:
        io: opens its files.
        renew_s: from when on its credentials are renewed.
        end_s: when they end; infinity: never.
    """

    io: FileIO
    renew_s: float
    end_s: float

    @classmethod
    def loaded(cls, io: FileIO, now_s: float) -> _Store:
        """What was loaded now; half of a short life is used."""
        end_s = credentials_end_s(io.properties)
        if end_s is None:
            return cls(io, math.inf, math.inf)
        return cls(io, end_s - min(_RENEW_S, max(0.0, end_s - now_s) / 2), end_s)


class Versions:
    """The newest store of each table and the metadata files read lately; for any thread."""

    def __init__(self, load: Callable[[TableName], Table]) -> None:
        """``load`` loads a table afresh; :meth:`remember` is called with what it returns."""
        self._load = load
        self._lock = threading.Lock()
        self._stores: dict[TableName, _Store] = {}
        self._found: LRUCache[str, Version] = recent(
            _MAX_METADATA, _MAX_SNAPSHOTS, lambda version: len(version.metadata.snapshots)
        )
        self._last: WeakValueDictionary[UUID, Version] = WeakValueDictionary()

    def remember(self, name: TableName, table: Table) -> Table:
        """Keeps a loaded table's metadata; an unchanged store keeps its open connections."""
        with self._lock:
            known = self._stores.get(name)
            if known is not None and known.io.properties == table.io.properties:
                table.io = known.io
            self._stores[name] = _Store.loaded(table.io, time.time())
            found = self._found.get(table.metadata_location)
        if found is None or found.io is not table.io:
            self._keep(table.metadata_location, Version(table.metadata, table.io))
        return table

    def found(self, location: str) -> Version | None:
        """The metadata file, if it has been read."""
        with self._lock:
            return self._found.get(location)

    def store(self, name: TableName) -> FileIO:
        """The store of the table's newest load, with credentials that go on for a while.

        Vended credentials that end soon are renewed by loading the table again. Where the catalog
        does not answer then, they are used until they end.
        """
        with self._lock:
            known, now = self._stores.get(name), time.time()
        if known is not None and now < known.renew_s:
            return known.io
        try:
            return self._newest(name).io
        except LakeUnavailable:
            if known is None or now >= known.end_s:
                raise
            return known.io

    def at(self, name: TableName, location: str, snapshot_id: int | None) -> Version:
        """The metadata file at ``location``; if it is gone, the newest that names the snapshot.

        Raises:
            VersionGone: neither is there.
            LakeUnavailable: the catalog or the store did not answer.
        """
        io = self.store(name)
        with self._lock:
            found = self._found.get(location)
        if found is None:
            try:
                found = self._read(name, location, io)
            except FileMissing:
                return self._later(name, snapshot_id)
        return found if found.io is io else replace(found, io=io)

    def _read(self, name: TableName, location: str, io: FileIO) -> Version:
        with lake_errors(f"reading the metadata of {name}"):
            found = Version(FromInputFile.table_metadata(io.new_input(location)), io)
        self._keep(location, found)
        return found

    def _keep(self, location: str, version: Version) -> None:
        uuid = version.metadata.table_uuid
        with self._lock:
            last = self._last.get(uuid)
        if last is not None:  # without the lock: 16 µs for each snapshot
            _share(version.metadata.snapshots, last.metadata.snapshots)
            _share(version.metadata.snapshot_log, last.metadata.snapshot_log)
        with self._lock:
            self._found[location] = self._last[uuid] = version

    def _later(self, name: TableName, snapshot_id: int | None) -> Version:
        table = self._newest(name)
        if snapshot_id is None or table.metadata.snapshot_by_id(snapshot_id) is None:
            raise VersionGone(
                f"the metadata of this version of {name} has been removed: run the statement again"
            )
        return Version(table.metadata, table.io)

    def _newest(self, name: TableName) -> Table:
        try:
            return self._load(name)
        except TableNotFound as error:
            raise VersionGone(f"table {name} has been dropped") from error


def _share(mine: list[S], known: list[S]) -> None:
    """Puts the known ones in the place of their equals.

    Each metadata file of a table repeats all its snapshots: 64 files with 10,000 would take 2.4 GB.
    """
    by_id = {each.snapshot_id: each for each in known}
    for place, each in enumerate(mine):
        same = by_id.get(each.snapshot_id)
        if same is not None and same == each:
            mine[place] = same


def schema_of(metadata: TableMetadata, schema_id: int | None) -> Schema:
    """The schema with this id; the current one where it is None.

    Raises:
        VersionGone: the metadata has no such schema.
    """
    if schema_id is None:
        return metadata.schema()
    if (schema := metadata.schema_by_id(schema_id)) is None:
        raise VersionGone(f"the table has no schema {schema_id} any more: plan the statement again")
    return schema


def snapshots_table(metadata: TableMetadata) -> pa.Table:
    """All snapshots that the metadata knows, newest first; see :data:`SNAPSHOTS_SCHEMA`."""
    rows = [_snapshot_row(snapshot) for snapshot in metadata.snapshots]
    rows.sort(key=lambda row: (row["committed_at"], row["snapshot_id"]), reverse=True)
    return pa.Table.from_pylist(rows, schema=SNAPSHOTS_SCHEMA)


def _snapshot_row(snapshot: Snapshot) -> dict[str, int | str | None]:
    summary = snapshot.summary
    extra = {} if summary is None else summary.additional_properties
    counts = {name: _number(extra.get(key)) for name, key in _COUNTS.items()}
    return {
        "committed_at": snapshot.timestamp_ms * 1000,
        "snapshot_id": snapshot.snapshot_id,
        "parent_id": snapshot.parent_snapshot_id,
        "operation": None if summary is None else str(summary.operation.value),
        **counts,
        "positions": extra.get(POSITIONS_KEY),
        "epoch": _number(extra.get("k2.epoch")),
        "repair": extra.get(REPAIR_KEY),
    }


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
