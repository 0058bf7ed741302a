"""What an ingest does with a table it has read: flush it, or follow whoever does.

* A *writer* claims the table when it starts, whoever owned it. Fenced, it stops: two that are both
  told to write would claim the table from each other for ever.
* A *follower* never claims.
* A *standby* claims what nobody ever owned, follows any other owner, and takes over when that one's
  pulse has stopped (catalog/pulse.py). Fenced, it follows who fenced it, without reading again.

Whoever writes leaves a pulse. It decides when a standby tries; the commit decides who owns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from catalog.errors import BrokerUnavailable, Fenced, NotReady
from catalog.flush import Flusher, Parts
from catalog.follower import Candidate, Follower
from catalog.heads import Head, required_marker
from catalog.offsets import NOBODY, Marker, Offsets, TopicIdentity, refuse_recreated
from catalog.owners import named
from catalog.pulse import Heart
from catalog.sources import Sources
from catalog.spec import TableName
from catalog.tailing import Run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim says of the table; see ``Lake.claim``."""

    name: TableName
    topics: tuple[TopicIdentity, ...]
    schema_id: int
    starts: Offsets


def to_follow(sources: Sources, name: TableName, topics: tuple[TopicIdentity, ...]) -> Head | None:
    """The head that another process moves; None: the table is ours to claim.

    Raises:
        NotReady: there is nothing to follow yet.
        TopicRecreated: the table holds records of another topic (rule 9).
        MarkerLost, LakeUnavailable: as they say.
    """
    if sources.live.role == "writer":
        return None
    head = sources.lake.head(name) if sources.lake.exists(name) else None
    if head is None or head.marker is None:
        if sources.live.role == "standby":
            return None
        raise NotReady(f"{name} has no writer yet: this follower waits for one")
    refuse_recreated(head.marker.topics, topics)
    if lacking := {one.topic for one in topics} - {one.topic for one in head.marker.topics}:
        raise NotReady(
            f"{name} is not fed by {', '.join(sorted(lacking))} yet: declare the topic for its "
            'writer first (an ingest with live.role = "writer" claims the table when it starts)'
        )
    return head


def claim_at_start(sources: Sources, what: Claimed) -> Head:
    """Claims the table: a writer from whoever has it, a standby from nobody (rule 5).

    Raises:
        NotReady: a standby found that another process was quicker.
        TopicRecreated, MarkerLost, Fenced, CommitUnknown, LakeUnavailable: see ``Lake.claim``.
    """
    if sources.live.role != "standby":
        return _claim(sources, what, None)
    try:
        return _claim(sources, what, NOBODY)
    except Fenced as lost:
        raise NotReady(f"{what.name} has a writer by now: this standby follows it") from lost


class Duty:
    """Flushes or follows one table, of which ``run`` reads the tail. Belongs to one thread.

    Args:
        sources: what the process shares.
        run: the reading; its publication's head is claimed, or followed.
        record: commits the dead letters below a flush's end.
        writes: which of the two.
    """

    def __init__(
        self, sources: Sources, run: Run, record: Callable[[Offsets], None], *, writes: bool
    ) -> None:
        self._sources, self._run = sources, run
        settings = run.spec, sources.live, sources.lake
        self._parts = Parts(*settings, run.verify, record, run.rejects.passed)
        self._heart: Heart | None = None
        head = run.publication.head
        self._pulse = None if sources.pulse is None else sources.pulse(run.spec.name, head)
        self._at_work: Flusher | Follower = self._write() if writes else self._follow()
        run.publication.publish()

    def turn(self, *, at_bound: bool, last: bool) -> bool:
        """Does what is due; whether the lake was asked.

        Args:
            at_bound: the live bytes are at their bound.
            last: reading has ended; what was read is flushed, and no table is taken over.

        Raises:
            StartAgain: read the log again.
            Fenced: the table has another owner, and this process is no standby.
            CatalogError: see ``Flusher.flush`` and ``Follower.look``.
        """
        at_work = self._at_work
        if isinstance(at_work, Follower):
            return self._turn_following(at_work, may_write=not last)
        try:
            if at_work.due(at_bound=at_bound, last=last):
                self._flush(at_work)
                return True
            return at_work.look_when_time()
        except Fenced as fenced:
            if self._sources.live.role != "standby":
                raise
            _log.warning("ingest_fenced table=%s error=%s", self._run.spec.name, fenced)
            self._at_work = follower = self._follow()
            follower.look()
            return True

    def end(self, *, gone: bool) -> None:
        """Leaves no more beats; idempotent.

        Args:
            gone: the writer ends in order: a standby need not wait for silence.
        """
        if self._heart is not None:
            self._heart.end(gone=gone)
            self._heart = None

    def _turn_following(self, follower: Follower, *, may_write: bool) -> bool:
        looked = follower.look_when_time()
        try:
            gone = follower.writer_is_gone()
        except BrokerUnavailable as error:
            self._run.troubled("pulse", error)
            return looked
        self._run.recovered("pulse")
        if not gone or not may_write:
            return looked
        try:
            follower.take_over()
        except Fenced as lost:
            _log.info("take_over_lost table=%s because=%s", self._run.spec.name, lost)
            follower.look()
        else:
            self._at_work = self._write()
            self._run.publication.publish()
        return True

    def _flush(self, flusher: Flusher) -> None:
        committed, run = flusher.flush(), self._run
        if committed is None:
            return
        _log.info(
            "flushed table=%s rows=%d bytes=%d seconds=%.3f",
            run.spec.name,
            committed.rows,
            committed.bytes,
            committed.seconds,
        )
        self._sources.observer.committed(run.spec.name, committed)
        marker = run.publication.head.marker
        run.reader.commit_monitor(Offsets() if marker is None else marker.positions)

    def _write(self) -> Flusher:
        """The table is ours: from here on it is flushed here, and others hear that."""
        run, marker = self._run, self._owner()
        flusher = Flusher(self._parts, run.writer, run.publication, marker)
        if self._pulse is not None:
            self._heart = Heart(self._pulse, marker.epoch, marker.writer)
        run.publication.say_role(writes=True)
        _log.info("ingest_begins table=%s epoch=%s", run.spec.name, marker.epoch)
        return flusher

    def _follow(self) -> Follower:
        """The table is another's: from here on its tail is held here."""
        self.end(gone=False)
        run, marker, sources = self._run, self._owner(), self._sources
        candidate = None
        if sources.live.role == "standby" and self._pulse is not None:
            what = Claimed(run.spec.name, run.topics, marker.schema_id, Offsets())
            candidate = Candidate(sources.writer, partial(_claim_over, sources, what), self._pulse)
        run.publication.say_role(writes=False)
        _log.info("ingest_follows table=%s after=%s", run.spec.name, named(marker))
        return Follower(self._parts, run.publication, candidate)

    def _owner(self) -> Marker:
        return required_marker(self._run.publication.head, self._run.spec.name)


def _claim_over(sources: Sources, what: Claimed, over: Marker) -> Head:
    """Takes over with the schema that the owner's newest rows have."""
    return _claim(sources, replace(what, schema_id=over.schema_id), over)


def _claim(sources: Sources, what: Claimed, over: Marker | None) -> Head:
    return sources.lake.claim(
        *(what.name, what.topics, sources.writer, what.schema_id, what.starts),
        owner=sources.owner,
        over=over,
    )
