"""Every lane's answers, small: that it still runs, and that a wrong answer fails it."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from chaos.market import START_US
from support_kafka import Broker
from support_stack import Stack, free_port

from bench import (
    fetch_lane,
    files_lane,
    growth_lane,
    hybrid_lane,
    latency_lane,
    pool_lane,
    suite,
)
from bench.crowd import crowd
from bench.lanes import LANES
from bench.peers import Ask, Peers, server
from bench.stage import Stage

#: A thousandth of everything.
SHRINK = 1000


@pytest.fixture
def stage(kafka: Broker, tmp_path: Path) -> Stage:
    return Stage(kafka, tmp_path, SHRINK, Stack(Path(os.environ["K2_TEST_STACK"])))


#: Lanes that load or kill processes for a while: `make bench ARGS="--quick …"` shows them.
LONG = {"freshness", "pool", "recovery"}


@pytest.mark.parametrize("lane", [lane for lane in LANES if lane not in LONG])
def test_the_lane_answers(lane: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes compare answers themselves; a peer that is not there has a line of its own."""
    for name, less in {"SECONDS": 0.1, "ROUNDS": 1, "CLIENTS": (1, 2)}.items():
        monkeypatch.setattr(latency_lane, name, less)
    monkeypatch.setattr(files_lane, "ROUNDS", 1)
    monkeypatch.setattr(growth_lane, "SEGMENTS", (1, 2))
    figures = LANES[lane](stage)
    assert figures
    for figure in figures:
        assert figure.value is not None or figure.note, figure


# --- a wrong answer -----------------------------------------------------------------------------

TRADES = pa.table(
    {
        "symbol": ["S07", "S07", "S08"],
        "timestamp": pa.array([START_US, START_US + 1, START_US + 2]).cast(
            pa.timestamp("us", "UTC")
        ),
        "price": [901, 902, 5],
        "quantity": [1, 2, 3],
    }
)
WRONG = TRADES.set_column(3, "quantity", pc.add(TRADES["quantity"], pa.scalar(1)))
QUOTES = pa.table(
    {
        "symbol": ["S08"],
        "minute": pa.array([START_US]).cast(pa.timestamp("us", "UTC")),
        "bid": [1],
        "ask": [9],
    }
)


def over(duck: duckdb.DuckDBPyConnection, trades: pa.Table) -> Ask:
    """An engine over these trades, under our names and under theirs."""
    one = duck.cursor()
    one.register("rows", trades)
    one.register("quoted", QUOTES)
    one.sql("create schema if not exists market_data")
    for schema in ("main", "market_data"):
        one.sql(f"create or replace view {schema}.trades as select * from rows")
        one.sql(f"create or replace view {schema}.quotes as select * from quoted")
    return lambda sql: one.sql(sql).to_arrow_table()


def test_the_hybrid_lane_ends_at_another_answer() -> None:
    with closing(duckdb.connect()) as one, closing(duckdb.connect()) as two:
        same = hybrid_lane.measured(over(one, TRADES), {"engine": over(two, TRADES)})
        assert [what for what, _ in same] == list(hybrid_lane.QUESTIONS)
        other = hybrid_lane.measured(over(one, TRADES), {"engine": over(two, WRONG)})
        with pytest.raises(AssertionError, match="VWAP by symbol: engine answers otherwise"):
            list(other)


def test_the_hybrid_lane_ends_at_an_empty_answer() -> None:
    with closing(duckdb.connect()) as one:
        ours = over(one, TRADES.slice(0, 0))
        with pytest.raises(AssertionError, match="has no rows"):
            list(hybrid_lane.measured(ours, {"engine": ours}))


def test_a_suite_ends_where_a_judge_answers_otherwise_and_excuses_others() -> None:
    sql = "select sum(quantity) as q from trades"
    with closing(duckdb.connect()) as one, closing(duckdb.connect()) as two:
        ours, wrong = over(one, TRADES), over(two, WRONG)
        with pytest.raises(AssertionError, match="query 3: DuckDB answers otherwise"):
            suite.agreeing(3, sql, ours, {"DuckDB": wrong}, {"DuckDB": {}})
        with pytest.raises(duckdb.Error):
            suite.agreeing(3, sql, ours, {"engine": lambda _: wrong("no sql")}, {})
        excused: dict[str, dict[int, str]] = {"chDB": {}, "ROAPI": {}, "DuckDB": {}}
        peers = {"chDB": wrong, "ROAPI": lambda _: wrong("no sql"), "DuckDB": ours}
        assert suite.agreeing(3, sql, ours, peers, excused) == ["DuckDB"]
        assert excused == {"chDB": {3: "another answer"}, "ROAPI": {3: "refused"}, "DuckDB": {}}


def test_fetched_rows_are_compared_whatever_their_order() -> None:
    backwards = TRADES.take(pa.array([2, 1, 0]))
    assert fetch_lane.same_columns(TRADES, backwards)
    assert not fetch_lane.same_columns(TRADES, WRONG)
    assert not fetch_lane.same_columns(TRADES, TRADES.slice(1))


def test_a_sort_that_is_no_order_fails_the_pool_lane() -> None:
    rows = pa.table({"word": ["a", "b", "c"], "id": [1, 2, 3]})
    pool_lane.check(rows, 3)
    for wrong in (rows.take(pa.array([0, 2, 1])), rows.slice(1), pa.table({"n": [2]})):
        with pytest.raises(AssertionError):
            pool_lane.check(wrong, 3)


def test_a_crowd_that_is_refused_fails_what_it_surrounds() -> None:
    nobody = f"grpc://127.0.0.1:{free_port()}"
    with pytest.raises(AssertionError, match="OperationalError"), crowd(nobody):
        pass


# --- a peer that is not there -------------------------------------------------------------------


def test_a_peer_that_cannot_be_started_has_a_reason(tmp_path: Path) -> None:
    with Peers() as peers:
        peers.add("Nobody", server("no-such-peer", [], free_port(), tmp_path))
        peers.add("Silent", server("k2", ["--version"], free_port(), tmp_path))
    assert peers.asks == {}
    assert peers.missing["Nobody"] == "no-such-peer is not installed: make bench installs it"
    assert "k2 does not listen" in peers.missing["Silent"]
