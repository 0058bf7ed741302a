"""How many bytes a batch takes on the wire, and batches that every client takes.

gRPC clients refuse messages over 4 MiB (tonic, grpc-go) or 16 MiB (ADBC).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

#: Arrow types whose values are bytes between 32-bit offsets, by their numbers …
_TEXT = frozenset({pa.string().id, pa.binary().id})
#: … and those of one width.
_FLAT = frozenset(
    kind.id
    for kind in (
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16()),
        *(pa.uint32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.date32()),
        *(pa.date64(), pa.time32("s"), pa.time64("us"), pa.timestamp("us"), pa.duration("us")),
        *(pa.month_day_nano_interval(), pa.decimal32(1), pa.decimal64(1), pa.decimal128(1)),
        *(pa.decimal256(1), pa.binary(1)),
    )
)
_BITS = 8


def size_of(batch: pa.RecordBatch) -> int:
    """The bytes of what the batch's rows refer to, padding aside.

    ``RecordBatch.nbytes`` gives the same, for a multiple of the time where most columns are flat;
    ``get_total_buffer_size`` gives the size of what the batch is a slice of.
    """
    rows = batch.num_rows
    return sum(_column(column, rows) for column in batch.columns)


def _column(column: pa.Array, rows: int) -> int:
    kind = column.type
    validity = (rows + _BITS - 1) // _BITS if column.null_count else 0
    number = kind.id
    if number in _TEXT:
        if rows == 0:
            return 0
        offsets = memoryview(column.buffers()[1]).cast("i")
        start = column.offset
        return validity + 4 * (rows + 1) + int(offsets[start + rows]) - int(offsets[start])
    if number in _FLAT:
        return validity + (rows * int(kind.bit_width) + _BITS - 1) // _BITS
    return int(column.nbytes)


def sliced(batch: pa.RecordBatch, max_bytes: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The batch in pieces of at most ``max_bytes``, each with its size; nothing is copied.

    A single larger row travels alone.
    """
    size = size_of(batch)
    if size <= max_bytes or batch.num_rows <= 1:
        yield batch, size
        return
    pieces = min(batch.num_rows, -(-size // max_bytes))
    rows = -(-batch.num_rows // pieces)
    for first in range(0, batch.num_rows, rows):
        piece = batch.slice(first, rows)
        yield from sliced(piece, max_bytes)  # rows may be of uneven size
