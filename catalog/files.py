"""The data files of a snapshot as one Arrow table: what a scan is planned and pruned with.

Manifests never change, so each is parsed once per schema version and kept as a small
Arrow table; a snapshot's table is their concatenation.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestFile,
)
from pyiceberg.schema import Schema
from pyiceberg.table.delete_file_index import DeleteFileIndex
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import NestedField

from catalog.declaration import field_id
from catalog.errors import VersionGone
from catalog.iceberg_schema import plain_type
from catalog.manifest import schema_key

#: Entries (data files) of parsed manifests that are kept; about 1 KB each with 20 columns.
MAX_CACHED_ENTRIES = 200_000
#: Bytes of a single-precision bound.
_FLOAT_BYTES = 4
#: Decimals of up to 38 digits must not be rounded to Python's 28.
_EXACT = Context(prec=38)
#: Whole snapshots whose concatenated table is kept; tickets need a few old ones.
_MAX_SNAPSHOTS = 32

#: A parsed manifest: table uuid, path, declaration, number of partition specs.
_Key = tuple[str, str, str, int]

_FIXED = (
    pa.field("path", pa.string(), nullable=False),
    pa.field("file_format", pa.string(), nullable=False),
    pa.field("record_count", pa.int64(), nullable=False),
    pa.field("file_size_bytes", pa.int64(), nullable=False),
    pa.field("spec_id", pa.int32(), nullable=False),
    pa.field("sort_order_id", pa.int32()),
    pa.field("sequence_number", pa.int64()),
    pa.field("snapshot_id", pa.int64()),
    pa.field("delete_files", pa.list_(pa.field("element", pa.string(), nullable=False))),
    pa.field("equality_deletes", pa.bool_(), nullable=False),
)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column whose bounds are offered."""

    id: int
    name: str
    type: pa.DataType

    @property
    def is_float(self) -> bool:
        return bool(pa.types.is_floating(self.type))


@dataclass(frozen=True, slots=True)
class _PartitionColumn:
    """A partition field as it stands in the specs: its place in each spec's record."""

    name: str
    type: pa.DataType
    places: Mapping[int, int]


class FileIndex:
    """Parsed manifests, bounded, safe to use from any thread.

    Two threads that miss the same manifest both parse it: the results are equal.
    """

    def __init__(self, max_entries: int = MAX_CACHED_ENTRIES) -> None:
        self._lock = threading.Lock()
        self._manifests: LRUCache[_Key, pa.Table] = LRUCache(
            max_entries, getsizeof=lambda table: 1 + table.num_rows
        )
        self._snapshots: LRUCache[tuple[str, int, str, int], pa.Table] = LRUCache(_MAX_SNAPSHOTS)

    def entries(
        self,
        metadata: TableMetadata,
        snapshot: Snapshot | None,
        io: FileIO,
        declared: pa.Schema,
    ) -> pa.Table:
        """See :meth:`catalog.lake.Lake.entries`; ``declared`` has field ids."""
        if snapshot is None:
            return Layout.of(metadata, declared).table([])
        uuid = str(metadata.table_uuid)
        version = schema_key(declared)
        key = (uuid, snapshot.snapshot_id, version, len(metadata.partition_specs))
        with self._lock:
            if (table := self._snapshots.get(key)) is not None:
                return table
        layout = Layout.of(metadata, declared)
        table = _newest_first(self._read(layout, uuid, snapshot.manifests(io), io))
        with self._lock:
            self._snapshots[key] = table
        return table

    def _read(
        self, layout: Layout, uuid: str, manifests: Sequence[ManifestFile], io: FileIO
    ) -> pa.Table:
        data = [m for m in manifests if m.content == ManifestContent.DATA]
        deletes = [m for m in manifests if m.content == ManifestContent.DELETES]
        if deletes:
            removed = _Deletes(e for m in deletes for e in m.fetch_manifest_entry(io))
            return layout.table([e for m in data for e in m.fetch_manifest_entry(io)], removed)
        keys = [(uuid, m.manifest_path, layout.version, layout.specs) for m in data]
        with self._lock:
            known = {key: table for key in keys if (table := self._manifests.get(key)) is not None}
        missing = [(k, m) for k, m in zip(keys, data, strict=True) if k not in known]
        known |= self._parse(layout, missing, io)
        return pa.concat_tables([layout.empty, *(known[key] for key in keys)]).combine_chunks()

    def _parse(
        self, layout: Layout, missing: Sequence[tuple[_Key, ManifestFile]], io: FileIO
    ) -> dict[_Key, pa.Table]:
        """One table for all of them, then a slice for each: arrays cost more than rows."""
        groups = [(key, manifest.fetch_manifest_entry(io)) for key, manifest in missing]
        whole = layout.table([entry for _, entries in groups for entry in entries])
        parsed: dict[_Key, pa.Table] = {}
        first = 0
        for key, entries in groups:
            parsed[key] = whole.slice(first, len(entries))
            first += len(entries)
        with self._lock:
            for key, table in parsed.items():
                if table.num_rows < self._manifests.maxsize:
                    self._manifests[key] = table
        return parsed


