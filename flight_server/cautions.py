"""What the engine gets wrong about plans: optimizations put aside where they would do harm.

DataFusion 55.0 pushes filters down through physical plans by the columns' bare names: where both
sides of a join have a column of one name, a filter may land on the other one, and rows are missing
without a word. Found by ``tests/differential``; each caution has a test that is red without it.

Source: apache/datafusion issues 25244, 25262, 25263, 25264 and 25296 (dynamic filters);
``tests/test_cautions.py`` for filters above right joins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa
from datafusion import DataFrame, SessionContext
from datafusion.plan import LogicalPlan

from flight_server.analysis import walk

#: A filter above a right join is pushed to the side that keeps its rows, through a union (which
#: every table with a tail is), even where it names columns of both. Merge joins push nothing.
_RIGHT = MappingProxyType({"datafusion.optimizer.prefer_hash_join": "false"})
#: The filter that a join makes of its keys while it runs is pushed through another join, or an
#: aggregate over one, to the first column of that name.
_CHAINED = MappingProxyType({"datafusion.optimizer.enable_join_dynamic_filter_pushdown": "false"})

_FILTER = re.compile(r"^\s*Filter: ", re.MULTILINE)


def cautions(context: SessionContext, plan: LogicalPlan) -> Mapping[str, str]:
    """The engine's settings under which this optimized plan is answered right; mostly none."""
    text = plan.display_indent()
    joins = text.count(" Join: ")
    found: dict[str, str] = {}
    if "Right Join: " in text and _FILTER.search(text):
        found |= _RIGHT
    if joins > 1:
        found |= _CHAINED
    return found if found and any(_names_twice(context, node) for node in walk(plan)) else {}


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


def _names_twice(context: SessionContext, node: LogicalPlan) -> bool:
    """Whether this is a join of two sides that share a column's name."""
    sides = node.inputs()
    if len(sides) != 2 or " Join: " not in node.display():  # noqa: PLR2004 - a join has two
        return False
    left, right = (
        set(context.create_dataframe_from_logical_plan(side).schema().names) for side in sides
    )
    return not left.isdisjoint(right)
