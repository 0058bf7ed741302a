"""TPC-H, small: 22 of 22 answers are DuckDB's, over the data files that the tables consist of."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
import support_tpch as tpch

import flight_server
from flight_server.database import Database

QUERIES = tpch.queries()


@pytest.fixture(scope="module")
def engines(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Database, duckdb.DuckDBPyConnection]]:
    folder = tmp_path_factory.mktemp("tpch")
    duck = duckdb.connect()
    for name, data in tpch.make(folder, 0.01, "default").items():
        duck.sql(f"create view {name} as select * from read_parquet('{data}/*.parquet')")
    config = folder / "k2.toml"
    config.write_text(
        f'[catalog]\nname = "lake"\nuri = "sqlite:///{folder}/catalog.db"\n'
        f'warehouse = "file://{folder}/lake"\n[live]\nfolder = "{folder}/live"\n'
    )
    with flight_server.open(config) as database:
        yield database, duck


def test_there_are_twenty_two_queries() -> None:
    assert len(QUERIES) == len(set(QUERIES)) == 22


@pytest.mark.parametrize("number", range(1, 23))
def test_an_answer_is_duckdbs(
    engines: tuple[Database, duckdb.DuckDBPyConnection], number: int
) -> None:
    database, duck = engines
    ours = database.sql(QUERIES[number - 1]).arrow()
    theirs = duck.sql(QUERIES[number - 1]).to_arrow_table()
    assert tpch.same_rows(ours, theirs)
    assert ours.num_rows or number in EMPTY


#: Queries whose answer is empty at this scale.
EMPTY = {18}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"a": [1, 2], "b": ["x", "y"]}, True),
        ({"a": [1.0, 2.0], "b": ["x", "y"]}, True),
        ({"a": [1, 2], "b": ["x", "z"]}, False),
        ({"a": [1, 3], "b": ["x", "y"]}, False),
        ({"a": [2, 1], "b": ["y", "x"]}, False),
        ({"a": [1], "b": ["x"]}, False),
        ({"a": [1, None], "b": ["x", "y"]}, False),
        ({"a": [1, 2]}, False),
    ],
)
def test_answers_are_compared_value_by_value(*, other: dict[str, list[object]], same: bool) -> None:
    one = pa.table({"a": [1, 2], "b": ["x", "y"]})
    assert tpch.same_rows(one, pa.table(other)) == same
