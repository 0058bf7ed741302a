"""The comparisons, what they count, and the smallest statement that still shows a difference."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self, TypeAlias

import duckdb
from adbc_driver_flightsql import dbapi
from support_flight import connect, serving

from catalog.errors import CatalogError
from differential.answers import Row, rows, same, says_something
from differential.grammar import Grammar
from differential.trees import Expr, Query, Rendering, Select
from differential.ways import HYBRID, ORACLE, WAYS, House, house
from flight_server.protocol.errors import FlightSqlError

#: What a statement gave: rows, or why there are none.
Answer: TypeAlias = "list[Row] | str"
#: Tries with smaller statements, once a difference was found.
_MOST_TRIES = 400
#: Statements that are asked of one set of tables, then others are made.
CASES_OF_A_HOUSE = 400
_SHOWN_ROWS = 4


@dataclass
class Tally:
    """What a campaign did.

    Attributes:
        cases: statements drawn, with their oracles' partitions and projections counted as one.
        statements: different texts that were asked.
        answers: executions of ours.
        answered, joined: cases that returned rows, and that joined.
        duck, flight, oracle: cases compared with DuckDB, asked over the wire with parameters, held
            against an oracle.
        refused: cases that all ways refused, by the error's first words.
        apart: cases not asked of DuckDB, by the reason in ``known``.
    """

    cases: int = 0
    statements: int = 0
    answers: int = 0
    answered: int = 0
    joined: int = 0
    duck: int = 0
    flight: int = 0
    oracle: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    apart: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Tally) -> Self:
        """Both together."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def __str__(self) -> str:
        """A few lines for people."""
        share = lambda count: f"{100 * count / max(1, self.cases):.0f} %"  # noqa: E731
        return (
            f"{self.cases} cases, {self.statements} statements, {self.answers} answers; of the"
            f" cases {share(self.answered)} returned rows, {share(self.joined)} joined,"
            f" {share(self.duck)} were compared with DuckDB, {share(self.flight)} went over the"
            f" wire with parameters, {share(self.oracle)} met an oracle,"
            f" {share(self.refused.total())} were refused"
            f"\n  refused: {dict(self.refused.most_common(6))}"
            f"\n  not asked of DuckDB: {dict(self.apart.most_common())}"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """Two answers that should be one.

    Attributes:
        what: the comparison.
        texts: the statements.
        answers: what each of them gave, cut.
    """

    what: str
    texts: tuple[str, ...]
    answers: tuple[str, ...]

    def __str__(self) -> str:
        """For whoever mends it."""
        pairs = zip(self.texts, self.answers, strict=True)
        return "\n".join([self.what, *(f"  {text}\n    -> {answer}" for text, answer in pairs)])


@dataclass
class Asker:
    """Asks one house and counts."""

    house: House
    tally: Tally
    rng: random.Random
    wire: dbapi.Connection | None = None

    def ours(self, query: Query, way: str) -> Answer:
        """The engine's answer, in this process."""
        self.tally.answers += 1
        try:
            return rows(self.house.ask(query.text(Rendering("ours", way))))
        except (FlightSqlError, CatalogError) as error:
            return f"{type(error).__name__}: {error}"

    def over_the_wire(self, query: Query, way: str) -> Answer:
        """The same by a client, literals as parameters."""
        assert self.wire is not None
        self.tally.answers += 1
        values: list[object] = []
        text = query.text(Rendering("ours", way, values))
        with self.wire.cursor() as cursor:
            try:
                cursor.execute(text, values or None)
                return rows(cursor.fetch_arrow_table())
            except dbapi.Error as error:
                return f"{type(error).__name__}: {error}"

    def duck(self, query: Query) -> Answer:
        """DuckDB's."""
        try:
            table = self.house.duck.sql(query.text(Rendering("duck", ORACLE))).to_arrow_table()
        except duckdb.Error as error:
            return f"{type(error).__name__}: {error}"
        return rows(table)

    # --- comparisons: each gives what is wrong, or None

    def agree(self, query: Query) -> Finding | None:
        """Every way of keeping rows gives one answer, and it is DuckDB's."""
        ways = [*HYBRID, self.rng.choice(WAYS[len(HYBRID) :])]
        found = {way: self.ours(query, way) for way in ways}
        first = found[ways[0]]
        self._count(query, first)
        texts = {way: query.text(Rendering("ours", way)) for way in ways}
        for way in ways[1:]:
            if not _same(first, found[way], query):
                pair = (ways[0], way)
                return _finding(
                    "ways of keeping rows", [texts[w] for w in pair], [found[w] for w in pair]
                )
        if isinstance(first, str):
            return None
        if self.wire is not None and self.rng.random() < _WIRE_SHARE:
            self.tally.flight += 1
            sent = self.over_the_wire(query, "split")
            if not _same(first, sent, query):
                values: list[object] = []
                sql = query.text(Rendering("ours", "split", values))
                return _finding(
                    "parameters over the wire", [texts["split"], f"{sql} {values}"], [first, sent]
                )
        return self._beside_duck(query, first, texts[ways[0]])

    def _beside_duck(self, query: Query, first: Answer, text: str) -> Finding | None:
        reasons = {each.apart for each in query.expressions() if each.apart}
        self.tally.apart.update(reasons)
        if reasons:
            return None
        theirs = self.duck(query)
        if isinstance(theirs, str):
            if theirs.startswith(("OutOfRange", "Conversion")):  # arithmetic that it refuses
                self.tally.apart["refused by DuckDB"] += 1
                return None
            return _finding("DuckDB refuses", [query.text(Rendering("duck", ORACLE))], [theirs])
        self.tally.duck += 1
        if _same(first, theirs, query):
            return None
        return _finding("DuckDB", [text, query.text(Rendering("duck", ORACLE))], [first, theirs])

    def partitioned(self, query: Query) -> Finding | None:
        """Rows where p holds, where it does not and where it is null are all rows.

        Source: Rigger and Su, "Finding Bugs in Database Systems via Query Partitioning",
        OOPSLA 2020 (ternary logic partitioning, SQLancer's TLP).
        """
        if not isinstance(query, Select) or query.where is None:
            return None
        p = query.where
        conditions = [None, p, Expr("bool", "(not {0})", (p,)), Expr("bool", "({0} is null)", (p,))]
        asked = [(replace(query, where=each), self.rng.choice(WAYS)) for each in conditions]
        found = [self.ours(each, way) for each, way in asked]
        self._count(query, found[0], 4)
        self.tally.oracle += 1
        if any(isinstance(answer, str) for answer in found):
            return None  # an error of one row, which not every part has
        whole, *parts = [answer for answer in found if not isinstance(answer, str)]
        if all(item.ours in _COMBINED for item in query.items):
            joined = [_combined(query, parts)]
        else:
            joined = list(itertools.chain(*parts))
        if same(whole, joined):
            return None
        return _finding(
            "partitions", [each.text(Rendering("ours", way)) for each, way in asked], found
        )

    def unoptimised(self, query: Query) -> Finding | None:
        """Rows for which p was computed to be true are the rows that WHERE p lets through.

        What computes p for every row can prune nothing: neither files, row groups nor segments.

        Source: Rigger and Su, "Detecting Optimization Bugs in Database Engines via
        Non-Optimizing Reference Engine Construction", ESEC/FSE 2020 (SQLancer's NoREC).
        """
        if not isinstance(query, Select) or query.where is None:
            return None
        truth = Expr("bool", "({0} is true)", (query.where,))
        asked = [
            (query, self.rng.choice(WAYS)),
            (replace(query, items=(truth, *query.items), where=None), self.rng.choice(WAYS)),
        ]
        fast, slow = (self.ours(each, way) for each, way in asked)
        self._count(query, fast, 2)
        self.tally.oracle += 1
        if isinstance(fast, str) or isinstance(slow, str):
            return None
        kept = [row[1:] for row in slow if row[0] == "True"]
        if same(fast, kept):
            return None
        return _finding(
            "filter beside projection",
            [q.text(Rendering("ours", w)) for q, w in asked],
            [fast, kept],
        )

    def _count(self, query: Query, answer: Answer, statements: int = 1) -> None:
        self.tally.cases += 1
        self.tally.statements += statements
        self.tally.joined += query.joins
        if isinstance(answer, str):
            self.tally.refused[answer[:60]] += 1
        else:
            self.tally.answered += says_something(answer)


#: Of the cases without an oracle, those that are also asked over the wire.
_WIRE_SHARE = 0.15
_COMBINED = ("count(*)", "count({0})", "sum({0})", "min({0})", "max({0})")


def _same(left: Answer, right: Answer, query: Query) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str)
    return same(left, right, is_sorted=query.is_sorted)


