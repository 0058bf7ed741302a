"""Statements as trees: rendered for either engine, with literals or parameters, and shrunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from differential.rows import Kind

Dialect = Literal["ours", "duck"]
JoinKind = Literal[
    "",
    "join",
    "left join",
    "right join",
    "full join",
    "cross join",
    "left semi join",
    "left anti join",
]
#: What DuckDB calls joins otherwise.
_DUCK_JOINS = MappingProxyType({"left semi join": "semi join", "left anti join": "anti join"})


@dataclass(slots=True)
class Rendering:
    """How a statement becomes text.

    Attributes:
        dialect: whose words.
        place: what stands before a table's name.
        values: takes the literals where they become parameters; None: they stay literals.
    """

    dialect: Dialect
    place: str
    values: list[object] | None = None


@dataclass(frozen=True, slots=True)
class Expr:
    """An expression.

    Attributes:
        kind: of its values.
        ours: its text, with ``{0}``, ``{1}``, … for its parts and ``{q}`` for its query.
        parts: expressions inside.
        duck: the other engine's words for the same; "": those of ``ours``.
        query: a query inside.
        value: of a literal, as a parameter has it, and the type that it is cast to.
        apart: a name of ``known.APART``: the engines are known not to agree.
    """

    kind: Kind
    ours: str
    parts: tuple[Expr, ...] = ()
    duck: str = ""
    query: Query | None = None
    value: tuple[object, str] | None = None
    apart: str = ""

    def text(self, how: Rendering) -> str:
        """The SQL."""
        if self.value is not None and how.values is not None:
            how.values.append(self.value[0])
            return f"cast(? as {self.value[1]})"
        words = self.duck if self.duck and how.dialect == "duck" else self.ours
        return words.format(*(_Later(part, how) for part in self.parts), q=_Later(self.query, how))

    def within(self) -> Iterator[Expr]:
        """This expression and everything inside it."""
        yield self
        for part in self.parts:
            yield from part.within()
        if self.query is not None:
            yield from self.query.expressions()

    def smaller(self) -> Iterator[Expr]:
        """Expressions of this kind with less in them."""
        yield from (part for part in self.parts if part.kind == self.kind)
        for at, part in enumerate(self.parts):
            for less in part.smaller():
                yield replace(self, parts=(*self.parts[:at], less, *self.parts[at + 1 :]))
        if self.query is not None:
            yield from (replace(self, query=less) for less in self.query.smaller())


@dataclass(frozen=True, slots=True)
class _Later:
    """A part of a text, made where it stands: parameters are counted in that order."""

    of: Expr | Query | None
    how: Rendering

    def __format__(self, _spec: str) -> str:
        return "" if self.of is None else self.of.text(self.how)


@dataclass(frozen=True, slots=True)
class Source:
    """A table, words or a query in FROM, and how it is joined to those before it.

    Attributes:
        of: what it is.
        alias: its name.
        join: "" for the first.
        on: the condition.
        using: instead of a condition, the column of both sides that has to be equal.
    """

    of: str | Query | Expr
    alias: str
    join: JoinKind = ""
    on: Expr | None = None
    using: str = ""

    def text(self, how: Rendering) -> str:
        """The SQL."""
        of = f"{how.place}.{self.of}" if isinstance(self.of, str) else self.of.text(how)
        if not isinstance(self.of, str | Expr):
            of = f"({of})"
        on = "" if self.on is None else f" on {self.on.text(how)}"
        if self.using:
            on = f" using ({self.using})"
        join = _DUCK_JOINS.get(self.join, self.join) if how.dialect == "duck" else self.join
        return f"{join} {of} as {self.alias}{on}".lstrip()


@dataclass(frozen=True, slots=True)
class Select:
    """One SELECT.

    Attributes:
        items: what it gives, as ``c0``, ``c1``, …
        grouped: how many of the first items are grouped by; None: no GROUP BY.
        order: what its rows are sorted by: expression and direction. Nothing is equal under it.
        limit: how many rows, how many are passed over.
        on: the first row for each of its values; ``order`` begins with it.
        sets: "rollup" or "cube" of the groups; "": neither.
        qualify: a condition with a window function.
    """

    items: tuple[Expr, ...]
    sources: tuple[Source, ...]
    where: Expr | None = None
    grouped: int | None = None
    having: Expr | None = None
    distinct: bool = False
    order: tuple[tuple[Expr, str], ...] = ()
    limit: tuple[int, int] | None = None
    on: Expr | None = None
    sets: Literal["", "rollup", "cube"] = ""
    qualify: Expr | None = None

    def text(self, how: Rendering) -> str:
        """The SQL."""
        parts = ["select distinct" if self.distinct else "select"]
        if self.on is not None:
            parts.append(f"distinct on ({self.on.text(how)})")
        parts.append(", ".join(f"{e.text(how)} as c{at}" for at, e in enumerate(self.items)))
        parts.append("from " + " ".join(source.text(how) for source in self.sources))
        if self.where is not None:
            parts.append(f"where {self.where.text(how)}")
        if self.grouped and self.sets:
            keys = ", ".join(item.text(how) for item in self.items[: self.grouped])
            parts.append(f"group by {self.sets} ({keys})")
        elif self.grouped:
            # By place: an expression with parameters is not the same one when written again.
            parts.append("group by " + ", ".join(str(at + 1) for at in range(self.grouped)))
        if self.having is not None:
            parts.append(f"having {self.having.text(how)}")
        if self.qualify is not None:
            parts.append(f"qualify {self.qualify.text(how)}")
        if self.order:
            parts.append("order by " + ", ".join(f"{e.text(how)} {d}" for e, d in self.order))
        if self.limit is not None:
            parts.append("limit {} offset {}".format(*self.limit))
        return " ".join(parts)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of the items."""
        return tuple(item.kind for item in self.items)

    @property
    def joins(self) -> bool:
        """Whether two tables or queries are joined, anywhere."""
        return len(self.sources) > 1 or any(
            not isinstance(s.of, str | Expr) and s.of.joins for s in self.sources
        )

    @property
    def is_sorted(self) -> bool:
        """Whether the order of rows counts."""
        return bool(self.order)

    def expressions(self) -> Iterator[Expr]:
        """Every expression."""
        ons = (source.on for source in self.sources)
        more = (self.where, self.having, self.qualify, *ons, *(e for e, _ in self.order))
        for each in (*self.items, *more):
            if each is not None:
                yield from each.within()
        for source in self.sources:
            if isinstance(source.of, Expr):
                yield from source.of.within()
            elif not isinstance(source.of, str):
                yield from source.of.expressions()

    def smaller(self) -> Iterator[Select]:
        """Statements with less in them; some have names that nothing stands for."""
        yield from self._shorter()
        for at, source in enumerate(self.sources):
            for less in _smaller_sources(source):
                changed = (*self.sources[:at], less, *self.sources[at + 1 :])
                yield replace(self, sources=changed)
        yield from _each(self.where, lambda e: replace(self, where=e))
        yield from _each(self.having, lambda e: replace(self, having=e))
        for at, item in enumerate(self.items):
            for less in item.smaller():
                yield replace(self, items=(*self.items[:at], less, *self.items[at + 1 :]))

    def _shorter(self) -> Iterator[Select]:
        """The same without one of its clauses, sources or items."""
        if self.limit is not None:
            yield replace(self, limit=None)
        elif self.order and self.on is None:
            yield replace(self, order=())
        if self.qualify is not None:
            yield replace(self, qualify=None)
        if self.sets:
            yield replace(self, sets="")
        if len(self.sources) > 1:
            yield replace(self, sources=self.sources[:-1])
            first = replace(self.sources[1], join="", on=None, using="")
            yield replace(self, sources=(first, *self.sources[2:]))
        if self.where is not None:
            yield replace(self, where=None)
        if self.having is not None:
            yield replace(self, having=None)
        if self.distinct:
            yield replace(self, distinct=False)
        for at in range(len(self.items) if len(self.items) > 1 else 0):
            key = self.grouped is not None and at < self.grouped
            left = (self.grouped or 0) - 1 if key else self.grouped
            yield replace(self, items=self.items[:at] + self.items[at + 1 :], grouped=left)


