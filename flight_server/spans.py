"""Differences of times, and intervals: refused where the engine computes otherwise than SQL does.

DataFusion 55.0 compares intervals field by field: months, then days, then nanoseconds. A difference
of two timestamps has nanoseconds only, so ``t - u > interval '1 day'`` is never true. A date to
which hours are added stays a date. ``extract`` takes a part of a difference for a 32-bit number, or
without its fraction. A frame of ``RANGE 1 PRECEDING`` over times is one month.

Source: apache/datafusion issues 8468 and 11891; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import re

from flight_server.plantext import COMPARISON, Types, calls, mentions, named
from flight_server.protocol.errors import Unimplemented

_DAY_NS = 86_400_000_000_000
#: Months, days, nanoseconds.
_SPAN = (
    r'IntervalMonthDayNano\("IntervalMonthDayNano'
    r' \{ months: (-?\d++), days: (-?\d++), nanoseconds: (-?\d++) \}"\)'
)
_ANY_SPAN = r'IntervalMonthDayNano\("[^"\n]*+"\)'
_ONE_SPAN = re.compile(_SPAN)
#: One that a value is compared with.
_COMPARED = re.compile(rf"(?: (?:{COMPARISON}|AND) |IN \(\[){_SPAN}(?! [-+*/])")
#: The other way round; not what is added to something.
_COMPARING = re.compile(rf"(?<![-+] ){_SPAN} {COMPARISON} ")
#: A difference beside what is no literal.
_TAKEN = re.compile(rf" AS Interval\(MonthDayNano\)\) {COMPARISON} (?!IntervalMonthDayNano)")
_DIFFERENCE = re.compile(r" - (?!IntervalMonthDayNano|U?Int\d)")
_NUMBER = r'(?:\d++|Utf8\("\d++"\)) (?:PRECEDING|FOLLOWING)'
_FRAME = re.compile(
    r"ORDER BY \[(?P<key>[^\[\],\n ]++) (?:ASC|DESC) [^\[\]\n]*+\] RANGE BETWEEN"
    rf" (?:{_NUMBER} AND |[A-Z ]++ AND {_NUMBER})"
)
#: A date that is no date any more.
_TRUNCATED = re.compile(r"date_trunc\(Utf8\(\"\w++\"\), [\w.]*+$")
#: What is a date by its own words.
_DATES = (r"AS Date32\)", r"current_date\(\)", r"today\(\)", r"to_date\([^()\n]*+\)")
#: A step has something that this module looks at.
_ANY = re.compile(r"IntervalMonthDayNano|date_part\(|\] RANGE BETWEEN ")


def may_differ(shown: str) -> bool:
    """Whether a plan has something to be judged here.

    Args:
        shown: by ``display_indent``.
    """
    return bool(_ANY.search(shown))


def require_comparable(shown: str) -> None:
    """Refuses comparisons with intervals of days or months.

    Args:
        shown: a plan, as the statement says it, or optimized, by ``display_indent``.

    Raises:
        Unimplemented: there is one.
    """
    spans = [*_COMPARED.finditer(shown), *_COMPARING.finditer(shown)]
    if any(int(span[1]) or int(span[2]) for span in spans) or _TAKEN.search(shown):
        raise Unimplemented(
            "an interval of days or months would not be compared by its length: write interval"
            " '24 hours' for interval '1 day', or t > u + interval '1 day'"
        )


def require_exact(shown: str, kinds: Types) -> None:
    """Refuses what dates and differences would lose.

    Args:
        shown: a plan as the statement says it, by ``display_indent``.
        kinds: the types of its columns.

    Raises:
        Unimplemented: hours are added to a date, a part of a difference is asked for, or a frame
            over times has a number for its bound.
    """
    if "IntervalMonthDayNano" in shown and _adds_hours(shown, named(kinds, "Date")):
        raise Unimplemented(
            "a date to which hours are added would stay a date: write CAST(d AS timestamp)"
            " + interval '…'"
        )
    lasting = named(kinds, "Duration", "Interval")
    for call in calls(shown) if "date_part(" in shown else ():
        if call.name != "date_part":
            continue
        _, _, of = call.inside.partition(", ")
        if mentions(of, lasting) or _DIFFERENCE.search(_flat(of)):
            raise Unimplemented(
                "a part of a difference of times would lose its fraction, or more: write"
                " extract(epoch FROM t) - extract(epoch FROM u)"
            )
    moments = named(kinds, "Date", "Timestamp", "Time")
    if any(frame["key"].rpartition(".")[2] in moments for frame in _FRAME.finditer(shown)):
        raise Unimplemented(
            "a frame over times would count months: write RANGE BETWEEN interval '1 day' PRECEDING"
        )


def _adds_hours(shown: str, dates: frozenset[str]) -> bool:
    """Whether an interval with a part of a day is added to a date, or taken from one."""
    names = "|".join(map(re.escape, sorted(dates, key=len, reverse=True)))
    known = [rf"(?<!\w)(?:{names})(?!\w)"] if names else []
    date = f"(?:{'|'.join([*known, *_DATES])})"
    added = re.compile(rf'{date}"?\)*+((?: [-+] {_ANY_SPAN})++)')
    before = re.compile(rf"({_ANY_SPAN}) \+ (?:\w++[(.])*+{date}")
    found = [*added.finditer(shown), *before.finditer(shown)]
    of_dates = (
        each
        for each in found
        if not _TRUNCATED.search(shown, max(0, each.start() - 64), each.start())
    )
    spans = (span for each in of_dates for span in _ONE_SPAN.finditer(each[1]))
    return any(int(span[3]) % _DAY_NS for span in spans)


def _flat(expression: str) -> str:
    """What stands in an expression outside of calls' brackets."""
    kept, end = [], 0
    for call in calls(expression):
        if call.around is None and call.name:
            kept.append(expression[end : call.start + len(call.name)])
            end = call.end
    return "".join([*kept, expression[end:]])
