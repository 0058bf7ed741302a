import itertools
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_live import (
    IDENTITY,
    NAME,
    SCHEMA,
    TOPIC,
    Log,
    at,
    batch_of,
    keys_of,
    manifest_of,
)

from catalog.cuts import cover, cut
from catalog.errors import LogEndsEarly, LogGap, NotReady, SegmentMissing
from catalog.ipcfile import ALIGNMENT
from catalog.offsets import Offsets
from catalog.records import Part, Range, Segment
from catalog.room import RESERVE_FILE
from catalog.segments import MANIFEST_FILE, LiveReader, LiveWriter, table_folder
from catalog.spec import TableName

GRACE_S = 10.0


@pytest.fixture
def writer(tmp_path: Path) -> LiveWriter:
    return LiveWriter(tmp_path, NAME, GRACE_S)


@pytest.fixture
def reader(tmp_path: Path) -> LiveReader:
    return LiveReader(tmp_path)


def written(writer: LiveWriter, log: Log, *steps: Offsets) -> list[Segment]:
    """Segments of the log from the first of the steps to the last."""
    return [writer.write(*log.chunk(first, next_)) for first, next_ in itertools.pairwise(steps)]


# --- write ------------------------------------------------------------------------------------


def test_a_segment_is_one_aligned_batch_with_positions_and_rows(
    writer: LiveWriter, tmp_path: Path
) -> None:
    """Rule 1: a part's range is what the consumer moved over, gaps and all."""
    batch = batch_of([(TOPIC, 0, 3), (TOPIC, 0, 7), (TOPIC, 2, 0)])
    ranges = (Range(TOPIC, 0, 2, 9), Range(TOPIC, 1, 5, 6), Range(TOPIC, 2, 0, 1))
    segment = writer.write(batch, ranges)
    assert segment.parts == (
        Part(TOPIC, 0, 2, 9, 0, 2),
        Part(TOPIC, 1, 5, 6, 2, 2),
        Part(TOPIC, 2, 0, 1, 2, 3),
    )
    assert (segment.rows, segment.bytes) == (3, (tmp_path / segment.file).stat().st_size)
    with pa.memory_map(str(tmp_path / segment.file)) as file:
        stored = pa.ipc.open_file(file)
        assert stored.num_record_batches == 1
        assert stored.get_batch(0).equals(batch)
        for column in stored.get_batch(0).columns:
            assert all(b.address % ALIGNMENT == 0 for b in column.buffers() if b and b.size)


def test_several_topics_share_a_segment(writer: LiveWriter) -> None:
    batch = batch_of([("a", 0, 1), ("b", 0, 1), ("b", 1, 0)])
    ranges = (Range("a", 0, 0, 2), Range("b", 0, 0, 2), Range("b", 1, 0, 1))
    assert [(p.row_first, p.row_next) for p in writer.write(batch, ranges).parts] == [
        (0, 1),
        (1, 2),
        (2, 3),
    ]


def test_a_range_without_rows_is_a_segment_too(writer: LiveWriter, reader: LiveReader) -> None:
    """Rule 3: progress over aborted records holds no row, and is no hole."""
    empty = writer.write(batch_of([]), (Range(TOPIC, 0, 0, 5),))
    rows = writer.write(batch_of([(TOPIC, 0, 6)]), (Range(TOPIC, 0, 5, 7),))
    assert keys_of(reader.batches((empty, rows), at(0), at(7))) == [(TOPIC, 0, 6)]


@pytest.mark.parametrize(
    ("keys", "ranges"),
    [
        ([(0, 2), (0, 1)], [(0, 0, 9)]),
        ([(0, 1), (0, 1)], [(0, 0, 9)]),
        ([(0, 1), (0, 9)], [(0, 0, 9)]),
        ([(0, 1)], [(0, 2, 9)]),
        ([(1, 1), (0, 1)], [(0, 0, 9), (1, 0, 9)]),
        ([(0, 1), (1, 1)], [(0, 0, 9)]),
        ([(0, 1), (1, 1), (0, 2)], [(0, 0, 9), (1, 0, 9)]),
        ([(1, 1)], [(0, 0, 9)]),
    ],
)
def test_rows_out_of_order_or_range_are_refused(
    writer: LiveWriter,
    tmp_path: Path,
    keys: list[tuple[int, int]],
    ranges: list[tuple[int, int, int]],
) -> None:
    batch = batch_of([(TOPIC, p, o) for p, o in keys])
    with pytest.raises(ValueError, match="rows"):
        writer.write(batch, tuple(Range(TOPIC, *r) for r in ranges))
    assert not list((tmp_path / table_folder(NAME)).glob("*.arrow"))


