"""Which data files, or runs of live rows, may hold rows that a statement's filters let through.

Pure Arrow kernels over bounds, those in ``Lake.entries`` say. A condition is asked what it *may* be
for some row of a piece: true, false, null. So NOT, OR and IS TRUE need no rules of their own.
Everything is conservative: a piece is dropped only where its bounds prove that no row passes; an
unknown bound or an expression of another shape proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.buckets import bucket_of
from catalog.outcomes import COMPARISONS, CONNECTIVES, Bits, Outcome, first_at_least, or_true
from catalog.recasts import Range, intersection, recast

#: An expression of DataFusion (``datafusion.expr.Expr``): the library has no types of its own.
Expr = Any

#: The nested columns of the entries that only pruning looks at.
_BOUNDS = ("lower", "upper", "null_count")
_PARTITIONS = ("partition_lower", "partition_upper", "partition_null", "buckets")
_MIRRORED = MappingProxyType({"<": ">", "<=": ">=", ">": "<", ">=": "<="})
_DISTINCT = MappingProxyType({"IS DISTINCT FROM": False, "IS NOT DISTINCT FROM": True})
#: What the engine calls types that keep order, inside a cast within a cast.
_TYPES = MappingProxyType(
    {"Int32": pa.int32(), "Int64": pa.int64(), "Float64": pa.float64(), "Date32": pa.date32()}
)


class Bounds(Protocol):
    """What is known of the rows of some pieces; an array has one value for each of them."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """How many there are."""

    @property
    def buckets(self) -> pa.StructArray | None:
        """Per bucket transform that values of a column are in which bucket."""

    def field(self, which: str, column: str) -> pa.Array | None:
        """A column's ``lower`` or ``upper`` bounds, its ``null_count``, or what partitions say."""


def needed(pieces: Bounds, scans: Sequence[Sequence[Expr]]) -> Bits:
    """The pieces that at least one of the scans needs: for one of them all its filters may hold."""
    asked = _Pieces(pieces)
    keep = np.zeros(len(pieces.rows), bool)
    for filters in scans:
        every = np.ones_like(keep)
        keep |= np.logical_and.reduce([every, *(asked.may_be(each).true for each in filters)])
    return keep


def surviving(entries: pa.Table, scans: Sequence[Sequence[Expr]]) -> pa.Table:
    """The entries that at least one of the statement's scans of the table needs.

    Args:
        entries: as ``Lake.entries`` gives them; what is known of partitions may be left out.
        scans: per reference to the table its pushed filters, all of which must hold. A reference
            without filters needs every file; no reference at all needs none.

    Returns:
        The rows of ``entries`` that stay, in their order; their bounds may be left out.
    """
    if entries.num_rows == 0 or not scans:
        return entries.slice(0, 0)
    if not all(scans):
        return entries
    keep = needed(_Entries(entries), scans)
    if keep.all():
        return entries
    # Two dozen columns that nobody asks for again would be most of the filter's time.
    unasked = [name for name in (*_BOUNDS, *_PARTITIONS) if name in entries.column_names]
    return entries.drop_columns(unasked).filter(pa.array(keep))


@dataclass(frozen=True, slots=True)
class _Column:
    """A column, or what order-preserving casts make of it.

    Attributes:
        range: where its values lie; None: unknown.
        some: whether it may have values that are not null.
        null: whether it may have nulls.
        name: None: it was cast.
    """

    range: Range | None
    some: Bits
    null: Bits
    name: str | None = None

    def either(self) -> Outcome:
        """What any condition may be that is null for nulls only."""
        return Outcome(self.some, self.some, self.null)


class _Entries:
    """The bounds in the entries of one table's files."""

    def __init__(self, entries: pa.Table) -> None:
        self.rows = np.asarray(entries["record_count"])
        self._structs: dict[str, pa.StructArray] = {
            name: _whole(entries[name])
            for name in (*_BOUNDS, *_PARTITIONS)
            if name in entries.column_names
        }

    @property
    def buckets(self) -> pa.StructArray | None:
        return self._structs.get("buckets")

    def field(self, which: str, column: str) -> pa.Array | None:
        found = self._structs.get(which)
        if found is None:
            return None
        position = found.type.get_field_index(column)
        return None if position < 0 else found.field(position)


