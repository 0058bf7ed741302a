"""The metadata builders: exact schemas, order, filters, and GetSqlInfo's union."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pytest

from flight_server.protocol import metadata, sqlinfo, xdbc
from flight_server.protocol.backend import TableEntry
from flight_server.protocol.errors import InvalidArgument
from flight_server.protocol.messages import GetDbSchemas, GetTables

COLUMNS = pa.schema([("price", pa.decimal128(18, 8)), pa.field("name", pa.utf8(), nullable=False)])
PLACES = [
    ("lake", "market_data", "trades", "BASE TABLE"),
    ("lake", "market_data", "quotes", "BASE TABLE"),
    ("lake", "market_data", "trades$live", "VIEW"),
    ("lake", "ref", "symbols", "BASE TABLE"),
    ("lake", "system", "lag", "VIEW"),
    ("other", "market_data", "trades", "BASE TABLE"),
    (None, None, "bare", "BASE TABLE"),
]
TABLES = [TableEntry(c, s, n, t, lambda: COLUMNS) for c, s, n, t in PLACES]


def rows(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> list[tuple[object, ...]]:
    """The rows, after every batch was found valid and exactly of ``schema``."""
    found: list[tuple[object, ...]] = []
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(schema, check_metadata=True)
        found += [tuple(row.values()) for row in batch.to_pylist()]
    return found


def tables(**filters: object) -> list[tuple[object, ...]]:
    command = GetTables(**filters)  # type: ignore[arg-type]  # the filters of the test
    batches = metadata.build_tables(command, TABLES, metadata.EncodedSchemas())
    return rows(batches, metadata.tables_schema(command))


def test_tables_are_sorted_by_catalog_schema_table_type() -> None:
    """No catalog comes first, as the empty name would."""
    assert tables() == sorted(PLACES, key=lambda p: (p[0] or "", p[1] or "", p[2], p[3]))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"catalog": "other"}, ["trades"]),
        ({"catalog": ""}, ["bare"]),
        ({"db_schema_filter_pattern": ""}, ["bare"]),
        (
            {"db_schema_filter_pattern": "market%", "catalog": "lake"},
            ["quotes", "trades", "trades$live"],
        ),
        ({"table_name_filter_pattern": "trades"}, ["trades", "trades"]),
        ({"table_name_filter_pattern": "trade_"}, ["trades", "trades"]),
        ({"table_name_filter_pattern": "%s"}, ["quotes", "trades", "symbols", "trades"]),
        ({"table_name_filter_pattern": r"trades\_"}, []),
        ({"table_types": ("VIEW",)}, ["trades$live", "lag"]),
        (
            {
                "table_types": ("VIEW", "BASE TABLE"),
                "catalog": "lake",
                "db_schema_filter_pattern": "ref",
            },
            ["symbols"],
        ),
        ({"table_types": ("view",)}, []),
        ({"catalog": "nowhere"}, []),
    ],
)
def test_filters_follow_the_specification(filters: dict[str, object], expected: list[str]) -> None:
    assert [row[2] for row in tables(**filters)] == expected


def test_the_schema_column_is_there_only_when_asked_for() -> None:
    """DuckDB's scanner fails on a fifth column, JDBC on empty bytes."""
    assert len(tables()[0]) == 4
    (row,) = tables(catalog="lake", table_name_filter_pattern="quotes", include_schema=True)
    schema = pa.ipc.read_schema(pa.BufferReader(row[4]))
    assert schema.equals(COLUMNS)
    facts = schema.field("price").metadata
    assert facts[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"DECIMAL"
    assert facts[b"ARROW:FLIGHT:SQL:PRECISION"] == b"18"
    assert facts[b"ARROW:FLIGHT:SQL:SCALE"] == b"8"
    assert facts[b"ARROW:FLIGHT:SQL:TABLE_NAME"] == b"quotes"


def test_columns_are_asked_for_only_when_the_caller_wants_schemas() -> None:
    def fail() -> pa.Schema:
        raise AssertionError("nobody asked for columns")

    entries = [TableEntry("lake", "a", "t", "BASE TABLE", fail)]
    batches = metadata.build_tables(GetTables(), entries, metadata.EncodedSchemas())
    assert rows(batches, metadata.TABLES)


def test_schemas_come_in_batches_that_every_client_takes() -> None:
    """By their bytes, not by a number of tables: schemas may be of any width."""
    wide = pa.schema([(f"column_{i}", pa.int64()) for i in range(200)])
    entries = [TableEntry("lake", "a", f"t{i:05}", "BASE TABLE", lambda: wide) for i in range(60)]
    encoded = metadata.EncodedSchemas()
    batches = list(metadata.build_tables(GetTables(include_schema=True), entries, encoded))
    assert len(batches) > 1
    assert sum(batch.num_rows for batch in batches) == 60
    assert all(batch.nbytes < 2 * 1024 * 1024 for batch in batches)


class Columns:
    """The columns of one table, and how often they were asked for."""

    def __init__(self) -> None:
        self.schema = COLUMNS
        self.asked = 0

    def __call__(self) -> pa.Schema:
        """As TableEntry wants it."""
        self.asked += 1
        return self.schema

    def entry(self, version: str | None, name: str = "t") -> TableEntry:
        """A table with these columns."""
        return TableEntry("lake", "a", name, "BASE TABLE", self, version)


def shown(encoded: metadata.EncodedSchemas, entry: TableEntry) -> pa.Schema:
    batches = metadata.build_tables(GetTables(include_schema=True), [entry], encoded)
    ((*_, content),) = rows(batches, metadata.TABLES_WITH_SCHEMA)
    return pa.ipc.read_schema(pa.BufferReader(content))


def test_columns_of_a_known_version_are_not_asked_for_again() -> None:
    columns, encoded = Columns(), metadata.EncodedSchemas()
    first = shown(encoded, columns.entry("1"))
    assert shown(encoded, columns.entry("1")).equals(first, check_metadata=True)
    assert columns.asked == 1
    columns.schema = columns.schema.append(pa.field("more", pa.int64()))
    assert shown(encoded, columns.entry("2")).names == ["price", "name", "more"]
    assert columns.asked == 2


def test_columns_without_a_version_are_asked_for_every_time() -> None:
    columns, encoded = Columns(), metadata.EncodedSchemas()
    shown(encoded, columns.entry(None))
    columns.schema = COLUMNS.remove(0)
    assert shown(encoded, columns.entry(None)).names == ["name"]
    assert encoded.kept_bytes == 0


def test_kept_schemas_have_a_bound_and_the_longest_unused_go_first() -> None:
    columns, encoded = Columns(), metadata.EncodedSchemas(capacity_bytes=10_000)
    for number in range(1000):
        encoded.of(columns.entry("1", "used"))
        encoded.of(columns.entry("1", f"t{number}"))
        assert encoded.kept_bytes <= 10_000
    assert columns.asked == 1001
    encoded.of(columns.entry("1", "t0"))
    assert columns.asked == 1002


def test_versions_of_one_table_take_one_place() -> None:
    columns, encoded = Columns(), metadata.EncodedSchemas()
    encoded.of(columns.entry("1"))
    taken = encoded.kept_bytes
    for number in range(100):
        encoded.of(columns.entry(str(number)))
    assert encoded.kept_bytes == taken


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (GetDbSchemas(), [("lake", "a"), ("lake", "b"), ("x", "a")]),
        (GetDbSchemas(catalog="x"), [("x", "a")]),
        (GetDbSchemas(db_schema_filter_pattern="b"), [("lake", "b")]),
        (GetDbSchemas(catalog=""), []),
    ],
)
def test_schemas_are_sorted_filtered_and_each_once(
    command: GetDbSchemas, expected: list[tuple[str, str]]
) -> None:
    pairs: Iterable[tuple[str | None, str]] = [("x", "a"), ("lake", "b"), ("lake", "a"), ("x", "a")]
    assert rows(metadata.build_db_schemas(command, pairs), metadata.DB_SCHEMAS) == expected


