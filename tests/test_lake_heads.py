"""Rule 2 of docs/architecture.md as a pure function: which marker holds at a snapshot."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2
from pyiceberg.table.refs import SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.sorting import SortOrder

from catalog.errors import MarkerLost, VersionGone
from catalog.heads import (
    ancestry,
    in_history,
    is_truncated,
    marker_property,
    only_fed,
    recorded_marker,
)
from catalog.offsets import MARKER_PROPERTY, REPAIR_KEY, Marker, Offsets, marker_to_summary


def marker(number: int) -> Marker:
    return Marker(Offsets({("t", 0): number}), (), 1, "w", 7)


@dataclass(frozen=True)
class History:
    """A chain of snapshots 1, 2, …; which of them carry markers, which are expired or rewrites."""

    marked: tuple[bool, ...]
    expired: frozenset[int] = frozenset()
    wiped: bool = False
    rewrites: frozenset[int] = frozenset()

    @property
    def truth(self) -> Marker | None:
        """The newest marker of the whole chain."""
        return self.truth_at(len(self.marked))

    def truth_at(self, snapshot_id: int) -> Marker | None:
        """The newest marker at or below a snapshot of the whole chain."""
        numbers = [n for n in range(1, snapshot_id + 1) if self.marked[n - 1]]
        return marker(numbers[-1]) if numbers else None

    def metadata(self) -> TableMetadata:
        """What is left of the chain, as a metadata file says it."""
        last = len(self.marked)
        newest = max((n for n in range(1, last + 1) if self.marked[n - 1]), default=None)
        copy = {MARKER_PROPERTY: marker_property(newest, marker(newest))} if newest else {}
        refs = (
            {"main": SnapshotRef(snapshot_id=last, snapshot_ref_type=SnapshotRefType.BRANCH)}
            if last
            else {}
        )
        return TableMetadataV2(
            location="file:///t",
            table_uuid=uuid.UUID(int=1),
            last_sequence_number=last,
            last_updated_ms=last,
            last_column_id=0,
            schemas=[Schema()],
            current_schema_id=0,
            partition_specs=[PartitionSpec()],
            default_spec_id=0,
            last_partition_id=999,
            properties=copy,
            current_snapshot_id=last or None,
            snapshots=[self._snapshot(n) for n in range(1, last + 1) if n not in self.expired],
            sort_orders=[SortOrder(order_id=0)],
            default_sort_order_id=0,
            refs=refs,
        )

    def _snapshot(self, number: int) -> Snapshot:
        parent = number - 1 or None
        extra = marker_to_summary(marker(number)) if self.marked[number - 1] else {}
        return Snapshot(
            snapshot_id=number,
            parent_snapshot_id=None if self.wiped and parent in self.expired else parent,
            sequence_number=number,
            timestamp_ms=number,
            manifest_list="file:///t/m",
            summary=Summary(
                Operation.REPLACE if number in self.rewrites else Operation.APPEND, **extra
            ),
            schema_id=0,
        )


@st.composite
def histories(draw: st.DrawFn) -> History:
    marked = tuple(draw(st.lists(st.booleans(), max_size=8)))
    older = list(range(1, len(marked)))
    expired = draw(st.sets(st.sampled_from(older))) if older else set()
    rewrites = frozenset(n for n, own in enumerate(marked, 1) if not own and draw(st.booleans()))
    return History(marked, frozenset(expired), draw(st.booleans()), rewrites)


@settings(max_examples=400, deadline=None)
@given(histories())
def test_a_marker_that_is_told_is_the_newest_of_the_whole_history(history: History) -> None:
    """Rule 2: whatever was expired and however, an answer is the truth or a refusal."""
    try:
        told = recorded_marker(history.metadata())
    except MarkerLost:
        assert history.expired, "a whole history is never refused"
        return
    assert told == history.truth


def test_a_long_history_is_walked_in_steps_that_do_not_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 snapshots took eight seconds: each step looked at all of them."""
    metadata = History((False,) * 50).metadata()
    asked: list[int] = []
    monkeypatch.setattr(TableMetadataV2, "snapshot_by_id", lambda _, number: asked.append(number))
    walked = [snapshot.snapshot_id for snapshot in ancestry(metadata, metadata.snapshots[-1])]
    assert walked == list(range(50, 0, -1))
    assert asked == []


