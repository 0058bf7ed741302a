"""The Iceberg side of a table: pin, commit with fenced positions, evolve, read the file list.

The facade over catalog/connect.py, heads.py, commits.py, data_files.py, files.py and
iceberg_schema.py. Only these import pyiceberg.

Threads: every method may be called from any thread at any time. Calls share nothing but caches
behind locks and the catalog client: SQLAlchemy's engine and requests' connection pool are made for
that (commits to a REST catalog queue up, see catalog/connect.py). Two threads that commit to one
table are two writers: the fence decides between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from catalog import data_files
from catalog.commits import commit
from catalog.connect import connect, lake_errors
from catalog.copies import Copies
from catalog.creation import create_or_evolve
from catalog.faults import reach
from catalog.growth import Columns, columns_of, grown, growth, placed
from catalog.heads import Head, head_of, recorded_marker
from catalog.iceberg_schema import plain_schema
from catalog.intents import Claim, Flush, Intent, Staged
from catalog.lake_reader import LakeReader
from catalog.listing import all_namespaces, located_table, located_tables
from catalog.offsets import Marker, Offsets, TopicIdentity, refuse_recreated
from catalog.rereading import FileRequest
from catalog.schemas import OFFSET, PARTITION, TOPIC
from catalog.spec import TableName, TableSpec
from catalog.stores import StoreOptions
from catalog.tallies import Tallies, tallies_of
from catalog.versions import Version, Versions

__all__ = ["FileRequest", "Head", "Lake", "Staged", "StoreOptions"]

#: Seconds for which a commit pursues conflicts and lost answers.
COMMIT_TIMEOUT_S = 30.0


class Lake(LakeReader):
    """One Iceberg catalog, opened."""

    def __init__(self, catalog: Catalog, copies: Copies | None = None) -> None:
        """Wraps an opened catalog; use :meth:`open`."""
        self._catalog = catalog
        super().__init__(Versions(self.load), copies or Copies())

    @classmethod
    def open(
        cls,
        name: str,
        properties: Mapping[str, str],
        *,
        timeout_s: float = 5.0,
        copies: Copies | None = None,
    ) -> Lake:
        """Opens a catalog and asks it and its store one question each.

        Args:
            name: the catalog's name; for SQL catalogs it is part of the tables' key.
            properties: pyiceberg's own (uri, warehouse, type, s3.*).
            timeout_s: bound for the catalog, and again for the store.
            copies: where files are kept without their deleted rows, closed with the lake; None: a
                temporary folder.

        Raises:
            LakeUnavailable: says which of the two, and which setting to look at.
        """
        return cls(connect(name, properties, timeout_s=timeout_s), copies)

    def close(self) -> None:
        """Closes the catalog's connections; calling it again does nothing."""
        self._catalog.close()
        self._copies.close()

    def namespaces(self) -> list[str]:
        """All namespaces, dotted, sorted, the inner ones too."""
        with lake_errors("listing namespaces"):
            return sorted(".".join(levels) for levels in all_namespaces(self._catalog))

    def tables(self, namespace: str) -> list[TableName]:
        """The tables of one namespace, sorted.

        Raises:
            TableNotFound: there is no such namespace.
        """
        with lake_errors(f"listing the tables of {namespace}"):
            found = self._catalog.list_tables(tuple(namespace.split(".")))
        return sorted(TableName(namespace, identifier[-1]) for identifier in found)

    def listing(self) -> Mapping[TableName, str | None]:
        """Every table, and its metadata file where the catalog tells it at once (SQL catalogs).

        Raises:
            LakeUnavailable: the catalog did not answer.
        """
        with lake_errors("listing all tables"):
            if (located := located_tables(self._catalog)) is not None:
                return located
        return {name: None for space in self.namespaces() for name in self.tables(space)}

    def exists(self, name: TableName) -> bool:
        """Whether there is such a table."""
        with lake_errors(f"looking for {name}"):
            return self._catalog.table_exists((*name.namespace.split("."), name.table))

    def head(self, name: TableName, *, snapshot_id: int | None = None, marked: bool = True) -> Head:
        """A fresh look at the table, or an older snapshot (rule 2); not ``marked``: no marker.

        Raises:
            TableNotFound, LakeUnavailable: as they say.
            MarkerLost: the table's positions cannot be proved.
            VersionGone: ``snapshot_id`` is expired.
        """
        with lake_errors(f"loading table {name}"):
            location = located_table(self._catalog, name)
        known = None if location is None else self._versions.found(location)
        if location is None or known is None:
            table = self.load(name)
            location = table.metadata_location
            known = self._versions.found(location) or Version(table.metadata, table.io)
        return known.head(location, snapshot_id, marked=marked)

    def ensure_table(
        self, spec: TableSpec, arrow_schema: pa.Schema, first: pa.Schema | None = None
    ) -> Head:
        """Creates the table where it is missing, adds columns that the declared schema gained.

        Args:
            spec: its declaration.
            arrow_schema: the declared schema; plain types.
            first: the same as a declaration, which a table that is created records.

        Raises:
            SpecRefused: the declaration contradicts itself or the table; names the column.
            LakeUnavailable: the catalog did not answer.
        """
        with lake_errors(f"preparing table {spec.name}"):
            table = create_or_evolve(self._catalog, spec, arrow_schema, first)
        return head_of(self._versions.remember(spec.name, table))

    def columns(self, name: TableName, metadata_location: str) -> Columns:
        """The table's columns with their ids, and its declaration; see :mod:`catalog.growth`."""
        return columns_of(self._versions.at(name, metadata_location, None).metadata)

    def claim(  # noqa: PLR0913 - what the marker says, each by its name
        self,
        name: TableName,
        topics: tuple[TopicIdentity, ...],
        writer: str,
        schema_id: int,
        starts: Offsets,
        *,
        owner: str = "",
        over: Marker | None = None,
    ) -> Head:
        """Makes ``writer`` the table's one owner by an empty commit with the next epoch (rule 5).

        Args:
            name: the table.
            topics: what feeds it, as the broker names it now.
            writer: a random id of this process.
            schema_id: registry id of the declared schema.
            starts: the log's first offsets. Recorded for topics that the table does not know yet;
                positions of known topics stay what they are, and their new partitions start at 0.
            owner: the writer in words, for whoever it fences.
            over: the marker of the only owner that may be replaced; None: whoever it is.

        Returns:
            The head; its marker's positions are where to go on.

        Raises:
            TopicRecreated: a topic is not the one whose records the table holds (rule 9).
            MarkerLost, Fenced, CommitUnknown, LakeUnavailable, TableNotFound: no owner yet.
        """
        intent = Claim(topics, writer, schema_id, starts, owner, over)
        table = commit(lambda: self.load(name), intent, timeout_s=COMMIT_TIMEOUT_S)
        head = head_of(self._versions.remember(name, table))
        if head.marker is not None:
            refuse_recreated(head.marker.topics, topics)
        return head

    def write_files(
        self,
        name: TableName,
        batches: Sequence[pa.RecordBatch] | pa.Table,
        spec: TableSpec,
        declared: pa.Schema | None = None,
    ) -> Staged:
        """Writes rows as sorted, partitioned Parquet files and commits nothing (rules 4 and 8).

        Args:
            name: the table.
            batches: the rows, in the declared schema.
            spec: the table's declaration.
            declared: the declaration of the rows, with ids: its columns become the table's in the
                commit, and the rows go where their ids say; None: columns are matched by name.

        Returns:
            What :meth:`commit` takes. The files count only as long as the gc number stands.

        Raises:
            SpecRefused: the rows do not fit the table.
            SchemaConflict: another tool changed the table so that they do not fit any more.
            LakeUnavailable: the catalog or the store failed; what was written is left behind for
                orphan removal.
        """
        table = self.load(name)
        metadata, change = table.metadata, None
        if declared is not None and not isinstance(batches, pa.Table):
            change = growth(metadata, declared)
            metadata = grown(metadata, change)
            batches, spec = placed(metadata, batches, declared, spec)
        rows = batches if isinstance(batches, pa.Table) else _table(batches, table)
        marker = recorded_marker(metadata)
        with lake_errors(f"writing rows of {name}"):
            written = list(data_files.write_files(metadata, table.io, rows, spec))
        reach("flush.files_written")
        return Staged(
            files=tuple(one.file for one in written),
            rows=sum(one.rows for one in written),
            bytes=sum(one.bytes for one in written),
            gc=0 if marker is None else marker.gc,
            table_uuid=str(table.metadata.table_uuid),
            spec_id=table.metadata.default_spec_id,
            growth=change,
            tallies=tallies_of(rows, TOPIC, PARTITION, OFFSET),
        )

    def commit(
        self,
        name: TableName,
        staged: Staged | None,
        *,
        expected: Marker,
        new: Marker,
        rejected: Tallies | None = None,
    ) -> Head:
        """Commits rows and positions as one snapshot, exactly once (rules 2 to 6).

        Args:
            name: the table.
            staged: the rows of ``[expected.positions, new.positions)``; None: empty progress.
            expected: what the head must record, at every attempt.
            new: what the snapshot records; the gc number is taken from the base.
            rejected: records of that range that become no row; None: there is none.

        Returns:
            The head at, or (after a lost or late answer) above, the snapshot.

        Raises:
            Fenced: positions or epoch are not the expected ones, or would go back, or the files
                count no more: go on from :meth:`head`.
            CommitUnknown: the outcome could not be learnt; ask :meth:`head`, the positions say.
            TopicRecreated: ``new`` names other topics.
            LakeUnavailable: nothing was sent, or the catalog refused it.
        """
        return self.apply(name, Flush(staged, expected, new, rejected or Tallies()))

    def apply(self, name: TableName, intent: Intent) -> Head:
        """Commits any other intent as :meth:`commit` does its own."""
        table = commit(lambda: self.load(name), intent, timeout_s=COMMIT_TIMEOUT_S)
        return head_of(self._versions.remember(name, table))

    def load(self, name: TableName) -> Table:
        """The table as it stands now, in pyiceberg's own terms."""
        with lake_errors(f"loading table {name}"):
            table = self._catalog.load_table((*name.namespace.split("."), name.table))
        return self._versions.remember(name, table)


def _table(batches: Sequence[pa.RecordBatch], table: Table) -> pa.Table:
    return pa.Table.from_batches(batches, None if batches else plain_schema(table.schema()))
