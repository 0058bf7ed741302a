"""The data files of a snapshot as one Arrow table: what a scan is planned and pruned with.

Manifests never change, so each is parsed once per schema version and kept as a small
Arrow table; a snapshot's table is their concatenation.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache
from numpy.typing import NDArray
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import BucketTransform

from catalog.bounds import decoder, typed
from catalog.declaration import field_id
from catalog.deletes import DeleteFile, Matching, absolute, delete_files_of, partition_key
from catalog.manifest import schema_key
from catalog.partitions import (
    PartitionColumn,
    Source,
    bucket_name,
    buckets_of,
    outside,
    partition_columns,
    proofs,
    sources_of,
)
from catalog.remembered import recent

#: Entries (data files) of parsed manifests that are kept; about 1 KB each with 20 columns.
MAX_CACHED_ENTRIES = 200_000
#: Whole snapshots whose concatenated table is kept (tickets need old ones), and their entries.
_MAX_SNAPSHOTS, _MAX_THEIRS = 32, 100_000

#: What is known of NaN in a floating column of a file: it holds none; it may hold some; and, beside
#: them, perhaps only one number, so that statistics without NaN make it look constant.
PROVEN, UNPROVEN, CONSTANT = 0, 1, 2

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
    pa.field("partition_key", pa.string(), nullable=False),
)
_DELETES = (
    pa.field("delete_files", pa.list_(pa.field("element", pa.string(), nullable=False))),
    pa.field("equality_deletes", pa.bool_(), nullable=False),
    pa.field("deletes", pa.list_(pa.int32())),
    pa.field("partial", pa.bool_(), nullable=False),
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
class Entries:
    """A snapshot's data files, and its delete files.

    Attributes:
        table: see :meth:`catalog.lake.Lake.entries`.
        deletes: what the column ``deletes`` gives places in.
    """

    table: pa.Table
    deletes: tuple[DeleteFile, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a snapshot's files are known from: its table's metadata, and the store."""

    metadata: TableMetadata
    io: FileIO
    found: Entries


