"""`flight_server.open`: the same engine and versions without a server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from support_house import FLUSH_ROWS, House, living

import flight_server
from catalog.errors import TableNotFound
from flight_server.database import Database
from flight_server.layers import ConfigRefused
from flight_server.protocol.errors import InvalidArgument, NotFound

PATIENCE_S = 120.0
FIRST = 2500
COUNT = "select count(*) as n from market_data.trades"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with living(tmp_path_factory.mktemp("house"), FIRST) as running:
        yield running


@pytest.fixture(scope="module")
def db(house: House) -> Iterator[Database]:
    with flight_server.open(house.config) as opened:
        until(lambda: count(opened) >= FIRST)
        until(lambda: number(opened, 'select count(*) as n from "trades$runs"') >= FLUSH_ROWS)
        yield opened


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def number(db: Database, sql: str) -> int:
    (row,) = db.sql(sql)
    return row["n"]


def count(db: Database) -> int:
    return number(db, COUNT)


def test_arrow_pandas_polars_and_rows_agree(db: Database) -> None:
    result = db.sql(
        """select symbol, count(*) as n, sum(quantity) as volume
           from market_data.trades group by symbol order by symbol"""
    )
    table = result.arrow()
    assert table.schema == result.schema
    assert sum(table["n"].to_pylist()) >= FIRST
    assert isinstance(table["volume"][0].as_py(), Decimal)
    assert list(result) == table.to_pylist()
    assert result.pandas()["symbol"].tolist() == table["symbol"].to_pylist()
    assert result.polars()["n"].to_list() == table["n"].to_pylist()


def test_history_and_tail_are_one_table(db: Database) -> None:
    (row,) = db.sql(
        """select (select count(*) from trades) as everything,
                  (select count(*) from "trades$runs") as history,
                  (select count(*) from "trades$live") as live,
                  (select count(distinct (_partition, _offset)) from trades) as places"""
    )
    assert row["everything"] == row["history"] + row["live"] == row["places"]
    assert row["history"] >= FLUSH_ROWS


def test_parameters_are_bound_in_order(db: Database) -> None:
    named = list(db.sql("select $2 as b, $1 as a", ["x", 7]))
    assert named == [{"b": 7, "a": "x"}]
    one = db.sql("select count(*) as n from trades where symbol = ?", ["KAR"])
    assert next(iter(one))["n"] > 0
    with pytest.raises(InvalidArgument, match="a list or a tuple"):
        db.sql("select ?", "KAR")  # a text is a sequence of letters


def test_a_pin_keeps_one_version_over_several_statements(db: Database, house: House) -> None:
    """Rule 16, over more than one statement; rule 17: it stays readable while the table grows."""
    with db.pin("trades") as pinned:
        before = next(iter(pinned.sql(COUNT)))["n"]
        kept = pinned.sql("select _partition, _offset from trades").arrow()
        house.feed(1500, seed=2)
        until(lambda: count(db) == before + 1500)
        assert next(iter(pinned.sql(COUNT)))["n"] == before
        again = pinned.sql("select _partition, _offset from trades").arrow()
        order = [("_partition", "ascending"), ("_offset", "ascending")]
        assert again.sort_by(order).equals(kept.sort_by(order))
        assert pinned.pins[0].name.table == "trades"
    assert count(db) == before + 1500


def test_a_result_reads_the_versions_that_it_was_planned_over(db: Database, house: House) -> None:
    result = db.sql(COUNT)
    before = next(iter(result))["n"]
    house.feed(100, seed=3)
    until(lambda: count(db) > before)
    assert next(iter(result))["n"] == before


def test_statements_stand_in_the_query_log(db: Database) -> None:
    count(db)
    rows = list(db.sql("select * from system.queries order by id desc"))
    assert {row["user"] for row in rows} == {"local"}
    finished = next(row for row in rows if row["statement"] == COUNT)
    assert (finished["state"], finished["rows"]) == ("finished", 1)
    assert finished["pins"] == ["market_data.trades"]


def test_errors_are_typed(db: Database) -> None:
    with pytest.raises(NotFound, match="trades"):
        db.sql("select 1 from market_data.trade")
    with pytest.raises(TableNotFound), db.pin("market_data.nothing"):
        pass


def test_tables_are_listed(db: Database) -> None:
    assert db.tables() == ["market_data.trades"]


def test_closing_twice_is_no_error(house: House) -> None:
    db = flight_server.open(house.config, {"limits": {"concurrency": 1}})
    db.close()
    db.close()


def test_spilled_data_leaves_nothing_behind(house: House) -> None:
    spill = house.config.parent / "k2-spill"
    left = spill / "k2-999999999-left"
    left.mkdir(parents=True)
    others = set(spill.iterdir()) - {left}
    with flight_server.open(house.config):
        assert not left.exists(), "a folder of an ended process"
        mine = set(spill.iterdir()) - others
        assert len(mine) == 1
        with flight_server.open(house.config):
            assert mine < set(spill.iterdir()), "a running one's stays"
    assert not mine & set(spill.iterdir())


def test_a_catalog_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "k2.toml").write_text("")
    with pytest.raises(ConfigRefused, match=r"catalog\.uri: missing"):
        flight_server.open(tmp_path / "k2.toml")


def test_importing_the_package_loads_no_engine() -> None:
    code = "import sys, flight_server; print('datafusion' in sys.modules, 'pyarrow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == ["False", "False"]
