"""Whether the engine answers a statement right, and how it is told to.

A statement is judged when it is planned, with the values that it is to be executed with: each set
of parameters by its own plan, for values decide over joins, lists and conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import pyarrow as pa
from datafusion import DataFrame, SessionContext
from datafusion.plan import LogicalPlan

from flight_server import casts, lists, rounding, rows, spans, zeros
from flight_server.analysis import has_unbound_join
from flight_server.cautions import LOGICAL, cautions, may_join, together
from flight_server.nulls import require_joined
from flight_server.protocol.errors import Unimplemented
from flight_server.sqltext import SqlText
from flight_server.subqueries import require_drawn_once, require_sound
from flight_server.typed import SETTINGS, Step, steps

#: Values of one execution.
Values = Mapping[str, pa.Scalar]
#: How often settings may ask for others.
_ROUNDS = 3
#: What plans show where there is something to look at.
_INSIDE = "Subquery:"
#: What is asked of every step, and whether it concerns a statement, by what its plan shows.
_GUARDS: Sequence[tuple[Callable[[str, str], bool], Callable[[Step], None]]] = (
    (spans.concerns, spans.require),
    (casts.concerns, casts.require),
    (rows.concerns, rows.require),
    (rounding.concerns, rounding.require),
)
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans one statement's texts over stubs.

    Attributes:
        run: the frame of a text with values.
        make: a context of the engine with these settings; asked once for each.
    """

    run: Callable[[SessionContext, SqlText, Values], DataFrame]
    make: Callable[[Mapping[str, str]], SessionContext]
    _made: dict[frozenset[tuple[str, str]], SessionContext] = field(default_factory=dict)

    def context(self, settings: Mapping[str, str] = _NONE) -> SessionContext:
        """The engine's context with these settings."""
        key = frozenset(settings.items())
        if key not in self._made:
            self._made[key] = self.make(settings)
        return self._made[key]

    def frame(
        self, text: SqlText, values: Values, settings: Mapping[str, str] = _NONE
    ) -> DataFrame:
        """Of a text; nothing is executed."""
        return self.run(self.context(settings), text, values)

    def optimized(
        self, text: SqlText, values: Values, settings: Mapping[str, str] = _NONE
    ) -> LogicalPlan:
        """What the engine would execute."""
        return self.frame(text, values, settings).optimized_logical_plan()


@dataclass(frozen=True, slots=True)
class Judged:
    """A statement that the engine answers right.

    Attributes:
        text: what it is to be asked; mostly the statement's own.
        plan: of the first set of values, optimized.
        settings: of the engine, under which it answers right.
        unbound_join: with some set of values, a join has no equality.
    """

    text: SqlText
    plan: LogicalPlan
    settings: Mapping[str, str]
    unbound_join: bool


def judged(text: SqlText, sets: Sequence[Values], planner: Planner, first: DataFrame) -> Judged:
    """The statement, judged with each set of values.

    Args:
        text: the statement; has passed ``nulls.require_nulls_kept``.
        sets: at least one; without parameters, one without values.
        planner: plans it.
        first: its frame with the first set.

    Raises:
        Unimplemented: the engine would answer it wrong, and cannot be told not to.
    """
    planned = first.logical_plan()
    shown, typed = planned.display_indent(), planned.display_indent_schema()
    plan = None
    if rounding.concerns(shown, typed):
        text, first, plan = _with_digits(planner, text, sets[0], first)
    guards = [require for concerns, require in _GUARDS if concerns(shown, typed)]
    for values in sets if guards else ():
        _guard(planner, text, values, guards)
    plan = plan or first.optimized_logical_plan()
    mended = zeros.mended(text, plan, lambda each: planner.optimized(each, sets[0]))
    if mended is not text:
        first = planner.frame(mended, sets[0])
        plan = first.optimized_logical_plan()
    settings = _settings(mended, sets[0], planner, first.logical_plan(), plan)
    unbound = has_unbound_join(plan)
    for values in sets[1:]:
        frame = planner.frame(mended, values)
        planned = frame.logical_plan()
        if not (may_join(planned) or zeros.may_be_listed(planned)):
            break  # no value makes a difference
        optimized = frame.optimized_logical_plan()
        said = optimized if mended is text else planner.optimized(text, values)
        zeros.require_as_mended(said, optimized)
        settings = together(settings, _settings(mended, values, planner, planned, optimized))
        unbound = unbound or has_unbound_join(optimized)
    if lists.may_meet(first.logical_plan().display_indent()):
        for values in sets:
            lists.require_lists_kept(planner.optimized(mended, values, lists.SETTINGS))
    return Judged(mended, plan, settings, unbound)


def _with_digits(
    planner: Planner, text: SqlText, values: Values, frame: DataFrame
) -> tuple[SqlText, DataFrame, LogicalPlan | None]:
    """The statement with its digits bound, its frame, and its plan; the same where that fails."""
    tried = rounding.bound(text)
    if tried is not text:
        try:
            found = planner.frame(tried, values)
            return tried, found, found.optimized_logical_plan()
        except Exception as error:
            if type(error) not in {ValueError, Exception}:  # what the bindings raise
                raise
    return text, frame, None


def _guard(
    planner: Planner, text: SqlText, values: Values, guards: Sequence[Callable[[Step], None]]
) -> None:
    """Has every step of the statement's plan looked at, in which expressions are as written."""
    plan = planner.optimized(text, values, SETTINGS)
    for step in steps(plan, planner.context(SETTINGS)):
        for require in guards:
            require(step)


def require_read_right(planned: LogicalPlan) -> None:
    """Refuses what the engine would misread whatever the values are.

    Args:
        planned: as the statement says it, parameters bound or not.

    Raises:
        Unimplemented: ``subqueries`` says of what.
    """
    plain = planned.display_indent()
    require_drawn_once(plain)
    if _INSIDE in plain:
        require_sound(plain, planned.display_indent_schema())


def _settings(
    text: SqlText, values: Values, planner: Planner, planned: LogicalPlan, plan: LogicalPlan
) -> dict[str, str]:
    """What the engine must be told: with some settings the plan is another, and is judged again."""
    settings: dict[str, str] = {}
    for _ in range(_ROUNDS):
        require_joined(planned, plan)
        logical = {name: value for name, value in settings.items() if name in LOGICAL}
        found = cautions(planner.context(logical), planned, plan)
        told = together(settings, found)
        if told == settings or not LOGICAL & found.keys():
            return told
        settings = told
        frame = planner.frame(text, values, settings)
        planned, plan = frame.logical_plan(), frame.optimized_logical_plan()
    raise Unimplemented(
        "these joins and sub-queries together would be misread: write a sub-query as a join"
    )
