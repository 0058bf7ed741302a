"""What a planned statement reads: walked from DataFusion's own logical plan.

The plan is the authority on which tables and filters a statement has, and the second wall behind
the text rules: a node that is not on the list is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from flight_server.known import Fact, facts_of
from flight_server.names import Reference, Scope
from flight_server.nans import Touched, asks_for_zero
from flight_server.protocol.errors import ResourceExhausted, Unimplemented
from flight_server.top import Top, takes_all, top_of

#: Nodes of a statement that only reads.
ALLOWED = frozenset(
    {
        *("Aggregate", "Analyze", "DescribeTable", "Distinct", "EmptyRelation", "Explain"),
        *("Filter", "Join", "Limit", "Projection", "RecursiveQuery", "Repartition", "Sort"),
        *("Subquery", "SubqueryAlias", "TableScan", "Union", "Unnest", "Values", "WindowExpr"),
    }
)

#: Joins without an equality, as the plan's text shows them.
_UNBOUND_JOIN = re.compile(r"^ *+(?:Cross Join:|\w++ Join: *+(?:Filter:|$))", re.MULTILINE)
_SCAN_LINE = re.compile(r"^ *+TableScan: ", re.MULTILINE)
_JOIN_LINE = re.compile(r"^ *+\w++ Join:", re.MULTILINE)
#: The time for them grows with the third power of their number: 100 take 65 ms, 300 take 1.6 s.
MAX_JOINS = 150
#: Words whose value differs from one planning to the next.
CLOCK_WORDS = frozenset(
    {"now", "current_timestamp", "current_date", "current_time", "localtimestamp", "today"}
)
#: Functions whose value is another one at each call, or at each planning.
VOLATILE_WORDS = CLOCK_WORDS | {"random", "rand", "uuid", "input_file_name", "file_row_index"}
#: Expressions that have nothing inside, though the engine says that they are their own operand.
WITHOUT_PARTS = frozenset({"Column", "Literal", "Placeholder", "ScalarVariable"})
#: Steps that give the same rows for a part of the input as for that part of the whole.
ROW_BY_ROW = frozenset({"Projection", "Filter", "SubqueryAlias", "TableScan"})
#: Steps that show values as they are, or make others of them; a filter says which it judges by.
_SHOWING = ROW_BY_ROW | {"Limit"}


@dataclass(frozen=True, slots=True)
class Reads:
    """What an optimized plan scans.

    Attributes:
        scans: reference → per scan its pushed filters; None: some scans hide in sub-queries that
            the plan does not show, so nothing may be pruned.
        unbound_join: some join has no equality.
        settings: of the engine, with which it answers the plan right, and fast.
        views: strings are better read as views; see ``flight_server.tuning``.
        top: how many rows it takes of its only scan; None: it may take all.
        facts: what it gives of all rows of its only scan; None: more than is known of them.
        touched: reference → the columns that its scans read; None: as for ``scans``.
        zeros: references of which some scan looks for a zero; None: any may.
        whole: it takes all rows of its scans, in any order; see ``flight_server.top``.
    """

    scans: Mapping[Reference, tuple[tuple[Any, ...], ...]] | None
    unbound_join: bool
    settings: Mapping[str, str] = field(default_factory=dict)
    views: bool = False
    top: Top | None = None
    facts: tuple[Fact, ...] | None = None
    touched: Mapping[Reference, Touched] | None = None
    zeros: frozenset[Reference] | None = None
    whole: bool = False

    def of(self, at: Reference) -> tuple[tuple[Any, ...], ...] | None:
        """The scans of one reference; None: unknown; empty: it is not read."""
        return None if self.scans is None else self.scans.get(at, ())

    def touched_of(self, at: Reference) -> Touched | None:
        """The columns that the scans of one reference read; None: unknown."""
        return None if self.touched is None else self.touched.get(at)

    def looks_for_zero(self, at: Reference) -> bool:
        """Whether the scans of one reference may look for a zero."""
        return self.zeros is None or at in self.zeros


def require_reading(plan: LogicalPlan) -> None:
    """The second wall against statements that write.

    Raises:
        Unimplemented: the plan has a node that no reading statement has.
    """
    for node in walk(plan):
        kind = type(_variant(node)).__name__
        if kind not in ALLOWED:
            raise Unimplemented(f"statements with a {kind} step are not offered")


def require_few_joins(planned: LogicalPlan) -> None:
    """Refuses statements that the engine would plan for seconds, Python's lock in its hand.

    Raises:
        ResourceExhausted: more than :data:`MAX_JOINS`, those between commas among them.
    """
    if (count := len(_JOIN_LINE.findall(planned.display_indent()))) > MAX_JOINS:
        raise ResourceExhausted(
            f"the statement joins {count + 1} tables, the limit is {MAX_JOINS + 1}: write what it"
            " joins first as a table, or as several statements"
        )


def is_divisible(plans: Sequence[LogicalPlan], words: frozenset[str]) -> bool:
    """Whether a statement treats each row of one scan by itself, so that rows can be shared out.

    Args:
        plans: the statement's, before and after the optimizer: a limit may only show before it,
            a sub-query in an expression only after it.
        words: of its text.
    """
    if words & VOLATILE_WORDS:
        return False
    for plan in plans:
        kinds = [type(_variant(node)).__name__ for node in walk(plan)]
        scans = len(_SCAN_LINE.findall(plan.display_indent()))  # those in sub-queries too
        if scans != 1 or kinds.count("TableScan") != 1 or not ROW_BY_ROW.issuperset(kinds):
            return False
    return True


def reads_of(plan: LogicalPlan, scope: Scope, *, unbound_join: bool) -> Reads:
    """What an optimized plan reads, reference by reference.

    Args:
        plan: the first set of values'.
        scope: what its names mean.
        unbound_join: see :func:`has_unbound_join`, of each set of values.
    """
    scans: dict[Reference, list[tuple[Any, ...]]] = {}
    touched: dict[Reference, Touched] = {}
    judgements = _judgements(plan)
    for scan in _scans(plan):
        _, schema, name = scan.fqn()
        at = scope.reference(schema, name)
        scans.setdefault(at, []).append(tuple(scan.filters()))
        mine = _touched(scan, judgements)
        touched[at] = touched[at] | mine if at in touched else mine
    text = plan.display_indent()
    hidden = len(_SCAN_LINE.findall(text)) != sum(map(len, scans.values()))
    zeros = (
        at
        for at, found in scans.items()
        if any(asks_for_zero(each.canonical_name()) for filters in found for each in filters)
    )
    return Reads(
        None if hidden else MappingProxyType({at: tuple(found) for at, found in scans.items()}),
        unbound_join,
        top=None if hidden else top_of(plan),
        facts=None if hidden else facts_of(plan),
        touched=None if hidden else MappingProxyType(touched),
        zeros=None if hidden and asks_for_zero(text) else frozenset(zeros),
        whole=not hidden and takes_all(plan),
    )


def has_unbound_join(plan: LogicalPlan) -> bool:
    """Whether some join of an optimized plan has no equality."""
    return bool(_UNBOUND_JOIN.search(plan.display_indent()))


def _judgements(plan: LogicalPlan) -> str | None:
    """What the steps say that decide over rows, where they are filters; None: others do, too."""
    steps = [(type(_variant(node)).__name__, node) for node in walk(plan)]
    if not _SHOWING.issuperset(kind for kind, _ in steps):
        return None
    return "\n".join(node.display() for kind, node in steps if kind == "Filter")


def _touched(scan: Any, judgements: str | None) -> Touched:
    read = frozenset(name for _, name in scan.projection())
    if judgements is None:
        return Touched(read, read)
    return Touched(read, frozenset(name for name in read if name in judgements))


def scans_by_label(plan: LogicalPlan) -> Mapping[str, list[tuple[Any, ...]]] | None:
    """Label of each scan in an optimized plan → its pushed filters; None: some scans hide."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for scan in _scans(plan):
        _, _, name = scan.fqn()
        found.setdefault(name, []).append(tuple(scan.filters()))
    hidden = len(_SCAN_LINE.findall(plan.display_indent())) != sum(map(len, found.values()))
    return None if hidden else found


