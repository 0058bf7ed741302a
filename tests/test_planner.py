"""What the engine's planner knows of a relation: how many rows, and which are still wanted."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import SessionContext
from support_engine import PLAIN, TRADES, FolderTables, trades

from catalog.spec import TableName
from flight_server.hybrid import RowPart, Source, relation


@pytest.fixture
def tables(tmp_path: Path) -> FolderTables:
    """20,000 trades, half of them live, and a table of 40."""
    kept = FolderTables(tmp_path)
    many = pa.concat_tables([trades(1000 * i, 1000) for i in range(20)])
    live = many.slice(10_000).combine_chunks().to_batches(max_chunksize=2500)
    kept.publish(TRADES, [many.slice(0, 5000), many.slice(5000, 5000)], live)
    kept.publish(PLAIN, [trades(0, 40)], kind="plain")
    return kept


def context_of(tables: FolderTables, part: RowPart) -> SessionContext:
    context = SessionContext()
    parts: dict[TableName, RowPart] = {TRADES: part, PLAIN: "runs"}
    for name, table in (("many", TRADES), ("few", PLAIN)):
        version = tables.open(tables.pin(table))
        source = Source(version, parts[table], None, f"files of {name}")
        context.register_table(name, relation(context, source, tables).table)
    return context


def plan_of(context: SessionContext, sql: str) -> str:
    return str(context.sql(sql).execution_plan().display_indent())


@pytest.mark.parametrize("part", ["hybrid", "runs", "live"])
@pytest.mark.parametrize("tables_in", ["many join few", "few join many"])
def test_the_smaller_side_of_a_join_is_built(
    tables: FolderTables, part: RowPart, tables_in: str
) -> None:
    """Whichever side a statement names first, and wherever the rows of the larger one lie."""
    sql = f"select count(*), max(many.price), min(few.price) from {tables_in} using (symbol)"
    plan = plan_of(context_of(tables, part), sql)
    _, _, below = plan.partition("HashJoinExec")
    built = next(line for line in below.splitlines() if "DataSourceExec" in line)
    assert str(PLAIN) in built, plan


@pytest.mark.parametrize("part", ["hybrid", "runs"])
def test_a_reader_of_files_learns_which_rows_are_still_wanted(
    tables: FolderTables, part: RowPart
) -> None:
    """TopK and joins tell the files' reader through the union with the live rows."""
    context = context_of(tables, part)
    for sql in (
        "select * from many where price > 3 order by timestamp desc limit 5",
        "select many.price from many join few on many.symbol = few.symbol and few.price < 2",
    ):
        plan = plan_of(context, sql)
        read = [line for line in plan.splitlines() if "parquet" in line and str(TRADES) in line]
        assert read, plan
        assert all("DynamicFilter" in line for line in read), plan
