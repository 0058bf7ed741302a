"""`k2 repair`: each choice does what it says, is recorded, refuses what would lose or double."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support_lake import (
    IDENTITY,
    SCHEMA,
    TOPIC,
    Place,
    Writer,
    expire_all_but_head,
    foreign_rows,
    sqlite_properties,
)

from catalog.diagnosis import Choice, diagnose, plan
from catalog.errors import Fenced, RepairRefused, TopicRecreated
from catalog.offsets import MARKER_PROPERTY, REPAIR_KEY, Marker, Offsets, TopicIdentity
from catalog.repair import LogState, apply
from catalog.spec import TableName, TableSpec
from catalog.verify import verify

P0, P1 = (TOPIC, 0), (TOPIC, 1)
OTHER = (TopicIdentity(TOPIC, "cluster", "another-id"),)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A table that stands at 150 and 50."""
    spec = TableSpec(TableName("market", "ticks"), (TOPIC,))
    place = Place(sqlite_properties(tmp_path), spec)
    place.lake().ensure_table(spec, SCHEMA)
    Writer.claiming(place, "a").append(50)
    return place


def log(first: tuple[int, int] = (100, 0), next_: tuple[int, int] = (500, 500)) -> LogState:
    """A log of two partitions."""
    begins = Offsets(dict(zip((P0, P1), first, strict=True)))
    return LogState(IDENTITY, begins, Offsets(dict(zip((P0, P1), next_, strict=True))))


def marker_of(place: Place) -> Marker:
    marker = place.lake().head(place.name).marker
    assert marker is not None
    return marker


def repaired(place: Place, state: LogState, choice: Choice, given: Offsets | None = None) -> Marker:
    made = plan(place.lake(), place.name, state, choice, given)
    apply(place.lake(), place.name, made, who="w" * 300, why="because")
    return marker_of(place)


def note(place: Place) -> dict[str, object]:
    """What the head says of its repair."""
    snapshot = place.foreign_table().current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    told: dict[str, object] = json.loads(snapshot.summary.additional_properties[REPAIR_KEY])
    return told


def lose_marker(place: Place, *, copy: bool = False) -> None:
    """A foreign compaction, then an expiry; the property's copy stays on demand."""
    table = place.foreign_table()
    table.overwrite(table.scan().to_arrow())
    if not copy:
        with place.foreign_table().transaction() as transaction:
            transaction.remove_properties(MARKER_PROPERTY)
    expire_all_but_head(place)


def test_a_plan_writes_nothing(place: Place) -> None:
    before = place.foreign_table().metadata_location
    made = plan(place.lake(), place.name, log((160, 0)), "skip-lost-records")
    assert made.effects == ("ticks[0]: records of [150, 160) are given up",)
    assert place.foreign_table().metadata_location == before


def test_lost_records_are_skipped_recorded_and_owned_by_nobody(place: Place) -> None:
    """Who, why, what, from and to stand in the snapshot; whoever wrote before is fenced."""
    writer = Writer.claiming(place, "b")
    epoch = writer.marker.epoch
    marker = repaired(place, log((160, 7)), "skip-lost-records")
    assert marker.positions == Offsets({P0: 160, P1: 50})
    assert marker.tallies[P0].lost == ((150, 160),)
    assert marker.epoch == epoch + 1
    told = note(place)
    assert told.pop("when")
    assert told == {
        "what": "skip-lost-records",
        "from": {TOPIC: {"0": 150}},
        "to": {TOPIC: {"0": 160}},
        "who": "w" * 200,
        "why": "because",
    }
    with pytest.raises(Fenced, match="belongs to another writer"):
        writer.append(1)
    new = Writer.claiming(place, "c")
    assert new.marker.positions == marker.positions
    new.append(10)
    report = verify(place.lake(), place.name)
    assert report.state == "proved"
    assert report.partitions[0].lost == ((150, 160),)
    with pytest.raises(RepairRefused, match="nothing is lost"):
        repaired(place, log((170, 0)), "skip-lost-records")
    assert repaired(place, log((180, 0)), "skip-lost-records").tallies[P0].lost == (
        (150, 160),
        (170, 180),
    )


def test_a_repair_fails_when_the_table_moved_since_it_was_planned(place: Place) -> None:
    made = plan(place.lake(), place.name, log((160, 0)), "skip-lost-records")
    Writer.claiming(place, "b")
    with pytest.raises(Fenced, match="moved since the repair was planned"):
        apply(place.lake(), place.name, made, who="", why="")


