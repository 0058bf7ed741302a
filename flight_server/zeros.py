"""Lists of numbers in which the engine takes 0.0 and -0.0 for two.

Everywhere else in comparisons they are one: ``=``, joins and groups go by IEEE 754. But a list of
constants behind IN, and a chain of ``x = … OR x = …``, which becomes one, is looked up by bits
(DataFusion 55.0), while files are pruned by comparisons: ``x NOT IN (0.0, …)`` over a row of -0.0
depended on which rows stand in one file.

So a list that holds one zero is given both; an equality with a zero is taken for a list of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from datafusion.plan import LogicalPlan

from flight_server.analysis import walk
from flight_server.protocol.errors import Unimplemented
from flight_server.sqllex import Token, lex
from flight_server.sqltext import SqlText

#: How plans show a list of constants.
_OPENS, _CLOSES = " IN ([", "])"
#: A zero there, or the text of one in the name that the engine gives to an expression.
_ZERO = re.compile(
    r"(?:, )?(?:\bCAST\(Utf8\(\"-?0\.0\"\) AS Float(?:32|64)\)"
    r"|\bFloat(?:32|64)\(-?0\)|\bUtf8\(\"-?0\.0\"\))"
)
#: What tells the types of a plan.
_TYPES = re.compile(r"CAST\(.{0,500}? AS \w+|\b\w++\([^()]*\)")
_SIGNS = re.compile(r"\bFloat(?:32|64)\((-?)0\)")
#: Added to a list of floating numbers; the type must not widen the list's own.
_BOTH = tuple(f", CAST('-0.0' AS {kind}), CAST('0.0' AS {kind})" for kind in ("DOUBLE", "REAL"))
#: Each costs one planning or two.
_MOST_LISTS = 32
#: What may follow a constant that is all of an operand.
_ENDS = frozenset({")", ",", "and", "or", "then", "group", "having", "order", "limit", "union"})


def mended(
    text: SqlText, plan: LogicalPlan, optimized: Callable[[SqlText], LogicalPlan]
) -> SqlText:
    """The statement with both zeros wherever a list holds one; mostly the very same.

    Args:
        text: the statement.
        plan: its optimized plan.
        optimized: plans another text like it.

    Raises:
        Unimplemented: a list that this does not reach.
    """
    shown = _exact(plan)
    if not _told_apart(shown):
        return text
    if text.plan is None:
        shown, text = _lists(text, shown, optimized, _without)
        if _told_apart(shown):
            listed = replace(text, rewritten=_as_lists(text.rewritten))
            shown = _exact(optimized(listed))
            shown, text = _lists(listed, shown, optimized, _types)
    if _told_apart(shown):
        raise Unimplemented(
            "the engine would take 0.0 and -0.0 for two numbers in a list of this statement:"
            " write x IN (0.0, …) with the numbers themselves"
        )
    return text


def may_be_listed(planned: LogicalPlan) -> bool:
    """Whether values may make a list with a zero of a statement.

    Args:
        planned: as the statement says it.
    """
    return "Float" in planned.display_indent()


def require_as_mended(said: LogicalPlan, plan: LogicalPlan) -> None:
    """Refuses further values of a statement that would need another text.

    Args:
        said: the optimized plan of the statement's own text with these values.
        plan: the same of the text that :func:`mended` made with the first ones.

    Raises:
        Unimplemented: a list holds a zero with these values, and none with others.
    """
    shown = _exact(plan)
    if _told_apart(shown) or _with_zeros(shown) != _with_zeros(_exact(said)):
        raise Unimplemented(
            "a list of this statement holds 0.0 with some of the bound values, and not with others:"
            " bind one set of values at a time"
        )


def _exact(plan: LogicalPlan) -> str:
    """A plan without what its scans may leave out: the filters above them say all of it again."""
    shown = plan.display_indent()
    for node in walk(plan):
        kind, marked, filters = node.display().partition(", partial_filters=")
        if marked and kind.startswith("TableScan: "):
            shown = shown.replace(marked + filters, "")
    return shown


def _told_apart(shown: str) -> bool:
    """Whether some list of a plan has one of the zeros, and not the other."""
    return any(len(set(_SIGNS.findall(each))) == 1 for each in _split(shown)[0])


def _with_zeros(shown: str) -> int:
    """How many comparisons of a plan are with a zero: a list with several is one."""
    inside, outside = _split(shown)
    lists = sum(bool(_SIGNS.search(each)) for each in inside)
    return lists + sum(len(_SIGNS.findall(each)) for each in outside)


def _split(shown: str) -> tuple[list[str], list[str]]:
    """What stands in a plan's lists, and around them; in one pass, whatever a value looks like."""
    first, *others = shown.split(_OPENS)
    parts = [each.partition(_CLOSES) for each in others]
    inside = [body for body, closed, _ in parts if closed]
    return inside, [first, *(rest if closed else body for body, closed, rest in parts)]


