"""Draws statements, has them compared, and makes small what shows a difference."""

from __future__ import annotations

import itertools
import logging
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from support_flight import connect, serving

from differential.asker import Asker, Oracle
from differential.grammar import Grammar
from differential.tally import Finding, Tally
from differential.trees import Query
from differential.ways import house

#: Tries with smaller statements, once a difference was found.
_MOST_TRIES = 400
#: Statements that are asked of one set of tables, then others are made: that takes as long as
#: about a hundred statements.
_OF_A_HOUSE = 1000
#: Of the statements, those of a shape for either oracle.
_ORACLE_SHARE = 0.06
#: Between two lines of a process about how far it came.
_LINE_S = 60.0


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
        left = min(budget.statements - tally.statements, _OF_A_HOUSE)
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
    """One statement and the ways to look at it, all drawn by the key."""
    rng = random.Random(key)
    grammar = Grammar(rng, asker.house.signed_zero)
    query, oracle = _drawn(grammar)

    def check(smaller: Query) -> Finding | None:
        asker.rng = random.Random(f"{key} ways")
        return asker.examine(smaller, oracle)

    found = check(query)
    if found is None:
        return None
    tally, asker.tally = asker.tally, Tally()  # what follows is no part of the campaign
    found = shrunk(check, query, found)
    asker.tally = tally
    return replace(found, what=f"{found.what} (case {key})")


def _drawn(grammar: Grammar) -> tuple[Query, Oracle]:
    dice = grammar.rng.random()
    if dice < _ORACLE_SHARE:
        return grammar.partitionable(), "partitioned"
    if dice < 2 * _ORACLE_SHARE:
        return grammar.filtered(), "unoptimised"
    return grammar.statement(), ""


def campaign(job: tuple[int, Budget]) -> tuple[Tally, list[Finding]]:
    """All of :func:`run`, for a process of its own; each finding is printed at once."""
    logging.disable(logging.CRITICAL)  # of files without statistics, and what the engine refuses
    seed, budget = job
    tally, found = _Spoken(), []
    tally.seed = seed
    for each in run(seed, budget, tally):
        _say(f"seed {seed}: {each}")
        found.append(each)
    _say(tally.line())
    tally.cpu_s = time.process_time()
    return tally, found


class _Spoken(Tally):
    """Says now and then how far it is."""

    seed = 0

    def __init__(self) -> None:
        super().__init__()
        self._began = self._said = time.monotonic()

    def count(self, text: str, *, joined: bool) -> None:
        """A statement was drawn."""
        super().count(text, joined=joined)
        if time.monotonic() - self._said > _LINE_S:
            self._said = time.monotonic()
            _say(self.line())

    def line(self) -> str:
        """How far it came."""
        took, cpu_s = time.monotonic() - self._began, time.process_time()
        return (
            f"seed {self.seed}: {self.statements} statements in {took:.0f} s,"
            f" {1000 * cpu_s / max(1, self.statements):.0f} ms of a processor for each"
        )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
