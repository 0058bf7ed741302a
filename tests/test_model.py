"""The protocol, explored exhaustively with catalog/'s own decisions: every rule is needed."""

from __future__ import annotations

import pytest
from model.explore import Step, explore
from model.machine import run
from model.rules import REMOVALS, SCENARIOS, Removal

#: Rules of docs/architecture.md that the model cannot show: a file that vanishes under a reader
#: (18) needs a fault of the disk.
ELSEWHERE = {18}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_order_of_events_breaks_a_promise(name: str) -> None:
    """Rules 1-20: every state within the scenario's bounds keeps the promises."""
    found = run(SCENARIOS[name])
    assert found.wrong is None, str(found)
    assert found.whole


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.what.replace(" ", "-"))
def test_without_a_rule_something_breaks(removal: Removal) -> None:
    """Rules 1-17, 19 and 20: taken away alone, each breaks a promise, within a short trace."""
    with removal.applied() as scenario:
        found = run(scenario)
    assert found.wrong is not None, f"{removal.what}: nothing breaks in {found}"
    assert 0 < len(found.trace) <= 25


def test_every_rule_is_taken_away_once() -> None:
    assert {rule for one in REMOVALS for rule in one.rules} == {*range(1, 21)} - ELSEWHERE


def test_the_shortest_trace_is_found() -> None:
    """The search itself: a counter that must not reach three, by ones or by twos."""

    def steps(n: int) -> list[Step]:
        wrong = "three" if n + 1 == 3 else None
        return [Step("one more", n + 1, wrong=wrong), Step("two more", n + 2)] if n < 5 else []

    found = explore(0, steps)  # type: ignore[arg-type]
    assert (found.wrong, found.trace) == ("three", ("two more", "one more"))


def test_a_dead_end_is_found() -> None:
    """Faults may lead away from the goal only if a path without one leads back."""
    ways = {0: [Step("on", 1), Step("fault", 2, good=False)], 1: [], 2: []}
    found = explore(0, ways.__getitem__, lambda n: n == 1)  # type: ignore[arg-type]
    assert found.trace == ("fault",)
    assert explore(0, {**ways, 2: [Step("mends", 1)]}.__getitem__, lambda n: n == 1).wrong is None  # type: ignore[arg-type]


def test_states_beyond_the_bound_are_said_to_be_missing() -> None:
    assert not explore(0, lambda n: [Step("on", n + 1)], most=10).whole  # type: ignore[arg-type,operator]
