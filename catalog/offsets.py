"""Kafka positions and the marker that stands in every Iceberg snapshot of ours.

A *position* is the next offset to read: half-open ranges ``[first, next)`` throughout (rule 1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from catalog.errors import MarkerLost, TopicRecreated, shorten
from catalog.tallies import Tallies

#: A partition of a topic: (topic, partition).
TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Offsets(Mapping[TopicPartition, int]):
    """A frozen map (topic, partition) → next offset.

    A partition that is not in the map stands at its start, offset 0 (rule 1): Kafka numbers a new
    partition from 0, and the first marker of a table records where an older one really began.
    """

    _next: Mapping[TopicPartition, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ordered = {tp: int(self._next[tp]) for tp in sorted(self._next)}
        for (topic, partition), position in ordered.items():
            if position < 0 or partition < 0:
                raise ValueError(f"position {position} of {topic}[{partition}] is negative")
        object.__setattr__(self, "_next", MappingProxyType(ordered))

    def __getitem__(self, tp: TopicPartition) -> int:
        return self._next[tp]

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._next)

    def __len__(self) -> int:
        return len(self._next)

    def __hash__(self) -> int:
        return hash(tuple(self._next.items()))

    def at(self, tp: TopicPartition) -> int:
        """The position of ``tp``; 0 where the map lacks it."""
        return self._next.get(tp, 0)

    def max(self, other: Offsets) -> Offsets:
        """Per partition the greater position."""
        return Offsets({tp: max(self.at(tp), other.at(tp)) for tp in {*self, *other}})

    def with_positions(self, changes: Iterable[tuple[TopicPartition, int]]) -> Offsets:
        """This map with some positions replaced."""
        return Offsets({**self._next, **dict(changes)})

    def covers(self, other: Offsets) -> bool:
        """Whether every partition stands at or after its position in ``other``."""
        return all(self.at(tp) >= position for tp, position in other.items())

    def same_as(self, other: Offsets) -> bool:
        """Equality with missing partitions at 0."""
        return self.covers(other) and other.covers(self)

    def behind(self, other: Offsets) -> tuple[TopicPartition, ...]:
        """The partitions that stand below their position in ``other``."""
        return tuple(tp for tp, position in other.items() if self.at(tp) < position)

    def difference(self, expected: Offsets) -> str:
        """The first partition that stands elsewhere than expected, in words."""
        for tp in sorted({*self, *expected}):
            if self.at(tp) != expected.at(tp):
                return f"{tp[0]}[{tp[1]}] is at {self.at(tp)}, not {expected.at(tp)}"
        return "none"

    def to_json(self) -> dict[str, dict[str, int]]:
        """``{"topic": {"0": next}}``, the form kept in summaries, manifests and tickets."""
        nested: dict[str, dict[str, int]] = {}
        for (topic, partition), position in self._next.items():
            nested.setdefault(topic, {})[str(partition)] = position
        return nested

    @classmethod
    def from_json(cls, nested: Mapping[str, Mapping[str, int]]) -> Offsets:
        """The inverse of :meth:`to_json`."""
        return cls(
            {(topic, int(p)): int(n) for topic, parts in nested.items() for p, n in parts.items()}
        )


def distance(first: Offsets, last: Offsets) -> int:
    """Positions from ``first`` up to ``last``, over the partitions of ``last``."""
    return sum(max(0, position - first.at(tp)) for tp, position in last.items())


@dataclass(frozen=True, slots=True, order=True)
class TopicIdentity:
    """What makes a topic the same topic: its id, not its name (rule 9).

    Attributes:
        topic: the name.
        cluster_id: the Kafka cluster's id.
        topic_id: the topic's id (KIP-516); "" where the broker has none (the mock cluster).
    """

    topic: str
    cluster_id: str
    topic_id: str


@dataclass(frozen=True, slots=True)
class Marker:
    """What a snapshot records beside its rows (rule 2).

    Attributes:
        positions: next offsets; the snapshot holds exactly the rows below them.
        topics: identities of the topics, sorted by name.
        epoch: the writer's epoch; a writer with an older one is refused (rule 5).
        writer: a random id of the writer that owns the epoch.
        schema_id: registry id of the schema that the rows were declared by.
        gc: the gc number, moved by orphan removal (rule 8).
        tallies: how many rows the table holds of each partition, and a checksum of their offsets.
            Partitions of a table that was written before tallies were kept may lack one.
        replays: how many replays of dead letters brought rows below the positions.
        owner: who the writer is, in words for people: host, process, start; nothing rests on it.
        leaders: per partition the leader epoch at which the log was read up to its position
            (catalog/cutoffs.py); none where the broker did not say.
    """

    positions: Offsets
    topics: tuple[TopicIdentity, ...]
    epoch: int
    writer: str
    schema_id: int
    gc: int = 0
    tallies: Tallies = field(default_factory=Tallies)
    replays: int = 0
    owner: str = ""
    leaders: Offsets = field(default_factory=Offsets)

    def same_place(self, other: Marker) -> bool:
        """Whether both have one owner and stand at the same positions."""
        owner = (self.epoch, self.writer) == (other.epoch, other.writer)
        return owner and self.positions.same_as(other.positions)

    def moved_to(self, positions: Offsets, leaders: Offsets | None = None) -> Marker:
        """The same owner's marker at other positions, which were read at these leader epochs."""
        return replace(self, positions=positions, leaders=leaders or Offsets())

    def leaders_at(self, high: Offsets, leaders: Offsets) -> Offsets:
        """The leader epochs at the greater of these positions and ``high``.

        Args:
            high: what was read up to by one who has followed this marker.
            leaders: at which leader epochs that was.
        """
        chosen = {
            tp: leaders if high.at(tp) > self.positions.at(tp) else self.leaders
            for tp in {*self.leaders, *leaders}
        }
        return Offsets({tp: known[tp] for tp, known in chosen.items() if tp in known})

    def written_by(self, writer: str) -> Marker:
        """The same marker under another writer's id."""
        return replace(self, writer=writer)


