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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext
from datafusion.plan import LogicalPlan

from flight_server.analysis import walk, without_casts
from flight_server.contexts import WITHOUT
from flight_server.nans import NO_STATISTICS
from flight_server.plantext import LITERAL
from flight_server.protocol.errors import Unimplemented
from flight_server.windows import look_over_nulls, require_seen

#: A filter above a right join is pushed to the side that keeps its rows, through a union (which
#: every table with a tail is), even where it names columns of both. Merge joins push nothing, but
#: mistake columns in further conditions of an outer join's ON.
_RIGHT = MappingProxyType({"datafusion.optimizer.prefer_hash_join": "false"})
#: The filter that a join makes of its keys while it runs is pushed through another join, or what
#: is left of one, or an aggregate over one, to the first column of that name.
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
#: The filter that the first rows make of themselves is pushed through a projection above a join to
#: the second of two columns of one name.
_TOPPED = MappingProxyType({"datafusion.optimizer.enable_topk_dynamic_filter_pushdown": "false"})
#: A column that is one value in each part of a union is no key of the parts' sorts; yet each part
#: leaves out what is beyond the first rows that another one has found.
_UNITED = MappingProxyType({"datafusion.optimizer.repartition_sorts": "false"})
#: The first of some groups are kept in a heap that fails on a NaN; and kept alone below a window,
#: whose values depend on all of them (apache/datafusion pull request 25066).
_HEAP = MappingProxyType({"datafusion.optimizer.enable_topk_aggregation": "false"})

#: Some groups, in any order, are taken for the first ones where a window stands below: that fails.
_SOFT = MappingProxyType({"datafusion.optimizer.enable_distinct_aggregation_soft_limit": "false"})

#: Of a window that looks ahead beyond nulls, too few rows are read where only some are shown.
_AHEAD = MappingProxyType({"datafusion.optimizer.enable_window_limits": "false"})

#: A join's few keys are looked for in files' Bloom filters, by the bits: 0.0 and -0.0 are two.
_BITS = MappingProxyType({"datafusion.optimizer.hash_join_inlist_pushdown_max_size": "0"})

#: The bounds of times of day are taken for those of the moments that they are of.
UNPRUNED = MappingProxyType({**NO_STATISTICS, "datafusion.execution.parquet.pruning": "false"})
_TIME_OF_DAY = re.compile(r" AS Time(?:32|64)\(")

#: What the engine says where its estimate of a filter's share of rows left 0 to 1: the bounds of a
#: timestamp that is cast to a date are whole days to it, more than the column has; and where bounds
#: of a difference of dates are none that it can compare.
_MISESTIMATED = (
    "Selectivity is out of limit",
    "Only intervals with the same data type are comparable",
    "Interval data types must be compatible",
)

#: What it says of a LATERAL sub-query whose condition is false for every row, which it finds out
#: before it makes a join of it: the sub-query does not refer to what is outside any more.
_LEFT = "undecorrelated Subquery"
_UNFOLDED = MappingProxyType({WITHOUT: "simplify_expressions"})
#: What it says where each part of a union is sorted by one of two columns that are the same, and
#: the parts are merged by the other one.
_MISSORTED = "SanityCheckPlan"

#: Settings that change what the optimizer makes of a statement.
LOGICAL = frozenset({WITHOUT, *_VALUES})