def test_a_log_that_ends_below_the_table_is_not_repaired(place: Place) -> None:
    """The next records would get offsets that the table holds; a rollback is named."""
    short = log(next_=(500, 20))
    for choice in ("skip-lost-records", "same-topic"):
        state = short if choice == "skip-lost-records" else replace(short, topics=OTHER)
        with pytest.raises(RepairRefused, match="below position 50"):
            plan(place.lake(), place.name, state, choice)  # type: ignore[arg-type] # of a tuple
    found = diagnose(place.lake(), place.name, short)
    assert "ticks[1] ends at offset 20, below position 50" in found[0]
    claim = place.foreign_table().metadata.snapshots[0].snapshot_id
    assert f"snapshot {claim} stands within the log" in found[1]
    expired = diagnose(place.lake(), place.name, log((101, 0), (500, 20)))
    assert "no snapshot stands within the log" in expired[-1]


def test_another_id_is_taken_for_the_same_topic_on_demand_only(place: Place) -> None:
    """The positions stay; the choice is recorded; a log that does not continue is refused."""
    moved = replace(log(), topics=OTHER)
    assert "--same-topic" in diagnose(place.lake(), place.name, moved)[0]
    with pytest.raises(TopicRecreated):
        plan(place.lake(), place.name, moved, "skip-lost-records")
    with pytest.raises(RepairRefused, match="begins at 151, after position 150"):
        plan(place.lake(), place.name, replace(log((151, 0)), topics=OTHER), "same-topic")
    before = marker_of(place).positions
    marker = repaired(place, moved, "same-topic")
    assert marker.topics == OTHER
    assert marker.positions == before
    assert note(place)["what"] == "same-topic"
    assert diagnose(place.lake(), place.name, moved) == []
    assert verify(place.lake(), place.name).state == "proved"


def test_positions_found_in_the_rows_follow_the_last_ones(place: Place) -> None:
    lose_marker(place)
    marker = repaired(place, log(), "marker-from-rows")
    assert marker.positions == Offsets({P0: 150, P1: 50})
    assert verify(place.lake(), place.name).state == "proved"
    Writer.claiming(place, "b").append(10)
    assert verify(place.lake(), place.name).state == "proved"


def test_an_empty_partition_goes_on_where_the_log_begins(place: Place) -> None:
    lose_marker(place)
    state = log()
    third = (TOPIC, 2)
    more = LogState(
        IDENTITY,
        state.begins.with_positions([(third, 7)]),
        state.ends.with_positions([(third, 9)]),
    )
    assert repaired(place, more, "marker-from-rows").positions.at(third) == 7


def test_the_copy_is_right_only_where_it_counts_the_rows_that_are_there(place: Place) -> None:
    """An aborted tail is known to the copy alone; with a row less, nobody knows it."""
    writer = Writer.claiming(place, "b")
    new = writer.marker.moved_to(Offsets({P0: 170, P1: 50}))
    writer.commit(None, new)
    lose_marker(place, copy=True)
    with place.foreign_table().transaction() as transaction:
        text = place.foreign_table().properties[MARKER_PROPERTY]
        transaction.set_properties(
            {MARKER_PROPERTY: text.replace('snapshot-id": ', 'snapshot-id": 1')}
        )
    found = plan(place.lake(), place.name, log(), "marker-from-rows")
    assert found.new.positions == Offsets({P0: 170, P1: 50})
    place.foreign_table().delete("_partition = 1 and _offset = 3")
    found = plan(place.lake(), place.name, log(), "marker-from-rows")
    assert found.new.positions == Offsets({P0: 150, P1: 50})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({P0: 149}, "holds offset 149, so position 149 would bring rows twice"),
        ({P0: 501}, "ends at 500, below position 501"),
        ({(TOPIC, 9): 1}, r"ticks\[9\] does not exist"),
    ],
)
def test_a_position_that_would_double_or_skip_the_unknown_is_refused(
    place: Place, given: dict[tuple[str, int], int], reason: str
) -> None:
    lose_marker(place)
    with pytest.raises(RepairRefused, match=reason):
        plan(place.lake(), place.name, log(), "positions", Offsets(given))


def test_a_given_position_is_believed_and_what_it_leaves_out_is_lost(place: Place) -> None:
    lose_marker(place)
    marker = repaired(place, log(), "positions", Offsets({P0: 160}))
    assert marker.positions == Offsets({P0: 160, P1: 50})
    assert marker.tallies[P0].lost == ((150, 160),)


def test_rows_of_topics_that_are_not_declared_are_not_left_behind(place: Place) -> None:
    table = place.foreign_table()
    table.append(foreign_rows(3).cast(table.schema().as_arrow()))
    lose_marker(place)
    with pytest.raises(RepairRefused, match="3 rows are of no partition of the declared topics"):
        plan(place.lake(), place.name, log(), "marker-from-rows")
