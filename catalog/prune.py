"""Which data files may hold rows that a statement's filters let through.

Pure Arrow kernels over the bounds in ``Lake.entries``. Conservative throughout: a file is dropped
only where its bounds *prove* that no row passes; an unknown bound, an expression of another shape,
a floating column (NaN sorts above every bound) keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

#: An expression of DataFusion (``datafusion.expr.Expr``): the library has no types of its own.
Expr = Any
#: A pa.BooleanArray, one per file, true: rows may pass; None: nothing is known.
Mask = Any

#: A longer IN list is compared by its least and greatest value only.
_LONG_LIST = 64
#: The nested columns of the entries that only pruning looks at.
_BOUNDS = ["lower", "upper", "null_count"]
_MIRRORED = MappingProxyType({"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="})


def surviving(entries: pa.Table, scans: Sequence[Sequence[Expr]]) -> pa.Table:
    """The entries that at least one of the statement's scans of the table needs.

    Args:
        entries: as ``Lake.entries`` gives them.
        scans: per reference to the table its pushed filters, all of which must hold. A reference
            without filters needs every file; no reference at all needs none.

    Returns:
        The rows of ``entries`` that stay, in their order; their bounds may be left out.
    """
    if entries.num_rows == 0 or not scans:
        return entries.slice(0, 0)
    files = _Files(entries)
    masks = [files.all_of(filters) for filters in scans]
    known = [mask for mask in masks if mask is not None]
    if len(known) < len(masks):
        return entries
    keep = known[0]
    for mask in known[1:]:
        keep = pc.or_(keep, mask)
    # Two dozen columns that nobody asks for again would be most of the filter's time.
    return entries if pc.all(keep).as_py() else entries.drop_columns(_BOUNDS).filter(keep)


class _Bounds:
    """Lower and upper bound of one column per file, and where every value is null."""

    def __init__(self, lower: pa.Array, upper: pa.Array, all_null: pa.BooleanArray) -> None:
        self.lower = lower
        self.upper = upper
        self.all_null = all_null

    def cast(self, kind: pa.DataType) -> _Bounds | None:
        """The bounds of ``CAST(column AS kind)`` where that keeps the order; else None."""
        if self.lower.type == kind:
            return self
        if not _keeps_order(self.lower.type, kind):
            return None
        return _Bounds(self.lower.cast(kind), self.upper.cast(kind), self.all_null)


def _keeps_order(source: pa.DataType, target: pa.DataType) -> bool:
    to_day = pa.types.is_timestamp(source) and target == pa.date32()
    whole = pa.types.is_integer(source) or pa.types.is_decimal(source)
    return bool(to_day or (whole and (pa.types.is_decimal(target) or target == pa.int64())))


class _Files:
    """The entries of one table, asked expression by expression."""

    def __init__(self, entries: pa.Table) -> None:
        self._rows = entries["record_count"].combine_chunks()
        self._structs = {
            name: entries[name].combine_chunks() for name in ("lower", "upper", "null_count")
        }

    def all_of(self, filters: Sequence[Expr]) -> Mask:
        """Files that may hold a row for which all filters hold."""
        masks = [mask for each in filters if (mask := self.may_match(each)) is not None]
        keep: Mask = None
        for mask in masks:
            keep = mask if keep is None else pc.and_(keep, mask)
        return keep

    def may_match(self, expr: Expr) -> Mask:
        """Files that may hold a row for which ``expr`` is true."""
        try:
            variant = expr.to_variant()
        except (ValueError, TypeError):  # a shape that the Python API does not show
            return None
        rule = _RULES.get(type(variant).__name__)
        try:
            return None if rule is None else rule(self, variant)
        except (NotImplementedError, ValueError, TypeError):
            # No kernel, a literal beyond the column's type, an operand of another shape (Arrow's
            # own errors are of these classes): nothing is proved.
            return None

    def bounds(self, expr: Expr) -> _Bounds | None:
        """The bounds of a column, or of a cast column."""
        variant = expr.to_variant()
        if type(variant).__name__ in {"Cast", "TryCast"}:
            return self.bounds(variant.expr())
        if type(variant).__name__ != "Column":
            return None
        name = variant.name()
        position = self._structs["lower"].type.get_field_index(name)
        if position < 0 or pa.types.is_floating(self._structs["lower"].type.field(position).type):
            return None
        all_null = pc.fill_null(pc.equal(self.nulls(name), self._rows), fill_value=False)
        lower, upper = (self._structs[which].field(position) for which in ("lower", "upper"))
        return _Bounds(lower, upper, all_null)

    def nulls(self, name: str) -> pa.Array:
        """Nulls of a column per file; null: unknown."""
        position = self._structs["null_count"].type.get_field_index(name)
        if position < 0:
            return pa.nulls(len(self._rows), pa.int64())
        return self._structs["null_count"].field(position)

    def compare(self, bounds: _Bounds, op: str, value: pa.Scalar) -> Mask:
        """Files that may hold a row for which ``column op value`` is true."""
        same = bounds.cast(value.type)
        if same is None or not value.is_valid:
            return None
        proofs = _COMPARISONS[op](same, value)
        keep = pc.fill_null(proofs, fill_value=True)
        return pc.and_not(keep, same.all_null)

    def binary(self, node: Any) -> Mask:
        op, left, right = node.op(), node.left(), node.right()
        if op in {"AND", "OR"}:
            masks = self.may_match(left), self.may_match(right)
            return _AND_OR[op](*masks)
        literal = right
        if type(left.to_variant()).__name__ == "Literal":
            left, literal, op = right, left, _MIRRORED.get(op, "")
        if op not in _COMPARISONS or type(literal.to_variant()).__name__ != "Literal":
            return None
        bounds = self.bounds(left)
        return None if bounds is None else self.compare(bounds, op, _scalar(literal))

    def in_list(self, node: Any) -> Mask:
        bounds, items = self.bounds(node.expr()), node.list()
        literals = [each for each in items if type(each.to_variant()).__name__ == "Literal"]
        if bounds is None or node.negated() or len(literals) != len(items):
            return None
        values = [value for each in literals if (value := _scalar(each)).is_valid]
        if not values:
            return None
        if len(values) > _LONG_LIST:
            extremes = pc.min_max(pa.array([v.as_py() for v in values], values[0].type))
            return _AND_OR["AND"](
                self.compare(bounds, ">=", extremes["min"]),
                self.compare(bounds, "<=", extremes["max"]),
            )
        keep: Mask = None
        for i, value in enumerate(values):
            mask = self.compare(bounds, "=", value)
            keep = mask if i == 0 else _AND_OR["OR"](keep, mask)
        return keep

    def like(self, node: Any) -> Mask:
        """``column LIKE 'prefix%…'``: what lies outside the prefix's range cannot match."""
        bounds = self.bounds(node.expr())
        if bounds is None or node.negated() or node.escape_char() is not None:
            return None
        pattern = _scalar(node.pattern()).as_py()
        if not isinstance(pattern, str) or not pa.types.is_string(bounds.lower.type):
            return None
        prefix = pattern.replace("_", "%").replace("\\", "%").partition("%")[0]
        if not prefix:
            return None
        start = pc.utf8_slice_codeunits(bounds.lower, 0, len(prefix))
        keep = pc.and_(pc.less_equal(start, prefix), pc.greater_equal(bounds.upper, prefix))
        return pc.and_not(pc.fill_null(keep, fill_value=True), bounds.all_null)

    def is_null(self, node: Any) -> Mask:
        variant = node.expr().to_variant()
        if type(variant).__name__ != "Column":
            return None
        return pc.fill_null(pc.not_equal(self.nulls(variant.name()), 0), fill_value=True)

    def is_not_null(self, node: Any) -> Mask:
        variant = node.expr().to_variant()
        if type(variant).__name__ != "Column":
            return None
        return pc.fill_null(pc.not_equal(self.nulls(variant.name()), self._rows), fill_value=True)