def _without(shown: str) -> str:
    """A plan without its zeros."""
    return _ZERO.sub("", shown)


def _types(shown: str) -> frozenset[str]:
    """The constants and casts of a plan, whose conditions may have become others by a zero."""
    return frozenset(_TYPES.findall(_without(shown)))


def _lists(
    text: SqlText,
    shown: str,
    optimized: Callable[[SqlText], LogicalPlan],
    rest: Callable[[str], object],
) -> tuple[str, SqlText]:
    """Both zeros in each list that holds one, where the rest of the plan stays as it is.

    Then the list has their type; what its parameters are bound to, only the plan says.
    """
    same = rest(shown), _with_zeros(shown)
    ends = list(_ends(lex(text.rewritten)))
    if len(ends) > _MOST_LISTS:
        raise Unimplemented(
            f"a statement with more than {_MOST_LISTS} lists behind IN, one of them with 0.0: write"
            " x = 0.0 OR x IN (…) for that one"
        )
    for at in reversed(ends):
        for both in _BOTH:
            tried = replace(text, rewritten=text.rewritten[:at] + both + text.rewritten[at:])
            try:
                found = _exact(optimized(tried))
            except Exception as error:
                if type(error) is not Exception:  # the bindings' only type: not a list of floats
                    raise
                continue
            if (rest(found), _with_zeros(found)) == same:
                shown, text = found, tried
                break
    return shown, text


def _ends(tokens: Sequence[Token]) -> Iterator[int]:
    """Where lists behind IN end that may hold a zero."""
    for at, (word, bracket, first) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
        if word.kind != "word" or word.name != "in" or bracket.text != "(":
            continue
        if first.kind == "word" and first.name in {"select", "with", "values"}:
            continue
        depth, zero = 0, False
        for token in tokens[at + 1 :]:
            depth += (token.text == "(") - (token.text == ")")
            zero |= token.kind == "parameter" or _is_zero(token)
            if depth == 0:
                if zero:
                    yield token.start
                break


def _is_zero(token: Token) -> bool:
    try:
        return token.kind in {"number", "string"} and float(token.text.strip("'")) == 0
    except ValueError:
        return False


def _as_lists(sql: str) -> str:
    """``= 0`` as ``IN (0)``, where the zero is all of its operand."""
    tokens = lex(sql)
    for at in range(len(tokens) - 1, -1, -1):
        word = {"=": " IN", "<>": " NOT IN", "!=": " NOT IN"}.get(tokens[at].text)
        end = None if word is None else _operand(tokens, at + 1)
        if end is None or (end < len(tokens) and tokens[end].name not in _ENDS):
            continue
        start, stop = tokens[at].start, tokens[end - 1].start + len(tokens[end - 1].text)
        zero = sql[start + len(tokens[at].text) : stop]
        sql = f"{sql[:start]}{word} ({zero.strip()}){sql[stop:]}"
    return sql


def _operand(tokens: Sequence[Token], at: int) -> int | None:
    """Where the zero that begins at a token ends: ``0``, ``-0``, ``CAST(-0 AS DOUBLE)``."""
    end = at
    if end < len(tokens) and tokens[end].text == "-":
        end += 1
    if end < len(tokens) and _is_zero(tokens[end]):
        return end + 1
    if end + 1 < len(tokens) and tokens[end].name == "cast" and tokens[end + 1].text == "(":
        inner = _operand(tokens, end + 2)
        if inner is not None and inner + 2 < len(tokens) and tokens[inner].name == "as":
            return inner + 3 if tokens[inner + 2].text == ")" else None
    return None
