"""The order of rows: one packed sort, or one column after the other, with the same result."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.sorting import _one_by_one, _packed, sort_order

_DAYS = st.none() | st.dates(dt.date(1, 1, 1))
_TIMES = st.none() | st.datetimes()
_SYMBOLS = st.none() | st.sampled_from(["", "A", "B", "É", "a", "ab", "\x00"])
_SMALL = st.none() | st.integers(-128, 127)
_LARGE = st.none() | st.integers(-(2**63), 2**63 - 1)


def columns_of(rows: Sequence[tuple[object, ...]]) -> list[pa.Array]:
    kinds = (pa.date32(), pa.string(), pa.timestamp("us"), pa.int8(), pa.int64())
    values = zip(*rows, strict=True)
    return [pa.array(column, kind) for column, kind in zip(values, kinds, strict=False)]


@pytest.mark.hypothesis
@given(st.lists(st.tuples(_DAYS, _SYMBOLS, _TIMES, _SMALL, _LARGE), min_size=1, max_size=60))
def test_the_order_is_that_of_one_column_after_the_other(rows: list[tuple[object, ...]]) -> None:
    """Nulls first, and equal rows as they stand; strings as dictionaries or not, packed or not."""
    for count in (1, 2, 3, 4, 5):
        plain = columns_of([row[:count] for row in rows])
        coded = [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in plain]
        expected = _one_by_one(plain).to_pylist()
        assert sort_order(plain).to_pylist() == expected
        assert sort_order(coded).to_pylist() == expected


def test_a_day_a_symbol_and_a_time_are_sorted_as_one_number() -> None:
    """What a flush of trades sorts by takes the short way; what is too wide takes the long one."""
    chance = random.Random(1)
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    days = pa.array([begin.date() + dt.timedelta(chance.randrange(9)) for _ in range(999)])
    symbols = pa.array([chance.choice("ABC") for _ in range(999)]).dictionary_encode()
    times = pa.array([begin + dt.timedelta(0, chance.randrange(9**5)) for _ in range(999)])
    packed = _packed([days, symbols, times])
    assert packed is not None
    assert packed.equals(_one_by_one([days, symbols, times]))
    wide = pa.array([-(2**63), 0, 2**63 - 1])
    assert _packed([wide]) is None
    assert sort_order([wide]).to_pylist() == [0, 1, 2]
    assert _packed([pa.array([0, 2**62]), pa.array([0, 1])]) is None
    assert _packed([pa.array([2**63], pa.uint64())]) is None


def test_a_column_of_nulls_changes_nothing() -> None:
    """It takes no bits, whatever its type."""
    nulls = pa.nulls(3, pa.string())
    numbers = pa.array([3, 1, 2], pa.int16())
    for first in (nulls, nulls.dictionary_encode(), pa.nulls(3, pa.int64())):
        assert sort_order([first, numbers]).to_pylist() == [1, 2, 0]
