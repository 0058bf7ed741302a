"""``LIMIT n``, and the first ``n`` rows by a column: which files and live rows can matter.

Exact: a piece is left out only where the pieces that stay are known to hold ``n`` rows that come
before each of its rows. Equal values, nulls, deleted rows and unknown bounds keep a piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion.plan import LogicalPlan
from numpy.typing import NDArray

from catalog.zones import Zones

#: Steps above a scan that neither drop a row nor look at more than one.
_ROW_FOR_ROW = frozenset({"Analyze", "Explain", "Limit", "Projection", "SubqueryAlias"})
#: A statement that wants more rows than this reads most of its pieces anyway.
_MAX_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Top:
    """How many rows a statement takes of a scan that nothing filters.

    Attributes:
        rows: how many, those that an OFFSET passes over included.
        column: the first that they are ordered by; None: any rows will do.
        descending: the greatest values come first.
        nulls_first: nulls come before all values.
    """

    rows: int
    column: str | None = None
    descending: bool = False
    nulls_first: bool = False


def top_of(plan: LogicalPlan) -> Top | None:
    """What an optimized plan takes of its one scan; None: it may need any of the rows."""
    ordered: Top | None = None
    variant: Any = plan.to_variant()
    while (kind := type(variant).__name__) != "TableScan":
        if kind == "Sort":
            ordered = None if ordered else _ordered(variant)
            if ordered is None:
                return None
        elif kind not in _ROW_FOR_ROW or (ordered and not _passes(variant, ordered)):
            return None
        [plan] = plan.inputs()
        variant = plan.to_variant()
    if variant.filters() or (ordered and variant.fetch() is not None):
        return None
    found = ordered or (None if variant.fetch() is None else Top(variant.fetch()))
    return found if found and 0 < found.rows <= _MAX_ROWS else None


def takes_all(plan: LogicalPlan) -> bool:
    """Whether an optimized plan takes all rows of its scans, in any order; of groups, it may sort.

    Its scans may have many partitions: a step that sorts rows keeps memory for each, and one that
    takes the first rows would look for them in each.
    """
    steps = [(plan, False)]
    while steps:
        step, in_order = steps.pop()
        variant: Any = step.to_variant()
        match type(variant).__name__:
            case "Limit" | "Sort" | "WindowExpr":
                in_order = True
            case "Aggregate":
                in_order = False
            case "TableScan" if in_order or variant.fetch() is not None:
                return False
        steps += [(each, in_order) for each in step.inputs()]
    return True


def _ordered(sort: Any) -> Top | None:
    rows, first = sort.get_fetch_val(), sort.sort_exprs()[0]
    by = shown(first.expr())
    if rows is None or type(by).__name__ != "Column":
        return None
    return Top(rows, by.name(), not first.ascending(), first.nulls_first())


def shown(expr: Any) -> Any:
    """An expression as the engine's Python API shows it; None: it does not (most functions)."""
    try:
        return expr.to_variant()
    except (NotImplementedError, TypeError, ValueError):
        return None


def rows_in(expr: Any) -> int | None:
    """The number in a LIMIT or an OFFSET; None: there is none, or it is not planned yet."""
    if expr is None or type(shown(expr)).__name__ != "Literal":
        return None
    return int(expr.python_value().as_py())


def _passes(below: Any, ordered: Top) -> bool:
    """Whether a step below the sort gives it all rows, and the scan's own column by its name."""
    if type(below).__name__ != "Projection":
        return type(below).__name__ != "Limit"
    columns = [(type(each).__name__, each) for each in map(shown, below.projections())]
    renamed = any(kind == "Alias" and each.alias() == ordered.column for kind, each in columns)
    there = any(kind == "Column" and each.name() == ordered.column for kind, each in columns)
    return there and not renamed


def narrowed(
    entries: pa.Table, live: Sequence[pa.RecordBatch], top: Top
) -> tuple[pa.Table, tuple[pa.RecordBatch, ...]]:
    """The files and live batches that can matter, in their order.

    Args:
        entries: as ``Lake.entries`` gives them.
        live: the live rows.
        top: what is taken of all of them together.
    """
    zones = Zones(live)
    by_place = top.column is None
    keep = _first(entries, zones, top.rows) if by_place else _within(entries, zones, top)
    if keep is None or keep.all():
        return entries, tuple(live)
    files = keep[: entries.num_rows]
    return entries.filter(pa.array(files)), zones.kept(keep[entries.num_rows :])


def _first(entries: pa.Table, zones: Zones, rows: int) -> NDArray[np.bool_]:
    """The newest pieces that hold ``rows`` together: live ones from the last, then files."""
    live = len(zones.rows)
    counts = np.concatenate([zones.rows[::-1], _undeleted(entries)])
    keep = np.cumsum(counts) - counts < rows
    return np.concatenate([keep[live:], keep[:live][::-1]])


def _within(entries: pa.Table, zones: Zones, top: Top) -> NDArray[np.bool_] | None:
    """Pieces that reach up to the value that enough rows are known to reach; None: all."""
    lower = entries["lower"].combine_chunks()
    place = lower.type.get_field_index(top.column)
    if place < 0 or not _is_ordered(lower.type.field(place).type):
        return None
    least, most, nulls = (
        _of_pieces(entries, zones, which, str(top.column))
        for which in ("lower", "upper", "null_count")
    )
    nulls = np.asarray(pc.fill_null(nulls, fill_value=-1))
    sure = np.where(nulls < 0, 0, np.concatenate([_undeleted(entries), zones.rows]) - nulls)
    worst, best = (least, most) if top.descending else (most, least)
    direction = "descending" if top.descending else "ascending"
    order = pc.array_sort_indices(worst, order=direction)  # unknown ones come last
    order = order.filter(pc.is_valid(worst.take(order)))
    reached = np.cumsum(sure[np.asarray(order)])
    at = int(np.searchsorted(reached, top.rows))
    if at == len(reached):
        return None
    limit = worst[order[at].as_py()]
    reaches = pc.greater_equal(best, limit) if top.descending else pc.less_equal(best, limit)
    keep = np.asarray(pc.fill_null(reaches, fill_value=True))
    return keep | (nulls != 0) if top.nulls_first else keep


def _of_pieces(entries: pa.Table, zones: Zones, which: str, column: str) -> pa.Array:
    """What is known of a column, first of files, then of live rows."""
    files = pc.struct_field(entries[which].combine_chunks(), column)
    live = zones.field(which, column) if len(zones.rows) else None
    return files if live is None else pa.concat_arrays([files, live])


def _undeleted(entries: pa.Table) -> NDArray[np.int64]:
    """Rows that a file is known to give at least."""
    touched = pc.greater(pc.list_value_length(entries["deletes"]), 0)
    some = pc.or_(pc.fill_null(touched, fill_value=False), entries["partial"])
    return np.asarray(pc.if_else(some, 0, entries["record_count"]), np.int64)


def _is_ordered(kind: pa.DataType) -> bool:
    """Types whose bounds order as the engine orders values, and that are quick to look at."""
    types = pa.types
    dates = types.is_timestamp(kind) or types.is_date(kind)
    return bool(types.is_integer(kind) or types.is_decimal(kind) or dates)
