"""Which delete files touch which data files of a snapshot.

pyiceberg plans no scan of a table with equality deletes, and leaves out what tells one deletion
vector of a Puffin file from the others; so delete manifests are read, and matched, here.

Source: Iceberg table specification, "Scan Planning", "Position Delete Files", "Equality Delete
Files" and "Deletion Vectors".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.avro.file import AvroFile
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DATA_FILE_TYPE,
    MANIFEST_ENTRY_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import VoidTransform
from pyiceberg.typedef import Record

from catalog.bounds import decoder, typed

#: Field id of ``file_path`` in a position delete file.
PATH_ID = 2147483546
_V3 = 3
_PLACES = {each.name: place for place, each in enumerate(DATA_FILE_TYPE[_V3].fields)}

Kind = Literal["positions", "vector", "equality"]
#: Rows of the table of entries.
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """One delete file, or one vector of a Puffin file.

    Attributes:
        path: as :func:`absolute` gives it.
        location: the path as Iceberg records it, which is what stores open.
        sequence_number: of its data.
        partition: :func:`partition_key`; None: it is for every partition.
        rows: deleted rows that it names.
        referenced: the one data file that it is for; None: any.
        offset, length: where a vector stands in its file.
        equality_ids: the columns that deleted rows are recognised by; empty: by position.
        lower, upper: bounds by field id, in Iceberg's serialisation.
        nulls: counts of nulls by field id.
    """

    path: str
    location: str
    kind: Kind
    file_format: str
    sequence_number: int
    partition: str | None
    rows: int
    referenced: str | None = None
    offset: int | None = None
    length: int | None = None
    equality_ids: tuple[int, ...] = ()
    lower: Mapping[int, bytes] = field(default_factory=dict)
    upper: Mapping[int, bytes] = field(default_factory=dict)
    nulls: Mapping[int, int] = field(default_factory=dict)


def absolute(path: str) -> str:
    """A path as Iceberg recorded it, local ones as ``file://`` URIs; nothing is escaped."""
    if path.startswith("file:/") and not path.startswith("file://"):
        return f"file://{path.removeprefix('file:')}"
    return path if "://" in path else f"file://{Path(path).absolute()}"


def partition_key(spec_id: int, values: Record) -> str:
    """Tells partitions apart: spec and values, as delete files are matched by them."""
    return f"{spec_id}:{[values[place] for place in range(len(values))]!r}"


