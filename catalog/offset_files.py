"""The columns of data files that say where each row is from, read file by file, and nothing else.

Each file is looked at on the way: that it is there, as large as recorded, with as many rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.errors import FileMissing, LakeUnavailable, Unsupported
from catalog.heads import Head
from catalog.lake import FileRequest, Lake
from catalog.offsets import TopicPartition
from catalog.schemas import OFFSET, PARTITION, TOPIC
from catalog.seen import Int64s, Numbers
from catalog.spec import TableName

COLUMNS = (TOPIC, PARTITION, OFFSET)
#: Rows decoded at a time: three columns of 4 MiB at most.
_BATCH_ROWS = 256 * 1024
#: How the store's client begins what it says about requests (and not about what it read).
_STORE_FAILED = "AWS Error"


class FileDamaged(Exception):
    """A data file is not what its manifest says; told in a report, never raised out of one."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One live data file, as the manifests describe it.

    Attributes:
        low, high: bounds of its offsets, both inclusive; None: not recorded.
        deletes: delete files touch it.
        by_equality: equality deletes may.
    """

    path: str
    format: str
    rows: int
    bytes: int
    low: int | None
    high: int | None
    deletes: bool
    by_equality: bool

    def meets(self, first: int, next_: int) -> bool:
        """Whether it may hold an offset of ``[first, next_)``."""
        below = self.low is not None and self.low >= next_
        above = self.high is not None and self.high < first
        return not (below or above)


def data_files(entries: pa.Table) -> list[DataFile]:
    """The files of :meth:`catalog.lake.Lake.entries`, oldest first."""
    names = ("path", "file_format", "record_count", "file_size_bytes")
    columns = [
        *(entries[name].to_pylist() for name in names),
        *(_bound(entries, which) for which in ("lower", "upper")),
        [bool(paths) for paths in entries["delete_files"].to_pylist()],
        entries["equality_deletes"].to_pylist(),
    ]
    return [DataFile(*row) for row in zip(*columns, strict=True)][::-1]


def _bound(entries: pa.Table, which: str) -> list[int | None]:
    bounds = entries[which].combine_chunks()
    if bounds.type.get_field_index(OFFSET) < 0:
        return [None] * entries.num_rows
    values: list[int | None] = bounds.field(OFFSET).to_pylist()
    return values


class OffsetFiles:
    """Reads the files of one version.

    Args:
        lake: the catalog.
        name: the table.
        head: the version.
        places: partitions by number; a row is told as the number of its partition.
    """

    def __init__(
        self, lake: Lake, name: TableName, head: Head, places: Sequence[TopicPartition]
    ) -> None:
        self._lake, self._name, self._head = lake, name, head
        self._io = lake.version(name, head.metadata_location).io
        self._numbers = Numbers(places)

    def rows(self, file: DataFile) -> Iterator[tuple[Int64s, Int64s]]:
        """Per batch: each row's partition as its number in ``places``, -1: none of them; offsets.

        Raises:
            FileMissing, FileDamaged: as they say.
            Unsupported: deletes or a format that cannot be read.
            LakeUnavailable: the store did not answer.
        """
        if file.by_equality or file.format != "parquet":
            kind = "equality deletes" if file.by_equality else f"{file.format} files"
            raise Unsupported(f"the table has {kind}, which cannot be read yet")
        batches = self._with_deletes(file) if file.deletes else self._native(file)
        for batch in batches:
            yield self._numbers.of(batch), batch.column(OFFSET).to_numpy(zero_copy_only=False)

    def _native(self, file: DataFile) -> Iterator[pa.RecordBatch]:
        short = file.path.rpartition("/")[2]
        try:
            with self._io.new_input(file.path).open() as source:
                if (size := source.seek(0, os.SEEK_END)) != file.bytes:
                    raise FileDamaged(f"{short} holds {size} bytes instead of {file.bytes}")
                metadata = pq.read_metadata(source)
                if (rows := metadata.num_rows) != file.rows:
                    raise FileDamaged(f"{short} holds {rows} rows instead of {file.rows}")
                if missing := set(COLUMNS) - set(metadata.schema.names):
                    raise FileDamaged(f"{short} lacks column {min(missing)}")
                parquet = pq.ParquetFile(
                    source, metadata=metadata, read_dictionary=[TOPIC], pre_buffer=True
                )
                yield from parquet.iter_batches(_BATCH_ROWS, columns=list(COLUMNS))
        except FileNotFoundError as error:
            raise FileMissing(f"{short} is gone") from error
        except (OSError, pa.ArrowException) as error:
            if _STORE_FAILED in str(error):
                raise LakeUnavailable(f"the store did not answer about {short}") from error
            raise FileDamaged(f"{short} cannot be read ({type(error).__name__})") from error

    def _with_deletes(self, file: DataFile) -> Iterator[pa.RecordBatch]:
        head = self._head
        assert head.snapshot_id is not None  # noqa: S101 - a version with files has one
        request = FileRequest(
            head.metadata_location, head.snapshot_id, (file.path,), head.schema_id, COLUMNS
        )
        yield from self._lake.read_files(self._name, request)