@dataclass(frozen=True, slots=True)
class Layout:
    """What the table of entries looks like under one declaration."""

    version: str
    specs: int
    columns: tuple[_Column, ...]
    partitions: tuple[_PartitionColumn, ...]
    empty: pa.Table

    @classmethod
    def of(cls, metadata: TableMetadata, declared: pa.Schema) -> Layout:
        """The layout with the columns of one declaration."""
        columns = tuple(
            _Column(number, field.name, field.type)
            for field in declared
            if (number := field_id(field)) is not None and not pa.types.is_nested(field.type)
        )
        partitions = tuple(_partition_columns(metadata, metadata.schema()))
        empty = _arrow_schema(columns, partitions).empty_table()
        specs = len(metadata.partition_specs)
        return cls(schema_key(declared), specs, columns, partitions, empty)

    def table(self, entries: Sequence[ManifestEntry], deletes: _Deletes | None = None) -> pa.Table:
        """Live data-file entries as rows, in the manifests' order."""
        files = [entry.data_file for entry in entries]
        fixed = _fixed_columns(entries, files, deletes or _Deletes(()))
        bounds = [self._bounds(files, "lower_bounds"), self._bounds(files, "upper_bounds")]
        arrays = [*fixed, self._partition(files), *bounds, self._nulls(files)]
        return pa.Table.from_arrays(arrays, schema=self.empty.schema)

    def _bounds(self, files: Sequence[DataFile], which: str) -> pa.StructArray:
        raw = [(getattr(file, which) or {}, file.nan_value_counts or {}) for file in files]
        arrays = []
        for column in self.columns:
            decode = _decoder(column.type)
            values = [
                None
                if (value := bounds.get(column.id)) is None
                or (column.is_float and nans.get(column.id) != 0)
                else decode(value)
                for bounds, nans in raw
            ]
            arrays.append(_bounds_of(values, column.type))
        return _struct(arrays, [(c.name, c.type) for c in self.columns], len(files))

    def _nulls(self, files: Sequence[DataFile]) -> pa.StructArray:
        counts = [file.null_value_counts or {} for file in files]
        arrays = [pa.array([c.get(col.id) for c in counts], pa.int64()) for col in self.columns]
        return _struct(arrays, [(c.name, pa.int64()) for c in self.columns], len(files))

    def _partition(self, files: Sequence[DataFile]) -> pa.StructArray:
        arrays = []
        for column in self.partitions:
            values = [
                None
                if (place := column.places.get(file.spec_id)) is None
                else file.partition[place]
                for file in files
            ]
            arrays.append(_typed(values, column.type))
        return _struct(arrays, [(c.name, c.type) for c in self.partitions], len(files))


class _Deletes:
    """Which delete files touch a data file."""

    def __init__(self, entries: Iterable[ManifestEntry]) -> None:
        self._positions = DeleteFileIndex()
        self._newest_equality = -1
        for entry in entries:
            if entry.data_file.content == DataFileContent.EQUALITY_DELETES:
                self._newest_equality = max(self._newest_equality, entry.sequence_number or 0)
            else:
                self._positions.add_delete_file(entry, entry.data_file.partition)

    def paths(self, entry: ManifestEntry) -> list[str]:
        """Position delete files and deletion vectors, sorted."""
        return sorted(file.file_path for file in self.files(entry))

    def files(self, entry: ManifestEntry) -> set[DataFile]:
        """The same as manifest values."""
        file = entry.data_file
        return self._positions.for_data_file(entry.sequence_number or 0, file, file.partition)

    def by_equality(self, entry: ManifestEntry) -> bool:
        """Whether equality deletes may apply: any that is newer, in whatever partition."""
        return (entry.sequence_number or 0) < self._newest_equality


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


def tasks_of(
    snapshot: Snapshot, io: FileIO, paths: Sequence[str]
) -> list[tuple[DataFile, set[DataFile]]]:
    """The data files at ``paths`` with the position deletes that touch them."""
    wanted = set(paths)
    manifests = snapshot.manifests(io)
    deletes = _Deletes(
        entry
        for manifest in manifests
        if manifest.content == ManifestContent.DELETES
        for entry in manifest.fetch_manifest_entry(io)
    )
    return [
        (entry.data_file, deletes.files(entry))
        for manifest in manifests
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(io)
        if absolute(entry.data_file.file_path) in wanted
    ]


def absolute(path: str) -> str:
    """A path as Iceberg recorded it, local ones as ``file://`` URIs; nothing is escaped."""
    if path.startswith("file:/") and not path.startswith("file://"):
        return f"file://{path.removeprefix('file:')}"
    return path if "://" in path else f"file://{Path(path).absolute()}"


