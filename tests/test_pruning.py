"""Random conditions give the same rows whether files, or live rows, are left out or not.

Over a table whose columns and whose partition spec changed again and again, with rows deleted in
every way: each file is pruned by its own spec, its bounds and its counts. ``K2_FUZZ=1`` draws a
hundred times as many, and new, conditions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from datafusion import SessionConfig, SessionContext
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.table.update.spec import UpdateSpec
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.types import IntegerType, LongType, StringType
from support_avro import examples
from support_deletes import by_equality, by_position, commit
from support_lake import sqlite_properties

from catalog.lake import Lake
from catalog.prune import surviving
from catalog.scan import empty_listing
from catalog.segments import LiveReader
from catalog.tables import Tables
from catalog.zones import passing
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits

pytestmark = pytest.mark.differential

#: Rows of each commit, and when they are from: before 1970 too.
ROWS = 24
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OPTIONS = Options(schema="market_data")
FIRST = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("k", pa.int32()),
        pa.field("s", pa.string()),
        pa.field("d", pa.date32()),
        pa.field("t", pa.timestamp("us", tz="UTC")),
        pa.field("u", pa.timestamp("us")),
        pa.field("p", pa.decimal128(9, 2)),
        pa.field("f", pa.float64()),
        pa.field("b", pa.bool_()),
        pa.field("x", pa.binary()),
        pa.field("note", pa.string()),
    ]
)

WORDS = ("", "a", "ab", "abc", "abd", "b", "ba", "zz", "zzz", "é", "éa", "\U0001f600", "A", "AB")


def values(column: str, draw: random.Random) -> object:
    """One value of a column; few different ones, so that files and conditions meet."""
    hours = draw.choice([draw.randrange(-60, 60), draw.randrange(-20_000, 20_000)])
    moment = EPOCH + timedelta(hours=hours, microseconds=draw.choice([0, 1, -1]))
    made: dict[str, Callable[[], object]] = {
        "k": lambda: draw.choice([draw.randrange(-12, 12), 2**31 - 1, -(2**31)]),
        "s": lambda: draw.choice(WORDS),
        "d": (EPOCH + timedelta(days=draw.randrange(-40, 800))).date,
        "t": lambda: moment,
        "u": lambda: moment.replace(tzinfo=None),
        "p": lambda: Decimal(draw.randrange(-400, 400)).scaleb(-2),
        "f": lambda: draw.choice([0.0, -0.0, 1.5, -2.5, 1e9]),
        "b": lambda: draw.random() < 0.5,
        "x": lambda: draw.choice(WORDS).encode(),
        "note": lambda: draw.choice(WORDS),
    }
    return made[column]()


# --- the table ----------------------------------------------------------------------------------
def _identity(spec: UpdateSpec) -> None:
    spec.add_field("s", IdentityTransform(), "by_s")


def _bucket(spec: UpdateSpec) -> None:
    spec.remove_field("by_s")
    spec.add_field("k", BucketTransform(4), "by_k")
    spec.add_field("s", BucketTransform(2), "by_s_bucket")


def _day(spec: UpdateSpec) -> None:
    spec.remove_field("by_k")
    spec.remove_field("by_s_bucket")
    spec.add_field("t", DayTransform(), "by_day")
    spec.add_field("b", IdentityTransform(), "by_b")


def _truncate(spec: UpdateSpec) -> None:
    spec.remove_field("by_day")
    spec.remove_field("by_b")
    spec.add_field("symbol", TruncateTransform(2), "by_start")
    spec.add_field("k", TruncateTransform(10), "by_ten")


def _year(spec: UpdateSpec) -> None:
    spec.remove_field("by_start")
    spec.remove_field("by_ten")
    spec.add_field("d", YearTransform(), "by_year")
    spec.add_field("p", TruncateTransform(50), "by_price")


def _month(spec: UpdateSpec) -> None:
    spec.remove_field("by_year")
    spec.remove_field("by_price")
    spec.add_field("u", MonthTransform(), "by_month")
    spec.add_field("x", IdentityTransform(), "by_bytes")


def _hour(spec: UpdateSpec) -> None:
    spec.remove_field("by_month")
    spec.remove_field("by_bytes")
    spec.add_field("t", HourTransform(), "by_hour")
    spec.add_field("p", VoidTransform(), "by_nothing")


CHANGES = (None, _identity, _bucket, _day, _truncate, _year, _month, _hour)


@dataclass
class Evolved:
    """The table, the engine over it, and all rows that are left, without any pruning."""

    engine: Engine
    context: SessionContext
    rows: pa.Table
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    asked: int = 0
    files: int = 0
    kept: int = 0

    def check(self, where: str) -> None:
        """The table's answer and that of its rows in memory."""
        text = f"select id from {{}} where {where}"
        stream = self.engine.stream(self.engine.plan(Statement(text.format("ticks")), OPTIONS))
        found = sorted(stream.read_all()["id"].to_pylist())
        wanted = sorted(self.context.sql(text.format("whole")).to_pydict()["id"])
        assert found == wanted, where
        for report in stream.reports.values():
            self.asked += 1
            self.files += report.files
            self.kept += report.kept


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evolved]:
    folder = tmp_path_factory.mktemp("evolved")
    properties = sqlite_properties(folder)
    with closing(SqlCatalog("lake", **properties)) as catalog:
        catalog.create_namespace("market_data")
        _fill(catalog.create_table("market_data.ticks", FIRST))
    lake = Lake.open("lake", properties, timeout_s=60)
    engine = Engine(
        Tables(lake, LiveReader(folder / "live"), [], refresh_ms=60_000), lake, Limits()
    )
    try:
        plan = engine.plan(Statement("select * from ticks"), OPTIONS)
        context = _context()
        rows = engine.stream(plan).read_all().unify_dictionaries()
        context.register_record_batches("whole", [rows.to_batches()])
        empty_listing(rows.schema, context)
        yield Evolved(engine, context, rows)
    finally:
        engine.close()
        lake.close()


