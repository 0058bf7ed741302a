"""`k2 verify`: what it proves, and that it sees each way in which a table can be wrong."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import And, EqualTo
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table.metadata import TableMetadata
from support_deletes import by_position, commit, vectors
from support_lake import (
    SCHEMA,
    TOPIC,
    Place,
    Writer,
    data_files_on_disk,
    foreign_rows,
    log_rows,
    sqlite_properties,
)

from bench import verify_lane
from catalog.lake import Lake
from catalog.offsets import MARKER_PROPERTY, TALLIES_KEY, Offsets
from catalog.seen import WINDOW_OFFSETS
from catalog.spec import TableName, TableSpec
from catalog.verify import Options, Report, verify


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A table with three commits: partition 0 from offset 100 on, partition 1 from 0."""
    spec = TableSpec(TableName("market", "ticks"), (TOPIC,), sort=("symbol", "at"))
    place = Place(sqlite_properties(tmp_path), spec)
    place.lake().ensure_table(spec, SCHEMA)
    writer = Writer.claiming(place, "a")
    for rows in (50, 30, 20):
        writer.append(rows)
    return place


def examined(place: Place, window_offsets: int = WINDOW_OFFSETS) -> Report:
    return verify(place.lake(), place.name, options=Options(window_offsets=window_offsets))


def broken(report: Report) -> str:
    """What is wrong, as one text."""
    return "\n".join(f"{f.what}: {f.detail}" for f in report.findings if f.state == "broken")


@pytest.mark.parametrize("window_offsets", [WINDOW_OFFSETS, 7])
def test_a_table_is_proved(place: Place, window_offsets: int) -> None:
    """Every partition's offsets are the recorded ones, whatever the window is."""
    report = examined(place, window_offsets)
    assert report.state == "proved", report.findings
    assert [(p.first, p.next, p.rows, p.gaps) for p in report.partitions] == [
        (100, 200, 100, 0),
        (0, 100, 100, 0),
    ]
    assert report.rows == 200


@pytest.mark.parametrize("window_offsets", [WINDOW_OFFSETS, 7])
def test_a_row_that_is_there_twice_is_named(place: Place, window_offsets: int) -> None:
    """Doubles never: the sums of the table cannot hide one behind a missing one either."""
    twice = log_rows(Offsets({(TOPIC, 1): 42}), Offsets({(TOPIC, 1): 43}))
    table = place.foreign_table()
    table.delete(And(EqualTo("_partition", 1), EqualTo("_offset", 43)))
    table.append(twice.cast(table.schema().as_arrow()))
    report = examined(place, window_offsets)
    assert report.state == "broken"
    assert "ticks[1]: 1 rows are there twice, as offset 42" in broken(report)
    assert "ticks[1]: the offsets of [0, 100) are not the recorded ones" in broken(report)


@pytest.mark.parametrize("window_offsets", [WINDOW_OFFSETS, 7])
def test_a_row_that_is_missing_is_counted(place: Place, window_offsets: int) -> None:
    """Gaps only where the log had them."""
    place.foreign_table().delete(And(EqualTo("_partition", 0), EqualTo("_offset", 150)))
    report = examined(place, window_offsets)
    assert broken(report) == "ticks[0]: 1 rows are missing in [100, 200): 100 are recorded"


@pytest.mark.parametrize("write", ["positions", "vector"])
def test_a_row_that_another_engine_deleted_is_missing(place: Place, write: str) -> None:
    """Delete files take rows away without touching the files that the sums were made of."""
    table = place.foreign_table()
    path = next(iter(table.scan().plan_files())).file.file_path
    deletes = (
        [by_position(table, [(path, 0)])] if write == "positions" else vectors(table, {path: [0]})
    )
    commit(table, deletes)
    report = examined(place)
    assert report.state == "broken"
    assert "1 rows are missing" in broken(report)


def test_rows_past_the_positions_or_of_another_topic_are_named(place: Place) -> None:
    past = log_rows(Offsets({(TOPIC, 1): 100}), Offsets({(TOPIC, 1): 101}))
    table = place.foreign_table()
    table.append(pa.concat_tables([past, foreign_rows(2)]).cast(table.schema().as_arrow()))
    report = examined(place)
    assert "3 rows lie outside every recorded range" in broken(report)
    assert "ticks[1] offset 100" in broken(report)
    assert "another topic's offset 0" in broken(report)


def data_files(place: Place) -> list[Path]:
    return sorted(Path(path) for path in data_files_on_disk(place))


def test_a_file_that_is_gone_is_named(place: Place) -> None:
    gone = data_files(place)[0]
    gone.unlink()
    report = examined(place)
    assert f"files: {gone.name} is gone" in broken(report)
    assert "rows are missing" in broken(report)


def test_a_file_of_another_size_or_content_is_named(place: Place) -> None:
    shorter, garbled, swapped, *_ = data_files(place)
    shorter.write_bytes(shorter.read_bytes()[:-1])
    garbled.write_bytes(b"\0" * garbled.stat().st_size)
    report = examined(place)
    assert f"{shorter.name} holds {shorter.stat().st_size} bytes instead of" in broken(report)
    assert f"{garbled.name} cannot be read" in broken(report)
    rows = pq.read_metadata(swapped).num_rows
    put_one_row(swapped)
    assert f"{swapped.name} holds 1 rows instead of {rows}" in broken(examined(place))


