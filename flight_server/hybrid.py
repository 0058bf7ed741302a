"""One table version as one relation: its runs UNION ALL its live slice, in the declared schema."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from datafusion import DataFrame, SessionContext
from datafusion.catalog import Table

from catalog.connect import StoreOptions
from catalog.errors import Unsupported
from catalog.lake import FileRequest
from catalog.prune import surviving
from catalog.scan import listing, newest_first
from catalog.spec import TableName
from catalog.tables import TableVersion

#: Live batches are dealt to this many partitions, so that every core reads.
_PARTITIONS = os.cpu_count() or 1
#: Arrow bytes of files with deletes (or renamed columns) that one statement may hold in memory.
MAX_REREAD_BYTES = 512 * 1024 * 1024


#: Which rows of a version a relation has.
RowPart = Literal["hybrid", "runs", "live"]


class Store(Protocol):
    """What the engine asks of ``catalog.lake.Lake``."""

    def store_options(self, name: TableName, path: str) -> StoreOptions:
        """How to open a data file."""

    def location(self, name: TableName, metadata_location: str) -> str:
        """The table's folder."""

    def names_are_stable(self, name: TableName, metadata_location: str) -> bool:
        """Whether columns can be matched by name in all files."""

    def read_files(self, name: TableName, request: FileRequest) -> Iterator[pa.RecordBatch]:
        """Rows by field id, deletes applied."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one reference reads, for EXPLAIN and the query log.

    Attributes:
        files: data files of the snapshot.
        kept: files that are scanned after pruning.
        rows: rows in those.
        reread: files among them that are read by field id, with deletes applied.
        live_rows: rows of the live slice.
    """

    files: int = 0
    kept: int = 0
    rows: int = 0
    reread: int = 0
    live_rows: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """What a relation is made of.

    Attributes:
        version: the opened pin.
        part: "hybrid", or only its "runs" or its "live" rows.
        scans: per reference the pushed filters, for pruning; None: nothing is known.
        label: what plans call the scan of its files.
    """

    version: TableVersion
    part: RowPart
    scans: Sequence[Sequence[Any]] | None
    label: str = "files"


def relation(context: SessionContext, source: Source, store: Store) -> tuple[Table, Report]:
    """The relation, ready to be planned over; nothing is opened yet but files with deletes.

    Raises:
        Unsupported: equality deletes, another file format, or too many rows in files with deletes.
    """
    version = source.version
    if source.part == "live":
        return memory(version.schema, version.live), Report(live_rows=version.live_rows)
    entries = version.entries
    kept = entries if source.scans is None else surviving(entries, source.scans)
    frame, reread = _runs(context, source, newest_first(kept), store)
    live = version.live if source.part == "hybrid" else ()
    if live:
        frame = frame.union(_frame(version.schema, live)) if frame else _frame(version.schema, live)
    report = Report(
        files=entries.num_rows,
        kept=kept.num_rows,
        rows=pc.sum(kept["record_count"]).as_py() or 0,
        reread=reread,
        live_rows=version.live_rows if live else 0,
    )
    return (frame or _frame(version.schema, ())).into_view(), report


def memory(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> Table:
    """Record batches as a relation, nothing copied."""
    return _frame(schema, batches).into_view()


def _frame(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> DataFrame:
    scratch = SessionContext()
    rows = list(batches) or [pa.RecordBatch.from_pylist([], schema)]
    size = -(-len(rows) // _PARTITIONS)
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    scratch.register_record_batches("live", parts)
    return scratch.table("live")


def _runs(
    context: SessionContext, source: Source, entries: pa.Table, store: Store
) -> tuple[DataFrame | None, int]:
    """The rows of the data files, and how many files had to be read by field id."""
    version = source.version
    if entries.num_rows == 0:
        return None, 0
    _refuse_unreadable(version.pin.name, entries)
    if store.names_are_stable(version.pin.name, version.pin.metadata_location):
        touched = pc.greater(pc.list_value_length(entries["delete_files"]), 0)
        touched = pc.fill_null(touched, fill_value=False)
        plain, special = entries.filter(pc.invert(touched)), entries.filter(touched)
    else:
        plain, special = entries.slice(0, 0), entries
    frames = []
    if plain.num_rows:
        frames.append(listing(context, version.schema, plain["path"].to_pylist(), source.label))
    if special.num_rows:
        frames.append(_frame(version.schema, _reread(version, special, store)))
    frame = frames[0]
    for other in frames[1:]:
        frame = frame.union(other)
    return frame, special.num_rows


def _refuse_unreadable(name: TableName, entries: pa.Table) -> None:
    if pc.any(entries["equality_deletes"]).as_py():
        raise Unsupported(
            f"{name} has rows deleted by equality, which cannot be read yet: compact the table "
            "with the engine that wrote them"
        )
    formats = set(pc.unique(entries["file_format"]).to_pylist()) - {"parquet"}
    if formats:
        raise Unsupported(f"{name} has files of format {min(formats)}: only Parquet is read")


def _reread(version: TableVersion, entries: pa.Table, store: Store) -> list[pa.RecordBatch]:
    request = FileRequest(
        metadata_location=version.pin.metadata_location,
        snapshot_id=version.pin.snapshot_id or 0,
        paths=tuple(entries["path"].to_pylist()),
        schema_id=version.pin.schema_id if version.pin.kind == "plain" else None,
        columns=tuple(version.schema.names),
    )
    batches: list[pa.RecordBatch] = []
    size = 0
    for batch in store.read_files(version.pin.name, request):
        size += batch.nbytes
        if size > MAX_REREAD_BYTES:
            raise Unsupported(
                f"{version.pin.name} has more than {MAX_REREAD_BYTES >> 20} MiB in files with "
                "deleted rows or renamed columns: compact the table, or filter more"
            )
        batches.append(pa.RecordBatch.from_arrays(batch.columns, schema=version.schema))
    return batches
