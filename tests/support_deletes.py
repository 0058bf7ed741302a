"""Delete files as Flink, Spark and Trino write them (pyiceberg writes none), and what they mean.

:func:`surviving` is the specification's "Scan Planning" as loops over rows: what is read is
compared with it.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import (
    DATA_FILE_TYPE,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import AssertTableUUID
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record
from pyroaring import BitMap64

POSITION_FIELDS = pa.schema(
    [
        pa.field("file_path", pa.string(), metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), metadata={"PARQUET:field_id": "2147483545"}),
    ]
)
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Delete:
    """A delete file to be committed, and what it means.

    Attributes:
        file: the manifest's value.
        positions: (path, position) of deleted rows.
        keys: deleted keys, by column.
        spec_id, partition: its scope.
    """

    file: DataFile
    positions: tuple[tuple[str, int], ...] = ()
    keys: tuple[Mapping[str, object], ...] = ()
    spec_id: int = 0
    partition: tuple[object, ...] = ()


class _DeleteManifestWriter(ManifestWriterV2):
    """Writes entries with the fields of format version 3, which readers of version 2 skip."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}

    def new_writer(self) -> AvroOutputFile[ManifestEntry]:
        return AvroOutputFile[ManifestEntry](
            output_file=self._output_file,
            file_schema=self._with_partition(3),
            record_schema=self._with_partition(3),
            schema_name="manifest_entry",
            metadata=self._meta,
        )


class _AppendDeletes(_FastAppendFiles):
    """A snapshot that adds delete files, one manifest per partition spec."""

    deletes: Sequence[DataFile]

    def _existing_manifests(self) -> list[ManifestFile]:
        return [*super()._existing_manifests(), *map(self._manifest, self._specs())]

    def _specs(self) -> list[int]:
        return sorted({file.spec_id for file in self.deletes})

    def _manifest(self, spec_id: int) -> ManifestFile:
        spec = self._transaction.table_metadata.specs()[spec_id]
        output = self.new_manifest_output()
        schema = self.schema()
        with _DeleteManifestWriter(spec, schema, output, self._snapshot_id, "deflate") as writer:
            for file in self.deletes:
                if file.spec_id == spec_id:
                    writer.add(
                        ManifestEntry.from_args(
                            status=ManifestEntryStatus.ADDED,
                            snapshot_id=self._snapshot_id,
                            sequence_number=None,
                            file_sequence_number=None,
                            data_file=file,
                        )
                    )
        return writer.to_manifest_file()


def commit(table: Table, deletes: Sequence[Delete]) -> Table:
    """One snapshot that adds the delete files; returns the table after it."""
    producer = _AppendDeletes(Operation.OVERWRITE, table.transaction(), table.io)
    producer.deletes = [each.file for each in deletes]
    updates, requirements = producer._commit()
    table._do_commit(updates, (*requirements, AssertTableUUID(uuid=table.metadata.table_uuid)))
    return table.refresh()


def by_position(
    table: Table,
    rows: Iterable[tuple[str, int]],
    partition: Sequence[object] = (),
    spec_id: int = 0,
    *,
    bounds: bool = False,
) -> Delete:
    """A Parquet file of positions; with bounds it says which data files it is for."""
    found = sorted(rows)
    path = _write(table, pa.table([list(c) for c in zip(*found, strict=True)], POSITION_FIELDS))
    ends = {2147483546: (found[0][0].encode(), found[-1][0].encode())} if bounds else {}
    file = _file(
        path, len(found), partition, spec_id, content=DataFileContent.POSITION_DELETES, ends=ends
    )
    return Delete(file, positions=tuple(found), spec_id=spec_id, partition=tuple(partition))


def by_equality(
    table: Table,
    rows: pa.Table,
    partition: Sequence[object] = (),
    spec_id: int = 0,
    *,
    bounds: bool = False,
) -> Delete:
    """A Parquet file of keys: its columns are those of the table with these names."""
    schema = table.schema()
    ids = [schema.find_field(name).field_id for name in rows.column_names]
    fields = [
        f.with_metadata({"PARQUET:field_id": str(i)}) for f, i in zip(rows.schema, ids, strict=True)
    ]
    path = _write(table, rows.cast(pa.schema(fields)))
    ends: dict[int, tuple[bytes, bytes]] = {}
    nulls: dict[int, int] = {}
    for number, name in zip(ids, rows.column_names, strict=True):
        values = [v for v in rows[name].to_pylist() if v is not None and v == v]  # noqa: PLR0124
        nulls[number] = rows[name].null_count
        if values:
            kind = schema.find_field(name).field_type
            ends[number] = (to_bytes(kind, min(values)), to_bytes(kind, max(values)))
    file = _file(
        path,
        rows.num_rows,
        partition,
        spec_id,
        content=DataFileContent.EQUALITY_DELETES,
        ends=ends if bounds else {},
        nulls=nulls if bounds else {},
        equality_ids=ids,
    )
    return Delete(file, keys=tuple(rows.to_pylist()), spec_id=spec_id, partition=tuple(partition))


