"""What a campaign did, and what it found."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self, TypeAlias

from differential.answers import Row

#: What a statement gave: rows, or why there are none.
Answer: TypeAlias = "list[Row] | str"
_SHOWN_ROWS = 4
#: What of SQL a statement uses, by words in its text.
_FEATURES = MappingProxyType(
    {
        "windows": (" over (",),
        "windows that look over nulls": (" ignore nulls)",),
        "semi and anti joins": (" semi join ", " anti join "),
        "USING": (" using (",),
        "aggregates in an order": ("string_agg(", "first(", "last("),
        "set operations": (" union ", " intersect ", " except "),
        "sub-queries in expressions": ("in (select", "exists (select", "(select "),
        "WITH": ("with ",),
        "recursion": ("with recursive ",),
        "grouping sets": ("rollup (", "cube (", "grouping sets ("),
        "GROUP BY": ("group by ",),
        "HAVING": ("having ",),
        "DISTINCT ON": ("distinct on (",),
        "QUALIFY": (" qualify ",),
        "UNNEST": ("unnest(",),
        "LATERAL": ("lateral (",),
        "CASE": ("(case when",),
        "LIKE": (" like ", " ilike "),
        "times": ("date_trunc(", "interval '", "extract(", "date_bin("),
        "ORDER BY LIMIT": ("limit ",),
    }
)


@dataclass
class Tally:
    """What a campaign did.

    Attributes:
        statements: statements drawn, each answered as history, live and split at least, and by
            DuckDB too unless it is refused or apart.
        texts: different texts that were asked: oracles make others of a statement.
        answers: executions of ours, by way.
        answered, joined: statements that returned rows, and that joined.
        duck, flight, oracle: statements compared with DuckDB, asked over the wire with parameters,
            held against an oracle.
        alone: statements planned for each way by itself.
        refused: statements that all ways refused, by the error's first words.
        apart: statements not compared with DuckDB, by the reason in ``known``.
        features: statements by what of SQL they use.
        cpu_s: processor time of the campaign, tables and DuckDB included.
    """

    statements: int = 0
    texts: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    joined: int = 0
    duck: int = 0
    flight: int = 0
    oracle: int = 0
    alone: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    apart: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0

    def __iadd__(self, other: Tally) -> Self:
        """Both together."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def __str__(self) -> str:
        """A few lines for people."""
        return (
            f"{self.statements} statements, {self.texts} texts, {self.answers.total()} answers:"
            f" {self._share(self.answered)} returned rows, {self._share(self.joined)} joined,"
            f" {self._share(self.duck)} were compared with DuckDB, {self._share(self.oracle)} met"
            f" an oracle, {self._share(self.flight)} went over the wire with parameters,"
            f" {self._share(self.alone)} were planned for each way by itself,"
            f" {self._share(self.refused.total())} were refused"
            f"\n  answers: {dict(sorted(self.answers.items()))}"
            f"\n  refused: {dict(self.refused.most_common(8))}"
            f"\n  not compared with DuckDB: {dict(self.apart.most_common())}"
            f"\n  with: {self._shares()}"
        )

    def count(self, text: str, *, joined: bool) -> None:
        """A statement was drawn."""
        self.statements += 1
        self.texts += 1
        self.joined += joined
        self.features.update(
            name for name, words in _FEATURES.items() if any(word in text for word in words)
        )

    def _share(self, count: int) -> str:
        share = 100 * count / max(1, self.statements)
        return f"{share:.0f} %" if share >= 1 or not count else f"{share:.2f} %"

    def _shares(self) -> str:
        return ", ".join(f"{name} {self._share(n)}" for name, n in self.features.most_common())


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


def finding(what: str, texts: Sequence[str], found: Sequence[Answer]) -> Finding:
    """Answers that are not one; rows that all of them have are left out."""
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
