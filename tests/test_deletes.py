"""Tables with delete files are read exactly.

Compared row by row with the specification's words (``support_deletes``), with pyiceberg where it
can read them, and, for random predicates, with DuckDB over all rows, where nothing is pruned.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import S3Store
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from pyiceberg.types import LongType
from support_avro import FUZZ
from support_deletes import Delete, Log, add_file, by_equality, by_position, commit, vectors
from support_lake import sqlite_properties

from catalog.copies import Copies
from catalog.errors import CopiesFull, Unsupported
from catalog.keysets import NEVER, KeySet
from catalog.lake import Lake
from catalog.segments import LiveReader
from catalog.spec import TableName
from catalog.tables import Tables
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("part", pa.string()),
        pa.field("text", pa.string()),
        pa.field("ratio", pa.float64()),
        pa.field("small", pa.int32()),
    ]
)
OPTIONS = Options(schema="demo")


class Site:
    """A table, and an engine over it."""

    def __init__(self, folder: Path, store: Mapping[str, str] = MappingProxyType({})) -> None:
        self.properties = {**sqlite_properties(folder), **store}
        self.catalog = load_catalog("lake", **self.properties)
        self.catalog.create_namespace("demo")
        self.copies = Copies(folder / "copies", 1 << 30)
        self.lake = Lake.open("lake", self.properties, copies=self.copies)
        tables = Tables(self.lake, LiveReader(folder / "live"), [], refresh_ms=0)
        self.engine = Engine(tables, self.lake, Limits(spill_folder=folder / "spill"))
        self.log = Log()

    def create(self, name: str = "items") -> Table:
        """A new table of the schema, unpartitioned."""
        return self.catalog.create_table(f"demo.{name}", SCHEMA)

    def ask(self, sql: str) -> list[dict[str, object]]:
        """The rows of a statement."""
        with self.engine.stream(self.engine.plan(Statement(sql), OPTIONS)) as stream:
            rows: list[dict[str, object]] = stream.read_all().to_pylist()
            return rows

    def close(self) -> None:
        """Ends both."""
        self.engine.close()
        self.lake.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path)) as made:
        yield made


def rows(first: int, count: int, nan: float | None = math.nan) -> pa.Table:
    """Ids in a row, two partitions, nulls here and there."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "id": list(numbers),
            "part": ["ab"[n % 2] for n in numbers],
            "text": [None if n % 5 == 0 else f"t{n % 7}" for n in numbers],
            "ratio": [(None, nan, -0.0, 0.0, n / 2)[n % 5] for n in numbers],
            "small": [n % 3 for n in numbers],
        },
        schema=SCHEMA,
    )


def keys_of(**columns: list[object]) -> pa.Table:
    """Keys in the table's types."""
    return pa.table(columns, schema=pa.schema([SCHEMA.field(name) for name in columns]))


def key(row: dict[str, object]) -> str:
    return repr([row[name] for name in SCHEMA.names if name in row])


def assert_same(found: list[dict[str, object]], wanted: list[dict[str, object]]) -> None:
    assert Counter(map(key, found)) == Counter(map(key, wanted))


def test_keys_are_compared_null_safe_and_by_sequence_number(site: Site) -> None:
    """What was written after a delete, or with it, stays; null is null and NaN is NaN."""
    table = site.create()
    site.log.append(table, rows(0, 20))
    keys = keys_of(text=[None, "t1"], ratio=[None, math.nan])
    site.log.delete(table, by_equality(table, keys))
    site.log.append(table, rows(0, 20))
    wanted = site.log.surviving(unpartitioned=[0])
    assert 20 < len(wanted) < 40
    assert_same(site.ask("select * from items"), wanted)
    assert site.ask("select count(*) as n from items") == [{"n": len(wanted)}]
    assert site.ask("select count(*) as n, min(id) as low from items where text is null") == [
        {
            "n": sum(row["text"] is None for row in wanted),
            "low": min(row["id"] for row in wanted if row["text"] is None),  # type: ignore[type-var]
        }
    ]


def test_an_older_delete_of_a_key_is_not_for_a_younger_file(site: Site) -> None:
    """Also where another, newer delete by the same columns touches that file."""
    table = site.create()
    site.log.append(table, rows(0, 10))
    site.log.delete(table, by_equality(table, keys_of(id=[3])))
    site.log.append(table, rows(0, 10))
    site.log.delete(table, by_equality(table, keys_of(id=[4])))
    wanted = site.log.surviving(unpartitioned=[0])
    assert sorted(row["id"] for row in wanted).count(3) == 1  # type: ignore[type-var]
    assert_same(site.ask("select * from items"), wanted)


