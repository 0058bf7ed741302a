"""What Iceberg knows of a table's version, as tables: ``$snapshots``, ``$files`` and the others.

Paths are relative to the table's folder, and null where they lie outside of it. Everything comes
from the metadata and from manifests that are kept as Arrow tables anyway; no data file is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import ManifestContent, ManifestFile

from catalog.deletes import absolute
from catalog.files import Origin
from catalog.heads import ancestry, snapshot_at
from catalog.versions import snapshots_table

_MOMENT = pa.timestamp("us", tz="UTC")

#: The snapshots that were current on the main branch, newest first.
HISTORY_SCHEMA = pa.schema(
    [
        pa.field("made_current_at", _MOMENT, nullable=False),
        pa.field("snapshot_id", pa.int64(), nullable=False),
        pa.field("parent_id", pa.int64()),
        pa.field("is_current_ancestor", pa.bool_(), nullable=False),
    ]
)
#: Branches and tags; ``type`` is "branch" or "tag", the limits are null where none is set.
REFS_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("snapshot_id", pa.int64(), nullable=False),
        pa.field("max_reference_age_ms", pa.int64()),
        pa.field("min_snapshots_to_keep", pa.int64()),
        pa.field("max_snapshot_age_ms", pa.int64()),
    ]
)
#: Manifests of the snapshot; ``content`` is "data" or "deletes".
MANIFESTS_SCHEMA = pa.schema(
    [
        pa.field("content", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("length_bytes", pa.int64(), nullable=False),
        pa.field("spec_id", pa.int32(), nullable=False),
        pa.field("added_snapshot_id", pa.int64()),
        pa.field("sequence_number", pa.int64()),
        pa.field("min_sequence_number", pa.int64()),
        *(
            pa.field(f"{change}_{what}", pa.int64())
            for what in ("files", "rows")
            for change in ("added", "existing", "deleted")
        ),
    ]
)
#: Columns of the entries that mean nothing to people.
_INTERNAL = [
    *("nan", "partition_key", "deletes", "partial"),
    *("partition_lower", "partition_upper", "partition_null", "buckets"),
]


def inspected(which: str, origin: Origin, snapshot_id: int | None) -> pa.Table:
    """The table ``which``, one of :data:`TABLES`, at a snapshot (None: there is none yet)."""
    return TABLES[which](origin, snapshot_id)


def _snapshots(origin: Origin, _: int | None) -> pa.Table:
    return snapshots_table(origin.metadata)


def _files(origin: Origin, _: int | None) -> pa.Table:
    table = origin.found.table.drop_columns(_INTERNAL)
    place = table.schema.get_field_index("delete_files")
    lists = table["delete_files"].combine_chunks()
    relative = pa.ListArray.from_arrays(lists.offsets, _relative(origin, lists.values))
    table = table.set_column(place, "delete_files", relative)
    return table.set_column(0, "path", _relative(origin, table["path"].combine_chunks()))


def _manifests(origin: Origin, snapshot_id: int | None) -> pa.Table:
    found: Iterable[ManifestFile] = ()
    if snapshot_id is not None and (snapshot := snapshot_at(origin.metadata, snapshot_id)):
        found = snapshot.manifests(origin.io)
    rows = [_manifest(manifest) for manifest in found]
    table = pa.Table.from_pylist(rows, schema=MANIFESTS_SCHEMA)
    place = table.schema.get_field_index("path")
    return table.set_column(place, "path", _relative(origin, table["path"].combine_chunks()))


def _manifest(manifest: ManifestFile) -> dict[str, object]:
    return {
        "content": "data" if manifest.content == ManifestContent.DATA else "deletes",
        "path": absolute(manifest.manifest_path),
        "length_bytes": manifest.manifest_length,
        "spec_id": manifest.partition_spec_id,
        "added_snapshot_id": manifest.added_snapshot_id,
        "sequence_number": manifest.sequence_number,
        "min_sequence_number": manifest.min_sequence_number,
        "added_files": manifest.added_files_count,
        "existing_files": manifest.existing_files_count,
        "deleted_files": manifest.deleted_files_count,
        "added_rows": manifest.added_rows_count,
        "existing_rows": manifest.existing_rows_count,
        "deleted_rows": manifest.deleted_rows_count,
    }


def _history(origin: Origin, _: int | None) -> pa.Table:
    metadata, rows = origin.metadata, []
    known = {each.snapshot_id for each in ancestry(metadata, metadata.current_snapshot())}
    for entry in reversed(metadata.snapshot_log):
        snapshot = metadata.snapshot_by_id(entry.snapshot_id)
        rows.append(
            {
                "made_current_at": entry.timestamp_ms * 1000,
                "snapshot_id": entry.snapshot_id,
                "parent_id": None if snapshot is None else snapshot.parent_snapshot_id,
                "is_current_ancestor": entry.snapshot_id in known,
            }
        )
    return pa.Table.from_pylist(rows, schema=HISTORY_SCHEMA)


def _refs(origin: Origin, _: int | None) -> pa.Table:
    rows = [
        {
            "name": name,
            "type": str(ref.snapshot_ref_type.value),
            "snapshot_id": ref.snapshot_id,
            "max_reference_age_ms": ref.max_ref_age_ms,
            "min_snapshots_to_keep": ref.min_snapshots_to_keep,
            "max_snapshot_age_ms": ref.max_snapshot_age_ms,
        }
        for name, ref in sorted(origin.metadata.refs.items())
    ]
    return pa.Table.from_pylist(rows, schema=REFS_SCHEMA)


def _partitions(origin: Origin, _: int | None) -> pa.Table:
    """One row per partition and spec: its values, and what its files hold together."""
    table = origin.found.table
    touched = pc.cast(pc.greater(pc.list_value_length(table["deletes"]), 0), pa.int64())
    small = table.select(["partition_key", "record_count", "file_size_bytes", "sequence_number"])
    small = small.append_column("touched", touched)
    small = small.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    grouped = small.group_by("partition_key").aggregate(
        [
            ("row", "min"),
            ("row", "count"),
            ("record_count", "sum"),
            ("file_size_bytes", "sum"),
            ("touched", "sum"),
            ("sequence_number", "max"),
        ]
    )
    first = table.take(grouped["row_min"])
    columns = {
        "partition": first["partition"],
        "spec_id": first["spec_id"],
        "file_count": grouped["row_count"],
        "record_count": grouped["record_count_sum"],
        "size_bytes": grouped["file_size_bytes_sum"],
        "files_with_deletes": grouped["touched_sum"],
        "newest_sequence_number": grouped["sequence_number_max"],
    }
    return pa.table(columns)


def _relative(origin: Origin, paths: pa.StringArray) -> pa.StringArray:
    root = absolute(origin.metadata.location).rstrip("/") + "/"
    relative = pc.utf8_slice_codeunits(paths, len(root))
    return pc.if_else(pc.starts_with(paths, root), relative, pa.scalar(None, pa.string()))


#: Name → how it is made.
TABLES: Mapping[str, Callable[[Origin, int | None], pa.Table]] = MappingProxyType(
    {
        "snapshots": _snapshots,
        "files": _files,
        "manifests": _manifests,
        "history": _history,
        "partitions": _partitions,
        "refs": _refs,
    }
)
