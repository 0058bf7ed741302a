"""Sub-queries behind IN: refused where the engine would take null for false, or false for null.

DataFusion 55.0 makes of ``x IN (SELECT …)`` a mark that is true or false and never null, and of
``x NOT IN (SELECT …)`` that stands alone an anti join that minds nulls while it has one key. So it
is right where only truth is asked for: down from WHERE, HAVING or ON through AND and OR (and NOT,
which turns one into the other), and nowhere else.

Sub-queries' own plans cannot be walked (the bindings hide them); of those the text is judged, and
what is not surely sound is refused. Source: ``tests/test_nulls.py``, against DuckDB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from flight_server.analysis import WITHOUT_PARTS, conditions, walk
from flight_server.protocol.errors import Unimplemented

#: How plans show it; a literal may, too.
_SHOWN = "IN (<subquery>)"
#: Expressions that do …
_STRICT_KINDS = frozenset({"Alias", "BinaryExpr", "Cast", "Literal", "Negative", "Placeholder"})
#: … and functions that make null of null only.
_STRICT = frozenset(
    {
        *("abs", "ceil", "floor", "round", "signum", "trunc", "lower", "upper", "btrim", "ltrim"),
        *("rtrim", "character_length", "octet_length", "reverse", "substr", "left", "right"),
        *("date_bin", "date_trunc", "date_part", "to_unixtime"),
    }
)
#: Comparisons with every row of a sub-query.
_COMPARED = re.compile(r" (?:ANY|ALL) \(<subquery>\)")
_REFUSAL = (
    "whether this IN over a sub-query is false or null would be lost: write NOT EXISTS"
    " (SELECT 1 FROM … WHERE b.x = a.x), or IN only as a condition that has to be true"
)

_COLUMN = r"[\w.]++"
#: What a function is given, to one further level of brackets; no sub-query is among it.
_GIVEN = r'(?:\w++(?:\((?:"[^"\n]*"|[^()"\n]*)\))?|[.,:+*/ -])*+'
_ONE = rf'(?:\w++\((?:"[^"\n]*"|{_GIVEN})\)|\(<subquery>\)|\$\d+|{_COLUMN})'
_VALUE = rf"{_ONE}(?: [-+*/%] {_ONE})*"
_PLAIN = rf"{_VALUE}(?: (?:!?=|[<>]=?|(?:NOT )?I?LIKE) {_VALUE})?"
#: Up to a value that is no truth: up to ``b AND x IN (…)`` looks the same as up to ``b``.
_BETWEEN = rf"{_VALUE} (?:NOT )?BETWEEN {_VALUE} AND (?!Boolean|CAST)[A-Z]\w++\({_GIVEN}\)"
#: IS NULL behind an IN may ask after both: plans are written without some of their brackets.
_BEFORE = rf"(?:(?:{_COLUMN} IS (?:NOT )?NULL|{_BETWEEN}|{_PLAIN}) (?:AND|OR) )*"
#: A filter inside a sub-query that only asks whether an IN is true.
_SOUND = re.compile(
    rf"^ *Filter: {_BEFORE}{_COLUMN} IN \(<subquery>\)"
    rf"(?: (?:AND|OR) (?:{_PLAIN}|{_COLUMN} IN \(<subquery>\)))*$"
)
#: The same with NOT IN, which must stand alone.
_ALONE = re.compile(
    rf"^ *Filter: {_BEFORE.replace('(?:AND|OR) )*', 'AND )*')}{_COLUMN} (?:NOT )?IN \(<subquery>\)"
    rf"(?: AND (?:{_PLAIN}|{_COLUMN} (?:NOT )?IN \(<subquery>\)))*$"
)


def require_nulls_kept(planned: LogicalPlan) -> None:
    """Refuses sub-queries behind IN of which more is asked than whether they are true.

    Args:
        planned: as the statement says it, parameters bound or not: the answer is the same.

    Raises:
        Unimplemented: IN below CASE, IS NULL, a comparison, a function and the like; NOT IN beside
            OR, or with CASE or nullif on its left; IN in a select list; ANY or ALL inside
            a further sub-query, in a select list, or over a table that has the name of one
            outside, whose rows the engine gets wrong.
    """
    text = planned.display_indent()
    if "(<subquery>)" not in text:
        return
    seen, compared = 0, 0
    for node in walk(planned):
        shown = node.display()
        seen += shown.count(_SHOWN)
        if found := len(_COMPARED.findall(shown)):
            compared += found
            if type(node.to_variant()).__name__ not in {"Filter", "Join"}:
                raise Unimplemented(
                    "ANY and ALL stand in WHERE, HAVING and ON only: write"
                    " (SELECT count(*) FROM … WHERE b.x < a.x) > 0"
                )
        if _SHOWN in shown and not _is_sound(node):
            raise Unimplemented(_REFUSAL)
    if text.count(_SHOWN) - seen > _sound_inside(text):
        raise Unimplemented(_REFUSAL)
    if len(_COMPARED.findall(text)) > compared:
        raise Unimplemented(
            "ANY or ALL inside a further sub-query is not offered: write IN, or EXISTS"
            " (SELECT 1 FROM … WHERE b.x < a.x)"
        )
    if compared and _names_meet(text):
        raise Unimplemented(
            "ANY or ALL over a table that is named outside, too, would compare its rows with"
            " themselves: give it another name, … FROM t AS other"
        )


def _names_meet(text: str) -> bool:
    """Whether a table in a plan's sub-queries is known by the name of one outside of them."""
    inside: set[str] = set()
    outside: set[str] = set()
    opened, alias = math.inf, False
    for line in text.splitlines():
        step = line.lstrip()
        indent = len(line) - len(step)
        if step.startswith("Subquery:"):
            opened = min(opened, indent)
        elif indent <= opened:
            opened = math.inf
        kind, _, rest = step.partition(": ")
        if rest and (kind == "SubqueryAlias" or (kind == "TableScan" and not alias)):
            known = inside if opened < indent else outside
            known.add(rest.split(" ")[0].rpartition(".")[2])
        alias = kind == "SubqueryAlias"
    return not inside.isdisjoint(outside)