class _Pieces:
    """Some pieces, asked expression by expression."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._rows = bounds.rows

    def may_be(self, expr: Expr) -> Outcome:
        """What a condition may be for some row of each piece."""
        try:
            variant = expr.to_variant()
            rule = _RULES.get(type(variant).__name__)
            return self.unknown() if rule is None else rule(self, expr, variant)
        except (NotImplementedError, ValueError, TypeError):
            # A shape that the Python API does not show, no kernel, a literal beyond the column's
            # type (Arrow's own errors are of these classes): nothing is proved.
            return self.unknown()

    def unknown(self) -> Outcome:
        """Anything may be."""
        every = np.ones(len(self._rows), bool)
        return Outcome(every, every, every)

    def column(self, expr: Expr, kind: pa.DataType | None = None) -> _Column | None:
        """A column, cast or not; None: something else.

        Args:
            expr: what is compared.
            kind: the type of what it is compared with, which is that of the outermost cast.
        """
        variant = expr.to_variant()
        shape = type(variant).__name__
        if shape == "Column":
            return self._named(variant.name())
        if shape not in {"Cast", "TryCast"}:
            return None
        inner = self.column(variant.expr(), _cast_type(variant.expr()))
        target = kind or _cast_type(expr)
        if inner is None or inner.range is None or target is None:
            return None
        null = inner.null if shape == "Cast" else np.ones_like(inner.null)
        return _Column(recast(inner.range, target), inner.some, null)

    def _named(self, name: str) -> _Column:
        counts = self._bounds.field("null_count", name)
        known = np.asarray(pc.fill_null(counts, -1)) if counts is not None else -1
        some, null = self._rows != known, np.broadcast_to(known != 0, self._rows.shape)
        if (nothing := self._bounds.field("partition_null", name)) is not None:
            some = some & ~np.asarray(pc.fill_null(nothing, fill_value=False), bool)
            null = null & np.asarray(pc.fill_null(nothing, fill_value=True), bool)
        return _Column(self._range(name), some, null, name)

    def _range(self, name: str) -> Range | None:
        lower, upper = self._bounds.field("lower", name), self._bounds.field("upper", name)
        if lower is None or upper is None:
            return None
        found = Range(lower, upper)
        least, most = (
            self._bounds.field("partition_lower", name),
            self._bounds.field("partition_upper", name),
        )
        return found if least is None or most is None else intersection(found, Range(least, most))

    # --- rules ----------------------------------------------------------------------------------

    def binary(self, _: Expr, node: Any) -> Outcome:
        """AND, OR, and comparisons of a column with a literal."""
        op, left, right = node.op(), node.left(), node.right()
        if op in CONNECTIVES:
            return CONNECTIVES[op](self.may_be(left), self.may_be(right))
        if _is_literal(left):
            left, right, op = right, left, _MIRRORED.get(op, op)
        if not _is_literal(right):
            return self.unknown()
        value = _scalar(right)
        column = self.column(left, value.type)
        if column is None or op not in {*COMPARISONS, *_DISTINCT}:
            return self.unknown()
        return (
            self._distinct(column, op, value)
            if op in _DISTINCT
            else self.compare(column, op, value)
        )

    def compare(self, column: _Column, op: str, value: pa.Scalar) -> Outcome:
        """``column op value``."""
        never = np.zeros_like(column.some)
        if not value.is_valid:
            return Outcome(never, never, ~never)
        found = None if column.range is None else recast(column.range, value.type)
        if found is None or _is_nan(value):  # to the engine NaN is above all numbers
            return column.either()
        value = value.cast(found.lower.type)
        true, false = (or_true(each) for each in COMPARISONS[op](found, value))
        if op == "=":
            true = true & self._in_bucket(column, [value])
        return Outcome(true & column.some, false & column.some, column.null)

    def _distinct(self, column: _Column, op: str, value: pa.Scalar) -> Outcome:
        if value.is_valid:
            equal = self.compare(column, "=", value)
            same = equal.only(equal.true, equal.false | equal.null)
        else:
            same = column.either().only(column.null, column.some)
        return same if _DISTINCT[op] else ~same

    def _in_bucket(self, column: _Column, values: Sequence[pa.Scalar]) -> Bits:
        """Pieces whose buckets may hold one of the values."""
        may = np.ones(len(self._rows), bool)
        buckets = self._bounds.buckets
        if buckets is None or column.name is None or column.range is None:
            return may
        kind = column.range.lower.type
        for field in buckets.type:
            count, _, name = field.name.partition(":")
            wanted = [bucket_of(each.cast(kind), int(count)) for each in values]
            if name == column.name and None not in wanted:
                mine = buckets.field(field.name)
                may &= np.asarray(
                    pc.or_(pc.is_null(mine), pc.is_in(mine, pa.array(wanted, pa.int32()))), bool
                )
        return may

    def between(self, _: Expr, node: Any) -> Outcome:
        """``column BETWEEN low AND high``."""
        low, high = _scalar(node.low()), _scalar(node.high())
        column = self.column(node.expr(), low.type)
        if column is None:
            return self.unknown()
        inside = self.compare(column, ">=", low) & self.compare(column, "<=", high)
        return ~inside if node.negated() else inside

    def in_list(self, _: Expr, node: Any) -> Outcome:
        """``column IN (…)`` of literals, of any number."""
        values = [_scalar(each) for each in node.list()]
        column = self.column(node.expr(), values[0].type)
        if column is None:
            return self.unknown()
        found = self._within(column, [each for each in values if each.is_valid])
        if not all(each.is_valid for each in values):  # what is not in the list is null
            found = Outcome(found.true, np.zeros_like(found.false), np.ones_like(found.null))
        return ~found if node.negated() else found

    def _within(self, column: _Column, values: Sequence[pa.Scalar]) -> Outcome:
        never = np.zeros_like(column.some)
        if not values:
            return Outcome(never, never, ~never)
        found = None if column.range is None else recast(column.range, values[0].type)
        if found is None or any(map(_is_nan, values)):
            return column.either()
        kind = found.lower.type
        items = pa.array([each.cast(kind) for each in values], kind)
        order = items.take(pc.sort_indices(items))
        at = first_at_least(order, found.lower)
        reached = order.take(pa.array(np.minimum(at, len(order) - 1)))
        known = np.asarray(pc.and_(found.lower.is_valid(), found.upper.is_valid()), bool)
        hit = (at < len(order)) & or_true(pc.less_equal(reached, found.upper))
        one = pc.and_(pc.equal(found.lower, found.upper), pc.is_in(found.lower, items))
        true = (hit | ~known) & self._in_bucket(column, [each.cast(kind) for each in values])
        false = ~np.asarray(pc.fill_null(one, fill_value=False), bool)
        return Outcome(true & column.some, false & column.some, column.null)

    def like(self, expr: Expr, node: Any) -> Outcome:
        """``column LIKE 'prefix%…'``: what lies outside the prefix's range cannot match."""
        column, pattern = self.column(node.expr()), _scalar(node.pattern()).as_py()
        if column is None or " ILIKE " in expr.canonical_name() or node.escape_char() is not None:
            return self.unknown()
        if not isinstance(pattern, str) or column.range is None:
            return column.either()
        prefix = pattern.replace("_", "%").replace("\\", "%").partition("%")[0]
        if not prefix or not pa.types.is_string(column.range.lower.type):
            return column.either()
        lower, upper = column.range
        start = pc.utf8_slice_codeunits(lower, 0, len(prefix))
        may = pc.and_kleene(pc.less_equal(start, prefix), pc.greater_equal(upper, prefix))
        true = or_true(may)
        false = np.ones_like(true)
        if pattern == f"{prefix}%":  # both ends have the prefix, and so has all between them
            both = pc.and_(pc.starts_with(lower, prefix), pc.starts_with(upper, prefix))
            false = ~np.asarray(pc.fill_null(both, fill_value=False), bool)
        found = Outcome(true & column.some, false & column.some, column.null)
        return ~found if node.negated() else found

    def plain(self, expr: Expr, _: Any) -> Outcome:
        """A column as a condition of its own, or only asked whether it is null."""
        column = self.column(expr)
        if column is None:
            return self.unknown()
        if column.range is None or not pa.types.is_boolean(column.range.lower.type):
            return column.either()
        return self.compare(column, "=", pa.scalar(value=True))

    def negated(self, _: Expr, node: Any) -> Outcome:
        """NOT."""
        return ~self.may_be(node.expr())

    def is_null(self, _: Expr, node: Any) -> Outcome:
        """IS NULL, IS UNKNOWN."""
        inner = self.may_be(node.expr())
        return inner.only(inner.null, inner.true | inner.false)

    def is_true(self, _: Expr, node: Any) -> Outcome:
        """IS TRUE."""
        inner = self.may_be(node.expr())
        return inner.only(inner.true, inner.false | inner.null)

    def is_false(self, _: Expr, node: Any) -> Outcome:
        """IS FALSE."""
        inner = self.may_be(node.expr())
        return inner.only(inner.false, inner.true | inner.null)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, not copied where it is one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_literal(expr: Expr) -> bool:
    return type(expr.to_variant()).__name__ == "Literal"


