"""Draws statements: typed, deterministic (an order is always total), most of them with rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from differential.rows import COLUMNS, NASTY_TEXTS, WORDS, Kind
from differential.trees import Both, Expr, JoinKind, Query, Select, Source, With

#: Columns in scope: their SQL by kind.
Scope = Mapping[Kind, Sequence[Expr]]

_INT_COLUMNS = ("id", "k")
_COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
_JOINS: tuple[JoinKind, ...] = ("join", "join", "join", "left join", "right join", "full join")
#: Columns that joins and groups are made by: few values, or nasty ones.
_KEYS = ("k", "u", "b", "day", "x", "y", "l", "i", "c", "m", "s", "t")
_DEPTH = 3


#: Rows within a day before each, those of its own moment included: no order of them is needed.
_DAY = (
    "count(*) over (partition by {1} order by {0} asc nulls first"
    " range between interval '1 day' preceding and current row)"
)


def literal(kind: Kind, rng: random.Random) -> Expr:  # noqa: C901, PLR0911 - one for each kind
    """A literal that rows may well hold."""
    match kind:
        case "int":
            return _number(kind, rng.choice((rng.randrange(12), rng.randrange(400), -1)))
        case "wide":
            edges = (-(2**63), 2**63 - 1, -(2**31), 2**31 - 1, 2**53 + 1, -1, 0, 1)
            return _number(kind, rng.choice((*edges, rng.randrange(-50, 50), rng.randrange(1200))))
        case "float" | "exact":
            special = rng.choice(("NaN", "Infinity", "-Infinity"))
            if kind == "float" and rng.random() < 0.15:
                return Expr(kind, f"cast('{special}' as double)", value=(float(special), "double"))
            number = rng.choice((0.0, 0.5, -1.0, 1e300, rng.randrange(-40, 40) / 4))
            if kind == "exact":
                number = rng.randrange(-8000, 8000) / 8
            return Expr(kind, f"cast('{number!r}' as double)", value=(number, "double"))
        case "decimal":
            text = rng.choice(("0.00", "0.01", "1.50", "-1.50", f"{rng.randrange(-999, 999)}.25"))
            return Expr(kind, f"cast('{text}' as decimal(18, 8))")
        case "huge":
            edge = "9" * 28 + "." + "9" * 10
            text = rng.choice((edge, f"-{edge}", "0", "0.0000000001", str(rng.randrange(400))))
            return Expr(kind, f"cast('{text}' as decimal(38, 10))")
        case "text":
            text = rng.choice((*WORDS, *WORDS, f"s{rng.randrange(30)}", *NASTY_TEXTS))
            return Expr(kind, _quoted(text), value=(text, "varchar"))
        case "bool":
            return Expr(kind, rng.choice(("true", "false", "cast(null as boolean)")))
        case "time" | "zoned":
            return _moment(kind, rng)
        case "date":
            texts = ("1970-01-01", "1969-12-31", "1600-02-29", "2022-01-10", "2024-02-29")
            return Expr(kind, f"date '{rng.choice(texts)}'")


def _number(kind: Kind, number: int) -> Expr:
    return Expr(kind, f"cast('{number}' as bigint)", value=(number, "bigint"))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''").replace("{", "{{").replace("}", "}}") + "'"


def _moment(kind: Kind, rng: random.Random) -> Expr:
    text = rng.choice(
        (
            *("1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00.000001"),
            *("1899-12-31 23:59:59.999999", "2199-01-01 00:00:00", "2024-03-01 00:00:00"),
            f"2022-01-{rng.randrange(7, 14):02} 00:0{rng.randrange(10)}:00",
        )
    )
    if rng.random() < 0.1:
        text = f"{text.partition('.')[0]}.000000001"
        return Expr(kind, f"{_TIME_TYPES[kind]} '{text}'", apart="nanoseconds")
    return Expr(kind, f"{_TIME_TYPES[kind]} '{text}'")


_TIME_TYPES: dict[Kind, str] = {"time": "timestamp", "zoned": "timestamptz"}


@dataclass
class Grammar:
    """Draws from one source of chance.

    Attributes:
        rng: the source.
        signed_zero: whether floats may be -0.0: then DuckDB is not asked about them.
        names: gives every source of a statement an alias of its own.
    """

    rng: random.Random
    signed_zero: bool = False
    names: int = field(default=0, init=False)

    # --- scopes

    def alias(self) -> str:
        """A name that no other source of the statement has."""
        self.names += 1
        return f"t{self.names}"

    def table(self, name: str) -> tuple[Source, Scope]:
        """A table and its columns."""
        alias = self.alias()
        scope: dict[Kind, list[Expr]] = {kind: [] for kind in get_args(Kind)}
        for column, kind in COLUMNS.items():
            scope[kind].append(self.column(kind, f"{alias}.{column}"))
        scope["int"].append(self.column("int", f"{alias}.r['p']"))
        scope["text"].append(self.column("text", f"{alias}.r['q']"))
        scope["int"].append(self.column("int", f"{alias}.g[1]"))
        return Source(name, alias), scope

    def column(self, kind: Kind, text: str) -> Expr:
        """A column, with what is known about its kind."""
        floats = kind in {"float", "exact"}
        return Expr(kind, text, apart="signed zero" if floats and self.signed_zero else "")

    def named(self, scope: Scope, name: str) -> Expr:
        """The column of a table's scope with this name."""
        (found,) = [e for e in scope[COLUMNS[name]] if e.ours.endswith(f".{name}")]
        return found

    # --- expressions

    def expr(self, kind: Kind, scope: Scope, depth: int = _DEPTH) -> Expr:
        """Any expression of a kind."""
        rng = self.rng
        columns = scope[kind]
        if depth <= 0 or rng.random() < 0.4:
            if columns and rng.random() < 0.85:
                return rng.choice(columns)
            return literal(kind, rng)
        if kind == "bool":
            return self.predicate(scope, depth)
        rules = [*_RULES.get(kind, ()), *_ANY]
        return rng.choice(rules)(self, kind, scope, depth - 1)

    def predicate(self, scope: Scope, depth: int = _DEPTH) -> Expr:
        """Something that is true, false or null."""
        rng = self.rng
        if depth > 0 and rng.random() < 0.4:
            left, right = (self.predicate(scope, depth - 1) for _ in range(2))
            word = rng.choice(("({0} and {1})", "({0} or {1})", "({0} or {1})"))
            if rng.random() < 0.2:
                return Expr("bool", "(not {0})", (left,))
            return Expr("bool", word, (left, right))
        return rng.choice(_PREDICATES)(self, scope, depth - 1)

    def compare(self, scope: Scope, depth: int) -> Expr:
        """A comparison, mostly with a literal."""
        kind = self.some_kind(scope)
        left = self.expr(kind, scope, depth - 1)
        right = literal(kind, self.rng)
        if self.rng.random() < 0.25:
            right = self.expr(kind, scope, depth - 1)
        if kind == "int" and self.rng.random() < 0.2:
            right = literal("wide", self.rng)
        word = self.rng.choice((*_COMPARISONS, *_COMPARISONS, _DISTINCT, _SAME))
        sides = (left, right) if self.rng.random() < 0.85 else (right, left)
        return Expr("bool", f"({{0}} {word} {{1}})", sides)

    def between(self, scope: Scope, depth: int) -> Expr:
        """A range."""
        kind = self.some_kind(scope, but=("bool",))
        low, high = (literal(kind, self.rng) for _ in range(2))
        word = self.rng.choice(("between", "between", "not between"))
        return Expr(
            "bool",
            f"({{0}} {word} {{1}} and {{2}})",
            (self.expr(kind, scope, depth - 1), low, high),
        )

    def in_list(self, scope: Scope, depth: int) -> Expr:
        """IN a list of literals."""
        kind = self.some_kind(scope, but=("bool",))
        many = tuple(literal(kind, self.rng) for _ in range(self.rng.choice((1, 2, 3, 5))))
        inside = ", ".join(f"{{{at + 1}}}" for at in range(len(many)))
        if self.rng.random() < 0.1:
            inside += ", null"
        word = self.rng.choice(("in", "in", "not in"))
        return Expr(
            "bool", f"({{0}} {word} ({inside}))", (self.expr(kind, scope, depth - 1), *many)
        )

    def is_null(self, scope: Scope, depth: int) -> Expr:
        """Whether something is null."""
        word = self.rng.choice(("is null", "is not null"))
        return Expr(
            "bool", f"({{0}} {word})", (self.expr(self.some_kind(scope), scope, depth - 1),)
        )

    def like(self, scope: Scope, depth: int) -> Expr:
        """A pattern."""
        pattern = self.rng.choice(
            ("a%", "%a", "%b%", "_", "__", "", "%", "s1%", "s_", "é%", "日%", "x%", "S%")
        )
        word = self.rng.choice(("like", "like", "not like", "ilike"))
        return Expr(
            "bool", f"({{0}} {word} {_quoted(pattern)})", (self.expr("text", scope, depth - 1),)
        )

    def truth(self, scope: Scope, depth: int) -> Expr:
        """What three-valued logic makes of a predicate."""
        word = self.rng.choice(("is true", "is not true", "is false", "is not false"))
        return Expr("bool", f"({{0}} {word})", (self.expr("bool", scope, depth - 1),))

    def in_query(self, scope: Scope) -> Expr:
        """IN, EXISTS or a comparison with one value, over table b."""
        rng = self.rng
        source, inner = self.table("b")
        kind = self.some_kind(scope, but=("bool",))
        shape = rng.random()
        if shape < 0.4 or not inner[kind]:
            column = rng.choice(inner[kind]) if inner[kind] else literal(kind, rng)
            query = Select((column,), (source,), self.predicate(inner, 0))
            word = rng.choice(("in", "in", "not in"))
            return Expr(
                "bool", f"({{0}} {word} ({{q}}))", (self.expr(kind, scope, 0),), query=query
            )
        if shape < 0.7:
            outer = self.expr(kind, scope, 0)
            same = Expr("bool", "({0} = {1})", (rng.choice(inner[kind]), outer))
            both = Expr("bool", "({0} and {1})", (same, self.predicate(inner, 0)))
            query = Select((Expr("int", "1"),), (source,), both)
            return Expr("bool", f"({rng.choice(('', 'not '))}exists ({{q}}))", query=query)
        if shape < 0.8:
            query = Select((rng.choice(inner[kind]),), (source,), self.predicate(inner, 0))
            word = f"{rng.choice(_COMPARISONS)} {rng.choice(('any', 'all'))}"
            sides = (self.expr(kind, scope, 0),)
            return Expr("bool", f"({{0}} {word} ({{q}}))", sides, query=query)
        word = rng.choice(("min", "max"))
        query = Select((Expr(kind, f"{word}({{0}})", (rng.choice(inner[kind]),)),), (source,))
        sides = (self.expr(kind, scope, 0),)
        return Expr("bool", f"({{0}} {rng.choice(_COMPARISONS)} ({{q}}))", sides, query=query)

    def some_kind(self, scope: Scope, but: Sequence[Kind] = ()) -> Kind:
        """A kind that the scope has columns of."""
        return self.rng.choice([kind for kind, has in scope.items() if has and kind not in but])

    def conditional(self, kind: Kind, scope: Scope, depth: int) -> Expr:
        """CASE."""
        parts = (
            self.predicate(scope, depth - 1),
            self.expr(kind, scope, depth),
            self.expr(kind, scope, depth),
        )
        return Expr(kind, "(case when {0} then {1} else {2} end)", parts)

    def coalesced(self, kind: Kind, scope: Scope, depth: int) -> Expr:
        """COALESCE or NULLIF."""
        word = self.rng.choice(("coalesce", "nullif"))
        return Expr(
            kind, f"{word}({{0}}, {{1}})", (self.expr(kind, scope, depth), literal(kind, self.rng))
        )

    # --- aggregates

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

    # --- statements

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
        word = "=" if rng.random() < 0.9 else _SAME
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
            first = (self.key(scope), self.direction())
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
        if rng.random() < 0.2 and not any(key.parts for key in keys):
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

    def first(self, rows: Select, scope: Scope) -> Select:
        """The first rows of each group: DISTINCT ON, or QUALIFY."""
        rng = self.rng
        ids = rows.items[-len(rows.sources) :]
        by = rng.choice(scope[self.some_kind(scope, but=("float",))])
        order = [(each, self.direction()) for each in ids]
        if rng.random() < 0.5:
            return replace(rows, on=by, order=((by, self.direction()), *order))
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
        columns = tuple(self.column(k, f"{alias}.c{at}") for at, k in enumerate(inner.kinds))
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
_DISTINCT, _SAME = "is distinct from", "is not distinct from"
#: Kinds whose expressions have one type each.
_EVEN: frozenset[Kind] = frozenset({"text", "bool", "time", "date"})