def _context() -> SessionContext:
    return SessionContext(
        SessionConfig(
            {
                "datafusion.sql_parser.parse_float_as_decimal": "true",
                "datafusion.sql_parser.map_string_types_to_utf8view": "false",
                "datafusion.execution.time_zone": "UTC",
            }
        )
    )


def _fill(table: Table) -> None:
    draw = random.Random(5)
    for number, change in enumerate(CHANGES):
        if change is not None:
            with table.update_spec() as spec:
                change(spec)
        if number == 2:
            with table.update_schema() as schema:
                schema.update_column("k", LongType())
                schema.rename_column("s", "symbol")
                schema.add_column("extra", IntegerType())
        if number == 4:
            with table.update_schema() as schema:
                schema.delete_column("note")
        if number == 5:
            with table.update_schema() as schema:
                schema.add_column("note", StringType())
        table.append(_rows(table, number * ROWS, draw))
    paths = [task.file for task in table.scan().plan_files()]
    unpartitioned = next(file for file in paths if file.spec_id == 0)
    commit(
        table,
        [
            by_position(table, [(unpartitioned.file_path, row) for row in (0, 3, 5)]),
            by_equality(table, pa.table({"p": pa.array([Decimal("1.00")], pa.decimal128(9, 2))})),
        ],
    )


def _rows(table: Table, first: int, draw: random.Random) -> pa.Table:
    """Some columns have nulls, others none; in the first commit some have nothing else."""
    schema = table.schema().as_arrow()
    columns = []
    for f in schema:
        name = {"symbol": "s"}.get(f.name, f.name)
        absent = draw.choice([0.0, 0.2] if first else [0.0, 1.0])
        cells: list[Any] = [
            None if draw.random() < absent else values(name, draw)
            for _ in range(ROWS if name not in {"id", "extra"} else 0)
        ]
        if name == "id":
            cells = list(range(first, first + ROWS))
        if name == "extra":
            cells = [n % 3 or None for n in range(ROWS)]
        columns.append(pa.array(cells, f.type))
    return pa.Table.from_arrays(columns, schema=schema)


# --- conditions ---------------------------------------------------------------------------------