def delete_files_of(
    manifest: ManifestFile, metadata: TableMetadata, io: FileIO
) -> tuple[DeleteFile, ...]:
    """The live entries of a delete manifest."""
    with AvroFile[ManifestEntry](
        io.new_input(manifest.manifest_path),
        MANIFEST_ENTRY_SCHEMAS[_V3],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as entries:
        spec = metadata.specs()[manifest.partition_spec_id]
        scoped = any(not isinstance(each.transform, VoidTransform) for each in spec.fields)
        return tuple(
            _delete_file(entry, manifest, scoped=scoped)
            for entry in entries
            if entry.status != ManifestEntryStatus.DELETED
        )


def _delete_file(entry: ManifestEntry, manifest: ManifestFile, *, scoped: bool) -> DeleteFile:
    file = entry.data_file
    sequence = entry.sequence_number
    if sequence is None:  # inherited, by "Sequence Number Inheritance"
        sequence = manifest.sequence_number
    by_equality = file.content == DataFileContent.EQUALITY_DELETES
    referenced = None if by_equality else _value(file, "referenced_data_file") or _only_path(file)
    vector = file.file_format == FileFormat.PUFFIN
    kind: Kind = "equality" if by_equality else "vector" if vector else "positions"
    return DeleteFile(
        path=absolute(file.file_path),
        location=file.file_path,
        kind=kind,
        file_format=file.file_format.value.lower(),
        sequence_number=sequence or 0,
        partition=None
        if by_equality and not scoped
        else partition_key(manifest.partition_spec_id, file.partition),
        rows=file.record_count,
        referenced=None if referenced is None else absolute(referenced),
        offset=_value(file, "content_offset"),
        length=_value(file, "content_size_in_bytes"),
        equality_ids=tuple(file.equality_ids or ()),
        lower=file.lower_bounds or {},
        upper=file.upper_bounds or {},
        nulls=file.null_value_counts or {},
    )


def _value(file: DataFile, name: str) -> Any:
    return file[_PLACES[name]] if _PLACES[name] < len(file) else None


def _only_path(file: DataFile) -> str | None:
    """The data file that both bounds of ``file_path`` name; writers do not truncate these."""
    lower = (file.lower_bounds or {}).get(PATH_ID)
    upper = (file.upper_bounds or {}).get(PATH_ID)
    return lower.decode() if lower is not None and lower == upper else None


class Matching:
    """The data files of a snapshot, asked delete file by delete file.

    Args:
        entries: as ``FileIndex`` makes them.
        columns: field id → name of the columns whose bounds the entries have.
    """

    def __init__(self, entries: pa.Table, columns: Mapping[int, str]) -> None:
        self._entries = entries
        self._columns = columns
        self._sequences = np.asarray(pc.fill_null(entries["sequence_number"], 0))
        self._paths = {path: row for row, path in enumerate(entries["path"].to_pylist())}
        self._by_partition = _rows_by(entries["partition_key"].combine_chunks())
        self._bounds: dict[int, _Bounds | None] = {}

    def lists(self, deletes: Sequence[DeleteFile]) -> pa.ListArray:
        """Per data file the places in ``deletes`` of those that touch it, ascending."""
        found = [self._touched(delete) for delete in deletes]
        rows = np.concatenate([np.zeros(0, np.int64), *found])
        places = np.repeat(np.arange(len(deletes), dtype=np.int32), [len(each) for each in found])
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum(np.bincount(rows, minlength=self._entries.num_rows))
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(places[order], pa.int32()))

    def _touched(self, delete: DeleteFile) -> Numbers:
        rows = self._in_scope(delete)
        if delete.kind == "equality":  # only what is older: the specification says "strictly"
            rows = rows[self._sequences[rows] < delete.sequence_number]
            return rows[self._may_match(delete, rows)] if len(rows) else rows
        return rows[self._sequences[rows] <= delete.sequence_number]

    def _in_scope(self, delete: DeleteFile) -> Numbers:
        if delete.referenced is not None:
            row = self._paths.get(delete.referenced)
            return np.array([] if row is None else [row], np.int64)
        if delete.partition is None:
            return np.arange(self._entries.num_rows)
        return self._by_partition.get(delete.partition, np.zeros(0, np.int64))

    def _may_match(self, delete: DeleteFile, rows: Numbers) -> NDArray[np.bool_]:
        """False where bounds prove that no row of a file has a deleted key."""
        may = np.ones(len(rows), bool)
        for number in delete.equality_ids:
            bounds = self._bounds_of(number)
            if bounds is not None:
                may &= bounds.overlap(delete, number, rows)
        return may

    def _bounds_of(self, number: int) -> _Bounds | None:
        if number not in self._bounds:
            name = self._columns.get(number)
            self._bounds[number] = None if name is None else _Bounds.of(self._entries, name)
        return self._bounds[number]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Bounds of one column of all data files."""

    lower: pa.Array
    upper: pa.Array
    nulls: pa.Array

    @classmethod
    def of(cls, entries: pa.Table, name: str) -> _Bounds | None:
        lower, upper, nulls = (
            pc.struct_field(entries[which].combine_chunks(), name)
            for which in ("lower", "upper", "null_count")
        )
        kind = lower.type
        if pa.types.is_floating(kind) or pa.types.is_fixed_size_binary(kind):
            return None  # NaN lies outside all bounds; Arrow does not order fixed-size binaries
        return cls(lower, upper, nulls)

    def overlap(self, delete: DeleteFile, number: int, rows: Numbers) -> NDArray[np.bool_]:
        low, high = delete.lower.get(number), delete.upper.get(number)
        if low is None or high is None or delete.nulls.get(number) is None:
            return np.ones(len(rows), bool)
        least, greatest = (_scalar(each, self.lower.type) for each in (low, high))
        lower, upper = self.lower.take(rows), self.upper.take(rows)
        apart = pc.or_kleene(pc.greater(lower, greatest), pc.less(upper, least))
        if delete.nulls[number]:
            apart = pc.and_kleene(apart, pc.equal(self.nulls.take(rows), 0))
        return ~np.asarray(pc.fill_null(apart, fill_value=False), bool)


def _scalar(raw: bytes, kind: pa.DataType) -> pa.Scalar:
    return typed([decoder(kind)(raw)], kind)[0]


def _rows_by(keys: pa.StringArray) -> dict[str, Numbers]:
    encoded = keys.dictionary_encode()
    codes = np.asarray(encoded.indices)
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    names: Iterable[str] = encoded.dictionary.to_pylist()
    return {name: order[edges[i] : edges[i + 1]] for i, name in enumerate(names)}
