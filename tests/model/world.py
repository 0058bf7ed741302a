"""The state of the whole system, and the promises that must hold in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from catalog.errors import MarkerLost
from model.live import Pub, readable
from model.values import (
    Lake,
    Man,
    Mk,
    Positions,
    Row,
    Seg,
    Snap,
    Snapped,
    found_marker,
    plain_marker,
)

#: Faults and maintenance; each may happen as often as the scenario's budget says.
FAULTS = (
    "crash", "pause", "lose", "compact", "foreign", "ccrash", "expire", "gc", "recreate", "delete",
    "add", "move", "mend",
)  # fmt: skip


class Flushing(NamedTuple):
    """A flush under way.

    Attributes:
        stage: "letters" (dead letters first), "try" (an attempt may be made), "sent", "unknown",
            "landed".
        expected: the marker that the head must record; in stage "landed" the one that it does.
        target: the positions to record.
        file: the data file, None: no rows.
        gc: the gc number that it was written under.
        id: the snapshot id of the attempts; of the landed one in stage "landed".
        letters: records that could not be decoded, to be kept as dead letters.
    """

    stage: str
    expected: Mk
    target: Positions
    file: int | None
    gc: int
    id: int | None
    letters: tuple[Row, ...] = ()


class Ingest(NamedTuple):
    """A process that feeds the table.

    Attributes:
        state: "down", "up", "paused" (SIGSTOP), "again" (up, about to read anew), "ended" (by a
            typed error).
        reading: whether it reads on; a log that lost records ends that alone.
        writer: its random id, 0: none yet.
        owner: the marker of its claim; None: it follows whoever owns the table.
        known: how many partitions it reads.
    """

    state: str
    reading: bool = True
    writer: int = 0
    owner: Mk | None = None
    pub: Pub | None = None
    flush: Flushing | None = None
    known: int = 0


class Post(NamedTuple):
    """A commit request on its way: it lands, is refused, or vanishes.

    Attributes:
        sender: the ingest that waits for the answer; "compactor"; None: nobody waits any more.
    """

    sender: int | str | None
    id: int
    base: int
    marker: Mk | None
    add: tuple[int, ...]
    drop: tuple[int, ...]


class Folder(NamedTuple):
    """A machine's live folder."""

    man: Man | None
    disk: frozenset[Seg]


class Reader(NamedTuple):
    """A session that reads statements and keeps one ticket, at any server.

    Attributes:
        phase: "idle", "pinned", "ticket" (about to redeem it).
        last: the greatest E that it saw.
        second: what a second reference to the table is answered from.
    """

    phase: str
    last: Positions
    at: int = 0
    pin: Man | None = None
    second: Man | None = None
    ticket: Man | None = None
    redeemed: int = 0


class Compaction(NamedTuple):
    """A rewrite of data files under way; stage "new", "sent" or "refused"."""

    stage: str
    id: int
    base: int
    inputs: tuple[int, ...]
    file: int
    marker: Mk
    foreign: bool


class State(NamedTuple):
    """Everything.

    Attributes:
        starts: where the log of each partition begins.
        partitions: how many there are.
        topic: the topic's generation.
        letters: the table of dead letters.
        letters_of: the writer that owns it; it is claimed with the table.
        mended: whether records that could not be decoded now can be.
        orphans: files that an orphan removal has listed; (phase, files).
    """

    lake: Lake
    posts: tuple[Post, ...]
    ingests: tuple[Ingest, ...]
    folders: tuple[Folder, ...]
    starts: Positions
    partitions: int
    topic: int
    letters: tuple[Row, ...]
    letters_of: int
    mended: bool
    reader: Reader | None
    compaction: Compaction | None
    orphans: tuple[str, tuple[int, ...]] | None
    budget: tuple[int, ...]


