"""What commits of dead letters want: the owner's name on a second table, and the two of a replay.

See ``catalog.dead_letters`` and ``catalog.replay`` for the order in which they are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyiceberg.table.metadata import TableMetadata

from catalog.errors import Fenced, MarkerLost
from catalog.intents import Staged, Writing, refuse_stale
from catalog.offsets import Marker, Offsets, refuse_recreated
from catalog.tallies import Tallies, Tally


@dataclass(frozen=True, slots=True)
class Follow(Writing):
    """The owner of a table becomes the owner of its dead letter table, in the same epoch (rule 5).

    Attributes:
        owner: the marker by which the table was claimed; its ``writer`` ends with the table's uuid.
    """

    owner: Marker

    @property
    def staged(self) -> Staged | None:
        """A claim brings no rows."""
        return None

    def landed(self, base: Marker | None) -> bool:
        """The snapshot's id says it. A repeated claim is made again: it stops late requests."""
        del base
        return False

    def marker_on(self, base: Marker | None, metadata: TableMetadata) -> Marker:
        """The base's positions under the new owner.

        Letters of an earlier table of the same name stay; its epochs and replays count no more.
        """
        del metadata
        owner = self.owner
        if base is None:
            return replace(owner, positions=Offsets(), gc=0, tallies=Tallies())
        refuse_recreated(base.topics, owner.topics)
        owner = replace(owner, positions=base.positions, gc=base.gc, tallies=base.tallies)
        if table_of(base) != table_of(owner):
            return owner
        if base.writer != owner.writer and base.epoch >= owner.epoch:
            raise Fenced(
                f"the dead letter table was taken over by another ingest (epoch {base.epoch}, ours "
                f"is {owner.epoch}): run one ingest per table"
            )
        if base.replays > owner.replays:
            raise MarkerLost(
                f"the table went back to before replay {base.replays} of its dead letters, and "
                f"those are no longer in the dead letter table: roll that one back, too"
            )
        return replace(owner, replays=base.replays)


@dataclass(frozen=True, slots=True)
class ReplayRows(Writing):
    """Rows of decoded letters, below the positions that stand; ``replays`` counts them.

    Attributes:
        staged: the rows.
        replays: how many replays the table has seen before this one.
        highest: one past the letters' offsets; the table's positions are there or further.
    """

    staged: Staged
    replays: int
    highest: Offsets

    def landed(self, base: Marker | None) -> bool:
        """The snapshot's id says it, nothing else: another replay has other rows."""
        del base
        return False

    def marker_on(self, base: Marker | None, metadata: TableMetadata) -> Marker:
        """The base's own marker, one replay further."""
        if base is None or base.replays != self.replays:
            raise Fenced("another replay came first: start again")
        if not base.positions.covers(self.highest):
            raise Fenced("the table went back below the letters' offsets: its ingest reads them")
        refuse_stale(self.staged, base, metadata)
        came = self.staged.tallies
        were = Tallies({place: Tally(0, rejects=tally.rows) for place, tally in came.items()})
        tallies = base.tallies.plus(came).minus(were)
        return replace(base, replays=self.replays + 1, tallies=tallies)


@dataclass(frozen=True, slots=True)
class TakeOff(Writing):
    """Letters that are rows now leave their table.

    Attributes:
        staged: what is left of the files that are removed.
        replays: how many replays are finished when this has landed.
        removed: what those files held.
    """

    staged: Staged
    replays: int
    removed: Tallies

    def landed(self, base: Marker | None) -> bool:
        """The number of finished replays says it: a replay is finished once."""
        return base is not None and base.replays >= self.replays

    def marker_on(self, base: Marker | None, metadata: TableMetadata) -> Marker:
        """The base's own marker, one finished replay further."""
        if base is None:
            raise Fenced("the dead letter table was replaced by another of its name")
        refuse_stale(self.staged, base, metadata)
        tallies = base.tallies.minus(self.removed).plus(self.staged.tallies)
        return replace(base, replays=self.replays, tallies=tallies)


def writer_of(writer: str, table_uuid: str) -> str:
    """The writer's id in a dead letter table: it names the table, too."""
    return f"{writer}@{table_uuid}"


def table_of(marker: Marker) -> str:
    """The uuid of the table whose letters these are."""
    return marker.writer.rpartition("@")[2]
