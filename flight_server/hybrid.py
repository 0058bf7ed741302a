"""One table version as one relation: its runs UNION ALL its live slice, in the declared schema."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from datafusion import DataFrame, SessionContext
from datafusion.catalog import Table

from catalog.declaration import fill
from catalog.erasure import Holding
from catalog.prune import surviving
from catalog.scan import listing, renamed, require_present
from catalog.shapes import Group
from catalog.survivors import survivors
from catalog.tables import TableVersion
from catalog.zones import passing
from flight_server.nans import NO_STATISTICS, Touched, doubt
from flight_server.readers import Files, Store, by_reader, facts_of, reread, rows_of
from flight_server.shares import Share
from flight_server.stores import Reach
from flight_server.strings import as_views, in_schema
from flight_server.top import Top, narrowed

#: Live batches are dealt to this many partitions, so that every core reads.
_PARTITIONS = os.cpu_count() or 1


#: Which rows of a version a relation has.
RowPart = Literal["hybrid", "runs", "live"]


@dataclass(frozen=True, slots=True)
class Report:
    """What one reference reads, for EXPLAIN and the query log.

    Attributes:
        files: data files of the snapshot.
        kept: files that are scanned after pruning.
        rows: rows in those.
        reread: files among them that are read by field id, or from copies without deleted rows.
        live_rows: rows of the live slice that are read.
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
        share: which rows of them; None: all.
        keep_one: scan one file even where none survives, so that the plan shows its filters.
        holding: keeps what the relation needs while it is read.
        reach: how the engine opens the version's paths.
        views: give strings as views; see ``flight_server.strings``.
        top: which rows matter, of all of them; None: all.
        touched: which columns the statement reads; None: it may read all.
        zero: it may look for a zero among floating numbers.
        prune: bounds of row groups and pages say which rows there are.
        whole: the statement takes all rows of them, in any order.
    """

    version: TableVersion
    part: RowPart
    scans: Sequence[Sequence[Any]] | None
    label: str = "files"
    keep_one: bool = False
    share: Share | None = None
    holding: Holding = field(default_factory=Holding)
    reach: Reach = field(default_factory=Reach)
    views: bool = False
    top: Top | None = None
    touched: Touched | None = None
    zero: bool = True
    prune: bool = True
    whole: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The rows' schema, as the relation gives it."""
        return as_views(self.version.schema) if self.views else self.version.schema


@dataclass(frozen=True, slots=True)
class Relation:
    """A version to be planned over.

    Attributes:
        table: what the engine reads.
        report: what that is.
        schema: the declared one.
        paths: files that are scanned natively …
        rows: … and the rows that they hold together.
        settings: of the engine, without which it answers wrong over these files.
    """

    table: Table
    report: Report
    schema: pa.Schema
    paths: tuple[str, ...] = ()
    rows: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    def require_files(self, context: SessionContext) -> None:
        """To be called once the scan has been planned; see ``catalog.scan.require_present``."""
        if self.paths:
            require_present(context, self.schema, self.paths, self.rows)