def test_bounds_say_nothing_of_nulls(site: Site) -> None:
    """A delete whose values lie apart from a file's may still delete its nulls."""
    table = site.create()
    site.log.append(table, rows(0, 10))
    site.log.delete(table, by_equality(table, keys_of(text=["x", None]), bounds=True))
    wanted = site.log.surviving(unpartitioned=[0])
    assert len(wanted) == 8
    assert_same(site.ask("select * from items"), wanted)


def test_every_nan_is_the_same_key_and_the_zeros_are_two() -> None:
    """As Java compares doubles: canonical NaN, and the sign of zero counts."""
    nans = pa.array([0x7FF8000000000000, 0x7FF8000000000001], pa.int64()).view(pa.float64())
    other = pa.array([-1], pa.int64()).view(pa.float64())
    keys = KeySet([pa.concat_arrays([nans.slice(0, 1), pa.array([0.0])])], np.array([5, 7]))
    asked = pa.concat_arrays([nans, other, pa.array([0.0, -0.0, None])])
    assert keys.newest([asked]).tolist() == [5, 5, 5, 7, NEVER, NEVER]


def test_positions_and_vectors_are_exact_and_pyiceberg_agrees(site: Site) -> None:
    """A file of positions, one with bounds, and a Puffin file with a vector per data file."""
    table = site.create()
    for first in (0, 50, 100, 150):
        site.log.append(table, rows(first, 50))
    a, b, c, d = (file.path for file in site.log.files)
    site.log.delete(
        table,
        by_position(table, [(a, 0), (a, 49), (b, 7)]),
        by_position(table, [(b, 8), (b, 9)], bounds=True),
    )
    wanted = site.log.surviving()
    assert len(wanted) == 195
    assert_same(site.ask("select * from items"), wanted)
    assert_same(table.refresh().scan().to_arrow().to_pylist(), wanted)
    site.log.delete(table, *vectors(table, {c: [0, 1, 48], d: list(range(50))}))
    wanted = site.log.surviving()
    assert len(wanted) == 142
    assert_same(site.ask("select * from items"), wanted)
    assert site.ask("select count(*) as n, max(id) as high from items") == [{"n": 142, "high": 149}]


