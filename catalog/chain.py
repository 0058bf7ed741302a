"""What a table's snapshots say about one another: positions, epochs and sums only ever grow.

Pure functions of a metadata file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from catalog.errors import MarkerLost
from catalog.heads import ancestry, is_truncated, marker_of, marker_of_property
from catalog.offsets import MARKER_PROPERTY, REPAIR_KEY, Marker, Offsets

#: ``noted``: worth knowing, nothing is wrong. ``unproved``: could not be checked.
State = Literal["proved", "noted", "unproved", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: ``snapshots``, ``files``, ``copy``, ``log`` or ``topic[partition]``.
        detail: what was found, in one sentence.
    """

    what: str
    state: State
    detail: str

    def to_json(self) -> dict[str, str]:
        """``{"what", "state", "detail"}``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Link:
    """A snapshot with a marker of its own."""

    snapshot: Snapshot
    marker: Marker


def check_chain(metadata: TableMetadata) -> list[Finding]:
    """What the ancestry of the head proves, oldest snapshot first."""
    try:
        chain = [
            _Link(snapshot, marker)
            for snapshot in ancestry(metadata, metadata.current_snapshot())
            if (marker := marker_of(snapshot)) is not None
        ][::-1]
        copied = _check_copy(metadata, chain)
    except MarkerLost as error:
        return [Finding("snapshots", "broken", str(error))]
    wrong = [
        Finding("snapshots", "broken", f"snapshot {later.snapshot.snapshot_id}: {reason}")
        for earlier, later in pairwise(chain)
        for reason in _regressions(earlier, later)
    ]
    repairs = [
        Finding("snapshots", "noted", f"repaired in snapshot {one.snapshot.snapshot_id}: {said}")
        for one in chain
        if (said := _summary(one.snapshot).get(REPAIR_KEY)) is not None
    ]
    detail = f"{len(chain)} snapshots record positions; positions, epochs and sums only grow"
    return [*(wrong or [Finding("snapshots", "proved", detail)]), copied, *repairs]


def first_positions(metadata: TableMetadata) -> Offsets | None:
    """Where the first writer began; None: the snapshot that says it is expired."""
    if is_truncated(metadata):
        return None
    marked = [marker_of(one) for one in ancestry(metadata, metadata.current_snapshot())]
    return next((marker.positions for marker in reversed(marked) if marker is not None), None)


def _regressions(earlier: _Link, later: _Link) -> Iterator[str]:
    """What must not happen from one snapshot to the next."""
    old, new = earlier.marker, later.marker
    for place in new.positions.behind(old.positions):
        yield (
            f"{place[0]}[{place[1]}] goes back from {old.positions.at(place)} "
            f"to {new.positions.at(place)}"
        )
    if new.epoch < old.epoch:
        yield f"the epoch goes back from {old.epoch} to {new.epoch}"
    if new.epoch == old.epoch and new.writer != old.writer:
        yield f"two writers share epoch {new.epoch}"
    known = {one.topic: one for one in old.topics}
    if REPAIR_KEY in _summary(later.snapshot):
        return  # it may take another topic for the same, and count rows that others brought
    for topic in new.topics:
        if known.get(topic.topic, topic) != topic:
            yield f"topic {topic.topic} becomes another topic of that name"
    yield from _wrong_sums(earlier, later)


def _wrong_sums(earlier: _Link, later: _Link) -> Iterator[str]:
    """Rows that came (or, by a replay, left), by the tallies and by Iceberg's own count."""
    old, new = earlier.marker.tallies, later.marker.tallies
    if not old or not old.keys() <= new.keys():
        return
    grown = sum(tally.rows - (old[p].rows if p in old else 0) for p, tally in new.items())
    summary = _summary(later.snapshot)
    net = int(summary.get("added-records", "0")) - int(summary.get("deleted-records", "0"))
    if grown != net:
        yield f"its sums grow by {grown} rows, but it added {net}"


def _check_copy(metadata: TableMetadata, chain: Sequence[_Link]) -> Finding:
    """Whether the table's property says what its newest marked snapshot says (rule 2)."""
    text = metadata.properties.get(MARKER_PROPERTY)
    if text is None:
        state: State = "broken" if chain else "noted"
        return Finding("copy", state, f"the table has no property {MARKER_PROPERTY}")
    snapshot_id, marker = marker_of_property(text)
    if not chain:
        detail = f"of snapshot {snapshot_id}, which is expired, is all that records positions"
        return Finding("copy", "noted", f"the copy {detail}")
    newest = chain[-1]
    if snapshot_id != newest.snapshot.snapshot_id:
        detail = f"of snapshot {snapshot_id}, which is not in the history: the table went back"
        return Finding("copy", "noted", f"the copy is {detail}; the next commit renews it")
    if marker != newest.marker:
        return Finding("copy", "broken", f"the copy of snapshot {snapshot_id} says something else")
    return Finding("copy", "proved", f"the table's property agrees with snapshot {snapshot_id}")


def _summary(snapshot: Snapshot) -> dict[str, str]:
    return {} if snapshot.summary is None else snapshot.summary.additional_properties
