"""Which rows of a data file are deleted: what delete files say, read once for many data files.

Source: Iceberg table specification, "Position Delete Files", "Equality Delete Files", "Deletion
Vectors"; Puffin specification, "deletion-vector-v1".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.io import FileIO
from pyroaring import BitMap64

from catalog.deletes import PATH_ID, DeleteFile, absolute
from catalog.errors import Unsupported
from catalog.keysets import KeySet

#: Memory that the deleted keys and positions of one statement may take.
MAX_DELETED_BYTES = 512 * 1024**2
#: Rows of which keys are compared at a time: the set's own table is built anew each time.
_KEY_ROWS = 256 * 1024
_POSITION_ID = PATH_ID - 1
_FIELD_ID = b"PARQUET:field_id"
#: What a deletion vector's blob begins with, behind its length.
_MAGIC = b"\xd1\xd3\x39\x64"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column that deleted rows are recognised by.

    Attributes:
        type: the widest that it ever had, plain.
        default: what files from before the column hold; None: null.
        names: what it is called in files without field ids.
    """

    type: pa.DataType
    default: object = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A data file and the delete files that touch it.

    Attributes:
        path: as Iceberg records it, made absolute.
        sequence_number: of its data.
        rows: that it holds, deleted ones included.
    """

    path: str
    sequence_number: int
    rows: int
    deletes: tuple[DeleteFile, ...]


class Erased:
    """What the delete files of some data files say; one thread.

    Args:
        io: opens the delete files.
        columns: by field id, what equality deletes name.
        targets: all data files that will be asked about: a key set holds what any of them needs.
        check: called between files; may raise to end the work.
    """

    def __init__(
        self,
        io: FileIO,
        columns: Mapping[int, KeyColumn],
        targets: Iterable[Target],
        check: Callable[[], None],
    ) -> None:
        self._io = io
        self._columns = columns
        self._check = check
        self._left_bytes = MAX_DELETED_BYTES
        self._groups: dict[_Group, dict[str, DeleteFile]] = {}
        self._sets: dict[_Group, KeySet] = {}
        self._positions: dict[str, Mapping[str, NDArray[np.int64]]] = {}
        for target in targets:
            for delete in target.deletes:
                if delete.kind == "equality":
                    self._groups.setdefault(_group(delete), {})[delete.path] = delete

    def kept(self, target: Target, file: pq.ParquetFile) -> NDArray[np.bool_] | None:
        """Per row whether it is still there; None: all are.

        Raises:
            Unsupported: a delete file of another format, or more keys than memory may hold.
        """
        keep = np.ones(file.metadata.num_rows, bool)
        for delete in target.deletes:
            if delete.kind != "equality":
                positions = self._positions_of(delete, target.path)
                keep[positions[positions < len(keep)]] = False
        for group in sorted({_group(d) for d in target.deletes if d.kind == "equality"}, key=str):
            self._by_keys(group, target, file, keep)
        return None if keep.all() else keep

    def _by_keys(
        self, group: _Group, target: Target, file: pq.ParquetFile, keep: NDArray[np.bool_]
    ) -> None:
        keys = self._set(group)
        read = _Reader(file.schema_arrow, [(each, self._columns[each]) for each in group.ids])
        first = 0
        if not read.names:  # the file is older than every column of the key
            keep &= keys.newest(read.defaults(1))[0] <= target.sequence_number
            return
        for batch in file.iter_batches(batch_size=_KEY_ROWS, columns=read.names):
            self._check()
            newest = keys.newest(read.columns(batch))
            keep[first : first + len(newest)] &= newest <= target.sequence_number
            first += len(newest)

    def _set(self, group: _Group) -> KeySet:
        if group not in self._sets:
            wanted = [(each, self._columns[each]) for each in group.ids]
            parts: list[list[pa.Array]] = []
            sequences: list[NDArray[np.int64]] = []
            for delete in self._groups[group].values():
                table = self._table(delete)
                read = _Reader(table.schema, wanted)
                parts.append(read.columns(table.combine_chunks()))
                sequences.append(np.full(table.num_rows, delete.sequence_number, np.int64))
            columns = [pa.concat_arrays(each) for each in zip(*parts, strict=True)]
            self._sets[group] = KeySet(columns, np.concatenate(sequences))
        return self._sets[group]

    def _positions_of(self, delete: DeleteFile, path: str) -> NDArray[np.int64]:
        if delete.kind == "vector":
            return self._vector(delete)
        if delete.path not in self._positions:
            table = self._table(delete)
            paths = _column(table, PATH_ID, "file_path").cast(pa.string()).dictionary_encode()
            positions = np.asarray(_column(table, _POSITION_ID, "pos").cast(pa.int64()))
            codes = np.asarray(paths.indices)
            order = np.argsort(codes, kind="stable")
            edges = np.searchsorted(codes[order], np.arange(len(paths.dictionary) + 1))
            self._positions[delete.path] = {
                absolute(name): positions[order[edges[i] : edges[i + 1]]]
                for i, name in enumerate(paths.dictionary.to_pylist())
            }
        return self._positions[delete.path].get(path, np.zeros(0, np.int64))

    def _vector(self, delete: DeleteFile) -> NDArray[np.int64]:
        if delete.offset is None or delete.length is None:
            raise Unsupported("a deletion vector does not say where it stands in its file")
        self._spend(8 * delete.rows)
        with self._io.new_input(delete.location).open() as source:
            source.seek(delete.offset)
            blob = source.read(delete.length)
        size = int.from_bytes(blob[:4], "big")
        body, check = blob[4 : 4 + size], blob[4 + size : 8 + size]
        if body[:4] != _MAGIC or zlib.crc32(body) != int.from_bytes(check, "big"):
            raise Unsupported("a deletion vector is damaged: its magic or checksum is not right")
        return np.asarray(BitMap64.deserialize(body[4:]).to_array(), np.int64)

    def _table(self, delete: DeleteFile) -> pa.Table:
        self._check()
        if delete.file_format != "parquet":
            raise Unsupported(
                f"a delete file is of format {delete.file_format}: only Parquet and Puffin are "
                "read; compact the table with the engine that wrote it"
            )
        with self._io.new_input(delete.location).open() as source:
            file = pq.ParquetFile(source, coerce_int96_timestamp_unit="us")
            groups = range(file.metadata.num_row_groups)
            self._spend(sum(file.metadata.row_group(i).total_byte_size for i in groups))
            return file.read()

    def _spend(self, size: int) -> None:
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise Unsupported(
                f"the delete files that this statement needs hold more than "
                f"{MAX_DELETED_BYTES >> 20} MiB: compact the table, or filter more"
            )


@dataclass(frozen=True, slots=True)
class _Group:
    """Equality deletes of one scope and one set of columns."""

    partition: str | None
    ids: tuple[int, ...]


def _group(delete: DeleteFile) -> _Group:
    return _Group(delete.partition, tuple(sorted(delete.equality_ids)))


class _Reader:
    """Finds key columns by field id in a file's Arrow schema, and gives them their types."""

    def __init__(self, schema: pa.Schema, wanted: Sequence[tuple[int, KeyColumn]]) -> None:
        by_id = _ids(schema)
        if not by_id:
            by_name = {name: (name,) for name in schema.names}
            by_id = {
                number: by_name[name]
                for number, column in wanted
                for name in column.names
                if name in by_name
            }
        self._found = [(by_id.get(number), column) for number, column in wanted]

    @property
    def names(self) -> list[str]:
        """The top-level columns to read."""
        return list(dict.fromkeys(path[0] for path, _ in self._found if path))

    def columns(self, rows: pa.RecordBatch | pa.Table) -> list[pa.Array]:
        """The keys of some rows."""
        return [
            _typed(_follow(rows, path), column.type) if path else _filled(column, rows.num_rows)
            for path, column in self._found
        ]

    def defaults(self, count: int) -> list[pa.Array]:
        """The keys of rows that hold none of the columns."""
        return [_filled(column, count) for _, column in self._found]


def _filled(column: KeyColumn, count: int) -> pa.Array:
    return pa.array([column.default] * count, column.type)


def _ids(schema: pa.Schema) -> dict[int, tuple[str, ...]]:
    """Field id → path of names, through structs."""
    found: dict[int, tuple[str, ...]] = {}

    def visit(fields: Iterable[pa.Field], above: tuple[str, ...]) -> None:
        for field in fields:
            path = (*above, field.name)
            if field.metadata and _FIELD_ID in field.metadata:
                found[int(field.metadata[_FIELD_ID])] = path
            if pa.types.is_struct(field.type):
                visit(field.type, path)

    visit(schema, ())
    return found


def _follow(rows: pa.RecordBatch | pa.Table, path: Sequence[str]) -> pa.Array:
    array = rows.column(path[0])
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    for name in path[1:]:
        array = pc.struct_field(array, name)
    return array


def _column(table: pa.Table, number: int, name: str) -> pa.Array:
    path = _ids(table.schema).get(number, (name,))
    return _follow(table, path)


def _typed(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    try:
        return array.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise Unsupported(
            f"deleted rows are recognised by a column of type {array.type} where the table has "
            f"{kind}: compact the table with the engine that wrote it"
        ) from error
