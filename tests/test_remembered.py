"""What is remembered of immutable objects, and goes with them or for what comes later."""

from __future__ import annotations

import gc
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import SessionContext
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotLogEntry, Summary
from support_engine import TRADES_SCHEMA, entries_of, trades
from support_lake import SCHEMA, TOPIC, Place, Writer, sqlite_properties

from catalog import survivors as module
from catalog import versions
from catalog.prune import surviving
from catalog.remembered import Remembered, recent
from catalog.scan import empty_listing
from catalog.spec import TableName, TableSpec
from catalog.survivors import survivors


def test_an_object_is_worked_on_once_and_an_equal_one_by_itself() -> None:
    made: list[list[str]] = []

    def names(schema: pa.Schema) -> list[str]:
        made.append(schema.names)
        return made[-1]

    remembered = Remembered(names)
    one, other = (pa.schema([("a", pa.int64())]) for _ in range(2))
    assert remembered(one) is remembered(one)
    assert remembered(one) is not remembered(other)
    assert len(made) == 2


def test_what_is_remembered_goes_with_its_object() -> None:
    remembered: Remembered[pa.Schema, int] = Remembered(len)
    schema = pa.schema([("a", pa.int64())])
    remembered(schema)
    assert len(remembered) == 1
    del schema
    gc.collect()
    assert len(remembered) == 0


ENTRIES = entries_of(
    TRADES_SCHEMA, [(Path(f"/none/{n}.parquet"), trades(10 * n, 10)) for n in range(4)]
)


def filters(where: str) -> tuple[tuple[object, ...], ...]:
    context = SessionContext()
    empty_listing(TRADES_SCHEMA, context)
    plan = context.sql(f"select _offset from files where {where}").optimized_logical_plan()
    while type(plan.to_variant()).__name__ != "TableScan":
        (plan,) = plan.inputs()
    return (tuple(plan.to_variant().filters()),)


def test_the_same_filters_over_the_same_files_are_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other filters, and other files, are not the same, however equal they look."""
    asked: list[pa.Table] = []

    def counted(entries: pa.Table, scans: object) -> pa.Table:
        asked.append(entries)
        return surviving(entries, scans)  # type: ignore[arg-type]  # as it is given

    monkeypatch.setattr(module, "surviving", counted)
    low, high = filters("_offset < 5"), filters("_offset > 35")
    for _ in range(2):
        assert survivors(ENTRIES, low)["sequence_number"].to_pylist() == [0]
        assert survivors(ENTRIES, high)["sequence_number"].to_pylist() == [3]
    assert len(asked) == 2
    assert survivors(ENTRIES.slice(1), high)["sequence_number"].to_pylist() == [3]
    assert len(asked) == 3


def test_filters_that_leave_all_files_do_not_keep_them() -> None:
    """The answer is the question: remembered with itself, it would never go."""
    entries, every = ENTRIES.slice(0), filters("_offset >= 0")
    assert survivors(entries, every) is entries
    number = len(module._answers)
    del entries
    gc.collect()
    assert len(module._answers) == number - 1


def test_what_was_used_last_is_kept_within_its_bounds() -> None:
    """Many small values, or few large ones; two of those that are larger than the bound."""
    small = recent(4, 100, int)
    for number in range(6):
        small[number] = number
    assert list(small) == [2, 3, 4, 5]
    large = recent(4, 100, int)
    for number in range(4):
        large[number] = 34
    assert list(large) == [2, 3]
    huge = recent(4, 100, int)
    for number in range(4):
        huge[number] = 1_000_000
    assert list(huge) == [2, 3]


def test_metadata_files_of_one_table_share_their_snapshots(tmp_path: Path) -> None:
    """Each repeats all that were there before it; what changed is its own."""
    spec = TableSpec(TableName("market", "ticks"), (TOPIC,))
    place = Place(sqlite_properties(tmp_path), spec)
    with closing(place):
        place.foreign().create_namespace("market")
        lake = place.lake()
        lake.ensure_table(spec, SCHEMA)
        writer = Writer.claiming(place, "a")
        writer.append(5)
        first = lake.load(place.name).metadata
        writer.append(5)
        second = lake.load(place.name).metadata
    assert len(second.snapshots) == len(first.snapshots) + 1
    for old, new in zip(first.snapshots, second.snapshots, strict=False):
        assert old is new
    for was, entry in zip(first.snapshot_log, second.snapshot_log, strict=False):
        assert was is entry


def test_only_equal_snapshots_are_shared() -> None:
    known = [SnapshotLogEntry(snapshot_id=1, timestamp_ms=1)]
    mine = [SnapshotLogEntry(snapshot_id=n, timestamp_ms=at) for n, at in ((1, 1), (1, 2), (2, 1))]
    before = [*mine]
    versions._share(mine, known)
    assert mine == before
    assert [each is known[0] for each in mine] == [True, False, False]


def test_snapshots_that_record_other_positions_are_not_shared() -> None:
    def snapshot(positions: str) -> Snapshot:
        summary = Summary(Operation.APPEND, **{"k2.positions": positions})
        return Snapshot(snapshot_id=1, timestamp_ms=1, manifest_list="m", summary=summary)

    mine, known = [snapshot("b")], [snapshot("a")]
    versions._share(mine, known)
    assert mine[0] is not known[0]
    mine = [snapshot("a")]
    versions._share(mine, known)
    assert mine[0] is known[0]
