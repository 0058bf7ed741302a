"""What a table's threads share: heads, ends, holds, pauses (rules 10, 12 and 14)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from catalog.errors import LogGap
from catalog.heads import Head
from catalog.offsets import Marker, Offsets, TopicIdentity
from catalog.publication import Origin, Publication, Unflushed
from catalog.records import Range, Segment
from catalog.schemas import metadata_schema
from catalog.segments import LiveWriter
from catalog.spec import TableName

NAME = TableName("ns", "t")
TOPICS = (TopicIdentity("t", "cluster", "id"),)
SCHEMA = metadata_schema(key=False, headers=False)
#: Bounds on a flush that nothing here reaches.
ALL = (2**40, 2**40)


def at(position: int) -> Offsets:
    return Offsets({("t", 0): position})


def head(position: int, snapshot_id: int = 1, uuid: str = "uuid") -> Head:
    marker = Marker(at(position), TOPICS, 1, "writer", 7)
    return Head(f"metadata-{snapshot_id}.json", uuid, snapshot_id, marker, 0)


class Table:
    """A live folder with one table, and an ingest run's publication of it."""

    def __init__(self, folder: Path, first: Head, ends: int = 0) -> None:
        self.writer = LiveWriter(folder, NAME, 0.0)
        self.publication = Publication(
            self.writer, Origin(NAME, TOPICS, 7, SCHEMA, at(ends)), first
        )
        self.publication.claimed(first)

    def segment(self, first: int, next_: int) -> Segment:
        """A segment of one row per position."""
        rows = [
            {"_topic": "t", "_partition": 0, "_offset": n, "_kafka_timestamp": None}
            for n in range(first, next_)
        ]
        batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
        return self.writer.write(batch, (Range("t", 0, first, next_),))

    def extend(self, first: int, next_: int) -> Segment:
        """The next segment, put in."""
        segment = self.segment(first, next_)
        self.publication.extend(segment, at(next_))
        return segment


def test_the_end_is_the_greater_of_positions_and_reading(tmp_path: Path) -> None:
    """Rule 10: E = max(C, high), also when the table is ahead of what was read."""
    table = Table(tmp_path, head(0))
    table.extend(0, 5)
    table.publication.move_head(head(20, 2))
    table.extend(5, 8)
    manifest = table.publication.publish()
    assert manifest is not None
    assert (manifest.committed, manifest.high) == (at(20), at(20))
    table.extend(8, 25)
    later = table.publication.publish()
    assert later is not None
    assert later.high == at(25)


def test_a_moved_head_drops_what_it_covers_and_keeps_what_it_cuts(tmp_path: Path) -> None:
    """Rules 10 and 14."""
    table = Table(tmp_path, head(0))
    whole, cut = table.extend(0, 10), table.extend(10, 20)
    table.publication.move_head(head(15, 2))
    assert table.publication.segments == (cut,)
    assert table.publication.unflushed().rows == 5
    assert whole not in table.publication.segments


def test_an_earlier_run_is_held_until_it_is_reached(tmp_path: Path) -> None:
    """Rule 12: the old manifest and its segments stay; a stop is said on top of them."""
    old = Table(tmp_path, head(0))
    old.extend(0, 10)
    before = old.publication.publish()
    new = Table(tmp_path, head(0))
    new.extend(0, 9)
    assert new.publication.publish() is None
    assert new.publication.trim() == 0
    held = new.writer.previous()
    assert before is not None
    assert held is not None
    assert held.reason is not None
    assert held.reason.startswith("reading again what was published before the restart: 9 of 10 p")
    assert held.state == "catching_up"
    assert replace(held, sequence=before.sequence, state=before.state, reason=None) == before
    new.extend(9, 10)
    after = new.publication.publish()
    assert after is not None
    assert after.sequence > held.sequence > before.sequence
    assert after.reason is None
    assert new.publication.held is None
    assert new.publication.trim() > 0


def test_a_stop_below_the_held_version_leaves_its_rows(tmp_path: Path) -> None:
    """Rule 12: what was published before goes on being an exact prefix."""
    old = Table(tmp_path, head(0))
    old.extend(0, 10)
    before = old.publication.publish()
    new = Table(tmp_path, head(0))
    new.extend(0, 3)
    new.publication.stop(LogGap("gone"))
    said = new.writer.previous()
    assert before is not None
    assert said is not None
    assert (said.state, said.error) == ("stopped", "LogGap: gone")
    assert (said.high, said.segments) == (before.high, before.segments)