def _scans(plan: LogicalPlan) -> Iterator[Any]:
    """Every scan that the plan shows."""
    for node in walk(plan):
        variant = _variant(node)
        if type(variant).__name__ == "TableScan":
            yield variant


def walk(plan: LogicalPlan) -> Iterator[LogicalPlan]:
    """Every step of a plan, from the top; it may be deeper than Python's calls."""
    steps = [plan]
    while steps:
        step = steps.pop()
        yield step
        steps += reversed(step.inputs())


def conditions(node: LogicalPlan) -> Iterator[Expr]:
    """What lets a step's rows through where it is true, and only there; a join's keys aside."""
    variant = _variant(node)
    match type(variant).__name__:
        case "Filter":
            yield variant.predicate()
        case "TableScan":
            yield from variant.filters()
        case "Join" if (condition := variant.filter()) is not None:
            yield condition


def without_casts(expression: Expr) -> Expr:
    """What a value is made of, its type and its name aside."""
    while expression.variant_name() in {"Alias", "Cast", "TryCast"}:
        [expression] = expression.rex_call_operands()
    return expression


def _variant(node: LogicalPlan) -> Any:
    try:
        return node.to_variant()
    except (ValueError, TypeError, NotImplementedError) as error:
        raise Unimplemented("a step of this statement is not offered") from error
