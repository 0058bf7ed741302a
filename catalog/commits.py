"""The fenced commit: one snapshot with rows, Kafka positions and a copy of them (rules 2 to 6).

pyiceberg's own retry rebases an append on whatever it finds and, after a conflict that
was none, deletes the files of a commit that landed. So the loop is ours: every attempt loads the
table, compares the marker in *that* base with the expected one, builds the snapshot on that base
and sends it once, with the requirement that the head is still that base. The snapshot id stays the
same over all attempts. A request that arrives late, after its successor was built, either lands
first (the successor is refused and finds the id) or is refused itself: the rows land once.

Nothing here ever deletes a file (rule 6). Private names of pyiceberg 0.12.0 that this rests on:
``_FastAppendFiles._commit``, ``_SnapshotProducer._snapshot_id``, ``Table._do_commit``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from pyiceberg.exceptions import (
    BadRequestError,
    CommitFailedException,
    ForbiddenError,
    NoSuchTableError,
    UnauthorizedError,
)
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import AssertTableUUID, SetPropertiesUpdate

from catalog.clocks import in_time
from catalog.connect import lake_errors
from catalog.errors import (
    CatalogError,
    CommitUnknown,
    Fenced,
    LakeUnavailable,
    Unavailable,
)
from catalog.faults import reach
from catalog.growth import DECLARATION_PROPERTY, Growth, grown, schema_updates
from catalog.heads import in_history, marker_property
from catalog.intents import Intent
from catalog.offsets import (
    MARKER_PROPERTY,
    Marker,
    marker_to_summary,
)

#: Seconds between attempts: the first wait, doubled each time up to the longest.
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 2.0

#: Answers that say "not done" for certain and will not change by asking again.
_REFUSED = (BadRequestError, ForbiddenError, UnauthorizedError, NoSuchTableError)


def has_landed(
    intent: Intent, metadata: TableMetadata, base: Marker | None, snapshot_id: int | None
) -> bool:
    """Whether a commit is in the table already, whatever its answers were (rule 6).

    Args:
        intent: what it wants.
        metadata: the table as it is now.
        base: the marker that holds there.
        snapshot_id: of the attempts that were sent; None: none was built.
    """
    sent = snapshot_id is not None and in_history(metadata, snapshot_id)
    return sent or intent.landed(base)


def commit(load: Callable[[], Table], intent: Intent, *, timeout_s: float) -> Table:
    """Makes ``intent`` true exactly once.

    Args:
        load: loads the table afresh.
        intent: what to commit.
        timeout_s: how long conflicts and unknown outcomes are pursued.

    Returns:
        The table at, or after, the snapshot. After a conflict or a lost answer other writers'
        snapshots may already stand above it.

    Raises:
        Fenced: another writer moved the positions or the epoch, or conflicts never ended.
        CommitUnknown: the outcome could not be learnt in time. The positions will say.
        LakeUnavailable: nothing was sent, or the catalog refused it.
        MarkerLost, TableNotFound, TopicRecreated: nothing was committed.
    """
    attempt = _Attempt(intent)
    for _ in _until(timeout_s):
        try:
            with lake_errors("loading the table for a commit"):
                table = load()
        except Unavailable:
            if not attempt.sent:
                raise
            continue  # an outcome is owed: ask until the time is up
        if (done := attempt.on(table)) is not None:
            return done
    raise attempt.failure() from attempt.last_error


class _Base(Transaction):
    """The table that one attempt builds on; nothing is ever staged in it.

    pyiceberg's own copies the whole metadata, every snapshot in it, at each of a dozen looks:
    0.65 s of a commit's 0.75 s at 300 snapshots, with the GIL held.
    """

    def __init__(self, table: Table, growth: Growth | None) -> None:
        super().__init__(table)
        self._grown = table.metadata if growth is None else grown(table.metadata, growth)

    @property
    def table_metadata(self) -> TableMetadata:
        """The base as it was loaded, with the schema that the commit gives it."""
        return self._grown


class _Attempt:
    """One commit's attempts: they share a snapshot id, and what is known of the earlier ones."""

    def __init__(self, intent: Intent) -> None:
        self.sent = False
        self.unknown = False
        self.last_error: Exception | None = None
        self._intent = intent
        self._snapshot_id: int | None = None

    def on(self, table: Table) -> Table | None:
        """Sends the commit on this base; None: ask again, on a fresh base."""
        base = self._intent.base(table.metadata)
        if has_landed(self._intent, table.metadata, base, self._snapshot_id):
            reach("commit.landed")
            return table
        if isinstance(self.last_error, _REFUSED):
            raise self.failure() from self.last_error
        marker = self._intent.marker_on(base, table.metadata)
        updates, requirements = self._build(table, marker)
        reach("commit.before_send")
        self.sent = True
        try:
            table._do_commit(updates, requirements)  # noqa: SLF001 - one request, no retry, no clean-up
        except CommitFailedException as error:
            self.last_error = error
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, the table says what happened
            self.last_error = error
            self.unknown = self.unknown or not isinstance(error, _REFUSED)
            return None
        reach("commit.landed")
        return table

    def failure(self) -> CatalogError:
        """Why the attempts ended without an answer."""
        if self.unknown:
            return CommitUnknown(
                "the catalog did not say whether the commit landed: "
                "read the recorded positions again before anything is written"
            )
        if isinstance(self.last_error, _REFUSED):
            return LakeUnavailable(
                f"the catalog refused the commit ({type(self.last_error).__name__}): "
                f"check the rights on the table"
            )
        return Fenced("other writers' commits kept coming first: start again from the head")

    def _build(self, table: Table, marker: Marker):  # type: ignore[no-untyped-def] # noqa: ANN202 - pyiceberg's own tuple types
        """The updates and requirements of one snapshot on top of this base."""
        summary = {**marker_to_summary(marker), **self._intent.notes}
        staged = self._intent.staged
        growth = staged.growth if staged else None
        base = _Base(table, growth)
        update = base.update_snapshot(snapshot_properties=summary, branch=MAIN_BRANCH)
        replaces = staged is not None and bool(staged.removed)
        producer = update.overwrite() if replaces else update.fast_append()
        self._snapshot_id = self._snapshot_id or producer.snapshot_id
        producer._snapshot_id = self._snapshot_id  # noqa: SLF001 - stable over all attempts
        for file in staged.files if staged else ():
            producer.append_data_file(file)
        for file in staged.removed if staged else ():
            producer.delete_data_file(file)
        with lake_errors("writing a commit's manifests"):
            built, requirements = producer._commit()  # noqa: SLF001 - the snapshot, not yet sent
        updates = [in_time(update, table.metadata) for update in built]
        properties = {MARKER_PROPERTY: marker_property(self._snapshot_id, marker)}
        same_table = AssertTableUUID(uuid=table.metadata.table_uuid)
        if growth is None:
            copy = SetPropertiesUpdate(updates=properties)
            return (*updates, copy), (*requirements, same_table)
        if table.metadata.properties.get(DECLARATION_PROPERTY) != growth.declared:
            properties[DECLARATION_PROPERTY] = growth.declared
        columns, same_columns = schema_updates(table.metadata, growth)
        copy = SetPropertiesUpdate(updates=properties)
        return (*columns, *updates, copy), (*requirements, same_table, *same_columns)


def _until(timeout_s: float) -> Iterator[None]:
    """Attempts with waits between them; at least two, the last one before ``timeout_s``."""
    end = time.monotonic() + timeout_s
    wait = _FIRST_WAIT_S
    yield
    while True:
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads writers, no secret
        yield
        if time.monotonic() + wait > end:
            return
        wait = min(2 * wait, _LONGEST_WAIT_S)
