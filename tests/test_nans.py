"""Floating columns of foreign files: the NaN that statistics leave out is there all the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionConfig, SessionContext
from pyiceberg.catalog.sql import SqlCatalog

from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.tables import Tables
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits

NAN = math.nan
SCHEMA = pa.schema([("n", pa.int64()), ("f", pa.float64()), ("g", pa.float32())])
#: What a file's floating columns hold.
FILES: Mapping[str, list[float | None]] = {
    "one number beside NaN": [1.0, NAN, 1.0, NAN],
    "one number, NaN and null": [1.0, NAN, 1.0, None],
    "numbers beside NaN": [1.0, NAN, 2.0, -3.0],
    "nothing but NaN": [NAN, NAN, NAN, NAN],
    "no NaN": [1.0, 2.0, 3.0, None],
    "nulls": [None, None, None, None],
}
STATEMENTS = (
    "select n, f, g from numbers",
    "select f + 1 as more from numbers",
    "select n from numbers where f > 5",
    "select n from numbers where g > 5 and n > 0",
    "select n from numbers where f <> 1",
    "select n from numbers where not f <= 3",
    "select count(*) as c from numbers where f = 1",
    "select max(f) as most, min(g) as least, count(f) as c from numbers",
    "select f, count(*) as c from numbers group by f",
    "select n, f from numbers where f is not null order by f desc, n limit 1",
    "select a.n from numbers a join numbers b on a.f = b.f and a.n = b.n",
    "select n from numbers where f in (select max(f) from numbers)",
)


def rows(values: list[float | None], first: int = 0) -> pa.Table:
    numbers = range(first, first + len(values))
    return pa.table({"n": numbers, "f": values, "g": values}, schema=SCHEMA)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqlCatalog, Engine, Path]]:
    folder = tmp_path_factory.mktemp("nans")
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": f"file://{folder}/lake",
    }
    catalog = SqlCatalog("lake", **properties)
    catalog.create_namespace("demo")
    with closing(catalog), closing(Lake.open("lake", properties)) as lake:
        tables = Tables(lake, LiveReader(folder / "live"), [], refresh_ms=0)
        with closing(Engine(tables, lake, Limits(spill_folder=folder / "spill"))) as engine:
            yield catalog, engine, folder


def added(catalog: SqlCatalog, folder: Path, name: str, files: list[pa.Table]) -> None:
    """A table of files that plain pyarrow has written, with statistics."""
    table = catalog.create_table(f"demo.{name}", SCHEMA)
    paths = [folder / f"{name}-{number}.parquet" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        pq.write_table(file, path, write_page_index=True)
        group = pq.read_metadata(path).row_group(0)
        assert group.column(0).statistics.has_min_max
    table.add_files([f"file://{path}" for path in paths])


def ask(engine: Engine, sql: str) -> list[str]:
    with engine.stream(engine.plan(Statement(sql), Options(schema="demo"))) as stream:
        return sorted(map(repr, stream.read_all().to_pylist()))


def in_memory(files: list[pa.Table], sql: str) -> list[str]:
    """The same engine over the same rows, of which it knows nothing."""
    context = SessionContext(
        SessionConfig({"datafusion.sql_parser.parse_float_as_decimal": "true"})
    )
    context.register_record_batches("numbers", [pa.concat_tables(files).to_batches()])
    return sorted(map(repr, context.sql(sql).to_pylist()))


@pytest.mark.parametrize("held", FILES)
def test_statistics_without_nan_hide_no_row(
    places: tuple[SqlCatalog, Engine, Path], held: str
) -> None:
    """What the engine answers over Parquet files is what it answers over the rows themselves."""
    catalog, engine, folder = places
    name = held.replace(" ", "_").replace(",", "").lower()
    added(catalog, folder, name, [rows(FILES[held])])
    for sql in STATEMENTS:
        wanted = in_memory([rows(FILES[held])], sql)
        assert ask(engine, sql.replace("numbers", name)) == wanted, sql


def test_files_with_and_without_nan_are_one_table(
    places: tuple[SqlCatalog, Engine, Path],
) -> None:
    catalog, engine, folder = places
    files = [rows(values, first=10 * n) for n, values in enumerate(FILES.values())]
    added(catalog, folder, "together", files)
    for sql in STATEMENTS:
        assert ask(engine, sql.replace("numbers", "together")) == in_memory(files, sql), sql


def test_other_columns_prune_as_ever(places: tuple[SqlCatalog, Engine, Path]) -> None:
    """Only what is said of the column with doubts is not believed."""
    catalog, engine, folder = places
    files = [rows([1.0, NAN, 1.0], first=10 * n) for n in range(3)]
    added(catalog, folder, "several", files)
    sql = "explain analyze select n from several where n = 11 and f > 5"
    with engine.stream(engine.plan(Statement(sql), Options(schema="demo"))) as stream:
        shown = str(stream.read_all().to_pylist())
        (report,) = stream.reports.values()
    assert (report.files, report.kept) == (3, 1)
    assert "n_min" in shown
    assert "f_max" not in shown


def test_only_columns_that_are_judged_by_are_shielded(
    places: tuple[SqlCatalog, Engine, Path],
) -> None:
    """A column that is only shown is read as ever."""
    catalog, engine, folder = places
    added(catalog, folder, "plain", [rows([1.0, 2.0])])
    assert "nanvl" in "".join(ask(engine, "explain select n from plain where f > 1"))
    assert "nanvl" not in "".join(ask(engine, "explain select n, f from plain where n > 1"))
