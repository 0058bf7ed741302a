"""Which data files of a version are read how: as they are, from copies, or by field id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from catalog.erasure import Holding
from catalog.errors import Unsupported
from catalog.lake import FileRequest
from catalog.remembered import Remembered
from catalog.shapes import Group
from catalog.spec import TableName
from catalog.stores import StoreOptions
from catalog.tables import TableVersion

#: Arrow bytes of files with renamed columns that one statement may hold in memory.
MAX_REREAD_BYTES = 512 * 1024 * 1024
#: What of its entry a scan of a file needs.
_SCANNED = ["path", "record_count"]


class Store(Protocol):
    """What the engine asks of ``catalog.lake.Lake``."""

    def store_options(self, name: TableName, path: str) -> StoreOptions:
        """How to open a data file."""

    def location(self, name: TableName, metadata_location: str) -> str:
        """The table's folder."""

    def names_are_stable(
        self, name: TableName, metadata_location: str, declared: pa.Schema | None = None
    ) -> bool:
        """Whether columns can be matched by name in all files."""

    def file_groups(
        self, name: TableName, request: FileRequest
    ) -> tuple[list[Group], tuple[str, ...]]:
        """How files are read by field id: groups for native scans, and the rest."""

    def read_files(self, name: TableName, request: FileRequest) -> Iterator[pa.RecordBatch]:
        """Rows by field id, deletes applied."""

    def without_deleted(
        self, name: TableName, request: FileRequest, holding: Holding
    ) -> tuple[pa.Table, pa.Table]:
        """Files that deletes touch: those that lost no row, and local copies of the others."""


@dataclass(frozen=True, slots=True)
class Files:
    """Entries by who reads them.

    Attributes:
        native: scanned by the engine where they are.
        copies: scanned by the engine, local, their deleted rows gone.
        special: read by field id.
        groups: how the first two are scanned, where columns were renamed or a fill has to be put
            in; None: by the names of the version's schema.
    """

    native: pa.Table
    copies: pa.Table
    special: pa.Table
    groups: list[Group] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is asked of entries each time that they are read.

    Attributes:
        formats: of the files.
        partial: some file has to be read by field id.
        deleted: some file lost rows.
        rows: in all of them.
    """

    formats: frozenset[str]
    partial: bool
    deleted: bool
    rows: int


@Remembered
def facts_of(entries: pa.Table) -> Facts:
    """A statement that comes again has the same entries left, while its table stays as it is."""
    return Facts(
        frozenset(pc.unique(entries["file_format"]).to_pylist()),
        bool(pc.any(entries["partial"], min_count=0).as_py()),
        bool(pc.any(_lost_rows(entries), min_count=0).as_py()),
        rows_of(entries),
    )


def rows_of(entries: pa.Table) -> int:
    """Rows in the files."""
    return int(pc.sum(entries["record_count"], min_count=0).as_py())


def _lost_rows(entries: pa.Table) -> pa.ChunkedArray:
    return pc.greater(pc.list_value_length(entries["deletes"]), 0)


def by_reader(version: TableVersion, entries: pa.Table, store: Store, holding: Holding) -> Files:
    """Entries that are left of a version, by who reads them.

    Args:
        version: of the table.
        entries: of the files that are to be read.
        store: the lake.
        holding: keeps copies while they are read.

    Raises:
        Unsupported: a file is not Parquet.
        CopiesFull: no room for files without their deleted rows.
    """
    none = entries.slice(0, 0)
    if entries.num_rows == 0:
        return Files(none, none, none)
    facts = facts_of(entries)
    _refuse_unreadable(version.pin.name, facts.formats)
    by_name = _by_name(version, store)
    if by_name and not facts.partial and not facts.deleted:
        return Files(entries, none, none)
    by_id = entries["partial"]
    if not by_name:
        _, unnamed = store.file_groups(version.pin.name, _request(version, entries))
        by_id = pc.or_(by_id, pc.is_in(entries["path"], pa.array(unnamed, pa.string())))
    special, others = _split(entries, by_id)
    native, copies = _without_deleted(version, others, store, holding)
    if by_name:
        return Files(native, copies, special)
    # Each by itself: copies lie in another store than the files they stand for.
    groups = [
        group
        for each in (native, copies)
        if each.num_rows
        for group in store.file_groups(version.pin.name, _request(version, each))[0]
    ]
    return Files(native, copies, special, groups)


def _by_name(version: TableVersion, store: Store) -> bool:
    known = () if version.declared is None else (version.declared,)
    return store.names_are_stable(version.pin.name, version.pin.metadata_location, *known)


def _without_deleted(
    version: TableVersion, entries: pa.Table, store: Store, holding: Holding
) -> tuple[pa.Table, pa.Table]:
    """Files that are scanned where they are, and copies of those that lost rows."""
    deleted, others = _split(entries, _lost_rows(entries))
    if deleted.num_rows == 0:
        return others, deleted
    wanted = _request(version, deleted)
    whole, copies = store.without_deleted(version.pin.name, wanted, holding)
    return pa.concat_tables(each.select(_SCANNED) for each in (others, whole)), copies


def _split(entries: pa.Table, mine: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
    """The entries that a mask takes, and the others; nothing is copied where it takes none."""
    if not pc.any(mine).as_py():
        return entries.slice(0, 0), entries
    return entries.filter(mine), entries.filter(pc.invert(mine))


def _refuse_unreadable(name: TableName, formats: frozenset[str]) -> None:
    if others := formats - {"parquet"}:
        raise Unsupported(f"{name} has files of format {min(others)}: only Parquet is read")


def _request(version: TableVersion, entries: pa.Table) -> FileRequest:
    return FileRequest(
        metadata_location=version.pin.metadata_location,
        snapshot_id=version.pin.snapshot_id or 0,
        paths=tuple(entries["path"].to_pylist()),
        schema_id=version.pin.schema_id if version.pin.kind == "plain" else None,
        columns=None if version.declared is not None else tuple(version.schema.names),
        declared=version.declared,
    )


def reread(version: TableVersion, entries: pa.Table, store: Store) -> list[pa.RecordBatch]:
    """The rows of files that are read by field id, deletes applied.

    Raises:
        Unsupported: more than :data:`MAX_REREAD_BYTES`.
    """
    batches: list[pa.RecordBatch] = []
    size = 0
    for batch in store.read_files(version.pin.name, _request(version, entries)):
        size += batch.nbytes
        if size > MAX_REREAD_BYTES:
            raise Unsupported(
                f"{version.pin.name} has more than {MAX_REREAD_BYTES >> 20} MiB in files with "
                "renamed columns: compact the table, or filter more"
            )
        batches.append(pa.RecordBatch.from_arrays(batch.columns, schema=version.schema))
    return batches
