"""What a field's default is in the table: encoded, then decoded as if a writer had sent it."""

from __future__ import annotations

import pyarrow as pa

from catalog.avro import RecordField, RecordOf, arrow_field
from catalog.blocks import BlockReader, Scratch
from catalog.columns import convert_all
from catalog.defaults import default_bytes
from catalog.errors import SchemaRefused
from catalog.evolution import Resolver
from catalog.wire import FRAME_BYTES


def default_array(field: RecordField) -> pa.Array:
    """The default of a field in an array of one element.

    Raises:
        SchemaRefused: it is no value of the field's type.
    """
    record, frame = RecordOf((field,)), bytes(FRAME_BYTES)
    block = BlockReader(record, Scratch()).read([frame + default_bytes(field)], frame)
    if block is None:
        raise SchemaRefused(f"field {field.name!r}: the default is no value of its type")
    sources = Resolver(0, 0).sources(record, [arrow_field(field)])
    (array,), faults = convert_all(sources, list(block.columns), len(block.columns[0]))
    if any(fault.bad[: block.rows].any() for fault in faults):
        raise SchemaRefused(f"field {field.name!r}: the default is out of range")
    return array.slice(0, 1)
