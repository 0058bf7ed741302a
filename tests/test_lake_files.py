"""Data files: what is written, and what the table of entries says about it."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from support_deletes import by_equality, by_position, commit
from support_lake import (
    SCHEMA,
    TOPIC,
    Place,
    Writer,
    data_files_on_disk,
    log_rows,
    sqlite_properties,
)

from catalog.data_files import ROW_GROUP_ROWS
from catalog.errors import FileMissing, SpecRefused
from catalog.files import CONSTANT, PROVEN, FileIndex
from catalog.lake import FileRequest, Head, Lake, Staged
from catalog.offsets import Offsets
from catalog.spec import TableName, TableSpec

NAME = TableName("market", "ticks")
SPEC = TableSpec(NAME, (TOPIC,), sort=("symbol", "at"))
EVERY_TYPE = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("bytes", pa.binary()),
        pa.field("fixed", pa.binary(3)),
        pa.field("flag", pa.bool_()),
        pa.field("small", pa.int32()),
        pa.field("large", pa.int64()),
        pa.field("single", pa.float32()),
        pa.field("double", pa.float64()),
        pa.field("price", pa.decimal128(18, 8)),
        pa.field("huge", pa.decimal128(38, 10)),
        pa.field("day", pa.date32()),
        pa.field("clock", pa.time64("us")),
        pa.field("local", pa.timestamp("us")),
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("two words é", pa.string()),
        pa.field("tags", pa.list_(pa.field("element", pa.string(), nullable=False))),
        pa.field("extra", pa.map_(pa.string(), pa.string())),
    ]
)
UTC = dt.UTC
LOW: dict[str, object] = {
    "text": "a",
    "bytes": b"\x00\x01",
    "fixed": b"abc",
    "flag": False,
    "small": -(2**31),
    "large": -(2**63),
    "single": -1.5,
    "double": -1e300,
    "price": Decimal("-9999999999.99999999"),
    "huge": Decimal("-9999999999999999999999999999.9999999999"),
    "day": dt.date(1900, 1, 1),
    "clock": dt.time(0, 0, 0, 1),
    "local": dt.datetime(1969, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001 - a local timestamp
    "at": dt.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    "two words é": "é",
}
HIGH: dict[str, object] = {
    "text": "zz",
    "bytes": b"\xff\x01",
    "fixed": b"xyz",
    "flag": True,
    "small": 2**31 - 1,
    "large": 2**63 - 1,
    "single": 2.5,
    "double": 1e300,
    "price": Decimal("9999999999.99999999"),
    "huge": Decimal("9999999999999999999999999999.9999999999"),
    "day": dt.date(2100, 1, 1),
    "clock": dt.time(23, 59, 59, 999999),
    "local": dt.datetime(2100, 1, 1),  # noqa: DTZ001 - a local timestamp
    "at": dt.datetime(2100, 1, 1, tzinfo=UTC),
    "two words é": "ü",
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(sqlite_properties(tmp_path), SPEC)


@pytest.fixture
def lake(place: Place) -> Lake:
    return place.lake()


def append(lake: Lake, spec: TableSpec, rows: pa.Table) -> Head:
    """Commits rows under positions of their own."""
    staged = lake.write_files(spec.name, rows, spec)
    marker = lake.head(spec.name).marker
    if marker is None:
        marker = lake.claim(spec.name, (), "w", 1, Offsets({(TOPIC, 0): 0})).marker
    assert marker is not None
    next_ = Offsets(
        {(TOPIC, p): marker.positions.at((TOPIC, p)) + max(staged.rows, 1) for p in (0, 1)}
    )
    return lake.commit(spec.name, staged, expected=marker, new=marker.moved_to(next_))


def entries(lake: Lake, spec: TableSpec, head: Head) -> pa.Table:
    return lake.entries(spec.name, head.snapshot_id, head.metadata_location)


def local_path(uri: str) -> str:
    return uri.removeprefix("file://")


def every_type(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=EVERY_TYPE)


def test_bounds_come_back_in_every_type(lake: Lake) -> None:
    """Lower and upper bounds are the extreme values themselves where nothing was truncated."""
    spec = TableSpec(NAME, (TOPIC,))
    lake.ensure_table(spec, EVERY_TYPE)
    head = append(lake, spec, every_type(LOW, {}, HIGH))
    row = entries(lake, spec, head).to_pylist()[0]
    assert row["lower"] == LOW
    assert row["upper"] == HIGH
    assert row["null_count"] == dict.fromkeys(LOW, 1)
    table = entries(lake, spec, head)
    plain = {field.name: field.type for field in EVERY_TYPE}
    assert {f.name: f.type for f in table["lower"].type} == {name: plain[name] for name in LOW}
    (path,) = table["path"].to_pylist()
    assert pq.read_table(local_path(path)).cast(EVERY_TYPE).equals(every_type(LOW, {}, HIGH))


def test_bounds_of_a_column_without_values_are_unknown(lake: Lake) -> None:
    spec = TableSpec(NAME, (TOPIC,))
    lake.ensure_table(spec, EVERY_TYPE)
    row = entries(lake, spec, append(lake, spec, every_type({}, {}))).to_pylist()[0]
    assert row["lower"] == dict.fromkeys(LOW)
    assert row["null_count"] == dict.fromkeys(LOW, 2)


def test_a_nan_makes_bounds_unknown(lake: Lake) -> None:
    """The engine orders NaN above all numbers; Parquet's statistics leave it out."""
    spec = TableSpec(NAME, (TOPIC,))
    lake.ensure_table(spec, EVERY_TYPE)
    rows = every_type({"double": 1.0, "single": 2.0}, {"double": math.nan, "single": 3.0})
    row = entries(lake, spec, append(lake, spec, rows)).to_pylist()[0]
    assert (row["lower"]["double"], row["upper"]["double"]) == (None, None)
    assert (row["lower"]["single"], row["upper"]["single"]) == (2.0, 3.0)
    assert (row["nan"]["double"], row["nan"]["single"]) == (CONSTANT, PROVEN)
    context = SessionContext()
    context.register_parquet("t", local_path(row["path"]))
    answer = context.sql("select double from t where double > 100 or double = 1").to_pydict()
    assert sorted(map(str, answer["double"])) == ["1.0", "nan"]


