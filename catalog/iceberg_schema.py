"""Iceberg's schema language and the declared Arrow schema: names, types, partitions, sort order.

Pure; imports pyiceberg's values and nothing of the lake.

Arrow here means *plain* types: utf8, binary, list (child ``element``), map (``key``, ``value``),
timestamps in UTC. pyiceberg's own conversion gives large types, which no JDBC or ODBC client reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import ValidationError
from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, Transform, UnknownTransform, parse_transform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampNanoType,
    TimestampType,
    TimestamptzNanoType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from catalog.declaration import FIELD_ID, children, field_id, is_filled
from catalog.errors import SpecRefused, Unsupported, shorten

#: First id of a partition field, by the Iceberg specification ("Partition Evolution").
_FIRST_PARTITION_FIELD_ID = 1000

#: Names that every writer puts into files as they are; others are made fit for Avro, by most.
_WRITTEN_AS_IS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_PLAIN: Mapping[type[IcebergType], Callable[[IcebergType], pa.DataType]] = {
    BooleanType: lambda _: pa.bool_(),
    IntegerType: lambda _: pa.int32(),
    LongType: lambda _: pa.int64(),
    FloatType: lambda _: pa.float32(),
    DoubleType: lambda _: pa.float64(),
    DecimalType: lambda t: pa.decimal128(t.precision, t.scale),  # type: ignore[attr-defined] # by key
    DateType: lambda _: pa.date32(),
    TimeType: lambda _: pa.time64("us"),
    TimestampType: lambda _: pa.timestamp("us"),
    TimestamptzType: lambda _: pa.timestamp("us", tz="UTC"),
    TimestampNanoType: lambda _: pa.timestamp("ns"),
    TimestamptzNanoType: lambda _: pa.timestamp("ns", tz="UTC"),
    StringType: lambda _: pa.string(),
    BinaryType: lambda _: pa.binary(),
    FixedType: lambda t: pa.binary(len(t)),  # type: ignore[arg-type] # by key
    UUIDType: lambda _: pa.binary(16),
}


def plain_type(iceberg: IcebergType, *, ids: bool = False) -> pa.DataType:
    """The plain Arrow type of an Iceberg type.

    Args:
        iceberg: any type of format version 1 or 2, or nanosecond timestamps.
        ids: write Iceberg's field ids into the children's metadata (for Parquet files).

    Raises:
        Unsupported: a type that this version cannot read.
    """
    if isinstance(iceberg, StructType):
        return pa.struct([plain_field(child, ids=ids) for child in iceberg.fields])
    if isinstance(iceberg, ListType):
        return pa.list_(plain_field(iceberg.element_field, ids=ids))
    if isinstance(iceberg, MapType):
        key, value = (plain_field(f, ids=ids) for f in (iceberg.key_field, iceberg.value_field))
        return pa.map_(key, value)
    if (convert := _PLAIN.get(type(iceberg))) is None:
        raise Unsupported(f"columns of the Iceberg type {shorten(iceberg)} cannot be read yet")
    return convert(iceberg)


def plain_field(field: NestedField, *, ids: bool = False) -> pa.Field:
    """The plain Arrow field of an Iceberg field; its doc string stays in the metadata."""
    metadata = {b"doc": field.doc.encode()} if field.doc and not ids else {}
    if ids:
        metadata[FIELD_ID] = str(field.field_id).encode()
    kind = plain_type(field.field_type, ids=ids)
    return pa.field(field.name, kind, not field.required, metadata or None)


def plain_schema(schema: Schema, *, ids: bool = False) -> pa.Schema:
    """The plain Arrow schema of an Iceberg schema, columns in the table's order."""
    return pa.schema([plain_field(field, ids=ids) for field in schema.fields])


def iceberg_schema(declared: pa.Schema) -> Schema:
    """A new table's Iceberg schema with fresh field ids.

    Raises:
        SpecRefused: a column's type has no Iceberg type that gives it back unchanged.
    """
    try:
        schema = assign_fresh_schema_ids(Catalog._convert_schema_if_needed(declared))  # noqa: SLF001 - what create_table itself calls
    except (TypeError, ValueError, UnsupportedPyArrowTypeException) as error:
        raise SpecRefused(f"the declared schema has no Iceberg form: {shorten(error)}") from error
    for mine, theirs in zip(declared, plain_schema(schema), strict=True):
        if not mine.equals(theirs):
            raise SpecRefused(
                f"column {mine.name!r} of type {shorten(mine.type)} would come back from Iceberg "
                f"as {shorten(theirs.type)}: declare it so"
            )
    return schema


def names_are_stable(schemas: Sequence[Schema], declared: pa.Schema | None = None) -> bool:
    """Whether each name, nested ones too, means one field id in all schemas, and back.

    With a declaration its names count, too, and files of every schema must have the columns in
    which it has a fill: then a scan by names reads all files as it wants them.

    Schemas are numbered from 0. If one is gone (expiry may remove them, files of it may be left),
    nobody knows what names it had. A name that is no word of ASCII letters stands otherwise in the
    files of most writers (``a.b`` as ``a_x2Eb``), so only ids tell which column it is.
    """
    if {schema.schema_id for schema in schemas} != set(range(len(schemas))):
        return False
    names = (schema.find_field(number).name for schema in schemas for number in schema.field_ids)
    if not all(map(_WRITTEN_AS_IS.fullmatch, names)):
        return False
    pairs = {
        (schema.find_column_name(field_id), field_id)
        for schema in schemas
        for field_id in schema.field_ids
    }
    if declared is not None:
        named = dict(_paths(declared, ""))
        filled = {number for number, (_, has) in named.items() if has}
        if any(not filled <= schema.field_ids for schema in schemas):
            return False
        pairs |= {(path, number) for number, (path, _) in named.items()}
    return len({name for name, _ in pairs}) == len(pairs) == len({number for _, number in pairs})


