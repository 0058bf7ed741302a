"""Iceberg tables that Spark, Flink and Trino wrote: our answers are theirs, or a typed error.

The fixtures are the engines' own files (``make fixtures``); what they read of them stands beside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import S3Store
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from sqlalchemy import insert
from support_foreign import BUCKET, Foreign, canonical, foreign_tables, lay_out, rows
from support_lake import sqlite_properties

from catalog.errors import Unsupported
from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.tables import Tables
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.protocol.errors import Unimplemented

TABLES = foreign_tables()
#: What cannot be read exactly → what the error says.
REFUSED = {
    "avro_files": "AVRO|avro",
    "orc_files": "ORC|orc",
    "variants": "column type",
}
READABLE = [table for table in TABLES if table.name not in REFUSED]
#: Values of a column that are looked for.
_VALUES = 8
every = pytest.mark.parametrize("table", READABLE, ids=str)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, s3: S3Store) -> Iterator[Engine]:
    """All the tables in one catalog, each in its engine's namespace."""
    lay_out(s3.folder / BUCKET)
    folder = tmp_path_factory.mktemp("foreign")
    properties = {**sqlite_properties(folder), **s3.properties}
    with closing(SqlCatalog("lake", **properties)) as catalog:
        for engine in sorted({table.engine for table in TABLES}):
            catalog.create_namespace(engine)
        with catalog.engine.begin() as connection:  # pyiceberg cannot parse all of them
            for table in TABLES:
                row = {
                    "catalog_name": "lake",
                    "table_namespace": table.engine,
                    "table_name": table.name,
                    "metadata_location": table.answer["metadata"],
                }
                connection.execute(insert(IcebergTables).values(**row))
    lake = Lake.open("lake", properties, timeout_s=10)
    made = Engine(Tables(lake, LiveReader(folder / "live"), [], refresh_ms=0), lake, Limits())
    yield made
    made.close()
    lake.close()


def ask(engine: Engine, table: Foreign, text: str) -> pa.Table:
    plan = engine.plan(Statement(text), Options(schema=table.engine))
    return engine.stream(plan).read_all()


@every
def test_the_rows_are_those_that_its_engine_reads(engine: Engine, table: Foreign) -> None:
    found = ask(engine, table, f'select * from "{table.name}"')
    assert found.column_names == table.answer["columns"]
    assert canonical(rows(found)) == canonical(table.answer["rows"])


@every
def test_every_snapshot_is_what_it_was(engine: Engine, table: Foreign) -> None:
    """Time travel: by snapshot id, and by the names of branches and tags."""
    versions = table.answer["versions"]
    for name in versions:
        text = f'select * from "{table.name}" for version as of {name}'
        assert canonical(rows(ask(engine, table, text))) == canonical(versions[name]), name
    for name, (_, snapshot) in table.answer["refs"].items():  # a branch has the newest columns
        text = f"select count(*) from \"{table.name}\" for version as of '{name}'"
        assert rows(ask(engine, table, text)) == [[len(versions[str(snapshot)])]], name


@every
def test_every_value_is_found_by_it(engine: Engine, table: Foreign) -> None:
    """Pruning by the engine's partitions, bounds, null counts and bloom filters loses no row."""
    whole = ask(engine, table, f'select * from "{table.name}"')
    for column in whole.schema:
        if pa.types.is_nested(column.type):
            continue
        quoted = '"' + column.name.replace('"', '""') + '"'
        for value in whole[column.name].unique().slice(0, _VALUES):
            wanted = whole.filter(_equal(whole[column.name], value)).num_rows
            literal = f"{quoted} is null" if value.as_py() is None else f"{quoted} = $1"
            bound = () if value.as_py() is None else (value,)
            found = _count(engine, table, literal, bound)
            assert found == wanted, (column, value)


def _equal(column: pa.ChunkedArray, value: pa.Scalar) -> pa.ChunkedArray:
    """SQL's equality, but null equals null and NaN equals NaN, as the engine's does."""
    if not value.is_valid:
        return column.is_null()
    if pa.types.is_floating(column.type) and math.isnan(value.as_py()):
        return pc.is_nan(column)
    return pc.equal(column, value)


def _count(engine: Engine, table: Foreign, condition: str, bound: tuple[pa.Scalar, ...]) -> int:
    parameters = None
    if bound:
        arrays = [pa.array([each.as_py()], each.type) for each in bound]
        parameters = pa.RecordBatch.from_arrays(arrays, names=["$1"])
    text = f'select count(*) from "{table.name}" where {condition}'
    plan = engine.plan(Statement(text, parameters), Options(schema=table.engine))
    return int(engine.stream(plan).read_all()[0][0].as_py())


@every
def test_metadata_tables_say_what_the_engine_wrote(engine: Engine, table: Foreign) -> None:
    """Snapshots, references, history, and the data files of the newest snapshot."""
    answer, name = table.answer, table.name

    def told(text: str) -> list[list[Any]]:
        return [list(row.values()) for row in ask(engine, table, text).to_pylist()]

    snapshots = told(
        "select snapshot_id, parent_id, operation, "
        f'cast(extract(epoch from committed_at) * 1000 as bigint) from "{name}$snapshots"'
    )
    assert canonical(snapshots) == canonical(answer["snapshots"])
    refs = told(f'select name, type, snapshot_id from "{name}$refs"')
    assert {key: kept for key, *kept in refs} == answer["refs"]
    history = told(
        "select snapshot_id, cast(extract(epoch from made_current_at) * 1000 as bigint), "
        f'is_current_ancestor from "{name}$history"'
    )
    assert canonical(history) == canonical(answer["history"])
    files = told(f'select record_count, file_size_bytes, spec_id from "{name}$files"')
    assert canonical(files) == canonical([each[1:4] for each in answer["files"]])


@pytest.mark.parametrize("table", [t for t in TABLES if t.name in REFUSED], ids=str)
def test_what_cannot_be_read_exactly_is_refused_in_words(engine: Engine, table: Foreign) -> None:
    with pytest.raises((Unsupported, Unimplemented), match=REFUSED[table.name]):
        ask(engine, table, f'select * from "{table.name}"')


@pytest.mark.parametrize("zero", ["0e0", "-0e0", "0"])
def test_a_bloom_filter_of_trino_loses_no_zero(engine: Engine, zero: str) -> None:
    """One file holds 0.0, the other -0.0."""
    [table] = (table for table in TABLES if str(table) == "trino-blooms")
    assert _count(engine, table, f"d = {zero}", ()) == 2


def test_there_is_a_table_of_every_engine() -> None:
    """The fixtures are there, so the tests above have something to read."""
    assert {table.engine for table in TABLES} == {"spark", "flink", "trino"}
    assert {table.name for table in TABLES} >= set(REFUSED)
