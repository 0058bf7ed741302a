"""Counts, least and greatest values of whole tables come from what is known of them, exactly."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import SessionContext
from support_engine import START, TRADES, TRADES_SCHEMA, FolderTables, entries_of, trades

from catalog.scan import empty_listing
from flight_server.engine import Engine, Options, Statement
from flight_server.known import Fact, facts_of, known
from flight_server.limits import Limits

ROWS = Fact("count")


@pytest.mark.parametrize(
    ("sql", "facts"),
    [
        ("select count(*) from files", (ROWS,)),
        ("select count(1) as n from (select * from files) x limit 5", (ROWS,)),
        (
            "select max(_offset) as a, count(note), min(timestamp) b, max(_offset) from files f",
            (
                *(Fact("max", "_offset"), Fact("count", "note")),
                *(Fact("min", "timestamp"), Fact("max", "_offset")),
            ),
        ),
        ("select count(*) from files where price > 1", None),
        ("select count(*) from files where note is null", None),
        ("select count(*) from (select * from files limit 3) x", None),
        ("select count(*) from files limit 0", None),
        ("select count(*) from files offset 1", None),
        ("select count(*) + 1 from files", None),
        ("select count(*), sum(_offset) from files", None),
        ("select count(distinct _offset) from files", None),
        ("select count(_offset, note) from files", None),
        ("select count(null) from files", None),
        ("select count(*) filter (where price > 1) from files", None),
        ("select max(_offset) filter (where price > 1) from files", None),
        ("select count(*), max(_offset) filter (where price > 1) from files", None),
        ("select count(distinct _offset), count(distinct note) from files", None),
        ("select count(*) from files group by symbol", None),
        ("select max(0 - _offset) from files", None),
        ("select max(n) from (select 0 - _offset as n from files) x", None),
        ("select max(_offset) from (select 0 - _offset as _offset from files) x", None),
        ("select min(_offset) from files having count(*) > 1", None),
        ("select symbol, count(*) from files group by symbol", None),
        ("select max(_offset) over () from files limit 1", None),
        ("select count(*) from files a join files b on a._offset = b._offset", None),
        ("select count(*) from files union all select count(*) from files", None),
        ("select (select count(*) from files) as n from files", None),
    ],
)
def test_what_a_statement_asks_for(sql: str, facts: tuple[Fact, ...] | None) -> None:
    context = SessionContext()
    empty_listing(TRADES_SCHEMA, context)
    assert facts_of(context.sql(sql).optimized_logical_plan()) == facts


def test_nothing_is_read_for_them(tmp_path: Path) -> None:
    """The files may as well be away; where a row is needed, they are missed."""
    tables = FolderTables(tmp_path)
    tables.publish(TRADES, [trades(0, 100), trades(100, 100)], trades(200, 50).to_batches())
    for path, _ in tables.now[TRADES].files:
        path.unlink()
    engine = Engine(tables, tables, Limits())
    options = Options(schema="market_data")
    answers = []
    for part in ("trades", '"trades$runs"', '"trades$live"'):
        asked = f"select count(*) as n, min(timestamp) as a, max(_offset) as b from {part}"
        plan = engine.plan(Statement(asked), options)
        stream = engine.stream(plan)
        [row] = stream.read_all().to_pylist()
        answers.append((row["n"], row["a"].replace(tzinfo=None) - FIRST, row["b"]))
        assert [each.rows for each in stream.reports.values()] == [0]
    engine.close()
    zero = timedelta(0)
    assert answers == [(250, zero, 249), (200, zero, 199), (50, timedelta(seconds=200), 249)]


FIRST = START.replace(tzinfo=None)


def row_of(entries: pa.Table, *facts: Fact) -> list[object] | None:
    kinds = [
        pa.int64() if fact.kind == "count" else TRADES_SCHEMA.field(str(fact.column)).type
        for fact in facts
    ]
    schema = pa.schema([(f"{i}", kind) for i, kind in enumerate(kinds)])
    answer = known(facts, entries, (), schema)
    return None if answer is None else [column[0].as_py() for column in answer.columns]


def test_what_is_not_known_exactly_is_not_given(tmp_path: Path) -> None:
    made = [(tmp_path / f"{i}", trades(100 * i, 100)) for i in range(3)]
    entries = entries_of(TRADES_SCHEMA, made)
    newest = Fact("max", "_offset")
    assert row_of(entries, ROWS, newest) == [300, 299]
    for column in ("symbol", "price", "ratio", "conditions"):
        assert row_of(entries, Fact("min", column)) is None
        assert row_of(entries, ROWS, Fact("max", column)) is None
    for name, value in (
        ("deletes", [[], [], [0]]),
        ("partial", [False, False, True]),
        ("file_format", ["parquet", "orc", "parquet"]),
    ):
        at = entries.schema.get_field_index(name)
        field = entries.schema.field(at)
        touched = entries.set_column(at, field, pa.array(value, field.type))
        assert row_of(touched, ROWS) is None
    unknown = pa.Table.from_pylist(
        [
            {**row, "upper": {**row["upper"], "_offset": None if i else 99}}
            | {"null_count": {**row["null_count"], "note": None if i else 0}}
            for i, row in enumerate(entries.to_pylist())
        ],
        schema=entries.schema,
    )
    assert row_of(unknown, newest) is None
    assert row_of(unknown, Fact("count", "note")) is None
    assert row_of(unknown, ROWS, Fact("min", "_offset")) == [300, 0]


def test_a_column_of_nulls_has_no_least_value(tmp_path: Path) -> None:
    rows = trades(0, 10)
    at = rows.schema.get_field_index("_kafka_timestamp")
    nulls = rows.set_column(at, rows.schema.field(at), pa.nulls(10, rows.schema.field(at).type))
    facts = Fact("min", "_kafka_timestamp"), Fact("count", "_kafka_timestamp")
    assert row_of(entries_of(TRADES_SCHEMA, [(tmp_path / "a", nulls)]), *facts) == [None, 0]
    both = entries_of(TRADES_SCHEMA, [(tmp_path / "a", nulls), (tmp_path / "b", trades(10, 10))])
    found = row_of(both, *facts)
    assert found is not None
    assert found[0] is not None
    assert found[1] == 10
