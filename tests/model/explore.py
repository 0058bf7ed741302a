"""Breadth-first search over all states of a machine: shortest traces, nothing random."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Step(NamedTuple):
    """One thing that may happen in a state.

    Attributes:
        label: what a trace says.
        state: what follows.
        good: not a fault: a path to the goal may use it.
        wrong: the promise that is broken by it; None: none is.
    """

    label: str
    state: Hashable
    good: bool = True
    wrong: str | None = None


@dataclass(frozen=True)
class Explored:
    """What was found.

    Attributes:
        states, steps: how many were looked at.
        whole: every reachable state was.
        wrong: the first broken promise; None: none was.
        trace: the shortest way to it.
    """

    states: int
    steps: int
    whole: bool
    wrong: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"{self.states} states, {self.steps} steps" + ("" if self.whole else ", NOT ALL")
        if self.wrong is None:
            return found
        lines = [f"{n:3}. {label}" for n, label in enumerate(self.trace, 1)]
        return "\n".join([f"{found}: {self.wrong}", *lines])


class _Graph:
    """States in the order in which they were found, each with the step that led to it first."""

    def __init__(self, initial: Hashable) -> None:
        self.states = [initial]
        self._index = {initial: 0}
        self._parent = array("l", [-1])
        self._labels = [""]
        self._edges = (array("l"), array("l"))

    def add(self, source: int, step: Step) -> None:
        at = self._index.get(step.state)
        if at is None:
            at = self._index[step.state] = len(self.states)
            self.states.append(step.state)
            self._parent.append(source)
            self._labels.append(step.label)
        if step.good:
            self._edges[0].append(source)
            self._edges[1].append(at)

    def trace(self, at: int) -> tuple[str, ...]:
        labels = []
        while at > 0:
            labels.append(self._labels[at])
            at = self._parent[at]
        return tuple(reversed(labels))

    def stuck(self, goal: Callable[[Hashable], bool]) -> int | None:
        """The first state without a path of good steps to the goal."""
        back: dict[int, list[int]] = {}
        for source, target in zip(*self._edges, strict=True):
            back.setdefault(target, []).append(source)
        left = [at for at, state in enumerate(self.states) if goal(state)]
        reached = set(left)
        while left:
            for source in back.get(left.pop(), ()):
                if source not in reached:
                    reached.add(source)
                    left.append(source)
        return next((at for at in range(len(self.states)) if at not in reached), None)


def explore(
    initial: Hashable,
    steps: Callable[[Hashable], Iterable[Step]],
    goal: Callable[[Hashable], bool] | None = None,
    most: int = 1_000_000,
) -> Explored:
    """Looks at every state, up to ``most`` of them, and stops at the first broken promise.

    Args:
        initial: where the machine starts.
        steps: what may happen in a state.
        goal: what must stay within reach without another fault; None: not asked.
        most: bound on states; beyond it new ones are left out, and the result says so.
    """
    graph, at, taken = _Graph(initial), 0, 0
    while at < len(graph.states) and len(graph.states) <= most:
        for step in steps(graph.states[at]):
            taken += 1
            if step.wrong is not None:
                trace = (*graph.trace(at), step.label)
                return Explored(
                    len(graph.states), taken, whole=False, wrong=step.wrong, trace=trace
                )
            graph.add(at, step)
        at += 1
    whole = at == len(graph.states)
    if goal is not None and whole and (stuck := graph.stuck(goal)) is not None:
        wrong = "no way is left to the state in which every row is committed and visible"
        return Explored(at, taken, whole, wrong, graph.trace(stuck))
    return Explored(at, taken, whole)
