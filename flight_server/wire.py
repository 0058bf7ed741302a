"""What goes over the wire: plain Arrow types.

JDBC, ODBC and Grafana read neither view nor large nor dictionary types.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from flight_server.protocol.errors import Internal, ResourceExhausted

#: Types that clients read as they are, by Arrow's numbers: most columns have one of these.
_PLAIN = frozenset(
    kind.id
    for kind in (
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16()),
        *(pa.uint32(), pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.binary()),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.timestamp("us")),
        *(pa.decimal128(1), pa.decimal256(1)),
    )
)


def wire_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that is promised and sent: plain types, no metadata, nullability kept."""
    return pa.schema([wire_field(field) for field in schema])


def wire_field(field: pa.Field) -> pa.Field:
    """One column or child in plain types."""
    return pa.field(field.name, wire_type(field.type), field.nullable)


def wire_type(kind: pa.DataType) -> pa.DataType:
    """The plain type that carries the same values.

    Views and large types become plain ones, dictionaries and runs their values, 16-bit floats
    32-bit ones, narrow decimals decimal128; children follow.
    """
    return kind if kind.id in _PLAIN else _plain(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_string_view(kind) or types.is_large_string(kind):
        return pa.string()
    if types.is_binary_view(kind) or types.is_large_binary(kind):
        return pa.binary()
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return wire_type(kind.value_type)
    if types.is_float16(kind):
        return pa.float32()
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return _nested(kind)


def _nested(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_fixed_size_list(kind):
        return pa.list_(wire_field(kind.value_field), kind.list_size)
    lists = (types.is_list, types.is_large_list, types.is_list_view, types.is_large_list_view)
    if any(is_kind(kind) for is_kind in lists):
        return pa.list_(wire_field(kind.value_field))
    if types.is_map(kind):
        return pa.map_(wire_field(kind.key_field), wire_field(kind.item_field), kind.keys_sorted)
    if types.is_struct(kind):
        return pa.struct([wire_field(kind.field(i)) for i in range(kind.num_fields)])
    return kind


def to_wire(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in the promised schema, by position.

    Raises:
        Internal: a column that was promised without nulls has some, or one is missing.
        ResourceExhausted: one batch's text is beyond what a plain type can address (2 GiB).
    """
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    if batch.num_columns != len(schema):
        raise Internal(f"the engine gave {batch.num_columns} columns, {len(schema)} were planned")
    columns = [
        column if column.type == field.type else _cast(column, field)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    for column, field in zip(columns, schema, strict=True):
        if not field.nullable and column.null_count:
            raise Internal(
                f"column {field.name!r} was planned without nulls and has some: where a sub-query"
                " of a value may find no row, write (SELECT max(x) …)"
            )
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        column = _list_of(column)
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise ResourceExhausted(
            f"column {field.name!r} is too large for one batch of type {field.type}"
        ) from error


def _list_of(views: pa.Array) -> pa.Array:
    """A list view as a list; pyarrow's own cast makes invalid offsets where the last is null."""
    lengths = pc.fill_null(pc.list_value_length(views), fill_value=0).cast(pa.int64())
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    values = pc.list_flatten(views)
    return pa.LargeListArray.from_arrays(offsets, values, mask=pc.is_null(views))
