"""From the live table into history: when to flush, one fenced commit, and following the head."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from catalog.declaration import ids, schema_id
from catalog.errors import Fenced, LogGap, SegmentMissing
from catalog.faults import reach
from catalog.growth import followed
from catalog.heads import Head, required_marker
from catalog.lake import Lake, Staged
from catalog.observer import Committed
from catalog.offsets import Marker, Offsets
from catalog.owners import named
from catalog.publication import Publication, Tail
from catalog.rejects import Passed
from catalog.segments import LiveWriter
from catalog.spec import LiveSpec, TableName, TableSpec
from catalog.tallies import Tallies

#: A flush takes at most this many times the rows or bytes that make it due (and the segment with
#: which it gets there): it is sorted in memory, and after an outage of the catalog the tail may be
#: as large as its bound. What it leaves is due at once.
FLUSH_MOST = 2


class StartAgain(Exception):
    """The live table no longer continues the head: read the log again from the head's positions."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a flush works with.

    Attributes:
        verify: raises TopicRecreated unless the topics are who they were (rule 9).
        record: commits the dead letters below a flush's end; before the flush's own commit.
        passed: the records that became no row.
    """

    spec: TableSpec
    live: LiveSpec
    lake: Lake
    verify: Callable[[], None]
    record: Callable[[Offsets], None]
    passed: Passed


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What a flush will commit: the rows of ``[marker.positions, target)``, as files."""

    marker: Marker
    new: Marker
    staged: Staged | None
    rejected: Tallies


class Following:
    """Looks at the table's head, now and then; what that means is a subclass's. For one thread.

    Args:
        parts: the table, its lake and how to ask who the topics are.
        publication: what moves after the head.
    """

    def __init__(self, parts: Parts, publication: Publication) -> None:
        self._parts, self._publication = parts, publication
        self._looked_s = time.monotonic()

    def look_when_time(self) -> bool:
        """:meth:`look`, if the last look is ``reload_s`` seconds old; whether it was."""
        if time.monotonic() - self._looked_s < self._parts.live.reload_s:
            return False
        self.look()
        return True

    def look(self) -> None:
        """Follows the head, whoever moved it, and trims (rules 10 and 13).

        Raises:
            StartAgain: the live table does not continue the head any more.
            Fenced, TopicRecreated, MarkerLost, TableNotFound, Unavailable: as they say.
        """
        self._looked_s = time.monotonic()
        self._follow(self._parts.lake.head(self._parts.spec.name))
        self._publication.trim()

    def _follow(self, head: Head) -> None:
        """Moves the manifest after ``head``; errors as :meth:`look`."""
        raise NotImplementedError


