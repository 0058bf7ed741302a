"""What a commit wants: asked anew on the base of every attempt, because bases move (rules 2 to 5).

Pure but for the table's metadata: what is sent, and what its answer means, is catalog/commits.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from pyiceberg.manifest import DataFile
from pyiceberg.table.metadata import TableMetadata

from catalog.errors import Fenced, MarkerLost
from catalog.growth import Growth
from catalog.heads import is_truncated, recorded_marker
from catalog.offsets import Marker, Offsets, TopicIdentity, refuse_recreated
from catalog.owners import named
from catalog.tallies import Tallies, Tally

#: Table property by which its owner says that K2 Flight never wrote the table before.
ADOPT_PROPERTY = "k2.adopt"


@dataclass(frozen=True, slots=True)
class Staged:
    """Data files that are written and not committed.

    Attributes:
        files: what the manifest will say about each of them.
        rows: rows in all of them.
        bytes: their size in the store.
        gc: the gc number that the head had before the first byte was written (rule 8).
        table_uuid: the table that they were written for.
        spec_id: the partition spec that they follow.
        growth: what has to become of the table's schema in the same commit; None: nothing.
        tallies: what they add to the table's.
        removed: data files of the table that they take the place of.
    """

    files: tuple[DataFile, ...]
    rows: int
    bytes: int
    gc: int
    table_uuid: str
    spec_id: int
    growth: Growth | None = None
    tallies: Tallies = field(default_factory=Tallies)
    removed: tuple[DataFile, ...] = ()


class Intent(Protocol):
    """What a commit wants, asked anew on the base of every attempt."""

    @property
    def staged(self) -> Staged | None:
        """The files that go in; None: an empty snapshot."""

    @property
    def notes(self) -> Mapping[str, str]:
        """What the snapshot's summary says beside the marker."""

    def base(self, metadata: TableMetadata) -> Marker | None:
        """The marker that holds at a base.

        Raises:
            MarkerLost: none can be proved to.
        """

    def landed(self, base: Marker | None) -> bool:
        """Whether ``base`` already records what this commit wants."""

    def marker_on(self, base: Marker | None, metadata: TableMetadata) -> Marker:
        """The marker to write on top of ``base``.

        Raises:
            Fenced, MarkerLost, TopicRecreated: this base must not be built upon.
        """


class Writing:
    """What every intent of a writer has in common."""

    __slots__ = ()

    @property
    def notes(self) -> Mapping[str, str]:
        """A writer's snapshots say no more than their marker."""
        return {}

    def base(self, metadata: TableMetadata) -> Marker | None:
        """The recorded marker, or an error: a writer never guesses (rule 2)."""
        return recorded_marker(metadata)


@dataclass(frozen=True, slots=True)
class Flush(Writing):
    """Rows and positions of the writer that owns the epoch; no rows: empty progress (rule 3).

    Attributes:
        staged: the rows; None: there are none.
        expected: what every base must record.
        new: what is recorded then.
        rejected: records that are passed over and become no row.
    """

    staged: Staged | None
    expected: Marker
    new: Marker
    rejected: Tallies = field(default_factory=Tallies)

    def landed(self, base: Marker | None) -> bool:
        """The recorded positions, epoch and writer say it (rule 6)."""
        moved = not self.new.positions.same_as(self.expected.positions)
        return moved and base is not None and base.same_place(self.new)

    def marker_on(self, base: Marker | None, metadata: TableMetadata) -> Marker:
        """The new marker, with the gc number and the replays of the base."""
        base = _owned(base, self.expected)
        if not base.positions.same_as(self.expected.positions):
            raise Fenced(
                f"the table records other positions than expected "
                f"(first difference: {base.positions.difference(self.expected.positions)}): "
                f"start again from the recorded ones"
            )
        _refuse_backwards(base, self.new)
        refuse_recreated(base.topics, self.new.topics)
        tallies = base.tallies.begun_at(base.positions, self.new.positions).plus(self.rejected)
        if self.staged is not None:
            self._refuse_stale_files(self.staged, base, metadata)
            tallies = tallies.plus(self.staged.tallies)
        return replace(self.new, gc=base.gc, replays=base.replays, tallies=tallies)

    def _refuse_stale_files(self, staged: Staged, base: Marker, metadata: TableMetadata) -> None:
        if staged.rows and self.new.positions.same_as(base.positions):
            raise Fenced(f"{staged.rows} rows without a move of the positions: they are in already")
        refuse_stale(staged, base, metadata)