def vectors(table: Table, positions: Mapping[str, Sequence[int]]) -> list[Delete]:
    """One Puffin file with a deletion vector per data file."""
    content, places = bytearray(b"PFA1"), {}
    for path, rows in positions.items():
        body = b"\xd1\xd3\x39\x64" + BitMap64(rows).serialize()
        blob = len(body).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        places[path] = len(content), len(blob)
        content += blob
    path = f"{table.location()}/data/vectors-{next(_numbers)}.puffin"
    with table.io.new_output(path).create() as sink:
        sink.write(bytes(content))
    return [
        Delete(
            _file(
                path,
                len(rows),
                (),
                0,
                content=DataFileContent.POSITION_DELETES,
                format=FileFormat.PUFFIN,
                referenced=data,
                at=places[data],
            ),
            positions=tuple((data, row) for row in rows),
        )
        for data, rows in positions.items()
    ]


def add_file(
    table: Table, path: str, rows: int, partition: Sequence[object] = (), spec_id: int = 0
) -> None:
    """Commits a data file that somebody wrote, without any statistics."""
    file = _file(path, rows, partition, spec_id, content=DataFileContent.DATA)
    with table.transaction() as change, change.update_snapshot().fast_append() as append:
        append.append_data_file(file)


def _write(table: Table, rows: pa.Table) -> str:
    path = f"{table.location()}/data/deletes-{next(_numbers)}.parquet"
    with table.io.new_output(path).create() as sink:
        pq.write_table(rows, sink)
    return path


def _file(  # noqa: PLR0913 - a manifest entry has that many fields
    path: str,
    rows: int,
    partition: Sequence[object],
    spec_id: int,
    *,
    content: DataFileContent,
    format: FileFormat = FileFormat.PARQUET,  # noqa: A002
    ends: Mapping[int, tuple[bytes, bytes]] | None = None,
    nulls: Mapping[int, int] | None = None,
    equality_ids: list[int] | None = None,
    referenced: str | None = None,
    at: tuple[int, int] = (0, 0),
) -> DataFile:
    values: dict[str, Any] = dict.fromkeys(each.name for each in DATA_FILE_TYPE[3].fields)
    values |= {
        "content": content,
        "file_path": path,
        "file_format": format,
        "partition": Record(*partition),
        "record_count": rows,
        "file_size_in_bytes": 1,
        "lower_bounds": {number: low for number, (low, _) in (ends or {}).items()},
        "upper_bounds": {number: high for number, (_, high) in (ends or {}).items()},
        "null_value_counts": dict(nulls or {}),
        "equality_ids": equality_ids,
        "referenced_data_file": referenced,
    }
    if referenced is not None:
        values |= {"content_offset": at[0], "content_size_in_bytes": at[1]}
    file = DataFile.from_args(_table_format_version=3, **values)
    file.spec_id = spec_id
    return file


@dataclass
class Written:
    """A data file as the specification sees it."""

    path: str
    sequence: int
    spec_id: int
    partition: tuple[object, ...]
    rows: list[dict[str, object]]


@dataclass
class Log:
    """Everything that was done to a table."""

    files: list[Written] = field(default_factory=list)
    deletes: list[tuple[int, Delete]] = field(default_factory=list)

    def append(self, table: Table, rows: pa.Table) -> None:
        """Appends rows, as many data files as partitions."""
        known = {each.path for each in self.files}
        table.append(rows)
        snapshot = table.current_snapshot()
        assert snapshot is not None
        for manifest in snapshot.manifests(table.io):
            for entry in manifest.fetch_manifest_entry(table.io):
                file = entry.data_file
                if file.content == DataFileContent.DATA and file.file_path not in known:
                    with table.io.new_input(file.file_path).open() as source:
                        held = pq.read_table(source).to_pylist()
                    values = tuple(file.partition[i] for i in range(len(file.partition)))
                    assert entry.sequence_number is not None
                    self.files.append(
                        Written(file.file_path, entry.sequence_number, file.spec_id, values, held)
                    )

    def delete(self, table: Table, *deletes: Delete) -> None:
        """Commits delete files."""
        commit(table, deletes)
        self.deletes += [(table.metadata.last_sequence_number, each) for each in deletes]

    def surviving(self, unpartitioned: Iterable[int] = ()) -> list[dict[str, object]]:
        """The rows that are left, one by one, by the specification's words."""
        return [
            row
            for file in self.files
            for place, row in enumerate(file.rows)
            if not any(
                _deletes(sequence, each, file, place, row, set(unpartitioned))
                for sequence, each in self.deletes
            )
        ]


def _deletes(
    sequence: int,
    delete: Delete,
    file: Written,
    place: int,
    row: Mapping[str, object],
    unpartitioned: set[int],
) -> bool:
    if not delete.keys:
        return file.sequence <= sequence and (file.path, place) in delete.positions
    mine = delete.spec_id == file.spec_id and delete.partition == file.partition
    if not (mine or delete.spec_id in unpartitioned) or file.sequence >= sequence:
        return False
    return any(all(_same(row.get(name), key[name]) for name in key) for key in delete.keys)


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right