class FileIndex:
    """Parsed manifests, bounded, safe to use from any thread.

    Two threads that miss the same manifest both parse it: the results are equal.
    """

    def __init__(self, max_entries: int = MAX_CACHED_ENTRIES) -> None:
        self._lock = threading.Lock()
        self._manifests: LRUCache[_Key, pa.Table] = LRUCache(
            max_entries, getsizeof=lambda table: 1 + table.num_rows
        )
        self._delete_manifests: LRUCache[str, tuple[DeleteFile, ...]] = LRUCache(
            max_entries, getsizeof=lambda deletes: 1 + len(deletes)
        )
        self._snapshots: LRUCache[tuple[str, int, str, int], Entries] = recent(
            _MAX_SNAPSHOTS, _MAX_THEIRS, lambda found: found.table.num_rows
        )

    def entries(
        self,
        metadata: TableMetadata,
        snapshot: Snapshot | None,
        io: FileIO,
        declared: pa.Schema,
    ) -> Entries:
        """See :meth:`catalog.lake.Lake.entries`; ``declared`` has field ids."""
        if snapshot is None:
            layout = Layout.of(metadata, declared)
            return _matched(layout, layout.empty, ())
        uuid = str(metadata.table_uuid)
        version = schema_key(declared)
        key = (uuid, snapshot.snapshot_id, version, len(metadata.partition_specs))
        with self._lock:
            if (found := self._snapshots.get(key)) is not None:
                return found
        layout = Layout.of(metadata, declared)
        manifests = snapshot.manifests(io)
        table = _newest_first(self._read(layout, uuid, manifests, io))
        found = _matched(layout, table, self._deletes(metadata, manifests, io))
        with self._lock:
            self._snapshots[key] = found
        return found

    def _deletes(
        self, metadata: TableMetadata, manifests: Sequence[ManifestFile], io: FileIO
    ) -> tuple[DeleteFile, ...]:
        found: list[DeleteFile] = []
        for manifest in manifests:
            if manifest.content != ManifestContent.DELETES:
                continue
            with self._lock:
                mine = self._delete_manifests.get(manifest.manifest_path)
            if mine is None:
                mine = delete_files_of(manifest, metadata, io)
                with self._lock:
                    if len(mine) < self._delete_manifests.maxsize:
                        self._delete_manifests[manifest.manifest_path] = mine
            found += mine
        return tuple(found)

    def _read(
        self, layout: Layout, uuid: str, manifests: Sequence[ManifestFile], io: FileIO
    ) -> pa.Table:
        data = [m for m in manifests if m.content == ManifestContent.DATA]
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
    partitions: tuple[PartitionColumn, ...]
    sources: tuple[Source, ...]
    empty: pa.Table
    outside: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, metadata: TableMetadata, declared: pa.Schema) -> Layout:
        """The layout with the columns of one declaration."""
        columns = tuple(
            _Column(number, field.name, field.type)
            for field in declared
            if (number := field_id(field)) is not None and not pa.types.is_nested(field.type)
        )
        partitions = tuple(partition_columns(metadata))
        sources = sources_of(metadata, {each.id: (each.name, each.type) for each in columns})
        empty = _arrow_schema(columns, partitions, sources).empty_table()
        specs = len(metadata.partition_specs)
        lacking = tuple(outside(metadata, {each.id: each.name for each in columns}))
        return cls(schema_key(declared), specs, columns, partitions, sources, empty, lacking)

    def partial(self, table: pa.Table) -> NDArray[np.bool_]:
        """Files that may lack a column whose value only their partition tells.

        Hive's layout leaves such columns out, and a migration keeps the files: nothing is counted
        of a column that is not there.
        """
        lacks = np.zeros(table.num_rows, bool)
        for partition, column in self.outside:
            value = pc.struct_field(table["partition"].combine_chunks(), partition)
            counted = pc.struct_field(table["null_count"].combine_chunks(), column)
            lacks |= np.asarray(pc.and_(pc.is_valid(value), pc.is_null(counted)), bool)
        return lacks

    def table(self, entries: Sequence[ManifestEntry]) -> pa.Table:
        """Live data-file entries as rows, in the manifests' order; without their deletes."""
        files = [entry.data_file for entry in entries]
        fixed = _fixed_columns(entries, files)
        bounds = [self._bounds(files, "lower_bounds"), self._bounds(files, "upper_bounds")]
        arrays = [*fixed, self._partition(files), *bounds, self._nulls(files), self._nans(files)]
        arrays += self._proofs(files)
        return pa.Table.from_arrays(arrays, schema=self.empty.schema)

    def _bounds(self, files: Sequence[DataFile], which: str) -> pa.StructArray:
        raw = [(getattr(file, which) or {}, file.nan_value_counts or {}) for file in files]
        arrays = []
        for column in self.columns:
            decode = decoder(column.type)
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

    def _nans(self, files: Sequence[DataFile]) -> pa.StructArray:
        floats = [column for column in self.columns if column.is_float]
        arrays = [pa.array([_nan(file, col.id) for file in files], pa.int8()) for col in floats]
        return _struct(arrays, [(c.name, pa.int8()) for c in floats], len(files))

    def _proofs(self, files: Sequence[DataFile]) -> list[pa.StructArray]:
        proved, buckets = proofs(self.sources, files), buckets_of(self.sources, files)
        columns: list[Mapping[str, pa.Array]] = [
            {name: each.range.lower for name, each in proved.items()},
            {name: each.range.upper for name, each in proved.items()},
            {name: each.null for name, each in proved.items()},
            buckets,
        ]
        return [
            _struct(list(arrays.values()), [(n, a.type) for n, a in arrays.items()], len(files))
            for arrays in columns
        ]

    def _partition(self, files: Sequence[DataFile]) -> pa.StructArray:
        arrays = []
        for column in self.partitions:
            values = [
                None
                if (place := column.places.get(file.spec_id)) is None
                else file.partition[place]
                for file in files
            ]
            arrays.append(typed(values, column.type))
        return _struct(arrays, [(c.name, c.type) for c in self.partitions], len(files))


def files_at(snapshot: Snapshot, io: FileIO, paths: Sequence[str]) -> list[DataFile]:
    """The data files at ``paths`` as manifest values."""
    wanted = set(paths)
    return [
        entry.data_file
        for manifest in snapshot.manifests(io)
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(io)
        if absolute(entry.data_file.file_path) in wanted
    ]


