"""How a plan is computed best, seen from how much of what it reads is its answer.

Where a statement gives few rows for many, its time is spent on computing: strings are read as
views, and batches have the size that suits the processor's caches. Where it returns whole columns,
its time is spent on sending: views would be turned into plain strings again for the client (a fetch
takes a third longer), and each batch costs 100 µs of Python, so batches are large.

Measured, processor time against the same engine in-process on the same Parquet files: a web
analyst's questions about strings 1.8 to 3.7 with plain strings, 0.8 to 1.1 with views; TPC-H's Q1
1.17 with large batches, 0.96 with small ones, Q3 1.24 and 1.06.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa
from datafusion import SessionContext
from datafusion.plan import LogicalPlan

from flight_server.analysis import walk
from flight_server.contexts import BATCH_SIZE
from flight_server.sqltext import SqlText
from flight_server.top import rows_in

#: Steps whose result does not depend on which of the two a string is. All others (recursion,
#: unnesting, …) are rare, and read plain strings.
_SAME = frozenset(
    {
        *("Aggregate", "Analyze", "Distinct", "EmptyRelation", "Explain", "Filter", "Join"),
        *("Limit", "Projection", "Sort", "Subquery", "SubqueryAlias", "TableScan", "WindowExpr"),
    }
)
#: Steps that give as many rows as they take.
_THROUGH = frozenset({"Analyze", "Explain", "Projection", "Sort", "SubqueryAlias", "WindowExpr"})
#: Steps that give few rows for many.
_FEWER = frozenset({"Aggregate", "Distinct"})
#: A LIMIT up to this makes few rows: they are sent in a few batches.
_FEW_ROWS = 100_000
#: Functions that tell the two kinds of strings apart, and those (maps) that the engine fails on
#: where made strings are of the other kind than the ones that were read.
TELLING = frozenset(
    {
        *("arrow_cast", "arrow_field", "arrow_metadata", "arrow_try_cast", "arrow_typeof"),
        *("make_map", "map"),
    }
)
#: The engine's default, which suits the processor's caches.
_COMPUTING = MappingProxyType({BATCH_SIZE: "8192"})
_SENDING: Mapping[str, str] = MappingProxyType({})


def batches_for(plan: LogicalPlan) -> Mapping[str, str]:
    """The engine's settings about batches that suit an optimized plan."""
    return _COMPUTING if _gives_few(plan) else _SENDING


def may_be_views(context: SessionContext, text: SqlText, plan: LogicalPlan) -> bool:
    """Whether a statement's strings are better read as views, with the same answer.

    Args:
        context: in which the statement was planned.
        text: of the statement; a Substrait plan says which type it reads.
        plan: optimized.
    """
    if text.plan is not None or text.words & TELLING:
        return False
    if not all(_kind(node) in _SAME for node in walk(plan)):
        return False
    while _kind(plan) in {"Analyze", "Explain"}:
        [plan] = plan.inputs()
    out = context.create_dataframe_from_logical_plan(plan).schema().types
    if any(map(pa.types.is_nested, out)):  # a nested value carries its strings' type with it
        return False
    return _gives_few(plan) or not any(map(_is_text, out))


def _gives_few(plan: LogicalPlan) -> bool:
    kind = _kind(plan)
    if kind in _FEWER or _taken(plan) <= _FEW_ROWS:
        return True
    return kind in _THROUGH and _gives_few(plan.inputs()[0])


def _taken(plan: LogicalPlan) -> float:
    """How many rows this step gives at most, as far as it says."""
    variant = plan.to_variant()
    match _kind(plan):
        case "Sort":
            rows = variant.get_fetch_val()
        case "Limit":
            rows = rows_in(variant.fetch())
        case _:
            rows = None
    return float("inf") if rows is None else float(rows)


def _kind(plan: LogicalPlan) -> str:
    return type(plan.to_variant()).__name__


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_string_view(kind) or types.is_large_string(kind))