def _finding(what: str, texts: Sequence[str], found: Sequence[Answer]) -> Finding:
    """Rows that all answers have are left out."""
    common: Counter[Row] = Counter()
    tables = [Counter(each) for each in found if not isinstance(each, str)]
    if what != "partitions" and len(tables) == len(found) > 1:
        common = functools.reduce(lambda a, b: a & b, tables)
    return Finding(what, tuple(texts), tuple(_shown(each, common) for each in found))


def _shown(answer: Answer, common: Counter[Row]) -> str:
    if isinstance(answer, str):
        return answer
    own = list((Counter(answer) - common).elements())
    return f"{len(answer)} rows, {len(own)} of its own: {own[:_SHOWN_ROWS]}"


def _combined(query: Select, parts: Sequence[Sequence[Row]]) -> Row:
    """The aggregates of all rows, made of those of the parts."""
    values = []
    for at, item in enumerate(query.items):
        known = [part[0][at] for part in parts if part[0][at] is not None]
        if item.ours.startswith("count"):
            values.append(sum(known))
        elif not known:
            values.append(None)
        elif item.ours.startswith("sum"):
            values.append(_total(known))
        else:
            pick = min if item.ours.startswith("min") else max
            values.append(
                pick(known, key=_ordered) if item.kind in {"float", "exact"} else pick(known)
            )
    return tuple(values)


