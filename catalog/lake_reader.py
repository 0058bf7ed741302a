"""The lake's reading side: a version's files, rows, columns and metadata, by its names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pyarrow as pa

from catalog.asof import Past, past
from catalog.connect import lake_errors
from catalog.copies import Copies
from catalog.erasure import Holding, replaced, without_deleted
from catalog.files import FileIndex, Origin
from catalog.heads import only_fed, snapshot_at
from catalog.inspection import inspected
from catalog.reading import has_defaults, left_files, names_suffice, requested
from catalog.rereading import FileRequest, Rereading
from catalog.shapes import Group
from catalog.spec import TableName
from catalog.stores import StoreOptions, store_options
from catalog.versions import Version, Versions


class LakeReader:
    """What :class:`catalog.lake.Lake` answers about versions; any thread.

    Args:
        versions: parsed metadata files.
        copies: where files are kept without their deleted rows.
    """

    def __init__(self, versions: Versions, copies: Copies) -> None:
        self._versions = versions
        self._copies = copies
        self._index = FileIndex()
        self._rereading = Rereading()

    def entries(
        self,
        name: TableName,
        snapshot_id: int | None,
        metadata_location: str,
        schema_id: int | None = None,
        *,
        declared: pa.Schema | None = None,
    ) -> pa.Table:
        """The live data files of a snapshot.

        Args:
            name: the table.
            snapshot_id: None: no snapshot, no files.
            metadata_location: a metadata file that names the snapshot; if it is gone, the table's
                newest one is asked.
            schema_id: whose columns the bounds are given for; None: that metadata's current one.
            declared: a declaration with ids whose columns they are given for instead.

        Returns:
            One row per data file, newest manifest first:
            path utf8!, file_format utf8!, record_count int64!, file_size_bytes int64!,
            spec_id int32!, sort_order_id int32, sequence_number int64, snapshot_id int64,
            partition_key utf8!, partition struct (one field per partition field of any spec, null
            where the file's spec lacks it), lower struct, upper struct, null_count struct (one
            field per top-level primitive column; null: unknown), nan struct (int8 per floating
            column: ``catalog.files.PROVEN`` …), delete_files list<utf8> (position
            deletes and vectors that touch it), equality_deletes bool! (newer ones may delete rows
            of it), deletes list<int32> (places in the snapshot's delete files), partial bool!
            (a column may be missing whose value the partition tells: read it by field id),
            partition_lower, partition_upper, partition_null (True: all rows; False: none), buckets
            structs (what the partition proves of columns; see :mod:`catalog.partitions`).
            Bounds of text and bytes may be truncated, so they enclose; those of floating columns
            are null unless the file holds no NaN.
            Paths are unescaped URIs: ``%`` in them is a literal percent sign.

        Raises:
            VersionGone: no metadata names the snapshot or the schema any more.
            FileMissing: one of its manifests is gone.
        """
        return self._origin(name, snapshot_id, metadata_location, schema_id, declared).found.table

    def without_deleted(
        self, name: TableName, request: FileRequest, holding: Holding
    ) -> tuple[pa.Table, pa.Table]:
        """Data files that deletes touch, as they are to be scanned; see :mod:`catalog.erasure`.

        Args:
            name: the table.
            request: which files; its columns do not matter.
            holding: of the statement; the copies stay until it ends.

        Returns:
            Entries of the files of which no row is deleted after all, and entries of local copies
            without the deleted rows: ``path`` and ``record_count`` are the copy's. Files without
            any row left are in neither.

        Raises:
            Unsupported, CopiesFull, FileMissing, VersionGone, LakeUnavailable: as they say.
        """
        origin = self._asked(name, request)
        entries = requested(origin, request)
        with lake_errors(f"reading rows of {name} that are deleted"):
            return replaced(entries, without_deleted(origin, entries, self._copies, holding))

    def arrow_schema(
        self, name: TableName, metadata_location: str, schema_id: int | None = None
    ) -> pa.Schema:
        """The table's columns in plain Arrow types, by one of its schemas (None: the current).

        Raises:
            VersionGone: no such schema, or the metadata is gone.
            Unsupported: a column's type cannot be read.
        """
        return self._versions.at(name, metadata_location, None).columns(schema_id)

    def names_are_stable(
        self, name: TableName, metadata_location: str, declared: pa.Schema | None = None
    ) -> bool:
        """Whether every column name has meant one field in all schemas of the table.

        If not (a rename, a name used again after a drop, a column with a fill that came later),
        files must be read by field id: see :meth:`file_groups`.

        Args:
            name: the table.
            metadata_location: of a version.
            declared: the names by which it is read, and fills; None: the table's.
        """
        version = self._versions.at(name, metadata_location, None)
        by_name = names_suffice(version.metadata)
        return by_name and self._rereading.needless(version, metadata_location, declared)

    def file_groups(
        self, name: TableName, request: FileRequest
    ) -> tuple[list[Group], tuple[str, ...]]:
        """How the request's files are read by field id: groups for native scans, and the rest.

        Their footers are read, once each.

        Raises:
            FileMissing, LakeUnavailable: a file cannot be read.
        """
        version = self._versions.at(name, request.metadata_location, request.snapshot_id)
        if has_defaults(version.metadata) and request.declared is None:
            return [], request.paths
        with lake_errors(f"reading data files of {name}"):
            return self._rereading.groups(version, request)

    def read_files(self, name: TableName, request: FileRequest) -> Iterator[pa.RecordBatch]:
        """Rows of some data files by field id, without their deleted rows.

        Slower than a native scan; for files without field ids and the like.

        Returns:
            Batches in the plain Arrow types of the request's columns, read lazily.

        Raises:
            Unsupported, CopiesFull: see :mod:`catalog.erasure`.
            FileMissing, VersionGone, LakeUnavailable: as they say.
        """
        origin = self._asked(name, request)
        with lake_errors(f"reading data files of {name}"), ExitStack() as stack:
            files = left_files(origin, request, self._copies, Holding(stack))
            yield from self._rereading.rows(origin, request, files)

    def _asked(self, name: TableName, request: FileRequest) -> Origin:
        place = request.metadata_location, request.schema_id
        return self._origin(name, request.snapshot_id, *place, request.declared)

    def _origin(
        self,
        name: TableName,
        snapshot_id: int | None,
        metadata_location: str,
        schema_id: int | None,
        declared: pa.Schema | None = None,
    ) -> Origin:
        version = self._versions.at(name, metadata_location, snapshot_id)
        metadata = version.metadata
        snapshot = None if snapshot_id is None else snapshot_at(metadata, snapshot_id)
        with lake_errors(f"reading the manifests of {name}"):
            if declared is None:
                declared = version.columns(schema_id, ids=True)
            found = self._index.entries(metadata, snapshot, version.io, declared)
        return Origin(metadata, version.io, found)

    def past(self, name: TableName, metadata_location: str, as_of: str) -> Past:
        """An older version of a table; see :mod:`catalog.asof`.

        Raises:
            NoSuchVersion, VersionGone: as they say.
        """
        return past(name, self._versions.at(name, metadata_location, None).metadata, as_of)

    def only_fed(
        self, name: TableName, metadata_location: str, since: int | None, until: int | None
    ) -> bool:
        """Whether two versions differ by rows of the log alone; see :func:`catalog.heads.only_fed`.

        Args:
            name: the table.
            metadata_location: a metadata file that names ``until``.
            since: the older snapshot.
            until: the newer one.

        Raises:
            VersionGone: the metadata is gone.
        """
        return only_fed(self._versions.at(name, metadata_location, None).metadata, since, until)

    def metadata_table(
        self, name: TableName, which: str, snapshot_id: int | None, metadata_location: str
    ) -> pa.Table:
        """What Iceberg knows of a version; see :mod:`catalog.inspection`.

        Args:
            name: the table.
            which: one of :data:`catalog.inspection.TABLES`.
            snapshot_id: None: no snapshot yet.
            metadata_location: a metadata file that names it.
        """
        with lake_errors(f"reading the metadata of {name}"):
            origin = self._origin(name, snapshot_id, metadata_location, None)
            return inspected(which, origin, snapshot_id)

    def version(self, name: TableName, metadata_location: str) -> Version:
        """A version as it was written and its store, for whoever proves or repairs a table."""
        return self._versions.at(name, metadata_location, None)

    def location(self, name: TableName, metadata_location: str) -> str:
        """Where the table's files lie, as Iceberg records it (never shown to clients)."""
        return self._versions.at(name, metadata_location, None).metadata.location

    def store_options(self, name: TableName, path: str) -> StoreOptions:
        """How an engine opens ``path``, a data file of the table.

        Vended credentials are those of the table's newest load: ask again after :meth:`head`.

        Raises:
            Unsupported: a store that the engine cannot read natively yet.
        """
        return store_options(self._versions.store(name).properties, path)
