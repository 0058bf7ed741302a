"""Data files read by field id: in groups that one native scan reads, or file by file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema, prune_columns
from pyiceberg.table import FileScanTask

from catalog.declaration import (
    all_fields,
    bare,
    children,
    conform,
    field_id,
    has_ids,
    ids,
    restricted,
)
from catalog.files import Origin
from catalog.footers import Footers
from catalog.iceberg_schema import names_are_stable, plain_schema
from catalog.manifest import schema_key
from catalog.projection import keep_nulls
from catalog.shapes import Group, groups
from catalog.versions import Version, schema_of

keep_nulls()

#: Versions of which it is remembered whether names say all: some for each table.
_MAX_ANSWERS = 1024


@dataclass(frozen=True, slots=True)
class FileRequest:
    """Some data files of one version, to be read by field id.

    Attributes:
        metadata_location: a metadata file that names the snapshot.
        snapshot_id: the snapshot whose delete files apply.
        paths: of the data files, as in ``entries``.
        schema_id: the schema to read them with; None: the metadata's current one.
        columns: top-level columns, in this order; None: all.
        declared: a declaration with ids that the rows are given in instead, by field id.
    """

    metadata_location: str
    snapshot_id: int
    paths: tuple[str, ...]
    schema_id: int | None = None
    columns: tuple[str, ...] | None = None
    declared: pa.Schema | None = None


class Rereading:
    """Reads data files by field id, and remembers their footers; any thread."""

    def __init__(self) -> None:
        self._footers = Footers()
        self._needless: dict[tuple[str, str], bool] = {}

    def needless(self, version: Version, location: str, declared: pa.Schema | None) -> bool:
        """Whether a scan by names reads every file right; ``location`` is the version's."""
        key = location, "" if declared is None else schema_key(declared)
        found = self._needless.get(key)
        if found is None:
            found = names_are_stable(version.metadata.schemas, declared)
            if len(self._needless) >= _MAX_ANSWERS:
                self._needless.clear()
            self._needless[key] = found
        return found

    def groups(self, version: Version, request: FileRequest) -> tuple[list[Group], tuple[str, ...]]:
        """How the request's files are read: groups for native scans, and the rest."""
        declared = request.declared
        if declared is None:
            declared = version.columns(request.schema_id, ids=True)
        return groups(declared, self._footers.schemas(version.io, request.paths))

    def rows(
        self, version: Origin, request: FileRequest, files: Sequence[tuple[str, DataFile]]
    ) -> Iterator[pa.RecordBatch]:
        """The request's rows, read lazily.

        Args:
            version: what the files belong to.
            request: how they are read.
            files: the request's paths with what stands for each: without deleted rows.
        """
        if request.declared is not None:
            yield from self._declared_rows(version, request.declared, files)
            return
        metadata = version.metadata
        schema = schema_of(metadata, request.schema_id)
        if request.columns is not None:
            fields = [schema.find_field(column) for column in request.columns]
            schema = Schema(*fields, schema_id=schema.schema_id)
        plain = plain_schema(schema)
        scan = ArrowScan(metadata, version.io, schema, AlwaysTrue())
        for batch in scan.to_record_batches([FileScanTask(file) for _, file in files]):
            yield from pa.Table.from_batches([batch]).cast(plain).to_batches()

    def _declared_rows(
        self, version: Origin, declared: pa.Schema, files: Sequence[tuple[str, DataFile]]
    ) -> Iterator[pa.RecordBatch]:
        """File by file: a column that one lacks takes its fill."""
        metadata, table = version.metadata, plain_schema(version.metadata.schema(), ids=True)
        footers = self._footers.schemas(version.io, [path for path, _ in files])
        for path, file in files:
            footer = footers[path]
            there = ids(footer) if has_ids(footer) else ids(table)
            have = restricted(table, there & ids(declared))
            leaves = {field_id(f) or 0 for f in all_fields(have) if not children(f.type)}
            schema = prune_columns(metadata.schema(), leaves, select_full_types=False)
            scan = ArrowScan(metadata, version.io, schema, AlwaysTrue())
            for batch in scan.to_record_batches([FileScanTask(file)]):
                for rows in pa.Table.from_batches([batch]).cast(bare(have)).to_batches():
                    yield conform(rows, have, declared)