def _total(known: Sequence[Any]) -> Any:
    if isinstance(known[0], str):
        return sum(map(float.fromhex, known)).hex()
    total = sum(known, Decimal(0))
    return int(total) if total == total.to_integral_value() else total.normalize()


def _ordered(text: str) -> tuple[bool, float, bool]:
    """A float as ``answers`` has it: NaN is the greatest, -0.0 is less than 0.0."""
    if text == "NaN":
        return True, 0.0, False
    return False, float.fromhex(text), not text.startswith("-")


def shrunk(check: Callable[[Query], Finding | None], query: Query, found: Finding) -> Finding:
    """What the smallest statement shows that still shows a difference of this kind."""
    tries = 0
    progress = True
    while progress:
        progress = False
        for less in query.smaller():
            tries += 1
            if tries > _MOST_TRIES:
                return found
            other = check(less)
            if other is not None and other.what == found.what:
                query, found, progress = less, other, True
                break
    return found


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop: after so many statements, or so many seconds."""

    statements: int
    seconds: float


def run(seed: int, budget: Budget, tally: Tally) -> Iterator[Finding]:
    """Findings of a campaign, each as small as it could be made; ``tally`` is kept up to date.

    Args:
        seed: the n-th house and its statements depend on it and n alone.
        budget: see there.
        tally: what is counted.
    """
    end = time.monotonic() + budget.seconds
    for number in itertools.count():
        left = min(budget.statements - tally.statements, CASES_OF_A_HOUSE)
        if left <= 0 or time.monotonic() > end:
            return
        yield from cases(f"{seed}.{number}", tally, range(left), end)


def cases(
    key: str, tally: Tally, numbers: Iterable[int], end: float = math.inf
) -> Iterator[Finding]:
    """Findings of these cases of one house.

    Args:
        key: ``seed.house``.
        tally: what is counted.
        numbers: of the cases.
        end: a time of the monotonic clock, after which no case begins.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        house(Path(folder), key) as built,
        serving(built.service()) as server,
        connect(server) as wire,
    ):
        for number in numbers:
            if time.monotonic() > end:
                return
            found = case(Asker(built, tally, random.Random(), wire), f"{key}.{number}")
            if found is not None:
                yield found


def case(asker: Asker, key: str) -> Finding | None:
    """One statement and one way to look at it, both drawn by the key."""
    rng = random.Random(key)
    grammar = Grammar(rng, asker.house.signed_zero)
    shape = rng.choice(("agree", "agree", "partitioned", "unoptimised"))
    query = {
        "agree": grammar.statement,
        "partitioned": grammar.partitionable,
        "unoptimised": grammar.filtered,
    }[shape]()

    def check(smaller: Query) -> Finding | None:
        asker.rng = random.Random(f"{key} ways")
        found: Finding | None = getattr(asker, shape)(smaller)
        return found

    found = check(query)
    if found is None:
        return None
    asker.tally = Tally()  # what follows is no part of the campaign
    found = shrunk(check, query, found)
    return replace(found, what=f"{found.what} (case {key})")


def campaign(job: tuple[int, Budget]) -> tuple[Tally, list[Finding]]:
    """All of :func:`run`, for a process of its own; each finding is printed at once."""
    logging.disable(logging.WARNING)  # pyarrow's about files without statistics
    tally, found = Tally(), []
    for each in run(*job, tally):
        sys.stdout.write(f"{each}\n")
        sys.stdout.flush()
        found.append(each)
    return tally, found
