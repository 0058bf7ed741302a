"""Tables whose columns other tools changed: files of every schema are one table, by field id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import DecimalType, DoubleType, IntegerType, LongType, StringType
from support_evolution import ask
from support_lake import sqlite_properties

from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.tables import Tables
from flight_server.engine import Engine
from flight_server.limits import Limits

NAME = "market_data.ticks"
FIRST = pa.schema(
    [
        pa.field("n", pa.int32(), nullable=False),
        pa.field("price", pa.float32()),
        pa.field("cost", pa.decimal128(9, 2)),
        pa.field("venue", pa.struct([pa.field("mic", pa.string()), pa.field("lot", pa.int32())])),
        pa.field("legs", pa.list_(pa.field("element", pa.int32()))),
        pa.field("note", pa.string()),
    ]
)


def first_rows(first: int, count: int) -> list[dict[str, Any]]:
    """Rows of the first schema; every column but ``n`` is null now and then."""
    return [
        {
            "n": n,
            "price": n / 4 if n % 5 else None,
            "cost": Decimal(n).scaleb(-2),
            "venue": {"mic": f"M{n}", "lot": n} if n % 3 else None,
            "legs": [n, None] if n % 2 else [],
            "note": f"n{n}",
        }
        for n in range(first, first + count)
    ]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with closing(SqlCatalog("lake", **sqlite_properties(tmp_path))) as made:
        made.create_namespace("market_data")
        yield made


@pytest.fixture
def table(catalog: Catalog) -> Table:
    made = catalog.create_table(NAME, FIRST)
    made.append(pa.Table.from_pylist(first_rows(0, 10), FIRST))
    made.append(pa.Table.from_pylist(first_rows(10, 10), FIRST))
    return made


@pytest.fixture
def engine(tmp_path: Path, catalog: Catalog) -> Iterator[Engine]:  # noqa: ARG001 - made before
    lake = Lake.open("lake", sqlite_properties(tmp_path), timeout_s=60)
    made = Engine(Tables(lake, LiveReader(tmp_path / "live"), [], refresh_ms=0), lake, Limits())
    yield made
    made.close()
    lake.close()


def _everything(update: UpdateSchema) -> None:
    update.rename_column("price", "px")
    update.update_column("n", LongType(), required=False)
    update.update_column("price", DoubleType())
    update.update_column("cost", DecimalType(20, 2))
    update.add_column("side", StringType())
    update.delete_column("note")
    update.move_first("cost")


def _nested(update: UpdateSchema) -> None:
    update.update_column(("venue", "lot"), LongType())
    update.add_column(("venue", "tier"), StringType())
    update.update_column(("legs", "element"), LongType())


CHANGES: dict[str, list[Callable[[UpdateSchema], Any]]] = {
    "everything": [_everything],
    "nested": [_nested],
    "nested rename": [
        lambda update: update.rename_column(("venue", "mic"), "code"),
        lambda update: update.add_column(("venue", "mic"), IntegerType()),
    ],
    "a name that is used again": [
        lambda update: update.delete_column("note"),
        lambda update: update.add_column("note", LongType()),
    ],
    "names that are swapped": [
        lambda update: update.rename_column("n", "x"),
        lambda update: update.rename_column("note", "n"),
        lambda update: update.rename_column("x", "note"),
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_of_older_schemas_are_read_by_field_id(
    catalog: Catalog, table: Table, engine: Engine, change: str
) -> None:
    """The answer is pyiceberg's own, before and after rows of the new schema."""
    for step in CHANGES[change]:
        with table.update_schema() as update:
            step(update)
    assert_same(catalog, engine)
    now = table.schema().as_arrow()
    table.append(pa.Table.from_pylist([_row(now, n) for n in range(20, 30)], now))
    assert_same(catalog, engine)


def _row(schema: pa.Schema, n: int) -> dict[str, Any]:
    return {field.name: _value(field.type, n) for field in schema}


def _value(kind: pa.DataType, n: int) -> Any:
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _value(kind.field(i).type, n) for i in range(kind.num_fields)}
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return [n]
    return f"v{n}" if pa.types.is_large_string(kind) or pa.types.is_string(kind) else n


def assert_same(catalog: Catalog, engine: Engine) -> None:
    def key(row: dict[str, Any]) -> str:
        return repr(sorted(row.items()))

    scanned = catalog.load_table(NAME).scan().to_arrow().to_pylist()
    assert sorted(ask(engine, "select * from ticks"), key=key) == sorted(scanned, key=key)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("px > 4.6", 2),  # a float may be NaN
        ("big = 3", 1),
        ("big >= 10", 1),
        ("note is null", 0),
        ("side = 'x'", 2),
        ("big < 100", 2),
    ],
)
def test_bounds_of_older_types_and_names_prune_right(
    table: Table, engine: Engine, where: str, kept: int
) -> None:
    """A file goes only where the bounds of its own columns prove it."""
    with table.update_schema() as update:
        update.rename_column("n", "big")
        update.update_column("n", LongType())
        update.rename_column("price", "px")
        update.add_column("side", StringType())
    plan = "\n".join(
        row["plan"] for row in ask(engine, f"explain select * from ticks where {where}")
    )
    assert f"{kept} of 2 files kept" in plan
    rows = ask(engine, "select big, px, note, side from ticks")
    picked = ask(engine, f"select big, px, note, side from ticks where {where}")
    tests: dict[str, Callable[[dict[str, Any]], bool]] = {
        "px > 4.6": lambda r: r["px"] is not None and r["px"] > 4.6,
        "big = 3": lambda r: r["big"] == 3,
        "big >= 10": lambda r: r["big"] >= 10,
        "note is null": lambda r: r["note"] is None,
        "side = 'x'": lambda r: r["side"] == "x",
        "big < 100": lambda r: r["big"] < 100,
    }
    assert sorted(r["big"] for r in picked) == sorted(r["big"] for r in rows if tests[where](r))


def test_fields_of_structs_are_read_beside_renamed_columns(table: Table, engine: Engine) -> None:
    """The engine (55.0) refuses this if it may move the reading of fields into the scan."""
    with table.update_schema() as update:
        update.rename_column("note", "words")
    found = ask(engine, "select venue['mic'] as mic, max(n) as n from ticks group by 1")
    wanted = {f"M{n}": n for n in range(20) if n % 3} | {None: 18}
    assert {row["mic"]: row["n"] for row in found} == wanted


def test_a_join_that_no_row_can_meet_is_answered_beside_renamed_columns(
    catalog: Catalog, table: Table, engine: Engine
) -> None:
    """Over stubs the plan reads one side only; over renamed columns nothing is known to be set."""
    catalog.create_table("market_data.few", FIRST)
    with table.update_schema() as update:
        update.rename_column("note", "words")
    found = ask(engine, "select a.n, b.n as m from ticks a left join few b on a.n is null")
    assert sorted(row["n"] for row in found) == list(range(20))
    assert {row["m"] for row in found} == {None}
