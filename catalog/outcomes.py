"""What a condition may be for some row of a piece, and what ranges of values say of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.recasts import Range

#: One per piece: a data file, or a zone of live rows.
Bits = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a condition may be for some row of each piece; False: for none, and that is proven."""

    true: Bits
    false: Bits
    null: Bits

    def __invert__(self) -> Outcome:
        return Outcome(self.false, self.true, self.null)

    def __and__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.true & other.true,
            self.false | other.false,
            (self.null & (other.null | other.true)) | (other.null & self.true),
        )

    def __or__(self, other: Outcome) -> Outcome:
        return ~(~self & ~other)

    def only(self, true: Bits, false: Bits) -> Outcome:
        """An outcome that is never null."""
        return Outcome(true, false, np.zeros_like(true))


def or_true(known: pa.Array) -> Bits:
    """What may be: what is not known may be, too."""
    return np.asarray(pc.fill_null(known, fill_value=True), bool)


def first_at_least(order: pa.Array, bounds: pa.Array) -> NDArray[np.int64]:
    """The place of the first of the sorted values that is not below each bound."""
    if pa.types.is_decimal(order.type):  # no kernel of Arrow's
        places = np.zeros(len(bounds), np.int64)
        for value in order:
            places += np.asarray(pc.fill_null(pc.less(value, bounds), fill_value=False), bool)
        return places
    places = pc.search_sorted(order, bounds, side="left")
    return np.asarray(pc.fill_null(places, 0)).astype(np.int64)


CONNECTIVES: Mapping[str, Callable[[Outcome, Outcome], Outcome]] = MappingProxyType(
    {"AND": Outcome.__and__, "OR": Outcome.__or__}
)

#: Operator → where ``[lower, upper]`` leaves room for true, and for false. Truncated bounds
#: enclose, so "lower = upper = value" proves that every value is that value.
COMPARISONS: Mapping[str, Callable[[Range, pa.Scalar], tuple[pa.Array, pa.Array]]]
COMPARISONS = MappingProxyType(
    {
        "=": lambda b, v: (_room(b, v), pc.invert(_only(b, v))),
        "!=": lambda b, v: (pc.invert(_only(b, v)), _room(b, v)),
        "<": lambda b, v: (pc.less(b.lower, v), pc.greater_equal(b.upper, v)),
        "<=": lambda b, v: (pc.less_equal(b.lower, v), pc.greater(b.upper, v)),
        ">": lambda b, v: (pc.greater(b.upper, v), pc.less_equal(b.lower, v)),
        ">=": lambda b, v: (pc.greater_equal(b.upper, v), pc.less(b.lower, v)),
    }
)


def _room(bounds: Range, value: pa.Scalar) -> pa.Array:
    return pc.and_kleene(pc.less_equal(bounds.lower, value), pc.greater_equal(bounds.upper, value))


def _only(bounds: Range, value: pa.Scalar) -> pa.Array:
    return pc.and_kleene(pc.equal(bounds.lower, value), pc.equal(bounds.upper, value))
