"""Exact lists of files, and which of them a statement's filters leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionConfig, SessionContext
from hypothesis import given
from hypothesis import strategies as st
from support_engine import START, TRADES_SCHEMA, entries_of, trades

from catalog.errors import FileMissing
from catalog.files import _newest_first
from catalog.prune import surviving
from catalog.scan import (
    empty_listing,
    escaped,
    listing,
    parts_of,
    pieces,
    require_present,
)

CONTEXT = SessionContext(
    SessionConfig(
        {
            "datafusion.sql_parser.parse_float_as_decimal": "true",
            "datafusion.sql_parser.map_string_types_to_utf8view": "false",
            "datafusion.execution.time_zone": "UTC",
        }
    )
)
empty_listing(TRADES_SCHEMA, CONTEXT)


def pushed(where: str) -> list[tuple[Any, ...]]:
    """The filters that the engine pushes to each scan of ``files``."""
    found: list[tuple[Any, ...]] = []

    def walk(plan: Any) -> None:
        variant = plan.to_variant()
        if type(variant).__name__ == "TableScan":
            found.append(tuple(variant.filters()))
        for child in plan.inputs():
            walk(child)

    walk(CONTEXT.sql(f"select * from files where {where}").optimized_logical_plan())
    return found


def kept(entries: pa.Table, where: str) -> list[int]:
    """Sequence numbers of the files that stay."""
    return list(surviving(entries, pushed(where))["sequence_number"].to_pylist())


#: Three files of 100 rows: offsets 0 to 99, 100 to 199, 200 to 299; price = offset.
THREE = entries_of(
    TRADES_SCHEMA, [(Path(f"/none/{i}.parquet"), trades(100 * i, 100)) for i in range(3)]
)


@pytest.mark.parametrize(
    ("where", "files"),
    [
        ("true", [0, 1, 2]),
        ("price > 250", [2]),
        ("price >= 199", [1, 2]),
        ("price < 100", [0]),
        ("price <= 100", [0, 1]),
        ("price = 150", [1]),
        ("price = 150.5", [1]),
        ("price > 1000", []),
        ("150 < price", [1, 2]),
        ("price between 90 and 110", [0, 1]),
        ("price > 50 and price < 60", [0]),
        ("price < 50 or price > 250", [0, 2]),
        ("price < 50 or ratio > 1000", [0]),
        ("price < 50 or abs(ratio) > 1000", [0, 1, 2]),
        ("price in (5, 205)", [0, 2]),
        ("price in (5, 15, 25, 35, 45, 55, 65)", [0]),
        ("price not in (5, 205)", [0, 1, 2]),
        ("not (price < 200)", [2]),
        ("_offset + 1 > 250", [0, 1, 2]),
        ("_partition = 1", []),
        ("_partition != 0", []),
        ("_partition <> 1", [0, 1, 2]),
        ("symbol = 'AAA'", [0, 1, 2]),
        ("symbol = 'ZZZ'", []),
        ("symbol like 'AA%'", [0, 1, 2]),
        ("symbol like 'ZZ%'", []),
        ("symbol like '%ZZ'", [0, 1, 2]),
        ("starts_with(symbol, 'Q')", []),
        ("note is null", [0, 1, 2]),
        ("note is not null", []),
        ("note = 'x'", []),
        ("price is null", []),
        ("price is not null", [0, 1, 2]),
        ("quantity is null", [0, 1, 2]),
        ("ratio > 1000000", []),
        ("ratio > 100.5", [2]),
        ("ratio = 99.5", [1]),
        ("ratio < 'NaN'", [0, 1, 2]),
        ("ratio in (1, 2, 3, 149.5)", [0, 2]),
        ("price not between 0 and 150", [1, 2]),
        ("not (price between 0 and 199)", [2]),
        ("(price > 250) is true", [2]),
        ("(price > 250) is not true", [0, 1, 2]),
        ("(price < 100) is false", [1, 2]),
        ("(price > 250) is null", []),
        ("(quantity > 250) is null", [0, 1, 2]),
        ("symbol ilike 'zz%'", [0, 1, 2]),
        ("symbol not like 'A%'", [0, 1, 2]),
        ("_topic not like 'm%'", []),
        ("_topic not like 'market%'", [0, 1, 2]),
        ("_partition is distinct from 0", []),
        ("_offset is not distinct from 150", [1]),
        ("note is not distinct from null", [0, 1, 2]),
        ("_offset is not distinct from null", []),
        ("price not in (1, 2, 3, null)", []),
        ("_offset in (1, 2, 3, null, 250)", [0, 2]),
        ("_partition not in (0, 1, 2, 3, 4)", []),
        ("cast(_offset as double) > 250.5", [2]),
        ("cast(price as double) < 50.5", [0]),
        ("cast(cast(price as int) as double) = 100", [1]),
        ("cast(timestamp as timestamp) < '2024-03-01T00:01:40'", [0]),
        ("not _offset > 99", [0]),
        ("not (_offset > 99 and _offset < 200)", [0, 2]),
        ("timestamp >= '2024-03-01T00:03:20Z'", [2]),
        ("timestamp < timestamp '2024-03-01T00:01:40'", [0]),
        ("cast(timestamp as date) = date '2024-03-02'", []),
        ("cast(timestamp as date) = date '2024-03-01'", [0, 1, 2]),
        ("extract(year from timestamp) = 2023", []),
        ("_offset > 199.5", [2]),
        ("_offset > 1e30", []),
        ("conditions is null", [0, 1, 2]),
        ("array_length(conditions) > 5", [0, 1, 2]),
        ("random() < 0", [0, 1, 2]),
    ],
)
def test_files_whose_bounds_prove_that_no_row_passes_are_dropped(
    where: str, files: list[int]
) -> None:
    # A filter that is always false leaves no scan at all; one that is no filter leaves all files.
    assert kept(THREE, where) == files


def test_every_reference_counts() -> None:
    """Two references with different filters need the files of both; one without needs all."""
    low, high = pushed("price < 50")[0], pushed("price > 250")[0]
    both = surviving(THREE, [low, high])
    assert both["sequence_number"].to_pylist() == [0, 2]
    assert surviving(THREE, [low, ()]).num_rows == 3
    assert surviving(THREE, []).num_rows == 0


def with_unknown(struct: str) -> pa.Table:
    """The same entries with nothing known in one of the structs."""
    position = THREE.schema.get_field_index(struct)
    kind = THREE.schema.field(position).type
    nothing = pa.array([dict.fromkeys(f.name for f in kind)] * 3, kind)
    return THREE.set_column(position, THREE.schema.field(position), nothing)


@pytest.mark.parametrize(
    ("struct", "where", "files"),
    [
        ("lower", "price < 50", [0, 1, 2]),
        ("upper", "price > 250", [0, 1, 2]),
        ("lower", "price = 150", [1, 2]),
        ("upper", "price = 150", [0, 1]),
        ("lower", "price in (150, 151)", [1, 2]),
        ("null_count", "note is null", [0, 1, 2]),
        ("null_count", "note is not null", [0, 1, 2]),
        ("null_count", "note = 'x'", [0, 1, 2]),
        ("null_count", "price > 250", [2]),
        ("lower", "price <> 5", [0, 1, 2]),
    ],
)
def test_an_unknown_bound_proves_nothing(struct: str, where: str, files: list[int]) -> None:
    assert kept(with_unknown(struct), where) == files


SPECIAL = pa.schema(
    [
        pa.field("n", pa.int64()),
        pa.field("f", pa.float64()),
        pa.field("s", pa.string()),
        pa.field("d", pa.decimal128(9, 2)),
        pa.field("t", pa.timestamp("us", tz="UTC")),
        pa.field("day", pa.date32()),
        pa.field("b", pa.bool_()),
    ]
)

_ROWS = st.fixed_dictionaries(
    {
        "n": st.none() | st.integers(-5, 5),
        "f": st.none() | st.sampled_from([0.0, -0.0, 1.5, math.nan, math.inf, -math.inf]),
        "s": st.none() | st.text("ab\u00e9\U0001f600", min_size=2, max_size=4),
        "d": st.none() | st.integers(-300, 300).map(lambda n: Decimal(n) / 100),
        "t": st.none() | st.integers(-3, 3).map(lambda h: START + timedelta(hours=20 * h)),
        "day": st.none() | st.integers(-2, 2).map(lambda d: date(2024, 3, 1) + timedelta(days=d)),
        "b": st.none() | st.booleans(),
    }
)
_ATOMS = st.sampled_from(
    [
        *("n > 2", "n = 0", "n <> 1", "n in (1, 4)", "n is null", "n is not null", "n >= -1.5"),
        *(
            "f > 1",
            "f < 0",
            "f = 0",
            "f <> cast(1.5 as double)",
            "f is null",
            "f >= 'NaN'",
            "n <= 0",
        ),
        *(
            "s = 'aa'",
            "s > 'ab'",
            "s < 'b'",
            "s like 'a%'",
            "s <> 'aa'",
            "s like 'é%'",
            "s is null",
        ),
        *("d > 1", "d = 0.5", "d < -1.25", "d in (0.01, 2)", "d <> 0", "not d > 0"),
        *(
            "t > timestamp '2024-03-01T12:00:00Z'",
            "cast(t as date) = '2024-03-01'",
            "t is not null",
        ),
        *("day = '2024-03-02'", "day < '2024-03-01'", "b", "not b", "b = true", "b is not true"),
        *(
            "n is distinct from 1",
            "n is not distinct from null",
            "n + 1 > 2",
            "cast(n as double) > 1",
        ),
    ]
)
_WHERE = st.recursive(
    _ATOMS.map("({})".format),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda x: f"({x[0]} {x[1]} {x[2]})"
        )
        | inner.map(lambda x: f"not ({x})")
    ),
    max_leaves=4,
)


def in_file(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), SPECIAL)


@given(st.lists(_ROWS, min_size=1, max_size=4), _WHERE)
def test_no_file_with_a_matching_row_is_ever_dropped(
    rows: list[dict[str, Any]], where: str
) -> None:
    """Nulls, NaN, truncated text, casts: pruning is silent, so it must never be wrong."""
    table = in_file(rows)
    context = SessionContext(
        SessionConfig(
            {
                "datafusion.sql_parser.parse_float_as_decimal": "true",
                "datafusion.sql_parser.map_string_types_to_utf8view": "false",
                "datafusion.execution.time_zone": "UTC",
            }
        )
    )
    context.register_record_batches("rows", [table.to_batches()])
    matching = context.sql(f"select count(*) as n from rows where {where}").to_pydict()["n"][0]
    empty_listing(SPECIAL, context)
    scans = []
    stack = [context.sql(f"select * from files where {where}").optimized_logical_plan()]
    while stack:
        plan = stack.pop()
        variant = plan.to_variant()
        if type(variant).__name__ == "TableScan":
            scans.append(tuple(variant.filters()))
        stack += plan.inputs()
    entries = entries_of(SPECIAL, [(Path("/none/a.parquet"), table)])
    assert matching == 0 or surviving(entries, scans).num_rows == 1


NAMES = [
    *("plain", "with space", "a=b%2Fc", "q?x", "s*r", "b[1]", "h#1", "ü", "p+1", "a:b", "a;b"),
    *("a&b", "q'u", 'd"q', "{z}", "a,b", "~t", "100%"),
]


def test_any_file_name_is_read_as_it_is(tmp_path: Path) -> None:
    """Iceberg's paths are unescaped: a percent sign is a percent sign."""
    paths = []
    for i, name in enumerate(NAMES):
        path = tmp_path / f"dir {i}=%" / f"{name}.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table({"a": [i]}), path)
        paths.append(f"file://{path}")
    frame = listing(SessionContext(), pa.schema([("a", pa.int64())]), paths)
    assert sorted(frame.to_pydict()["a"]) == list(range(len(NAMES)))


