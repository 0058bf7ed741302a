"""A query that needs one data file of a table that has 10, 1,000 or 10,000 of them."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import to_bytes
from pyiceberg.expressions import EqualTo
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import LongType
from support_site import connect as connected

from bench.figures import Figure, at_most, below
from bench.stage import Stage, quantile, running, say

NAMESPACE = "many"
COUNTS = (10, 1_000, 10_000)
#: Columns, rows of each file, and files of each commit: so each manifest has so many entries.
COLUMNS, ROWS, FILES = 20, 100, 100
KINDS = (pa.int64(), pa.string(), pa.float64(), pa.timestamp("us", "UTC"), pa.int32())
#: Different files that are asked for, and how often each; pyiceberg is asked less often.
PLACES, ROUNDS, PEER_ROUNDS = 8, 25, 3
WARM_MS, GROWTH = 10.0, 1.5

#: A table's name → whoever answers which row has this id.
Asks = Mapping[str, Callable[[int], pa.Table]]


def lane(stage: Stage) -> list[Figure]:
    """Warm, cold and after one more commit, in turns; then pyiceberg's own scan of the same."""
    layout = stage.site("files", flush_rows=1000)
    counts = sorted({max(1, stage.scaled(count)) for count in COUNTS})
    with closing(_catalog(layout)) as catalog:
        catalog.create_namespace(NAMESPACE)
        tables = {}
        for count in counts:
            say(f"files: a table of {count:,} data files")
            tables[f"files_{count}"] = filled(catalog, f"files_{count}", count)
        with running(layout, "serve", "--no-ingest"), connected(layout) as connection:
            cursor = connection.cursor()
            asks = {name: _ours(lambda: nullcontext(cursor), name) for name in tables}
            first = {name: _cost_ms(ask, 0) for name, ask in asks.items()}
            warm = _warm_ms(asks, counts)
            anew = _warm_ms({name: _ours(connection.cursor, name) for name in tables}, counts)
            least = _least_ms(cursor)
            more = {name: _after_commit_ms(table, asks[name]) for name, table in tables.items()}
        peers = _peer_ms(tables, counts)
    figures = _figures(counts, first, warm, more, peers)
    name, count = f"files_{counts[-1]}", f"one file of {counts[-1]:,} through ADBC, warm"
    return [
        *figures,
        Figure(f"{count}, p50", warm[name], "ms", "`select 1`, the same cursor", least),
        Figure(f"{count}, a new cursor each time, p50", anew[name], "ms"),
    ]


def _figures(
    counts: Sequence[int],
    first: Mapping[str, float],
    warm: Mapping[str, float],
    more: Mapping[str, float],
    peers: Mapping[str, float],
) -> list[Figure]:
    figures = []
    for count in counts:
        name, title = f"files_{count}", f"one file of {count:,} through ADBC"
        peer = ("pyiceberg's own scan", peers[name])
        figure = Figure(f"{title}, warm, p50", warm[name], "ms", *peer)
        figures += [
            below(figure, WARM_MS) if count == counts[-1] else figure,
            Figure(f"{title}, first call", first[name], "ms", *peer),
            Figure(f"{title}, first call after one more commit", more[name], "ms", *peer),
        ]
    few, many = (warm[f"files_{count}"] for count in (counts[0], counts[-1]))
    title = f"one file of {counts[-1]:,} through ADBC, warm, p50"
    return [*figures, at_most(Figure(title, many, "ms", f"one of {counts[0]}", few), GROWTH)]


def _catalog(layout: Layout) -> SqlCatalog:
    return SqlCatalog(
        "lake",
        uri=f"sqlite:///{layout.folder}/catalog.db",
        warehouse=f"file://{layout.folder}/lake",
    )


# --- what is asked ------------------------------------------------------------------------------


def _ours(
    made: Callable[[], AbstractContextManager[flightsql.Cursor]], name: str
) -> Callable[[int], pa.Table]:
    def ask(number: int) -> pa.Table:
        with made() as cursor:
            cursor.execute(f"select * from {NAMESPACE}.{name} where column_0 = {number}")
            found = cursor.fetch_arrow_table()
        assert found["column_0"].to_pylist() in ([number], [])
        return found

    return ask


def _cost_ms(ask: Callable[[int], pa.Table], number: int) -> float:
    began = time.perf_counter()
    found = ask(number)
    cost = (time.perf_counter() - began) * 1000
    assert found.num_rows == 1
    return cost


