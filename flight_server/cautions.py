"""What the engine gets wrong about plans: optimizations put aside where they would do harm.

DataFusion 55.0 pushes filters down through physical plans by the columns' bare names: where both
sides of a join have a column of one name, a filter may land on the other one, and rows are missing
without a word. Found by ``tests/differential``; each caution has a test that is red without it.

Where nothing can be put aside, the statement is refused: ``flight_server/nulls.py``.

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


def may_join(planned: LogicalPlan) -> bool:
    """Whether optimizing may leave a join: there is one, or a sub-query."""
    text = planned.display_indent()
    return " Join: " in text or "<subquery>" in text


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
