"""History and tail in one answer, beside the same rows all in Parquet, and DuckDB over both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from chaos.market import DAY_US, START_US, SYMBOLS
from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog
from support_tpch import same_rows

from bench.figures import Figure, at_most
from bench.loaded import add_live, linked_history, with_history
from bench.peers import Ask, duckdb_asking, engine_asking
from bench.stage import SEED, Stage, running, say
from bench.suite import asked
from bench.turns import Turns, alternate

HISTORY_ROWS = 5_000_000
#: Rows of the tail.
LIVE = (0, 10_000, 1_000_000, 10_000_000)
#: The tail at which our share of the time has its goal.
GOAL_AT = 1_000_000
COLUMNS = "symbol, timestamp, price, quantity"
#: Orders are total as far as the rows differ at all, so that an answer is one answer.
QUESTIONS = {
    # In double: decimal sums of price × quantity overflow near 1.7 × 10^10.
    "VWAP by symbol": "select symbol, sum(cast(price as double) * cast(quantity as double))"
    " / sum(cast(quantity as double)) as vwap, count(*) as n from {trades}"
    " group by symbol order by symbol",
    "filter": f"select {COLUMNS} from {{trades}} where symbol = 'S07' and price >= 900"
    " order by timestamp, price, quantity",
    "TopK": f"select {COLUMNS} from {{trades}} order by timestamp desc, price, quantity limit 100",
    "trades-quotes join": "select t.symbol, count(*) as n, sum(t.quantity) as traded"
    " from {trades} t join {quotes} q"
    " on t.symbol = q.symbol and date_trunc('minute', t.timestamp) = q.minute"
    " where t.price between q.bid and q.ask group by t.symbol order by t.symbol",
}
OURS = {"trades": "market_data.trades", "quotes": "market_data.quotes"}
THEIRS = {"trades": "trades", "quotes": "quotes"}
ENGINE = "all in Parquet, in-process"
DUCKDB = "DuckDB, the same files + an Arrow table"


def lane(stage: Stage) -> list[Figure]:
    """Each question over each tail."""
    history = stage.scaled(HISTORY_ROWS)
    layout = with_history(stage, "hybrid", history)
    quotes = write_quotes(layout)
    files = linked_history(layout, stage.folder / "history")
    figures: list[Figure] = []
    with running(layout, "serve"), asked(layout) as ours:
        before = 0
        for rows in LIVE:
            live = stage.scaled(rows)
            add_live(stage, layout, live - before, history + live)
            before = live
            say(f"hybrid: {live:,} live rows")
            tail = ours(f'select {COLUMNS} from market_data."trades$live"')
            assert tail.num_rows == live, f"{tail.num_rows} rows live instead of {live}"
            with ExitStack() as stack:
                whole = all_in_parquet(files, tail, stage.folder / f"whole-{rows}")
                peers = {
                    "engine": engine_asking({"trades": whole, "quotes": quotes}),
                    "duck": duckdb_asking(
                        {"trades": files, "quotes": quotes}, {"trades": (COLUMNS, tail)}
                    ),
                }
                asks = {name: stack.enter_context(peer) for name, peer in peers.items()}
                for what, turns in measured(ours, asks):
                    name = f"{what}, {short(history)} history + {short(live)} live rows"
                    engine = turns.figure(name, "ours", ENGINE, "engine")
                    duck = turns.figure(name, "ours", DUCKDB, "duck")
                    figures.append(at_most(engine, 1.1) if rows == GOAL_AT else engine)
                    figures.append(at_most(duck, 1.0))
    return sorted(figures, key=lambda figure: list(QUESTIONS).index(figure.name.split(",")[0]))


def short(rows: int) -> str:
    """A number of rows as the page says it."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if rows >= size:
            return f"{rows / size:g} {unit}"
    return str(rows)


def measured(ours: Ask, peers: dict[str, Ask]) -> Iterator[tuple[str, Turns]]:
    """Question → times; the answers are compared first.

    Raises:
        AssertionError: a fast wrong answer is no figure.
    """
    for what, sql in QUESTIONS.items():
        texts = {"ours": (ours, sql.format(**OURS))}
        texts |= {name: (ask, sql.format(**THEIRS)) for name, ask in peers.items()}
        answers = {name: ask(text) for name, (ask, text) in texts.items()}
        for name, answer in answers.items():
            assert same_rows(answers["ours"], answer), f"{what}: {name} answers otherwise"
        assert answers["ours"].num_rows, f"{what} has no rows"
        yield what, alternate({name: lambda a=a, t=t: a(t) for name, (a, t) in texts.items()})


def all_in_parquet(files: Path, tail: pa.Table, folder: Path) -> Path:
    """History's files and one more with the tail."""
    folder.mkdir()
    for file in files.iterdir():
        os.link(file, folder / file.name)
    if tail.num_rows:
        pq.write_table(tail, folder / "tail.parquet", compression="zstd")
    return folder


def write_quotes(layout: Layout) -> Path:
    """One quote per symbol and minute of the market's two days, as an ordinary Iceberg table."""
    minutes = np.arange(START_US, START_US + 2 * DAY_US, 60_000_000)
    random = np.random.default_rng(SEED)
    rows = len(minutes) * SYMBOLS
    bids, spreads = random.integers(0, 900, rows), random.integers(1, 100, rows)
    quotes = pa.table(
        {
            "symbol": np.tile([f"S{number:02}" for number in range(SYMBOLS)], len(minutes)),
            "minute": pa.array(np.repeat(minutes, SYMBOLS)).cast(pa.timestamp("us", "UTC")),
            "bid": pa.array(bids).cast(pa.decimal128(21, 0)).cast(pa.decimal128(18, 8)),
            "ask": pa.array(bids + spreads).cast(pa.decimal128(21, 0)).cast(pa.decimal128(18, 8)),
        }
    )
    warehouse, database = f"file://{layout.folder}/lake", f"sqlite:///{layout.folder}/catalog.db"
    with closing(SqlCatalog("lake", uri=database, warehouse=warehouse)) as catalog:
        table = catalog.create_table("market_data.quotes", quotes.schema)
        table.append(quotes)
        return Path(table.location().removeprefix("file://")) / "data"
