"""What a partition's value proves of the column that it was made of."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    IntegerType,
    LongType,
    PrimitiveType,
    StringType,
    TimestampType,
)

from catalog.bounds import typed
from catalog.buckets import bucket_of
from catalog.partitions import span

_TEXT = st.text("ab\ud7ff\U0010ffff\u00e9", max_size=5)
_MICROS = st.integers(-(10**16), 10**16)
_DAYS = st.integers(-100_000, 100_000)
_PRICES = st.integers(-(10**6), 10**6).map(lambda n: Decimal(n).scaleb(-2))
#: Iceberg's type and ours, and values as Iceberg keeps them.
KINDS: tuple[tuple[PrimitiveType, pa.DataType, st.SearchStrategy[Any]], ...] = (
    (IntegerType(), pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (LongType(), pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-50, 50)),
    (StringType(), pa.string(), _TEXT),
    (BinaryType(), pa.binary(), st.binary(max_size=4) | st.just(b"\xff\xff\xff")),
    (DecimalType(9, 2), pa.decimal128(9, 2), _PRICES),
    (DateType(), pa.date32(), _DAYS),
    (TimestampType(), pa.timestamp("us"), _MICROS),
)
TRANSFORMS: tuple[Transform[Any, Any], ...] = (
    *(IdentityTransform(), TruncateTransform(1), TruncateTransform(3), BucketTransform(7)),
    *(YearTransform(), MonthTransform(), DayTransform(), HourTransform()),
)
CASES = [
    (transform, *kind)
    for transform in TRANSFORMS
    for kind in KINDS
    if transform.can_transform(kind[0])
]


@pytest.mark.parametrize(("transform", "iceberg", "kind", "values"), CASES, ids=str)
@given(st.data())
def test_a_partition_encloses_its_values(
    transform: Transform[Any, Any],
    iceberg: PrimitiveType,
    kind: pa.DataType,
    values: st.SearchStrategy[Any],
    data: st.DataObject,
) -> None:
    value = data.draw(values)
    partition = transform.transform(iceberg)(value)
    (scalar,) = typed([value], kind)
    if isinstance(transform, BucketTransform):
        assert bucket_of(scalar, transform.num_buckets) == partition
        return
    lower, upper = span(transform, [partition], kind)
    (ordered,) = typed([value], kind).to_pylist()
    assert lower[0].as_py() is None or lower[0].as_py() <= ordered
    assert upper[0].as_py() is None or upper[0].as_py() >= ordered


def test_old_writers_rounded_times_before_1970_towards_zero() -> None:
    """So the day 0 may hold rows of the day before; later ones are what they say."""
    lower, upper = span(DayTransform(), [-1, 0, 1, None], pa.date32())
    assert lower.cast(pa.int32()).to_pylist() == [-2, -1, 1, None]
    assert upper.cast(pa.int32()).to_pylist() == [-1, 0, 1, None]


def test_times_beyond_the_unit_are_unknown() -> None:
    """A year may begin before the first nanosecond that can be counted."""
    lower, upper = span(YearTransform(), [1677 - 1970, 2262 - 1970, 30], pa.timestamp("ns"))
    assert lower.is_null().to_pylist() == upper.is_null().to_pylist() == [True, True, False]


def test_numbers_that_may_have_wrapped_are_unknown() -> None:
    lower, upper = span(TruncateTransform(10), [2**31 - 8, 20], pa.int32())
    assert (lower.to_pylist(), upper.to_pylist()) == ([None, 20], [None, 29])
