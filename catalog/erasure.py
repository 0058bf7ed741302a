"""Data files with deletes, read as if they had been written without the deleted rows.

A file that deletes touch is copied once, row group by row group, without its deleted rows and
with everything else (types, field ids, order) as it was; the copy is then scanned like any file.
Memory is one row group and the keys of the deletes; the copies' folder is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy as shallow_copy
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.io import FileIO
from pyiceberg.manifest import DATA_FILE_TYPE, DataFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import NestedField

from catalog.copies import Copies, Copy, full
from catalog.deletes import absolute
from catalog.erased import Erased, KeyColumn, Target
from catalog.errors import FileMissing, Unsupported
from catalog.files import Origin
from catalog.iceberg_schema import plain_type

#: Rows of a row group that is read, and of one that is written, at most.
_GROUP_ROWS = 64 * 1024
#: Where a data file's path stands among its manifest's values.
_PATH = [each.name for each in DATA_FILE_TYPE[2].fields].index("file_path")


@dataclass(frozen=True, slots=True)
class Holding:
    """What a statement holds while it runs.

    Attributes:
        resources: closed when the statement ends; the copies that it reads stay until then.
        check: raises what the statement was ended with, if it was.
    """

    resources: ExitStack = field(default_factory=ExitStack)
    check: Callable[[], None] = lambda: None


def without_deleted(
    origin: Origin, entries: pa.Table, copies: Copies, holding: Holding
) -> Mapping[str, Copy]:
    """Copies of data files without their deleted rows.

    Args:
        origin: what ``entries`` come from.
        entries: some rows of the snapshot's table, files of Parquet.
        copies: where the copies are kept.
        holding: keeps them until the statement ends.

    Returns:
        By path. A copy without a file: no row of the data file is deleted, or (no rows) all are.

    Raises:
        Unsupported: a delete file of another format, damaged, or too large.
        CopiesFull: no room.
        FileMissing: a data or delete file is gone.
    """
    targets = list(_targets(origin, entries))
    columns = _key_columns(origin.metadata, targets)
    erased = Erased(origin.io, columns, targets, holding.check)
    uuid = str(origin.metadata.table_uuid)
    return MappingProxyType(
        {
            target.path: holding.resources.enter_context(
                copies.hold(_key(uuid, target), _maker(origin.io, erased, target, holding.check))
            )
            for target in targets
        }
    )


def replaced(entries: pa.Table, copies: Mapping[str, Copy]) -> tuple[pa.Table, pa.Table]:
    """Files as they are to be scanned: those that stay where they are, and local copies.

    Their bounds still enclose what is left; counts of nulls say nothing of it any more, so prune
    before.
    """
    found = [copies[path] for path in entries["path"].to_pylist()]
    stay = pa.array([copy.path is None and copy.rows > 0 for copy in found], pa.bool_())
    local = pa.array([copy.path is not None for copy in found], pa.bool_())
    moved = entries.filter(local)
    uris = [f"file://{copy.path}" for copy in found if copy.path is not None]
    rows = [copy.rows for copy in found if copy.path is not None]
    for name, values in (("path", uris), ("record_count", rows)):
        place = moved.schema.get_field_index(name)
        kind = moved.schema.field(place)
        moved = moved.set_column(place, kind, pa.array(values, kind.type))
    return entries.filter(stay), moved


def as_copied(file: DataFile, copies: Mapping[str, Copy]) -> DataFile | None:
    """The manifest's value for a file, at its copy if it has one; None: no row is left of it."""
    copy = copies.get(absolute(file.file_path))
    if copy is None or (copy.path is None and copy.rows):
        return file
    if copy.path is None:
        return None
    moved = shallow_copy(file)
    moved._data = list(file._data)  # noqa: SLF001 - values of one kind, which have no other copy
    moved[_PATH] = f"file://{copy.path}"
    return moved