def put_one_row(path: Path) -> None:
    """A Parquet file of the same size that holds one row."""
    size = path.stat().st_size
    for pad in range(size):
        sink = pa.BufferOutputStream()
        row = pa.table({"pad": ["x" * pad]})
        pq.write_table(row, sink, compression="none", write_statistics=False, use_dictionary=False)
        if sink.tell() == size:
            path.write_bytes(sink.getvalue())
            return
    raise AssertionError("the row does not fit")


def older(place: Place) -> None:
    """Takes the tallies out of every snapshot, as an older version would have left them."""
    table = place.foreign_table()
    for snapshot in table.metadata.snapshots:
        assert snapshot.summary is not None
        snapshot.summary.additional_properties.pop(TALLIES_KEY, None)
    copy = json.loads(table.properties[MARKER_PROPERTY])
    del copy["summary"][TALLIES_KEY]
    table.metadata.properties[MARKER_PROPERTY] = json.dumps(copy)
    put_metadata(place, table.metadata)


def put_metadata(place: Place, metadata: TableMetadata) -> None:
    """Makes ``metadata`` the table's."""
    table = place.foreign_table()
    location = f"{table.metadata_location.removesuffix('.metadata.json')}-x.metadata.json"
    ToOutputFile.table_metadata(metadata, table.io.new_output(location))
    with closing(sqlite3.connect(place.properties["uri"].removeprefix("sqlite:///"))) as database:
        database.execute("update iceberg_tables set metadata_location = ?", [location])
        database.commit()


def test_rows_from_before_tallies_are_counted_and_what_follows_is_proved(place: Place) -> None:
    """Dense ranges need no checksum; with a gap in them they are counted only."""
    older(place)
    assert examined(place).state == "proved", "no gap, so no row can be missing"
    place.foreign_table().delete(And(EqualTo("_partition", 1), EqualTo("_offset", 3)))
    report = examined(place)
    assert report.state == "unproved"
    unproved = [f.detail for f in report.findings if f.state == "unproved"]
    assert unproved == ["counted only: 99 rows below 100 were committed without a checksum"]
    Writer.claiming(place, "b").append(10)
    report = examined(place)
    assert [(p.first, p.rows, p.gaps) for p in report.partitions] == [(100, 110, 0), (0, 109, 1)]
    place.foreign_table().delete(And(EqualTo("_partition", 1), EqualTo("_offset", 105)))
    assert broken(examined(place)) == "ticks[1]: 1 rows are missing in [100, 110): 10 are recorded"


def test_a_snapshot_whose_sum_is_not_what_it_added_is_named(place: Place) -> None:
    table = place.foreign_table()
    snapshot = table.metadata.snapshots[2]
    assert snapshot.summary is not None
    snapshot.summary.additional_properties["added-records"] = "61"
    put_metadata(place, table.metadata)
    assert broken(examined(place)) == (
        f"snapshots: snapshot {snapshot.snapshot_id}: its sums grow by 60 rows, but it added 61"
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("k2.positions", '{"ticks":{"0":101,"1":50}}', "ticks[0] goes back from 150 to 101"),
        ("k2.epoch", "0", "the epoch goes back from 1 to 0"),
        ("k2.writer", "b", "two writers share epoch 1"),
        ("k2.topics", '[["ticks","cluster","other"]]', "topic ticks becomes another topic"),
    ],
)
def test_what_must_not_go_back_is_named(place: Place, key: str, value: str, said: str) -> None:
    """Positions, epochs, owners and identities along the ancestry."""
    table = place.foreign_table()
    snapshot = table.metadata.snapshots[2]
    assert snapshot.summary is not None
    snapshot.summary.additional_properties[key] = value
    put_metadata(place, table.metadata)
    assert said in broken(examined(place))


def test_a_copy_that_says_something_else_is_named(place: Place) -> None:
    """Rule 2: the property is believed where the snapshot is gone, so it must agree."""
    table = place.foreign_table()
    with table.transaction() as transaction:
        text = table.properties[MARKER_PROPERTY].replace('\\"1\\":100', '\\"1\\":99')
        assert text != table.properties[MARKER_PROPERTY]
        transaction.set_properties({MARKER_PROPERTY: text})
    assert "copy: the copy of snapshot" in broken(examined(place))
    with place.foreign_table().transaction() as transaction:
        transaction.remove_properties(MARKER_PROPERTY)
    assert "copy: the table has no property k2.marker" in broken(examined(place))


def test_an_ordinary_table_cannot_be_proved(place: Place) -> None:
    other = TableName("market", "other")
    place.foreign().create_table(str(other), place.foreign_table().schema())
    report = verify(place.lake(), other)
    assert report.state == "unproved"


def test_memory_does_not_follow_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times the rows, in five times the files, take what a file and a window take."""
    peaks = []
    for flushes in (2, 10):
        (folder := tmp_path / str(flushes)).mkdir()
        monkeypatch.setattr(verify_lane, "FLUSHES", flushes)
        lake = Lake.open("lake", sqlite_properties(folder))
        verify_lane.fill(lake, flushes * 60_000)
        peaks.append(_peak_bytes(lake, verify_lane.SPEC.name))
        lake.close()
    assert peaks[1] < 1.25 * peaks[0], peaks


def _peak_bytes(lake: Lake, name: TableName) -> int:
    """The most that Python, NumPy and Arrow were seen to hold while a table is proved."""
    held = [0]

    def look(rows: int, of_rows: int) -> None:
        del rows, of_rows
        held.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes()
        report = verify(lake, name, options=Options(progress=look, window_offsets=10_000))
    finally:
        tracemalloc.stop()
    assert report.state == "proved"
    return max(held)