def _template(
    ours: str, kinds: Sequence[Kind], duck: str = "", apart: str = ""
) -> Callable[[Grammar, Kind, Scope, int], Expr]:
    def draw(grammar: Grammar, kind: Kind, scope: Scope, depth: int) -> Expr:
        return Expr(
            kind, ours, tuple(grammar.expr(each, scope, depth) for each in kinds), duck, apart=apart
        )

    return draw


_ANY = (Grammar.conditional, Grammar.coalesced)
_RULES: dict[Kind, Sequence[Callable[[Grammar, Kind, Scope, int], Expr]]] = {
    "int": (
        _template("({0} + {1})", ("int", "int")),
        _template("({0} - {1})", ("int", "int")),
        _template("({0} % 7)", ("int",)),
        _template("({0} / 3)", ("int",), "({0} // 3)"),
        _template("abs({0})", ("int",)),
        _template("char_length({0})", ("text",)),
        _template("extract(year from {0})", ("time",)),
        _template("extract(month from {0})", ("date",)),
        *(
            _template(f"extract({part} from {{0}})", ("time",))
            for part in ("quarter", "week", "doy", "dow", "hour", "minute")
        ),
        _template("strpos({0}, 'a')", ("text",)),
        _template("greatest({0}, {1})", ("int", "int")),
        _template("least({0}, {1})", ("int", "int")),
        _template("try_cast({0} as bigint)", ("text",)),
    ),
    "wide": (
        _template("({0} + {1})", ("wide", "int"), apart="wide arithmetic"),
        _template("({0} * {1})", ("wide", "wide"), apart="wide arithmetic"),
    ),
    "exact": (
        _template("({0} + {1})", ("exact", "exact")),
        _template("({0} * 2e0)", ("exact",)),
        *(_template(f"{word}({{0}})", ("exact",)) for word in ("round", "floor", "ceil", "abs")),
    ),
    "float": (_template("({0} + {1})", ("float", "exact")),),
    "decimal": (
        _template("({0} + {1})", ("decimal", "decimal")),
        _template("({0} * {1})", ("decimal", "decimal"), apart="decimal scale"),
    ),
    "text": (
        _template("({0} || {1})", ("text", "text")),
        _template("substr({0}, 1, 2)", ("text",)),
        _template("replace({0}, 'a', 'q')", ("text",)),
        _template("cast({0} as varchar)", ("int",)),
        _template("concat({0}, '-')", ("text",)),
        *(
            _template(words, ("text",))
            for words in (
                *("lower({0})", "trim({0})", "left({0}, 2)", "right({0}, 2)", "md5({0})"),
                *("lpad({0}, 4, 'xy')", "split_part({0}, 'b', 1)", "translate({0}, 'ab', 'x')"),
                *("regexp_replace({0}, '[a-b]+', 'z')", "repeat({0}, 2)"),
            )
        ),
        _template("concat_ws('-', {0}, {1})", ("text", "text")),
    ),
    "time": (
        _template("date_trunc('day', {0})", ("time",)),
        _template("date_trunc('month', {0})", ("time",)),
        _template("({0} + interval '1 hour')", ("time",)),
        _template("({0} + interval '1 month')", ("time",)),
        _template("({0} - interval '1 year')", ("time",)),
        *(
            _template(f"date_trunc('{unit}', {{0}})", ("time",))
            for unit in ("year", "quarter", "week", "minute")
        ),
        _template(
            "date_bin(interval '15 minutes', {0}, timestamp '1970-01-01 00:00:00')",
            ("time",),
            "time_bucket(interval '15 minutes', {0}, timestamp '1970-01-01 00:00:00')",
        ),
    ),
    "zoned": (_template("date_trunc('hour', {0})", ("zoned",)),),
    "date": (_template("cast({0} as date)", ("time",)),),
}
_PREDICATES: Sequence[Callable[[Grammar, Scope, int], Expr]] = (
    *[Grammar.compare] * 5,
    Grammar.between,
    Grammar.between,
    Grammar.in_list,
    Grammar.in_list,
    Grammar.is_null,
    Grammar.like,
    Grammar.truth,
)