def test_a_history_that_bites_its_tail_ends() -> None:
    metadata = History((False,) * 3).metadata()
    metadata.snapshots[0] = metadata.snapshots[0].model_copy(update={"parent_snapshot_id": 3})
    walked = [snapshot.snapshot_id for snapshot in ancestry(metadata, metadata.snapshots[-1])]
    assert walked == [3, 2, 1]


@settings(max_examples=400, deadline=None)
@given(histories(), st.integers(1, 8))
def test_an_older_snapshot_has_the_marker_of_its_own_ancestry(
    history: History, snapshot_id: int
) -> None:
    """Rule 2 holds for time travel; a snapshot that is gone is said to be gone."""
    metadata = history.metadata()
    if metadata.snapshot_by_id(snapshot_id) is None:
        with pytest.raises(VersionGone):
            recorded_marker(metadata, snapshot_id)
        return
    try:
        told = recorded_marker(metadata, snapshot_id)
    except MarkerLost:
        assert history.expired
        return
    assert told == history.truth_at(snapshot_id)


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_cut_history_is_seen_even_when_parents_are_wiped_out(history: History) -> None:
    cut = any(n in history.expired for n in range(1, len(history.marked)))
    assert is_truncated(history.metadata()) == cut


@settings(max_examples=400, deadline=None)
@given(histories(), st.integers(0, 8), st.integers(1, 8))
def test_versions_differ_by_the_log_alone_only_where_every_step_between_is_known(
    history: History, since: int, until: int
) -> None:
    """Rule 17: our commits and rewrites; others' appends and what is expired prove nothing."""
    metadata = history.metadata()
    steps = range(since + 1, until + 1)
    proved = (
        since <= until <= len(history.marked)
        and not history.expired & {since, *steps}
        and all(history.marked[n - 1] or n in history.rewrites for n in steps)
    )
    assert only_fed(metadata, since or None, until) == proved


def test_a_repair_is_no_step_of_the_log() -> None:
    """It may put rows in, or take the positions elsewhere."""
    metadata = History((True, True)).metadata()
    assert only_fed(metadata, 1, 2)
    repaired = metadata.snapshots[1].summary
    assert repaired is not None
    repaired.additional_properties[REPAIR_KEY] = "start over"
    assert not only_fed(metadata, 1, 2)


def test_the_copy_serves_only_the_missing_parent() -> None:
    """Rule 2: 1 carries the marker; with 2 unknown as well nothing is proved."""
    assert recorded_marker(History((True, False), frozenset({1})).metadata()) == marker(1)
    with pytest.raises(MarkerLost):
        recorded_marker(History((True, False, False), frozenset({1, 2})).metadata())
    with pytest.raises(MarkerLost):
        recorded_marker(History((True, False), frozenset({1}), wiped=True).metadata())


def test_a_copy_without_its_snapshot_in_a_whole_history_is_refused() -> None:
    """Rule 2: a roll back behind the first marker."""
    metadata = History((False, True)).metadata()
    back = metadata.model_copy(
        update={
            "current_snapshot_id": 1,
            "refs": {"main": SnapshotRef(snapshot_id=1, snapshot_ref_type=SnapshotRefType.BRANCH)},
        }
    )
    with pytest.raises(MarkerLost):
        recorded_marker(back)
    assert not in_history(back, 2)
    assert in_history(back, 1)


@pytest.mark.parametrize("copy", ["", "{}", '{"snapshot-id": 1, "summary": {}}', "[1]"])
def test_a_damaged_copy_is_refused(copy: str) -> None:
    metadata = History((True, False), frozenset({1})).metadata()
    damaged = metadata.model_copy(update={"properties": {MARKER_PROPERTY: copy}})
    with pytest.raises(MarkerLost, match=r"k2\.marker"):
        recorded_marker(damaged)


def test_an_ordinary_table_has_no_marker() -> None:
    assert recorded_marker(History(()).metadata()) is None
    assert recorded_marker(History((False, False)).metadata()) is None
    assert recorded_marker(History((False, False), frozenset({1})).metadata()) is None