# --- the cut ----------------------------------------------------------------------------------


def test_the_cut_slices_inside_a_batch_at_both_ends(writer: LiveWriter, reader: LiveReader) -> None:
    """Rule 16: by offset range, inside a batch, at C and at E, in every partition."""
    log = Log.full(3, 100)
    segments = written(writer, log, at(0, 0, 0), at(50, 50, 50), at(100, 100, 100))
    first, next_ = at(10, 60, 0), at(90, 61, 100)
    batches = reader.batches(segments, first, next_)
    assert sorted(keys_of(batches)) == log.between(first, next_)


def test_neighbouring_slices_come_out_as_one_batch(writer: LiveWriter, reader: LiveReader) -> None:
    """Few batches: parts that follow each other in the rows are one slice, a whole batch itself."""
    log = Log.full(4, 10)
    (segment,) = written(writer, log, at(0, 0, 0, 0), at(10, 10, 10, 10))
    assert len(reader.batches((segment,), Offsets(), at(10, 10, 10, 10))) == 1
    assert len(reader.batches((segment,), at(5), at(10, 10, 10, 10))) == 1
    assert len(reader.batches((segment,), at(0, 5), at(10, 10, 10, 10))) == 2
    assert reader.batches((segment,), at(10, 10, 10, 10), at(10, 10, 10, 10)) == []


def test_the_cut_copies_no_row(writer: LiveWriter, reader: LiveReader) -> None:
    log = Log.full(1, 1000)
    (segment,) = written(writer, log, at(0), at(1000))
    before = pa.total_allocated_bytes()
    batches = reader.batches((segment,), at(10), at(990))
    assert pa.total_allocated_bytes() == before
    assert len(keys_of(batches)) == 980


def test_a_segment_that_no_row_is_taken_from_is_not_opened(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path
) -> None:
    log = Log.full(1, 30)
    segments = written(writer, log, at(0), at(10), at(20), at(30))
    (tmp_path / segments[0].file).unlink()
    (tmp_path / segments[2].file).unlink()
    assert sorted(keys_of(reader.batches(segments, at(10), at(20)))) == log.between(at(10), at(20))


@pytest.mark.parametrize(
    ("first", "next_", "says"),
    [
        (at(0), at(30), r"market.trades\[0\]: no live rows at position 10, they go on at 20"),
        (at(0, 0), at(0, 5), r"market.trades\[1\]: no live rows at position 0, they go on at now"),
        (at(20), at(31), r"no live rows at position 30, they go on at nowhere .wanted up to 31"),
    ],
)
def test_a_hole_is_a_typed_error_that_names_partition_and_positions(
    writer: LiveWriter, reader: LiveReader, first: Offsets, next_: Offsets, says: str
) -> None:
    """Rules 4 and 19: never an answer with a hole, for the flush as for a statement."""
    segments = written(writer, Log.full(1, 30), at(0), at(10), at(20), at(30))
    del segments[1]
    with pytest.raises(LogGap, match=says):
        reader.batches(segments, first, next_)
    with pytest.raises(LogGap, match=says):
        writer.read(segments, first, next_)


def test_a_gap_of_the_log_inside_a_range_is_no_hole(writer: LiveWriter) -> None:
    """Rule 1: ranges are consumer positions, so control records leave no hole."""
    one = writer.write(batch_of([(TOPIC, 0, 1)]), (Range(TOPIC, 0, 0, 5),))
    two = writer.write(batch_of([(TOPIC, 0, 8)]), (Range(TOPIC, 0, 5, 10),))
    assert keys_of(writer.read((one, two), at(0), at(10))) == [(TOPIC, 0, 1), (TOPIC, 0, 8)]


