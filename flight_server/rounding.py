"""Rounding of decimals, of which the engine knows the type too late.

To DataFusion 55.0, ``round(c, 1)`` of a decimal has the digits of ``c`` until its second argument
is a literal of 32 bits, which the parser does not make. By then what the value is compared with, or
stands beside, was cast to the type of before. So literal digits are bound, as parameters of
32 bits, and the type is right from the beginning; what is left is refused.

Source: apache/datafusion issue 24702; ``tests/test_misread.py``, against DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from datafusion import Expr

from flight_server.protocol.errors import Unimplemented
from flight_server.sqllex import Token, lex
from flight_server.sqltext import SqlText, digits_name
from flight_server.typed import Step, function, is_constant, operands

#: What a plan shows.
_CALL, _KIND = "round(", "Decimal"
_MOST_DIGITS = 2**31 - 1


def concerns(shown: str, typed: str) -> bool:
    """Whether a plan may round a decimal.

    Args:
        shown: as the statement says it, by ``display_indent``.
        typed: the same by ``display_indent_schema``.
    """
    return _CALL in shown and (_KIND in typed or _KIND in shown)


def bound(text: SqlText) -> SqlText:
    """The statement with the digits that it rounds to bound; the very same, if there are none.

    It may be that the engine cannot plan it: where the statement asks for a column by the text of
    such a call, or has one as a key of ROLLUP and the like.
    """
    if text.plan is not None:
        return text
    sql, digits = _bound(text.rewritten, lex(text.rewritten))
    return replace(text, rewritten=sql, digits=digits) if digits else text


def require(step: Step) -> None:
    """Refuses decimals that are rounded to digits that are no literal of 32 bits.

    Args:
        step: of a plan for :mod:`flight_server.typed`.

    Raises:
        Unimplemented: there is one.
    """
    for part in step.parts:
        if function(part) != "round":
            continue
        value, *digits = operands(part)
        if digits and pa.types.is_decimal(step.type_of(value)) and not _is_known(digits[0]):
            raise Unimplemented(
                "round(x, n) of a decimal would not have its real type here: write n as a number,"
                " and (SELECT round(x, 2) AS r …) for what names or groups it, or round(cast(x as"
                " double), n)"
            )


def _is_known(digits: Expr) -> bool:
    """Whether the engine knows these digits from the beginning, or never."""
    if digits.variant_name() == "Literal":
        return True
    return not is_constant(digits)


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