def _paths(fields: Iterable[pa.Field], path: str) -> Iterator[tuple[int, tuple[str, bool]]]:
    """Per field id the path by Iceberg's names, and whether rows without it hold a value."""
    for field in fields:
        name = f"{path}{field.name}"
        if (number := field_id(field)) is not None:
            yield number, (name, is_filled(field))
        yield from _paths(children(field.type), f"{name}.")


def conflict(declared: pa.Schema, table: pa.Schema) -> str | None:
    """Why rows of ``declared`` cannot live in a table of the schema ``table``; None if they can.

    Column order is free; columns that only the table has must be nullable.
    """
    for field in declared:
        position = table.get_field_index(field.name)
        if position < 0:
            return f"column {field.name!r} is not in the table"
        theirs = table.field(position)
        if not field.type.equals(theirs.type):
            return (
                f"column {field.name!r} is {shorten(theirs.type)} in the table "
                f"and {shorten(field.type)} in the declared schema"
            )
        if theirs.nullable and not field.nullable:
            return f"column {field.name!r} is nullable in the table and required in the schema"
    for field in table:
        if not field.nullable and field.name not in declared.names:
            return f"column {field.name!r} of the table is required and the schema has no value"
    return None


@dataclass(frozen=True, slots=True)
class PartitionTerm:
    """One declared partition field: ``transform`` of ``column``."""

    transform: Transform[object, object]
    column: str

    @property
    def name(self) -> str:
        """The partition field's name, as Iceberg's own libraries choose it."""
        if isinstance(self.transform, IdentityTransform):
            return self.column
        return f"{self.column}_{re.match(r'[a-z]+', str(self.transform)).group()}"  # type: ignore[union-attr] # transforms start with letters


_TERM = re.compile(r"(?P<transform>[a-z]+)\((?:(?P<width>\d+)\s*,\s*)?(?P<column>.+)\)")


def parse_partition(text: str) -> PartitionTerm:
    """``"day(timestamp)"``, ``"bucket(16, symbol)"``, ``"truncate(4, x)"`` or ``"symbol"``.

    Raises:
        SpecRefused: not of this form, or an unknown transform.
    """
    match = _TERM.fullmatch(text.strip())
    if match is None:
        return PartitionTerm(IdentityTransform(), text.strip())
    width = f"[{match['width']}]" if match["width"] else ""
    try:
        transform = parse_transform(f"{match['transform']}{width}")
    except ValidationError as error:
        raise _bad_partition(text) from error
    if isinstance(transform, UnknownTransform):
        raise _bad_partition(text)
    return PartitionTerm(transform, match["column"].strip())


def _bad_partition(text: str) -> SpecRefused:
    return SpecRefused(
        f"partition {shorten(text)!r} is none of column, year(c), month(c), day(c), hour(c), "
        f"bucket(n, c), truncate(n, c)"
    )


def partition_spec(terms: Sequence[str], schema: Schema) -> PartitionSpec:
    """The partition spec of a new table.

    Raises:
        SpecRefused: a term does not parse, names no column, or its transform does not fit.
    """
    fields = []
    for number, text in enumerate(terms):
        term = parse_partition(text)
        source = _column(schema, term.column, f"partition {text!r}")
        if not term.transform.can_transform(source.field_type):
            raise SpecRefused(
                f"partition {text!r}: {term.transform} of a {source.field_type} is impossible"
            )
        field_id = _FIRST_PARTITION_FIELD_ID + number
        fields.append(PartitionField(source.field_id, field_id, term.transform, term.name))
    return PartitionSpec(*fields)


def declared_terms(spec: PartitionSpec, schema: Schema) -> tuple[tuple[str, str], ...]:
    """(transform, column) of each partition field, to compare a table with its declaration."""
    return tuple(
        (str(field.transform), schema.find_column_name(field.source_id) or "")
        for field in spec.fields
    )


def sort_order(columns: Sequence[str], schema: Schema) -> SortOrder:
    """The sort order of a new table: ascending, nulls first.

    Raises:
        SpecRefused: a name that is no primitive column.
    """
    fields = [
        SortField(
            source_id=_column(schema, name, "sort").field_id,
            transform=IdentityTransform(),
            direction=SortDirection.ASC,
            null_order=NullOrder.NULLS_FIRST,
        )
        for name in columns
    ]
    return SortOrder(*fields, order_id=1) if fields else SortOrder(order_id=0)


def matching_order_id(columns: Sequence[str], orders: Sequence[SortOrder], schema: Schema) -> int:
    """The id of the table's sort order that equals ``columns``; 0 ("unsorted") if none does."""
    wanted = sort_order(columns, schema).fields
    return next((order.order_id for order in orders if columns and order.fields == wanted), 0)


def _column(schema: Schema, name: str, what: str) -> NestedField:
    field = next((field for field in schema.fields if field.name == name), None)
    if field is None:
        raise SpecRefused(f"{what}: there is no column {shorten(name)!r}")
    if not field.field_type.is_primitive:
        raise SpecRefused(f"{what}: column {name!r} is a {shorten(field.field_type)}, not a value")
    return field