def test_overlapping_segments_give_each_row_once(writer: LiveWriter, reader: LiveReader) -> None:
    """Inputs and result of a merge may be looked at together: no offset is taken twice."""
    log = Log.full(2, 40)
    inputs = written(writer, log, at(0, 0), at(10, 20), at(20, 25), at(40, 40))
    merged = writer.merge(inputs[:2])
    for several in ([*inputs, merged], [merged, *inputs], [inputs[0], merged, inputs[2]]):
        rows = keys_of(reader.batches(several, at(5, 3), at(39, 40)))
        assert sorted(rows) == log.between(at(5, 3), at(39, 40))
    assert len(cover([merged, *inputs], at(0, 0), at(40, 40))) == 4


# --- merge ------------------------------------------------------------------------------------


def test_a_merge_regroups_rows_by_partition(writer: LiveWriter) -> None:
    log = Log.full(3, 50)
    inputs = written(writer, log, at(0, 0, 0), at(10, 0, 5), at(20, 30, 5), at(50, 50, 50))
    merged = writer.merge(inputs)
    assert merged.parts == tuple(Part(TOPIC, p, 0, 50, p * 50, p * 50 + 50) for p in range(3))
    assert merged.created_us == inputs[0].created_us
    (batch,) = writer.read((merged,), Offsets(), at(50, 50, 50))
    assert keys_of([batch]) == log.between(Offsets(), log.ends)


def test_a_merge_never_closes_over_a_hole(writer: LiveWriter, reader: LiveReader) -> None:
    """Rule 4: a hole between the inputs is a hole of the result, and nothing else is lost."""
    log = Log.full(1, 40)
    one, _, three, four = written(writer, log, at(0), at(10), at(20), at(30), at(40))
    merged = writer.merge((one, three, four))
    assert merged.parts == (Part(TOPIC, 0, 0, 10, 0, 10), Part(TOPIC, 0, 20, 40, 10, 30))
    with pytest.raises(LogGap, match="no live rows at position 10, they go on at 20"):
        reader.batches((merged,), at(5), at(40))
    for first, next_ in ((at(5), at(10)), (at(20), at(40)), (at(25), at(35))):
        rows = keys_of(reader.batches((merged,), first, next_))
        assert rows == log.between(first, next_)


def test_a_segment_committed_in_between_does_not_stop_merges(writer: LiveWriter) -> None:
    """Positions move unevenly: a middle segment is dropped, an older one is still wanted."""
    log = Log.full(2, 30)
    segments = written(writer, log, at(0, 0), at(5, 10), at(8, 10), at(20, 30))
    committed = at(8, 3)
    merged = writer.merge((segments[0], segments[2]))
    rows = keys_of(writer.read((merged,), committed, at(20, 30)))
    assert sorted(rows) == log.between(committed, at(20, 30))
    again = writer.merge((merged, *written(writer, log, at(20, 30), at(30, 30))))
    assert len(again.parts) == 3
    rows = keys_of(writer.read((again,), committed, at(30, 30)))
    assert sorted(rows) == log.between(committed, at(30, 30))


def test_inputs_that_go_back_are_not_merged(writer: LiveWriter) -> None:
    """Rule 4: a merge never doubles a range."""
    one, two, _ = written(writer, Log.full(1, 30), at(0), at(10), at(20), at(30))
    for wrong in ((two, one), (one, one)):
        with pytest.raises(LogGap, match="segments to merge go back"):
            writer.merge(wrong)


def test_a_merge_that_strings_could_not_hold_is_refused(writer: LiveWriter) -> None:
    (one,) = written(writer, Log.full(1, 10), at(0), at(10))
    with pytest.raises(ValueError, match="merge"):
        writer.merge((replace(one, bytes=2**31), one))
    with pytest.raises(ValueError, match="merge"):
        writer.merge(())