def test_long_texts_are_enclosed(lake: Lake) -> None:
    spec = TableSpec(NAME, (TOPIC,))
    lake.ensure_table(spec, EVERY_TYPE)
    rows = every_type({"text": "m" * 50}, {"text": "n" * 50 + "x"})
    row = entries(lake, spec, append(lake, spec, rows)).to_pylist()[0]
    assert row["lower"]["text"] <= "m" * 50
    assert row["upper"]["text"] > "n" * 50 + "x"


def test_bounds_from_before_a_promotion_are_read_by_the_new_type(lake: Lake) -> None:
    spec = TableSpec(NAME, (TOPIC,))
    first = pa.schema([pa.field("a", pa.int32()), pa.field("b", pa.float32())])
    lake.ensure_table(spec, first)
    append(lake, spec, pa.table({"a": [-5, 7], "b": [-0.5, 1.5]}, schema=first))
    grown = pa.schema(
        [pa.field("a", pa.int64()), pa.field("b", pa.float64()), pa.field("c", pa.string())]
    )
    lake.ensure_table(spec, grown)
    rows = pa.table({"a": [2**40], "b": [2.5], "c": ["x"]}, schema=grown)
    table = entries(lake, spec, append(lake, spec, rows)).sort_by("sequence_number")
    lower = table["lower"].to_pylist()
    assert lower == [{"a": -5, "b": -0.5, "c": None}, {"a": 2**40, "b": 2.5, "c": "x"}]
    assert table["null_count"].to_pylist()[0]["c"] is None
    assert table["lower"].type.field("a").type == pa.int64()


ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, "", "AAPL", "MSFT", "a-very-long-symbol-of-some-exotic-venue"]),
        st.integers(-3 * 86_400_000_000, 3 * 86_400_000_000),
        st.none() | st.floats(width=32) | st.sampled_from([math.nan, -0.0, 0.0]),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    min_size=1,
    max_size=40,
)
PARTITIONS = st.lists(
    st.sampled_from(
        [
            "day(at)",
            "hour(at)",
            "bucket(3, symbol)",
            "truncate(2, symbol)",
            "symbol",
            "bucket(2, n)",
        ]
    ),
    max_size=2,
    unique=True,
).map(tuple)
DRAWN = pa.schema(
    [
        pa.field("symbol", pa.string()),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("price", pa.float32()),
        pa.field("n", pa.int64()),
    ]
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, partition=PARTITIONS, number=st.integers(0, 10**12))
def test_whatever_is_written_is_there_once_sorted_and_enclosed(
    lake: Lake, rows: list[tuple[object, ...]], partition: tuple[str, ...], number: int
) -> None:
    """Files hold the rows as a multiset, in order; bounds, counts and partitions are true."""
    name = TableName("drawn", f"t{number}_{abs(hash((repr(rows), partition)))}")
    spec = TableSpec(name, (TOPIC,), sort=("symbol", "at"), partition=partition)
    table = pa.table(
        [pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), DRAWN, strict=True)],
        schema=DRAWN,
    )
    lake.ensure_table(spec, DRAWN)
    head = append(lake, spec, table)
    files = entries(lake, spec, head).to_pylist()
    found: list[str] = []
    for file in files:
        held = pq.read_table(local_path(file["path"]), partitioning=None)
        assert file["record_count"] == held.num_rows
        assert file["file_size_bytes"] == Path(local_path(file["path"])).stat().st_size
        assert_sorted(held)
        assert_enclosed(held, file)
        found += map(repr, held.to_pylist())
    assert sorted(found) == sorted(map(repr, table.to_pylist()))
    assert len({repr(file["partition"]) for file in files}) == len(files)
    scanned = lake.read_files(
        name,
        FileRequest(head.metadata_location, head.snapshot_id or 0, tuple(f["path"] for f in files)),
    )
    assert sorted(repr(row) for batch in scanned for row in batch.to_pylist()) == sorted(found)


