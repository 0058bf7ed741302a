"""TPC-H over Iceberg tables through the server, beside its engine on the same Parquet files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import datafusion
import duckdb
import pyarrow as pa
import support_tpch as tpch
from support_site import connect as connected

from bench.figures import Figure, at_most
from bench.query_lanes import alternate
from bench.stage import Stage, running, say

REPEATS = 3
#: What one query may take at most, and all of them together, against the engine in-process.
WORST, TOGETHER = 1.3, 1.1


def lane(stage: Stage) -> list[Figure]:
    """All 22 queries; three engines in turns, their answers compared first."""
    layout = stage.site("tpch", flush_rows=1000)
    say("tpch: generating")
    folders = tpch.make(layout.folder, 0.1 if stage.quick else 1.0, "tpch")
    context, duck = _peers(folders)
    times: list[dict[str, float]] = []
    with running(layout, "serve", "--no-ingest"), connected(layout) as connection:
        with connection.cursor() as cursor:
            cursor.execute("use tpch")

        def ours(sql: str) -> pa.Table:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetch_arrow_table()

        for number, sql in enumerate(tpch.queries(), start=1):
            engines: dict[str, Callable[[str], pa.Table]] = {
                "ours": ours,
                "engine": lambda text: pa.Table.from_batches(
                    (frame := context.sql(text)).collect(), schema=frame.schema()
                ),
                "duck": lambda text: duck.sql(text).to_arrow_table(),
            }
            answers = {who: ask(sql) for who, ask in engines.items()}
            for who in ("engine", "duck"):
                assert tpch.same_rows(answers["ours"], answers[who]), (number, who)
            turns = {who: _bound(ask, sql) for who, ask in engines.items()}
            times.append(alternate(turns, REPEATS))
            say(f"tpch: {number:2} " + " ".join(f"{k} {v:.3f} s" for k, v in times[-1].items()))
    return _figures(times)


def _bound(ask: Callable[[str], pa.Table], sql: str) -> Callable[[], pa.Table]:
    return lambda: ask(sql)


def _peers(
    folders: Mapping[str, Path],
) -> tuple[datafusion.SessionContext, duckdb.DuckDBPyConnection]:
    context, duck = datafusion.SessionContext(), duckdb.connect()
    for name, folder in folders.items():
        context.register_parquet(name, str(folder))
        duck.sql(f"create view {name} as select * from read_parquet('{folder}/*.parquet')")
    return context, duck


def _figures(times: list[dict[str, float]]) -> list[Figure]:
    total = {who: math.fsum(each[who] for each in times) for who in times[0]}
    ratios = [each["ours"] / each["engine"] for each in times]
    worst = max(range(len(times)), key=ratios.__getitem__)
    name, yardstick = "TPC-H, 22 queries, through ADBC", "the engine in-process on the same Parquet"
    slowest = times[worst]
    return [
        at_most(Figure(name, total["ours"], "s", yardstick, total["engine"]), TOGETHER),
        at_most(
            Figure(
                f"… the query that loses most, Q{worst + 1}",
                *(slowest["ours"], "s", yardstick, slowest["engine"]),
                detail={f"q{number}": ratio for number, ratio in enumerate(ratios, start=1)},
            ),
            WORST,
        ),
        Figure(name, total["ours"], "s", "DuckDB in-process on the same Parquet", total["duck"]),
    ]
