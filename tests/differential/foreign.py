"""Tables that other tools wrote: of many files, evolved, without statistics, rows deleted."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table
from pyiceberg.types import DecimalType, DoubleType, FloatType, LongType, StringType
from support_deletes import add_file, by_equality, by_position, commit, vectors

from catalog.data_files import write_files
from catalog.spec import TableName, TableSpec
from differential.rows import SCHEMA, TOPIC

#: Rows with these and greater ids are deleted again from ``evolved``.
_DOOMED = 10**6
_HALF = 0.5


def blind(catalog: Catalog, name: str, rows: pa.Table, rng: random.Random) -> None:
    """Many files without statistics, but with Bloom filters, in any order."""
    table = catalog.create_table(name, SCHEMA)
    order = list(range(rows.num_rows))
    rng.shuffle(order)
    rest = rows.take(pa.array(order))
    while rest.num_rows:
        count = min(rest.num_rows, rng.randint(1, max(1, rows.num_rows // 2)))
        _add(table, rest.slice(0, count), statistics=False)
        table, rest = table.refresh(), rest.slice(count)


def _add(table: Table, rows: pa.Table, *, statistics: bool) -> str:
    """Commits a data file whose manifest entry says nothing but how many rows there are."""
    path = f"{table.location()}/data/{time.time_ns():x}.parquet"
    ids = [
        field.with_metadata({"PARQUET:field_id": str(i)})
        for field, i in _numbered(table, rows.schema)
    ]
    Path(path.removeprefix("file://")).parent.mkdir(parents=True, exist_ok=True)
    with table.io.new_output(path).create() as sink:
        pq.write_table(
            rows.cast(pa.schema(ids)),
            sink,
            write_statistics=statistics,
            bloom_filter_options={
                field.name: {"ndv": rows.num_rows}
                for field in ids
                if not (pa.types.is_nested(field.type) or pa.types.is_boolean(field.type))
            },
        )
    add_file(table, path, rows.num_rows)
    return path


def _numbered(table: Table, schema: pa.Schema) -> Iterator[tuple[pa.Field, int]]:
    """Each field with its id, the children's put in."""
    for name in schema.names:
        found = table.schema().find_field(name)
        kind = {
            "g": lambda f=found: pa.list_(_child("element", pa.int32(), f.field_type.element_id)),
            "r": lambda f=found: pa.struct(
                [
                    _child(c.name, schema.field("r").type.field(c.name).type, c.field_id)
                    for c in f.field_type.fields
                ]
            ),
        }.get(name, lambda n=name: schema.field(n).type)()
        yield pa.field(name, kind, schema.field(name).nullable), found.field_id


def _child(name: str, kind: pa.DataType, number: int) -> pa.Field:
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(number)})