@dataclass(frozen=True, slots=True)
class Claim(Writing):
    """A new owner: the next epoch, in an empty snapshot, before anything else (rule 5).

    Attributes:
        owner: the writer in words.
        over: the only owner that may be replaced; None: whoever it is.
    """

    topics: tuple[TopicIdentity, ...]
    writer: str
    schema_id: int
    starts: Offsets
    owner: str = ""
    over: Marker | None = None

    @property
    def staged(self) -> Staged | None:
        """A claim brings no rows."""
        return None

    def landed(self, base: Marker | None) -> bool:
        """The head's owner is this writer, whose id is random, with all of its topics."""
        return (
            base is not None and base.writer == self.writer and set(self.topics) <= set(base.topics)
        )

    def marker_on(self, base: Marker | None, metadata: TableMetadata) -> Marker:
        """The base's positions with the next epoch; a table's first marker records the starts."""
        if base is None:
            if is_truncated(metadata) and metadata.properties.get(ADOPT_PROPERTY) != "true":
                raise MarkerLost(
                    f"the table's older snapshots are expired and none that is left records Kafka "
                    f"positions: it cannot be known which records it holds; if K2 Flight never "
                    f"wrote it, set the table property {ADOPT_PROPERTY}=true, else "
                    f"`k2 repair TABLE --marker-from-rows` finds them"
                )
            base = Marker(Offsets(), (), 0, "", self.schema_id)
        if self.over is not None:
            _owned(base, self.over)
        refuse_recreated(base.topics, self.topics)
        known = {identity.topic for identity in base.topics}
        added = [(tp, n) for tp, n in self.starts.items() if tp[0] not in known]
        return replace(
            base,
            positions=base.positions.with_positions(added),
            tallies=Tallies({**base.tallies, **{tp: Tally(n) for tp, n in added}}),
            topics=tuple(sorted({*base.topics, *self.topics})),
            epoch=base.epoch + 1,
            writer=self.writer,
            schema_id=self.schema_id,
            owner=self.owner,
        )


def refuse_stale(staged: Staged, base: Marker, metadata: TableMetadata) -> None:
    """Refuses files that count no more (rule 8), or were written for another table.

    Raises:
        Fenced: write them again.
    """
    if staged.gc != base.gc:
        raise Fenced(
            f"orphan removal ran (gc number {base.gc}, files were written under {staged.gc}): "
            f"the files may be gone, write them again"
        )
    if staged.table_uuid != str(metadata.table_uuid):
        raise Fenced("the table was replaced by another of its name: write the files again")
    if staged.spec_id != metadata.default_spec_id:
        raise Fenced("the table's partition spec changed: write the files again")
    growth, now = staged.growth, (metadata.current_schema_id, metadata.last_column_id)
    if growth is not None and (growth.base_schema_id, growth.base_last_id) != now:
        raise Fenced("the table's columns changed: write the files again")


def _owned(base: Marker | None, expected: Marker) -> Marker:
    if base is None:
        raise Fenced("the table records no positions: claim it first")
    if (base.epoch, base.writer) != (expected.epoch, expected.writer):
        raise Fenced(
            f"the table belongs to another writer now, {named(base)}; "
            f"expected was epoch {expected.epoch}"
        )
    return base


def _refuse_backwards(base: Marker, new: Marker) -> None:
    if behind := new.positions.behind(base.positions):
        topic, partition = behind[0]
        raise Fenced(
            f"{topic}[{partition}] would go back from {base.positions.at(behind[0])} "
            f"to {new.positions.at(behind[0])}: start again from the recorded positions"
        )