def _is_nan(value: pa.Scalar) -> bool:
    return bool(pa.types.is_floating(value.type) and pc.is_nan(value).as_py())


def _scalar(literal: Expr) -> pa.Scalar:
    """A literal's value.

    Raises:
        TypeError: it is no literal.
    """
    if not _is_literal(literal):
        raise TypeError("not a literal")
    value = literal.python_value()
    return value if isinstance(value, pa.Scalar) else pa.scalar(value)


def _cast_type(expr: Expr) -> pa.DataType | None:
    """What a cast makes of its operand, by the engine's words; None: unknown, or no cast."""
    return _TYPES.get(expr.canonical_name().rpartition(" AS ")[2].removesuffix(")"))


_Rule = Callable[[_Pieces, Expr, Any], Outcome]


def _inverse(rule: _Rule) -> _Rule:
    return lambda pieces, expr, node: ~rule(pieces, expr, node)


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        "BinaryExpr": _Pieces.binary,
        "Between": _Pieces.between,
        "InList": _Pieces.in_list,
        "Like": _Pieces.like,
        "Not": _Pieces.negated,
        "Column": _Pieces.plain,
        "Cast": _Pieces.plain,
        "IsNull": _Pieces.is_null,
        "IsUnknown": _Pieces.is_null,
        "IsTrue": _Pieces.is_true,
        "IsFalse": _Pieces.is_false,
        "IsNotNull": _inverse(_Pieces.is_null),
        "IsNotUnknown": _inverse(_Pieces.is_null),
        "IsNotTrue": _inverse(_Pieces.is_true),
        "IsNotFalse": _inverse(_Pieces.is_false),
    }
)