def evolved(catalog: Catalog, name: str, rows: pa.Table, rng: random.Random) -> None:
    """The former third of the rows by the former schema, the rest by today's; deletes between."""
    old, new = rows.slice(0, rows.num_rows // 3), rows.slice(rows.num_rows // 3)
    doomed = _doomed(rows, rng)
    table = catalog.create_table(name, _formerly(old).schema)
    table = _append(table, _formerly(old), rng)
    table = _append(table, _formerly(doomed), rng)
    if rng.random() < _HALF:
        table = _delete(table, rng)
        table = _append(table, _formerly(doomed), rng)
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("key", "k")
        update.update_column("l", LongType())
        update.update_column("x", DoubleType())
        update.update_column("m", DecimalType(38, 10))
        update.delete_column("u")
        update.add_column(("r", "q"), StringType())
        update.add_column("y", FloatType())
        update.move_first("id")
    with table.update_schema() as update:
        update.add_column("u", StringType())
    table = table.refresh()
    if rng.random() < _HALF:
        with table.update_spec() as change:
            change.add_field(*rng.choice((("t", "year"), ("id", "bucket[3]"), ("b", "identity"))))
    table = table.refresh()
    names = [field.name for field in table.schema().fields]
    assert sorted(names) == sorted(SCHEMA.names)
    with table.update_schema() as update:
        for before, after in zip(SCHEMA.names, SCHEMA.names[1:], strict=False):
            if rng.random() < _HALF:
                update.move_after(after, before)
    table = table.refresh()
    today = [field.name for field in table.schema().fields]
    table = _append(table, new.select(today), rng)
    table = _append(table, doomed.select(today), rng)
    _delete(table, rng)


def _doomed(rows: pa.Table, rng: random.Random) -> pa.Table:
    """Copies of some rows with ids of their own."""
    few = rows.slice(0, rows.num_rows // 3).take(
        pa.array(rng.sample(range(rows.num_rows // 3), rows.num_rows // 6))
    )
    ids = pa.array(range(_DOOMED, _DOOMED + few.num_rows), pa.int64())
    return few.set_column(0, SCHEMA.field("id"), ids)


def _formerly(rows: pa.Table) -> pa.Table:
    """The rows in the schema that the table began with."""
    kinds = {"l": pa.int32(), "x": pa.float32(), "m": pa.decimal128(20, 10)}
    columns, fields = [], []
    for field in reversed(SCHEMA):
        column = rows[field.name]
        if field.name == "y":
            continue
        if field.name == "u":  # another column of this name, of which nothing may be seen later
            column = pa.chunked_array([pa.array(["ghost"] * rows.num_rows, pa.string())])
        if field.name == "r":
            flat = column.combine_chunks()
            mask = pc.is_null(flat)
            column = pa.chunked_array(
                [pa.StructArray.from_arrays([flat.field("p")], ["p"], mask=mask)]
            )
        column = column.cast(kinds.get(field.name, column.type))
        columns.append(column)
        name = "key" if field.name == "k" else field.name
        fields.append(pa.field(name, column.type, field.nullable))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _append(table: Table, rows: pa.Table, rng: random.Random) -> Table:
    """A few snapshots; rows with NaN are written by our own writer.

    Of a foreign file's statistics the engine (55.0) believes that its floats lie within bounds
    that leave NaN out.
    """
    floats = [field.name for field in rows.schema if pa.types.is_floating(field.type)]
    has_nan = functools.reduce(
        pc.or_, (pc.fill_null(pc.is_nan(rows[name]), fill_value=False) for name in floats)
    )
    for foreign, all_rows in (
        (True, rows.filter(pc.invert(has_nan))),
        (False, rows.filter(has_nan)),
    ):
        rest = all_rows
        while rest.num_rows:
            count = min(
                rest.num_rows, rng.randint(max(1, rows.num_rows // 2), max(2, rows.num_rows))
            )
            if foreign:
                table.append(rest.slice(0, count))
            else:
                spec = TableSpec(TableName("evolved", "any"), (TOPIC,))
                written = write_files(table.metadata, table.io, rest.slice(0, count), spec)
                with table.transaction() as change, change.update_snapshot().fast_append() as added:
                    for each in written:
                        added.append_data_file(each.file)
            table, rest = table.refresh(), rest.slice(count)
    return table


def _delete(table: Table, rng: random.Random) -> Table:
    """Every doomed row goes, in one of three ways."""
    doomed: dict[str, tuple[list[int], DataFile]] = {}
    for file in _files(table):
        with table.io.new_input(file.file_path).open() as source:
            ids = pq.read_table(source, columns=["id"])["id"].to_pylist()
        if found := [at for at, number in enumerate(ids) if number >= _DOOMED]:
            doomed[file.file_path] = found, file
    how = rng.choice(("positions", "vectors", "keys"))
    if how == "keys":
        ids = pa.array(range(_DOOMED, _DOOMED + 1000), pa.int64())
        keys = pa.table({"id": ids}, schema=pa.schema([SCHEMA.field("id")]))
        return commit(table, [by_equality(table, keys, bounds=rng.random() < _HALF)])
    if how == "vectors" and all(file.spec_id == 0 for _, file in doomed.values()):
        return commit(table, vectors(table, {path: found for path, (found, _) in doomed.items()}))
    deletes = []
    for path, (found, file) in doomed.items():
        partition = [file.partition[at] for at in range(len(file.partition))]
        places = [(path, at) for at in found]
        bounds = rng.random() < _HALF
        deletes.append(by_position(table, places, partition, file.spec_id, bounds=bounds))
    return commit(table, deletes)


def _files(table: Table) -> list[DataFile]:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
        if entry.data_file.content == DataFileContent.DATA
    ]
