"""Differences of times, and intervals: refused where the engine computes otherwise than SQL does.

DataFusion 55.0 compares intervals field by field: months, then days, then nanoseconds. A difference
of two timestamps has nanoseconds only, so ``t - u > interval '1 day'`` is never true. A date to
which hours are added stays a date. ``extract`` takes a part of a difference for a 32-bit number, or
without its fraction. A frame of ``RANGE 1 PRECEDING`` over times is one month.

Source: apache/datafusion issues 8468 and 11891; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
from datafusion import Expr

from flight_server.analysis import WITHOUT_PARTS
from flight_server.protocol.errors import Unimplemented
from flight_server.typed import Step, function, operands, operator

_DAY_NS = 86_400_000_000_000
_SPAN = re.compile(
    r'IntervalMonthDayNano\("IntervalMonthDayNano'
    r' \{ months: (?P<months>-?\d++), days: (?P<days>-?\d++), nanoseconds: (?P<ns>-?\d++) \}"\)'
)
#: Units in the text of an interval: parts of a day, and what has no length in hours.
_HOURS = re.compile(r"\d *(?:h|s|us|n|mi|ms|m\b)|[:.]|^-?\d++$", re.IGNORECASE)
_DAYS = re.compile(r"\d *(?:d|w|mo|q|y|c|mil|m\b)|\d-\d", re.IGNORECASE)
_TEXT = re.compile(r'(?:Utf8|Utf8View|LargeUtf8)\("([^"]*+)"\)')
#: What plans make of ``d + 1``: so many times a day.
_A_DAY = " * Int64(86400)"
_SIGNS = ("+", "-")
_CASTS = frozenset({"Alias", "Cast", "TryCast"})
#: What a plan may hold that is judged here: a date beside an interval, …
_DATED = re.compile(r"\bDate32|\b(?:current_date|today|to_date|make_date)\(")
_INTERVAL = "Interval"
#: … a difference, or an interval that is not added to something; a part of one; a frame.
_DIFFERENCE = re.compile(r" - (?!IntervalMonthDayNano|U?Int\d|Float|Decimal)")
_APART = re.compile(r"(?<! [-+] )IntervalMonthDayNano\(|AS Interval\(")
_LASTING = re.compile(r":(?:Duration|Interval)\(")
_PART = "date_part("
_NUMBER = r'(?:\d++|Utf8\("\d++"\)) (?:PRECEDING|FOLLOWING)'
_FRAME = re.compile(rf"\] RANGE BETWEEN (?:(?:UNBOUNDED PRECEDING|CURRENT ROW) AND )?+{_NUMBER}")


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
    for top, terms in step.chains(*_SIGNS):
        spans = [each for each in terms if pa.types.is_interval(step.type_of(each))]
        if any(pa.types.is_date(step.type_of(each)) for each in terms) and not all(
            _is_made_of(step, each, _is_days) for each in spans
        ):
            _require_whole_days(step, top)
    for part in step.parts:
        if function(part) == "date_part" and _is_lasting(step.type_of(operands(part)[-1])):
            raise Unimplemented(
                "a part of a difference of times would lose its fraction, or more: write"
                " extract(epoch FROM t) - extract(epoch FROM u)"
            )
    for _, compared in step.comparisons:
        if pa.types.is_interval(step.type_of(compared[0])) and not all(
            _is_made_of(step, each, _is_hours) for each in compared
        ):
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


def _require_whole_days(step: Step, top: Expr) -> None:
    """Refuses a sum in which a date stands beside an interval that may have a part of a day."""
    waiting = [top]
    while waiting:
        part = waiting.pop()
        if part.variant_name() != "BinaryExpr" or operator(part) not in _SIGNS:
            continue
        sides = operands(part)
        for date, span in (sides, sides[::-1]):
            if (
                pa.types.is_interval(step.type_of(span))
                and pa.types.is_date(step.type_of(date))
                and not _is_made_of(step, span, _is_days)
            ):
                raise Unimplemented(
                    "a date to which hours are added would stay a date: write CAST(d AS timestamp)"
                    " + interval '…'"
                )
        waiting += sides


def _is_lasting(kind: pa.DataType) -> bool:
    return bool(pa.types.is_duration(kind) or pa.types.is_interval(kind))


def _is_days(literal: Expr) -> bool:
    """Whether a literal, or a text, is an interval of whole days."""
    shown = literal.canonical_name()
    if said := _SPAN.fullmatch(shown):
        return int(said["ns"]) % _DAY_NS == 0
    text = _TEXT.fullmatch(shown)
    return text is not None and not _HOURS.search(text[1])


def _is_hours(literal: Expr) -> bool:
    """Whether a literal, or a text, is an interval of hours and less."""
    shown = literal.canonical_name()
    if said := _SPAN.fullmatch(shown):
        return int(said["months"]) == int(said["days"]) == 0
    text = _TEXT.fullmatch(shown)
    return text is not None and not _DAYS.search(text[1])


def _is_made_of(step: Step, span: Expr, is_one: Callable[[Expr], bool]) -> bool:
    """Whether an interval is surely made of such literals, or of differences where they are hours.

    Args:
        step: in which it stands.
        span: the interval.
        is_one: :func:`_is_days` or :func:`_is_hours`.
    """
    waiting = [span]
    while waiting:
        part = waiting.pop()
        kind = part.variant_name()
        while kind in _CASTS:
            [part] = operands(part)
            kind = part.variant_name()
        of = step.type_of(part)
        if kind == "Literal":
            fits = is_one(part) or part.canonical_name() == "NULL"
        elif pa.types.is_duration(of) or _is_of_times(step, part):
            fits = is_one is _is_hours
        elif is_one is _is_days and part.canonical_name().endswith(_A_DAY):
            fits = True
        else:
            inner = [] if kind in WITHOUT_PARTS else operands(part)
            inner = [each for each in inner if _is_lasting(step.type_of(each))]
            waiting += inner
            fits = bool(inner)
        if not fits:
            return False
    return True


def _is_of_times(step: Step, part: Expr) -> bool:
    """Whether this is a difference of two times of day."""
    if part.variant_name() != "BinaryExpr":
        return False
    return all(pa.types.is_time(step.type_of(each)) for each in operands(part))
