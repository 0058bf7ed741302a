"""Strings are views, and batches small, where the engine computes; not where it only sends."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext
from support_engine import TRADES, TRADES_SCHEMA, FolderTables, trades

from catalog.scan import empty_listing
from flight_server.hybrid import Source, relation
from flight_server.sqltext import Bounds, read
from flight_server.tuning import TELLING, batches_for, may_be_views

SETTINGS = SessionConfig({"datafusion.sql_parser.map_string_types_to_utf8view": "false"})


def decided(sql: str) -> bool:
    context = SessionContext(SETTINGS)
    empty_listing(TRADES_SCHEMA, context)
    text = read(sql, Bounds())
    return may_be_views(context, text, context.sql(sql).optimized_logical_plan())


@pytest.mark.parametrize(
    "sql",
    [
        "select symbol, count(*) as n from files group by symbol order by n desc",
        "select distinct symbol from files",
        "select symbol, price from files order by price desc limit 10",
        "select symbol from files limit 10",
        "select a.price from files a join files b on a.symbol = b.symbol",
        "select price from files where symbol = 'AAA'",
        "explain select symbol, count(*) as n from files group by symbol",
    ],
)
def test_strings_are_views_where_few_of_them_are_the_answer(sql: str) -> None:
    assert decided(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select symbol, price from files",
        "select symbol, price from files where symbol > 'B'",
        "select symbol, price from files limit 1000000",
        "select symbol, price from files order by price limit 1000000",
        "select symbol, price from files offset 3",
        "select a.symbol from files a join files b on a._offset = b._offset",
        "explain select symbol from files",
        # The type itself would be the answer, or a part of it.
        "select arrow_typeof(symbol), count(*) from files group by 1",
        "select arrow_field(symbol)['data_type'] as kind, count(*) from files group by 1",
        "select array_agg(symbol) from files",
        # The engine compares a key of one kind with keys of the other, and fails.
        "select count(*) from files where map([symbol], [price])['AAA'] > 3",
        "select symbol, conditions from files limit 10",
        # Steps that are not known to give the same.
        "select unnest(conditions) as c, count(*) from files group by 1",
        "select count(*) from (select symbol from files union all select note from files) u",
    ],
)
def test_strings_are_plain_everywhere_else(sql: str) -> None:
    assert not decided(sql)


@pytest.mark.parametrize(
    ("sql", "size"),
    [
        ("select symbol, count(*) as n from files group by symbol order by n desc", "8192"),
        ("explain select distinct symbol from files", "8192"),
        ("select symbol from files order by price limit 10", "8192"),
        ("select symbol from files limit 10", "8192"),
        ("select symbol from files order by price", None),
        ("select symbol from files where price > 1", None),
        ("select symbol from files limit 1000000", None),
    ],
)
def test_batches_are_small_where_few_rows_are_the_answer(sql: str, size: str | None) -> None:
    context = SessionContext(SETTINGS)
    empty_listing(TRADES_SCHEMA, context)
    settings = batches_for(context.sql(sql).optimized_logical_plan())
    assert settings.get("datafusion.execution.batch_size") == size


STATEMENTS = (
    "select symbol, count(*) as n, max(note) as m from t group by symbol order by symbol",
    "select symbol, _topic, _offset from t where symbol in ('AAA', 'CCC') order by _offset",
    "select symbol || '/' || _topic as s, upper(symbol) as u, _offset from t order by 3 limit 7",
    "select a.symbol, count(*) as n from t a join t b on a.symbol = b.symbol group by 1 order by 1",
    "select _offset from t where symbol like 'B%' and symbol < 'BBC' order by 1",
    "select coalesce(note, symbol) as c, count(*) as n from t group by 1 order by 1",
    "select case when symbol = 'AAA' then 'x' else symbol end as c from t order by _offset limit 9",
    "select symbol, _offset from t order by symbol desc, _offset limit 11",
)


@pytest.mark.parametrize("sql", STATEMENTS)
def test_views_give_the_same_rows(tmp_path: Path, sql: str) -> None:
    tables = FolderTables(tmp_path)
    live = trades(300, 50).to_batches(max_chunksize=20)
    tables.publish(TRADES, [trades(100 * i, 100) for i in range(3)], live)
    answers = []
    for views in (False, True):
        context = SessionContext(SETTINGS)
        source = Source(tables.open(tables.pin(TRADES)), "hybrid", None, views=views)
        context.register_table("t", relation(context, source, tables).table)
        types = context.table("t").schema().types
        assert (pa.string_view() in types) == views
        assert (pa.string() in types) != views
        answers.append(context.sql(sql).to_pydict())
    assert answers[0] == answers[1]
    assert any(answers[0].values())


#: Texts that some function reads: words, dates, numbers, lists, patterns, and one that a view does
#: not hold inline.
TEXTS = (
    *("AAA", "a", "", None, "2024-03-01", "12", "\u00e9\u4e2d\U0001f600x", " b,c ", "[1,2]"),
    *("longer than twelve bytes", "%A_\\"),
)
#: Other arguments; ``s`` and ``u`` are the texts in two orders.
ARGUMENTS = (
    *("s", "s, u", "s, 'a'", "'a', s", "s, 2", "2, s", "n, s", "s, u, u", "s, 'a', 'b'"),
    *("s, 1, 2", "s, 2, 'x'", "'%Y', s", "s, '%Y-%m-%d'", "s, 'base64'", "s, 'g', 'x', 'g'"),
)
#: Their answers are other ones each time, or as long as a number in a text says.
NOT_ASKED = {
    *("current_date", "current_time", "current_timestamp", "now", "random", "today", "uuid"),
    *("generate_series", "lpad", "range", "repeat", "rpad"),
}


def test_no_other_function_tells_views_from_plain_strings() -> None:
    """Each function of the engine over either kind: the same values, or a refusal by both."""
    plain = {"datafusion.sql_parser.map_string_types_to_utf8view": "false"}
    context = SessionContext(SessionConfig(plain).with_information_schema(enabled=True))
    for name, kind in (("plain", pa.string()), ("viewed", pa.string_view())):
        columns = {"s": pa.array(TEXTS, kind), "u": pa.array(TEXTS[::-1], kind)}
        batch = pa.record_batch({**columns, "n": range(len(TEXTS))})
        context.register_record_batches(name, [[batch]])

    def answer(call: str, table: str) -> object:
        try:
            found = context.sql(f"select n % 2 as k, {call} as r from {table} group by 1, n, s, u")
            return sorted(map(str, found.to_pylist()))
        except BaseException as error:  # a panic of the engine is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            return "refused"

    listed = context.sql("select distinct routine_name as name from information_schema.routines")
    names = {row["name"] for row in listed.to_pylist()} - TELLING - NOT_ASKED
    calls = [f"{name}({arguments})" for name in sorted(names) for arguments in ARGUMENTS]
    answered = {call: answer(call, "plain") for call in calls}
    assert sum(each != "refused" for each in answered.values()) > 300
    assert [call for call in calls if answer(call, "viewed") != answered[call]] == []
