"""Draws statements: typed, deterministic (an order is always total), most of them with rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

from differential.expressions import SAME, Expressions, Scope
from differential.literals import literal
from differential.rows import COLUMNS, Kind
from differential.trees import Both, Expr, JoinKind, Query, Select, Source, With

_JOINS: tuple[JoinKind, ...] = ("join", "join", "join", "left join", "right join", "full join")
#: Columns that joins and groups are made by: few values, or nasty ones.
_KEYS = ("k", "u", "b", "day", "x", "y", "l", "i", "c", "m", "s", "t")
#: Rows within a day before each, those of its own moment included: no order of them is needed.
_DAY = (
    "count(*) over (partition by {1} order by {0} asc nulls first"
    " range between interval '1 day' preceding and current row)"
)


class Grammar(Expressions):
    """Draws statements from one source of chance."""

    def aggregate(self, scope: Scope, *, grouped: bool = False) -> Expr:
        """One aggregate, the same in whatever order rows come (see ``known.WRITTEN``)."""
        rng = self.rng
        word = rng.choice(
            (
                "count(*)",
                "count",
                "count",
                "distinct",
                "sum",
                "sum",
                "avg",
                "min",
                "max",
                "min",
                "max",
                "bool",
            )
        )
        only = ""
        filters: tuple[Expr, ...] = ()
        if word == "count(*)":
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
        else:
            kind = self.some_kind(scope, but=("bool", "float") if grouped else ("bool",))
            found = Expr(kind, f"{word}({{0}})", (self.expr(kind, scope, 1),))
        if rng.random() < 0.15:
            filters = (self.predicate(scope, 0),)
            only = f" filter (where {{{len(found.parts)}}})"
        return Expr(found.kind, found.ours + only, (*found.parts, *filters))

    def window(self, scope: Scope, ids: Sequence[Expr]) -> Expr:
        """A window function over a total order."""
        rng = self.rng
        kind = self.some_kind(scope, but=("bool",))
        value, by = self.expr(kind, scope, 0), self.expr(self.some_kind(scope), scope, 0)
        total = ", ".join(f"{{{at + 2}}} {self.direction()}" for at in range(len(ids)))
        over = f"over (partition by {{1}} order by {total}"
        frame = rng.choice(
            (
                "",
                " rows between 2 preceding and current row",
                " rows between unbounded preceding and unbounded following",
            )
        )
        largest = "count" if kind == "float" else "max"
        shapes = (
            (kind, f"lag({{0}}) {over})"),
            (kind, f"lead({{0}}) {over})"),
            (kind, f"first_value({{0}}) {over}{frame})"),
            (kind, f"last_value({{0}}) {over}{frame})"),
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

    def direction(self) -> str:
        """An order in which nulls have a place."""
        return self.rng.choice(("asc", "desc")) + self.rng.choice((" nulls first", " nulls last"))

    def sources(self) -> tuple[tuple[Source, ...], Scope, list[Expr]]:
        """FROM, what is in scope, and what tells its rows apart."""
        rng = self.rng
        first, scope = self.table("a") if rng.random() < 0.9 else self.table("b")
        found, ids = [first], [self.named(scope, "id")]
        if rng.random() < 0.5:
            for _ in range(1 if rng.random() < 0.9 else 2):
                other, inner = self.table("b")
                ids.append(self.named(inner, "id"))
                on = self.join_condition(scope, inner)
                found.append(Source(other.of, other.alias, rng.choice(_JOINS), on))
                scope = {kind: [*scope[kind], *inner[kind]] for kind in scope}
        return tuple(found), scope, ids

    def join_condition(self, left: Scope, right: Scope) -> Expr:
        """An equality, often with more."""
        rng = self.rng
        name = rng.choice(_KEYS) if rng.random() < 0.7 else rng.choice(("k", "id"))
        kind = COLUMNS[name]
        key = self.named(right, name)
        other = (
            rng.choice(left[kind])
            if rng.random() < 0.3
            else next(e for e in left[kind] if e.ours.endswith(f".{name}"))
        )
        word = "=" if rng.random() < 0.9 else SAME
        same = Expr("bool", f"({{0}} {word} {{1}})", (other, key))
        if rng.random() < 0.4:
            both = {each: [*left[each], *right[each]] for each in left}
            return Expr("bool", "({0} and {1})", (same, self.predicate(both, 0)))
        return same

    def where(self, scope: Scope) -> Expr | None:
        """A predicate, or none."""
        rng = self.rng
        if rng.random() < 0.3:
            return None
        found = self.predicate(scope, rng.choice((0, 0, 1, 2)))
        if rng.random() < 0.12:
            more = self.in_query(scope)
            word = rng.choice(("and", "and", "and", "or"))
            return Expr("bool", f"({{0}} {word} {{1}})", (found, more))
        return found

    def statement(self) -> Query:
        """Any statement."""
        rng = self.rng
        self.names = 0
        shape = rng.random()
        for share, draw in _STATEMENTS:
            shape -= share
            if shape < 0:
                return draw(self)
        return self.select()

    def select(self) -> Select:
        """One SELECT of any shape."""
        rng = self.rng
        sources, scope, ids = self.sources()
        where = self.where(scope)
        shape = rng.choice(
            (*("rows", "rows", "groups", "groups", "whole", "top"), "distinct", "window", "first")
        )
        if shape in {"whole", "groups"}:
            return replace(self.aggregates(scope, shape), sources=sources, where=where)
        items = tuple(self.expr(self.some_kind(scope), scope, 1) for _ in range(rng.randint(1, 3)))
        if shape == "distinct":
            return Select(items, sources, where, distinct=True)
        if shape == "window":
            return Select((*items, self.window(scope, ids)), sources, where)
        if shape == "first":
            return self.first(Select((*items, *ids), sources, where), scope)
        if shape == "top":
            first = (self.one_zero(self.key(scope)), self.direction())
            order = (first, *((each, self.direction()) for each in ids))
            limit = (rng.choice((1, 3, 10)), rng.choice((0, 0, 5)))
            return Select((*items, *ids), sources, where, order=order, limit=limit)
        return Select((*items, *ids), sources, where)

    def aggregates(self, scope: Scope, shape: str) -> Select:
        """Of all rows, or of groups; FROM and WHERE are left open."""
        rng = self.rng
        if shape == "whole":
            distinct = rng.random() < 0.3  # then the engine makes groups of them
            count = range(rng.randint(1, 4))
            items = tuple(self.aggregate(scope, grouped=distinct) for _ in count)
            if not distinct:
                items = tuple(each for each in items if "distinct" not in each.ours) or items[:1]
            return Select(items, ())
        keys = tuple(self.key(scope) for _ in range(rng.randint(1, 2)))
        items = (
            *keys,
            *(self.aggregate(scope, grouped=True) for _ in range(rng.randint(1, 3))),
        )
        having = Expr("bool", "(count(*) > {0})", (Expr("int", str(rng.randrange(3))),))
        if rng.random() < 0.3:
            having = Expr(
                "bool", "({0} or {1} is null)", (having, self.aggregate(scope, grouped=True))
            )
        found = Select(items, (), None, len(keys), having)
        plain = len({key.ours for key in keys if not key.parts}) == len(keys)
        if rng.random() < 0.2 and plain:  # the engine refuses a set of one key twice
            return replace(found, having=None, sets=rng.choice(("rollup", "cube")))
        return found if rng.random() < 0.3 else replace(found, having=None)

    def filtered(self) -> Select:
        """Rows that are told apart, under a predicate."""
        self.names = 0
        sources, scope, ids = self.sources()
        return Select(tuple(ids), sources, self.predicate(scope))

    def partitionable(self) -> Select:
        """The same, or aggregates that can be made of the aggregates of parts."""
        rng = self.rng
        whole = self.filtered()
        if rng.random() < 0.5:
            return whole
        self.names = 0
        sources, scope, _ = self.sources()
        items = []
        for _ in range(rng.randint(1, 3)):
            kind = self.some_kind(scope, but=("bool",))
            word = rng.choice(("count", "min", "max"))
            if kind in {"int", "exact", "decimal"}:
                word = rng.choice(("count", "min", "max", "sum", "sum"))
            result: Kind = "int" if word == "count" else kind
            items.append(Expr(result, f"{word}({{0}})", (self.expr(kind, scope, 1),)))
        return Select((Expr("int", "count(*)"), *items), sources, self.predicate(scope))

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

    def first(self, rows: Select, scope: Scope) -> Select:
        """The first rows of each group: DISTINCT ON, or QUALIFY."""
        rng = self.rng
        ids = rows.items[-len(rows.sources) :]
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

    def unnested(self) -> Select:
        """A row for each element of a list."""
        source, scope = self.table("a")
        item = Expr("int", f"unnest({source.alias}.g)")
        return Select((self.named(scope, "id"), item), (source,), self.where(scope))

    def outward(self) -> Select:
        """A value for each row of a sub-query that refers to it: in the SELECT list, or LATERAL."""
        rng = self.rng
        source, scope = self.table("a")
        other, inner = self.table("b")
        key = rng.choice(("k", "u", "b", "day"))
        same = Expr("bool", "({0} = {1})", (self.named(inner, key), self.named(scope, key)))
        if rng.random() < 0.5:
            same = Expr("bool", "({0} and {1})", (same, self.predicate(inner, 0)))
        kind = self.some_kind(inner, but=("bool", "float"))
        word, result = rng.choice((("count", "int"), ("min", kind), ("max", kind)))
        value = Expr(result, f"{word}({{0}})", (rng.choice(inner[kind]),))
        query = Select((value,), (other,), same)
        id_, where = self.named(scope, "id"), self.where(scope)
        if rng.random() < 0.5:
            item = Expr(result, "({q})", query=query)
            return Select((id_, item), (source,), where)
        alias = self.alias()
        lateral = Expr("bool", "lateral ({q})", query=query)
        join = rng.choice(("cross join", "left join"))
        on = None if join == "cross join" else Expr("bool", "true")
        sources = (source, Source(lateral, alias, join, on))
        return Select((id_, Expr(result, f"{alias}.c0")), sources, where)

    def named_query(self) -> With:
        """WITH, and the query joined to itself or to a table; or a recursive count."""
        rng = self.rng
        name, one = self.alias(), self.alias()
        source, scope = self.table("b")
        other = self.alias()
        if rng.random() < 0.3:
            text = f"select cast(0 as bigint) as c0 union all select c0 + 1 from {name}"
            of: Query | Expr = Expr("int", f"{text} where c0 < {rng.randrange(1, 9)}")
            column = Expr("int", f"{one}.c0")
        else:
            of, kinds = Select((self.named(scope, "k"), self.aggregate(scope)), (source,)), ()
            of = replace(of, grouped=1, where=self.where(scope))
            column = Expr("int", f"{one}.c{len(kinds)}")
        table, outer = self.table(rng.choice("ab"))
        twice = Source(Expr("int", name), other, "join", None)
        on = Expr("bool", "({0} = {1})", (column, Expr("int", f"{other}.c0")))
        if rng.random() < 0.7:
            on = Expr("bool", "({0} = {1})", (column, self.named(outer, "k")))
            twice = replace(table, join=rng.choice(_JOINS))
        sources = (Source(Expr("int", name), one), replace(twice, on=on))
        return With(name, of, Select((column, Expr("int", "count(*)")), sources, grouped=1))

    def sorted_both(self) -> Select:
        """The first rows of a set operation, by all their columns: equal rows are one."""
        rng = self.rng
        inner, alias = self.both(), self.alias()
        columns = tuple(
            self.one_zero(self.column(kind, f"{alias}.c{at}"))
            for at, kind in enumerate(inner.kinds)
        )
        order = tuple((each, self.direction()) for each in columns)
        limit = (rng.choice((1, 5, 20)), rng.choice((0, 0, 3)))
        return Select(columns, (Source(inner, alias),), order=order, limit=limit)

    def both(self) -> Both:
        """UNION, INTERSECT or EXCEPT of columns of the same kinds."""
        rng = self.rng
        sides: list[Select] = []
        for name in rng.sample(("a", "b"), 2):
            source, scope = self.table(name)
            kinds = (
                sides[0].kinds
                if sides
                else tuple(self.some_kind(scope) for _ in range(rng.randint(1, 2)))
            )
            # The very columns on both sides: engines widen types of different ones differently.
            items = tuple(
                self.expr(kind, scope, 1) if kind in _EVEN else rng.choice(scope[kind][:1])
                for kind in kinds
            )
            sides.append(Select(items, (source,), self.where(scope)))
        word = rng.choice(("union", "union all", "intersect", "except"))
        return Both(word, sides[0], sides[1])

    def nested(self) -> Select:
        """An aggregate over a derived table, joined or not."""
        rng = self.rng
        inner = self.select()
        alias = self.alias()
        scope: dict[Kind, list[Expr]] = {kind: [] for kind in get_args(Kind)}
        for at, kind in enumerate(inner.kinds):
            scope[kind].append(self.column(kind, f"{alias}.c{at}"))
        items = tuple(self.aggregate_of(scope) for _ in range(rng.randint(1, 2)))
        where = self.predicate(scope, 0) if rng.random() < 0.3 else None
        return Select(items, (Source(inner, alias),), where)

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


#: Shares of statements that are no plain SELECT.
_STATEMENTS: Sequence[tuple[float, Callable[[Grammar], Query]]] = (
    (0.06, Grammar.both),
    (0.03, Grammar.sorted_both),
    (0.08, Grammar.nested),
    (0.05, Grammar.named_query),
    (0.06, Grammar.outward),
    (0.02, Grammar.unnested),
)
#: Kinds whose expressions have one type each.
_EVEN: frozenset[Kind] = frozenset({"text", "bool", "time", "date"})
