import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import MarkerLost
from catalog.offsets import (
    Marker,
    Offsets,
    TopicIdentity,
    marker_from_summary,
    marker_to_summary,
)

A0, A1, B0 = ("a", 0), ("a", 1), ("b", 0)
PARTITIONS = st.tuples(st.text(min_size=1, max_size=8), st.integers(0, 2**31 - 1))
OFFSETS = st.dictionaries(PARTITIONS, st.integers(0, 2**63 - 1), max_size=6).map(Offsets)


def marker(positions: Offsets) -> Marker:
    topics = (TopicIdentity("a", "cluster", "id-a"), TopicIdentity("b", "cluster", ""))
    return Marker(positions, topics, epoch=3, writer="w", schema_id=9, gc=2)


def test_a_partition_that_is_not_in_the_map_stands_at_its_start() -> None:
    """Rule 1: positions that lack a partition equal that partition at its start."""
    offsets = Offsets({A0: 5})
    assert offsets.at(A1) == 0
    assert offsets.covers(Offsets({A1: 0}))
    assert not offsets.covers(Offsets({A1: 1}))
    assert offsets.same_as(Offsets({A0: 5, A1: 0}))
    assert offsets != Offsets({A0: 5, A1: 0})


def test_equal_maps_are_equal_and_hash_alike_whatever_order_they_were_made_in() -> None:
    one, other = Offsets({A0: 1, B0: 2}), Offsets({B0: 2, A0: 1})
    assert one == other
    assert hash(one) == hash(other)
    assert list(other) == [A0, B0]


def test_positions_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match=r"position -1 of a\[0\]"):
        Offsets({A0: -1})
    with pytest.raises(ValueError, match="negative"):
        Offsets({("a", -1): 0})


def test_a_map_does_not_follow_the_dictionary_it_was_made_of() -> None:
    source = {A0: 1}
    offsets = Offsets(source)
    source[A0] = 99
    assert offsets[A0] == 1
    with pytest.raises(TypeError):
        offsets._next[A0] = 2  # type: ignore[index]  # that it refuses is the claim


def test_with_positions_replaces_some_and_leaves_the_rest() -> None:
    old = Offsets({A0: 1, A1: 2})
    assert old.with_positions([(A1, 7), (B0, 3)]) == Offsets({A0: 1, A1: 7, B0: 3})
    assert old == Offsets({A0: 1, A1: 2})


@given(OFFSETS, OFFSETS)
def test_the_greater_of_two_covers_both_and_nothing_more(one: Offsets, other: Offsets) -> None:
    """Rule 4: new[p] = max(head[p], own[p])."""
    both = one.max(other)
    assert both == other.max(one)
    assert both.covers(one)
    assert both.covers(other)
    assert all(both.at(tp) in (one.at(tp), other.at(tp)) for tp in both)


@given(OFFSETS, OFFSETS)
def test_one_map_covers_another_if_no_partition_is_behind(one: Offsets, other: Offsets) -> None:
    assert one.covers(other) == (not one.behind(other))
    assert all(one.at(tp) < other.at(tp) for tp in one.behind(other))
    assert one.same_as(other) == (one.covers(other) and other.covers(one))


@given(OFFSETS)
def test_positions_survive_json(offsets: Offsets) -> None:
    assert Offsets.from_json(json.loads(json.dumps(offsets.to_json()))) == offsets


@given(OFFSETS)
def test_a_marker_survives_a_snapshot_summary(offsets: Offsets) -> None:
    """Rule 2: positions, identities, epoch, schema id and gc number stand in the summary."""
    summary = marker_to_summary(marker(offsets))
    assert all(isinstance(value, str) for value in summary.values())
    assert marker_from_summary({**summary, "operation": "append"}) == marker(offsets)


def test_a_summary_without_a_marker_has_none() -> None:
    assert marker_from_summary({"operation": "append"}) is None


@pytest.mark.parametrize("key", ["topics", "epoch", "writer", "schema-id", "gc"])
def test_an_incomplete_marker_fails_closed(key: str) -> None:
    """Rule 2: positions without their owner are never taken for anybody's."""
    summary = marker_to_summary(marker(Offsets({A0: 1})))
    del summary[f"k2.{key}"]
    with pytest.raises(MarkerLost, match="k2 repair TABLE"):
        marker_from_summary(summary)


@pytest.mark.parametrize("key", ["positions", "topics", "epoch", "schema-id", "gc"])
@pytest.mark.parametrize("damage", ["{", "x", '[["a"]]', '{"a":{"0":-1}}'])
def test_a_damaged_marker_fails_closed(key: str, damage: str) -> None:
    """Rule 2: positions that cannot be read are never taken for no positions."""
    summary = marker_to_summary(marker(Offsets({A0: 1}))) | {f"k2.{key}": damage}
    with pytest.raises(MarkerLost, match="k2 repair TABLE"):
        marker_from_summary(summary)


def test_a_marker_moves_without_changing_its_owner() -> None:
    old = marker(Offsets({A0: 1}))
    new = old.moved_to(Offsets({A0: 9}))
    assert new.positions == Offsets({A0: 9})
    assert (new.epoch, new.writer, new.gc) == (old.epoch, old.writer, old.gc)