_SQL: Mapping[str, Callable[[Any], str]] = {
    "k": str,
    "symbol": lambda v: f"'{v}'",
    "note": lambda v: f"'{v}'",
    "d": lambda v: f"date '{v}'",
    "t": lambda v: f"timestamp '{v.replace(tzinfo=None)}'",
    "u": lambda v: f"timestamp '{v}'",
    "p": str,
    "f": lambda v: f"cast('{v}' as double)",
    "extra": str,
}
_OPERATORS = ("=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from")


def _literal(column: str, draw: random.Random) -> str:
    if column == "extra":
        return str(draw.randrange(4))
    return _SQL[column](values({"symbol": "s"}.get(column, column), draw))


def _comparison(draw: random.Random) -> str:
    column = draw.choice([*_SQL])
    one, other = _literal(column, draw), _literal(column, draw)
    many = ", ".join(_literal(column, draw) for _ in range(draw.randrange(4, 90)))
    operator = draw.choice(_OPERATORS)
    return draw.choice(
        [
            *[f"{column} {operator} {one}", f"{one} {draw.choice(_OPERATORS[:6])} {column}"] * 2,
            f"{column} {draw.choice(['', 'not'])} between {one} and {other}",
            f"{column} {draw.choice(['', 'not'])} in ({one}, {other})",
            f"{column} {draw.choice(['', 'not'])} in ({many}{draw.choice(['', ', null'])})",
            f"{column} is {draw.choice(['', 'not'])} null",
        ]
    )


def _odd(draw: random.Random) -> str:
    word, number = draw.choice(WORDS), draw.randrange(-12, 12)
    like = draw.choice(["like", "not like", "ilike", "not ilike"])
    wild = draw.choice([f"{word}%", f"{word}_", f"%{word}", f"{word}", f"{word}%{word}"])
    operator = draw.choice(_OPERATORS[:6])
    moment = values("u", draw)
    assert isinstance(moment, datetime)
    day: date = moment.date()
    return draw.choice(
        [
            f"{draw.choice(['symbol', 'note'])} {like} '{wild}'",
            f"starts_with(symbol, '{word}')",
            f"k {operator} {number}.5",
            f"p {operator} {number}.125",
            f"f {operator} {number}.5",
            f"f in ({number}.5, 1.5, 2, 3, 4)",
            f"cast(k as double) {operator} {number}.5",
            f"cast(p as double) {operator} {number}.25",
            f"cast(k as bigint) {operator} {number}",
            f"cast(cast(k as bigint) as double) {operator} {number}",
            f"cast(p as decimal(18, 6)) {operator} {number}.125",
            f"cast(t as date) {operator} date '{day}'",
            f"cast(u as date) {operator} date '{day}'",
            f"d {operator} timestamp '{moment}'",
            f"t {operator} date '{day}'",
            f"t {operator} '{moment}Z'",
            f"t {operator} '{moment}+05:30'",
            f"cast(t as timestamp) {operator} timestamp '{moment}'",
            f"u {operator} date '{day}'",
            f"extract(year from t) {operator} {1970 + number // 6}",
            f"date_trunc('month', u) {operator} timestamp '{moment}'",
            f"try_cast(symbol as int) {operator} {number}",
            f"x {operator} '{word}'",
            f"k + 1 {operator} {number}",
            f"k {operator} extra",
            *(f"b is {draw.choice(['', 'not'])} {how}" for how in ("true", "false", "unknown")),
            *("b", "not b"),
        ]
    )


def condition(draw: random.Random, depth: int = 2) -> str:
    """A random condition."""
    kind = draw.random()
    if depth == 0 or kind < 0.35:
        return _comparison(draw) if draw.random() < 0.6 else _odd(draw)
    inner = condition(draw, depth - 1)
    if kind < 0.55:
        return f"not ({inner})"
    if kind < 0.65:
        return f"({inner}) is {draw.choice(['', 'not'])} {draw.choice(['true', 'false', 'null'])}"
    return f"({inner}) {draw.choice(['and', 'or'])} ({condition(draw, depth - 1)})"