@dataclass(frozen=True)
class Scenario:
    """What happens, how often, and what holds.

    Attributes:
        log: per generation of the topic, per partition, one letter an offset: r a record, x one
            that cannot be decoded, . an offset without a record.
        ingests: how many processes want to feed the table.
        one_folder: whether they share a live folder (and so a supervisor), or are two machines.
        follows: whether all but the first hold the tail without owning the table, and take over
            when no owner is up; an owner that is fenced follows, too.
        partitions: how many exist in the beginning; None: all.
        reads: whether somebody reads.
        tickets: whether they redeem a ticket, too.
        merges: whether neighbouring segments are merged.
        partial: whether a flush may also take the oldest rows alone.
        lasting: whether the goal must stay within reach.
        budget: how often each fault happens.
        off: rules that are taken away.
    """

    log: tuple[tuple[str, ...], ...]
    ingests: int = 1
    one_folder: bool = False
    follows: bool = False
    partitions: int | None = None
    reads: bool = False
    tickets: bool = True
    merges: bool = False
    partial: bool = False
    lasting: bool = True
    budget: dict[str, int] = field(default_factory=dict)
    off: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """Partitions, those that come later included."""
        return len(self.log[0])

    def on(self, rule: str) -> bool:
        """Whether a rule is kept."""
        return rule not in self.off

    def folder_of(self, ingest: int) -> int:
        """The machine of an ingest."""
        return 0 if self.one_folder else ingest

    def rows(self, topic: int, first: Positions, next_: Positions) -> tuple[Row, ...]:
        """The records in a range that can be decoded."""
        return self._found(topic, first, next_, "r")

    def poison(self, topic: int, first: Positions, next_: Positions) -> tuple[Row, ...]:
        """The records in a range that cannot, at first."""
        return self._found(topic, first, next_, "x")

    def ends(self, state: State) -> Positions:
        """Where the log ends."""
        log = self.log[state.topic]
        return tuple(len(log[p]) if p < state.partitions else 0 for p in range(self.count))

    def _found(self, topic: int, first: Positions, next_: Positions, kind: str) -> tuple[Row, ...]:
        return tuple(
            (topic, p, offset)
            for p, offsets in enumerate(self.log[topic])
            for offset in range(first[p], min(next_[p], len(offsets)))
            if offsets[offset] == kind
        )

    def initial(self) -> State:
        """An empty table, nothing running."""
        zero = (0,) * self.count
        mark = Mk(zero, 0, 0, 0, 0)
        lake = Lake((Snap(1, None, mark, ()),), 1, (1, mark), ())
        folders = (Folder(None, frozenset()),) * (1 if self.one_folder else self.ingests)
        return State(
            lake=lake,
            posts=(),
            ingests=(Ingest("down"),) * self.ingests,
            folders=folders,
            starts=zero,
            partitions=self.count if self.partitions is None else self.partitions,
            topic=0,
            letters=(),
            letters_of=0,
            mended=False,
            reader=Reader("idle", zero) if self.reads else None,
            compaction=None,
            orphans=None,
            budget=tuple(self.budget.get(fault, 0) for fault in FAULTS),
        )


def left(state: State, fault: str) -> bool:
    """Whether a fault may still happen."""
    return state.budget[FAULTS.index(fault)] > 0


def spend(state: State, fault: str) -> State:
    """It happened."""
    at = FAULTS.index(fault)
    budget = (*state.budget[:at], state.budget[at] - 1, *state.budget[at + 1 :])
    return state._replace(budget=budget)


def with_ingest(state: State, at: int, ingest: Ingest) -> State:
    """Another state of one ingest."""
    return state._replace(ingests=(*state.ingests[:at], ingest, *state.ingests[at + 1 :]))


def with_folder(state: State, at: int, folder: Folder) -> State:
    """Another content of one live folder."""
    return state._replace(folders=(*state.folders[:at], folder, *state.folders[at + 1 :]))


def marker_now(state: State, count: int, snapshot: int | None = None) -> Mk | None:
    """The marker that holds at the head, or at a snapshot; None: it cannot be proved."""
    try:
        found = found_marker(state.lake._replace(files=()), snapshot)
    except MarkerLost:
        return None
    return None if found is None else plain_marker(found, count)


