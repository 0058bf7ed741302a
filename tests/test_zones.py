"""Filters leave out live rows by the bounds of their zones; nothing is copied or asked twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import SessionContext
from support_engine import TRADES, TRADES_SCHEMA, FolderTables, trades
from test_scan import pushed

from catalog import zones
from catalog.zones import ZONE_ROWS, passing
from flight_server.hybrid import Source, relation

#: Offsets 0 to 99, 100 to 129 and 130 to 139: five zones, two, and less than one.
LIVE = tuple(
    batch
    for first, count in ((0, 100), (100, 30), (130, 10))
    for batch in trades(first, count).combine_chunks().to_batches()
)
ZONE = 20


def offsets(batches: tuple[pa.RecordBatch, ...]) -> list[int]:
    return [offset for batch in batches for offset in batch.column("_offset").to_pylist()]


@pytest.mark.parametrize(
    ("where", "ranges"),
    [
        ("_offset >= 125", [(120, 140)]),
        ("_offset = 45", [(40, 60)]),
        ("_offset = 45 or price = 81", [(40, 60), (80, 100)]),
        ("_offset in (3, 30)", [(0, 40)]),
        ("not _offset < 100", [(100, 140)]),
        ("timestamp < timestamp '2024-03-01 00:00:20Z'", [(0, 20)]),
        (
            "timestamp between '2024-03-01 00:00:19Z' and '2024-03-01 00:00:20Z'",
            [(0, 40)],
        ),
        ("symbol = 'ABC'", [(0, 140)]),
        ("symbol > 'DDD'", []),
        ("note is not null", []),
        ("quantity is null and _offset < 10", [(0, 20)]),
        ("_partition = 1", []),
        ("ratio = 4", [(0, 140)]),  # NaN lies outside all bounds
        ("upper(symbol) = 'X'", [(0, 140)]),
        ("_offset + 0 = 45", [(0, 140)]),
    ],
)
def test_the_zones_that_stay(where: str, ranges: list[tuple[int, int]]) -> None:
    wanted = [offset for first, next_ in ranges for offset in range(first, next_)]
    assert offsets(passing(LIVE, pushed(where), ZONE)) == wanted


def test_what_one_reference_needs_stays() -> None:
    [low], [high] = pushed("_offset < 10"), pushed("_offset >= 110")
    rows = [*range(20), *range(100, 140)]
    assert offsets(passing(LIVE, [low, high], ZONE)) == rows
    assert passing(LIVE, [low, ()], ZONE) == LIVE
    assert passing(LIVE, [], ZONE) is LIVE
    assert passing(LIVE, [low], zone_rows=100) is LIVE  # nothing is larger than a zone


def test_nothing_is_copied_and_whole_batches_stay_themselves() -> None:
    kept = passing(LIVE, pushed("_offset >= 90"), ZONE)
    assert kept[1:] == LIVE[1:]
    assert [id(batch) for batch in kept[1:]] == [id(batch) for batch in LIVE[1:]]
    at = LIVE[0].schema.get_field_index("_offset")
    assert kept[0].column(at).buffers()[1].address == LIVE[0].column(at).buffers()[1].address


def test_bounds_are_worked_out_once_and_go_with_their_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    min_max = zones.pc.min_max
    monkeypatch.setattr(zones.pc, "min_max", lambda part: asked.append(len(part)) or min_max(part))
    live = tuple(trades(0, 50).combine_chunks().to_batches())
    held = len(zones._known)
    for where in ("_offset < 10", "_offset > 45", "_offset = 1 and ratio > 3"):
        passing(live, pushed(where), ZONE)
    assert asked == [20, 20, 10]
    assert len(zones._known) == held + 1
    del live
    assert len(zones._known) == held


def test_a_version_gives_only_the_live_rows_that_may_pass(tmp_path: Path) -> None:
    """Through the relation, hybrid and live alone, at the real size of zones."""
    rows = 3 * ZONE_ROWS + 5
    [batch] = trades(0, 1).to_batches()
    columns = [
        pa.array(range(rows), pa.int64())
        if field.name == "_offset"
        else pa.concat_arrays([column]).take(pa.array([0] * rows, pa.int64()))
        for field, column in zip(TRADES_SCHEMA, batch.columns, strict=True)
    ]
    tables = FolderTables(tmp_path)
    live = [pa.RecordBatch.from_arrays(columns, schema=TRADES_SCHEMA)]
    tables.publish(TRADES, [], live)
    version = tables.open(tables.pin(TRADES))
    for part in ("hybrid", "live"):
        source = Source(version, part, pushed(f"_offset = {ZONE_ROWS}"))
        context = SessionContext()
        made = relation(context, source, tables)
        assert made.report.live_rows == ZONE_ROWS
        found = context.read_table(made.table).select("_offset").to_arrow_table()["_offset"]
        assert found.to_pylist() == list(range(ZONE_ROWS, 2 * ZONE_ROWS))
