"""Sub-queries behind IN: answered as DuckDB does over the same rows, or refused in words."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from support_engine import ask, assert_alike, trades_and_few, trades_and_few_in_duckdb

from flight_server.engine import Engine, Options, Statement
from flight_server.protocol.errors import FlightSqlError, Unimplemented

#: Every tenth quantity is null, in both tables.
N = "(select quantity from few)"
S = "_offset in (select _offset from few)"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with trades_and_few(tmp_path_factory.mktemp("nulls")) as made:
        yield made


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with trades_and_few_in_duckdb() as made:
        yield made


@pytest.mark.parametrize(
    "condition",
    [
        f"(_offset > 4) = (quantity in {N})",
        f"(_offset > 4) <> (quantity in {N})",
        f"(abs(_offset) > 400) = (quantity in {N})",
        f"(_offset > 400) = (quantity in {N} and _offset > 3)",
        f"coalesce(abs(_offset) < 0 or quantity in {N}, true)",
        f"coalesce(note = 'x', quantity in {N}, true)",
        f"not (symbol <> 'a\nb' and quantity in {N})",
        f'not ("LIKE1".symbol <> \'x\' and "LIKE1".quantity in {N})',
        f"case when quantity in {N} then false else true end",
        f"(quantity in {N}) in (select _offset > 3 from few)",
        f"quantity not in {N} or _offset = 3",
        f"not (quantity not in {N} or _offset = 3) is null",
        f"not (not (quantity not in {N} or _offset = 3))",
        f"7 not in {N}",
        "nullif(_offset, 7) not in (select _offset from few)",
        "case when _offset <> 7 then _offset end not in (select _offset from few)",
        "not (_offset + nullif(_offset, 7) in (select _offset from few))",
        'quantity not in (select f.quantity from few f where f.symbol = "LIKE1".symbol)',
        (
            "quantity not in"
            " (select f.quantity from few f where f.symbol || 'a\nb' <> \"LIKE1\".symbol)"
        ),
        'quantity not in (select f.quantity from few f where f._offset < "LIKE1"._offset)',
        f"(quantity in {N}) is null",
        f"(quantity in {N} or _offset = 3) is not true",
        f"exists (select 1 from few f where (f._offset > 4) = (f.quantity in {N}))",
        f"_offset in (select _offset from few f where not (symbol <> 'x' and f.quantity in {N}))",
        f"_offset in (select _offset from few f where (f.quantity in {N} or f.note = 'x') is null)",
        f"_offset in (select _offset from few f where f.quantity not in {N} or f._offset = 3)",
        (
            "_offset in (select _offset from few f"
            f" where price > 3 between false and f._offset > 4 and f.quantity in {N})"
        ),
        f"_offset < (select max(_offset) from few f where coalesce(f.quantity in {N}, true))",
    ],
)
def test_what_would_lose_a_null_is_refused(engine: Engine, condition: str) -> None:
    """The engine would answer with false in the place of null, or the other way round."""
    with pytest.raises(Unimplemented, match="NOT EXISTS"):
        ask(engine, f'select count(*) from trades as "LIKE1" where {condition}')


@pytest.mark.parametrize(
    "text",
    [
        (
            "select max(quantity) from trades group by symbol"
            f" having (count(*) > 1000) = (max(quantity) in {N})"
        ),
        (
            "select count(*) from trades t join few f"
            f" on t._offset = f._offset and (t._offset > 1000) = (t.quantity in {N})"
        ),
        f"select count(*) from trades t left join few f on t._offset = f._offset and t.{S}",
        f"select {S} from trades",
        f"select symbol from trades order by {S}",
        f"select sum(case when {S} then 1 else 0 end) from trades",
        f"select count(*) filter (where {S}) from trades",
    ],
)
def test_it_is_refused_in_the_same_words_elsewhere(engine: Engine, text: str) -> None:
    """Also where the engine cannot make a join of it at all."""
    with pytest.raises(Unimplemented, match="NOT EXISTS"):
        ask(engine, text)


@pytest.mark.parametrize(
    "condition",
    [
        f"{S} or not price > 5",
        f"{S} or not (note is null)",
        f"{S} or upper(note) is null",
        f"{S} or symbol is distinct from 'AAA'",
        f"{S} or case when price > 3 then true else false end",
        f"({S} or price > 5) and not (price > 3)",
        f"{S} or symbol = 'CASE'",
        f"{S} or note = 'I do NOT know'",
        f"{S} or note = 'a\nb'",
        "note = 'x IN (<subquery>) CASE' or price < 3",
        f"quantity in {N} or _offset = 10",
        f"quantity in {N} or quantity in (select _offset from few) and not price > 5",
        f"not (quantity not in {N}) or price > 300",
        f"not (_offset > 4 and quantity not in {N})",
        f"quantity not in {N}",
        f"quantity <> all {N}",
        f"not ({S})",
        "_offset not in (select _offset from few)",
        "_offset + 1 not in (select _offset from few)",
        "quantity + 1 not in (select _offset from few)",
        "lower(symbol) not in (select symbol from few)",
        "_offset not in (select nullif(_offset, 7) from few)",
        "nullif(_offset, 7) in (select _offset from few) or price > 300",
        f"{S} or not exists (select 1 from few)",
        f"not (price > 5 or quantity in {N})",
        "not (price > 5 or quantity in (select quantity from few where quantity > 3))",
        "quantity not in (select quantity from few where quantity > 3) and price > 3",
        "quantity in (select f.quantity from few f where f.symbol = trades.symbol) or price < 3",
        (
            "quantity not in (select quantity from few f where exists"
            " (select 1 from few g where g._offset = f._offset and g.quantity > 3))"
        ),
        f"_offset in (select _offset from few f where f.quantity in {N})",
        f"_offset in (select _offset from few f where f.quantity in {N} or f._offset % 2 = 0)",
        f"_offset in (select _offset from few where price between 1 and 30 and quantity in {N})",
        f"_offset in (select _offset from few f where f.quantity not in {N} and price > 3)",
        f"exists (select 1 from few f where f._offset = trades._offset and f.quantity in {N})",
        f"price < (select max(price) from few where quantity in {N} and lower(symbol) = 'aaa')",
    ],
)
def test_what_asks_only_for_truth_is_answered(
    engine: Engine, duck: duckdb.DuckDBPyConnection, condition: str
) -> None:
    assert_alike(engine, duck, f"select _offset from trades where {condition} order by 1")


@pytest.mark.parametrize("word", ["= any", "<> any", "> all"])
def test_any_and_all_inside_a_sub_query_are_refused(engine: Engine, word: str) -> None:
    """The engine finds rows where none fulfil it, and the other way round."""
    inner = f"select _offset from few where quantity {word} (select quantity from few)"
    with pytest.raises(Unimplemented, match="inside a further sub-query"):
        ask(engine, f"select count(*) from trades where _offset in ({inner})")


@pytest.mark.parametrize(
    ("word", "said"), [("= any", "="), ("<> all", "<>"), ("> all", ">"), ("< any", "<")]
)
def test_any_and_all_over_a_table_of_the_same_name_are_refused(
    engine: Engine, duck: duckdb.DuckDBPyConnection, word: str, said: str
) -> None:
    """The engine would compare each row of the sub-query with itself."""
    text = f"select count(*) from {{}} where quantity {word} (select quantity from {{}}{{}})"
    low = " where _offset < 5 and quantity is not null"
    for outside, inside in (("few", "few"), ("market_data.few", "few"), ("trades few", "few")):
        with pytest.raises(Unimplemented, match="give it another name"):
            ask(engine, text.format(outside, inside, low))
    for outside, inside in (
        ("few", "few as f"),
        ("few", "trades"),
        ("trades few", "few f"),
    ):
        assert_alike(engine, duck, text.format(outside, inside, low))
    with pytest.raises(Unimplemented, match="in WHERE, HAVING and ON only"):
        ask(engine, f"select quantity {said} any (select f.quantity from few f) from few")


@pytest.mark.parametrize(
    "text",
    [
        (
            "select count(*) from trades t join few f on t._offset = f._offset"
            f" and (t.quantity in {N} or f.price > 30)"
        ),
        (
            "select symbol, count(*) from trades group by symbol"
            " having symbol in (select symbol from few) or max(note) is null order by 1"
        ),
        (
            f"with x as (select * from trades where quantity in {N} or note is not null)"
            " select count(*) from x"
        ),
    ],
)
def test_joins_and_groups_are_answered(
    engine: Engine, duck: duckdb.DuckDBPyConnection, text: str
) -> None:
    assert_alike(engine, duck, text)


@pytest.mark.parametrize("values", [[False, True], [True, False], [True]])
def test_no_value_hides_from_the_check_what_another_shows(
    engine: Engine, values: list[bool]
) -> None:
    """The first one may leave nothing of a condition."""
    sets = pa.record_batch([pa.array(values)], names=["1"])
    for condition in (
        f"not (quantity in {N} and _offset < 4 and $1)",
        "$1 and quantity not in (select f.quantity from few f where f.symbol || 'q' <> t.symbol)",
    ):
        with pytest.raises(Unimplemented, match="NOT EXISTS"):
            ask(engine, f"select count(*) from trades t where {condition}", sets)


@pytest.mark.parametrize(
    "condition",
    [
        f"(t.ratio is not distinct from cast('0.5' as double)) and t.quantity not in {N}",
        f"(t.ratio is not distinct from null) and t.quantity not in {N}",
        "t._offset not in (select f.quantity from few f where f.note is not distinct from 'a')",
        f"t.quantity not in {N} and t.quantity + 0 is not distinct from t.quantity",
        f"t.quantity not in {N} and t.quantity is not distinct from f.quantity",
    ],
)
def test_nulls_behind_not_in_are_kept_beside_equal_nulls(
    engine: Engine, duck: duckdb.DuckDBPyConnection, condition: str
) -> None:
    """Equal nulls among joins want joins without keys, and NOT IN wants its key."""
    text = f"select count(*) from trades t join few f on t._offset = f._offset where {condition}"
    if condition.endswith("quantity"):
        with pytest.raises(Unimplemented, match="NOT EXISTS"):
            ask(engine, text)
    else:
        assert_alike(engine, duck, text)


def test_explained_statements_are_judged_alike(engine: Engine) -> None:
    assert ask(engine, f"explain select 1 from trades where {S} or not price > 5")
    with pytest.raises(Unimplemented, match="NOT EXISTS"):
        ask(engine, f"explain select 1 from trades where (_offset > 4) = (quantity in {N})")


def test_it_is_refused_when_it_is_prepared(engine: Engine) -> None:
    """Before a value is bound."""
    text = f"select count(*) from trades where (_offset > $1) = (quantity in {N})"
    with pytest.raises(Unimplemented, match="NOT EXISTS"):
        engine.plan(Statement(text), Options(schema="market_data"))


def test_every_value_has_the_cautions_of_its_own_joins(engine: Engine) -> None:
    """A filter above a right join: the first value leaves no join, the second one does."""
    text = (
        "select f._offset as n from trades t right join few f on t._offset = f._offset + 3"
        " where $1 and (t.quantity + f.quantity) is null order by 1"
    )
    wanted = [(n,) for n in range(40) if n % 10 == 0 or (n + 3) % 10 == 0]
    for values in ([False, True], [True, False]):
        sets = pa.record_batch([pa.array(values)], names=["1"])
        assert ask(engine, text, sets) == wanted


def test_a_long_condition_is_judged_quickly(engine: Engine) -> None:
    """Judging the text of a sub-query takes time in proportion to it, also where it fails."""
    calls = ", ".join(f"coalesce(symbol, '{n}')" for n in range(40))
    inner = f"concat({calls}, (('x'))) like '(%' and concat({calls}) is not null"
    text = f"select 1 from trades where _offset in (select _offset from few where {inner}"
    with pytest.raises(FlightSqlError):
        ask(engine, f"{text} and (quantity in {N}) = (price > 3))")
