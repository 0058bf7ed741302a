"""Row hashes: equal values, equal numbers, wherever the values lie in memory."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from catalog.rowhash import row_hashes

#: Per column values of which none equals another; null is one of them, nothing another.
VALUES: dict[str, tuple[pa.DataType, list[object]]] = {
    "int": (pa.int32(), [1, None, 2, 0]),
    "text": (pa.string(), ["xy", None, "yx", ""]),
    "bytes": (pa.binary(), [b"\0", None, b"\0\0", b""]),
    "list": (pa.list_(pa.int64()), [[1, 2], None, [2, 1], []]),
    "struct": (
        pa.struct([("p", pa.int64()), ("q", pa.string())]),
        [{"p": 1, "q": None}, None, {"p": None, "q": "1"}, {"p": None, "q": None}],
    ),
    "map": (pa.map_(pa.string(), pa.string()), [[("k", "v")], None, [("v", "k")], []]),
    "decimal": (pa.decimal128(38, 8), [Decimal("1.5"), None, Decimal("-1.5"), Decimal(2) ** 90]),
    "double": (pa.float64(), [1.5, None, -1.5, 0.0]),
    "bool": (pa.bool_(), [True, None, False]),
    "fixed": (pa.binary(3), [b"abc", None, b"acb", b"\0\0\0"]),
    "instant": (pa.timestamp("us", "UTC"), [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None, 0]),
    "date": (pa.date32(), [dt.date(2026, 1, 1), None, dt.date(1970, 1, 1)]),
}


def batch_of(name: str) -> pa.RecordBatch:
    kind, values = VALUES[name]
    return pa.record_batch({name: pa.array(values, kind)})


@pytest.mark.parametrize("name", VALUES)
def test_a_value_has_one_number_wherever_it_lies(name: str) -> None:
    batch = batch_of(name)
    hashes = row_hashes(batch, [name]).tolist()
    assert len(set(hashes)) == batch.num_rows
    for row in range(batch.num_rows):
        assert row_hashes(batch.slice(row, 1), [name]).tolist() == [hashes[row]]
    mixed = pa.concat_batches([batch, batch]).take(pa.array([2, 0, batch.num_rows + 1]))
    assert row_hashes(mixed, [name]).tolist() == [hashes[2], hashes[0], hashes[1]]
    assert row_hashes(batch.slice(0, 0), [name]).tolist() == []


@pytest.mark.parametrize(
    ("name", "wider"), [("int", pa.int64()), ("text", pa.dictionary(pa.int32(), pa.string()))]
)
def test_a_promoted_or_dictionary_column_is_the_same(name: str, wider: pa.DataType) -> None:
    batch = batch_of(name)
    other = pa.record_batch({name: batch.column(name).cast(wider)})
    assert row_hashes(other, [name]).tolist() == row_hashes(batch, [name]).tolist()


def test_columns_cannot_be_exchanged() -> None:
    one = pa.record_batch({"a": pa.array([1, 2]), "b": pa.array([2, 1])})
    first, second = row_hashes(one, ["a", "b"]).tolist()
    assert first != second