def require_joined(planned: LogicalPlan, plan: LogicalPlan) -> None:
    """Refuses sub-queries behind IN of which the engine makes no join, or one that loses nulls.

    Args:
        planned: as the statement says it; has passed :func:`require_nulls_kept`.
        plan: the same, optimized, with the values that it is to be executed with.

    Raises:
        Unimplemented: NOT IN with a constant on its left, or over a sub-query that refers to what
            is outside; IN in an outer join's condition.
    """
    if _SHOWN not in planned.display_indent():
        return
    for node in walk(plan):
        if any(_holds_in(each) for each in _expressions(node)) or _is_lossy(node):
            raise Unimplemented(_REFUSAL)


def _is_sound(node: LogicalPlan) -> bool:
    """Whether a step asks of its INs only whether they are true."""
    if type(node.to_variant()).__name__ in {"Filter", "Join"}:
        return all(_is_truth_asked(each) for each in _expressions(node))
    return not any(_holds_in(each) for each in _expressions(node))


def _is_truth_asked(condition: Expr) -> bool:
    """Whether a condition is true for the same rows where an IN is false in the place of null.

    Args:
        condition: of a filter or join; it may be nested deeper than Python's calls.
    """
    # Of each part: an odd number of NOT stands above, and only what comes to AND, so that all rows
    # that are left fulfil it.
    parts = [(condition, False, True)]
    while parts:
        part, negated, alone = parts.pop()
        kind = part.variant_name()
        if kind == "Not":
            parts += [(each, not negated, alone) for each in part.rex_call_operands()]
        elif kind == "InSubquery":
            said = part.to_variant()
            kept = said.negated() == negated or (alone and _is_strict(said.expr()))
            if not kept or _holds_in(said.expr()):
                return False
        elif kind == "BinaryExpr" and (op := part.to_variant().op()) in {"AND", "OR"}:
            alone = alone and (op == "OR") == negated
            parts += [(each, negated, alone) for each in part.rex_call_operands()]
        elif _holds_in(part):
            return False
    return True


def _is_strict(left: Expr) -> bool:
    """Whether the left side of a NOT IN is null only where a column in it is.

    The engine minds nulls where columns may be null: not those that an expression makes.
    """
    columns = {"Column", "OuterReferenceColumn"}
    if left.variant_name() not in columns and "NULL" in left.canonical_name():
        return False
    parts = [left]
    while parts:
        part = parts.pop()
        kind = part.variant_name()
        if kind == "ScalarFunction":
            strict = part.canonical_name().partition("(")[0] in _STRICT
        else:
            strict = kind in columns | _STRICT_KINDS
        if not strict:
            return False
        if kind not in columns | WITHOUT_PARTS:
            parts += part.rex_call_operands()
    return True


def _holds_in(expression: Expr) -> bool:
    """Whether an IN over a sub-query is somewhere in an expression."""
    parts = [expression] if _SHOWN in expression.canonical_name() else []
    while parts:
        part = parts.pop()
        if part.variant_name() == "InSubquery":
            return True
        if part.variant_name() in WITHOUT_PARTS:
            continue
        try:
            parts += part.rex_call_operands()
        except Exception:  # noqa: BLE001  # the bindings' only type: what cannot be seen …
            if _SHOWN in part.canonical_name():
                return True  # … may hold one
    return False


def _expressions(node: LogicalPlan) -> Iterator[Expr]:
    """What a step judges or shows by; of other steps, a name of what they show."""
    yield from conditions(node)
    variant: Any = node.to_variant()
    match type(variant).__name__:
        case "Join":
            yield from chain.from_iterable(variant.on())
        case "Projection":
            yield from variant.projections()
        case "Filter" | "TableScan":
            return
        case _ if _SHOWN in node.display():
            raise Unimplemented(_REFUSAL)


def _is_lossy(node: LogicalPlan) -> bool:
    """Whether this is an anti join for NOT IN that has not exactly one key and nothing else."""
    if not node.display().endswith(" null_aware"):
        return False
    join: Any = node.to_variant()
    return len(join.on()) != 1 or join.filter() is not None


def _sound_inside(text: str) -> int:
    """How many INs stand soundly inside sub-queries, by a plan's text."""
    found, outer = 0, -1
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip(" "))
        if outer < 0 or depth <= outer:
            outer = depth if line.strip() == "Subquery:" else -1
        elif _SOUND.match(line) or _ALONE.match(line):
            found += line.count(_SHOWN)
    return found
