"""The text of a statement before any parser sees it: lexed, bounded, classified, rewritten.

SQL text alone can end the engine's process (a chain of 20,000 ``+`` overflows its stack) and
planning cannot be interrupted, so bytes, operators, depth and expansion are bounded here, on
tokens.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flight_server.protocol.errors import InvalidArgument, ResourceExhausted, Unimplemented
from flight_server.sqllex import Token, lex, syntax_refused
from flight_server.sqlrules import (
    check_growth,
    expanded_tokens,
    refuse_ignored_clauses,
    refuse_windows_of_windows,
)
from flight_server.sqlversions import version_edits

__all__ = ["Bounds", "Kind", "SqlText", "digits_name", "kind_of", "read", "single", "with_literals"]

Kind = Literal["query", "explain", "write", "control"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a statement's text may hold.

    Attributes:
        max_bytes: UTF-8 bytes.
        max_operators: operators, signs, subscripts, casts, joins and set operations together:
            planning time grows with the square of a chain's length (1,000 terms: 1.5 s).
        max_depth: nesting of brackets and CASE; DataFusion's own parser stops near 50.
        max_expanded: tokens after every CTE has been put in the place of its name, which is what
            the planner does: twenty CTEs that each name the one before twice make a million.
    """

    max_bytes: int = 64 * 1024
    max_operators: int = 1000
    max_depth: int = 50
    max_expanded: int = 100_000


@dataclass(frozen=True, slots=True)
class SqlText:
    """A statement that may be given to the engine.

    Attributes:
        sql: as the client sent it.
        rewritten: with ``$1``, ``$2``, … in the place of each ``?``, and numbers with an exponent
            as doubles (the engine reads them as decimals, as it must read 0.1), and versions in
            the names of tables.
        parameters: how many parameters it has.
        kind: "query" or "explain" (:func:`read` refuses the others).
        first: the leading keyword, lower case.
        words: every identifier and keyword, lower case.
        shifts: (offset in ``rewritten``, characters to subtract) where a rewriting moved the text.
        plan: a Substrait plan in the place of the text (``substrait.py``).
        digits: each is bound, as 32 bits, to the parameter :func:`digits_name` (``rounding.py``).
    """

    sql: str
    rewritten: str
    parameters: int
    kind: Kind
    first: str
    words: frozenset[str]
    shifts: tuple[tuple[int, int], ...] = ()
    plan: bytes | None = None
    digits: tuple[int, ...] = ()

    def origin(self, offset: int) -> int:
        """The offset in ``sql`` of an offset in ``rewritten``.

        Inside a text that was put in, somewhere near; never beyond the end.
        """
        at = bisect_right(self.shifts, (offset, 1 << 60))
        return min(offset - (self.shifts[at - 1][1] if at else 0), len(self.sql))


def digits_name(digits: int) -> str:
    """The parameter that stands for so many digits; clients cannot name one like it."""
    return f"digits_{digits}".replace("-", "m")


def with_literals(shown: str) -> str:
    """A plan with the numbers of the statement in the place of such parameters."""
    return _DIGITS.sub(lambda found: f"Int64({found[1].replace('m', '-')})", shown)