def test_segments_without_rows_merge(writer: LiveWriter) -> None:
    empty = [writer.write(batch_of([]), (Range(TOPIC, 0, i, i + 1),)) for i in range(8)]
    merged = writer.merge(empty)
    assert (merged.rows, merged.parts) == (0, (Part(TOPIC, 0, 0, 8, 0, 0),))
    assert writer.read((merged,), at(0), at(8)) == []


# --- any history ------------------------------------------------------------------------------


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=40,
    deadline=None,
    derandomize=True,
)
@given(seed=st.integers(0, 10**9))
def test_any_chunking_and_merging_gives_exactly_the_range(seed: int, tmp_path: Path) -> None:
    """Rules 1, 3, 16: for every [C, E), exactly the log's rows, or a hole is named."""
    rng = random.Random(seed)
    log = Log.random(rng, partitions=rng.randint(1, 4), length=rng.randint(1, 60))
    writer = LiveWriter(tmp_path, TableName("x", f"t{seed}"), 0)
    live: list[Segment] = []
    position = Offsets()
    while not position.same_as(log.ends):
        target = Offsets(
            {
                tp: rng.randint(position.at(tp), min(end, position.at(tp) + 12))
                for tp, end in log.ends.items()
            }
        )
        live.append(writer.write(*log.chunk(position, target)))
        position = target
        if rng.random() < 0.3:
            start = rng.randrange(len(live))
            group = live[start : start + rng.randint(1, 5)]
            live[start : start + len(group)] = [writer.merge(group)]
    reader = LiveReader(tmp_path)
    for _ in range(10):
        first = Offsets({tp: rng.randint(0, end) for tp, end in log.ends.items()})
        next_ = Offsets({tp: rng.randint(0, end) for tp, end in log.ends.items()})
        batches = reader.batches(live, first, next_)
        assert sorted(keys_of(batches)) == log.between(first, next_)
        assert all(batch.num_rows for batch in batches)
    lost = live.pop(rng.randrange(len(live)))
    whole = all(p.first == p.next for p in lost.parts)
    try:
        rows = keys_of(cut(live, Offsets(), log.ends, reader._open))
    except LogGap:
        assert not whole
    else:
        assert whole
        assert sorted(rows) == log.between(Offsets(), log.ends)


# --- publish ----------------------------------------------------------------------------------


def test_a_reader_sees_what_was_published_and_nothing_before(
    writer: LiveWriter, reader: LiveReader
) -> None:
    """Rule 10: a version is what the manifest says; a segment alone is nothing."""
    assert reader.manifest(NAME) is None
    segments = written(writer, Log.full(1, 10), at(0), at(10))
    assert reader.manifest(NAME) is None
    made = manifest_of(segments, at(0), at(10))
    writer.publish(made)
    assert reader.manifest(NAME) == made
    assert reader.manifest(NAME) is reader.manifest(NAME)


def test_every_publication_has_a_time_of_its_own(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path
) -> None:
    """Rule 10: inodes are used again within one tick of the clock; no version is overlooked."""
    path = tmp_path / table_folder(NAME) / MANIFEST_FILE
    times = []
    for number in range(300):
        writer.publish(manifest_of([], at(0), at(0), sequence=number % 10))
        times.append(path.stat().st_mtime_ns)
        found = reader.manifest(NAME)
        assert found is not None
        assert found.sequence == number % 10
    assert times == sorted(set(times))


def test_a_restarted_writers_first_publication_is_seen_although_the_clock_went_back(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path
) -> None:
    writer.publish(manifest_of([], at(0), at(0)))
    path = tmp_path / table_folder(NAME) / MANIFEST_FILE
    ahead = path.stat().st_mtime_ns + 10**15
    os.utime(path, ns=(ahead, ahead))
    LiveWriter(tmp_path, NAME, GRACE_S).publish(manifest_of([], at(0), at(0), sequence=2))
    assert path.stat().st_mtime_ns > ahead
    found = reader.manifest(NAME)
    assert found is not None
    assert found.sequence == 2


