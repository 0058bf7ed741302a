"""Snapshots in order of time, whatever the clocks of their writers say."""

from __future__ import annotations

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AddSnapshotUpdate, TableUpdate


def in_time(update: TableUpdate, base: TableMetadata) -> TableUpdate:
    """The update with a snapshot not older than its base: catalogs refuse time that goes back.

    Clocks of writers differ; nothing here rests on what they say.
    Source: TableMetadata's constructor in Iceberg's Java library (one minute of tolerance).
    """
    head = base.current_snapshot()
    last_ms = max(base.last_updated_ms, 0 if head is None else head.timestamp_ms)
    if not isinstance(update, AddSnapshotUpdate) or update.snapshot.timestamp_ms >= last_ms:
        return update
    snapshot = update.snapshot.model_copy(update={"timestamp_ms": last_ms})
    return update.model_copy(update={"snapshot": snapshot})
