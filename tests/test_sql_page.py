"""docs/sql.md: what it says to write instead gives what the missing thing would give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from support_engine import TRADES, FolderTables

from flight_server.engine import Engine, Options, Statement
from flight_server.engine_errors import REPLACEMENTS
from flight_server.limits import Limits
from flight_server.protocol.errors import FlightSqlError, NotFound

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "sql.md").read_text()
MINUTE = 60_000_000


def trade(symbol: str, second: int, price: int, side: str) -> dict[str, object]:
    return {
        "symbol": symbol,
        "timestamp": second * 1_000_000,
        "price": Decimal(price),
        "quantity": Decimal(second + 1),
        "side": side,
    }


ROWS = [
    trade("A", 0, 10, "BUY"),
    trade("A", 20, 13, "SELL"),
    trade("A", 59, 11, "BUY"),
    trade("A", 61, 12, "SELL"),
    trade("B", 5, 7, "SELL"),
    trade("B", 305, 9, "BUY"),
    trade("B", 306, 8, "SELL"),
]
SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("price", pa.decimal128(18, 8), nullable=False),
        pa.field("quantity", pa.decimal128(18, 8), nullable=False),
        pa.field("side", pa.string(), nullable=False),
    ]
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    tables = FolderTables(tmp_path)
    history = pa.Table.from_pylist(ROWS[::2], SCHEMA)
    tables.publish(TRADES, [history], pa.Table.from_pylist(ROWS[1::2], SCHEMA).to_batches())
    made = Engine(tables, tables, Limits())
    yield made
    made.close()


def ask(engine: Engine, text: str) -> list[tuple[object, ...]]:
    answer = engine.stream(engine.plan(Statement(text), Options("market_data"))).read_all()
    return [tuple(row.values()) for row in answer.to_pylist()]


def block(first_words: str) -> str:
    """The SQL block of the page that starts so."""
    found = [b for b in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if first_words in b]
    assert len(found) == 1
    return found[0]


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


@pytest.mark.parametrize(
    ("written", "statement", "answer"),
    [
        (
            "first_value(x order by t desc nulls last)",
            (
                "select symbol, {} from (select symbol, price as x, timestamp as t from trades) "
                "group by 1 order by 1"
            ),
            [("A", Decimal(12)), ("B", Decimal(8))],
        ),
        (
            "first_value(x order by t)",
            (
                "select symbol, {} from (select symbol, price as x, timestamp as t from trades) "
                "group by 1 order by 1"
            ),
            [("A", Decimal(10)), ("B", Decimal(7))],
        ),
        (
            "date_bin(interval '5 minutes', t)",
            "select {}, count(*) from (select timestamp as t from trades) group by 1 order by 1",
            [(at(0), 5), (at(300), 2)],
        ),
        (
            "(to_unixtime(b) - to_unixtime(a)) / 60",
            "select {} from (select min(timestamp) as a, max(timestamp) as b from trades)",
            [(5,)],
        ),
        (
            "cast(date_part('epoch', t) * 1000 as bigint)",
            "select {} from (select max(timestamp) as t from trades)",
            [(306_000,)],
        ),
        (
            "to_char(t, f)",
            "select {} from (select max(timestamp) as t, '%Y-%m-%d %H:%M:%S' as f from trades)",
            [("1970-01-01 00:05:06",)],
        ),
        (
            "case when c then a else b end",
            "select {} from (values (true, 1, 2), (false, 1, 2)) v (c, a, b)",
            [(1,), (2,)],
        ),
        (
            "count(*) filter (where c)",
            "select {} from (select price > 10 as c from trades)",
            [(3,)],
        ),
        (
            "sum(x) filter (where side = 'BUY') as buy",
            (
                "select symbol, {}, sum(x) filter (where side = 'SELL') as sell "
                "from (select symbol, side, price as x from trades) group by 1 order by 1"
            ),
            [("A", Decimal(21), Decimal(25)), ("B", Decimal(9), Decimal(15))],
        ),
        ("where random() < 0.01", "select count(*) < 8 from trades {}", [(True,)]),
    ],
)
def test_a_replacement_means_what_the_missing_function_means(
    engine: Engine, written: str, statement: str, answer: list[tuple[object, ...]]
) -> None:
    assert written in PAGE
    assert ask(engine, statement.format(written)) == answer


def test_newest_per_group(engine: Engine) -> None:
    assert sorted(ask(engine, block("qualify row_number()"))) == [
        ("A", Decimal(12), at(61)),
        ("B", Decimal(8), at(306)),
    ]


def test_open_high_low_close(engine: Engine) -> None:
    d = Decimal
    assert sorted(ask(engine, block("as open"))) == [
        ("A", at(0), d(10), d(13), d(10), d(11), d(1 + 21 + 60)),
        ("A", at(60), d(12), d(12), d(12), d(12), d(62)),
        ("B", at(0), d(7), d(7), d(7), d(7), d(6)),
        ("B", at(300), d(9), d(9), d(8), d(8), d(306 + 307)),
    ]


def test_the_as_of_join_takes_the_last_one_before(engine: Engine) -> None:
    assert sorted(ask(engine, block("as last_buy"))) == [
        ("A", at(20), Decimal(13), Decimal(10)),
        ("A", at(61), Decimal(12), Decimal(11)),
        ("B", at(5), Decimal(7), None),
        ("B", at(306), Decimal(8), Decimal(9)),
    ]


def test_both_sums_of_the_page_agree(engine: Engine) -> None:
    doubles = dict(ask(engine, block("as notional")))
    exact = dict(ask(engine, block("as exact_notional")))
    assert {k: float(str(v)) for k, v in exact.items()} == doubles


@pytest.mark.parametrize("function", sorted(REPLACEMENTS))
def test_functions_that_errors_speak_of_are_really_missing(engine: Engine, function: str) -> None:
    """What the engine learns with a new version must leave the list."""
    arguments = {"if": "true, 1, 2", "iff": "true, 1, 2"}.get(function, "timestamp")
    with pytest.raises(NotFound, match=re.escape(REPLACEMENTS[function])):
        ask(engine, f"select {function}({arguments}) from trades")


@pytest.mark.parametrize(
    "statement",
    [
        "select * from trades a asof join trades b match_condition (a.timestamp >= b.timestamp)",
        "select * from trades pivot (sum(price) for side in ('BUY', 'SELL'))",
        "select * from (select max(price) x from trades) t, lateral (select t.x + 1) l",
    ],
)
def test_forms_that_the_page_calls_missing_are_typed_errors(engine: Engine, statement: str) -> None:
    with pytest.raises(FlightSqlError) as refused:
        ask(engine, statement)
    assert refused.value.code in {"INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND"}
    assert len(str(refused.value)) < 400


def test_what_the_page_says_of_numbers(engine: Engine) -> None:
    assert ask(engine, "select 0.1 + 0.2 = 0.3, arrow_typeof(1.5e0)") == [(True, "Float64")]
    wraps = "select 9223372036854775807 + n from (values (1)) v (n)"
    assert ask(engine, wraps) == [(-(2**63),)]
    assert "wrap around" in PAGE
    exact = "select sum(cast(n as decimal(38, 0))) from (values (9223372036854775807), (1)) v (n)"
    assert ask(engine, exact) == [(Decimal(2**63),)]
