"""What goes over the wire: plain types, bounded batches."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from flight_server.protocol.errors import Internal
from flight_server.protocol.sizes import size_of, sliced
from flight_server.wire import to_wire, wire_schema

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
REWRITTEN = [
    (pa.array(["a", None], pa.string_view()), pa.string()),
    (pa.array(["a", None], pa.large_string()), pa.string()),
    (pa.array([b"a", None], pa.binary_view()), pa.binary()),
    (pa.array([b"a", None], pa.large_binary()), pa.binary()),
    (pa.array(["a", None]).dictionary_encode(), pa.string()),
    (pa.RunEndEncodedArray.from_arrays([2], pa.array(["x"])), pa.string()),
    (pa.array([1.5, None], pa.float16()), pa.float32()),
    (pa.array([[1], None], pa.large_list(pa.int64())), pa.list_(pa.int64())),
    (pa.array([["a"], None], pa.list_(pa.string_view())), pa.list_(pa.string())),
    (pa.array([["a"]]).cast(pa.list_(DICTIONARY)), pa.list_(pa.string())),
    (pa.array([[1, 2], None], pa.list_view(pa.int64())), pa.list_(pa.int64())),
    (pa.array([["a", "b"]], pa.list_(pa.string_view(), 2)), pa.list_(pa.string(), 2)),
    (
        pa.array([{"a": "x"}], pa.struct([("a", pa.string_view())])),
        pa.struct([("a", pa.string())]),
    ),
    (
        pa.array([[("k", "v")], None], pa.map_(pa.string_view(), pa.large_string())),
        pa.map_(pa.string(), pa.string()),
    ),
    (pa.array([Decimal("1.25")], pa.decimal64(5, 2)), pa.decimal128(5, 2)),
]


@pytest.mark.parametrize(("column", "plain"), REWRITTEN, ids=lambda x: str(getattr(x, "type", "")))
def test_types_that_clients_cannot_read_become_plain(column: pa.Array, plain: pa.DataType) -> None:
    batch = pa.RecordBatch.from_arrays([column], names=["c"])
    schema = wire_schema(batch.schema)
    assert schema.field("c").type == plain
    sent = to_wire(batch, schema)
    sent.validate(full=True)
    assert sent.schema == schema
    assert sent.column(0).to_pylist() == column.to_pylist()


@pytest.mark.parametrize(
    "plain",
    [
        *(pa.int8(), pa.uint64(), pa.float64(), pa.bool_(), pa.date32(), pa.time64("us")),
        *(pa.timestamp("us", "UTC"), pa.decimal128(38, 10), pa.string(), pa.binary(), pa.null()),
        *(pa.list_(pa.field("element", pa.int64(), nullable=False)), pa.binary(4)),
        *(pa.month_day_nano_interval(), pa.duration("us"), pa.map_(pa.string(), pa.int64())),
    ],
    ids=str,
)
def test_plain_types_stay(plain: pa.DataType) -> None:
    schema = pa.schema([pa.field("c", plain, metadata={"x": "y"})], metadata={"a": "b"})
    wired = wire_schema(schema)
    assert wired.field("c").type == plain
    assert wired.metadata is None
    assert wired.field("c").metadata is None


def test_nullability_is_kept_and_held() -> None:
    schema = wire_schema(pa.schema([pa.field("c", pa.string_view(), nullable=False)]))
    assert not schema.field("c").nullable
    with pytest.raises(Internal, match="without nulls"):
        to_wire(pa.record_batch({"c": pa.array(["a", None])}), schema)
    with pytest.raises(Internal, match="columns"):
        to_wire(pa.record_batch({"c": ["a"], "d": ["b"]}), schema)


@pytest.mark.parametrize("limit", [100, 1_000, 10_000, 1_000_000])
def test_batches_are_cut_to_size_and_lose_nothing(limit: int) -> None:
    """Uneven rows too: one row of 5,000 bytes among small ones travels alone."""
    texts = ["x" * 20] * 100 + ["y" * 5_000] + ["z" * 3] * 300 + [None] * 5
    batch = pa.record_batch({"s": texts, "l": [[t] if t else None for t in texts]})
    sized = list(sliced(batch, limit))
    pieces = [piece for piece, _ in sized]
    slack = 2 * (-(-batch.num_rows // 8) + 4)  # a slice without nulls sends no bits of nulls
    assert all(abs(size - piece.nbytes) <= slack for piece, size in sized)
    assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches([batch]))
    for piece in pieces:
        assert piece.nbytes <= limit + slack or piece.num_rows == 1


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3] * 50, pa.int64()),
        pa.array([Decimal("1.5"), None] * 50, pa.decimal128(18, 8)),
        pa.array([True, False, None] * 50),
        pa.array(["a", "bcd", None, ""] * 50),
        pa.array([b"", b"xy", None] * 50, pa.binary()),
        pa.array([b"abc", None] * 50, pa.binary(3)),
        pa.array([[1, 2], None, []] * 50, pa.list_(pa.int32())),
        pa.array([{"x": 1, "y": "z"}, None] * 50),
        pa.nulls(100),
        pa.array([], pa.string()),
    ],
    ids=lambda column: str(column.type),
)
def test_the_size_of_a_batch_is_that_of_its_rows(column: pa.Array) -> None:
    """Slices too, whose buffers are those of the whole."""
    for piece in (column, column.slice(3), column.slice(8, 16), column.slice(len(column))):
        batch = pa.RecordBatch.from_arrays([piece], ["c"])
        assert size_of(batch) == pytest.approx(batch.nbytes, abs=5)


def test_an_empty_batch_stays_one() -> None:
    empty = pa.record_batch({"a": pa.array([], pa.int64())})
    assert [piece for piece, _ in sliced(empty, 1)] == [empty]
