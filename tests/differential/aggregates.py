"""Draws aggregates and windows, and the statements that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from differential.expressions import Expressions, Scope
from differential.literals import literal
from differential.rows import Kind
from differential.trees import Expr, Select, Source

#: Rows within a day before each, those of its own moment included: no order of them is needed.
_DAY = (
    "count(*) over (partition by {1} order by {0} asc nulls first"
    " range between interval '1 day' preceding and current row)"
)
_FRAMES = (
    "",
    " rows between 2 preceding and current row",
    " rows between 1 preceding and 1 following",
    " rows between unbounded preceding and unbounded following",
)
_LIMITS = (1, 3, 10)
_PASSED = (0, 0, 5)


class Aggregates(Expressions):
    """Draws what is computed of many rows."""

    def aggregate(self, scope: Scope, *, grouped: bool = False, ids: Sequence[Expr] = ()) -> Expr:
        """One aggregate, the same in whatever order rows come (see ``known.WRITTEN``).

        Args:
            scope: of its arguments.
            grouped: whether it is of groups.
            ids: what tells rows apart, for aggregates that depend on an order.
        """
        rng = self.rng
        word = rng.choice(
            (
                *("count(*)", "count", "count", "distinct", "sum", "sum", "avg"),
                *("min", "max", "min", "max", "bool", "bits", "once"),
                *(("ordered", "ordered") if ids else ()),
            )
        )
        only = ""
        filters: tuple[Expr, ...] = ()
        if word == "ordered":
            found = self.ordered(scope, ids)
        elif word == "count(*)":
            found = Expr("int", "count(*)")
        elif word in {"count", "distinct"}:
            inner = self.expr(self.some_kind(scope), scope, 1)
            found = Expr(
                "int", "count({0})" if word == "count" else "count(distinct {0})", (inner,)
            )
        elif word in {"sum", "avg"}:
            kind: Kind = rng.choice(
                ("int", "exact", "decimal") if word == "sum" else ("int", "exact")
            )
            inner = self.expr(kind, scope, 1)
            result: Kind = kind if word == "sum" else "exact"
            found = Expr(result, f"{word}({{0}})", (inner,))
        elif word == "bool":
            found = Expr(
                "bool", f"{rng.choice(('bool_and', 'bool_or'))}({{0}})", (self.predicate(scope, 1),)
            )
        elif word in {"bits", "once"}:
            words = ("bit_and({0})", "bit_or({0})", "bit_xor({0})")
            text = rng.choice(words) if word == "bits" else "sum(distinct {0})"
            found = Expr("int", text, (self.expr("int", scope, 0),))
        else:
            kind = self.some_kind(scope, but=("bool", "float") if grouped else ("bool",))
            found = Expr(kind, f"{word}({{0}})", (self.expr(kind, scope, 1),))
        if rng.random() < 0.15:
            filters = (self.predicate(scope, 0),)
            only = f" filter (where {{{len(found.parts)}}})"
        duck = found.duck and found.duck + only
        return Expr(found.kind, found.ours + only, (*found.parts, *filters), duck)

    def ordered(self, scope: Scope, ids: Sequence[Expr]) -> Expr:
        """An aggregate of rows in an order that is total."""
        kind = self.some_kind(scope)
        by = self.total(ids, 1)
        shapes: tuple[tuple[Kind, str, str], ...] = (
            ("text", f"string_agg({{0}}, '-' order by {by})", ""),
            (kind, f"first_value({{0}} order by {by})", f"first({{0}} order by {by})"),
            (kind, f"last_value({{0}} order by {by})", f"last({{0}} order by {by})"),
        )
        result, ours, duck = self.rng.choice(shapes)
        value = self.rng.choice(scope[result]) if scope[result] else literal(result, self.rng)
        return Expr(result, ours, (value, *ids), duck)

    def aggregate_of(self, scope: Scope) -> Expr:
        """An aggregate of a column of a derived table."""
        kind = self.some_kind(scope)
        if kind == "float":  # count(distinct …) beside it makes groups
            return Expr("int", "count({0})", (self.rng.choice(scope[kind]),))
        word = self.rng.choice(("count({0})", "count(distinct {0})", "min({0})", "max({0})"))
        if kind == "bool" or word.startswith("count"):
            return Expr(
                "int",
                word if word.startswith("count") else "count({0})",
                (self.rng.choice(scope[kind]),),
            )
        return Expr(kind, word, (self.rng.choice(scope[kind]),))

    def window(self, scope: Scope, ids: Sequence[Expr]) -> Expr:
        """A window function over a total order."""
        rng = self.rng
        kind = self.some_kind(scope, but=("bool",))
        value, by = self.expr(kind, scope, 0), self.expr(self.some_kind(scope), scope, 0)
        over = f"over (partition by {{1}} order by {self.total(ids, 2)}"
        frame = rng.choice(_FRAMES)
        largest = "count" if kind == "float" else "max"
        shapes = (
            (kind, f"lag({{0}}) {over})"),
            (kind, f"lead({{0}}) {over})"),
            (kind, f"lead({{0}}, 2) {over})"),
            (kind, f"lag({{0}} ignore nulls) {over})"),
            (kind, f"lag({{0}}, 2 ignore nulls) {over})"),
            (kind, f"lead({{0}} ignore nulls) {over})"),
            (kind, f"first_value({{0}}) {over}{frame})"),
            (kind, f"last_value({{0}}) {over}{frame})"),
            (kind, f"first_value({{0}} ignore nulls) {over}{frame})"),
            (kind, f"last_value({{0}} ignore nulls) {over}{frame})"),
            ("int", f"row_number() {over})"),
            ("int", f"rank() {over})"),
            ("int", f"dense_rank() {over})"),
            ("int", f"ntile(3) {over})"),
            (kind, f"nth_value({{0}}, 2) {over}{frame})"),
            (kind, f"lag({{0}}, 2) {over})"),
            ("int", _DAY),
            ("int", f"count({{0}}) {over}{frame})"),
            ("int" if kind == "float" else kind, f"{largest}({{0}}) {over}{frame})"),
        )
        result, text = rng.choice(shapes)
        if text is _DAY:
            return Expr(result, text, (rng.choice(scope["time"]), by))
        return Expr(result, text, (value, by, *ids))

    def of_groups(self, sources: tuple[Source, ...], scope: Scope, where: Expr | None) -> Select:
        """Windows over groups, of which often only the first are shown."""
        rng = self.rng
        kinds = [self.some_kind(scope, but=("float", "exact")) for _ in range(rng.randint(1, 2))]
        keys = tuple({each.ours: each for each in (rng.choice(scope[k]) for k in kinds)}.values())
        by = self.total(keys, 0)
        over = rng.choice(("()", "(partition by {0})", f"(order by {by})"))
        text = rng.choice(
            (
                *(f"count(*) over {over}", f"sum(count(*)) over {over}"),
                *(f"max(count(*)) over {over}", f"lag(count(*)) over (order by {by})"),
                *(f"row_number() over (order by {by})", f"rank() over (order by count(*), {by})"),
                f"lead(count(*), 2) over (order by {by})",
            )
        )
        aggregate = self.aggregate(scope, grouped=True)
        found = Select((*keys, aggregate, Expr("int", text, keys)), sources, where, len(keys))
        if rng.random() < 0.2:  # then there are no groups but the rows' own
            counted = Expr("int", "count(*) over (partition by {0})", keys[:1])
            found = Select((keys[0], counted), sources, where, distinct=True)
            keys = keys[:1]
        return self.shown(found, keys) if rng.random() < 0.7 else found

    def shown(self, rows: Select, by: Sequence[Expr]) -> Select:
        """The first rows in an order that is total."""
        limit = (self.rng.choice(_LIMITS), self.rng.choice(_PASSED))
        order = tuple((each, self.direction()) for each in by)
        return replace(rows, order=order, limit=limit)

    def first(self, rows: Select, scope: Scope, ids: Sequence[Expr]) -> Select:
        """The first rows of each group: DISTINCT ON, or QUALIFY."""
        rng = self.rng
        by = rng.choice(scope[self.some_kind(scope, but=("float",))])
        order = [(each, self.direction()) for each in ids]
        if rng.random() < 0.5:
            once = (
                each for each in order if each[0].ours != by.ours
            )  # the engine fails on a key twice
            return replace(rows, on=by, order=((by, self.direction()), *once))
        total = ", ".join(f"{{{at + 1}}} {way}" for at, (_, way) in enumerate(order))
        text = f"row_number() over (partition by {{0}} order by {total}) <= {rng.randint(1, 2)}"
        return replace(rows, qualify=Expr("bool", text, (by, *ids)))

    def total(self, ids: Sequence[Expr], first: int) -> str:
        """An order by these, which are parts of an expression from ``first`` on."""
        return ", ".join(f"{{{at + first}}} {self.direction()}" for at in range(len(ids)))

    def direction(self) -> str:
        """An order in which nulls have a place."""
        return self.rng.choice(("asc", "desc")) + self.rng.choice((" nulls first", " nulls last"))

    def key(self, scope: Scope) -> Expr:
        """What is grouped or sorted by: never a literal, whose number would be a place."""
        kind = self.some_kind(scope)
        return (
            self.rng.choice(scope[kind])
            if self.rng.random() < 0.7
            else Expr(
                kind, "coalesce({0}, {1})", (self.rng.choice(scope[kind]), literal(kind, self.rng))
            )
        )

    def one_zero(self, key: Expr) -> Expr:
        """What the first rows are sorted by: which of two zeros is first differs by execution."""
        floats = key.kind in {"float", "exact"} and self.signed_zero
        return Expr(key.kind, "({0} + 0e0)", (key,)) if floats else key