@given(st.integers(0, 2**62))
@examples(100)
def test_pruning_never_shows(evolved: Evolved, seed: int) -> None:
    evolved.check(condition(random.Random(seed)))


#: Few enough for many zones, too many for the last ones to be full.
ZONE = 7


def left(evolved: Evolved, where: str, live: tuple[pa.RecordBatch, ...]) -> int:
    """Rows of the zones that stay, after a look at what the condition makes of them."""
    plan = evolved.context.sql(f"select id from files where {where}").optimized_logical_plan()
    while type(plan.to_variant()).__name__ != "TableScan":
        if not plan.inputs():
            return sum(batch.num_rows for batch in live)  # the engine knows that no row passes
        [plan] = plan.inputs()
    kept = passing(live, [plan.to_variant().filters()], ZONE)
    evolved.context.register_record_batches("zones", [list(kept) or [live[0].slice(0, 0)]])
    found, wanted = (
        sorted(
            evolved.context.sql(f"select id from {table} where {where}").to_pydict().get("id", [])
        )
        for table in ("zones", "whole")
    )
    evolved.context.deregister_table("zones")
    assert found == wanted, where
    return sum(batch.num_rows for batch in kept)


@given(st.integers(0, 2**62))
@examples(100)
def test_zones_never_show(evolved: Evolved, seed: int) -> None:
    """Live rows, in batches of any size, the smallest not cut into zones."""
    draw = random.Random(seed)
    order = draw.choice(["id", "k", "symbol", "t", "d", "p"])
    rows = evolved.rows.sort_by(order).combine_chunks()
    live = tuple(rows.to_batches(max_chunksize=draw.randrange(3, 60)))
    left(evolved, condition(draw), live)


def test_conditions_do_leave_zones_out(evolved: Evolved) -> None:
    draw = random.Random(1)
    live = tuple(evolved.rows.sort_by("k").combine_chunks().to_batches(max_chunksize=50))
    rows = [left(evolved, f"k > {draw.randrange(-12, 12)}", live) for _ in range(10)]
    assert sum(rows) < evolved.rows.num_rows * 8


def test_conditions_do_leave_files_out(evolved: Evolved) -> None:
    """What is compared is no comparison of whole scans with whole scans."""
    draw = random.Random(1)
    for _ in range(60):
        evolved.check(condition(draw, depth=0))
    assert evolved.kept < evolved.files * 0.7


@pytest.mark.parametrize(
    ("where", "spec"),
    [
        ("symbol = 'ab'", 1),
        ("symbol like 'ab%'", 1),
        ("symbol in ('a', 'ab', 'abc', 'b', 'ba')", 1),
        ("k = 5", 2),
        ("k in (5, 6)", 2),
        ("symbol = 'abc'", 2),
        ("t = timestamp '1970-01-01 05:00:00'", 3),
        ("b", 3),
        ("b is not true", 3),
        ("symbol = 'abc'", 4),
        ("k between 1 and 3", 4),
        ("d < date '1970-01-05'", 5),
        ("p > 1", 5),
        ("u >= timestamp '1971-01-01'", 6),
        ("x = 'a'", 6),
        ("cast(t as date) = date '1970-01-01'", 7),
        ("t is null", 7),
    ],
)
def test_every_transform_leaves_out_files_without_bounds(
    evolved: Evolved, where: str, spec: int
) -> None:
    """By their partition alone, each by its own spec; and rows are still what they are."""
    evolved.check(where)
    plan = evolved.engine.plan(Statement(f"select id from ticks where {where}"), OPTIONS)
    assert plan.prepared.reads is not None
    (at,) = plan.prepared.found
    (pin,) = plan.pins
    entries = evolved.engine._tables.open(pin).entries
    bare = entries.filter(pc.equal(entries["spec_id"], spec))
    for struct in ("lower", "upper", "null_count"):
        place = bare.schema.get_field_index(struct)
        kind = bare.schema.field(place).type
        bare = bare.set_column(place, bare.schema.field(place), pa.nulls(len(bare), kind))
    scans = plan.prepared.reads.of(at)
    assert scans is not None
    assert surviving(bare, scans).num_rows < bare.num_rows
