"""Bounds that were written under a column's former type."""

from __future__ import annotations

import pyarrow as pa
import pytest

from catalog.bounds import decoder, typed


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (pa.int64(), (7).to_bytes(4, "little"), 7),
        (pa.int64(), (-7).to_bytes(8, "little", signed=True), -7),
        (pa.date32(), (3).to_bytes(4, "little"), 3),
        (pa.timestamp("us"), (3).to_bytes(8, "little"), 3),
        (pa.timestamp("us"), (3).to_bytes(4, "little"), None),  # a date's days
        (pa.timestamp("ns"), (3).to_bytes(4, "little"), None),
    ],
)
def test_a_promoted_columns_bound_is_its_value_or_unknown(
    kind: pa.DataType, raw: bytes, value: int | None
) -> None:
    assert typed([decoder(kind)(raw)], kind).equals(
        pa.array([value], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    )
