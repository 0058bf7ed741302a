"""`k2 repair`: what a table and its log no longer agree on, settled by an explicit choice.

Each choice is a pure function from what is there to a :class:`Plan`; :func:`apply` commits one, as
an empty snapshot with the next epoch, on exactly the head that the plan was made on. Whoever writes
to the table meanwhile makes the repair fail; whoever wrote before is fenced by it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from catalog.errors import Fenced, MarkerLost, RepairRefused
from catalog.heads import Head, marker_of, marker_of_property
from catalog.intents import Staged
from catalog.lake import Lake
from catalog.offsets import (
    MARKER_PROPERTY,
    REPAIR_KEY,
    Marker,
    Offsets,
    TopicIdentity,
    TopicPartition,
    refuse_recreated,
)
from catalog.rows_held import Held
from catalog.spec import TableName
from catalog.tallies import Tallies, Tally

#: Longest name and reason that a snapshot keeps, in characters.
_TEXT_CHARS = 200


@dataclass(frozen=True, slots=True)
class LogState:
    """What the broker says of a table's topics.

    Attributes:
        begins, ends: of every partition that they have; a log that was cut off below the table's
            positions ends where it was, whatever came since.
    """

    topics: tuple[TopicIdentity, ...]
    begins: Offsets
    ends: Offsets


@dataclass(frozen=True, slots=True)
class Plan:
    """A repair that could be committed.

    Attributes:
        what: the choice, as on the command line.
        snapshot_id: the head that it was made on.
        old: what that records; None: nothing that can be proved.
        new: what the repaired table records.
        effects: what that means, a line each.
    """

    what: str
    snapshot_id: int | None
    old: Marker | None
    new: Marker
    effects: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """``{"what", "effects", "from", "to"}``: positions that change, null: none recorded."""
        changed = Offsets({p: n for p, n in self.new.positions.items() if self._was(p) != n})
        old = Offsets({p: n for p in changed if (n := self._was(p)) is not None})
        return {
            "what": self.what,
            "effects": list(self.effects),
            "from": None if self.old is None else old.to_json(),
            "to": changed.to_json(),
        }

    def _was(self, place: TopicPartition) -> int | None:
        return None if self.old is None else self.old.positions.get(place)


@dataclass(frozen=True, slots=True)
class Repair:
    """The commit of a plan (an intent of catalog/commits.py)."""

    plan: Plan
    note: str

    @property
    def staged(self) -> Staged | None:
        """A repair brings no rows."""
        return None

    @property
    def notes(self) -> Mapping[str, str]:
        """Who repaired what, when and why."""
        return {REPAIR_KEY: self.note}

    def base(self, metadata: TableMetadata) -> Marker | None:
        """Nothing is asked of a marker: :meth:`marker_on` asks for the very snapshot."""
        current = metadata.current_snapshot()
        return None if current is None else _readable(current)

    def landed(self, base: Marker | None) -> bool:
        """The repair's own random writer owns the table."""
        return base is not None and base.writer == self.plan.new.writer

    def marker_on(self, base: Marker | None, metadata: TableMetadata) -> Marker:
        """The plan's marker, on the plan's head only."""
        del base
        current = metadata.current_snapshot()
        if (None if current is None else current.snapshot_id) != self.plan.snapshot_id:
            raise Fenced(
                "the table has moved since the repair was planned: stop what writes to it, then "
                "look at the repair again"
            )
        return self.plan.new


def skip_lost_records(head: Head, log: LogState) -> Plan:
    """Moves positions over records that the log no longer holds, and writes down which.

    Raises:
        RepairRefused: nothing is lost, or the log ends below a position.
        TopicRecreated: its offsets mean other records.
    """
    old = _marker(head)
    refuse_recreated(old.topics, log.topics)
    _refuse_short(old, log)
    lost = {p: (old.positions.at(p), n) for p, n in log.begins.items() if n > old.positions.at(p)}
    if not lost:
        raise RepairRefused("the log still holds every position of the table: nothing is lost")
    tallies = old.tallies.begun_at(old.positions, lost)
    tallies = tallies.plus(Tallies({p: Tally(0, lost=(hole,)) for p, hole in lost.items()}))
    new = replace(
        _owned_anew(old, old.epoch),
        positions=old.positions.with_positions((p, hole[1]) for p, hole in lost.items()),
        tallies=tallies,
    )
    effects = [f"{_name(p)}: records of [{a}, {b}) are given up" for p, (a, b) in lost.items()]
    return Plan("skip-lost-records", head.snapshot_id, old, new, tuple(effects))


def same_topic(head: Head, log: LogState) -> Plan:
    """Takes topics of another identity for the recorded ones: same records, same offsets.

    For a cluster that moved with its offsets, or was restored. Nothing can prove it here; `k2
    verify --log` compares what the log still holds.

    Raises:
        RepairRefused: the identities are the recorded ones, or the log cannot be the same.
    """
    old = _marker(head)
    now = {one.topic: one for one in log.topics}
    changed = [one for one in old.topics if now.get(one.topic, one) != one]
    if not changed:
        raise RepairRefused("the topics are the recorded ones: there is nothing to repair")
    _refuse_short(old, log)
    for place, begin in log.begins.items():
        if begin > old.positions.at(place):
            raise RepairRefused(
                f"{_name(place)} begins at {begin}, after position {old.positions.at(place)}: it "
                f"does not continue what the table holds; feed it into a new table"
            )
    topics = tuple(sorted(now.get(one.topic, one) for one in old.topics))
    new = replace(_owned_anew(old, old.epoch), topics=topics)
    effects = [
        f"topic {one.topic}: id {now[one.topic].topic_id or '-'} of cluster "
        f"{now[one.topic].cluster_id} is taken for {one.topic_id or '-'} of {one.cluster_id}"
        for one in changed
    ]
    return Plan("same-topic", head.snapshot_id, old, new, tuple(effects))