def _scalar(literal: Expr) -> pa.Scalar:
    value = literal.python_value()
    return value if isinstance(value, pa.Scalar) else pa.scalar(value)


def _both(left: Mask, right: Mask) -> Mask:
    if left is None or right is None:
        return left if right is None else right
    return pc.and_(left, right)


def _either(left: Mask, right: Mask) -> Mask:
    return None if left is None or right is None else pc.or_(left, right)


_AND_OR: Mapping[str, Callable[[Mask, Mask], Mask]] = MappingProxyType(
    {"AND": _both, "OR": _either}
)

#: Operator → true where ``[lower, upper]`` leaves room for a match. Truncated bounds enclose, so
#: "lower = upper = value" proves that every value is that value.
_COMPARISONS: Mapping[str, Callable[[_Bounds, pa.Scalar], pa.BooleanArray]] = MappingProxyType(
    {
        "=": lambda b, v: pc.and_kleene(pc.less_equal(b.lower, v), pc.greater_equal(b.upper, v)),
        "!=": lambda b, v: pc.invert(pc.and_kleene(pc.equal(b.lower, v), pc.equal(b.upper, v))),
        "<": lambda b, v: pc.less(b.lower, v),
        "<=": lambda b, v: pc.less_equal(b.lower, v),
        ">": lambda b, v: pc.greater(b.upper, v),
        ">=": lambda b, v: pc.greater_equal(b.upper, v),
    }
)

_RULES: Mapping[str, Callable[[_Files, Any], Mask]] = MappingProxyType(
    {
        "BinaryExpr": _Files.binary,
        "InList": _Files.in_list,
        "Like": _Files.like,
        "IsNull": _Files.is_null,
        "IsNotNull": _Files.is_not_null,
    }
)
