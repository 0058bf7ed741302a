"""Holding a table's tail without flushing it, and taking the table over when its writer is gone.

A follower reads the same partitions from the positions in the newest snapshot and publishes the
same kind of manifest in a live folder of its own. Its versions are exact for the same reason as
the writer's: C comes out of the snapshot, the rows come out of the log (docs/exactness.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from catalog.declaration import schema_id
from catalog.errors import BrokerUnavailable
from catalog.flush import Following, Parts, StartAgain, has_moved
from catalog.heads import Head, required_marker
from catalog.offsets import Marker
from catalog.publication import Publication
from catalog.pulse import BEAT_S, Pulse, Watch


@dataclass(frozen=True, slots=True)
class Candidate:
    """How a standby takes a table over.

    Attributes:
        writer: its random id (rule 5).
        claim: commits its epoch, over the owner that this marker names and no other.
        pulse: where the writer's beats lie.
    """

    writer: str
    claim: Callable[[Marker], Head]
    pulse: Pulse


class Follower(Following):
    """Moves the manifest after a head that another process moves. Belongs to one thread.

    Where the head is ahead of what was read here, the version ends at C until reading is there.

    Args:
        parts: the table, its lake and how to ask who the topics are.
        publication: what is followed; its head has a marker.
        candidate: None: it never takes over.
    """

    def __init__(
        self, parts: Parts, publication: Publication, candidate: Candidate | None = None
    ) -> None:
        super().__init__(parts, publication)
        self._candidate = candidate
        self._schema_id = self._owner().schema_id
        self._columns = parts.lake.columns(parts.spec.name, publication.head.metadata_location)
        self._watch: Watch | None = None
        self._listened_s = time.monotonic()

    def writer_is_gone(self) -> bool:
        """Whether to take over; asks at most twice a second.

        Raises:
            BrokerUnavailable: the pulse cannot be read; the silence counts for nothing.
        """
        candidate, now_s = self._candidate, time.monotonic()
        if candidate is None or now_s - self._listened_s < BEAT_S:
            return False
        self._listened_s = now_s
        owner = self._owner()
        if owner.writer == candidate.writer:  # our own claim, whose answer came late
            return True
        if self._watch is None or self._watch.epoch != owner.epoch:
            self._watch = Watch(owner.epoch, self._parts.live.take_over_after_s)
        try:
            beat = candidate.pulse.read()
        except BrokerUnavailable:
            self._watch.unread()
            raise
        return self._watch.read(beat, time.monotonic())

    def take_over(self) -> Head:
        """Commits our epoch on the newest head, before anything else (rule 5).

        Returns:
            The head, followed; the live table continues it.

        Raises:
            Fenced: another one was quicker, or the writer lives.
            StartAgain, TopicRecreated, MarkerLost, Unavailable, CommitUnknown: as they say.
        """
        assert self._candidate is not None  # noqa: S101 - asked by writer_is_gone() only
        over = self._owner()
        self._parts.verify()
        self._follow(self._candidate.claim(over))
        return self._publication.head

    def _follow(self, head: Head) -> None:
        publication = self._publication
        if has_moved(None, publication.head, head, self._parts.spec.name):
            self._follow_schema(required_marker(head, self._parts.spec.name))
            self._follow_columns(head)
            publication.move_head(head)
            publication.publish()

    def _follow_schema(self, owner: Marker) -> None:
        """Goes on if the writer's newest schema is the one it had, or one that was read here too.

        Raises:
            StartAgain: it is newer than what was read here.
        """
        if owner.schema_id not in (self._schema_id, schema_id(self._publication.told.newest)):
            raise StartAgain(f"the writer declares the table by schema {owner.schema_id} now")
        self._schema_id = owner.schema_id

    def _follow_columns(self, head: Head) -> None:
        """Goes on only with columns that mean what the live rows' columns mean.

        Both sides grow with the records' schemas, each in the order in which it reads them.

        Raises:
            StartAgain: the writer, or another tool, has made something else of the table.
        """
        known, columns = (
            self._columns,
            self._parts.lake.columns(self._parts.spec.name, head.metadata_location),
        )
        self._columns = columns
        declared = columns.declared
        if _same(declared, known.declared):
            if not _same(columns.table, known.table):
                raise StartAgain("another tool changed the table's columns")
            return
        ours = {field.name: field for field in self._publication.told.newest}
        if declared is None or not all(
            field.name in ours and ours[field.name].equals(field, check_metadata=True)
            for field in declared
        ):
            raise StartAgain("the writer declares the table otherwise now")

    def _owner(self) -> Marker:
        """Who owns the table by the head that is followed."""
        return required_marker(self._publication.head, self._parts.spec.name)


def _same(one: pa.Schema | None, other: pa.Schema | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.equals(other, check_metadata=True))
