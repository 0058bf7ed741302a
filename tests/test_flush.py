"""Where a flush ends, and which heads the live table may follow: decisions of catalog/flush.py."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_live import IDENTITY, NAME, TOPIC, at

from catalog.errors import Fenced, LogEndsEarly, LogGap, MarkerLost, TopicRecreated
from catalog.flush import StartAgain, flush_target, has_moved
from catalog.heads import Head
from catalog.ingest import _refuse_short_log
from catalog.intents import Claim, Flush
from catalog.kafka_client import check_bounds
from catalog.offsets import Marker, Offsets, TopicIdentity, refuse_recreated

OWNER = Marker(at(5, 3), (IDENTITY,), 4, "me", 7)
KNOWN = Head("metadata-1.json", "uuid", 1, OWNER, 0)


def after(**changes: object) -> Head:
    """The known head, one commit later, its marker changed."""
    return replace(
        KNOWN, metadata_location="metadata-2.json", snapshot_id=2, marker=replace(OWNER, **changes)
    )  # type: ignore[arg-type]  # fields by name, for brevity


@pytest.mark.parametrize(
    ("high", "target"),
    [
        (at(7, 3), at(7, 3)),
        (at(7, 1), at(7, 3)),
        (at(5, 3), None),
        (at(2, 2), None),
        (Offsets(), None),
        (at(5, 3, 1), at(5, 3, 1)),
    ],
)
def test_a_flush_ends_where_the_tail_does_and_never_below_the_head(
    high: Offsets, target: Offsets | None
) -> None:
    """Rules 3 and 4: per partition the greater of both; nothing moved, nothing to commit."""
    assert flush_target(OWNER, high) == target


def test_our_own_later_head_is_followed() -> None:
    """Rule 13: a commit of ours, a compaction of anybody, the same head."""
    assert has_moved(OWNER, KNOWN, after(positions=at(9, 3)), NAME)
    assert has_moved(OWNER, KNOWN, after(), NAME)
    assert not has_moved(OWNER, KNOWN, KNOWN, NAME)


@pytest.mark.parametrize(
    "head",
    [
        replace(after(), table_uuid="another"),
        after(epoch=3, writer="before me"),
        after(positions=at(4, 9)),
    ],
    ids=["another table", "before the claim", "positions went back"],
)
def test_a_table_that_went_back_is_read_again_from_its_positions(head: Head) -> None:
    """Rule 4: the live table continues the head, or the log is read anew."""
    with pytest.raises(StartAgain):
        has_moved(OWNER, KNOWN, head, NAME)


@pytest.mark.parametrize("changes", [{"epoch": 5, "writer": "you"}, {"writer": "you"}])
def test_another_owners_head_is_not_followed(changes: dict[str, object]) -> None:
    """Rule 5: not by a later epoch, and not by the same one of another writer."""
    with pytest.raises(Fenced):
        has_moved(OWNER, KNOWN, after(**changes), NAME)


def test_a_head_without_positions_is_not_followed() -> None:
    """Rule 2: it fails closed."""
    with pytest.raises(MarkerLost):
        has_moved(OWNER, KNOWN, replace(after(), marker=None), NAME)


@pytest.mark.parametrize(
    ("position", "error"), [(3, LogGap), (4, None), (9, None), (10, LogEndsEarly)]
)
def test_reading_starts_inside_the_log_or_not_at_all(
    position: int, error: type[Exception] | None
) -> None:
    """Rules 12 and 19: the log is [4, 9); its end is a place to start."""
    if error is None:
        check_bounds(("t", 0), position, 4, 9)
        return
    with pytest.raises(error, match=str(position)):
        check_bounds(("t", 0), position, 4, 9)


def test_a_log_that_ends_below_what_was_published_stops_the_table() -> None:
    """Rule 12: in any partition."""
    _refuse_short_log(at(5, 3), at(5, 3))
    with pytest.raises(LogEndsEarly, match=r"\[1\]"):
        _refuse_short_log(at(5, 3), at(9, 2))


def test_a_topic_is_its_id() -> None:
    """Rule 9: the same name with another id, or of another cluster, is another topic."""
    refuse_recreated((IDENTITY,), (IDENTITY, TopicIdentity("more", "cluster", "id-2")))
    for other in (replace(IDENTITY, topic_id="id-2"), replace(IDENTITY, cluster_id="elsewhere")):
        with pytest.raises(TopicRecreated):
            refuse_recreated((IDENTITY,), (other,))


PLACES = st.dictionaries(
    st.tuples(st.just(TOPIC), st.integers(0, 2)), st.integers(0, 4), max_size=3
).map(Offsets)


@given(PLACES, PLACES, PLACES, PLACES)
def test_positions_along_any_history_never_go_back(
    base: Offsets, expected: Offsets, new: Offsets, starts: Offsets
) -> None:
    """Rules 4 and 5: a commit is refused, or what it records covers what was recorded."""
    recorded, wanted = replace(OWNER, positions=base), replace(OWNER, positions=expected)
    metadata: Any = None  # only commits with files look at it
    with suppress(Fenced):
        marker = Flush(None, wanted, wanted.moved_to(new)).marker_on(recorded, metadata)
        assert marker.positions.covers(base)
    claimed = Claim((IDENTITY,), "you", 7, starts).marker_on(recorded, metadata)
    assert claimed.positions.same_as(base)
    assert claimed.epoch > recorded.epoch