def test_a_table_of_version_3_is_read_with_its_vectors(site: Site) -> None:
    """Pyiceberg writes no version 3: the metadata file is made by hand."""
    table = site.create()
    site.log.append(table, rows(0, 50))
    site.log.delete(table, *vectors(table, {site.log.files[0].path: [3, 4]}))
    metadata = json.loads(table.metadata.model_dump_json(by_alias=True, exclude_none=True))
    location = table.metadata_location.replace(".metadata.json", "-3.metadata.json")
    with table.io.new_output(location).create() as sink:
        sink.write(json.dumps({**metadata, "format-version": 3, "next-row-id": 50}).encode())
    path = site.properties["uri"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as database:
        database.execute("update iceberg_tables set metadata_location = ?", [location])
        database.commit()
    assert_same(site.ask("select * from items"), site.log.surviving())


def test_files_of_version_1_are_older_than_every_delete(site: Site) -> None:
    """They have sequence number 0; the table has been upgraded since."""
    table = site.catalog.create_table("demo.items", SCHEMA, properties={"format-version": "1"})
    site.log.append(table, rows(0, 20))
    assert table.format_version == 1
    assert_same(site.ask("select * from items"), rows(0, 20).to_pylist())
    with table.transaction() as change:
        change.upgrade_table_version(2)
    table = table.refresh()
    site.log.files[0].sequence = 0
    site.log.delete(table, by_equality(table, keys_of(small=[2])))
    wanted = site.log.surviving(unpartitioned=[0])
    assert len(wanted) == 14
    assert_same(site.ask("select * from items"), wanted)


def test_copies_stand_beside_files_of_an_object_store(tmp_path: Path, s3: S3Store) -> None:
    """One statement scans files where they are, in S3, and copies of others on the local disk."""
    store = {**s3.properties, "warehouse": f"s3://{s3.create_bucket()}/lake"}
    with closing(Site(tmp_path, store)) as site:
        table = site.create()
        site.log.append(table, rows(0, 20))
        site.log.append(table, rows(20, 20))
        path = site.log.files[0].path
        site.log.delete(
            table, by_equality(table, keys_of(id=[25])), by_position(table, [(path, 1)])
        )
        site.log.append(table, rows(40, 20))
        site.log.delete(table, *vectors(table, {site.log.files[1].path: [7]}))
        wanted = site.log.surviving(unpartitioned=[0])
        assert len(wanted) == 57
        assert_same(site.ask("select * from items"), wanted)
        assert site.ask("select count(*) as n, sum(id) as total from items") == [
            {"n": 57, "total": sum(range(60)) - 25 - 1 - 27}
        ]


def test_a_delete_is_for_its_partition_or_for_all(site: Site) -> None:
    """Equality deletes of an unpartitioned spec are global; others keep to spec and values."""
    table = site.create()
    site.log.append(table, rows(0, 20))  # spec 0: unpartitioned
    with table.update_spec() as update:
        update.add_identity("part")
    table = table.refresh()
    site.log.append(table, rows(0, 20))  # spec 1: one file per part
    key = keys_of(small=[1])
    site.log.delete(table, by_equality(table, key, ["a"], 1))
    scoped = site.log.surviving(unpartitioned=[0])
    assert_same(site.ask("select * from items"), scoped)
    site.log.delete(table, by_equality(table, keys_of(small=[2]), (), 0))
    everywhere = site.log.surviving(unpartitioned=[0])
    assert len(everywhere) < len(scoped) < 40
    assert {row["part"] for row in everywhere if row["small"] == 1} == {"a", "b"}
    assert not [row for row in everywhere if row["small"] == 2]
    assert_same(site.ask("select * from items"), everywhere)


def test_keys_follow_their_column_through_evolution(site: Site) -> None:
    """By field id: promoted, renamed elsewhere, added later (null before), dropped since."""
    table = site.create()
    site.log.append(table, rows(0, 20))
    with table.update_schema() as update:
        update.update_column("small", LongType())
        update.add_column("late", LongType())
    table = table.refresh()
    small = pa.table({"small": pa.array([1], pa.int64())})
    late = pa.table({"late": pa.array([None], pa.int64()), "id": pa.array([2], pa.int64())})
    site.log.delete(table, by_equality(table, small), by_equality(table, late))
    wanted = site.log.surviving(unpartitioned=[0])
    assert 0 < len(wanted) < 19
    assert {row["id"] for row in wanted} == {n for n in range(20) if n % 3 != 1 and n != 2}
    assert_same(
        [r | {"late": 1} for r in site.ask("select * from items")],
        [r | {"late": 1} for r in wanted],
    )
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("small")
    found = {row["id"] for row in site.ask("select id from items")}
    assert found == {row["id"] for row in wanted}


def test_files_without_field_ids_are_read_by_the_tables_name_mapping(
    site: Site, tmp_path: Path
) -> None:
    """What a migration leaves: old files, whose names the table maps; deleted from by key."""
    table = site.create()
    old = tmp_path / "old.parquet"
    pq.write_table(rows(0, 20), old)
    table.add_files([f"file://{old}"])
    assert_same(site.ask("select * from items"), rows(0, 20).to_pylist())
    table = site.catalog.load_table("demo.items")
    before = json.loads(table.properties["schema.name-mapping.default"])
    other = rows(20, 20).rename_columns(["number", *SCHEMA.names[1:]])
    other_path = tmp_path / "other.parquet"
    pq.write_table(other, other_path)
    before[0]["names"].append("number")
    with table.transaction() as transaction:
        transaction.set_properties({"schema.name-mapping.default": json.dumps(before)})
    table = site.catalog.load_table("demo.items")
    add_file(table, f"file://{other_path}", 20)
    assert_same(site.ask("select * from items"), rows(0, 40).to_pylist())
    assert site.ask("select count(id) as n from items where id >= 20") == [{"n": 20}]
    commit(table.refresh(), [by_equality(table, keys_of(id=[3, 25]))])
    left = [row for row in rows(0, 40).to_pylist() if row["id"] not in {3, 25}]
    assert_same(site.ask("select * from items"), left)
    assert_same(
        table.refresh().scan(snapshot_id=table.snapshots()[-2].snapshot_id).to_arrow().to_pylist(),
        rows(0, 40).to_pylist(),
    )


def test_a_column_that_only_the_partition_tells_is_read(site: Site, tmp_path: Path) -> None:
    """Files that a migration from Hive keeps lack the columns of their folders' names."""
    mapping = [{"field-id": n + 1, "names": [name]} for n, name in enumerate(SCHEMA.names)]
    table = site.create()
    with table.update_spec() as update:
        update.add_identity("part")
    with table.transaction() as change:
        change.set_properties({"schema.name-mapping.default": json.dumps(mapping)})
    wanted = rows(0, 20).to_pylist()
    for part in "ab":
        path = tmp_path / f"part={part}.parquet"
        mine = rows(0, 20).filter(pc.field("part") == part).drop_columns("part")
        pq.write_table(mine, path)
        table = site.catalog.load_table("demo.items")
        add_file(table, f"file://{path}", mine.num_rows, [part], 1)
    assert_same(site.ask("select * from items"), wanted)
    assert site.ask("select count(*) as n from items where part = 'a'") == [{"n": 10}]
    table = site.catalog.load_table("demo.items")
    commit(table, [by_equality(table, keys_of(id=[4]), ["a"], 1)])
    left = [row for row in wanted if row["id"] != 4]
    assert_same(site.ask("select * from items"), left)
    commit(table.refresh(), [by_equality(table, keys_of(part=["a"], id=[6]), ["a"], 1)])
    with pytest.raises(Unsupported, match="partition column"):
        site.ask("select * from items")


def test_renamed_columns_and_deletes_are_read_together(site: Site) -> None:
    """Files and copies are scanned natively, each by the names that its own columns have."""
    table = site.create()
    site.log.append(table, rows(0, 20))
    site.log.append(table, rows(20, 20))
    with table.update_schema() as update:
        update.rename_column("text", "words")
    table = table.refresh()
    site.log.delete(table, by_equality(table, keys_of(id=[5])))
    table.append(rows(40, 5).rename_columns([*SCHEMA.names[:2], "words", *SCHEMA.names[3:]]))
    wanted = [row for row in rows(0, 45).to_pylist() if row["id"] != 5]
    found = [{**row, "text": row.pop("words")} for row in site.ask("select * from items")]
    assert_same(found, wanted)
    assert site.ask("select count(words) as n from items") == [
        {"n": sum(row["text"] is not None for row in wanted)}
    ]
    (files,) = [r["plan"] for r in site.ask("explain select * from items") if "kept" in r["plan"]]  # type: ignore[operator]
    assert "1 files read with deletes" in str(files)


def test_copies_are_made_once_and_only_where_rows_went(site: Site, tmp_path: Path) -> None:
    """The second statement reads the same local file; a file that lost no row is read in place."""
    table = site.create()
    site.log.append(table, rows(0, 20))
    site.log.append(table, rows(20, 20))
    site.log.delete(table, by_equality(table, keys_of(id=[3])))
    assert site.ask("select count(*) as n from items") == [{"n": 39}]
    (made,) = (tmp_path / "copies").iterdir()
    at = made.stat().st_mtime_ns
    assert site.ask("select count(*) as n from items") == [{"n": 39}]
    site.log.append(table, rows(40, 20))  # another snapshot, the same files
    assert site.ask("select count(*) as n from items") == [{"n": 59}]
    assert [(p, p.stat().st_mtime_ns) for p in (tmp_path / "copies").iterdir()] == [(made, at)]
    assert site.copies.size_bytes == made.stat().st_size


def test_bounds_that_rule_a_delete_out_spare_the_file(site: Site) -> None:
    table = site.create()
    site.log.append(table, rows(0, 20))
    site.log.append(table, rows(20, 20))
    site.log.delete(table, by_equality(table, keys_of(id=[25, 30]), bounds=True))
    wanted = site.log.surviving(unpartitioned=[0])
    assert_same(site.ask("select * from items"), wanted)
    head = site.lake.head(TableName("demo", "items"))
    entries = site.lake.entries(
        TableName("demo", "items"), head.snapshot_id, head.metadata_location
    )
    assert sorted(entries["equality_deletes"].to_pylist()) == [False, True]


def test_the_folder_is_bounded_and_what_runs_keeps_its_files(site: Site, tmp_path: Path) -> None:
    """A statement that needs more says so; one that ended makes room for the next."""
    table = site.create()
    for first in (0, 1000):
        site.log.append(table, rows(first, 100))
    site.log.delete(table, by_equality(table, keys_of(small=[1])))
    low, high = (f"select * from items where id {op} 500" for op in "<>")
    running = site.engine.stream(site.engine.plan(Statement(low), OPTIONS))
    site.copies._max_bytes = site.copies.size_bytes * 3 // 2
    with pytest.raises(CopiesFull, match=r"limits\.copies_bytes"):
        site.ask(high)
    assert running.read_all().num_rows == 67
    running.close()
    assert len(site.ask(high)) == 66
    (left,) = (tmp_path / "copies").iterdir()
    assert left.stat().st_size == site.copies.size_bytes
    with pytest.raises(CopiesFull):
        site.ask("select * from items")
    site.lake.close()
    assert not (tmp_path / "copies").exists()


def test_what_cannot_be_read_exactly_is_refused(site: Site) -> None:
    """A delete file of another format; a vector that is not what was written."""
    table = site.create()
    site.log.append(table, rows(0, 20))
    (vector,) = vectors(table, {site.log.files[0].path: [1]})
    path = Path(vector.file.file_path.removeprefix("file://"))
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(bytes(raw))
    commit(table, [vector])
    with pytest.raises(Unsupported, match="checksum"):
        site.ask("select * from items")


@pytest.mark.differential
@pytest.mark.parametrize("seed", range(100 if FUZZ else 4))
def test_random_tables_are_read_as_the_specification_says(site: Site, seed: int) -> None:
    campaign(site, seed, tables=4)


def campaign(site: Site, seed: int, tables: int) -> None:
    """Random appends, specs and deletes; the whole, and random predicates, by two engines."""
    dice = random.Random(seed)
    for number in range(tables):
        table, site.log = site.create(f"random_{number}"), Log()
        scopes = [0]
        for _ in range(dice.randint(3, 7)):
            step(site, table, dice, scopes)
            table = site.catalog.load_table(f"demo.random_{number}")
        wanted = site.log.surviving(unpartitioned=[0])
        name = f"random_{number}"
        assert_same(site.ask(f"select * from {name}"), wanted)
        assert site.ask(f"select count(*) as n from {name}") == [{"n": len(wanted)}]
        with duck(wanted) as database:
            for _ in range(12):
                where = predicate(dice)
                found = site.ask(f"select * from {name} where {where}")
                cursor = database.sql(f"select * from wanted where {where}")
                assert_same(found, cursor.to_arrow_table().to_pylist())


def step(site: Site, table: Table, dice: random.Random, scopes: list[int]) -> None:
    """One thing that another engine may do to the table."""
    what = dice.choice(["append", "append", "positions", "equality", "equality", "global", "spec"])
    if not site.log.files or what == "append":
        # No NaN: a file of NaN and one other number is that number all over to the engine (55.0).
        site.log.append(table, rows(dice.randint(0, 30), dice.randint(1, 30), None))
    elif what == "spec" and len(scopes) == 1:
        with table.update_spec() as update:
            update.add_identity("part")
        scopes.append(1)
    elif what == "positions":
        file = dice.choice(site.log.files)
        places = dice.sample(range(len(file.rows)), dice.randint(1, len(file.rows)))
        bounds = dice.random() < 0.5
        delete = by_position(
            table, [(file.path, n) for n in places], file.partition, file.spec_id, bounds=bounds
        )
        site.log.delete(table, delete)
    else:
        site.log.delete(table, random_keys(table, dice, 0 if what == "global" else scopes[-1]))


def random_keys(table: Table, dice: random.Random, spec_id: int) -> Delete:
    """Keys of one or two columns, some of which are there."""
    names = dice.sample(SCHEMA.names, dice.randint(1, 2))
    picked = rows(dice.randint(0, 40), dice.randint(1, 4), None).select(names)
    partition = [dice.choice("ab")] if spec_id else []
    return by_equality(table, picked, partition, spec_id, bounds=dice.random() < 0.5)


def predicate(dice: random.Random) -> str:
    n = dice.randint(-2, 65)
    simple = [
        f"id < {n}",
        f"id between {n} and {n + dice.randint(0, 20)}",
        f"id in ({n}, {n + 3}, {n + 9})",
        f"part = '{dice.choice('abc')}'",
        f"text = 't{dice.randint(0, 8)}'",
        "text is null",
        "text is not null",
        f"small <> {dice.randint(0, 3)}",
        f"text like 't{dice.randint(0, 8)}%'",
    ]
    return f"{dice.choice(simple)} {dice.choice(['and', 'or'])} {dice.choice(simple)}"


@contextmanager
def duck(wanted: list[dict[str, object]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """The wanted rows as the table ``wanted`` of another engine."""
    with closing(duckdb.connect()) as database:
        database.register("wanted", pa.Table.from_pylist(wanted, schema=SCHEMA))
        yield database
