"""A branch, a tag, a snapshot's id or a moment → one of a table's snapshots.

What is asked for is one text, which also stands in tickets: ``snapshot_<id>``, ``ref_<branch or
tag>``, ``time_<microseconds since the epoch>``. Pure functions of an Iceberg metadata file.

Source: Iceberg table specification, "Snapshot References" and "Point in Time Reads (Time Travel)".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType

from catalog.errors import NoSuchVersion, shorten
from catalog.heads import snapshot_at
from catalog.spec import TableName

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Names of branches and tags that an error repeats.
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Past:
    """One of a table's versions.

    Attributes:
        snapshot_id: the snapshot; None: a table without any.
        schema_id: what its rows are read with: a branch's is the table's own, as it goes on being
            written; every other version has its snapshot's.
    """

    snapshot_id: int | None
    schema_id: int


def past(name: TableName, metadata: TableMetadata, as_of: str) -> Past:
    """The version that ``as_of`` names.

    Raises:
        NoSuchVersion: no such branch or tag, or no snapshot that old.
        VersionGone: the snapshot has been expired, or never was.
    """
    kind, _, text = as_of.partition("_")
    if kind == "ref":
        return _by_ref(name, metadata, text)
    found = int(text) if kind == "snapshot" else _at(name, metadata, int(text))
    return _with_own_schema(metadata, found)


def _by_ref(name: TableName, metadata: TableMetadata, text: str) -> Past:
    ref = metadata.refs.get(text)
    if ref is None and text.isascii() and text.isdigit():
        return _with_own_schema(metadata, int(text))
    if ref is None:
        known = ", ".join(sorted(metadata.refs)[:_SHOWN]) or "none"
        raise NoSuchVersion(
            f"{name} has no branch or tag {shorten(text)!r}; it has: {known} "
            f'("{name.table}$refs" lists them)'
        )
    if ref.snapshot_ref_type == SnapshotRefType.TAG:
        return _with_own_schema(metadata, ref.snapshot_id)
    snapshot_at(metadata, ref.snapshot_id)
    return Past(ref.snapshot_id, metadata.current_schema_id)


def _at(name: TableName, metadata: TableMetadata, micros: int) -> int:
    """The snapshot that was current at a moment, by the log of the main branch."""
    log = sorted(metadata.snapshot_log, key=lambda entry: entry.timestamp_ms)
    before = [entry for entry in log if entry.timestamp_ms * 1000 <= micros]
    if not before:
        asked = (_EPOCH + timedelta(microseconds=micros)).isoformat()
        first = _EPOCH + timedelta(milliseconds=log[0].timestamp_ms) if log else None
        known = f"the oldest known one is of {first.isoformat()}" if first else "it has none"
        raise NoSuchVersion(f"{name} has no snapshot of {asked} or before: {known}")
    return before[-1].snapshot_id


def _with_own_schema(metadata: TableMetadata, snapshot_id: int) -> Past:
    snapshot = snapshot_at(metadata, snapshot_id)
    schema_id = None if snapshot is None else snapshot.schema_id
    return Past(snapshot_id, metadata.current_schema_id if schema_id is None else schema_id)
