"""``count(*)``, and count, min and max of columns, answered from what is known of whole tables.

Exact, or not given: the manifests count rows and nulls of every file, and bound integers, dates and
timestamps by values that are in the file; live rows are counted as they are. The cut between the
two is a slice, so both add up. Where a delete touches a file, a statistic is missing, or a bound
need not be a value (text is cut, floats have NaN, decimals were once ordered otherwise), the engine
computes.

Source: Iceberg, "Manifests" (record_count, null_value_counts, lower_bounds, upper_bounds); Spark
answers the same from them (``AggregateEvaluator`` of Iceberg's API).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from datafusion.plan import LogicalPlan

from flight_server.top import rows_in, shown

#: ``count(*)`` in an optimized plan.
_ALL_ROWS = "count(Int64(1))"


@dataclass(frozen=True, slots=True)
class Fact:
    """One aggregate over all rows of a table; ``column``: of which, None: count(*)."""

    kind: Literal["count", "min", "max"]
    column: str | None = None


def facts_of(plan: LogicalPlan) -> tuple[Fact, ...] | None:
    """What an optimized plan gives, if that is one row of facts; None: it is more than that."""
    given: list[str] | None = None
    while (kind := _kind(plan)) != "Aggregate":
        variant = plan.to_variant()
        if kind == "Projection" and given is None:
            names = [_named(each) for each in variant.projections()]
            given = [name for name in names if name is not None]
            if len(given) < len(names):
                return None
        elif kind != "Limit" or not _keeps_the_first(variant):
            return None
        [plan] = plan.inputs()
    found = _aggregates(plan)
    if found is None or not _is_whole(plan.inputs()[0]):
        return None
    wanted = found if given is None else given
    return tuple(found[name] for name in wanted) if found.keys() >= set(wanted) else None


def _kind(plan: LogicalPlan) -> str:
    return type(plan.to_variant()).__name__


def _named(expr: Any) -> str | None:
    """The column that is given, under whatever name; None: it is computed with."""
    variant = shown(expr)
    while type(variant).__name__ == "Alias":
        variant = shown(variant.expr())
    return variant.name() if type(variant).__name__ == "Column" else None


def _keeps_the_first(limit: Any) -> bool:
    return rows_in(limit.skip()) == 0 and (rows_in(limit.fetch()) or 0) > 0


def _aggregates(plan: LogicalPlan) -> dict[str, Fact] | None:
    """The facts that an aggregate over all rows gives, by the names of its columns."""
    variant: Any = plan.to_variant()
    if variant.group_by_exprs():
        return None
    facts = {each.schema_name(): _fact(each) for each in variant.aggregate_exprs()}
    known = {name: fact for name, fact in facts.items() if fact is not None}
    return known if len(known) == len(facts) else None


def _fact(expr: Any) -> Fact | None:
    """The fact that an aggregate is; its text tells of DISTINCT, FILTER and ORDER BY."""
    if (text := expr.canonical_name()) == _ALL_ROWS:
        return Fact("count")
    variant = shown(expr)
    if type(variant).__name__ != "AggregateFunction" or len(variant.args()) != 1:
        return None
    [of], kind = variant.args(), variant.aggregate_type()
    column = shown(of)
    if type(column).__name__ != "Column" or text != f"{kind}({of.canonical_name()})":
        return None
    return Fact(kind, column.name()) if kind in {"count", "min", "max"} else None


def _is_whole(plan: LogicalPlan) -> bool:
    """Whether this is all of a table's rows, in its own columns."""
    while _kind(plan) == "SubqueryAlias":
        [plan] = plan.inputs()
    variant: Any = plan.to_variant()
    is_scan = type(variant).__name__ == "TableScan"
    return is_scan and not variant.filters() and variant.fetch() is None


def known(
    facts: Sequence[Fact], entries: pa.Table, live: Sequence[pa.RecordBatch], schema: pa.Schema
) -> pa.RecordBatch | None:
    """The facts of these files and live rows together, as one row; None: not all are known.

    Args:
        facts: in the order of the row's columns.
        entries: as ``Lake.entries`` gives them.
        live: live rows.
        schema: of the row.
    """
    if not pc.all(_are_plain(entries), min_count=0).as_py():
        return None
    values = []
    for fact, field in zip(facts, schema, strict=True):
        value = (_counted if fact.kind == "count" else _end)(fact, entries, live)
        if value is None:
            return None
        values.append(pa.repeat(value.cast(field.type), 1))
    return pa.RecordBatch.from_arrays(values, schema=schema)


def _are_plain(entries: pa.Table) -> pa.ChunkedArray:
    """Per file whether its rows are what the manifest says, and nothing else."""
    whole = pc.equal(pc.list_value_length(entries["deletes"]), 0)
    readable = pc.equal(entries["file_format"], "parquet")  # others are refused, also here
    return pc.and_(pc.and_(whole, readable), pc.invert(entries["partial"]))


def _counted(fact: Fact, entries: pa.Table, live: Sequence[pa.RecordBatch]) -> pa.Scalar | None:
    rows = pc.sum(entries["record_count"], min_count=0).as_py()
    rows += sum(batch.num_rows for batch in live)
    if fact.column is None:
        return pa.scalar(rows)
    nulls = _of(entries, "null_count", fact.column)
    if nulls is None or nulls.null_count:
        return None
    inside = pc.sum(nulls, min_count=0).as_py()
    return pa.scalar(rows - inside - sum(batch.column(fact.column).null_count for batch in live))


def _end(fact: Fact, entries: pa.Table, live: Sequence[pa.RecordBatch]) -> pa.Scalar | None:
    """The least or the greatest value; a null scalar where all are null."""
    assert fact.column is not None  # noqa: S101  # only count has none
    bounds = _of(entries, "lower" if fact.kind == "min" else "upper", fact.column)
    if bounds is None or not _is_bounded_by_values(bounds.type):
        return None
    nulls = _of(entries, "null_count", fact.column)
    empty = pc.fill_null(pc.equal(nulls, entries["record_count"]), fill_value=False)
    if not pc.all(pc.or_(pc.is_valid(bounds), empty), min_count=0).as_py():
        return None
    ends = [pc.min_max(batch.column(fact.column))[fact.kind] for batch in live]
    every = pa.chunked_array([bounds, *(pa.repeat(end, 1) for end in ends)], bounds.type)
    return pc.min_max(every)[fact.kind]


def _of(entries: pa.Table, statistic: str, column: str) -> pa.Array | None:
    """A statistic of a column; None: there are none of it."""
    found = entries[statistic].combine_chunks()
    place = found.type.get_field_index(column)
    return None if place < 0 else pc.struct_field(found, place)


def _is_bounded_by_values(kind: pa.DataType) -> bool:
    """Types whose bounds are the least and the greatest value, as every writer gives them."""
    types = pa.types
    return bool(types.is_integer(kind) or types.is_timestamp(kind) or types.is_date(kind))