def test_exactly_the_listed_files_are_read(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64())])
    for i in range(6):
        pq.write_table(pa.table({"a": [i]}), tmp_path / f"{i}.parquet")
    listed = [f"file://{tmp_path}/{i}.parquet" for i in (1, 4, 5)]
    frame = listing(SessionContext(), schema, listed)
    assert sorted(frame.to_pydict()["a"]) == [1, 4, 5]


def test_many_local_files_are_several_scans_and_every_row_is_there_once(tmp_path: Path) -> None:
    """Each file of a scan has a thread that asks for its size, and keeps memory."""
    schema = pa.schema([("a", pa.int64())])
    paths = [f"file://{tmp_path}/{i}.parquet" for i in range(100)]
    for i in range(100):
        pq.write_table(pa.table({"a": [i]}), tmp_path / f"{i}.parquet")
    context = SessionContext(SessionConfig({"datafusion.execution.target_partitions": "2"}))
    parted = listing(context, schema, paths, apart=True)
    assert sorted(parted.to_pydict()["a"]) == list(range(100))
    assert parted.logical_plan().display_indent().count("TableScan") == 10
    assert listing(context, schema, paths).logical_plan().display_indent().count("TableScan") == 1


@pytest.mark.parametrize(
    ("paths", "sizes"),
    [
        ([f"file:///{i}" for i in range(4)], [4]),
        ([f"file:///{i}" for i in range(5)], [3, 2]),
        ([f"file:///{i}" for i in range(40)], [6] * 6 + [4]),
        ([f"file:///{i}" for i in range(10_000)], [100] * 100),
        ([f"s3://{b}/{i}" for i in range(300) for b in "ab"], [300, 300]),
    ],
)
def test_parts_are_as_many_as_a_part_has_files_and_stores_are_read_at_once(
    paths: list[str], sizes: list[int]
) -> None:
    parts = parts_of(paths)
    assert [len(part) for part in parts] == sizes
    assert sorted(path for part in parts for path in part) == sorted(paths)


