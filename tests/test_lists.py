"""Lists behind IN are answered as DuckDB does over the same rows, or refused in words."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from support_engine import ask, assert_alike, trades_and_few, trades_and_few_in_duckdb

from flight_server.engine import Engine
from flight_server.protocol.errors import Unimplemented

#: Every tenth quantity is null; the others are offset % 7.
Q = "quantity"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with trades_and_few(tmp_path_factory.mktemp("lists")) as made:
        yield made


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with trades_and_few_in_duckdb() as made:
        yield made


@pytest.mark.parametrize(
    "condition",
    [
        f"{Q} not in (1, 2) or {Q} not in (3, 4)",
        f"{Q} not in (1, 2, 3, 4) or {Q} not in (5, 6, 7, 8)",
        f"{Q} not in (1, 2) or _offset = 7 or {Q} not in (3, 4)",
        f"not ({Q} in (1, 2) and {Q} in (3, 4))",
        f"not ({Q} in (1, 2) and {Q} not in (1, 2, 3))",
        f"({Q} in (1, 2) and {Q} in (3, 4)) is null",
        f"coalesce({Q} in (1, 2) and {Q} not in (2, 1), true)",
        f"case when {Q} in (1, 2) and {Q} in (3, 4) then 1 else 2 end = 2 and 1 = 2",
        f"_offset > 3 and (_offset < 3 or not ({Q} in (1, 2) and {Q} in (3, 4)))",
        f"{Q} + 1 not in (1, 2) or {Q} + 1 not in (3, 4)",
        f"_offset in (select _offset from trades where {Q} not in (1, 2) or {Q} not in (3, 4))",
        f"_offset < (select max(_offset) from trades where {Q} not in (1) or {Q} not in (3))",
    ],
)
def test_what_would_lose_a_null_is_refused(engine: Engine, condition: str) -> None:
    with pytest.raises(Unimplemented, match="IS NOT NULL"):
        ask(engine, f"select _offset from trades where {condition}")


@pytest.mark.parametrize(
    "text",
    [
        f"select {Q} in (1, 2) and {Q} in (3, 4) from trades",
        f"select sum(case when {Q} in (1, 2) and {Q} in (3, 4) then 1 else 2 end) from trades",
        f"select count(*) from trades group by {Q} not in (1, 2) or {Q} not in (3, 4)",
        (
            f"select count(*) from (select {Q} not in (1, 2) as p, {Q} not in (3, 4) as q"
            " from trades) where p or q"
        ),
        f"select count(*) from trades a join trades b on a.{Q} not in (1) or a.{Q} not in (2)",
    ],
)
def test_it_is_refused_wherever_the_lists_meet(engine: Engine, text: str) -> None:
    with pytest.raises(Unimplemented, match="IS NOT NULL"):
        ask(engine, text)


@pytest.mark.parametrize(
    "condition",
    [
        f"{Q} in (1, 2) and {Q} in (3, 4)",
        f"{Q} in (1, 2) and {Q} not in (1, 2, 3)",
        f"_offset < 9 or {Q} in (1, 2) and {Q} in (3, 4)",
        f"{Q} not in (1, 2) and {Q} not in (3, 4)",
        f"{Q} in (1, 2) or {Q} in (3, 4)",
        f"{Q} not in (1, 2) or {Q} not in (2, 3)",
        f"{Q} in (1, 2) or {Q} not in (3, 4)",
        f"not ({Q} not in (1, 2) or {Q} not in (3, 4))",
        f"not ({Q} in (1, 2) or {Q} in (3, 4))",
        f"{Q} not in (1, 2) or _offset not in (3, 4)",
        f"case when {Q} in (1, 2) then 1 when {Q} in (3, 4) then 2 end = 2",
        f"({Q} in (1, 2) or {Q} in (3, 4)) is null",
        f"{Q} not in (1, 2) or exists (select 1 from trades t where t.{Q} not in (3, 4))",
        "symbol <> 'x IN ([1]) y IN ([1]) x IN ([2])'",
    ],
)
def test_other_lists_are_answered(
    engine: Engine, duck: duckdb.DuckDBPyConnection, condition: str
) -> None:
    assert_alike(engine, duck, f"select _offset from trades where {condition} order by 1")


def test_each_set_of_values_is_judged(engine: Engine) -> None:
    text = f"select count(*) as n from trades where {Q} not in ($1, $2) or {Q} not in ($3, $4)"
    right, wrong = [1, 2, 1, 4], [1, 2, 3, 4]
    names = ["1", "2", "3", "4"]
    for sets in ([right], [right, right]):
        columns = [pa.array(column, pa.int64()) for column in zip(*sets, strict=True)]
        assert len(ask(engine, text, pa.record_batch(columns, names=names))) == len(sets)
    for sets in ([wrong], [right, wrong], [wrong, right]):
        columns = [pa.array(column, pa.int64()) for column in zip(*sets, strict=True)]
        with pytest.raises(Unimplemented, match="IS NOT NULL"):
            ask(engine, text, pa.record_batch(columns, names=names))


def test_long_values_are_judged_quickly(engine: Engine) -> None:
    """In time in proportion to the text that they make of a plan: a second, or many minutes."""
    values = pa.record_batch([pa.array(["x" * 2**20]), pa.array([" IN ([" * 2**15])], ["1", "2"])
    assert ask(engine, "select count(*) from trades where symbol in ($1, $2, 'AAA')", values)