#: The owner of a table that nobody ever claimed.
NOBODY = Marker(Offsets(), (), 0, "", 0)
#: What parsing JSON of any shape may raise: wrong types and names, numbers beyond every bound,
#: brackets without end.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
_PREFIX = "k2."
#: The summary key whose presence says "this snapshot carries a marker".
POSITIONS_KEY = _PREFIX + "positions"
#: Table property that holds a copy of the newest marker with its snapshot's id (rule 2).
MARKER_PROPERTY = _PREFIX + "marker"
#: The summary key of the tallies; absent in snapshots from before they were kept.
TALLIES_KEY = _PREFIX + "rows"
#: The summary key that says what `k2 repair` did in a snapshot, as JSON.
REPAIR_KEY = _PREFIX + "repair"


def marker_to_summary(marker: Marker) -> dict[str, str]:
    """The marker as snapshot summary entries."""
    topics = [[t.topic, t.cluster_id, t.topic_id] for t in marker.topics]
    return {
        POSITIONS_KEY: _dumps(marker.positions.to_json()),
        _PREFIX + "topics": _dumps(topics),
        _PREFIX + "epoch": str(marker.epoch),
        _PREFIX + "writer": marker.writer,
        _PREFIX + "schema-id": str(marker.schema_id),
        _PREFIX + "gc": str(marker.gc),
        TALLIES_KEY: _dumps(marker.tallies.to_json()),
        _PREFIX + "replays": str(marker.replays),
        _PREFIX + "owner": shorten(marker.owner),
        _PREFIX + "leaders": _dumps(marker.leaders.to_json()),
    }


def marker_from_summary(summary: Mapping[str, str]) -> Marker | None:
    """The marker in a snapshot's summary, None where there is none.

    Raises:
        MarkerLost: a marker is there but cannot be read.
    """
    if POSITIONS_KEY not in summary:
        return None
    try:
        return Marker(
            positions=Offsets.from_json(json.loads(summary[POSITIONS_KEY])),
            topics=tuple(TopicIdentity(*t) for t in json.loads(summary[_PREFIX + "topics"])),
            epoch=int(summary[_PREFIX + "epoch"]),
            writer=summary[_PREFIX + "writer"],
            schema_id=int(summary[_PREFIX + "schema-id"]),
            gc=int(summary[_PREFIX + "gc"]),
            tallies=Tallies.from_json(json.loads(summary.get(TALLIES_KEY, "{}"))),
            replays=int(summary.get(_PREFIX + "replays", "0")),
            owner=shorten(summary.get(_PREFIX + "owner", "")),
            leaders=Offsets.from_json(json.loads(summary.get(_PREFIX + "leaders", "{}"))),
        )
    except MALFORMED as error:
        raise MarkerLost(
            f"the Kafka positions in a snapshot's summary cannot be read "
            f"({shorten(summary[POSITIONS_KEY])}): `k2 repair TABLE` shows how to go on"
        ) from error


def refuse_recreated(
    recorded: tuple[TopicIdentity, ...], actual: tuple[TopicIdentity, ...]
) -> None:
    """Refuses a topic that lives under its old name with another identity (rule 9).

    Topics that only one side knows are fine: a table may gain topics, and lose them.

    Raises:
        TopicRecreated: names the topic.
    """
    now = {identity.topic: identity for identity in actual}
    for then in recorded:
        if now.get(then.topic, then) != then:
            raise TopicRecreated(
                f"topic {then.topic!r} is not the topic whose records the table holds: it was "
                f"deleted and created again, or belongs to another cluster; its offsets mean "
                f"other records now, so feed it into a new table; if they mean the same ones (a "
                f"moved or restored cluster), `k2 repair TABLE --same-topic`"
            )


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