def test_columns_that_a_file_lacks_are_null_and_order_does_not_matter(tmp_path: Path) -> None:
    pq.write_table(pa.table({"b": ["x"], "a": pa.array([1], pa.int32())}), tmp_path / "f.parquet")
    schema = pa.schema([("a", pa.int64()), ("c", pa.decimal128(9, 2)), ("b", pa.string())])
    frame = listing(SessionContext(), schema, [f"file://{tmp_path}/f.parquet"])
    assert frame.to_pydict() == {"a": [1], "c": [None], "b": ["x"]}


def test_a_file_that_is_gone_is_told_from_an_empty_one(tmp_path: Path) -> None:
    """Rule 18. The engine takes a missing file for an empty folder: it must be asked for."""
    pq.write_table(trades(0, 10), tmp_path / "there.parquet")
    paths = [f"file://{tmp_path}/there.parquet", f"file://{tmp_path}/gone.parquet"]
    assert listing(SessionContext(), TRADES_SCHEMA, paths).count() == 10
    context = SessionContext()
    require_present(context, TRADES_SCHEMA, paths[:1], 10)
    with pytest.raises(FileMissing):
        require_present(context, TRADES_SCHEMA, paths, 20)


def test_a_stub_that_is_executed_fails_loudly() -> None:
    """A plan over stubs that is run by mistake must not answer with no rows."""
    frame = empty_listing(TRADES_SCHEMA, SessionContext())
    with pytest.raises(Exception, match="object store"):
        frame.collect()