@dataclass(frozen=True, slots=True)
class Both:
    """A set operation of two queries with the same kinds of columns."""

    word: str
    left: Query
    right: Query

    def text(self, how: Rendering) -> str:
        """The SQL."""
        return f"{self.left.text(how)} {self.word} {self.right.text(how)}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of the columns."""
        return self.left.kinds

    @property
    def joins(self) -> bool:
        """Whether two tables are joined, anywhere."""
        return self.left.joins or self.right.joins

    @property
    def is_sorted(self) -> bool:
        """Never."""
        return False

    def expressions(self) -> Iterator[Expr]:
        """Every expression."""
        yield from self.left.expressions()
        yield from self.right.expressions()

    def smaller(self) -> Iterator[Query]:
        """Either side, and with a smaller side."""
        yield self.left
        yield self.right
        for less in self.left.smaller():
            if less.kinds == self.kinds:
                yield replace(self, left=less)
        for less in self.right.smaller():
            if less.kinds == self.kinds:
                yield replace(self, right=less)


@dataclass(frozen=True, slots=True)
class With:
    """A query, named, and one over it."""

    name: str
    of: Query | Expr
    body: Select

    def text(self, how: Rendering) -> str:
        """The SQL; words that name themselves are recursive."""
        inner = self.of.text(how)
        word = "with recursive" if isinstance(self.of, Expr) else "with"
        return f"{word} {self.name} as ({inner}) {self.body.text(how)}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of the columns."""
        return self.body.kinds

    @property
    def joins(self) -> bool:
        """Whether two tables are joined, anywhere."""
        return self.body.joins or (not isinstance(self.of, Expr) and self.of.joins)

    @property
    def is_sorted(self) -> bool:
        """Never."""
        return False

    def expressions(self) -> Iterator[Expr]:
        """Every expression."""
        yield from self.of.within() if isinstance(self.of, Expr) else self.of.expressions()
        yield from self.body.expressions()

    def smaller(self) -> Iterator[Query]:
        """With a smaller query on either side."""
        yield from (replace(self, body=less) for less in self.body.smaller())
        if not isinstance(self.of, Expr):
            yield self.of
            yield from (replace(self, of=less) for less in self.of.smaller())


Query: TypeAlias = Select | Both | With


def _each(one: Expr | None, change: Callable[[Expr], Select]) -> Iterator[Select]:
    if one is not None:
        yield from map(change, one.smaller())


def _smaller_sources(source: Source) -> Iterator[Source]:
    if source.join and source.join != "join" and (source.on is not None or source.using):
        yield replace(source, join="join")
    if not isinstance(source.of, str | Expr):
        for query in source.of.smaller():
            yield replace(source, of=query)
    if source.on is not None:
        yield from (replace(source, on=less) for less in source.on.smaller())