def marker_from_rows(
    head: Head,
    metadata: TableMetadata,
    log: LogState,
    held: Held,
    given: Offsets | None = None,
) -> Plan:
    """Finds positions again where no snapshot in reach records them.

    Where the property's copy counts exactly the rows that are there, its positions are right.
    Otherwise a partition goes on after its last row: the table holds every record below the
    position it once had, so between its last row and that position the log had none. A partition
    without rows goes on where the log begins.

    Args:
        head: without a marker.
        metadata: the table's.
        log: what the broker says.
        held: what the data files hold.
        given: positions that the operator knows better.

    Raises:
        RepairRefused: the positions are not lost, or a given one lies at or below a row, or
            outside the log, or rows are of a topic that is not declared.
        TopicRecreated: a topic is not the one that was recorded.
    """
    if held.strays:
        raise RepairRefused(
            f"{held.strays} rows are of no partition of the declared topics: declare every topic "
            f"that fed the table"
        )
    copy = _copy(metadata)
    known = [m for s in metadata.snapshots if (m := _readable(s)) is not None]
    known += [] if copy is None else [copy]
    newest = max(known, key=lambda marker: marker.epoch, default=None)
    if newest is not None:
        refuse_recreated(newest.topics, log.topics)
    base = newest or Marker(Offsets(), log.topics, 0, "", 0)
    base = replace(base, gc=max((m.gc for m in known), default=0))
    exact = copy if copy is not None and given is None and held.agrees_with(copy) else None
    positions, tallies = _found(log, held, given or Offsets(), exact)
    new = replace(
        _owned_anew(base, base.epoch),
        positions=positions,
        tallies=tallies,
        topics=tuple(sorted({*log.topics, *([] if exact is None else exact.topics)})),
    )
    source = "its copy, which counts exactly these rows" if exact else "the rows"
    effects = [f"{_name(p)}: goes on at {n} (from {source})" for p, n in positions.items()]
    what = "marker-from-rows" if given is None else "positions"
    return Plan(what, head.snapshot_id, None, new, tuple(effects))


def apply(lake: Lake, name: TableName, plan: Plan, *, who: str, why: str) -> Head:
    """Commits a plan and writes into the snapshot who chose it, when and why.

    Raises:
        Fenced: the table has moved since.
        CommitUnknown, LakeUnavailable: as they say; look at the table again.
    """
    note = {
        **plan.to_json(),
        "who": who[:_TEXT_CHARS],
        "why": why[:_TEXT_CHARS],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    del note["effects"]
    return lake.apply(name, Repair(plan, json.dumps(note, separators=(",", ":"))))


def _found(
    log: LogState, held: Held, given: Offsets, exact: Marker | None
) -> tuple[Offsets, Tallies]:
    """Positions and tallies of every partition."""
    if exact is not None:
        return exact.positions, exact.tallies
    positions: dict[TopicPartition, int] = {}
    tallies: dict[TopicPartition, Tally] = {}
    for place in sorted({*log.begins, *held.last, *given}):
        first, after = held.first.get(place), held.last.get(place, -1) + 1
        start = after or log.begins.at(place)
        position = given.get(place, start)
        _refuse_given(place, position, after, log)
        hole = ((start, position),) if place in given and position > start else ()
        low = start if first is None else first
        tallies[place] = replace(held.tallies.get(place, Tally(low)), first=low, lost=hole)
        positions[place] = position
    return Offsets(positions), Tallies(tallies)


def _refuse_given(place: TopicPartition, position: int, after: int, log: LogState) -> None:
    if position < after:
        raise RepairRefused(
            f"{_name(place)}: the table holds offset {after - 1}, so position {position} would "
            f"bring rows twice"
        )
    if place not in log.ends:
        raise RepairRefused(f"{_name(place)} does not exist")
    if position > log.ends.at(place):
        raise RepairRefused(
            f"{_name(place)} ends at {log.ends.at(place)}, below position {position}"
        )


def _refuse_short(old: Marker, log: LogState) -> None:
    """Refuses a log that ends below a position: its next records will have taken offsets."""
    topics = {one.topic for one in log.topics}
    for place, position in old.positions.items():
        if place[0] in topics and log.ends.at(place) < position:
            raise RepairRefused(
                f"{_name(place)} ends at {log.ends.at(place)}, below position {position}: offsets "
                f"that the table holds will be given to other records; restore the topic, roll the "
                f"table back to a snapshot below its end, or feed it into a new table"
            )


def _owned_anew(marker: Marker, epoch: int) -> Marker:
    """The marker of a new owner that will never write again: every other one is fenced.

    At which leader epochs the log was read says nothing of repaired positions.
    """
    writer = f"repair-{secrets.token_hex(8)}"
    return replace(marker, epoch=epoch + 1, writer=writer, leaders=Offsets())


def _marker(head: Head) -> Marker:
    if head.marker is None:
        raise RepairRefused("the table records no Kafka positions: it is not one of K2 Flight's")
    return head.marker


def _copy(metadata: TableMetadata) -> Marker | None:
    """The property's copy of a marker, where it can be read."""
    try:
        return marker_of_property(metadata.properties.get(MARKER_PROPERTY, ""))[1]
    except MarkerLost:
        return None


def _readable(snapshot: Snapshot) -> Marker | None:
    try:
        return marker_of(snapshot)
    except MarkerLost:
        return None


def _name(place: TopicPartition) -> str:
    return f"{place[0]}[{place[1]}]"