def test_another_table_of_the_name_is_replaced_at_once(tmp_path: Path) -> None:
    """Rule 12 holds for the same table only."""
    old = Table(tmp_path, head(0))
    old.extend(0, 10)
    old.publication.publish()
    manifest = Table(tmp_path, head(0, uuid="another")).publication.publish()
    assert manifest is not None
    assert manifest.high == at(0)


def test_a_merge_takes_the_place_of_its_inputs(tmp_path: Path) -> None:
    """Rule 10: order is kept; inputs that the head has passed meanwhile do not come back."""
    table = Table(tmp_path, head(0))
    one, two, three = table.extend(0, 2), table.extend(2, 4), table.extend(4, 6)
    merged = table.writer.merge((one, two))
    table.publication.move_head(head(2, 2))
    table.publication.replace((one, two), merged)
    assert table.publication.segments == (merged, three)
    late = table.writer.merge((merged, three))
    table.publication.move_head(head(6, 3))
    table.publication.replace((merged, three), late)
    assert table.publication.segments == ()


def test_segments_in_use_are_not_trimmed(tmp_path: Path) -> None:
    """Rule 14: a flush or a merge that reads them keeps their files."""
    table = Table(tmp_path, head(0))
    segment = table.extend(0, 5)
    table.publication.publish()
    with table.publication.using((segment,)):
        table.publication.move_head(head(5, 2))
        table.publication.publish()
        assert table.publication.trim() == 0
        assert table.writer.read([segment], at(0), at(5))[0].num_rows == 5
    assert table.publication.trim() == segment.bytes


def test_ages_count_from_the_oldest_row_that_no_flush_has_taken(tmp_path: Path) -> None:
    """Rule 3: progress without rows has an age too."""
    table = Table(tmp_path, head(0))
    assert table.publication.unflushed().age_s is None
    table.extend(0, 5)
    first = table.publication.unflushed()
    assert (first.rows, first.age_s is not None) == (5, True)
    assert table.publication.begin_flush(*ALL).high == at(5)
    table.publication.flushed()
    assert table.publication.unflushed().age_s is None
    table.publication.begin_flush(*ALL)
    empty = replace(table.segment(5, 6), rows=0)
    table.publication.extend(empty, at(6))
    table.publication.flushed()
    assert table.publication.unflushed().age_s is not None


def test_a_flush_takes_the_oldest_rows_and_leaves_the_rest_due(tmp_path: Path) -> None:
    """Rule 4: what is taken is a prefix; what is left keeps its age, and a flush follows."""
    table = Table(tmp_path, head(0))
    first, second = table.extend(0, 5), table.extend(5, 10)
    third = table.extend(10, 12)
    tail = table.publication.begin_flush(6, 2**40)
    assert (tail.segments, tail.high) == ((first, second), at(10))
    assert table.publication.begin_flush(2**40, first.bytes).high == at(5)
    table.publication.move_head(head(5, 2))
    table.publication.flushed()
    left = table.publication.unflushed()
    assert (left.rows, left.age_s is not None, left.left) == (7, True, True)
    tail = table.publication.begin_flush(7, 2**40)
    assert (tail.segments, tail.high) == ((second, third), at(12))
    table.publication.move_head(head(12, 3))
    table.publication.flushed()
    assert table.publication.unflushed() == Unflushed(0, 0, None)


@pytest.mark.parametrize(
    ("ends", "paused", "state"),
    [(5, False, "running"), (6, False, "catching_up"), (5, True, "paused")],
)
def test_the_state_says_what_the_ingest_does(
    ends: int,
    paused: bool,  # noqa: FBT001 - a column of the table
    state: str,
    tmp_path: Path,
) -> None:
    """Rule 14: staleness is visible."""
    table = Table(tmp_path, head(0), ends)
    table.extend(0, 5)
    table.publication.say_paused(paused=paused)
    manifest = table.publication.publish()
    assert manifest is not None
    assert manifest.state == state


def test_a_segment_that_ends_at_the_positions_is_live_no_more(tmp_path: Path) -> None:
    """Rule 10: a position is the next offset, so what ends there lies below it."""
    table = Table(tmp_path, head(0))
    table.extend(0, 3)
    kept = table.extend(3, 5)
    table.publication.move_head(head(3, snapshot_id=2))
    assert table.publication.segments == (kept,)