def test_no_reader_ever_meets_half_a_manifest(writer: LiveWriter, tmp_path: Path) -> None:
    """Rule 10: replaced by one rename; the file that readers open is always whole."""
    path = tmp_path / table_folder(NAME) / MANIFEST_FILE
    writer.publish(manifest_of([], at(0), at(0)))
    with path.open("rb") as open_before:
        writer.publish(manifest_of([], at(0), at(5), sequence=2))
        assert b'"sequence":1' in open_before.read()
    assert {p.name for p in path.parent.iterdir()} == {MANIFEST_FILE, RESERVE_FILE}


def test_a_version_never_ends_before_its_snapshot(writer: LiveWriter) -> None:
    """Rule 10: E[p] = max(C[p], high[p])."""
    with pytest.raises(ValueError, match="ends at or after"):
        writer.publish(manifest_of([], at(5, 5), at(9, 4)))
    assert writer.previous() is None


def test_a_restarted_ingest_does_not_publish_below_the_old_end(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path
) -> None:
    """Rule 12: the old manifest stands until its E is reached in every partition."""
    log = Log.full(2, 20)
    writer.publish(manifest_of(written(writer, log, at(0, 0), at(10, 10)), at(0, 0), at(10, 10)))
    again = LiveWriter(tmp_path, NAME, GRACE_S)
    before = again.previous()
    assert before is not None
    assert before.high == at(10, 10)
    segments = written(again, log, at(0, 0), at(20, 9))
    with pytest.raises(LogEndsEarly, match=r"market.trades\[1\]"):
        again.publish(manifest_of(segments, at(0, 0), at(20, 9)))
    assert reader.manifest(NAME) == before
    segments += written(again, log, at(20, 9), at(20, 10))
    again.publish(manifest_of(segments, at(0, 0), at(20, 10)))
    found = reader.manifest(NAME)
    assert found is not None
    assert found.high == at(20, 10)


def test_another_topic_under_the_name_starts_anew(writer: LiveWriter, tmp_path: Path) -> None:
    writer.publish(manifest_of([], at(0), at(10)))
    other = manifest_of([], at(0), at(1), topics=(replace(IDENTITY, topic_id="id-2"),))
    LiveWriter(tmp_path, NAME, GRACE_S).publish(other)