def _matched(layout: Layout, table: pa.Table, deletes: tuple[DeleteFile, ...]) -> Entries:
    """The data files with the delete files that touch them; a column each for people and for us."""
    names = {column.id: column.name for column in layout.columns}
    lists = Matching(table, names).lists(deletes)
    starts, places = lists.offsets, lists.values
    by_equality = pa.array([each.kind == "equality" for each in deletes], pa.bool_()).take(places)
    counted = np.concatenate([[0], np.cumsum(~np.asarray(by_equality, bool))])
    touched = counted[np.asarray(starts)]
    paths = pa.array([each.path for each in deletes], pa.string())
    positional = paths.take(places.filter(pc.invert(by_equality)))
    by_path = pa.ListArray.from_arrays(
        pa.array(touched, pa.int32()), positional, type=_DELETES[0].type
    )
    none = np.diff(np.asarray(starts)) == np.diff(touched)
    partial = pa.array(layout.partial(table))
    for field, values in zip(_DELETES, (by_path, pa.array(~none), lists, partial), strict=True):
        table = table.append_column(field, values)
    return Entries(table, deletes)


def _newest_first(entries: pa.Table) -> pa.Table:
    """The newest commits in front: what LIMIT meets first."""
    numbers = np.asarray(pc.fill_null(entries["sequence_number"], 0))
    if np.all(numbers[:-1] >= numbers[1:]):  # as most writers list them: nothing is copied
        return entries
    order = pc.sort_indices(entries, sort_keys=[("sequence_number", "descending")])
    return entries.take(order).combine_chunks()


def _fixed_columns(entries: Sequence[ManifestEntry], files: Sequence[DataFile]) -> list[pa.Array]:
    columns: tuple[Iterable[object], ...] = (
        (absolute(file.file_path) for file in files),
        (file.file_format.value.lower() for file in files),
        (file.record_count for file in files),
        (file.file_size_in_bytes for file in files),
        (file.spec_id for file in files),
        (file.sort_order_id for file in files),
        (entry.sequence_number for entry in entries),
        (entry.snapshot_id for entry in entries),
        (partition_key(file.spec_id, file.partition) for file in files),
    )
    return [pa.array(values, f.type) for values, f in zip(map(list, columns), _FIXED, strict=True)]


def _arrow_schema(
    columns: Sequence[_Column], partitions: Sequence[PartitionColumn], sources: Sequence[Source]
) -> pa.Schema:
    typed = pa.struct([(column.name, column.type) for column in columns])
    counts = pa.struct([(column.name, pa.int64()) for column in columns])
    partition = pa.struct([(column.name, column.type) for column in partitions])
    proved = {source.name: source.type for source in sources}
    buckets = [bucket_name(each) for each in sources if isinstance(each.transform, BucketTransform)]
    return pa.schema(
        [
            *_FIXED,
            pa.field("partition", partition),
            pa.field("lower", typed),
            pa.field("upper", typed),
            pa.field("null_count", counts),
            pa.field("nan", pa.struct([(c.name, pa.int8()) for c in columns if c.is_float])),
            pa.field("partition_lower", pa.struct(list(proved.items()))),
            pa.field("partition_upper", pa.struct(list(proved.items()))),
            pa.field("partition_null", pa.struct([(name, pa.bool_()) for name in proved])),
            pa.field("buckets", pa.struct([(name, pa.int32()) for name in buckets])),
        ]
    )


def _struct(
    arrays: Sequence[pa.Array], fields: Sequence[tuple[str, pa.DataType]], rows: int
) -> pa.StructArray:
    if not arrays:
        return pa.array([{}] * rows, pa.struct([]))
    return pa.StructArray.from_arrays(list(arrays), fields=[pa.field(n, t) for n, t in fields])


def _nan(file: DataFile, column: int) -> int:
    """One of :data:`PROVEN`, :data:`UNPROVEN` and :data:`CONSTANT`."""
    nulls = (file.null_value_counts or {}).get(column)
    if (file.nan_value_counts or {}).get(column) == 0 or nulls == file.record_count:
        return PROVEN
    lower, upper = ((each or {}).get(column) for each in (file.lower_bounds, file.upper_bounds))
    return CONSTANT if lower is None or lower == upper else UNPROVEN


def _bounds_of(values: list[object], kind: pa.DataType) -> pa.Array:
    """Bounds of a column, none at all where one is beyond its type.

    A ticket may read a column by the type that it had before it was promoted.
    """
    try:
        return typed(values, kind)
    except (pa.ArrowInvalid, OverflowError):
        return pa.nulls(len(values), kind)