_DIGITS = re.compile(r"\$digits_(m?\d++)")
_PUNCTUATION = frozenset("(){},;.")
_OPERATOR_WORDS = frozenset(
    [
        "and",
        "or",
        "not",
        "xor",
        "in",
        "is",
        "like",
        "ilike",
        "rlike",
        "regexp",
        "similar",
        "between",
        "union",
        "except",
        "intersect",
        "minus",
        "join",
        "case",
        "when",
        "over",
        "collate",
        "at",
        "div",
        "escape",
    ]
)
_WRITES = frozenset(
    [
        "insert",
        "update",
        "delete",
        "merge",
        "truncate",
        "create",
        "drop",
        "alter",
        "copy",
        "replace",
        "upsert",
        "unload",
        "load",
        "rename",
        "comment",
        "grant",
        "revoke",
        "vacuum",
        "analyze",
        "optimize",
        "msck",
        "cache",
        "uncache",
        "import",
        "export",
        "install",
        "attach",
        "detach",
        "call",
    ]
)
_CONTROLS = frozenset(
    [
        "set",
        "reset",
        "use",
        "prepare",
        "execute",
        "deallocate",
        "begin",
        "start",
        "commit",
        "rollback",
        "savepoint",
        "release",
        "declare",
        "fetch",
        "close",
        "kill",
        "lock",
        "unlock",
        "listen",
        "notify",
        "pragma",
        "discard",
    ]
)
_EXPLAIN_OPTIONS = frozenset(
    ["analyze", "verbose", "format", "tree", "indent", "pgjson", "graphviz"]
)


def read(sql: str, bounds: Bounds) -> SqlText:
    """One statement that reads, ready for the engine.

    Raises:
        ResourceExhausted: it is larger, longer or deeper than ``bounds``.
        SyntaxRefused: it cannot be lexed.
        InvalidArgument: empty, several statements, parameters of two styles or with names.
        Unimplemented: it writes or changes settings, or asks for a clause that the engine would
            silently ignore.
    """
    if (size := len(sql.encode(errors="replace"))) > bounds.max_bytes:
        raise ResourceExhausted(
            f"the statement has {size} bytes, the limit is {bounds.max_bytes}: "
            "bind long lists as parameters, or raise limits.max_sql_bytes"
        )
    tokens = single(lex(sql))
    _bound(tokens, bounds)
    kind = kind_of(tokens)
    _refuse_writes(kind, tokens)
    edits = version_edits(sql, tokens)
    kept = [token for token in tokens if token.start not in edits] if edits else tokens
    refuse_ignored_clauses(kept)
    refuse_windows_of_windows(kept)
    check_growth(kept)
    rewritten, count, shifts = _rewritten(sql, tokens, edits)
    words = frozenset(token.name for token in tokens if token.kind in {"word", "quoted"})
    first = next((token.name for token in tokens if token.kind == "word"), "")
    return SqlText(sql, rewritten, count, kind, first, words, shifts)


def kind_of(tokens: Sequence[Token]) -> Kind:
    """What the statement does, by its leading words; what is unknown counts as a query."""
    words = [token.name for token in tokens if token.kind == "word"]
    explained = bool(words) and words[0] == "explain"
    rest = [w for w in words if w not in _EXPLAIN_OPTIONS][1:] if explained else words
    first = rest[0] if rest else ""
    if first in _WRITES:
        return "write"
    if first in _CONTROLS:
        return "control"
    return "explain" if explained else "query"


def single(tokens: list[Token]) -> list[Token]:
    """The one statement, without semicolons around it.

    Raises:
        InvalidArgument: there is none, or more than one.
    """
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    first = next((i for i, token in enumerate(tokens) if token.text != ";"), len(tokens))
    tokens = tokens[first:]
    if not tokens:
        raise InvalidArgument("the statement is empty")
    if any(token.kind == "operator" and token.text == ";" for token in tokens):
        raise InvalidArgument("several statements in one text: send them one by one")
    return tokens


def _bound(tokens: Sequence[Token], bounds: Bounds) -> None:
    operators = sum(map(_is_operator, tokens))
    if operators > bounds.max_operators:
        raise ResourceExhausted(
            f"the statement has {operators} operators, the limit is {bounds.max_operators}: "
            "write long chains as IN lists or joins, or raise limits.max_operators"
        )
    depth = deepest = 0
    for token in tokens:
        if token.text in {"(", "[", "{"} or (token.kind == "word" and token.name == "case"):
            depth += 1
        elif token.text in {")", "]", "}"} or (token.kind == "word" and token.name == "end"):
            depth -= 1
        deepest = max(deepest, depth)
    if deepest > bounds.max_depth:
        raise ResourceExhausted(
            f"the statement is nested {deepest} deep, the limit is {bounds.max_depth}"
        )
    if (expanded := expanded_tokens(tokens)) > bounds.max_expanded:
        raise ResourceExhausted(
            f"the statement's WITH queries expand to {expanded} tokens, the limit is "
            f"{bounds.max_expanded}: name each of them fewer times"
        )


