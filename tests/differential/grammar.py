"""Draws statements: typed, deterministic (an order is always total), most of them with rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

from differential.aggregates import Aggregates
from differential.expressions import SAME, Scope
from differential.rows import COLUMNS, Kind
from differential.trees import Both, Expr, JoinKind, Query, Select, Source, With

_JOINS: tuple[JoinKind, ...] = ("join", "join", "join", "left join", "right join", "full join")
#: Columns that joins and groups are made by: few values, or nasty ones.
_KEYS = ("k", "u", "b", "day", "x", "y", "l", "i", "c", "m", "s", "t")
#: Those of which no two equal values differ, as 0.0 and -0.0 do.
_WHOLE_KEYS = tuple(name for name in _KEYS if COLUMNS[name] != "float")
#: Those that leave their right side out of what is in scope.
_HALVES: tuple[JoinKind, ...] = ("left semi join", "left anti join")


class Grammar(Aggregates):
    """Draws statements from one source of chance."""

    def sources(self) -> tuple[tuple[Source, ...], Scope, list[Expr]]:
        """FROM, what is in scope, and what tells its rows apart."""
        rng = self.rng
        first, scope = self.table("a") if rng.random() < 0.9 else self.table("b")
        found, ids = [first], [self.named(scope, "id")]
        if rng.random() < 0.5:
            count = 1 if rng.random() < 0.9 else 2
            for _ in range(count):
                other, inner = self.table("b")
                on, how = self.join_condition(scope, inner), rng.random()
                if how < 0.08:
                    found.append(replace(other, join=rng.choice(_HALVES), on=on))
                    continue
                joined = replace(other, join=rng.choice(_JOINS), on=on)
                if how < 0.16 and count == 1:  # of three tables the name would be ambiguous
                    by = rng.choice(_WHOLE_KEYS)
                    joined = replace(other, join=rng.choice(("join", "left join")), using=by)
                found.append(joined)
                ids.append(self.named(inner, "id"))
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
            (
                *("rows", "rows", "groups", "groups", "whole", "top"),
                *("distinct", "window", "first", "windows of groups"),
            )
        )
        if shape in {"whole", "groups"}:
            found = self.aggregates(scope, shape, ids)
            return replace(found, sources=sources, where=where)
        if shape == "windows of groups":
            return self.of_groups(sources, scope, where)
        items = tuple(self.expr(self.some_kind(scope), scope, 1) for _ in range(rng.randint(1, 3)))
        items += tuple(self.column(COLUMNS[s.using], s.using) for s in sources if s.using)
        if rng.random() < 0.04:
            items += (self.value(),)
        if shape == "distinct":
            return Select(items, sources, where, distinct=True)
        more = (self.window(scope, ids),) if shape == "window" else tuple(ids)
        rows = Select((*items, *more), sources, where)
        if shape == "first":
            rows = self.first(rows, scope, ids)
        elif shape == "top":
            rows = self.shown(rows, (self.one_zero(self.key(scope)), *ids))
        elif shape == "window" and rng.random() < 0.4:
            rows = self.shown(rows, ids)
        return rows

    def value(self) -> Expr:
        """A sub-query of one value."""
        source, scope = self.table("b")
        of = self.aggregate(scope)
        return Expr(of.kind, "({q})", query=Select((of,), (source,), self.where(scope)))

    def aggregates(self, scope: Scope, shape: str, ids: Sequence[Expr]) -> Select:
        """Of all rows, or of groups; FROM and WHERE are left open."""
        rng = self.rng
        if shape == "whole":
            distinct = rng.random() < 0.3  # then the engine makes groups of them
            count = range(rng.randint(1, 4))
            items = tuple(self.aggregate(scope, grouped=distinct, ids=ids) for _ in count)
            if not distinct:
                items = tuple(each for each in items if "distinct" not in each.ours) or items[:1]
            return Select(items, ())
        keys = tuple(self.key(scope) for _ in range(rng.randint(1, 2)))
        items = (
            *keys,
            *(self.aggregate(scope, grouped=True, ids=ids) for _ in range(rng.randint(1, 3))),
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
        inner: Select | Both = self.select() if rng.random() < 0.8 else self.both()
        alias = self.alias()
        scope: dict[Kind, list[Expr]] = {kind: [] for kind in get_args(Kind)}
        for at, kind in enumerate(inner.kinds):
            scope[kind].append(self.column(kind, f"{alias}.c{at}"))
        sources: tuple[Source, ...] = (Source(inner, alias),)
        if rng.random() < 0.3:
            other, more = self.table("b")
            kind = self.some_kind(scope)
            on = Expr("bool", "({0} = {1})", (scope[kind][0], rng.choice(more[kind])))
            sources = (*sources, replace(other, join=rng.choice((*_JOINS, *_HALVES)), on=on))
        items = tuple(self.aggregate_of(scope) for _ in range(rng.randint(1, 2)))
        where = self.predicate(scope, 0) if rng.random() < 0.3 else None
        return Select(items, sources, where)


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