def _places(count: int) -> list[int]:
    """Ids that lie in different files, all over the table."""
    return [int(at) for at in np.linspace(1, count * ROWS - 2, PLACES)]


def _warm_ms(asks: Asks, counts: Sequence[int]) -> dict[str, float]:
    """Medians, by tables in turns; each place was asked for before."""
    times: dict[str, list[float]] = {name: [] for name in asks}
    for turn, place in itertools.product(range(ROUNDS + 1), range(PLACES)):
        for (name, ask), count in zip(asks.items(), counts, strict=True):
            cost = _cost_ms(ask, _places(count)[place])
            if turn:
                times[name].append(cost)
    return {name: quantile(found, 0.5) for name, found in times.items()}


def _least_ms(cursor: flightsql.Cursor) -> float:
    """What a statement costs that reads nothing."""
    times = []
    for _ in range(ROUNDS * PLACES):
        began = time.perf_counter()
        cursor.execute("select 1")
        assert cursor.fetchall() == [(1,)]
        times.append((time.perf_counter() - began) * 1000)
    return quantile(times, 0.5)


def _after_commit_ms(table: Table, ask: Callable[[int], pa.Table]) -> float:
    """The cost of the call that is the first to see a new file."""
    number = sum(1 for _ in _paths(table)) * ROWS
    append(table, [number // ROWS])
    while True:  # the server looks for a new head only so often
        began = time.perf_counter()
        if ask(number).num_rows:
            return (time.perf_counter() - began) * 1000


def _paths(table: Table) -> Iterator[str]:
    return (task.file.file_path for task in table.scan().plan_files())


def _peer_ms(tables: Mapping[str, Table], counts: Sequence[int]) -> dict[str, float]:
    say("files: pyiceberg")

    def scan(table: Table) -> Callable[[int], pa.Table]:
        return lambda number: table.scan(EqualTo("column_0", number)).to_arrow()

    found = {}
    for (name, table), count in zip(tables.items(), counts, strict=True):
        places = _places(count)[:PEER_ROUNDS]
        found[name] = quantile([_cost_ms(scan(table), place) for place in places], 0.5)
    return found


# --- tables of many files -----------------------------------------------------------------------


def filled(catalog: SqlCatalog, name: str, files: int) -> Table:
    """A table of so many files; file ``n`` has the ids ``[n × ROWS, (n + 1) × ROWS)``."""
    schema = pa.schema([(f"column_{i}", KINDS[i % len(KINDS)]) for i in range(COLUMNS)])
    table = catalog.create_table(f"{NAMESPACE}.{name}", schema)
    for first in range(0, files, FILES):
        append(table, range(first, min(files, first + FILES)))
    return table


def append(table: Table, numbers: Sequence[int]) -> None:
    """One commit of these files, with one manifest. Only the first column differs between files."""
    schema = table.schema().as_arrow()
    folder = Path(table.location().removeprefix("file://")) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    same = pa.array(range(ROWS))
    rows = pa.Table.from_arrays([same.cast(field.type) for field in schema], schema=schema)
    known: dict[str, Any] = {}
    with table.transaction() as change, change.update_snapshot().fast_append() as added:
        for number in numbers:
            path = folder / f"{number:05}-{uuid.uuid4()}.parquet"
            seen: list[pq.FileMetaData] = []
            ids = pa.array(range(number * ROWS, (number + 1) * ROWS))
            pq.write_table(rows.set_column(0, schema.field(0), ids), path, metadata_collector=seen)
            known = known or _statistics(table, seen[0])
            added.append_data_file(_data_file(path, ids, known))


def _statistics(table: Table, footer: pq.FileMetaData) -> dict[str, Any]:
    plan = compute_statistics_plan(table.schema(), table.properties)
    ids = parquet_path_to_id_mapping(table.schema())
    found = data_file_statistics_from_parquet_metadata(footer, plan, ids)
    return found.to_serialized_dict()


def _data_file(path: Path, ids: pa.Array, known: dict[str, Any]) -> DataFile:
    first, last = (to_bytes(LongType(), ids[at].as_py()) for at in (0, -1))
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        file_size_in_bytes=path.stat().st_size,
        sort_order_id=None,
        spec_id=0,
        equality_ids=None,
        key_metadata=None,
        **known
        | {
            "lower_bounds": known["lower_bounds"] | {1: first},
            "upper_bounds": known["upper_bounds"] | {1: last},
        },
    )
