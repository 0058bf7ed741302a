"""Which bucket of a partition a value falls into.

Source: Iceberg table specification, "Bucket Transform Details" and appendix B.
"""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import BinaryType, DecimalType, LongType, PrimitiveType, StringType

#: Nanoseconds are hashed as microseconds.
_NANOS = 1000


def bucket_of(value: pa.Scalar, buckets: int) -> int | None:
    """The bucket of ``value``, which is not null and of its column's type; None: unknown."""
    kind = value.type
    if pa.types.is_integer(kind):
        return _bucket(buckets, LongType(), value.as_py())
    if pa.types.is_date32(kind) or pa.types.is_time64(kind) or pa.types.is_timestamp(kind):
        nanos = not pa.types.is_date32(kind) and kind.unit == "ns"
        return _bucket(buckets, LongType(), value.value // (_NANOS if nanos else 1))
    if pa.types.is_string(kind):
        return _bucket(buckets, StringType(), value.as_py())
    if pa.types.is_decimal(kind):
        return _bucket(buckets, DecimalType(kind.precision, kind.scale), value.as_py())
    if pa.types.is_binary(kind):
        return _bucket(buckets, BinaryType(), value.as_py())
    return None


def _bucket(buckets: int, kind: PrimitiveType, value: object) -> int | None:
    return BucketTransform(buckets).transform(kind)(value)
