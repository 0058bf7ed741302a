"""What the steps of a plan compute, each expression with its type.

The bindings show most expressions as objects; the FILTER and ORDER BY of an aggregate, the FILTER
of a window, and grouping sets only as bytes of their Protocol Buffers (datafusion.proto). Types are
asked of the engine: those of a projection over the step's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext, literal
from datafusion.plan import LogicalPlan

from catalog.protobuf import fields, payload
from flight_server.analysis import WITHOUT_PARTS, walk
from flight_server.contexts import WITHOUT

#: Of the context in which plans are made for :func:`steps`: expressions as they are written, and
#: values of sub-queries as joins, whose steps can be walked.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        WITHOUT: "simplify_expressions common_sub_expression_eliminate",
        "datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery": "false",
    }
)
#: Operators that compare two values, expressions that compare one with several, and functions that
#: look for one in an array: the engine makes IN of them.
_COMPARISONS = frozenset(
    {"=", "!=", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"}
)
_SEVERAL = frozenset({"InList", "Between"})
_AMONG = frozenset({"array_has", "list_has", "array_contains", "list_contains"})
#: Field numbers: of LogicalExprNode, to those of expressions, and of sort keys, inside of it.
_HIDDEN = {19: (3, 4), 18: (13, None)}
_SORTED = 1
#: … and of GROUPING SETS, whose keys stand in lists; CUBE and ROLLUP have them themselves.
_SETS = 22


class Comparison(NamedTuple):
    """What is compared; its operands have one type, but for an array in which one is looked for.

    Attributes:
        operator: of two values; "": of one with several.
        operands: of the operator or the key of a join; or all of IN and BETWEEN.
    """

    operator: str
    operands: Sequence[Expr]


class Step:
    """One step of a plan.

    Args:
        node: the step.
        context: in which its plan was made.
    """

    def __init__(self, node: LogicalPlan, context: SessionContext) -> None:
        self._node = node
        self._context = context
        self._types: dict[str, pa.DataType] = {}

    @cached_property
    def expressions(self) -> Sequence[Expr]:
        """What it computes, judges or sorts by."""
        return [each if isinstance(each, Expr) else Expr(each) for each in self._all()]

    @cached_property
    def parts(self) -> Sequence[Expr]:
        """Its expressions, and what stands inside of them; columns and literals are none."""
        found, waiting = [], list(self.expressions)
        while waiting:  # an expression may be nested deeper than Python's calls
            part = waiting.pop()
            if part.variant_name() not in WITHOUT_PARTS:
                found.append(part)
                waiting += operands(part)
        return found

    def chains(self, *operators: str) -> Iterator[tuple[Expr, Sequence[Expr]]]:
        """Each longest chain of these operators, ``a + b - c``, and what it is a chain of."""
        waiting = list(self.expressions)
        while waiting:
            top = waiting.pop()
            inner, leaves = [top], []
            while inner:
                part = inner.pop()
                if part.variant_name() == "BinaryExpr" and operator(part) in operators:
                    inner += operands(part)
                else:
                    leaves.append(part)
                    waiting += [] if part.variant_name() in WITHOUT_PARTS else operands(part)
            if len(leaves) > 1:
                yield top, leaves

    @property
    def windows(self) -> Iterator[tuple[str, Sequence[pa.DataType]]]:
        """Its window expressions: what the plan shows of each, and the types of its sort keys."""
        variant: Any = self._node.to_variant()
        if type(variant).__name__ == "WindowExpr":
            for each in variant.get_window_expr():
                keys = (Expr(key.expr()) for key in variant.get_sort_exprs(each))
                yield each.canonical_name(), [self.type_of(key) for key in keys]

    @property
    def comparisons(self) -> Iterator[Comparison]:
        """What it compares."""
        for part in self.parts:
            kind = part.variant_name()
            if kind == "BinaryExpr" and (said := operator(part)) in _COMPARISONS:
                yield Comparison(said, operands(part))
            elif kind in _SEVERAL:
                yield Comparison("", operands(part))
            elif function(part) in _AMONG:
                yield Comparison("", operands(part)[::-1])
        variant: Any = self._node.to_variant()
        if type(variant).__name__ == "Join":
            same = "IS NOT DISTINCT FROM" if variant.null_equals_null() else "="
            yield from (Comparison(same, list(map(Expr, key))) for key in variant.on())

    def type_of(self, expression: Expr) -> pa.DataType:
        """Of one of :attr:`parts` or its operands; null: the engine does not tell."""
        name = expression.canonical_name()
        if name not in self._types:
            self._types[name] = self._asked(expression)
        return self._types[name]

    def _asked(self, expression: Expr) -> pa.DataType:
        try:
            return self._input.select(expression).schema().field(0).type
        except Exception:  # noqa: BLE001  # the bindings' only type
            return pa.null()

    @cached_property
    def _input(self) -> DataFrame:
        """The rows that its expressions are about."""
        inputs = map(self._context.create_dataframe_from_logical_plan, self._node.inputs())
        first = next(inputs, None)
        if first is None:
            return self._context.sql("SELECT 1")
        for other in inputs:
            first = first.join_on(other, literal(value=True), how="inner")
        return first

    def _all(self) -> Iterator[Any]:
        variant: Any = self._node.to_variant()
        match type(variant).__name__:
            case "Filter":
                yield variant.predicate()
            case "Join":
                yield from chain.from_iterable(variant.on())
                yield from (each for each in [variant.filter()] if each is not None)
            case "Projection":
                yield from variant.projections()
            case "Aggregate":
                for key in map(Expr, variant.group_by_exprs()):
                    yield from self._grouped(key) if key.variant_name() == "GroupingSet" else [key]
                yield from self._with_hidden(variant.aggregate_exprs())
            case "WindowExpr":
                yield from self._with_hidden(calls := variant.get_window_expr())
                for each in calls:
                    yield from variant.get_partition_exprs(each)
                    yield from (key.expr() for key in variant.get_sort_exprs(each))
            case "Sort":
                yield from (key.expr() for key in variant.sort_exprs())
            case "Values":
                yield from chain.from_iterable(variant.values())

    def _grouped(self, sets: Expr) -> Iterator[Expr]:
        """The keys of GROUPING SETS, CUBE and ROLLUP."""
        for kind, held in fields(self._bytes(sets)):
            for _, each in fields(payload(held)):
                keys = fields(payload(each)) if kind == _SETS else [(0, each)]
                yield from (Expr.from_bytes(payload(key), self._context) for _, key in keys)

    def _bytes(self, expression: Expr) -> bytes:
        """Its Protocol Buffers; none, where a function of it has no such form."""
        try:
            return bytes(expression.to_bytes(self._context))
        except Exception:  # noqa: BLE001  # the bindings' only type
            return b""

    def _with_hidden(self, calls: Sequence[Any]) -> Iterator[Any]:
        for each in calls:
            yield each
            yield from self._hidden(Expr(each))

    def _hidden(self, call: Expr) -> Iterator[Expr]:
        """The FILTER and the sort keys of an aggregate's call."""
        while call.variant_name() == "Alias":
            [call] = operands(call)
        if " FILTER (" not in (shown := call.canonical_name()) and " ORDER BY [" not in shown:
            return
        for kind, held in fields(self._bytes(call)):
            condition, key = _HIDDEN.get(kind, (None, None))
            for number, raw in fields(payload(held)) if condition else ():
                if number == condition:
                    yield Expr.from_bytes(payload(raw), self._context)
                elif number == key:
                    sorted_by = (payload(each) for n, each in fields(payload(raw)) if n == _SORTED)
                    yield from (Expr.from_bytes(each, self._context) for each in sorted_by)


def steps(plan: LogicalPlan, context: SessionContext) -> Iterator[Step]:
    """Every step of a plan, from the top.

    Args:
        plan: made with :data:`SETTINGS`.
        context: in which it was made.
    """
    for node in walk(plan):
        yield Step(node, context)


def operator(part: Expr) -> str:
    """Of a binary expression."""
    return str(part.to_variant().op())


def function(part: Expr) -> str:
    """The name of the scalar function that is called; "": this is no call."""
    is_call = part.variant_name() == "ScalarFunction"
    return part.canonical_name().partition("(")[0] if is_call else ""


def operands(part: Expr) -> list[Expr]:
    """What an expression is made of; what the bindings do not show has none."""
    try:
        return [each if isinstance(each, Expr) else Expr(each) for each in part.rex_call_operands()]
    except Exception:  # noqa: BLE001  # the bindings' only type
        return []


def is_constant(expression: Expr) -> bool:
    """Whether no column is in an expression."""
    waiting = [expression]
    while waiting:
        part = waiting.pop()
        if part.variant_name() == "Column":
            return False
        if part.variant_name() not in WITHOUT_PARTS:
            waiting += operands(part)
    return True
