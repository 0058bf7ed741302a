"""What the engine gets wrong about plans: optimizations put aside where they would do harm.

DataFusion 55.0 pushes filters down through physical plans by the columns' bare names: where both
sides of a join have a column of one name, a filter may land on the other one, and rows are missing
without a word. Found by ``tests/differential``; each caution has a test that is red without it.

Where nothing can be put aside, the statement is refused: :func:`require_nulls_kept`.

Source: apache/datafusion issues 25244, 25262, 25263, 25264 and 25296 (dynamic filters);
``tests/test_cautions.py`` for everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa
from datafusion import DataFrame, SessionContext
from datafusion.plan import LogicalPlan

from flight_server.analysis import walk
from flight_server.contexts import WITHOUT
from flight_server.protocol.errors import Unimplemented

#: A filter above a right join is pushed to the side that keeps its rows, through a union (which
#: every table with a tail is), even where it names columns of both. Merge joins push nothing, but
#: mistake columns in further conditions of an outer join's ON.
_RIGHT = MappingProxyType({"datafusion.optimizer.prefer_hash_join": "false"})
#: The filter that a join makes of its keys while it runs is pushed through another join, or an
#: aggregate over one, to the first column of that name.
_CHAINED = MappingProxyType({"datafusion.optimizer.enable_join_dynamic_filter_pushdown": "false"})
#: Joins are made flat, with the conditions around them, and IS NOT DISTINCT FROM becomes =.
_FLAT = MappingProxyType({WITHOUT: "eliminate_cross_join"})
#: A join by IS NOT DISTINCT FROM takes a key from the equalities around it, and null equals null
#: there, too. Without keys of its own it is found by those equalities, or pair by pair.
_KEYLESS = MappingProxyType({WITHOUT: "extract_equijoin_predicate"})
#: A filter with one value of a sub-query stays above a join, and is pushed down as ``_RIGHT`` says.
_VALUES = MappingProxyType(
    {"datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery": "false"}
)
#: The first of some groups are kept in a heap that fails on a NaN.
_HEAP = MappingProxyType({"datafusion.optimizer.enable_topk_aggregation": "false"})

#: An anti join that keeps nulls in mind is right with one key and no further condition.
_ANTI = re.compile(r"LeftAnti Join: (?!(?:(?! = |Filter:).)+ = (?:(?! = |Filter:).)+ null_aware)")
#: What asks of ``x IN (SELECT …)`` whether it is false, rather than whether it is true: the engine
#: makes a mark of it, which is never null. Plans are written without some of their brackets.
_ASKED = re.compile(
    r"NOT IN \(<subquery>\)|(?<!IS )\bNOT (?!EXISTS|I?LIKE|BETWEEN|SIMILAR|IN )|\bCASE\b"
    r"|\bIN \(<subquery>\)\)* (?!AND\b|OR\b)|\w\([^()]*\bIN \(<subquery>\)|\bIS (?:NOT )?\w+"
)
#: What the optimizer answers before there is a join: a mark, it says, is never null.
_FOLDED = re.compile(r"\bIN \(<subquery>\)\)* IS ")
#: A column's own IS NULL beside it is no such question.
_PLAIN_NULLS = re.compile(r"(Filter: |\bAND |\bOR )(\(?)[\w.\"]+ IS (?:NOT )?NULL")

_CONDITION = re.compile(r"^\s*(?!Inner)\w+ Join: .* Filter: ", re.MULTILINE)
_FILTER = re.compile(r"^\s*Filter: ", re.MULTILINE)
_VALUE_FILTER = re.compile(r"^\s*Filter: .*\(<subquery>\)", re.MULTILINE)
_KEYS = re.compile(r" Join: .+ = .+, .+ = ")
_TOP = re.compile(r"^\s*Sort: .+ fetch=", re.MULTILINE)


def cautions(context: SessionContext, planned: LogicalPlan, plan: LogicalPlan) -> Mapping[str, str]:
    """The engine's settings under which a statement is answered right; mostly none.

    Args:
        context: the plans'.
        planned: as the statement says it.
        plan: the same, optimized.

    Raises:
        Unimplemented: a right join that neither way of joining gets right.
    """
    text = plan.display_indent()
    joins = text.count(" Join: ")
    found: dict[str, str] = {}
    if "Right Join: " in text and _FILTER.search(text):
        found |= _RIGHT
    if joins and _VALUE_FILTER.search(text):
        found |= _VALUES
    if joins > 1:
        found |= _CHAINED
    if found and not any(_names_twice(context, node) for node in walk(plan)):
        found = {}
    if _RIGHT.items() <= found.items() and _CONDITION.search(text):
        raise Unimplemented(
            "a filter above this RIGHT JOIN would be misread: write b LEFT JOIN a for"
            " a RIGHT JOIN b, or keep conditions other than equalities out of its ON"
        )
    said = planned.display_indent() if joins else ""
    if " IS NOT DISTINCT FROM " in said:
        mixed = " = " in said and (joins > 1 or _KEYS.search(text))
        found |= _KEYLESS if mixed else _FLAT
    if _TOP.search(text) and any(_groups_floats(context, node) for node in walk(plan)):
        found |= _HEAP
    return found


def require_nulls_kept(planned: LogicalPlan, plan: LogicalPlan) -> None:
    """Refuses sub-queries behind IN whose nulls the engine would lose.

    Args:
        planned: as the statement says it.
        plan: the same, optimized.

    Raises:
        Unimplemented: NOT IN with a constant on its left, or over a sub-query that refers to what
            is outside; IN below NOT, CASE, IS NULL and the like.
    """
    said = [line for line in planned.display_indent().split("\n") if "IN (<subquery>)" in line]
    if not said:
        return
    text = plan.display_indent()
    asked = _ASKED if "LeftMark Join" in text else _FOLDED
    if any(asked.search(_PLAIN_NULLS.sub(r"\1\2", line)) for line in said) or any(
        "null_aware" in line and _ANTI.search(line) for line in text.split("\n")
    ):
        raise Unimplemented(
            "whether this IN over a sub-query is false or null would be lost: write NOT EXISTS"
            " (SELECT 1 FROM … WHERE b.x = a.x), or IN only as a condition that has to be true"
        )


def real_schema(
    context: SessionContext, frame: DataFrame, optimized: LogicalPlan | None
) -> pa.Schema:
    """The rows' schema, with the types that they really have.

    Until a plan is analysed, the type of a CASE is that of its first branch (55.0).
    """
    planned = frame.schema()
    if optimized is None:
        return planned
    real = context.create_dataframe_from_logical_plan(optimized).schema()
    typed = zip(planned, real.types, strict=True)
    return pa.schema([field.with_type(kind) for field, kind in typed])


def _groups_floats(context: SessionContext, node: LogicalPlan) -> bool:
    """Whether this makes groups, of floating numbers among others."""
    if not node.display().startswith("Aggregate: "):
        return False
    return any(
        map(pa.types.is_floating, context.create_dataframe_from_logical_plan(node).schema().types)
    )


def _names_twice(context: SessionContext, node: LogicalPlan) -> bool:
    """Whether this is a join of two sides that share a column's name."""
    sides = node.inputs()
    if len(sides) != 2 or " Join: " not in node.display():  # noqa: PLR2004 - a join has two
        return False
    left, right = (
        set(context.create_dataframe_from_logical_plan(side).schema().names) for side in sides
    )
    return not left.isdisjoint(right)