def test_catalogs_and_table_types_are_sorted_and_each_once() -> None:
    assert rows(metadata.build_catalogs(["b", "a", "b"]), metadata.CATALOGS) == [("a",), ("b",)]
    found = rows(metadata.build_table_types(["VIEW", "BASE TABLE"]), metadata.TABLE_TYPES)
    assert found == [("BASE TABLE",), ("VIEW",)]
    assert rows(metadata.build_catalogs([]), metadata.CATALOGS) == []


EXPECTED_SCHEMAS = {
    "CATALOGS": "catalog_name: string not null",
    "DB_SCHEMAS": "catalog_name: string, db_schema_name: string not null",
    "TABLES_WITH_SCHEMA": (
        "catalog_name: string, db_schema_name: string, table_name: string not null, "
        "table_type: string not null, table_schema: binary not null"
    ),
    "TABLE_TYPES": "table_type: string not null",
    "PRIMARY_KEYS": (
        "catalog_name: string, db_schema_name: string, table_name: string not null, "
        "column_name: string not null, key_sequence: int32 not null, key_name: string"
    ),
    "FOREIGN_KEYS": (
        "pk_catalog_name: string, pk_db_schema_name: string, pk_table_name: string not null, "
        "pk_column_name: string not null, fk_catalog_name: string, fk_db_schema_name: string, "
        "fk_table_name: string not null, fk_column_name: string not null, "
        "key_sequence: int32 not null, fk_key_name: string, pk_key_name: string, "
        "update_rule: uint8 not null, delete_rule: uint8 not null"
    ),
}


@pytest.mark.parametrize("name", EXPECTED_SCHEMAS)
def test_result_schemas_are_those_of_the_reference(name: str) -> None:
    """C++ and Go agree on these; clients compare them strictly."""
    assert str(getattr(metadata, name)).replace("\n", ", ") == EXPECTED_SCHEMAS[name]


def test_sql_info_has_the_exact_union() -> None:
    assert str(sqlinfo.VALUE) == (
        "dense_union<string_value: string=0, bool_value: bool=1, bigint_value: int64=2, "
        "int32_bitmask: int32=3, string_list: list<item: string>=4, "
        "int32_to_int32_list_map: map<int32, list<item: int32>>=5>"
    )
    (batch,) = sqlinfo.build_sql_info([], {})
    batch.validate(full=True)
    assert batch.schema.equals(sqlinfo.SQL_INFO, check_metadata=True)


