"""Lists of constants that the engine draws together until nothing is left of them.

DataFusion 55.0 makes ``x NOT IN (what both hold)`` of ``x NOT IN (…) OR x NOT IN (…)`` and, where
they hold nothing in common, takes it for true, which it is not where x is null. Likewise two lists
without a common value behind AND are false to it, and never null. The plan that is left does not
show it; so a statement with two lists for one operand is planned without the engine's
simplifications, too, and judged by that plan: where WHERE or ON asks only for truth, false does as
well as null, and true does not.

Source: ``tests/test_lists.py``, against DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from flight_server.analysis import WITHOUT_PARTS, conditions, walk, without_casts
from flight_server.contexts import WITHOUT
from flight_server.protocol.errors import Unimplemented

#: Of the context in which :func:`require_lists_kept` has its plans made.
SETTINGS: Mapping[str, str] = MappingProxyType({WITHOUT: "simplify_expressions"})

#: A list behind IN, and the end of what is looked up in it: so many characters tell enough.
_LISTED = re.compile(r"\"? (?:NOT )?IN \(\[")
_END = re.compile(r"\w+|\W")
_LONGEST_END = 128
_OTHER = MappingProxyType({"AND": "OR", "OR": "AND"})
_REFUSAL = (
    "two lists behind IN without a common value would be true or false where x is null: write"
    " x IS NOT NULL for x NOT IN (…) OR x NOT IN (…), and one list for several"
)


def may_meet(shown: str) -> bool:
    """Whether there are two lists for what may be one operand.

    Args:
        shown: a plan's text.
    """
    ends = (shown[max(0, at.start() - _LONGEST_END) : at.start()] for at in _LISTED.finditer(shown))
    operands = [found[0] for end in ends if (found := _END.match(end[::-1]))]
    alike = len(operands) > len(set(operands))
    return alike or (len(operands) > 1 and ")" in operands)  # a cast may hide that they are


def require_lists_kept(plan: LogicalPlan) -> None:
    """Refuses lists of which nothing would be left, where that makes a difference.

    Args:
        plan: optimized with :data:`SETTINGS`.

    Raises:
        Unimplemented: the engine would answer true or false in the place of null.
    """
    hidden = plan.display_indent()  # in sub-queries, which cannot be walked
    for node in walk(plan):
        shown = node.display()
        hidden = hidden.replace(shown, "", 1)
        if may_meet(shown):
            for condition in conditions(node):
                _judge(condition, asks_truth=True)
            for expression in _expressions(node):
                _judge(expression, asks_truth=False)
    if any(map(may_meet, hidden.split("\n"))):
        raise Unimplemented(_REFUSAL)


def _expressions(node: LogicalPlan) -> Iterator[Expr]:
    """What a step works out besides."""
    variant: Any = node.to_variant()
    match type(variant).__name__:
        case "Projection":
            yield from variant.projections()
        case "Aggregate":
            yield from chain(variant.group_by_exprs(), variant.aggregate_exprs())
        case "Join":
            yield from chain.from_iterable(variant.on())
        case "Filter" | "TableScan":
            return
        case _:
            raise Unimplemented(_REFUSAL)


@dataclass(frozen=True, slots=True)
class _List:
    """``operand [NOT] IN (values)``; ``negated`` says so with every NOT above it."""

    operand: str
    values: frozenset[str]
    negated: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """An expression, or what stands in one by another word than the parts around it.

    Attributes:
        expression: itself.
        asks_truth: null does as well as false.
        above: AND or OR, with every NOT above it taken into account …
        negated: … of which there is an odd number.
    """

    expression: Expr
    asks_truth: bool
    above: str = "AND"
    negated: bool = False


def _judge(expression: Expr, *, asks_truth: bool) -> None:
    """Judges the lists that stand side by side in AND or OR, and whatever stands below."""
    below = [_Part(expression, asks_truth)]
    while below:  # an expression may be nested deeper than Python's calls
        part = below.pop()
        side_by_side = []
        parts = [(part.expression, part.negated)]
        while parts:
            each, negated = parts.pop()
            kind = each.variant_name()
            said = each.to_variant().op() if kind == "BinaryExpr" else ""
            if kind == "Not":
                parts += [(inner, not negated) for inner in each.rex_call_operands()]
            elif said in _OTHER and (_OTHER[said] if negated else said) == part.above:
                parts += [(inner, negated) for inner in each.rex_call_operands()]
            elif said in _OTHER:
                below.append(_Part(each, part.asks_truth, _OTHER[part.above], negated))
            elif kind == "InList":
                side_by_side.append(_listed(each, negated))
                below += _inside(each.to_variant().expr())
            else:
                below += _inside(each)
        if part.above == "OR" or not part.asks_truth:
            _require_rest(side_by_side, part.above)


def _inside(part: Expr) -> list[_Part]:
    """What stands inside something else than AND, OR and NOT."""
    if part.variant_name() in WITHOUT_PARTS:
        return []
    try:
        return [_Part(each, asks_truth=False) for each in part.rex_call_operands()]
    except Exception as error:  # the bindings' only type: what cannot be seen may hold anything
        if may_meet(part.canonical_name()):
            raise Unimplemented(_REFUSAL) from error
        return []


def _listed(part: Expr, negated: bool) -> _List:  # noqa: FBT001
    said = part.to_variant()
    operand = without_casts(said.expr())
    values = frozenset(each.canonical_name() for each in said.list())
    return _List(operand.canonical_name(), values, said.negated() != negated)


def _require_rest(lists: list[_List], word: str) -> None:
    """Refuses lists that come to none when they are drawn together, two by two."""
    for operand in {each.operand for each in lists}:
        mine = [each for each in lists if each.operand == operand]
        drawn = [each.values for each in mine if each.negated == (word == "OR")]
        taken = [each.values for each in mine if each.negated == (word == "AND")]
        if drawn and len(mine) > 1 and not frozenset.intersection(*drawn).difference(*taken):
            raise Unimplemented(_REFUSAL)
