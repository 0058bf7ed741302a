"""Where a table stands: its head and the marker that belongs to it (docs/architecture.md, rule 2).

Pure functions of an Iceberg metadata file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot

from catalog.errors import MarkerLost, VersionGone, shorten
from catalog.offsets import (
    MALFORMED,
    MARKER_PROPERTY,
    REPAIR_KEY,
    Marker,
    marker_from_summary,
    marker_to_summary,
)
from catalog.spec import TableName

#: The summary key by which a cherry-picked snapshot names the one that it copies.
_PICKED_KEY = "source-snapshot-id"


@dataclass(frozen=True, slots=True)
class Head:
    """One version of a table.

    Attributes:
        metadata_location: the metadata file that names the snapshot.
        table_uuid: tells a table from one that was created again under its name.
        snapshot_id: None: the table has no snapshot yet.
        marker: what the snapshot, or its nearest ancestor with one, records; None: no writer of
            ours has ever committed (an ordinary table).
        schema_id: Iceberg id of the schema that the version is read with.
    """

    metadata_location: str
    table_uuid: str
    snapshot_id: int | None
    marker: Marker | None
    schema_id: int


def head_of(table: Table, snapshot_id: int | None = None, *, marked: bool = True) -> Head:
    """The head of ``table``, or its state at an older snapshot; without ``marked``, no marker.

    Raises:
        VersionGone: the metadata no longer names ``snapshot_id``.
        MarkerLost: see :func:`recorded_marker`.
    """
    return head_at(table.metadata, table.metadata_location, snapshot_id, marked=marked)


def head_at(
    metadata: TableMetadata, location: str, snapshot_id: int | None, *, marked: bool
) -> Head:
    """The same of the metadata file at ``location``."""
    snapshot = snapshot_at(metadata, snapshot_id)
    schema_id = metadata.current_schema_id
    if snapshot_id is not None and snapshot is not None and snapshot.schema_id is not None:
        schema_id = snapshot.schema_id
    return Head(
        metadata_location=location,
        table_uuid=str(metadata.table_uuid),
        snapshot_id=None if snapshot is None else snapshot.snapshot_id,
        marker=recorded_marker(metadata, snapshot_id) if marked else None,
        schema_id=schema_id,
    )


def snapshot_at(metadata: TableMetadata, snapshot_id: int | None) -> Snapshot | None:
    """The snapshot ``snapshot_id``; the current one (None: none yet) where that is None.

    Raises:
        VersionGone: the metadata no longer names ``snapshot_id``.
    """
    if snapshot_id is None:
        return metadata.current_snapshot()
    if (snapshot := metadata.snapshot_by_id(snapshot_id)) is None:
        raise VersionGone(
            f"snapshot {snapshot_id} has been expired: run the statement again on the newest one"
        )
    return snapshot


def ancestry(metadata: TableMetadata, snapshot: Snapshot | None) -> Iterator[Snapshot]:
    """``snapshot`` and its ancestors, newest first, as far as the metadata knows them."""
    # Each is found once: the metadata's own search looks at all of them for each step. And a
    # damaged file must not make us walk for ever.
    left: dict[int, Snapshot] | None = None
    while snapshot is not None:
        yield snapshot
        if (parent := snapshot.parent_snapshot_id) is None:
            return
        if left is None:
            left = {each.snapshot_id: each for each in metadata.snapshots}
            left.pop(snapshot.snapshot_id, None)
        snapshot = left.pop(parent, None)


def recorded_marker(metadata: TableMetadata, snapshot_id: int | None = None) -> Marker | None:
    """The marker that holds at a snapshot (rule 2).

    The newest one in the ancestry; failing that the copy in the table's properties, which counts
    only if its snapshot is the missing parent of the oldest reachable one.

    Returns:
        None: a complete ancestry without a marker and no copy (an ordinary table); for an older
        snapshot also: a complete ancestry without a marker.

    Raises:
        MarkerLost: there was a marker and it cannot be proved to hold here.
        VersionGone: the metadata no longer names ``snapshot_id``.
    """
    oldest: Snapshot | None = None
    for snapshot in ancestry(metadata, snapshot_at(metadata, snapshot_id)):
        if (marker := marker_of(snapshot)) is not None:
            return marker
        _refuse_picked(metadata, snapshot)
        oldest = snapshot
    missing = None if oldest is None else oldest.parent_snapshot_id
    if snapshot_id is not None and not _is_truncated(oldest):
        return None
    if (copy := metadata.properties.get(MARKER_PROPERTY)) is None:
        return None
    copied_id, marker = marker_of_property(copy)
    if missing is None or copied_id != missing:
        raise MarkerLost(
            f"the newest snapshot that recorded Kafka positions, {copied_id}, cannot be shown to "
            f"be the parent of the oldest one that is left: another tool expired or rolled back "
            f"snapshots; roll the table back to a snapshot that records positions, or find them "
            f"again with `k2 repair TABLE --marker-from-rows`"
        )
    return marker


def _refuse_picked(metadata: TableMetadata, snapshot: Snapshot) -> None:
    """Refuses a cherry-picked commit of ours: its rows came along, its positions did not.

    Read on from older positions, the log would bring the same rows again. Source: Iceberg's
    CherryPickOperation, which writes a new snapshot unless it can move the branch forward.
    """
    if snapshot.summary is None:
        return
    if (source := snapshot.summary.additional_properties.get(_PICKED_KEY)) is None:
        return
    origin = metadata.snapshot_by_id(int(source)) if source.isdecimal() else None
    if origin is None or marker_of(origin) is not None:
        raise MarkerLost(
            f"snapshot {snapshot.snapshot_id} was cherry-picked from {shorten(source)} and brought "
            f"its rows without its Kafka positions; roll the table back below it, or find them "
            f"again with `k2 repair TABLE --marker-from-rows`"
        )


def is_truncated(metadata: TableMetadata) -> bool:
    """Whether ancestors of the head have been expired."""
    oldest = None
    for snapshot in ancestry(metadata, metadata.current_snapshot()):
        oldest = snapshot
    return _is_truncated(oldest)


def _is_truncated(oldest: Snapshot | None) -> bool:
    """Whether the oldest reachable snapshot had a parent.

    Java's expiry leaves the parent's id in place. pyiceberg's wipes it out, so that a cut history
    looks whole; but a table's first snapshot has sequence number 1 (0 in format version 1).
    """
    if oldest is None:
        return False
    return oldest.parent_snapshot_id is not None or (oldest.sequence_number or 0) > 1


def in_history(metadata: TableMetadata, snapshot_id: int) -> bool:
    """Whether ``snapshot_id`` is the head or one of its known ancestors."""
    return any(
        snapshot.snapshot_id == snapshot_id
        for snapshot in ancestry(metadata, metadata.current_snapshot())
    )


def only_fed(metadata: TableMetadata, since: int | None, until: int | None) -> bool:
    """Whether the rows of ``until`` are those of ``since``, and what the log has brought since.

    So it is where every snapshot between them records positions without a repair, or only
    rewrites files (Iceberg's operation ``replace``). Others' deletes and rows are no part of the
    log, and where the history is cut off before ``since`` nothing is known.

    Args:
        metadata: any that names ``until``.
        since: the older snapshot; None: before the first one.
        until: the newer snapshot.
    """
    oldest: Snapshot | None = None
    for snapshot in ancestry(metadata, None if until is None else metadata.snapshot_by_id(until)):
        if snapshot.snapshot_id == since:
            return True
        summary = snapshot.summary
        if summary is None or REPAIR_KEY in summary.additional_properties:
            return False
        if marker_of(snapshot) is None and summary.operation is not Operation.REPLACE:
            return False
        oldest = snapshot
    return since is None and oldest is not None and not _is_truncated(oldest)


def marker_property(snapshot_id: int, marker: Marker) -> str:
    """The copy of a marker that goes into the table's properties with its snapshot."""
    return json.dumps({"snapshot-id": snapshot_id, "summary": marker_to_summary(marker)})


def required_marker(head: Head, name: TableName) -> Marker:
    """What the head of a table of ours records.

    Raises:
        MarkerLost: nothing.
    """
    if head.marker is None:
        raise MarkerLost(
            f"table {name} records no Kafka positions any more: "
            f"`k2 repair TABLE --marker-from-rows` finds them again"
        )
    return head.marker


def marker_of(snapshot: Snapshot) -> Marker | None:
    """What this very snapshot records.

    Raises:
        MarkerLost: it cannot be read.
    """
    summary = snapshot.summary
    return None if summary is None else marker_from_summary(summary.additional_properties)


def marker_of_property(text: str) -> tuple[int, Marker]:
    """The inverse of :func:`marker_property`.

    Raises:
        MarkerLost: it cannot be read.
    """
    try:
        copy = json.loads(text)
        snapshot_id, marker = int(copy["snapshot-id"]), marker_from_summary(copy["summary"])
    except MALFORMED as error:
        raise _unreadable(text) from error
    if marker is None:
        raise _unreadable(text)
    return snapshot_id, marker


def _unreadable(text: str) -> MarkerLost:
    return MarkerLost(
        f"the table property {MARKER_PROPERTY} cannot be read ({shorten(text)}): "
        f"roll the table back to a snapshot that records positions, or find them again with "
        f"`k2 repair TABLE --marker-from-rows`"
    )
