"""Queries over history and tail: aggregation, and whole tables through the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import datafusion
import duckdb
import pyarrow as pa
import pyarrow.flight as fl
import pyarrow.parquet as pq
from chaos.site import Layout
from support_site import connect as connected

from bench.bare import Bare, bare_client
from bench.figures import Figure, at_least, at_most
from bench.stage import (
    Stage,
    fill,
    running,
    say,
    set_keys,
    settle,
    wait_for,
)
from flight_server.protocol.codec import encode_command
from flight_server.protocol.messages import StatementQuery

HISTORY_ROWS = 5_000_000
LIVE_ROWS = 1_000_000
#: Rows of the live table when it is fetched whole.
FETCHED_ROWS = 5_000_000
#: In double: decimal sums of price × quantity overflow near 1.7 × 10^10.
VWAP = (
    "select symbol, sum(cast(price as double) * cast(quantity as double))"
    " / sum(cast(quantity as double)) as vwap, count(*) as n from {table} group by symbol"
)
#: Columns of a whole-table fetch: what a research notebook asks for.
FETCHED = "symbol, exchange, timestamp, price, quantity, side, source_sequence"
REPEATS = 5


def lanes(stage: Stage) -> list[Figure]:
    """All of them over one loaded table."""
    layout = stage.site("queries", flush_rows=stage.scaled(1_000_000))
    _load(stage, layout)
    with running(layout, "serve"), connected(layout) as connection:
        wait_for(layout, visible=stage.scaled(HISTORY_ROWS + LIVE_ROWS))
        figures = _vwap(stage, connection)
        _more_live(stage, layout)
        figures += _fetch(layout, connection)
    return figures


def _load(stage: Stage, layout: Layout) -> None:
    """History first, committed; then a tail that no flush takes away."""
    history, live = stage.scaled(HISTORY_ROWS), stage.scaled(LIVE_ROWS)
    set_keys(layout, flush_age_s=5)
    say(f"queries: loading {history:,} rows of history")
    with running(layout, "ingest"):
        fill(stage.broker, layout.topic, history)
        wait_for(layout, committed=history)
    set_keys(layout, flush_age_s=1_000_000, flush_rows=1_000_000_000)
    layout.config.write_text(layout.config.read_text() + 'flush_bytes = "1TiB"\n')
    say(f"queries: {live:,} live rows")
    fill(stage.broker, layout.topic, live, seed=3)


def _more_live(stage: Stage, layout: Layout) -> None:
    say("queries: more live rows")
    fill(stage.broker, layout.topic, stage.scaled(FETCHED_ROWS - LIVE_ROWS), seed=4)
    wait_for(layout, visible=stage.scaled(HISTORY_ROWS + FETCHED_ROWS))
    settle(layout)


def _vwap(stage: Stage, connection: flightsql.Connection) -> list[Figure]:
    say("queries: vwap")
    table = "market_data.trades"
    whole = stage.folder / "vwap"
    whole.mkdir()
    for part in ("runs", "live"):
        _export(connection, part, whole / f"{part}.parquet")
    tail = pq.read_table(whole / "live.parquet")

    context = datafusion.SessionContext()
    context.register_parquet("whole", str(whole))
    duck = duckdb.connect()
    duck.register("tail", tail)
    union = (
        f"(select symbol, price, quantity from read_parquet('{whole}/runs.parquet')"
        " union all select symbol, price, quantity from tail)"
    )

    def ours() -> pa.Table:
        with connection.cursor() as cursor:
            cursor.execute(VWAP.format(table=table))
            return cursor.fetch_arrow_table()

    here = context.sql(VWAP.format(table="whole"))
    answers = {
        "ours": ours(),
        "parquet": pa.Table.from_batches(here.collect()),
        "duck": duck.sql(VWAP.format(table=union)).to_arrow_table(),
    }
    _agree(answers)
    best = alternate(
        {
            "ours": ours,
            "parquet": lambda: context.sql(VWAP.format(table="whole")).collect(),
            "duck": lambda: duck.sql(VWAP.format(table=union)).to_arrow_table(),
        }
    )
    name = "VWAP by symbol, history + live, through ADBC"
    return [
        at_most(
            Figure(name, best["ours"], "s", "same rows in Parquet, in-process", best["parquet"]),
            1.15,
        ),
        at_most(Figure(name, best["ours"], "s", "DuckDB, Parquet + Arrow", best["duck"]), 1.0),
    ]


def _agree(answers: dict[str, pa.Table]) -> None:
    """A fast wrong answer is no figure."""
    rows = {
        who: {row["symbol"]: (row["n"], row["vwap"]) for row in answer.to_pylist()}
        for who, answer in answers.items()
    }
    expected = rows.pop("duck")
    for who, found in rows.items():
        assert found.keys() == expected.keys(), who
        for symbol, (count, price) in expected.items():
            assert found[symbol][0] == count, (who, symbol)
            assert abs(found[symbol][1] / price - 1) < 1e-9, (who, symbol)


def _export(connection: flightsql.Connection, part: str, file: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'select symbol, price, quantity from market_data."trades${part}"')
        reader = cursor.fetch_record_batch()
        with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)


def alternate(lanes_: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """The best time of each, measured in turns, so that a noisy moment hits all alike."""
    best = dict.fromkeys(lanes_, float("inf"))
    for _ in range(repeats):
        for name, body in lanes_.items():
            began = time.perf_counter()
            body()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


# --- whole tables -------------------------------------------------------------------------------


def _fetch(layout: Layout, connection: flightsql.Connection) -> list[Figure]:
    say("queries: fetching whole tables")

    client = fl.connect(layout.uri)

    def through_wire(part: str) -> Callable[[], pa.Table]:
        """With the client of the raw stream: a yardstick differs in one thing."""
        query = StatementQuery(f'select {FETCHED} from market_data."trades${part}"')
        descriptor = fl.FlightDescriptor.for_command(encode_command(query))

        def fetch() -> pa.Table:
            info = client.get_flight_info(descriptor)
            return client.do_get(info.endpoints[0].ticket).read_all()

        return fetch

    def through_adbc() -> pa.Table:
        with connection.cursor() as cursor:
            cursor.execute(f'select {FETCHED} from market_data."trades$runs"')
            return cursor.fetch_arrow_table()

    history, live = through_wire("runs")(), through_wire("live")()
    nested = {"datafusion.execution.listing_table_ignore_subdirectory": "false"}
    context = datafusion.SessionContext(datafusion.SessionConfig(nested))
    context.register_parquet("runs", str(layout.folder / "lake"))

    def collect() -> object:
        return context.sql(f"select {FETCHED} from runs").collect()

    with Bare(history) as runs, Bare(live) as tail:
        best = alternate(
            {
                "history": through_wire("runs"),
                "adbc": through_adbc,
                "live": through_wire("live"),
                "collect": collect,
                "raw history": bare_client(runs.port)[0],
                "raw live": bare_client(tail.port)[0],
            },
        )
    slower = max(best["collect"], best["raw history"])
    client.close()
    detail = {"collect_s": best["collect"], "raw_s": best["raw history"], "adbc_s": best["adbc"]}
    rate, raw = live.num_rows / best["live"], live.num_rows / best["raw live"]
    return [
        at_most(
            Figure(
                f"fetch {history.num_rows / 1e6:g} M rows of history",
                *(best["history"], "s", "larger of collect and raw stream", slower),
                detail=detail,
            ),
            1.25,
        ),
        at_least(
            Figure(
                f"fetch {live.num_rows / 1e6:g} M live rows",
                *(rate, "rows/s", "raw Flight stream from memory", raw),
            ),
            0.8,
        ),
    ]