def with_relative_paths(entries: pa.Table, location: str) -> pa.Table:
    """Entries with paths relative to the table's location, null where they lie outside."""
    root = absolute(location).rstrip("/") + "/"
    inside = pc.starts_with(entries["path"], root)
    relative = pc.utf8_slice_codeunits(entries["path"], len(root))
    paths = pc.if_else(inside, relative, pa.scalar(None, pa.string()))
    return entries.set_column(0, "path", paths)


def _newest_first(entries: pa.Table) -> pa.Table:
    """The newest commits in front: what LIMIT meets first."""
    order = pc.sort_indices(entries, sort_keys=[("sequence_number", "descending")])
    return entries.take(order).combine_chunks()


def _fixed_columns(
    entries: Sequence[ManifestEntry], files: Sequence[DataFile], deletes: _Deletes
) -> list[pa.Array]:
    columns: tuple[Iterable[object], ...] = (
        (absolute(file.file_path) for file in files),
        (file.file_format.value.lower() for file in files),
        (file.record_count for file in files),
        (file.file_size_in_bytes for file in files),
        (file.spec_id for file in files),
        (file.sort_order_id for file in files),
        (entry.sequence_number for entry in entries),
        (entry.snapshot_id for entry in entries),
        (deletes.paths(entry) for entry in entries),
        (deletes.by_equality(entry) for entry in entries),
    )
    return [pa.array(values, f.type) for values, f in zip(map(list, columns), _FIXED, strict=True)]


def _arrow_schema(columns: Sequence[_Column], partitions: Sequence[_PartitionColumn]) -> pa.Schema:
    typed = pa.struct([(column.name, column.type) for column in columns])
    counts = pa.struct([(column.name, pa.int64()) for column in columns])
    partition = pa.struct([(column.name, column.type) for column in partitions])
    return pa.schema(
        [
            *_FIXED,
            pa.field("partition", partition),
            pa.field("lower", typed),
            pa.field("upper", typed),
            pa.field("null_count", counts),
        ]
    )


def _partition_columns(metadata: TableMetadata, schema: Schema) -> Iterable[_PartitionColumn]:
    """Partition fields of all specs by name; fields of one name and another type are left out."""
    found: dict[str, tuple[pa.DataType, dict[int, int]]] = {}
    for spec in metadata.partition_specs:
        for place, field in enumerate(spec.fields):
            source = _field(schema, field.source_id)
            if source is None:  # the source column was dropped: nothing can be pruned by it
                continue
            kind = plain_type(field.transform.result_type(source.field_type))
            known, places = found.setdefault(field.name, (kind, {}))
            if known == kind:
                places[spec.spec_id] = place
    return [_PartitionColumn(name, kind, places) for name, (kind, places) in found.items()]


def _field(schema: Schema, field_id: int) -> NestedField | None:
    return next((field for field in schema.fields if field.field_id == field_id), None)


def _struct(
    arrays: Sequence[pa.Array], fields: Sequence[tuple[str, pa.DataType]], rows: int
) -> pa.StructArray:
    if not arrays:
        return pa.array([{}] * rows, pa.struct([]))
    return pa.StructArray.from_arrays(list(arrays), fields=[pa.field(n, t) for n, t in fields])


def _decoder(kind: pa.DataType) -> Callable[[bytes], object]:
    """Iceberg's single-value serialisation → a Python value (specification, appendix D).

    Integers are read by their length, so that bounds from before a promotion stay readable.
    """
    if pa.types.is_boolean(kind):
        return lambda raw: raw != b"\x00"
    if pa.types.is_string(kind):
        return lambda raw: raw.decode()
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return bytes
    if pa.types.is_floating(kind):
        return lambda raw: struct.unpack("<f" if len(raw) == _FLOAT_BYTES else "<d", raw)[0]
    if pa.types.is_decimal(kind):
        return lambda raw: Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(
            -kind.scale, _EXACT
        )
    return lambda raw: int.from_bytes(raw, "little", signed=True)


def _bounds_of(values: list[object], kind: pa.DataType) -> pa.Array:
    """Bounds of a column, none at all where one is beyond its type.

    A ticket may read a column by the type that it had before it was promoted.
    """
    try:
        return _typed(values, kind)
    except (pa.ArrowInvalid, OverflowError):
        return pa.nulls(len(values), kind)


def _typed(values: list[object], kind: pa.DataType) -> pa.Array:
    """Python values, temporal ones as their integers, as an array of ``kind``."""
    if pa.types.is_temporal(kind):
        storage = pa.int32() if kind.bit_width == pa.int32().bit_width else pa.int64()
        return pa.array(values, storage).view(kind)
    return pa.array(values, kind)
