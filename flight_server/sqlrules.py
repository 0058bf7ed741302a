"""Clauses and functions that are refused by their words, before the engine parses them.

Two kinds: clauses that DataFusion parses and then *ignores* (an answer would be wrong without a
word), and functions that make arbitrarily large values, which no memory pool counts
(``repeat('x', 2000000000)`` takes 7.7 GB under a pool of 256 MB, while planning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from flight_server.protocol.errors import ResourceExhausted, Unimplemented
from flight_server.sqllex import Token

#: Largest product of all the sizes that a statement asks for by literals: 32,768 rows of a batch
#: times this many bytes are 0.5 GB.
MAX_GROWTH = 16_384
#: Numbers are read to so many digits, and sizes counted no further: Python refuses longer ones.
_DIGITS = 18
_LARGEST = 10**_DIGITS


_AS_OF = "write FOR VERSION AS OF or FOR TIMESTAMP AS OF, and a literal, behind a table's name"

#: Words in a row that the engine would ignore → what to write instead.
IGNORED: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("tablesample",): "filter with random() < fraction instead",
        ("prewhere",): "write WHERE",
        ("with", "rollup"): "write GROUP BY ROLLUP (…)",
        ("with", "cube"): "write GROUP BY CUBE (…)",
        ("with", "totals"): "write GROUP BY ROLLUP (…)",
        ("with", "ordinality"): "use row_number()",
        ("intersect", "all"): "it would not count equal rows; write INTERSECT, or number them",
        ("except", "all"): "it would not count equal rows; write EXCEPT, or number them",
        ("connect", "by"): "write WITH RECURSIVE",
        (
            "similar",
            "to",
        ): "it would be a regular expression, found anywhere: write x ~ '^(a|b).*$'",
        ("for", "update"): "this server only reads",
        ("for", "share"): "this server only reads",
        ("for", "json"): "clients convert",
        ("for", "xml"): "clients convert",
        ("for", "version"): _AS_OF,
        ("for", "timestamp"): _AS_OF,
        ("for", "system_time"): _AS_OF,
        ("for", "system_version"): _AS_OF,
    }
)

#: Function → index of the argument that is a size.
GROWING: Mapping[str, int] = MappingProxyType(
    {
        "repeat": 1,
        "lpad": 1,
        "rpad": 1,
        "array_repeat": 1,
        "list_repeat": 1,
        "array_resize": 1,
        "list_resize": 1,
    }
)
#: Functions from start to stop: as a table they stream, as a value they are held in memory.
SERIES = frozenset({"range", "generate_series", "gen_series"})
#: Functions that put their third argument in the place of whatever they find: seven around one
#: another make 20 GB out of 300 characters.
REPLACING = frozenset({"replace", "regexp_replace"})
#: Functions that put their arguments behind one another, as || does.
JOINING = frozenset(
    {"concat", "concat_ws", "array_concat", "array_cat", "list_concat", "list_cat"}
    | {"array_append", "array_prepend", "make_array", "make_list"}
)
#: What one of :data:`REPLACING` is taken to make of a character where the new text is no literal.
_UNKNOWN_GROWTH = 64
_TABLE_POSITIONS = frozenset({"from", "join", "lateral"})
#: Words that begin a part of a window.
_WINDOW_WORDS = frozenset({"partition", "order", "rows", "range", "groups"})
#: Behind a bracket: no window's name, but the beginning of one's part, or of a query.
_NO_WINDOWS = _WINDOW_WORDS | {"select", "with", "values", "table", "from"}
#: Words that end a chain of ``||``.
_CLAUSES = frozenset({"select", "from", "where", "on", "and", "or", "union"})


def refuse_ignored_clauses(tokens: Sequence[Token]) -> None:
    """Refuses clauses that would be parsed and not obeyed.

    Raises:
        Unimplemented: names the clause and the replacement.
    """
    names = [token.name if token.kind == "word" else "" for token in tokens]
    for i, name in enumerate(names):
        if name in {"sample", "tablesample"}:
            _refuse_sample(tokens, i)
        for length in (1, 2):
            hint = IGNORED.get(tuple(names[i : i + length]))
            after_as = i > 0 and names[i - 1] == "as"
            if hint is not None and not after_as and name != "tablesample":
                clause = " ".join(names[i : i + length]).upper()
                raise Unimplemented(f"{clause} is not offered: {hint}")


def refuse_windows_of_windows(tokens: Sequence[Token]) -> None:
    """Refuses a window's name inside brackets, which the engine would leave out.

    Raises:
        Unimplemented: ``OVER (w …)``, or ``WINDOW v AS (w …)``.
    """
    for before, opening, name, after in zip(
        tokens, tokens[1:], tokens[2:], tokens[3:], strict=False
    ):
        if before.name not in {"over", "as"} or before.kind != "word" or opening.text != "(":
            continue
        named = name.kind == "quoted" or (name.kind == "word" and name.name not in _NO_WINDOWS)
        ends = after.text == ")" or (after.kind == "word" and after.name in _WINDOW_WORDS)
        if named and ends:
            raise Unimplemented(
                f"a window inside of brackets would be left out: write OVER {name.text}, or"
                " OVER (PARTITION BY … ORDER BY …) in full"
            )


def _refuse_sample(tokens: Sequence[Token], i: int) -> None:
    follows = tokens[i + 1] if i + 1 < len(tokens) else None
    before = tokens[i - 1].name if i else ""
    if follows is None or before in {"as", "."}:
        return
    sized = follows.text == "(" or follows.kind == "number"
    if sized or (tokens[i].name == "tablesample" and follows.kind == "word"):
        raise Unimplemented(
            "TABLESAMPLE is not offered (the engine would return every row): "
            f"{IGNORED['tablesample',]}"
        )


def check_growth(tokens: Sequence[Token]) -> None:
    """Bounds the functions that make large values.

    Raises:
        ResourceExhausted: a size is no literal, or the product of the sizes is beyond
            :data:`MAX_GROWTH`.
    """
    product = _text_growth(tokens)
    for i, token in enumerate(tokens):
        called = i + 1 < len(tokens) and tokens[i + 1].text == "("
        if not called or token.kind not in {"word", "quoted"}:
            continue
        name = token.name.lower()
        in_from = i > 0 and tokens[i - 1].name in _TABLE_POSITIONS
        if name in GROWING:
            size = _literal(_arguments(tokens, i + 1), GROWING[name])
        elif name in SERIES and not in_from:
            size = _series_length(_arguments(tokens, i + 1))
        else:
            continue
        if size is None:
            raise ResourceExhausted(_unbounded(name))
        product = min(product * max(size, 1), _LARGEST)
    if product > MAX_GROWTH:
        raise ResourceExhausted(
            f"the statement makes values of {product} elements or characters, the limit is "
            f"{MAX_GROWTH}: read long series FROM generate_series(…)"
        )


@dataclass(slots=True)
class _Bracket:
    """An open bracket: what its call multiplies by, and what is inside it so far."""

    factor: int
    cte: str | None
    calls: int = 1
    below: int = 1
    chain: int = 1
    longest_chain: int = 1
    selects: bool = False

    def growth(self) -> int:
        return self.factor * self.calls * self.below * self.longest_chain


def _text_growth(tokens: Sequence[Token]) -> int:
    """How many characters functions and operators that replace or join text make of one, at most.

    Calls around one another multiply, and so do those of a query and of what it reads (26 queries,
    each of which reads ``x || x`` of the one before, make 67 MB of a character); calls side by side
    do not.
    """
    named: dict[str, int] = {}
    inside = [_Bracket(1, None)]
    for i, token in enumerate(tokens):
        top = inside[-1]
        if token.text == "||":
            top.chain += 1
            top.longest_chain = max(top.longest_chain, top.chain)
        elif token.text == "," or token.name in _CLAUSES:
            top.chain = 1
        if token.text in {"(", "["}:
            inside.append(_Bracket(_call_factor(tokens, i), _cte_name(tokens, i)))
        elif token.text in {")", "]"} and len(inside) > 1:
            closed = inside.pop()
            if closed.cte is not None:
                named[closed.cte] = closed.growth()
            elif closed.selects:
                inside[-1].below = max(inside[-1].below, closed.growth())
            else:
                inside[-1].calls = max(inside[-1].calls, closed.growth())
        elif token.kind in {"word", "quoted"}:
            top.selects = top.selects or token.name == "select"
            top.below = max(top.below, named.get(token.name, 1))
    return max(bracket.growth() for bracket in inside)


def _call_factor(tokens: Sequence[Token], opening: int) -> int:
    """What a call, or a list, whose bracket is token ``opening`` makes of a character.

    That is as many as it has arguments, or as its new text has characters; or 1.
    """
    name = tokens[opening - 1].name.lower() if opening else ""
    if name in JOINING or tokens[opening].text == "[":
        return max(len(_arguments(tokens, opening)), 1)
    if name not in REPLACING:
        return 1
    new = [*_arguments(tokens, opening), [], []][2:]
    literal = len(new[0]) == 1 and new[0][0].kind == "string"
    return max(len(new[0][0].text) - 2, 1) if literal else _UNKNOWN_GROWTH


def _unbounded(name: str) -> str:
    if name in SERIES:
        return (
            f"{name}(…) as a value needs number literals for its limits: "
            f"put it into the FROM clause, where it streams"
        )
    return f"{name}(…) needs a number literal as its size: the memory pool does not count it"


def _arguments(tokens: Sequence[Token], opening: int) -> list[list[Token]]:
    """The arguments of the call whose ``(`` is token ``opening``."""
    arguments: list[list[Token]] = [[]]
    depth = 0
    for token in tokens[opening:]:
        if token.text in {"(", "[", "{"}:
            depth += 1
            if depth == 1:
                continue
        elif token.text in {")", "]", "}"}:
            depth -= 1
            if depth == 0:
                break
        if depth == 1 and token.text == ",":
            arguments.append([])
        else:
            arguments[-1].append(token)
    return arguments


def _literal(arguments: Sequence[Sequence[Token]], index: int) -> int | None:
    """The whole number that the argument is; None where it is anything else."""
    if index >= len(arguments):
        return 0  # the engine will say that an argument is missing
    argument = [t for t in arguments[index] if t.text != "-"]
    if len(argument) != 1 or argument[0].kind != "number" or not argument[0].text.isdigit():
        return None
    sign = -1 if len(arguments[index]) % 2 == 0 else 1
    return sign * int(argument[0].text[:_DIGITS])


def _series_length(arguments: Sequence[Sequence[Token]]) -> int | None:
    numbers = [_literal(arguments, i) for i in range(len(arguments))]
    if not all(arguments) or None in numbers:
        return None
    start, stop, step = ([0, *numbers, 1] if len(numbers) == 1 else [*numbers, 1])[:3]
    return abs((stop or 0) - (start or 0)) // max(abs(step or 1), 1) + 1


def expanded_tokens(tokens: Sequence[Token]) -> int:
    """How many tokens there are once each CTE stands in the place of its name."""
    weights: dict[str, int] = {}
    open_bodies: list[tuple[str | None, int]] = []
    total = 0
    for i, token in enumerate(tokens):
        total += 1
        if token.kind in {"word", "quoted"}:
            total += weights.get(token.name, 0)
        elif token.text == "(":
            open_bodies.append((_cte_name(tokens, i), total))
        elif token.text == ")" and open_bodies:
            name, before = open_bodies.pop()
            if name is not None:
                weights[name] = max(weights.get(name, 0), total - before)
    return total


def _cte_name(tokens: Sequence[Token], i: int) -> str | None:
    """The name in ``name [(columns)] AS [[NOT] MATERIALIZED] (``; token ``i`` is the ``(``."""
    at = i - 1
    while at > 0 and tokens[at].name in {"materialized", "not"}:
        at -= 1
    if at < 1 or tokens[at].kind != "word" or tokens[at].name != "as":
        return None
    at -= 1
    if tokens[at].text == ")":
        while at > 0 and tokens[at].text != "(":
            at -= 1
        at -= 1
    return tokens[at].name if at >= 0 and tokens[at].kind in {"word", "quoted"} else None
