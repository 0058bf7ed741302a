"""The comparisons: each says what is wrong, or None."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Any, Literal

import duckdb
from adbc_driver_flightsql import dbapi

from catalog.errors import CatalogError
from differential.answers import PRECISION, Row, exact, rows, same, says_something
from differential.known import REFUSED
from differential.tally import Answer, Finding, Tally, finding
from differential.trees import Expr, Query, Rendering, Select
from differential.ways import HYBRID, KEPT, ORACLE, WAYS, House
from flight_server.protocol.errors import FlightSqlError

Oracle = Literal["", "partitioned", "unoptimised"]

#: Of the statements, those that are asked of each of the other ways, too …
_OTHERS_SHARE = 0.2
#: … those that are planned for each way by itself, by its own name …
_ALONE_SHARE = 0.1
#: … and those that are also asked over the wire.
_WIRE_SHARE = 0.02
_COMBINED = ("count(*)", "count({0})", "sum({0})", "min({0})", "max({0})")
#: How a failure of the engine itself begins, which is never an answer.
_FAILED = "Internal:"
#: What DuckDB refuses because of a row's values.
_ARITHMETIC = ("OutOfRange", "Conversion", "InvalidInput")


@dataclass
class Asker:
    """Asks one house and counts."""

    house: House
    tally: Tally
    rng: random.Random
    wire: dbapi.Connection | None = None

    def ours(self, query: Query, way: str, *, alone: bool = False) -> Answer:
        """The engine's answer, in this process."""
        self.tally.answers[way] += 1
        try:
            text = query.text(Rendering("ours", way if alone else KEPT))
            return rows(self.house.ask(text, way=way))
        except (FlightSqlError, CatalogError) as error:
            return f"{type(error).__name__}: {error}"

    def over_the_wire(self, query: Query, way: str) -> Answer:
        """The same by a client, literals as parameters."""
        assert self.wire is not None
        self.tally.answers["wire"] += 1
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

    def examine(self, query: Query, oracle: Oracle = "") -> Finding | None:
        """Every comparison that is made of a statement."""
        found = self.agree(query)
        if found is not None or not oracle:
            return found
        return self.partitioned(query) if oracle == "partitioned" else self.unoptimised(query)

    def agree(self, query: Query) -> Finding | None:
        """Every way of keeping rows gives one answer, and it is DuckDB's."""
        self.tally.count(query.text(Rendering("duck", ORACLE)), joined=query.joins)
        others = (way for way in WAYS[len(HYBRID) :] if self.rng.random() < _OTHERS_SHARE)
        ways = [*HYBRID, *others]
        alone = self.rng.random() < _ALONE_SHARE
        self.tally.alone += alone
        found = {way: self.ours(query, way, alone=alone) for way in ways}
        first = found[ways[0]]
        for way in ways[1:]:
            if not _same(first, found[way], query):
                return _between("ways of keeping rows", query, (ways[0], way), (first, found[way]))
        if isinstance(first, str):
            return self._refused(query, first)
        self.tally.answered += says_something(first)
        if self.wire is not None and self.rng.random() < _WIRE_SHARE:
            self.tally.flight += 1
            sent = self.over_the_wire(query, "split")
            if not _same(first, sent, query):
                return _with_parameters(query, first, sent)
        return self._beside_duck(query, first)

    def _refused(self, query: Query, error: str) -> Finding | None:
        """A statement that no way answered: is it one that nobody answers?"""
        self.tally.refused[error[:60]] += 1
        text = query.text(Rendering("ours", HYBRID[0]))
        if error.startswith(_FAILED):
            return finding("the engine failed", [text], [error])
        if any(each in error for each in REFUSED):
            return None
        if any(each.apart for each in query.expressions()):
            return None
        theirs = self.duck(query)
        if isinstance(theirs, str):
            return None
        asked = query.text(Rendering("duck", ORACLE))
        return finding("refused, but not by DuckDB", [text, asked], [error, theirs])

    def _beside_duck(self, query: Query, first: Answer) -> Finding | None:
        reasons = {each.apart for each in query.expressions() if each.apart}
        self.tally.apart.update(reasons)
        if reasons:
            return None
        theirs = self.duck(query)
        asked = query.text(Rendering("duck", ORACLE))
        if isinstance(theirs, str):
            if theirs.startswith(_ARITHMETIC):
                self.tally.apart["refused by DuckDB"] += 1
                return None
            return finding("DuckDB refuses", [asked], [theirs])
        self.tally.duck += 1
        if _same(first, theirs, query):
            return None
        text = query.text(Rendering("ours", HYBRID[0]))
        return finding("DuckDB", [text, asked], [first, theirs])

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
        self.tally.texts += 3
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
        return finding(
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
        self.tally.texts += 1
        self.tally.oracle += 1
        if isinstance(fast, str) or isinstance(slow, str):
            return None
        kept = [row[1:] for row in slow if row[0] == "True"]
        if same(fast, kept):
            return None
        return finding(
            "filter beside projection",
            [q.text(Rendering("ours", w)) for q, w in asked],
            [fast, kept],
        )


def _between(
    what: str, query: Query, ways: Sequence[str], answers: Sequence[Answer]
) -> Finding | None:
    return finding(what, [query.text(Rendering("ours", way)) for way in ways], answers)


def _with_parameters(query: Query, first: Answer, sent: Answer) -> Finding:
    values: list[object] = []
    sql = query.text(Rendering("ours", "split", values))
    texts = [query.text(Rendering("ours", "split")), f"{sql} {values}"]
    return finding("parameters over the wire", texts, [first, sent])


def _same(left: Answer, right: Answer, query: Query) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str)
    return same(left, right, is_sorted=query.is_sorted)


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
    with localcontext(prec=PRECISION):
        return exact(sum(known, Decimal(0)))


def _ordered(text: str) -> tuple[bool, float, bool]:
    """A float as ``answers`` has it: NaN is the greatest, -0.0 is less than 0.0."""
    if text == "NaN":
        return True, 0.0, False
    return False, float.fromhex(text), not text.startswith("-")
