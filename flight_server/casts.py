"""Casts that the engine moves to where they say something else.

DataFusion 55.0 makes ``c = 1`` of ``cast(c as int) = 1``, which loses 1.25; likewise of a cast to
fewer digits, and of TRY_CAST to a smaller integer, which is to make nulls. It does so where a cast
is compared with constants.

Source: apache/datafusion issues 14303 and 22142; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import re

import pyarrow as pa
from datafusion import Expr

from flight_server.protocol.errors import Unimplemented
from flight_server.typed import Step, function, is_constant, operands

_CASTS = frozenset({"Alias", "Cast", "TryCast"})
_CALLS = frozenset({"arrow_cast", "arrow_try_cast"})
_NARROWED = re.compile(r" AS (?:U?Int\d|Decimal)|\barrow_(?:try_)?+cast\(")
#: Calls whose type has more digits than their values: none, or as many as the literal says.
_CUTTING = frozenset({"trunc", "floor", "ceil", "round"})
_LITERAL = re.compile(r"(?:CAST\()?+U?Int\d++\((-?\d++)\)(?: AS Int\d++\))?+")


def concerns(shown: str, _typed: str) -> bool:
    """Whether a plan has a cast to whole numbers, or to decimals.

    Args:
        shown: as the statement says it, by ``display_indent``.
    """
    return bool(_NARROWED.search(shown))


def require(step: Step) -> None:
    """Refuses comparisons of a cast that loses something with constants.

    Args:
        step: of a plan for :mod:`flight_server.typed`.

    Raises:
        Unimplemented: there is one.
    """
    for _, compared in step.comparisons:
        for at, each in enumerate(compared):
            if _loses(step, each) and any(map(is_constant, (*compared[:at], *compared[at + 1 :]))):
                raise Unimplemented(
                    "a comparison would be made with what is cast, and not with the cast: write"
                    " trunc(x) or round(x) for a cast of a decimal, and BETWEEN for TRY_CAST"
                )


def _loses(step: Step, value: Expr) -> bool:
    """Whether a value is a cast, of no constant, to something that has not all of its values."""
    lost = False
    while (kind := value.variant_name()) in _CASTS or (call := function(value)) in _CALLS:
        inner = operands(value)[0]
        tries = kind == "TryCast" or (kind not in _CASTS and "try" in call)
        lost = lost or _is_smaller(inner, step.type_of(inner), step.type_of(value), tries=tries)
        value = inner
    return lost and not is_constant(value)


def _is_smaller(value: Expr, of: pa.DataType, to: pa.DataType, *, tries: bool) -> bool:
    types = pa.types
    exact = types.is_integer(to) or types.is_decimal(to)
    if not exact or not (types.is_integer(of) or types.is_decimal(of)):
        return False
    if _scale(of) > _scale(to) and (tries or _digits(value, _scale(of)) > _scale(to)):
        return True
    return tries and not _holds(to, of)


def _holds(to: pa.DataType, of: pa.DataType) -> bool:
    """Whether all integers of one type are some of another one."""
    types = pa.types
    if not (types.is_integer(of) and types.is_integer(to)):
        return bool(of == to)
    if types.is_unsigned_integer(of) and types.is_signed_integer(to):
        return bool(of.bit_width < to.bit_width)
    alike = types.is_signed_integer(of) == types.is_signed_integer(to)
    return bool(alike and of.bit_width <= to.bit_width)


def _scale(kind: pa.DataType) -> int:
    return int(kind.scale) if pa.types.is_decimal(kind) else 0


def _digits(value: Expr, scale: int) -> int:
    """How many digits behind the point a value may have, of a type with so many."""
    if function(value) not in _CUTTING:
        return scale
    _, *digits = operands(value)
    said = [_LITERAL.fullmatch(each.canonical_name()) for each in digits]
    return min(scale, max((int(each[1]) if each else scale for each in said), default=0))
