"""Casts and rounding of decimals that the engine moves to where they say something else.

DataFusion 55.0 makes ``c = 1`` of ``cast(c as int) = 1``, which loses 1.25; likewise of a cast to
fewer digits, and of TRY_CAST to a smaller integer, which is to make nulls. What ``round(c, 1)`` is
compared with, or stands beside in CASE or coalesce, gets the type that the call had before its
second argument was known.

Source: apache/datafusion issues 14303, 22142 and 24702; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from flight_server.contexts import WITHOUT
from flight_server.plantext import COMPARISON, Call, Types, calls, mentions, named
from flight_server.protocol.errors import ResourceExhausted, Unimplemented

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
#: Each is looked for in what stands around it.
_MOST = 500
#: Of a text before a call, so much tells what it is compared with.
_LOOKED_AT = 160
#: What takes the values of several expressions for those of one type.
_ALIKE = frozenset(
    {"coalesce", "nullif", "greatest", "least", "make_array", "nvl", "nvl2", "ifnull"}
)
#: Whole numbers and nulls have no part in it: what is beside them is cast for all to see.
_WHOLE = r"(?:U?Int64\(-?\d++\)|NULL)"
_ONLY_WHOLE = re.compile(rf"(?:, |{_WHOLE})*+")
_BESIDE = re.compile(
    rf" (?:(?:NOT )?IN \((?!\[(?:{_WHOLE}(?:, )?+)*+\]\))"
    rf"|(?:NOT )?BETWEEN (?!{_WHOLE} AND {_WHOLE})|{COMPARISON} (?!{_WHOLE}|Float))"
)
_BEHIND = re.compile(
    rf"(?:(?P<whole>{_WHOLE}) )?+(?:{COMPARISON} |BETWEEN (?:(?! AND ).)*+ AND |IN \(\[)$"
)
_BRANCH = re.compile(r" (WHEN|THEN|ELSE) ")
#: What makes doubles of decimals.
_DOUBLE = re.compile(
    r" AS Float|\b(?:stddev|var|corr|covar|regr|approx|sqrt|cbrt|ln|log|exp|power)\w*+\("
)
_NAMED = re.compile(r" AS (\w++)")


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


def require_rounded(shown: str, kinds: Types) -> None:
    """Refuses rounded decimals whose type the engine takes for another one.

    Args:
        shown: a plan as the statement says it, by ``display_indent``.
        kinds: the types of its columns.

    Raises:
        Unimplemented: one is compared, or one of several values of a CASE and the like.
        ResourceExhausted: there are more than :data:`_MOST`.
    """
    decimals = named(kinds, "Decimal")
    rounded = [call for call in calls(shown) if _rounds(call, decimals)]
    if not rounded:
        return
    if len(rounded) > _MOST:
        raise ResourceExhausted(
            f"the statement rounds {len(rounded)} decimals, the limit is {_MOST}: write several"
            " statements, or round what the client gets"
        )
    places = [(call.start, call.end, call.around) for call in rounded]
    known: dict[str, int] = {}
    while more := {
        name: shown.rfind("\n", 0, start) + 1
        for start, end, _ in places
        if (found := _NAMED.match(shown, end)) and (name := found[1]) not in known
    }:
        known |= more
        places += _mentioned(shown, more)
    for start, end, around in places:
        if _is_mixed(shown, start, end, around) or _is_one_of_several(shown, start, end):
            raise Unimplemented(
                "round(x, n) of a decimal is not compared, nor one of several values, by its real"
                " type: write cast(round(x, n) as decimal(18, n)), or round(cast(x as double), n)"
            )


def _is_mixed(shown: str, start: int, end: int, around: Call | None) -> bool:
    """Whether a value is compared, or given to a function, with others than whole numbers."""
    behind = _BEHIND.search(shown[max(0, start - _LOOKED_AT) : start])
    if _BESIDE.match(shown, end) or (behind and not behind["whole"]):
        return True
    if around is None or around.name not in _ALIKE:
        return False
    first = around.start + len(around.name) + 1
    return not _ONLY_WHOLE.fullmatch(shown[first:start] + shown[end : around.end - 1])


def _is_one_of_several(shown: str, start: int, end: int) -> bool:
    """Whether a value is one of a CASE's, or its operand, beside others than whole numbers."""
    opened = shown.rfind("CASE ", shown.rfind("\n", 0, start) + 1, start)
    closed = shown.find(" END", end)
    if opened < 0 or closed < 0 or " END" in shown[opened:start] or "\n" in shown[end:closed]:
        return False
    parts = _BRANCH.split(shown[opened + len("CASE") : closed])
    before = _BRANCH.findall(shown[opened + len("CASE") : start])
    if "CASE " in shown[opened + 1 : closed] or not before or parts[0]:
        return True  # one inside another, or CASE x WHEN y
    values = [value for word, value in zip(parts[1::2], parts[2::2], strict=True) if word != "WHEN"]
    own = shown[start:end]
    others = [value for value in values if value != own and not _ONLY_WHOLE.fullmatch(value)]
    return before[-1] != "WHEN" and bool(others) and (len(others) > 1 or own not in others[0])


def _mentioned(shown: str, names: Mapping[str, int]) -> Iterator[tuple[int, int, Call | None]]:
    """Where columns with these names stand, in the steps above the one that begins there."""
    for word in _WORD.finditer(shown, 0, max(names.values())):
        if word.end() < names.get(word[0], 0) and not shown.endswith(" AS ", 0, word.start()):
            yield word.start(), word.end(), None


def _rounds(call: Call, decimals: frozenset[str]) -> bool:
    value, two, _ = call.inside.rpartition(", ")
    if call.name != "round" or not two or call.within in _CASTS or _DOUBLE.search(value):
        return False
    return "Decimal" in value or mentions(value, decimals)


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
