"""Answers as values that compare alike, whichever engine gave them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any, TypeAlias

import pyarrow as pa

Row: TypeAlias = tuple[Any, ...]
#: Digits of a decimal, and more: Python's own arithmetic rounds to 28.
PRECISION = 100


def rows(table: pa.Table) -> list[Row]:
    """The rows in their order. Numbers compare by value, NaN is one value and the zeros are two."""
    columns = [list(map(_plain, column.to_pylist())) for column in table.columns]
    return list(zip(*columns, strict=True))


def same(left: Sequence[Row], right: Sequence[Row], *, is_sorted: bool = False) -> bool:
    """Whether two answers have the same rows, as often, and in the same order where that counts."""
    if len(left) != len(right):
        return False
    return list(left) == list(right) if is_sorted else Counter(left) == Counter(right)


def says_something(answer: Sequence[Row]) -> bool:
    """Whether there is a row; a lone one of nulls and zeros is what nothing was aggregated to."""
    return len(answer) > 1 or any(value not in (None, 0) for row in answer for value in row)


def exact(number: Decimal) -> int | Decimal:
    """One form of a number, whatever its scale."""
    with localcontext(prec=PRECISION):
        return int(number) if number == number.to_integral_value() else number.normalize()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        # As text, so that 0.0 is not -0.0; a float that is whole is not the integer.
        return value.hex()
    if isinstance(value, Decimal):
        return exact(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, bool):
        return str(value)
    return value
