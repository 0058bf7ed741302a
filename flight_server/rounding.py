"""Rounding of decimals, of which the engine knows the type too late.

To DataFusion 55.0, ``round(c, 1)`` of a decimal has the digits of ``c`` until its second argument
is a literal of 32 bits, which the parser does not make. By then what the value is compared with, or
stands beside, was cast to the type of before. So literal digits are bound, as parameters of
32 bits, and the type is right from the beginning; what is left is refused.

Source: apache/datafusion issue 24702; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from datafusion import DataFrame

from flight_server.plantext import Call, calls, mentions, named, types
from flight_server.protocol.errors import Unimplemented
from flight_server.sqllex import Token, lex
from flight_server.sqltext import SqlText, digits_name

_CASTS = frozenset({"CAST", "TRY_CAST"})
#: Digits whose type is known, or which are no constant.
_KNOWN = re.compile(r"Int32\(-?\d++\)$|.*\b[a-z]")
#: What makes doubles of decimals.
_DOUBLE = re.compile(
    r" AS Float|\b(?:stddev|var|corr|covar|regr|approx|sqrt|cbrt|ln|log|exp|power)\w*+\("
)
#: More digits than any decimal has are none to be bound.
_MOST_DIGITS = 38


def mended(
    text: SqlText, frame: DataFrame, planned: Callable[[SqlText], DataFrame]
) -> tuple[SqlText, DataFrame]:
    """The statement with the digits of its decimals bound, and its frame; mostly the very same.

    Args:
        text: the statement.
        frame: of it, with values.
        planned: plans another text like it.

    Raises:
        Unimplemented: a decimal is rounded to digits that this does not reach.
    """
    if not _rounds(frame):
        return text, frame
    if text.plan is None:
        pieces, digits = _bound(text.rewritten, lex(text.rewritten))
        tried = replace(text, rewritten=pieces, digits=digits)
        try:
            found = planned(tried)
        except ValueError:  # from the bindings: the statement asks for a column by the call's text
            pass
        else:
            text, frame = tried, found
    if _rounds(frame):
        raise Unimplemented(
            "round(x, n) of a decimal would not have its real type: write"
            " cast(round(x, n) as decimal(18, n)), or round(cast(x as double), n)"
        )
    return text, frame


def _rounds(frame: DataFrame) -> bool:
    """Whether a decimal is rounded of which the engine does not know the type in time."""
    planned = frame.logical_plan()
    shown = planned.display_indent()
    if "round(" not in shown:
        return False
    kinds = types(planned.display_indent_schema())
    decimals = named(kinds, "Decimal")
    return any(_is_late(call, decimals) for call in calls(shown))


def _is_late(call: Call, decimals: frozenset[str]) -> bool:
    value, two, digits = call.inside.rpartition(", ")
    if call.name != "round" or not two or call.within in _CASTS:
        return False
    if _KNOWN.match(digits) or _DOUBLE.search(value):
        return False
    return "Decimal" in value or mentions(value, decimals)


def _bound(sql: str, tokens: Sequence[Token]) -> tuple[str, tuple[int, ...]]:
    """The text with ``$digits_n`` for the literal digits of each ``round``, and those digits."""
    pieces: list[str] = []
    found: set[int] = set()
    at = 0
    for first, last, digits in _digits(tokens):
        pieces += [sql[at : first.start], f"${digits_name(digits)}"]
        at = last.start + len(last.text)
        found.add(digits)
    return "".join([*pieces, sql[at:]]), tuple(sorted(found))


def _digits(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token, int]]:
    """Where the second argument of ``round`` is a literal: its first and last token, its value."""
    opened: list[bool] = []
    for at, token in enumerate(tokens):
        if token.text == "(":
            opened.append(at > 0 and tokens[at - 1].name == "round")
        elif token.text == ")" and opened and opened.pop():
            signed = tokens[at - 2].text == "-"
            first, last = tokens[at - 2 if signed else at - 1], tokens[at - 1]
            literal = last.kind == "number" and last.text.isdigit()
            if literal and tokens[at - 3 if signed else at - 2].text == ",":
                digits = int(last.text)
                if digits <= _MOST_DIGITS:
                    yield first, last, -digits if signed else digits
