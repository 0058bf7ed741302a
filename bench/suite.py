"""A set of queries over tables of one namespace, asked of us and of every peer, query by query.

Our answer must equal DuckDB's and the engine's, or the lane fails. A further peer that refuses a
query, or answers it otherwise, is left out of that query, and its line says of which.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from chaos.site import Layout
from support_site import connect
from support_tpch import same_rows

from bench.figures import Figure, absent, at_most
from bench.peers import (
    Ask,
    Peers,
    chdb_asking,
    duckdb_asking,
    engine_asking,
    roapi_asking,
)
from bench.stage import running, say
from bench.turns import Turns, alternate

#: Turns of each query.
REPEATS = 3
#: What one query may take at most, and all of them together, against the engine in-process.
WORST, TOGETHER = 1.3, 1.1
#: Peers whose answers are not in doubt.
JUDGES = ("engine", "DuckDB")
YARDSTICKS = {
    "engine": "the engine in-process on the same Parquet",
    "DuckDB": "DuckDB in-process on the same Parquet",
    "chDB": "chDB in-process on the same Parquet",
    "ROAPI": "ROAPI over Flight on the same Parquet",
}


def suite(
    title: str,
    layout: Layout,
    namespace: str,
    folders: Mapping[str, Path],
    queries: Sequence[str],
) -> list[Figure]:
    """Totals beside each peer, and the query that loses most against the engine."""
    with ExitStack() as stack:
        stack.enter_context(running(layout, "serve", "--no-ingest"))
        peers = stack.enter_context(Peers())
        ours = stack.enter_context(asked(layout))
        ours(f"use {namespace}")
        peers.add("engine", engine_asking(folders))
        peers.add("DuckDB", duckdb_asking(folders))
        peers.add("chDB", chdb_asking(folders))
        peers.add("ROAPI", roapi_asking(layout.folder / "roapi", folders))
        times: list[Turns] = []
        excused: dict[str, dict[int, str]] = {name: {} for name in peers.asks}
        for number, sql in enumerate(queries, start=1):
            able = agreeing(number, sql, ours, peers.asks, excused)
            turns = {"ours": _bound(ours, sql)}
            turns |= {name: _bound(peers.asks[name], sql) for name in able}
            times.append(alternate(turns, REPEATS))
            line = " ".join(f"{who} {seconds:.3f} s" for who, seconds in times[-1].items())
            say(f"{title}: {number:2} {line}")
        figures = [_total(title, name, times, why) for name, why in excused.items()]
        figures.insert(1, _worst(title, times))
        figures += [absent(title, YARDSTICKS[name], why) for name, why in peers.missing.items()]
    return figures


@contextlib.contextmanager
def asked(layout: Layout) -> Iterator[Ask]:
    """Our server, once it answers, in one session."""
    with connect(layout) as connection, connection.cursor() as cursor:

        def ask(sql: str) -> pa.Table:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

        yield ask


def agreeing(
    number: int,
    sql: str,
    ours: Ask,
    peers: Mapping[str, Ask],
    excused: Mapping[str, dict[int, str]],
) -> list[str]:
    """The peers whose answer is ours; notes the others in ``excused``.

    Raises:
        AssertionError: a judge's answer is another one.
    """
    answer, able = ours(sql), []
    for name, ask in peers.items():
        try:
            agrees = same_rows(answer, ask(sql))
        except Exception as error:  # every library has its own
            if name in JUDGES:
                raise
            say(f"query {number}: {name} refuses it: {str(error)[:200]}")
            excused[name][number] = "refused"
            continue
        assert agrees or name not in JUDGES, f"query {number}: {name} answers otherwise: {sql}"
        if agrees:
            able.append(name)
        else:
            excused[name][number] = "another answer"
    return able


def _bound(ask: Ask, sql: str) -> Callable[[], object]:
    return lambda: ask(sql)


def _worst(title: str, times: Sequence[Turns]) -> Figure:
    name, yardstick = f"{title}, the query that loses most", YARDSTICKS["engine"]
    figures = [
        turns.figure(f"{name}, Q{number}", "ours", yardstick, "engine")
        for number, turns in enumerate(times, start=1)
    ]
    return at_most(max(figures, key=lambda each: each.ratio or 0.0), WORST)


def _total(title: str, name: str, times: Sequence[Turns], excused: Mapping[int, str]) -> Figure:
    """All queries that the peer answers, added up turn by turn."""
    both = {number: turns for number, turns in enumerate(times, start=1) if number not in excused}
    if not both:
        return absent(title, YARDSTICKS[name], "it answers none of them")
    sums = Turns(
        {
            who: [
                math.fsum(turns.taken[who][turn] for turns in both.values())
                for turn in range(REPEATS)
            ]
            for who in ("ours", name)
        }
    )
    count = f"{len(both)} of {len(times)} queries" if excused else f"{len(times)} queries"
    figure = sums.figure(f"{title}, {count}, through ADBC", "ours", YARDSTICKS[name], name)
    note = "; ".join(f"Q{number}: {why}" for number, why in excused.items())
    if name == "engine":
        figure = at_most(figure, TOGETHER)
    ratios = {number: statistics.median(each.ratios("ours", name)) for number, each in both.items()}
    return replace(figure, detail={f"q{n}": ratio for n, ratio in ratios.items()}, note=note)
