"""Draws expressions: typed, over the columns of a scope."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from differential.literals import literal, quoted
from differential.rows import COLUMNS, Kind
from differential.trees import Expr, Select, Source

#: Columns in scope: their SQL by kind.
Scope = Mapping[Kind, Sequence[Expr]]

_COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
_DISTINCT, SAME = "is distinct from", "is not distinct from"
_DEPTH = 3


@dataclass
class Expressions:
    """Draws expressions of one kind each from one source of chance.

    Attributes:
        rng: the source.
        signed_zero: whether floats may be -0.0: then DuckDB is not asked about them.
        names: gives every source of a statement an alias of its own.
    """

    rng: random.Random
    signed_zero: bool = False
    names: int = field(default=0, init=False)

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
        has = f"array_has({alias}.g, 2)", f"list_contains({alias}.g, 2)"
        scope["bool"].append(Expr("bool", has[0], duck=has[1]))
        return Source(name, alias), scope

    def column(self, kind: Kind, text: str) -> Expr:
        """A column, with what is known about its kind."""
        floats = kind in {"float", "exact"}
        return Expr(kind, text, apart="signed zero" if floats and self.signed_zero else "")

    def named(self, scope: Scope, name: str) -> Expr:
        """The column of a table's scope with this name."""
        (found,) = [e for e in scope[COLUMNS[name]] if e.ours.endswith(f".{name}")]
        return found

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
        word = self.rng.choice((*_COMPARISONS, *_COMPARISONS, _DISTINCT, SAME))
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
            "bool", f"({{0}} {word} {quoted(pattern)})", (self.expr("text", scope, depth - 1),)
        )

    def search(self, scope: Scope, depth: int) -> Expr:
        """A text within a text."""
        ours, duck = self.rng.choice(
            (
                ("starts_with({0}, 'a')", ""),
                ("ends_with({0}, 'b')", "suffix({0}, 'b')"),
                ("contains({0}, 'a')", ""),
                ("({0} ~ '^[as]')", "regexp_matches({0}, '^[as]')"),
                ("({0} !~ 'b$')", "(not regexp_matches({0}, 'b$'))"),
                ("({0} ~* 'A')", "regexp_matches({0}, 'A', 'i')"),
            )
        )
        return Expr("bool", ours, (self.expr("text", scope, depth - 1),), duck)

    def of_day(self, scope: Scope, depth: int) -> Expr:
        """A time of day, or how far two moments are apart."""
        moment = self.expr("time", scope, depth - 1)
        if self.rng.random() < 0.7:
            bound = f"time '00:{self.rng.randrange(60):02}:30'"
            word = self.rng.choice(_COMPARISONS)
            return Expr("bool", f"(cast({{0}} as time) {word} {bound})", (moment,))
        span = self.rng.choice(("'24 hours'", "'90 minutes'", "'1 hour'"))
        since = f"timestamp '2022-01-{self.rng.randrange(7, 14):02} 00:00:00'"
        word = self.rng.choice(("<", ">", "<=", ">="))
        return Expr("bool", f"(({{0}} - {since}) {word} interval {span})", (moment,))

    def truth(self, scope: Scope, depth: int) -> Expr:
        """What three-valued logic makes of a predicate."""
        word = self.rng.choice(("is true", "is not true", "is false", "is not false"))
        return Expr("bool", f"({{0}} {word})", (self.expr("bool", scope, depth - 1),))

    def in_query(self, scope: Scope) -> Expr:
        """IN, EXISTS or a comparison with one value, over table b, or the very table outside."""
        rng = self.rng
        source, inner = self.table(rng.choice("bbba"))
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
        """A kind that the scope has columns of; where it has only others, one of literals."""
        kinds: list[Kind] = [kind for kind, has in scope.items() if has and kind not in but]
        return self.rng.choice(kinds or ["int"])

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


def _template(
    ours: str, kinds: Sequence[Kind], duck: str = "", apart: str = ""
) -> Callable[[Expressions, Kind, Scope, int], Expr]:
    def draw(grammar: Expressions, kind: Kind, scope: Scope, depth: int) -> Expr:
        return Expr(
            kind, ours, tuple(grammar.expr(each, scope, depth) for each in kinds), duck, apart=apart
        )

    return draw


_ANY = (Expressions.conditional, Expressions.coalesced)
_RULES: dict[Kind, Sequence[Callable[[Expressions, Kind, Scope, int], Expr]]] = {
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
        *(
            _template(words, ("int",))
            for words in ("({0} & 5)", "({0} | 5)", "({0} << 2)", "({0} >> 1)")
        ),
        _template("ascii({0})", ("text",)),
        _template("octet_length({0})", ("text",), "strlen({0})"),
        _template("extract(day from {0})", ("time",)),
        _template("cast({0} as int)", ("bool",)),
    ),
    "wide": (
        _template("({0} + {1})", ("wide", "int"), apart="wide arithmetic"),
        _template("({0} * {1})", ("wide", "wide"), apart="wide arithmetic"),
    ),
    "exact": (
        _template("({0} + {1})", ("exact", "exact")),
        _template("({0} * 2e0)", ("exact",)),
        *(_template(f"{word}({{0}})", ("exact",)) for word in ("floor", "abs")),
        *(
            _template(f"{word}({{0}})", ("exact",), apart="signed zero")
            for word in ("round", "ceil")
        ),
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
                *("ltrim({0}, 'a')", "rpad({0}, 3, 'z')", "left({0}, -1)"),
            )
        ),
        _template("btrim({0}, 'a')", ("text",), "trim({0}, 'a')"),
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
_PREDICATES: Sequence[Callable[[Expressions, Scope, int], Expr]] = (
    *[Expressions.compare] * 5,
    Expressions.between,
    Expressions.between,
    Expressions.in_list,
    Expressions.in_list,
    Expressions.is_null,
    Expressions.like,
    Expressions.truth,
    Expressions.search,
    Expressions.of_day,
)
