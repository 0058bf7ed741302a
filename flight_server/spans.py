"""Differences of times, and intervals: refused where the engine computes otherwise than SQL does.

DataFusion 55.0 compares intervals field by field: months, then days, then nanoseconds. A difference
of two timestamps has nanoseconds only, so ``t - u > interval '1 day'`` is never true. A date to
which hours are added stays a date. ``extract`` takes a part of a difference for a 32-bit number, or
without its fraction. A frame of ``RANGE 1 PRECEDING`` over times is one month.

Source: apache/datafusion issues 8468 and 11891; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from datafusion import Expr

from flight_server.protocol.errors import Unimplemented
from flight_server.typed import Step, operands, operator

_DAY_NS = 86_400_000_000_000
_SPAN = re.compile(
    r'IntervalMonthDayNano\("IntervalMonthDayNano'
    r' \{ months: (?P<months>-?\d++), days: (?P<days>-?\d++), nanoseconds: (?P<ns>-?\d++) \}"\)'
)
#: Parts of a day in the text of an interval.
_HOURS = re.compile(r'Utf8\("[^"]*(?:hour|min|sec|micro|ms|us|:)[^"]*"\)', re.IGNORECASE)
#: What a plan may hold that is judged here: a date beside an interval, …
_DATED = re.compile(r"\bDate32|\b(?:current_date|today|to_date|make_date)\(")
_INTERVAL = "Interval"
#: … a difference, or an interval that is not added to something; a part of one; a frame.
_DIFFERENCE = re.compile(r" - (?!IntervalMonthDayNano|U?Int\d|Float|Decimal)")
_APART = re.compile(r"(?<! [-+] )IntervalMonthDayNano\(|AS Interval\(")
_LASTING = re.compile(r":(?:Duration|Interval)\(")
_PART = "date_part("
_NUMBER = r'(?:\d++|Utf8\("\d++"\)) (?:PRECEDING|FOLLOWING)'
_FRAME = re.compile(rf"\] RANGE BETWEEN (?:{_NUMBER} AND |[A-Z ]++ AND {_NUMBER})")


def concerns(shown: str, typed: str) -> bool:
    """Whether a plan may have something to be refused here.

    Args:
        shown: as the statement says it, by ``display_indent``.
        typed: the same by ``display_indent_schema``.
    """
    if _FRAME.search(shown):
        return True
    differs = bool(_DIFFERENCE.search(shown) or _LASTING.search(typed))
    if _INTERVAL not in shown:
        return differs and _PART in shown
    return differs or bool(_APART.search(shown) or _DATED.search(typed))


def require(step: Step) -> None:
    """Refuses what a step of a plan would lose of times.

    Args:
        step: of a plan for :mod:`flight_server.typed`.

    Raises:
        Unimplemented: hours are added to a date, an interval of days is compared, a part of a
            difference is asked for, or a frame over times has a number for its bound.
    """
    for part in step.parts:
        if part.variant_name() == "BinaryExpr" and operator(part) in {"+", "-"}:
            _require_whole_days(step, operands(part))
        elif _is_part(part) and _is_lasting(step.type_of(operands(part)[-1])):
            raise Unimplemented(
                "a part of a difference of times would lose its fraction, or more: write"
                " extract(epoch FROM t) - extract(epoch FROM u)"
            )
    for compared in step.comparisons:
        spans = [each for each in compared if pa.types.is_interval(step.type_of(each))]
        if not all(_is_exact(step, each) for each in spans):
            raise Unimplemented(
                "an interval of days or months would not be compared by its length: write interval"
                " '24 hours' for interval '1 day', or t > u + interval '1 day'"
            )
    for shown, keys in step.windows:
        if _FRAME.search(shown) and any(map(pa.types.is_temporal, keys)):
            raise Unimplemented(
                "a frame over times would count months: write RANGE BETWEEN interval '1 day'"
                " PRECEDING"
            )


def _require_whole_days(step: Step, sides: Sequence[Expr]) -> None:
    """Refuses a date beside an interval with a part of a day."""
    for date, span in (sides, sides[::-1]):
        if (
            _has_hours(span.canonical_name())
            and pa.types.is_interval(step.type_of(span))
            and pa.types.is_date(step.type_of(date))
        ):
            raise Unimplemented(
                "a date to which hours are added would stay a date: write CAST(d AS timestamp)"
                " + interval '…'"
            )


def _is_part(part: Expr) -> bool:
    return part.variant_name() == "ScalarFunction" and part.canonical_name().startswith(_PART)


def _has_hours(shown: str) -> bool:
    spans = _SPAN.finditer(shown)
    return any(int(span["ns"]) % _DAY_NS for span in spans) or bool(_HOURS.search(shown))


def _is_lasting(kind: pa.DataType) -> bool:
    return bool(pa.types.is_duration(kind) or pa.types.is_interval(kind))


def _is_exact(step: Step, span: Expr) -> bool:
    """Whether an interval has hours only: a difference of timestamps, or a literal."""
    while span.variant_name() in {"Alias", "Cast", "TryCast"}:
        [span] = operands(span)
        if pa.types.is_duration(step.type_of(span)):
            return True
    said = _SPAN.fullmatch(span.canonical_name())
    return said is not None and int(said["months"]) == int(said["days"]) == 0