def new_id(state: State) -> int:
    """A snapshot id that nobody has used."""
    used = {one.id for one in state.lake.snaps} | {state.lake.copy[0], state.lake.head}
    used |= {one.parent or 0 for one in state.lake.snaps}
    used |= {post.id for post in state.posts}
    used |= {one.flush.id or 0 for one in state.ingests if one.flush}
    used |= {state.compaction.id} if state.compaction else set()
    return max(used) + 1


def new_file(state: State) -> int:
    """A data file's number that nobody has used."""
    used = {number for number, _ in state.lake.files} | state.lake.referenced() | {0}
    used |= {file for post in state.posts for file in post.add}
    used |= {one.flush.file or 0 for one in state.ingests if one.flush}
    used |= {state.compaction.file} if state.compaction else set()
    return max(used) + 1


def stored(state: State, file: int, rows: tuple[Row, ...]) -> State:
    """A data file is written."""
    return state._replace(lake=state.lake._replace(files=(*state.lake.files, (file, rows))))


def head_of(state: State, count: int) -> Snapped | None:
    """The head as a load of the table shows it; None: its positions cannot be proved."""
    mark = marker_now(state, count)
    return None if mark is None else Snapped(state.lake.head, mark)


def broken(scenario: Scenario, state: State) -> str | None:
    """Which promise about the table does not hold."""
    lake, files = state.lake, dict(state.lake.files)
    for snap in lake.snaps:
        if any(file not in files for file in snap.files):
            return f"snapshot S{snap.id} names a data file that was deleted"
    for post in state.posts:
        if post.base == lake.head and any(file not in files for file in post.add):
            return "a commit that may still land names a data file that was deleted"
    mark = marker_now(state, scenario.count)
    if mark is None:
        return None  # every process refuses such a table
    below = None if lake.top.parent is None else lake.snap(lake.top.parent)
    if below is not None and below.marker is not None and mark.epoch < below.marker.epoch:
        return f"a zombie of epoch {mark.epoch} commits above epoch {below.marker.epoch}"
    zero = (0,) * scenario.count
    held = sorted(row for file in lake.top.files for row in files[file])
    bad = set(scenario.poison(mark.topic, zero, mark.at))
    if [row for row in held if row not in bad] != sorted(scenario.rows(mark.topic, zero, mark.at)):
        kind = "twice" if len(held) > len(set(held)) else "missing or not recorded"
        return f"the table holds {held} at positions {mark.at}: rows {kind}"
    return _misplaced(state, bad, held)


def _misplaced(state: State, bad: set[Row], held: list[Row]) -> str | None:
    """Whether a record that could not be decoded is in neither table, in both, or twice."""
    for row in bad:
        if (places := held.count(row) + state.letters.count(row)) != 1:
            return f"record {row} is in {places} places: table {held}, dead letters {state.letters}"
    return None


def visible(scenario: Scenario, state: State, at: int) -> bool:
    """Whether everything in the log can be read at a server."""
    man = state.folders[at].man
    if man is None or man.high != scenario.ends(state):
        return False
    rows = dict(readable(state.lake, man.snap)).get(man.snap)
    return rows is not None and set(man.segs) <= state.folders[at].disk


def reached(scenario: Scenario, state: State) -> bool:
    """The goal: all rows are committed and visible, or a typed stop is all that is left."""
    mark = marker_now(state, scenario.count)
    if state.topic:
        return True  # another topic: a person decides
    if mark is None:
        return False
    if any(start > n for start, n in zip(state.starts, mark.at, strict=True)):
        return not any(one.reading and one.state == "up" for one in state.ingests)
    up = [at for at, one in enumerate(state.ingests) if one.state == "up"]
    if "move" in scenario.budget and not up:
        return True  # somebody moved main: a typed end is an answer, too
    if mark.at != scenario.ends(state) or not up:
        return False
    return not scenario.reads or all(visible(scenario, state, scenario.folder_of(at)) for at in up)