def info(*asked: int, **answers: object) -> dict[int, tuple[str, object]]:
    """Code → (union child, value)."""
    overrides = {int(code[1:]): value for code, value in answers.items()}
    (batch,) = sqlinfo.build_sql_info(asked, overrides)  # type: ignore[arg-type]  # test values
    names = [sqlinfo.VALUE.field(i).name for i in range(sqlinfo.VALUE.num_fields)]
    column = batch.column(1)
    return {
        code: (names[column[i].type_code], column[i].as_py())
        for i, code in enumerate(batch.column(0).to_pylist())
    }


def test_every_code_has_the_child_that_clients_cast_to() -> None:
    """Wrong children panic or throw: JDBC reads 541 to 562 as long, the rest as listed."""
    found = {code: child for code, (child, _) in info().items()}
    strings = {0, 1, 2, 6, 7, 504, 513, 514, 529, 530, 531}
    ordinals = {8, 100, 101, 503, 505, 507, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564}
    ordinals |= set(range(567, 572))
    longs = {*range(541, 556), *range(557, 563)}
    expected = {
        **dict.fromkeys(range(3, 10), "bool_value"),
        **dict.fromkeys(range(500, 577), "bool_value"),
        **dict.fromkeys(strings, "string_value"),
        **dict.fromkeys(ordinals, "int32_bitmask"),
        **dict.fromkeys(longs, "bigint_value"),
        **dict.fromkeys(range(508, 513), "string_list"),
        517: "int32_to_int32_list_map",
    }
    assert found == expected


def test_codes_that_kill_old_drivers_are_sent_only_when_asked_for() -> None:
    """JDBC dies on ids that its enum lacks: 10, 11 and everything of a vendor."""
    assert not {10, 11, 10_001} & info(_10001="x").keys()
    assert info(10, 10_001, _10001="x") == {
        10: ("bool_value", False),
        10_001: ("string_value", "x"),
    }


def test_unknown_codes_are_left_out_and_repetitions_answered_once() -> None:
    assert list(info(4, 4, 99_999, 0)) == [0, 4]


def test_a_backend_overrides_values_and_never_children() -> None:
    assert info(0, 8, 541, _0="K2", _8=1, _541=7) == {
        0: ("string_value", "K2"),
        8: ("int32_bitmask", 1),
        541: ("bigint_value", 7),
    }
    assert info(509, 517, _509=("abs",), _517={1: (2, 3)}) == {
        509: ("string_list", ["abs"]),
        517: ("int32_to_int32_list_map", [(1, [2, 3])]),
    }


def test_types_are_sorted_and_can_be_asked_for_one_by_one() -> None:
    found = rows(xdbc.build_type_info(None), xdbc.XDBC_TYPE_INFO)
    keys = [(row[1], row[0]) for row in found]
    assert keys == sorted(keys)  # type: ignore[type-var]  # (int, str) pairs
    assert [row[0] for row in rows(xdbc.build_type_info(3), xdbc.XDBC_TYPE_INFO)] == ["DECIMAL"]
    assert rows(xdbc.build_type_info(-999), xdbc.XDBC_TYPE_INFO) == []


def test_every_type_name_of_a_column_is_listed() -> None:
    """What TYPE_NAME says, GetXdbcTypeInfo explains (nested types and NULL have no XDBC type)."""
    listed = {row[0] for row in rows(xdbc.build_type_info(None), xdbc.XDBC_TYPE_INFO)}
    plain = [
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.utf8(), pa.binary()),
        *(pa.decimal128(9, 2), pa.date32(), pa.time64("us"), pa.timestamp("us")),
        *(pa.timestamp("us", "UTC"), pa.binary(16)),
    ]
    assert {metadata.type_name(kind) for kind in plain} <= listed


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("%", None, True),
        ("", "", True),
        ("", "a", False),
        ("a%c", "abbbc", True),
        ("a%c", "a\nc", True),
        ("a_c", "abc", True),
        ("a_c", "ac", False),
        (r"a\_c", "a_c", True),
        (r"a\_c", "abc", False),
        (r"a\%", "a%", True),
        ("a.c", "abc", False),
        ("trades$live", "trades$live", True),
        ("A", "a", False),
        ("a\\", "a\\", True),
        ("%ab%b", "ab", False),
        ("%ab%b", "aabab", True),
        ("%a_%b%", "xaab", True),
        ("a%%%", "a", True),
        ("%a", "aba", True),
        (40 * "%_" + "%x", 60 * "a", False),  # not in all the ways there are
        (40 * "%_" + "%a", 60 * "a", True),
    ],
)
def test_patterns(pattern: str, name: str | None, expected: bool) -> None:  # noqa: FBT001 - a case
    assert metadata.like(pattern)(name) is expected


def test_a_pattern_that_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at most 10,000 characters"):
        metadata.like((metadata.MAX_PATTERN + 1) * "_")
