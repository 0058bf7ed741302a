"""A chunk's values told apart by what stands in front of them: the schema registry's frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.records import RejectKind
from catalog.wire import FRAME_BYTES

#: Stretches of fewer rows than this, on average, are gathered row by row.
_SHORT_ROWS = 64


@dataclass(frozen=True, slots=True)
class Bad:
    """A record of a chunk that is no row."""

    row: int
    kind: RejectKind
    schema_id: int | None
    reason: str


def split(
    values: Sequence[bytes | None], max_bytes: int
) -> tuple[npt.NDArray[np.int64], list[Bad]]:
    """Per value its schema id, -1 where it has no frame or is too large; and why not."""
    if not values:
        return np.empty(0, np.int64), []
    _, ends, data = pa.array(values, pa.large_binary()).buffers()
    offsets = np.frombuffer(ends, np.int64)[: len(values) + 1]
    sizes = np.diff(offsets)
    framed = (sizes >= FRAME_BYTES) & (sizes <= max_bytes)
    ids = np.full(len(values), -1, np.int64)
    if framed.any():
        raw = np.frombuffer(data, np.uint8)
        zero, *number = (raw.take(offsets[:-1][framed] + at) for at in range(FRAME_BYTES))
        numbers = np.zeros(len(zero), np.int64)
        for byte in number:
            numbers = numbers << 8 | byte
        ids[framed] = np.where(zero == 0, numbers, -1)
    bad = np.flatnonzero(ids < 0).tolist()
    return ids, [_unframed(row, values[row], max_bytes) for row in bad]


def _unframed(row: int, value: bytes | None, max_bytes: int) -> Bad:
    if value is None:
        why = "null value (a tombstone): the table has no row to delete by it"
        return Bad(row, RejectKind.NULL_VALUE, None, why)
    if len(value) > max_bytes:
        why = f"{len(value)} bytes are more than the table's max_value_bytes ({max_bytes})"
        return Bad(row, RejectKind.TOO_LARGE, None, why)
    if not value:
        why = "empty value"
    elif value[0]:
        why = f"the first byte is {value[0]}, not the 0 of a schema registry's frame"
    else:
        why = f"{len(value)} bytes are less than a frame"
    return Bad(row, RejectKind.NO_FRAME, None, why)


def chosen(values: Sequence[bytes | None], rows: npt.NDArray[np.int64]) -> Sequence[bytes | None]:
    """The values of ``rows``, ascending."""
    return values if len(rows) == len(values) else [values[row] for row in rows.tolist()]


def rows_of(batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """Rows of a batch; where most are taken, and in order, they are copied in stretches."""
    breaks = [0, *(1 + np.flatnonzero(np.diff(rows) != 1)).tolist(), len(rows)]
    if len(breaks) * _SHORT_ROWS > len(rows):
        return batch.take(pa.array(rows))
    stretches = [(int(rows[first]), next_ - first) for first, next_ in pairwise(breaks)]
    return pa.concat_batches([batch.slice(first, size) for first, size in stretches])
