"""How many bytes a batch takes on the wire, and batches that every client takes.

gRPC clients refuse messages over 4 MiB (tonic, grpc-go) or 16 MiB (ADBC).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

#: Arrow types whose values are bytes between 32-bit offsets, and those of one width.
_TEXT = (pa.types.is_string, pa.types.is_binary)
_FLAT = (pa.types.is_primitive, pa.types.is_decimal, pa.types.is_fixed_size_binary)
_BITS = 8


def size_of(batch: pa.RecordBatch) -> int:
    """The bytes of what the batch's rows refer to, padding aside.

    ``RecordBatch.nbytes`` gives the same, for 100 µs where most columns are flat and this takes 5;
    ``get_total_buffer_size`` gives the size of what the batch is a slice of.
    """
    rows = batch.num_rows
    return sum(_column(column, rows) for column in batch.columns)


def _column(column: pa.Array, rows: int) -> int:
    kind = column.type
    validity = (rows + _BITS - 1) // _BITS if column.null_count else 0
    if any(is_kind(kind) for is_kind in _TEXT):
        if rows == 0:
            return 0
        offsets = memoryview(column.buffers()[1]).cast("i")
        start = column.offset
        return validity + 4 * (rows + 1) + int(offsets[start + rows]) - int(offsets[start])
    if any(is_kind(kind) for is_kind in _FLAT):
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
