"""Iceberg's serialised bounds as values of plain Arrow types."""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Context, Decimal

import pyarrow as pa

#: Bytes of a single-precision bound.
_FLOAT_BYTES = 4
#: Bytes of a bound of an integer, before and after a promotion.
_INTEGER_BYTES = frozenset({4, 8})
#: Decimals of up to 38 digits must not be rounded to Python's 28.
_EXACT = Context(prec=38)


def decoder(kind: pa.DataType) -> Callable[[bytes], object]:
    """Iceberg's single-value serialisation → a Python value (specification, appendix D).

    Integers are read by their length, so that bounds from before a promotion stay readable.
    Temporal values come as their integers: see :func:`typed`; a date of a column that is a
    timestamp now counts days, and is no bound of it.
    """
    if pa.types.is_boolean(kind):
        return lambda raw: raw != b"\x00"
    if pa.types.is_string(kind):
        return lambda raw: raw.decode()
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return bytes
    if pa.types.is_floating(kind):
        return lambda raw: struct.unpack("<f" if len(raw) == _FLOAT_BYTES else "<d", raw)[0]
    if pa.types.is_decimal(kind):
        return lambda raw: Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(
            -kind.scale, _EXACT
        )
    sizes = {kind.bit_width // 8} if pa.types.is_temporal(kind) else _INTEGER_BYTES
    return lambda raw: int.from_bytes(raw, "little", signed=True) if len(raw) in sizes else None


def typed(values: list[object], kind: pa.DataType) -> pa.Array:
    """Python values, temporal ones as their integers, as an array of ``kind``."""
    if pa.types.is_temporal(kind):
        storage = pa.int32() if kind.bit_width == pa.int32().bit_width else pa.int64()
        return pa.array(values, storage).view(kind)
    return pa.array(values, kind)
