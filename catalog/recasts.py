"""Bounds of a column after a cast that keeps the order of its values.

What comes out encloses the cast values. Where the engine rounds (anything to or from floating
point), the bounds are widened by more than it can.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Decimals of any precision are compared in this many digits.
_DIGITS = 38
#: Relative error of a conversion to double that is left to the engine: a few last places.
_RELATIVE = 2.0**-50
_UNITS = ("s", "ms", "us", "ns")
_UTC = frozenset({None, "UTC", "+00:00", "Etc/UTC"})


class Range(NamedTuple):
    """Lower and upper bounds, both inclusive, of one type; null: unknown."""

    lower: pa.Array
    upper: pa.Array


def intersection(one: Range, other: Range) -> Range:
    """The tighter bound of two at each end; where one is unknown, the other."""
    above = pc.coalesce(pc.greater(other.lower, one.lower), pc.is_null(one.lower))
    below = pc.coalesce(pc.less(other.upper, one.upper), pc.is_null(one.upper))
    return Range(
        pc.if_else(above, other.lower, one.lower), pc.if_else(below, other.upper, one.upper)
    )


def recast(bounds: Range, kind: pa.DataType) -> Range | None:
    """Bounds of ``CAST(column AS kind)``.

    Args:
        bounds: of the column; those of floating columns only of files without NaN.
        kind: the cast's type; the column's own: no cast.

    Returns:
        Bounds of ``kind``, or of a type that values of it are to be cast to before they are
        compared; None: such a cast may change the order, or is not known.

    Raises:
        pa.ArrowInvalid: a bound is beyond the type.
    """
    source = bounds.lower.type
    if pa.types.is_floating(source):
        return _of_floats(bounds, kind)
    if source == kind:
        return bounds
    if _is_whole(source):
        return _of_whole(bounds, kind)
    keeps = _keeps_instants(source, kind) or (_is_text(source) and _is_text(kind))
    return _cast(bounds, kind) if keeps else None


def _cast(bounds: Range, kind: pa.DataType) -> Range:
    return Range(bounds.lower.cast(kind), bounds.upper.cast(kind))


def _of_floats(bounds: Range, kind: pa.DataType) -> Range | None:
    """As doubles. At least the next number further: -0.0 is less than 0.0 to the engine."""
    if pa.types.is_decimal(kind):  # the engine rounds to its scale
        return _widened(bounds, 10.0**-kind.scale)
    return _widened(bounds, 0.0) if kind in {bounds.lower.type, pa.float64()} else None


def _of_whole(bounds: Range, kind: pa.DataType) -> Range | None:
    if kind == pa.float64():
        return _widened(bounds, 0.0)
    if pa.types.is_decimal(kind):
        return _cast(bounds, pa.decimal128(_DIGITS, kind.scale))
    return _cast(bounds, kind) if pa.types.is_integer(kind) else None


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _keeps_instants(source: pa.DataType, kind: pa.DataType) -> bool:
    """Between days and instants, to a unit at least as fine; local times only where they are UTC's.

    Where clocks are set back, later instants have earlier local times.
    """
    if pa.types.is_timestamp(source) and pa.types.is_timestamp(kind):
        same = None not in {source.tz, kind.tz} or {source.tz, kind.tz} <= _UTC
        return same and _UNITS.index(source.unit) <= _UNITS.index(kind.unit)
    if pa.types.is_timestamp(source):
        return bool(pa.types.is_date32(kind)) and source.tz in _UTC
    return bool(pa.types.is_date32(source) and pa.types.is_timestamp(kind) and kind.tz in _UTC)


def _widened(bounds: Range, absolute: float) -> Range:
    lower, upper = (
        pc.cast(each, pa.float64(), safe=False).to_numpy(zero_copy_only=False) for each in bounds
    )
    with np.errstate(over="ignore", invalid="ignore"):
        down, up = (absolute + np.abs(each) * _RELATIVE for each in (lower, upper))
        least = np.where(np.isfinite(lower), np.nextafter(lower - down, -np.inf), lower)
        most = np.where(np.isfinite(upper), np.nextafter(upper + up, np.inf), upper)
    return Range(
        pa.array(least, mask=np.asarray(bounds.lower.is_null())),
        pa.array(most, mask=np.asarray(bounds.upper.is_null())),
    )
