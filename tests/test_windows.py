"""Windows over groups, nulls and first rows are answered as DuckDB does, or refused in words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import duckdb
import pyarrow as pa
import pytest
from support_engine import FolderTables, ask

from catalog.spec import TableName
from flight_server.engine import Engine
from flight_server.limits import Limits
from flight_server.protocol.errors import Unimplemented

#: Rows of the table; more than one batch of the engine.
ROWS = 18_500


def rows() -> pa.Table:
    """``v`` is null in three rows of five, and in a row of gaps; ``g`` is one of three."""
    rng = random.Random(1)
    values = [None if rng.random() < 0.6 or i % 1000 < 40 else i for i in range(ROWS)]
    groups = [rng.randrange(3) for _ in range(ROWS)]
    return pa.table({"id": range(ROWS), "v": pa.array(values, pa.int64()), "g": groups})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    kept, whole = FolderTables(tmp_path_factory.mktemp("windows")), rows()
    files = [whole.slice(0, 9_000), whole.slice(9_000, 9_000)]
    kept.publish(TableName("market_data", "t"), files, whole.slice(18_000).to_batches())
    with closing(Engine(kept, kept, Limits())) as made:
        yield made


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.register("t", rows())
        yield made


@pytest.mark.parametrize(
    ("function", "arguments", "kept"),
    [
        ("lead", "v", "ignore nulls"),
        ("lead", "v, 1", "ignore nulls"),
        ("lead", "v, 30", ""),
        ("lead", "v, -2", "ignore nulls"),
        ("lag", "v", "ignore nulls"),
        ("lag", "v, 3", "ignore nulls"),
        ("lag", "v, -30", ""),
        ("lag", "v, -1", "ignore nulls"),
        ("last_value", "v", "ignore nulls"),
        ("nth_value", "v, 3", "ignore nulls"),
    ],
)
@pytest.mark.parametrize(
    "over",
    [
        "order by id",
        "partition by g order by id",
        "order by id desc",
        "order by id rows between unbounded preceding and current row",
        "order by id rows between unbounded preceding and unbounded following",
    ],
)
def test_rows_behind_nulls_are_seen(
    engine: Engine,
    duck: duckdb.DuckDBPyConnection,
    function: str,
    arguments: str,
    kept: str,
    over: str,
) -> None:
    for tail in ("", "where id >= 9000", "where id >= 1000", "where v is null"):
        first = "" if not tail else "limit 3"
        text = f"select id, {{}} over ({over}) as w from t {tail} order by id {first}"
        wanted = duck.execute(text.format(f"{function}({arguments} {kept})")).fetchall()
        assert ask(engine, text.format(f"{function}({arguments}) {kept}")) == wanted


@pytest.mark.parametrize(
    "shown",
    [
        "lead(v, 2) ignore nulls",
        "lag(v, -2) ignore nulls",
        "lead(coalesce(v, null), 5, 0) ignore nulls",
    ],
)
@pytest.mark.parametrize("within", ["{}", "select (select count(w) from ({})) as n"])
def test_rows_further_ahead_are_refused(engine: Engine, shown: str, within: str) -> None:
    text = f"select id, {shown} over (order by id) as w, lead(v, 7) over (order by id) from t"
    with pytest.raises(Unimplemented, match="IGNORE NULLS would lose values behind nulls"):
        ask(engine, within.format(text))


def test_windows_beside_them_are_answered(engine: Engine, duck: duckdb.DuckDBPyConnection) -> None:
    """What ignores nulls is told from what does not, and from a text that looks like it."""
    shown = (
        "lead(v, 2) over (order by id), last_value({}) over (order by id), 'lead(v, 2)IGNORE NULLS'"
    )
    text = f"select id, {shown} from t order by id limit 50"
    wanted = duck.execute(text.format("v ignore nulls")).fetchall()
    assert ask(engine, text.format("v) ignore nulls").replace("nulls)", "nulls")) == wanted