def relation(context: SessionContext, source: Source, store: Store) -> Relation:
    """The relation, ready to be planned over; nothing is opened yet but files with deletes.

    Raises:
        Unsupported: another file format, or too many rows in files with renamed columns.
        CopiesFull: no room for files without their deleted rows.
    """
    version, share = source.version, source.share
    if source.part == "live":
        _, live = _narrowed(source, version.entries.slice(0, 0), version.live)
        report = Report(live_rows=sum(batch.num_rows for batch in live))
        rows = _shared(_in_memory(source, live), share)
        return Relation(rows.into_view(), report, version.schema)
    entries = version.entries if share is None else share.narrow_files(version.entries)
    live = version.live if source.part == "hybrid" else ()
    kept, live = _narrowed(source, _pruned(entries, source), live)
    if source.keep_one and kept.num_rows == 0:
        kept = entries.slice(0, 1)
    files = by_reader(version, kept, store, source.holding)
    paths = tuple(source.reach(files.native["path"].to_pylist()))
    unsure = doubt(kept, source.touched, zero=source.zero)
    frames = [unsure.shielded(frame) for frame in _scans(context, source, files)]
    if files.special.num_rows:
        frames.append(_in_memory(source, reread(version, files.special, store)))
    if live or not frames:
        frames.append(_in_memory(source, live))
    count = facts_of(kept).rows
    report = Report(
        files=version.entries.num_rows,
        kept=kept.num_rows,
        rows=count,
        reread=files.special.num_rows + files.copies.num_rows,
        live_rows=sum(batch.num_rows for batch in live),
    )
    table = _shared(functools.reduce(DataFrame.union, frames), share).into_view()
    settings = NO_STATISTICS if unsure.constants else {}
    scanned = count if files.native is kept else rows_of(files.native)
    return Relation(table, report, version.schema, paths, scanned, settings)


def _narrowed(
    source: Source, entries: pa.Table, live: tuple[pa.RecordBatch, ...]
) -> tuple[pa.Table, tuple[pa.RecordBatch, ...]]:
    """The live rows that the statement's filters leave; files, too, that its LIMIT leaves."""
    if source.scans is not None:
        live = passing(live, source.scans)
    if source.top is None or source.share is not None:
        return entries, live
    return narrowed(entries, live, source.top)


def _in_memory(source: Source, batches: Sequence[pa.RecordBatch]) -> DataFrame:
    return in_schema(_frame(source.version.schema, batches), source.schema)


def _shared(frame: DataFrame, share: Share | None) -> DataFrame:
    return frame if share is None else share.narrow_rows(frame)


def _pruned(entries: pa.Table, source: Source) -> pa.Table:
    """The entries that may hold rows for the statement's filters, and for its share."""
    if source.share is None:
        return entries if source.scans is None else survivors(entries, source.scans)
    mine = source.share.filters()
    if source.scans is not None:
        return surviving(entries, [(*filters, *mine) for filters in source.scans])
    return surviving(entries, [mine]) if mine else entries


def memory(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> Table:
    """Record batches as a relation, nothing copied."""
    return _frame(schema, batches).into_view()


@functools.lru_cache(maxsize=512)  # as many as there are stubs
def nothing(schema: pa.Schema) -> Table:
    """A relation without rows."""
    return memory(schema, ())


#: Where rows in memory become frames, each under a name of its own for a moment: a context of
#: their own costs 0.6 ms. It has no part in what is done with a frame later.
_scratch = SessionContext()
_numbers = itertools.count()


def _frame(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> DataFrame:
    rows = list(batches) or [pa.RecordBatch.from_pylist([], schema)]
    size = -(-len(rows) // _PARTITIONS)
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    name = f"live {next(_numbers)}"
    _scratch.register_record_batches(name, parts)
    try:
        return _scratch.table(f'"{name}"')
    finally:
        _scratch.deregister_table(name)


def _scans(context: SessionContext, source: Source, files: Files) -> list[DataFrame]:
    if files.groups is not None:
        return [_group(context, source, group) for group in files.groups]
    paths = [source.reach(each["path"].to_pylist()) for each in (files.native, files.copies)]
    return [
        listing(context, source.schema, each, source.label, prune=source.prune, apart=source.whole)
        for each in paths
        if each
    ]


def _group(context: SessionContext, source: Source, group: Group) -> DataFrame:
    """One native scan of files of one shape."""
    version = source.version
    declared = version.declared or version.schema
    columns = [
        (fill(field) or pa.nulls(1, pa.null()))[0] if name is None else name
        for field, name in zip(declared, group.names, strict=True)
    ]
    paths = source.reach(group.paths)
    return renamed(
        *(context, source.schema, paths, columns, source.label),
        prune=source.prune,
        apart=source.whole,
    )