class Flusher(Following):
    """Moves the tail into history and the manifest after the head. Belongs to one thread.

    Files of a commit that failed, or whose outcome is not known, are kept and sent again: writing
    them anew at every try would fill the store while the catalog is away.
    """

    def __init__(
        self,
        parts: Parts,
        writer: LiveWriter,
        publication: Publication,
        owner: Marker,
    ) -> None:
        """Binds the parts; the epoch and writer of ``owner``, the claim's marker, are ours."""
        super().__init__(parts, publication)
        self._writer = writer
        self._owner = owner
        self._prepared: _Prepared | None = None
        #: Field ids of the declaration that the table has, or had: they must not disappear.
        self._owed = ids(publication.told.newest) and self._in_table(publication.told.newest)

    def due(self, *, at_bound: bool, last: bool) -> bool:
        """Whether the tail has to go: rows, bytes, age, the bound on live bytes, or a last flush.

        Progress without rows counts by its age (rule 3).
        """
        now, spec = self._publication.unflushed(), self._parts.spec
        if now.age_s is None:
            return False
        return (
            now.rows >= spec.flush_rows
            or now.bytes >= spec.flush_bytes
            or now.age_s >= spec.flush_age_s
            or now.left
            or at_bound
            or last
        )

    def flush(self) -> Committed | None:
        """Commits the tail, at most :data:`FLUSH_MOST` flushes of it; None if there was nothing.

        None, too, if another commit came first.

        Order: the topics' identities, files, dead letters, commit, manifest, trim (rules 4, 5, 9
        and 10).

        Raises:
            StartAgain: the tail does not continue the head (rule 4).
            Fenced: another ingest owns the table now.
            TopicRecreated, MarkerLost, TableNotFound: as they say.
            Unavailable, CommitUnknown: try again; the recorded positions say what is missing.
        """
        began = time.monotonic()
        self._prepared = self._prepared or self._prepare()
        if self._prepared is None:
            self._publication.flushed()
            return None
        marker, staged = self._prepared.marker, self._prepared.staged
        self._record(self._prepared.new.positions)
        try:
            head = self._parts.lake.commit(
                self._parts.spec.name,
                staged,
                expected=marker,
                new=self._prepared.new,
                rejected=self._prepared.rejected,
            )
        except Fenced:
            self._prepared = None
            self.look()  # a late answer, the gc number, or another owner: the head says which
            return None
        reach("commit.before_publish")
        self._prepared = None
        self._follow(head)
        self._publication.flushed()
        self._publication.trim()
        rows, size = (0, 0) if staged is None else (staged.rows, staged.bytes)
        return Committed(rows, size, time.monotonic() - began)

    def _record(self, target: Offsets) -> None:
        try:
            self._parts.record(target)
        except Fenced as error:
            self._prepared = None
            self.look()  # says so where another ingest owns the table
            raise StartAgain("the dead letter table is not as this ingest left it") from error

    def _prepare(self) -> _Prepared | None:
        """The tail, or its oldest part, verified and written; None: there is nothing to commit."""
        spec = self._parts.spec
        tail = self._publication.begin_flush(
            FLUSH_MOST * spec.flush_rows, FLUSH_MOST * spec.flush_bytes
        )
        marker = required_marker(tail.head, spec.name)
        target = flush_target(marker, tail.high)
        if target is None:
            return None
        self._parts.verify()  # after its last row was consumed, before the first request (rule 9)
        with self._publication.using(tail.segments):
            staged = self._stage(tail, marker.positions, target)
        new = marker.moved_to(target, marker.leaders_at(tail.high, tail.leaders))
        declared = self._writer.newest(tail.segments)
        if declared is not None and staged is not None:
            new = replace(new, schema_id=schema_id(declared) or new.schema_id)
        rejected = self._parts.passed.between(marker.positions, target)
        return _Prepared(marker, new, staged, rejected)

    def _stage(self, tail: Tail, first: Offsets, target: Offsets) -> Staged | None:
        """The rows of ``[first, target)`` as files; None where there is none (rules 3 and 4)."""
        try:
            batches = self._writer.read(tail.segments, first, target)
        except LogGap as error:
            raise StartAgain("the tail does not reach down to the recorded positions") from error
        except SegmentMissing as error:  # the log still has it (rule 18 is for readers)
            raise StartAgain(str(error)) from error
        if not sum(batch.num_rows for batch in batches):
            return None
        spec, declared = self._parts.spec, self._writer.newest(tail.segments)
        return self._parts.lake.write_files(spec.name, batches, spec, declared)

    def _follow(self, head: Head) -> None:
        self._looked_s = time.monotonic()
        if has_moved(self._owner, self._publication.head, head, self._parts.spec.name):
            self._follow_columns(head)
            self._publication.move_head(head)
            self._publication.publish()

    def _in_table(self, declared: pa.Schema) -> frozenset[int]:
        location = self._publication.head.metadata_location
        columns = self._parts.lake.columns(self._parts.spec.name, location)
        return ids(declared) & ids(columns.table)

    def _follow_columns(self, head: Head) -> None:
        """Looks at what others did to the table's columns.

        Raises:
            SchemaConflict: the table cannot take the topic's rows any more.
            StartAgain: they are read as something else from here on.
        """
        columns = self._parts.lake.columns(self._parts.spec.name, head.metadata_location)
        if columns.declared is not None:
            self._owed |= ids(columns.declared)
        declared = self._publication.told.newest
        coming = ids(declared) - self._owed
        after = followed(declared, columns.table, self._owed)
        if coming & ids(columns.table) or not after.equals(declared, check_metadata=True):
            raise StartAgain("another tool changed the table's columns")


def flush_target(marker: Marker, high: Offsets) -> Offsets | None:
    """Where a flush of a tail up to ``high`` ends (rule 4); None: there is nothing to commit.

    Progress without rows is something (rule 3).
    """
    target = marker.positions.max(high)
    return None if target.same_as(marker.positions) else target


def has_moved(owner: Marker | None, known: Head, head: Head, name: TableName) -> bool:
    """Whether ``head`` is another version than ``known``, one that the live table continues.

    Args:
        owner: the marker of our claim; None: we follow, whoever owns the table.
        known: the head that the live table continues.
        head: the table as it is now.
        name: the table, for errors.

    Raises:
        StartAgain: the table went back, or is another one.
        Fenced: another ingest owns it now.
        MarkerLost: it records no positions any more.
    """
    if head.table_uuid != known.table_uuid:
        raise StartAgain("the table was replaced by another of its name")
    marker = required_marker(head, name)
    if owner is not None and marker.epoch < owner.epoch:
        raise StartAgain("the table went back to before it was claimed")
    if owner is not None and (marker.epoch, marker.writer) != (owner.epoch, owner.writer):
        raise Fenced(
            f"table {name} was taken over by another ingest, {named(marker)}; ours is epoch "
            f"{owner.epoch}: this one stops writing; run one writer per table, the others with "
            'live.role = "standby" or "follower"'
        )
    if not marker.positions.covers(required_marker(known, name).positions):
        raise StartAgain("the table went back to an older snapshot")
    return head.metadata_location != known.metadata_location