def assert_sorted(held: pa.Table) -> None:
    keys = [(row["symbol"] is not None, row["symbol"] or "", row["at"]) for row in held.to_pylist()]
    assert keys == sorted(keys)


def assert_enclosed(held: pa.Table, file: dict[str, dict[str, object]]) -> None:
    for name in DRAWN.names:
        values = [value for value in held[name].to_pylist() if value is not None]
        assert file["null_count"][name] == held.num_rows - len(values)
        lower, upper = file["lower"][name], file["upper"][name]
        if any(isinstance(value, float) and math.isnan(value) for value in values):
            assert lower is None
            assert upper is None
        for value in values:
            assert lower is None or lower <= value
            assert upper is None or value <= upper
        if values and isinstance(values[0], int | str):
            assert lower is not None


def test_rows_are_sorted_nulls_first_and_the_file_says_so(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    rows = log_rows(Offsets(), Offsets({(TOPIC, 0): 500, (TOPIC, 1): 30}))
    chunked = pa.concat_tables([rows.slice(i, 37) for i in range(0, rows.num_rows, 37)])
    table = entries(lake, SPEC, append(lake, SPEC, chunked))
    order = place.foreign_table().sort_order()
    assert table["sort_order_id"].to_pylist() == [order.order_id]
    assert order.order_id != 0
    held = pq.read_table(local_path(table["path"][0].as_py()))
    assert held.cast(SCHEMA).equals(rows.sort_by([("symbol", "ascending"), ("at", "ascending")]))


def test_an_order_that_the_table_does_not_know_is_not_claimed(lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    other = replace(SPEC, sort=("at",))
    head = append(lake, other, log_rows(Offsets(), Offsets({(TOPIC, 0): 50})))
    assert entries(lake, SPEC, head)["sort_order_id"].to_pylist() == [0]


def test_files_are_compressed_paged_and_grouped_for_pruning(lake: Lake) -> None:
    """zstd, field ids, page index, row groups of one size; encodings by what the rows are like."""
    lake.ensure_table(SPEC, SCHEMA)
    n = ROW_GROUP_ROWS + 1000
    rows = log_rows(Offsets(), Offsets({(TOPIC, 0): n}))
    head = append(lake, SPEC, rows)
    (path,) = entries(lake, SPEC, head)["path"].to_pylist()
    meta = pq.ParquetFile(local_path(path)).metadata
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [
        ROW_GROUP_ROWS,
        1000,
    ]
    columns = {
        meta.row_group(0).column(i).path_in_schema: meta.row_group(0).column(i) for i in range(6)
    }
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert all(c.has_column_index and c.has_offset_index for c in columns.values())
    assert "DELTA_BINARY_PACKED" in columns["_offset"].encodings
    assert columns["symbol"].has_dictionary_page
    ids = [f.metadata[b"PARQUET:field_id"] for f in pq.read_schema(local_path(path))]
    assert ids == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_few_texts_are_shared_and_many_are_not(lake: Lake) -> None:
    """A file has a dictionary of what its flush holds, if that is little, and plain types."""
    schema = pa.schema([pa.field("few", pa.string()), pa.field("many", pa.string())])
    spec = TableSpec(NAME, (TOPIC,), sort=("few",))
    lake.ensure_table(spec, schema)
    count = 30_000
    texts = {
        "few": [("a", None, "b")[n % 3] for n in range(count)],
        "many": [str(n) for n in range(count)],
    }
    head = append(lake, spec, pa.table(texts, schema))
    file = entries(lake, spec, head).to_pylist()[0]
    assert (file["lower"]["few"], file["upper"]["few"]) == ("a", "b")
    assert file["null_count"]["few"] == count // 3
    path = local_path(file["path"])
    written = pq.ParquetFile(path)
    assert [field.type for field in written.schema_arrow] == [pa.string()] * 2
    dictionaries = [written.metadata.row_group(0).column(n).has_dictionary_page for n in range(2)]
    assert dictionaries == [True, False]
    rows = written.read()
    assert rows["few"].to_pylist() == [None] * 10_000 + ["a"] * 10_000 + ["b"] * 10_000
    assert sorted(rows["many"].to_pylist()) == sorted(texts["many"])


def test_the_tables_codec_is_used(lake: Lake) -> None:
    codec = {"write.parquet.compression-codec": "gzip", "write.parquet.compression-level": "2"}
    lake.ensure_table(replace(SPEC, properties=codec), SCHEMA)
    head = append(lake, SPEC, log_rows(Offsets(), Offsets({(TOPIC, 0): 50})))
    (path,) = entries(lake, SPEC, head)["path"].to_pylist()
    assert pq.ParquetFile(local_path(path)).metadata.row_group(0).column(0).compression == "GZIP"


def test_one_file_per_partition_with_its_values(lake: Lake) -> None:
    spec = replace(SPEC, partition=("day(at)", "bucket(2, symbol)"))
    lake.ensure_table(spec, SCHEMA)
    head = append(lake, spec, log_rows(Offsets(), Offsets({(TOPIC, 0): 300})))
    table = entries(lake, spec, head)
    assert table.num_rows == 6
    for row in table.to_pylist():
        day = row["partition"]["at_day"]
        assert row["lower"]["at"].date() == row["upper"]["at"].date() == day
        assert row["partition"]["symbol_bucket"] in {0, 1}
        assert f"at_day={day}/symbol_bucket=" in row["path"]


def test_files_under_several_specs_keep_their_own_partition_values(
    place: Place, lake: Lake
) -> None:
    spec = replace(SPEC, partition=("symbol",))
    lake.ensure_table(spec, SCHEMA)
    append(lake, spec, log_rows(Offsets(), Offsets({(TOPIC, 0): 2})))
    with place.foreign_table().update_spec() as update:
        update.remove_field("symbol")
        update.add_field("at", "day", "at_day")
    other = replace(spec, partition=())
    head = append(lake, other, log_rows(Offsets(), Offsets({(TOPIC, 0): 1})))
    rows = entries(lake, spec, head).sort_by("sequence_number").to_pylist()
    assert [row["partition"] for row in rows] == [
        {"symbol": "S0", "at_day": None},
        {"symbol": "S1", "at_day": None},
        {"symbol": None, "at_day": dt.date(1970, 1, 1)},
    ]
    assert [row["spec_id"] for row in rows] == [0, 0, 1]


def test_no_rows_make_no_file(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    staged = lake.write_files(NAME, SCHEMA.empty_table(), SPEC)
    assert (staged.rows, staged.files) == (0, ())
    assert lake.write_files(NAME, [], SPEC).rows == 0
    assert data_files_on_disk(place) == set()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (SCHEMA.append(pa.field("more", pa.int32())).empty_table(), "'more' is not in the table"),
        (SCHEMA.set(2, pa.field("price", pa.string())).empty_table(), "'price' is double"),
        (SCHEMA.remove(0).empty_table(), "'symbol' of the table is required"),
    ],
)
def test_rows_that_do_not_fit_are_refused(lake: Lake, rows: pa.Table, said: str) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    with pytest.raises(SpecRefused, match=said):
        lake.write_files(NAME, rows, SPEC)


def test_a_table_without_a_snapshot_has_no_files(lake: Lake) -> None:
    head = lake.ensure_table(SPEC, SCHEMA)
    table = entries(lake, SPEC, head)
    assert table.num_rows == 0
    assert "lower" in table.column_names


def test_rewritten_files_are_no_longer_listed(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    old = append(lake, SPEC, log_rows(Offsets(), Offsets({(TOPIC, 0): 9})))
    table = place.foreign_table()
    table.overwrite(table.scan().to_arrow())
    new = lake.head(NAME)
    (before,), (after,) = entries(lake, SPEC, old)["path"], entries(lake, SPEC, new)["path"]
    assert before != after


def test_each_manifest_is_parsed_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    read: list[str] = []
    fetch = ManifestFile.fetch_manifest_entry

    def counted(self: ManifestFile, io: FileIO, *, discard_deleted: bool = True) -> object:
        read.append(self.manifest_path)
        return fetch(self, io, discard_deleted)

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", counted)
    for _ in range(4):
        head = append(lake, SPEC, log_rows(Offsets(), Offsets({(TOPIC, 0): 9})))
        table = entries(lake, SPEC, head)
        assert entries(lake, SPEC, head) is table
    assert table.num_rows == 4
    assert len(read) == len(set(read)) == 4
    assert table["sequence_number"].to_pylist() == sorted(
        table["sequence_number"].to_pylist(), reverse=True
    )


def test_a_small_cache_forgets_and_stays_right(lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    lake._index = FileIndex(max_entries=3)
    heads = [append(lake, SPEC, log_rows(Offsets(), Offsets({(TOPIC, 0): 9}))) for _ in range(5)]
    for _ in range(2):
        assert [entries(lake, SPEC, head).num_rows for head in heads] == [1, 2, 3, 4, 5]


def test_a_missing_manifest_is_said(place: Place, lake: Lake) -> None:
    """Rule 18: typed, not retried."""
    lake.ensure_table(SPEC, SCHEMA)
    head = append(lake, SPEC, log_rows(Offsets(), Offsets({(TOPIC, 0): 9})))
    snapshot = place.foreign_table().current_snapshot()
    assert snapshot is not None
    Path(local_path(snapshot.manifest_list)).unlink()
    with pytest.raises(FileMissing) as raised:
        entries(lake, SPEC, head)
    assert str(place.properties["warehouse"]) not in str(raised.value)


@pytest.fixture
def with_position_deletes(place: Place, lake: Lake) -> tuple[Head, list[str]]:
    """Three files; rows 0 and 2 of the first are deleted; the third came after the deletes."""
    lake.ensure_table(replace(SPEC, sort=()), SCHEMA)
    writer = Writer.claiming(place, "a", lake)
    writer.append(5)
    head = writer.append(5)
    paths = entries(lake, SPEC, head).sort_by("sequence_number")["path"].to_pylist()
    table = place.foreign_table()
    commit(table, [by_position(table, [(paths[0], 0), (paths[0], 2)])])
    writer.append(5)
    return lake.head(NAME), paths


def test_position_deletes_are_listed_with_the_files_they_touch(
    lake: Lake, with_position_deletes: tuple[Head, list[str]]
) -> None:
    head, (first, second) = with_position_deletes
    rows = {row["path"]: row for row in entries(lake, SPEC, head).to_pylist()}
    assert len(rows) == 3
    assert len(rows[first]["delete_files"]) == 1
    assert len(rows[second]["delete_files"]) == 1, "may touch: no path bounds in the delete file"
    (third,) = set(rows) - {first, second}
    assert rows[third]["delete_files"] == []
    assert not any(row["equality_deletes"] for row in rows.values())


def test_files_are_read_without_their_deleted_rows(
    lake: Lake, with_position_deletes: tuple[Head, list[str]]
) -> None:
    head, (first, second) = with_position_deletes
    assert head.snapshot_id is not None
    request = FileRequest(
        head.metadata_location, head.snapshot_id, (first, second), columns=("_offset", "symbol")
    )
    batches = list(lake.read_files(NAME, request))
    assert {tuple(batch.schema.names) for batch in batches} == {("_offset", "symbol")}
    assert {str(batch.schema.field("symbol").type) for batch in batches} == {"string"}
    assert sum(batch.num_rows for batch in batches) == 18
    whole = pq.read_table(local_path(first))["_offset"].to_pylist()
    only = replace(request, paths=(first,))
    kept = [value for b in lake.read_files(NAME, only) for value in b["_offset"].to_pylist()]
    assert kept == [whole[1], *whole[3:]]


def test_equality_deletes_are_for_older_files_only(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    writer = Writer.claiming(place, "a", lake)
    writer.append(5)
    table = place.foreign_table()
    commit(table, [by_equality(table, pa.table({"_offset": pa.array([3], pa.int64())}))])
    head = writer.append(5)
    files = entries(lake, SPEC, head).sort_by("sequence_number")
    assert files["equality_deletes"].to_pylist() == [True, False]
    assert head.snapshot_id is not None
    for path, count in zip(files["path"].to_pylist(), (9, 10), strict=True):
        request = FileRequest(head.metadata_location, head.snapshot_id, (path,))
        found = pa.Table.from_batches(lake.read_files(NAME, request))
        assert found.num_rows == count
        assert 3 not in found["_offset"].to_pylist()


def test_renamed_columns_are_read_by_field_id(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    append(lake, SPEC, log_rows(Offsets(), Offsets({(TOPIC, 0): 4})))
    with place.foreign_table().update_schema() as update:
        update.rename_column("price", "last_price")
    head = lake.head(NAME)
    assert head.snapshot_id is not None
    paths = tuple(entries(lake, SPEC, head)["path"].to_pylist())
    request = FileRequest(head.metadata_location, head.snapshot_id, paths, columns=("last_price",))
    (batch,) = lake.read_files(NAME, request)
    assert sorted(batch["last_price"].to_pylist(), key=str) == [0.25, 0.5, 0.75, None]
    old = replace(request, schema_id=0, columns=("price",))
    (batch,) = lake.read_files(NAME, old)
    assert batch.num_rows == 4


def test_a_staged_flush_knows_its_rows_and_bytes(place: Place, lake: Lake) -> None:
    lake.ensure_table(SPEC, SCHEMA)
    staged: Staged = lake.write_files(
        NAME, log_rows(Offsets(), Offsets({(TOPIC, 0): 40})).to_batches(max_chunksize=7), SPEC
    )
    (path,) = data_files_on_disk(place)
    assert (staged.rows, staged.bytes, staged.gc) == (40, Path(path).stat().st_size, 0)
    assert pc.sum(pq.read_table(path)["_offset"]).as_py() == sum(range(40))