def _is_operator(token: Token) -> bool:
    if token.kind == "operator":
        return token.text not in _PUNCTUATION
    return token.kind == "word" and token.name in _OPERATOR_WORDS


def _refuse_writes(kind: Kind, tokens: Sequence[Token]) -> None:
    first = next(
        (t.name for t in tokens if t.kind == "word" and t.name in _WRITES | _CONTROLS), ""
    ).upper()
    if kind == "write":
        raise Unimplemented(
            f"{first} statements are not offered: this server reads; tables are written by "
            "the topics that feed them and by the Iceberg catalog's other clients"
        )
    if kind == "control" and first in {"SET", "RESET", "USE"}:
        raise Unimplemented(
            f"{first} statements are not offered here: they are about a session, and a server "
            "keeps those; write names in full, and times with their zone"
        )
    if kind == "control":
        raise Unimplemented(
            f"{first} statements are not offered: use the client's session options, prepared "
            "statements and parameters; every statement is its own transaction"
        )


def _rewritten(
    sql: str, tokens: Sequence[Token], edits: Mapping[int, str]
) -> tuple[str, int, tuple[tuple[int, int], ...]]:
    """The text with what SQL says of numbers with an exponent (doubles), and ``$n`` for ``?``.

    Args:
        sql: the text.
        tokens: its tokens.
        edits: other texts for tokens, by their offsets.
    """
    marks = [token for token in tokens if token.kind == "parameter"]
    numbers = _parameter_numbers(sql, marks)
    new = {mark.start: f"${number}" for mark, number in zip(marks, numbers, strict=True)}
    new |= {t.start: f"CAST({t.text} AS DOUBLE)" for t in tokens if _is_float(t)}
    new |= edits
    pieces: list[str] = []
    shifts: list[tuple[int, int]] = []
    at = length = moved = 0
    for token in tokens:
        if (text := new.get(token.start)) is None:
            continue
        pieces += [sql[at : token.start], text]
        at = token.start + len(token.text)
        length += len(pieces[-2]) + len(text)
        moved += len(text) - len(token.text)
        shifts.append((length, moved))
    return "".join([*pieces, sql[at:]]), max(numbers, default=0), tuple(shifts)


def _is_float(token: Token) -> bool:
    return token.kind == "number" and "e" in token.text.lower() and token.text[:2].lower() != "0x"


def _parameter_numbers(sql: str, marks: Sequence[Token]) -> list[int]:
    written = [_parameter_number(sql, mark) for mark in marks]
    if len({number is None for number in written}) > 1:
        raise InvalidArgument("parameters are written ? or $1, not both in one statement")
    if len(marks) > _MAX_PARAMETERS:
        raise InvalidArgument(f"the statement has more than {_MAX_PARAMETERS} parameters")
    numbers = [number or i for i, number in enumerate(written, start=1)]
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    if missing:
        raise InvalidArgument(f"parameter ${missing[0]} is missing below ${max(numbers)}")
    return numbers


#: More parameters than this in one statement are refused.
_MAX_PARAMETERS = 1000


def _parameter_number(sql: str, mark: Token) -> int | None:
    digits = mark.text[1:]
    if not digits:
        return None
    if not digits.isascii() or not digits.isdigit():
        raise syntax_refused(sql, mark.start, "parameters have numbers, not names: write ? or $1")
    if not 1 <= int(digits[:6]) <= _MAX_PARAMETERS or len(digits) > 6:  # noqa: PLR2004  # the cut above
        raise syntax_refused(sql, mark.start, f"parameters go from $1 to ${_MAX_PARAMETERS}")
    return int(digits)