def test_a_torn_manifest_is_no_version_for_anyone(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer.publish(manifest_of([], at(0), at(10)))
    path = tmp_path / table_folder(NAME) / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(NotReady) as refused:
        reader.manifest(NAME)
    assert str(tmp_path) not in str(refused.value)
    assert writer.previous() is None
    assert "manifest_unreadable" in caplog.text


def test_tables_whose_names_need_escaping_have_folders_of_their_own(tmp_path: Path) -> None:
    names = [TableName("a", "b/c"), TableName("a", "b%2Fc"), TableName("a.b", "c"), NAME]
    for number, name in enumerate(names):
        LiveWriter(tmp_path, name, 0).publish(
            manifest_of([], at(0), at(0), table=name, sequence=number)
        )
    reader = LiveReader(tmp_path)
    for number, name in enumerate(names):
        found = reader.manifest(name)
        assert found is not None
        assert (found.table, found.sequence) == (name, number)
    assert len(list(tmp_path.iterdir())) == len(names)


# --- trim -------------------------------------------------------------------------------------


def files(tmp_path: Path) -> set[str]:
    folder = tmp_path / table_folder(NAME)
    return {
        f"{folder.name}/{p.name}"
        for p in folder.iterdir()
        if p.name not in (MANIFEST_FILE, RESERVE_FILE)
    }


def test_a_segment_outlives_the_manifest_that_listed_it_by_the_grace(
    writer: LiveWriter, tmp_path: Path
) -> None:
    """Rule 14: removed only after the next manifest, plus the grace."""
    log = Log.full(1, 30)
    one, two, three = written(writer, log, at(0), at(10), at(20), at(30))
    writer.publish(manifest_of([one, two, three], at(0), at(30)))
    assert writer.trim((), 1000) == 0
    assert writer.trim((), 2000) == 0, "what a manifest lists stays, however old"
    merged = writer.merge((one, two))
    assert writer.trim([merged], 2000) == 0
    writer.publish(manifest_of([merged, three], at(0), at(30), sequence=2))
    assert writer.trim((), 2001) == 0
    assert writer.trim((), 2001 + GRACE_S - 0.1) == 0
    assert files(tmp_path) == {s.file for s in (one, two, three, merged)}
    assert writer.trim((), 2001 + GRACE_S) == one.bytes + two.bytes
    assert files(tmp_path) == {merged.file, three.file}


def test_a_segment_that_is_listed_again_starts_its_grace_anew(
    writer: LiveWriter, tmp_path: Path
) -> None:
    (one,) = written(writer, Log.full(1, 10), at(0), at(10))
    writer.trim((), 0)
    writer.publish(manifest_of([one], at(0), at(10)))
    writer.trim((), 5)
    writer.publish(manifest_of([], at(10), at(10), sequence=2))
    assert writer.trim((), GRACE_S + 1) == 0
    assert files(tmp_path) == {one.file}


def test_what_is_kept_stays_although_no_manifest_lists_it(writer: LiveWriter) -> None:
    """Rule 14: rows above the published positions are never dropped."""
    (one,) = written(writer, Log.full(1, 10), at(0), at(10))
    for now_s in (0, 100, 200):
        assert writer.trim([one], now_s) == 0
    assert writer.trim((), 300) == 0
    assert writer.trim((), 300 + GRACE_S) == one.bytes


def test_files_of_a_dead_process_go_after_the_grace_and_not_before(
    writer: LiveWriter, tmp_path: Path
) -> None:
    """Rules 12 and 14: a reader may hold the old manifest and its segments."""
    log = Log.full(1, 30)
    listed, unlisted = written(writer, log, at(0), at(10), at(20))
    writer.publish(manifest_of([listed], at(0), at(10)))
    stray = tmp_path / table_folder(NAME) / "manifest.json.dead.tmp"
    stray.write_bytes(b"half")
    again = LiveWriter(tmp_path, NAME, GRACE_S)
    assert again.trim((), 50) == 0
    assert again.trim((), 50 + GRACE_S) == unlisted.bytes + 4
    assert files(tmp_path) == {listed.file}, "the old manifest's segments stay"


def test_two_writers_never_use_a_file_name_twice(writer: LiveWriter, tmp_path: Path) -> None:
    log = Log.full(1, 10)
    again = LiveWriter(tmp_path, NAME, GRACE_S)
    names = {written(w, log, at(0), at(10))[0].file for w in (writer, again) for _ in range(3)}
    assert len(names) == 6


# --- the reader's cache -----------------------------------------------------------------------


def test_a_missing_segment_is_a_typed_error_without_a_path(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path
) -> None:
    """Rule 18."""
    (one,) = written(writer, Log.full(1, 10), at(0), at(10))
    (tmp_path / one.file).unlink()
    with pytest.raises(SegmentMissing, match="is gone") as refused:
        reader.batches([one], at(0), at(10))
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("damage", ["short", "zeros", "rows"])
def test_a_damaged_segment_is_a_typed_error(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path, damage: str
) -> None:
    """Rule 18: half of the data is never an answer."""
    (one,) = written(writer, Log.full(1, 10), at(0), at(10))
    path = tmp_path / one.file
    if damage == "rows":
        one = replace(one, rows=9)
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "short" else bytes(one.bytes))
    with pytest.raises(SegmentMissing, match="damaged"):
        reader.batches([one], at(0), at(10))


def test_a_mapped_segment_is_answered_after_it_was_removed(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path
) -> None:
    """Rule 17's ground: immutable files stay mapped."""
    log = Log.full(1, 20)
    one, two = written(writer, log, at(0), at(10), at(20))
    old = manifest_of([one, two], at(0), at(20))
    writer.publish(old)
    assert reader.manifest(NAME) == old
    rows = keys_of(reader.batches([one, two], at(0), at(20)))
    (tmp_path / one.file).unlink()
    writer.publish(manifest_of([two], at(10), at(20), sequence=2))
    new = reader.manifest(NAME)
    assert new is not None
    assert reader.known(new) == (two, one)
    assert keys_of(reader.batches(reader.known(new), at(0), at(20))) == rows[10:] + rows[:10]


