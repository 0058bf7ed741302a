"""Fields of null structs made null: what lies under a null is not for anybody.

Arrow leaves it open what the children of a null struct hold, and builders put zeros and empty
texts there; the engine (DataFusion 55.0) reads a field without looking at the struct it is in.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def masked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows; under a null struct, at any depth, every field is null."""
    if not any(_has_struct(field.type) for field in batch.schema):
        return batch
    return pa.RecordBatch.from_arrays(list(map(_masked, batch.columns)), schema=batch.schema)


def _has_struct(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return _has_struct(kind.key_type) or _has_struct(kind.item_type)
    if pa.types.is_list(kind):
        return _has_struct(kind.value_type)
    return bool(pa.types.is_struct(kind))


def _masked(column: pa.Array) -> pa.Array:
    kind = column.type
    if not _has_struct(kind):
        return column
    if pa.types.is_struct(kind):
        fields = list(map(_masked, column.flatten()))
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=pc.is_null(column))
    buffers, entries = column.buffers()[:2], column.values
    if pa.types.is_map(kind):  # its entries are structs that are never null
        parts = [_masked(entries.field(at)) for at in range(entries.type.num_fields)]
        inner = pa.StructArray.from_arrays(parts, fields=list(entries.type))
    else:
        inner = _masked(entries)
    return pa.Array.from_buffers(
        kind, len(column), buffers, column.null_count, column.offset, children=[inner]
    )