def _targets(origin: Origin, entries: pa.Table) -> Iterator[Target]:
    columns = ["path", "sequence_number", "record_count", "deletes", "partial"]
    outside = {field.source_id for spec in origin.metadata.partition_specs for field in spec.fields}
    for row in entries.select(columns).to_pylist():
        deletes = tuple(origin.found.deletes[place] for place in row["deletes"])
        if row["partial"] and any(outside.intersection(each.equality_ids) for each in deletes):
            raise Unsupported(
                "rows are deleted by a partition column that their data file may not hold: compact "
                "the table with the engine that wrote it"
            )
        if any(delete.kind == "vector" for delete in deletes):  # it holds the positions before it
            deletes = tuple(delete for delete in deletes if delete.kind != "positions")
        yield Target(row["path"], row["sequence_number"] or 0, row["record_count"], deletes)


def _key(uuid: str, target: Target) -> str:
    """All that the copy's content depends on; files never change under their path."""
    deletes = [
        (delete.path, delete.offset, delete.sequence_number, delete.partition)
        for delete in target.deletes
    ]
    return repr((uuid, target.path, target.sequence_number, target.rows, sorted(deletes, key=str)))


def _maker(
    io: FileIO, erased: Erased, target: Target, check: Callable[[], None]
) -> Callable[[Path, int], Copy]:
    def make(path: Path, room_bytes: int) -> Copy:
        with _opened(io, target) as file:
            keep = erased.kept(target, file)
            if keep is None:
                return Copy(None, target.rows, 0)
            if not keep.any():
                return Copy(None, 0, 0)
            _write(file, keep, path, room_bytes, check)
        return Copy(path, int(keep.sum()), path.stat().st_size)

    return make


@contextmanager
def _opened(io: FileIO, target: Target) -> Iterator[pq.ParquetFile]:
    with io.new_input(target.path).open() as source:
        file = pq.ParquetFile(
            source,
            coerce_int96_timestamp_unit="us",
            arrow_extensions_enabled=False,
            pre_buffer=True,
        )
        if file.metadata.num_rows != target.rows:
            raise FileMissing("a data file is not the one that was written: its rows are others")
        yield file


def _write(
    file: pq.ParquetFile,
    keep: NDArray[np.bool_],
    path: Path,
    room_bytes: int,
    check: Callable[[], None],
) -> None:
    first = 0
    with (
        path.open("wb") as sink,
        pq.ParquetWriter(
            sink,
            file.schema_arrow,
            compression="lz4",
            store_schema=False,
            write_page_index=True,
        ) as writer,
    ):
        for batch in file.iter_batches(batch_size=_GROUP_ROWS):
            check()
            mine = keep[first : first + batch.num_rows]
            first += batch.num_rows
            if mine.any():
                writer.write_batch(batch.filter(pa.array(mine)))
            if sink.tell() > room_bytes:
                raise full(room_bytes)


def _key_columns(metadata: TableMetadata, targets: list[Target]) -> dict[int, KeyColumn]:
    ids = {
        number for target in targets for delete in target.deletes for number in delete.equality_ids
    }
    return {number: _key_column(metadata, number) for number in ids}


def _key_column(metadata: TableMetadata, number: int) -> KeyColumn:
    """The column as the newest schema has it that knows it: types only ever widen."""
    for schema in sorted(metadata.schemas, key=lambda each: each.schema_id, reverse=True):
        if number in schema.field_ids:
            found = schema.find_field(number)
            if not found.field_type.is_primitive:
                break
            return KeyColumn(
                plain_type(found.field_type), found.initial_default, _names(metadata, found)
            )
    raise Unsupported(
        f"rows are deleted by column {number}, which is no value of the table: compact the table "
        "with the engine that wrote it"
    )


def _names(metadata: TableMetadata, column: NestedField) -> tuple[str, ...]:
    """What a top-level column is called in files without field ids."""
    mapping = metadata.name_mapping()
    if mapping is None:
        return (column.name,)
    return next((tuple(each.names) for each in mapping if each.field_id == column.field_id), ())
