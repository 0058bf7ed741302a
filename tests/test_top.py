"""LIMIT, and the first rows by a column, read the newest files and segments only, exactly."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from datafusion import SessionContext
from support_engine import START, TRADES, TRADES_SCHEMA, FolderTables, entries_of, trades

from catalog.scan import empty_listing
from flight_server.hybrid import Source, relation
from flight_server.top import Top, narrowed, takes_all, top_of


def asked(sql: str) -> Top | None:
    context = SessionContext()
    empty_listing(TRADES_SCHEMA, context)
    return top_of(context.sql(sql).optimized_logical_plan())


@pytest.mark.parametrize(
    ("sql", "top"),
    [
        ("select symbol from files limit 5", Top(5)),
        ("select symbol, price + 1 from files limit 5 offset 2", Top(7)),
        (
            "select symbol from files order by timestamp desc limit 5",
            Top(5, "timestamp", descending=True, nulls_first=True),
        ),
        (
            "select * from files order by quantity desc nulls last, price limit 5 offset 3",
            Top(8, "quantity", descending=True),
        ),
        ("select * from files order by price limit 5", Top(5, "price")),
        ("explain select * from files order by price limit 5", Top(5, "price")),
        ("select * from files order by price", None),
        ("select * from files where price > 3 order by price limit 5", None),
        ("select * from files where price > 3 limit 5", None),
        ("select * from files order by price + 1 limit 5", None),
        ("select max(price) from files limit 5", None),
        ("select symbol, max(price) as m from files group by symbol order by m limit 5", None),
        ("select * from files a join files b on a._offset = b._offset limit 5", None),
        ("select q from (select 0 - _offset as q from files) order by q limit 5", None),
        ("select _offset from (select 0 - _offset as _offset from files) order by 1 limit 5", None),
        ("select * from (select * from files limit 9) order by price limit 5", None),
        ("select * from files limit 0", None),
        ("select upper(symbol) from files order by upper(symbol) limit 5", None),
        (
            "select s from (select upper(symbol) as s, price from files) order by price limit 5",
            Top(5, "price"),
        ),
    ],
)
def test_what_a_statement_takes(sql: str, top: Top | None) -> None:
    assert asked(sql) == top


@pytest.mark.parametrize(
    ("sql", "whole"),
    [
        ("select * from files", True),
        ("select symbol, max(price) as m from files group by symbol order by m limit 5", True),
        ("select count(*) from files a join files b on a._offset = b._offset", True),
        ("select * from files limit 5", False),
        ("select * from files order by price", False),
        ("select * from files order by price limit 5", False),
        ("select count(*) from (select price from files limit 5)", False),
        ("select count(*) from (select price from files order by price offset 5)", False),
        ("select sum(price) over (order by timestamp) from files", False),
    ],
)
def test_who_takes_all_rows_in_any_order(sql: str, whole: bool) -> None:  # noqa: FBT001
    context = SessionContext()
    empty_listing(TRADES_SCHEMA, context)
    assert takes_all(context.sql(sql).optimized_logical_plan()) is whole


#: Offsets 0 to 399 in four files, 400 to 479 in four live batches.
NEWEST = Top(10, "timestamp", descending=True, nulls_first=True)


@pytest.mark.parametrize(
    ("top", "files", "live"),
    [
        (NEWEST, 0, 1),
        (Top(21, "_offset", descending=True), 0, 2),
        (Top(100, "timestamp", descending=True), 1, 4),
        (Top(10, "timestamp"), 1, 0),
        (Top(100, "price"), 1, 0),
        (Top(101, "price"), 2, 0),
        (Top(10), 0, 1),
        (Top(90), 1, 4),
        (Top(1000), 4, 4),
        (Top(10, "ratio", descending=True), 4, 4),  # a float: NaN lies outside all bounds
        (Top(10, "symbol"), 4, 4),
    ],
)
def test_only_the_pieces_that_matter_are_read(
    tmp_path: Path, top: Top, files: int, live: int
) -> None:
    tables = FolderTables(tmp_path)
    rows = trades(400, 80).to_batches(max_chunksize=20)
    tables.publish(TRADES, [trades(100 * i, 100) for i in range(4)], rows)
    source = Source(tables.open(tables.pin(TRADES)), "hybrid", None, top=top)
    report = relation(SessionContext(), source, tables).report
    assert (report.kept, report.live_rows) == (files, 20 * live)


def with_timestamps(first: int, values: list[int | None]) -> pa.Table:
    rows = trades(first, len(values))
    at = rows.schema.get_field_index("_kafka_timestamp")
    times = [None if v is None else START + timedelta(seconds=v) for v in values]
    return rows.set_column(at, rows.schema.field(at), pa.array(times, rows.schema.field(at).type))


@pytest.mark.parametrize("seed", range(40))
def test_the_answer_is_that_of_all_rows(tmp_path: Path, seed: int) -> None:
    """Nulls, ties, overlapping pieces, unknown bounds: the same values as without the cut."""
    dice = random.Random(seed)
    pieces = []
    for i in range(dice.randint(1, 8)):
        low, share = dice.randint(0, 20), dice.choice([0.0, 0.0, 0.3, 1.0])
        values = [
            None if dice.random() < share else low + dice.randint(0, 6)
            for _ in range(dice.randint(1, 12))
        ]
        pieces.append(with_timestamps(100 * i, values))
    cut = dice.randint(0, len(pieces))
    files, live = pieces[:cut], [b for p in pieces[cut:] for b in p.combine_chunks().to_batches()]
    tables = FolderTables(tmp_path)
    tables.publish(TRADES, files, live)
    direction, nulls = dice.choice(["asc", "desc"]), dice.choice(["first", "last"])
    sql = (
        "select _kafka_timestamp, _offset from files order by _kafka_timestamp"
        f" {direction} nulls {nulls}, _offset limit {dice.randint(1, 15)}"
    )
    top = asked(sql)
    assert top is not None
    answers = []
    for each in (None, top):
        context = SessionContext()
        source = Source(tables.open(tables.pin(TRADES)), "hybrid", None, top=each)
        context.register_table("files", relation(context, source, tables).table)
        answers.append(context.sql(sql).to_pydict())
    assert answers[0] == answers[1]


def test_deleted_rows_and_unknown_bounds_prove_nothing(tmp_path: Path) -> None:
    made = [(tmp_path / f"{i}", trades(100 * i, 100)) for i in range(3)]
    entries = entries_of(TRADES_SCHEMA, made)
    newest = Top(10, "_offset", descending=True, nulls_first=True)
    assert narrowed(entries, (), newest)[0].num_rows == 1
    for name, value in (
        ("deletes", [[], [], [0]]),
        ("partial", [False, False, True]),
    ):
        at = entries.schema.get_field_index(name)
        field = entries.schema.field(at)
        touched = entries.set_column(at, field, pa.array(value, field.type))
        assert narrowed(touched, (), newest)[0].num_rows == 2
        assert narrowed(touched.take([2, 0, 1]), (), Top(10))[0].num_rows == 2
    unknown = pa.Table.from_pylist(
        [
            {**row, "null_count": {**row["null_count"], "_offset": None}}
            for row in entries.to_pylist()
        ],
        schema=entries.schema,
    )
    assert narrowed(unknown, (), newest)[0].num_rows == 3


def test_the_rows_of_a_decimal_are_ordered_by_value(tmp_path: Path) -> None:
    entries = entries_of(TRADES_SCHEMA, [(tmp_path / f"{i}", trades(10 * i, 10)) for i in range(9)])
    kept, _ = narrowed(entries, (), Top(11, "price", descending=True))
    uppers = pc.struct_field(kept["upper"].combine_chunks(), "price").to_pylist()
    assert uppers == [Decimal(79), Decimal(89)]


def kept_of(pieces: list[list[int | None]], top: Top) -> list[int]:
    """Which of these pieces stay, as live batches; the column is ``_kafka_timestamp``."""
    batches = [
        batch
        for i, values in enumerate(pieces)
        for batch in with_timestamps(100 * i, values).combine_chunks().to_batches()
    ]
    _, kept = narrowed(entries_of(TRADES_SCHEMA, []), batches, top)
    return [batch.column("_offset")[0].as_py() // 100 for batch in kept]


def test_equal_values_all_stay() -> None:
    """What comes after the first column decides among them."""
    top = Top(2, "_kafka_timestamp", descending=True)
    assert kept_of([[5, 5], [5, 5], [4, 4]], top) == [0, 1]
    assert kept_of([[5, 5], [5, 5], [6, 6]], Top(2, "_kafka_timestamp")) == [0, 1]


def test_nulls_are_not_counted_as_values() -> None:
    pieces: list[list[int | None]] = [[9, None, None], [5, 5], [4, 4], [1]]
    assert kept_of(pieces, Top(3, "_kafka_timestamp", descending=True)) == [0, 1]
    assert kept_of(pieces, Top(4, "_kafka_timestamp", descending=True)) == [0, 1, 2]