_JOIN = re.compile(r"\w++ Join: ")
_CONDITION = re.compile(r"^ *+(?:Inner Join: \S|(?!Inner)\w++ Join: ).* Filter: ", re.MULTILINE)
_USING = re.compile(r"^ *+(?:Right|Full) Join: Using ", re.MULTILINE)
_FILTER = re.compile(r"^ *+Filter: ", re.MULTILINE)
_VALUE_FILTER = re.compile(r"^ *+Filter: .*\(<subquery>\)", re.MULTILINE)
_LITERAL = rf"(?:(?:TRY_)?CAST\()*{LITERAL}"
#: Of two columns: a literal makes no key of a join.
_SAME = re.compile(rf" IS NOT DISTINCT FROM (?!{_LITERAL})", re.MULTILINE)
#: What is an equality, or becomes one of two columns: NOT (x <> y), x IN (y), x = ANY([y]) …
_EQUAL = re.compile(
    rf" = | (?:!= |BETWEEN |IN \(\[)(?!{_LITERAL})|\b(?:array|list)_(?:has|contains)", re.MULTILINE
)
#: … and two of these: x >= y AND x <= y, NOT (x < y OR x > y).
_ORDERED = re.compile(rf" [<>]=? (?!{_LITERAL})", re.MULTILINE)
#: A join for NOT IN, which needs its key.
_NULL_AWARE = re.compile(r"^ *+\w++ Join: .* null_aware$", re.MULTILINE)
#: Steps that give as many rows as they take …
_THROUGH = re.compile(r"(?:SubqueryAlias|Projection): |Sort: (?!.* fetch=1$)")
#: … and those that give one.
_ONE_ROW = re.compile(
    r"Aggregate: groupBy=\[\[\]\]|(?:Limit|Sort): .*\bfetch=1$|EmptyRelation: rows=1$"
)
_NULLS = re.compile(r"^ *+Projection: .*\bNULL\b", re.MULTILINE)
_UNION = re.compile(r"^ *+Union$", re.MULTILINE)
_LIMIT = re.compile(r"^ *+Limit: ", re.MULTILINE)
_WINDOW = re.compile(r"^ *+WindowAggr: ", re.MULTILINE)
_TOP = re.compile(r"^ *+Sort: .+ fetch=", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """An optimized plan as it shows itself, drawn once.

    Attributes:
        context: the plan's.
        text: all of it.
        steps: those that can be walked to, and what each of them shows.
        sides: the joins among them, with the columns of both sides.
        joins: how many there are, with those in sub-queries of expressions …
        hidden: … of which there are some: nothing walks to them.
    """

    context: SessionContext
    text: str
    steps: Sequence[tuple[LogicalPlan, str]]
    sides: Sequence[tuple[LogicalPlan, pa.Schema, pa.Schema]]
    joins: int
    hidden: bool

    @classmethod
    def of(cls, context: SessionContext, plan: LogicalPlan) -> Self:
        """Drawn from a plan."""
        text = plan.display_indent()
        steps = [(node, node.display()) for node in walk(plan)]
        sides = [
            (node, *(_columns(context, side) for side in node.inputs()))
            for node, said in steps
            if _JOIN.match(said)
        ]
        joins = text.count(" Join: ")
        hidden = joins > sum(" Join: " in said for _, said in steps)
        return cls(context, text, steps, sides, joins, hidden)


def cautions(context: SessionContext, planned: LogicalPlan, plan: LogicalPlan) -> Mapping[str, str]:
    """The engine's settings under which a statement is answered right; mostly none.

    Those in :data:`LOGICAL` make another plan, which is to be looked at again.

    Args:
        context: the plans'.
        planned: as the statement says it.
        plan: the same, optimized.

    Raises:
        Unimplemented: a right join that neither way of joining gets right; NOT IN beside keys in
            which null equals null; a value of a sub-query that may have several rows, where the
            engine would take all of them; how many values a constant has; a row that a window
            would look for beyond nulls.
    """
    drawn = _Drawn.of(context, plan)
    require_seen(drawn.text)
    if any(_counts_a_constant(*step) for step in drawn.steps):
        raise Unimplemented(
            "count(DISTINCT c) of a column that is one constant would be 1 where there is no row:"
            " write count(*) > 0, or count what is not constant"
        )
    if any(_may_be_many(drawn, *step) for step in drawn.steps):
        raise Unimplemented(
            "the sub-query of a value may give several rows: write (SELECT max(x) …), or LIMIT 1"
        )
    found = {**_where_names_meet(drawn), **_where_floats_are_keys(drawn)}
    if _RIGHT.items() <= found.items() and _CONDITION.search(drawn.text):
        raise Unimplemented(
            "a filter above this RIGHT JOIN would be misread: write b LEFT JOIN a for"
            " a RIGHT JOIN b, or keep conditions other than equalities out of its ON"
        )
    times = UNPRUNED if _TIME_OF_DAY.search(drawn.text) else {}
    return {**found, **_where_nulls_equal(planned, drawn), **_where_first(drawn), **times}


def require_one_key(planned: LogicalPlan) -> None:
    """Refuses outer joins whose one key is another side's: the engine always shows the left one's.

    Source: apache/datafusion issue 22881.

    Args:
        planned: as the statement says it.

    Raises:
        Unimplemented: RIGHT or FULL JOIN with USING, or NATURAL.
    """
    if _USING.search(planned.display_indent()):
        raise Unimplemented(
            "the key of a RIGHT or FULL JOIN with USING, or NATURAL, would be null for rows of the"
            " right side alone: write ON a.k = b.k, and coalesce(a.k, b.k)"
        )


def together(settings: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Both; without their keys, joins are made flat safely, too."""
    return {**settings, **more, **(_KEYLESS if _KEYLESS.items() <= settings.items() else {})}


def _where_names_meet(drawn: _Drawn) -> Mapping[str, str]:
    """What columns with one name want, of a join or of what is left of one."""
    valued, topped = _VALUE_FILTER.search(drawn.text), _TOP.search(drawn.text)
    if not (drawn.joins or valued or topped):
        return {}
    repeats = _repeats_names(drawn)
    meet = repeats or drawn.hidden or any(_names_twice(*both) for _, *both in drawn.sides)
    if not meet:
        return {}
    found: dict[str, str] = {}
    if "Right Join: " in drawn.text and _FILTER.search(drawn.text):
        found |= _RIGHT
    if valued:
        found |= _VALUES
    if drawn.joins > 1 or repeats:
        found |= _CHAINED
    if topped:
        found |= _TOPPED
    return found


def _repeats_names(drawn: _Drawn) -> bool:
    """Whether a projection has a name twice: a join that meets no row leaves nulls for one side."""
    if "Subquery:" in drawn.text and _NULLS.search(drawn.text):
        return True  # nothing walks to it
    shown = (
        _columns(drawn.context, node).names
        for node, said in drawn.steps
        if said.startswith("Projection: ")
    )
    return any(len(names) > len(set(names)) for names in shown)


def _where_nulls_equal(planned: LogicalPlan, drawn: _Drawn) -> Mapping[str, str]:
    """What joins want in which null equals null."""
    said = planned.display_indent() if drawn.joins else ""
    if not (_SAME.search(said) or any(map(_is_negated, said.splitlines()))):
        return {}
    equal = _EQUAL.search(said) or len(_ORDERED.findall(said)) > 1
    if not equal or (drawn.joins == 1 and not any(map(_has_keys, drawn.text.splitlines()))):
        return _FLAT
    if _NULL_AWARE.search(drawn.text):
        raise Unimplemented(
            "NOT IN over a sub-query beside IS NOT DISTINCT FROM and further joins would lose"
            " nulls: write NOT EXISTS (SELECT 1 FROM … WHERE b.x = a.x) for the NOT IN"
        )
    return _KEYLESS


def _has_keys(line: str) -> bool:
    """Whether a step is a join by several keys."""
    _, joins, keys = line.partition(" Join: ")
    return bool(joins) and keys.partition(" Filter: ")[0].count(" = ") > 1


def _is_negated(line: str) -> bool:
    """Whether a step is a join by NOT (x IS DISTINCT FROM y), which is made the other form."""
    return " Join: " in line and "NOT " in line and " IS DISTINCT FROM " in line


def _where_floats_are_keys(drawn: _Drawn) -> Mapping[str, str]:
    """What joins by floating numbers want."""
    floats = drawn.hidden or any(_joins_floats(*each) for each in drawn.sides)
    return _BITS if floats else {}


def _where_first(drawn: _Drawn) -> Mapping[str, str]:
    """What the first rows want, by some order or by none."""
    windowed = bool(_WINDOW.search(drawn.text))
    limited = windowed and (_LIMIT.search(drawn.text) or _TOP.search(drawn.text))
    soft = {**_SOFT, **(_AHEAD if look_over_nulls(drawn.text) else {})} if limited else {}
    if not _TOP.search(drawn.text):
        return soft
    united = _UNITED if _UNION.search(drawn.text) else {}
    heaped = windowed or any(_groups_floats(drawn, *each) for each in drawn.steps)
    return {**soft, **united, **(_HEAP if heaped else {})}


def _counts_a_constant(node: LogicalPlan, shown: str) -> bool:
    """Whether the engine takes the number of values from statistics that do not mind the rows."""
    if not shown.startswith("Aggregate: groupBy=[[]]") or "count(DISTINCT " not in shown:
        return False
    [below] = node.inputs()
    while below.display().startswith("SubqueryAlias: "):
        [below] = below.inputs()
    variant: Any = below.to_variant()
    if type(variant).__name__ != "Projection":
        return False
    for expression in variant.projections():
        name = re.escape(expression.canonical_name().rpartition(" AS ")[2])
        constant = without_casts(expression).variant_name() == "Literal"
        if constant and re.search(rf"count\(DISTINCT (?:[^()]*\.)?\"?{name}\"?\)", shown):
            return True
    return False


def _may_be_many(drawn: _Drawn, node: LogicalPlan, shown: str) -> bool:
    """Whether this is a sub-query that stands for one value, to be joined, and may have more.

    One that refers to what is outside has further columns, by which it is joined.
    """
    if (
        not shown.startswith("SubqueryAlias: __scalar_sq_")
        or len(_columns(drawn.context, node)) > 1
    ):
        return False
    while _THROUGH.match(node.display()):
        [node] = node.inputs()
    return not _ONE_ROW.match(node.display())


def otherwise(error: Exception) -> Mapping[str, str]:
    """Settings under which the engine can plan what it has failed to; none: it cannot."""
    said = str(error)
    if any(each in said for each in _MISESTIMATED):
        return NO_STATISTICS
    if _LEFT in said:
        return _UNFOLDED
    return _UNITED if _MISSORTED in said else {}


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
    real = _columns(context, optimized)
    typed = zip(planned, real.types, strict=True)
    return pa.schema([field.with_type(kind) for field, kind in typed])


def _columns(context: SessionContext, node: LogicalPlan) -> pa.Schema:
    """Of a step's rows."""
    return context.create_dataframe_from_logical_plan(node).schema()


def _groups_floats(drawn: _Drawn, node: LogicalPlan, shown: str) -> bool:
    """Whether this makes groups, of floating numbers among others."""
    if not shown.startswith("Aggregate: "):
        return False
    return any(map(pa.types.is_floating, _columns(drawn.context, node).types))


def _joins_floats(node: LogicalPlan, left: pa.Schema, right: pa.Schema) -> bool:
    """Whether a join has a floating number among its keys."""
    variant: Any = node.to_variant()
    return any(_is_float(mine, left) or _is_float(other, right) for mine, other in variant.on())


def _is_float(key: Expr, schema: pa.Schema) -> bool:
    """Whether a key may be a floating number: it is cast to one, or made of one."""
    name = key.canonical_name()
    mine = (field.name for field in schema if pa.types.is_floating(field.type))
    return " AS Float" in name or any(each in name for each in mine)


def _names_twice(left: pa.Schema, right: pa.Schema) -> bool:
    """Whether two sides of a join share a column's name."""
    return not set(left.names).isdisjoint(right.names)
