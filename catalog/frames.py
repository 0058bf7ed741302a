"""A chunk's values told apart by what stands in front of them: the schema registry's frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.records import RejectKind
from catalog.wire import FRAME_BYTES


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
        heads = raw[offsets[:-1][framed][:, None] + np.arange(FRAME_BYTES)].astype(np.int64)
        numbers = heads[:, 1] << 24 | heads[:, 2] << 16 | heads[:, 3] << 8 | heads[:, 4]
        ids[framed] = np.where(heads[:, 0] == 0, numbers, -1)
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


def chosen(values: Sequence[bytes | None], rows: npt.NDArray[np.int64]) -> list[bytes]:
    """The values of ``rows``, none of which is None."""
    if len(rows) == len(values):
        return list(values)  # type: ignore[arg-type] # all are framed
    return [values[row] or b"" for row in rows.tolist()]