def test_statistics_of_the_listed_files_fold(tmp_path: Path) -> None:
    """count, min and max come from footers: no row is read."""
    paths = []
    for i in range(3):
        pq.write_table(trades(100 * i, 100), tmp_path / f"{i}.parquet")
        paths.append(f"file://{tmp_path}/{i}.parquet")
    context = SessionContext(
        SessionConfig({"datafusion.execution.parquet.schema_force_view_types": "false"})
    )
    context.register_table("t", listing(context, TRADES_SCHEMA, paths).into_view())
    frame = context.sql("select count(*) n, min(_offset) a, max(_offset) b from t")
    assert "DataSourceExec" not in frame.execution_plan().display_indent()
    assert frame.to_pydict() == {"n": [300], "a": [0], "b": [299]}


def test_scans_carry_the_name_they_are_given() -> None:
    frame = listing(SessionContext(), TRADES_SCHEMA, ["file:///a.parquet"], "ns.t files")
    assert "TableScan: ns.t files" in frame.logical_plan().display_indent()


def test_another_plan_format_is_noticed() -> None:
    with pytest.raises(ValueError, match="format"):
        pieces(bytes(SessionContext().sql("select 1").logical_plan().to_bytes()))
    with pytest.raises(ValueError, match="protobuf"):
        pieces(b"\x07\x07\x07")


def test_newest_files_come_first() -> None:
    assert _newest_first(THREE)["sequence_number"].to_pylist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a b/c%2F.parquet", "s3://bucket/a%20b/c%252F.parquet"),
        ("file:///x/y=1/z.parquet", "file:///x/y%3D1/z.parquet"),
        ("s3://bucket/a?b#c", "s3://bucket/a%3Fb%23c"),
    ],
)
def test_paths_are_escaped_once(path: str, url: str) -> None:
    assert escaped(path) == url


def test_the_time_of_the_fixture_is_what_the_cases_say() -> None:
    assert datetime(2024, 3, 1, tzinfo=UTC) == START
