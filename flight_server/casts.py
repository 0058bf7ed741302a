"""Casts that the engine moves to where they say something else.

DataFusion 55.0 makes ``c = 1`` of ``cast(c as int) = 1``, which loses 1.25; likewise of a cast to
fewer digits, and of TRY_CAST to a smaller integer, which is to make nulls.

Source: apache/datafusion issues 14303 and 22142; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from flight_server.contexts import WITHOUT
from flight_server.plantext import COMPARISON, Call, Types, calls
from flight_server.protocol.errors import Unimplemented

#: Of the context in which plans for :func:`require_casts_kept` are made.
SETTINGS: Mapping[str, str] = MappingProxyType({WITHOUT: "simplify_expressions"})

_CASTS = frozenset({"CAST", "TRY_CAST"})
_INTEGER = re.compile(r"(U?)Int(\d++)$")
_DECIMAL = re.compile(r"Decimal\d++\(\d++, ?(-?\d++)\)$")
#: Calls whose digits are known, and how many they are: none, or the last argument.
_ROUNDING = frozenset({"round", "trunc", "floor", "ceil"})
_DIGITS = re.compile(r", (?:CAST\()?Int\d++\((\d++)\)(?: AS Int32\))?$")
_LITERAL_SCALE = re.compile(r"Decimal\d++\([^()]*,(\d++)\)")
_WORD = re.compile(r"\w++")
#: What makes something else of decimals.
_NO_DECIMAL = re.compile(r"\b(?:count|\w*length|date_part|strpos)\(|\bCASE | [<>=]")
_NARROWED = re.compile(r" AS (?:U?Int\d|Decimal)")
#: Something that is compared with what stands before it; with no column, and no sub-query.
_THEN = re.compile(
    r" (?:(?:NOT )?IN \(\[|(?:NOT )?BETWEEN |"
    rf"{COMPARISON} (?![a-z_][\w.]*+(?![\w.(])|\(<subquery>))"
)
_BEFORE = re.compile(rf"(?:(?P<column>(?<![\w.)])[a-z_][\w.]*+)|\)|\]) {COMPARISON} $")
#: Of a text before a call, so much tells what it is compared with.
_LOOKED_AT = 160


def has_digits(shown: str) -> bool:
    """Whether a plan has a cast to whole numbers, or to decimals.

    Args:
        shown: as the statement says it, by ``display_indent``.
    """
    return bool(_NARROWED.search(shown))


def may_lose(shown: str, kinds: Types) -> bool:
    """Whether a plan has a cast that may lose something.

    Args:
        shown: as the statement says it, by ``display_indent``.
        kinds: the types of its columns.
    """
    return any(_loses(call, kinds) for call in calls(shown))


def require_casts_kept(shown: str, kinds: Types) -> None:
    """Refuses comparisons of a cast that loses something.

    Args:
        shown: a plan made with :data:`SETTINGS`.
        kinds: of its columns, see ``plantext.types``.

    Raises:
        Unimplemented: there is one.
    """
    for call in list(calls(shown)):
        if _loses(call, kinds) and _is_compared(shown, _widened(call)):
            raise Unimplemented(
                "a comparison would be made with what is cast, and not with the cast: write"
                " trunc(x) or round(x) for a cast of a decimal, and BETWEEN for TRY_CAST"
            )


def _loses(call: Call, kinds: Types) -> bool:
    """Whether a call is a cast to something that has not all of its values."""
    if call.name not in _CASTS:
        return False
    value, _, target = call.inside.rpartition(" AS ")
    integer, decimal = _INTEGER.match(target), _DECIMAL.match(target)
    if not (integer or decimal) or _NO_DECIMAL.search(value):
        return False
    scale = int(decimal[1]) if decimal else 0
    if call.name == "CAST" and _digits(value) <= scale:
        return False
    for kind in _kinds(value, kinds):
        if (found := _DECIMAL.match(kind)) and int(found[1]) > scale:
            return True
        if call.name == "TRY_CAST" and kind.startswith(("Int", "UInt", "Decimal")):
            of = _INTEGER.match(kind)
            if not (integer and of and integer[1] == of[1] and int(integer[2]) >= int(of[2])):
                return True
    return False


def _digits(value: str) -> float:
    """How many digits behind the point a rounding call leaves; of anything else: any number."""
    if value.partition("(")[0] not in _ROUNDING or not value.endswith(")"):
        return math.inf
    digits = _DIGITS.search(value[:-1])
    return int(digits[1]) if digits else 0


def _kinds(value: str, kinds: Types) -> Iterator[str]:
    """The types of what an expression is made of."""
    for word in _WORD.findall(value):
        yield from kinds.get(word, ())
    yield from (f"Decimal128(1, {scale})" for scale in _LITERAL_SCALE.findall(value))


def _widened(call: Call) -> Call:
    """The cast, or the outermost of those that stand around it."""
    while call.around is not None and call.around.end and call.around.name in _CASTS:
        call = call.around
    return call


def _is_compared(shown: str, cast: Call) -> bool:
    before = _BEFORE.search(shown[max(0, cast.start - _LOOKED_AT) : cast.start])
    return bool(_THEN.match(shown, cast.end) or (before and not before["column"]))