def test_retired_mappings_are_bounded(writer: LiveWriter, tmp_path: Path) -> None:
    """The oldest go first; what the newest manifest lists is never counted."""
    reader = LiveReader(tmp_path, retired_bytes=2 * 4000)
    log = Log.full(1, 100)
    steps = [at(i * 10) for i in range(11)]
    segments = written(writer, log, *steps)
    assert all(2000 < s.bytes < 4000 for s in segments)
    for count in range(10):
        writer.publish(manifest_of(segments[count:], steps[count], at(100), sequence=count))
        assert reader.manifest(NAME) is not None
        reader.batches(segments[count:], steps[count], at(100))
    assert set(reader._mapped) == {s.file for s in segments[-3:]}


def test_segments_of_another_topic_or_schema_are_never_mixed(
    writer: LiveWriter, reader: LiveReader, tmp_path: Path
) -> None:
    """Rule 9: what was remembered of another topic under the name is forgotten."""
    (one,) = written(writer, Log.full(1, 10), at(0), at(10))
    base = manifest_of([one], at(0), at(10))
    for change in (
        {"topics": (replace(IDENTITY, topic_id="id-2"),)},
        {"table_uuid": "other"},
        {"arrow_schema": SCHEMA.remove(0)},
    ):
        (tmp_path / table_folder(NAME) / MANIFEST_FILE).unlink(missing_ok=True)
        writer = LiveWriter(tmp_path, NAME, GRACE_S)
        writer.publish(base)
        assert reader.manifest(NAME) is not None
        two = writer.write(*Log.full(1, 20).chunk(at(10), at(20)))
        writer.publish(replace(base, segments=(two,), high=at(20), committed=at(10), **change))
        new = reader.manifest(NAME)
        assert new is not None
        assert reader.known(new) == (two,)
        assert reader.known(base) == (one,), "a thread may still hold the old manifest"


def test_two_threads_share_one_mapping(writer: LiveWriter, reader: LiveReader) -> None:
    segments = written(writer, Log.full(1, 10), at(0), at(10))
    one, two = (reader.batches(segments, at(0), at(10))[0] for _ in range(2))
    assert one.column(0).buffers()[1].address == two.column(0).buffers()[1].address


# --- kill points ------------------------------------------------------------------------------

INGEST = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support_live import NAME, Log, at, manifest_of
from catalog.segments import LiveWriter
writer, log = LiveWriter(Path(sys.argv[1]), NAME, 0), Log.full(1, 100)
live = []
for i in range(4):
    live.append(writer.write(*log.chunk(at(i * 10), at(i * 10 + 10))))
    writer.publish(manifest_of(live, at(0), at(i * 10 + 10), sequence=i))
live = [writer.merge(live)]
writer.publish(manifest_of(live, at(0), at(40), sequence=9))
writer.trim((), 1.0)
writer.trim((), 2.0)
print("survived")
"""


@pytest.mark.parametrize(
    ("point", "high", "segments"),
    [
        ("segment.written:2", 10, 1),
        ("publish.before:3", 20, 2),
        ("publish.renamed:3", 30, 3),
        ("merge.written:1", 40, 4),
        ("publish.before:5", 40, 4),
        ("publish.renamed:5", 40, 1),
        ("trim.before:1", 40, 1),
        ("trim.half:1", 40, 1),
    ],
)
def test_killed_anywhere_the_published_version_is_whole(
    tmp_path: Path, point: str, high: int, segments: int
) -> None:
    """Rules 10 and 14: what the manifest says is there, wherever the ingest dies."""
    died = subprocess.run(
        [sys.executable, "-c", INGEST, str(tmp_path), str(Path(__file__).parent)],
        env={**os.environ, "K2_KILL_POINT": point},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert died.returncode == -9, died.stderr
    assert "survived" not in died.stdout
    reader = LiveReader(tmp_path)
    found = reader.manifest(NAME)
    assert found is not None
    assert (found.high, len(found.segments)) == (at(high), segments)
    rows = keys_of(reader.batches(found.segments, found.committed, found.high))
    assert rows == Log.full(1, 100).between(at(0), at(high))
