"""The machine: all steps, and states made equal that nobody can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from model import flushing, ingesting, live, processes, values
from model.around import around_steps
from model.explore import Explored, Step, explore
from model.ingesting import ingest_steps
from model.reading import reading_steps
from model.values import Seg
from model.world import Ingest, Post, Scenario, State, left, reached


def run(scenario: Scenario, most: int = 1_000_000) -> Explored:
    """Explores a scenario, all rules kept but those that it takes away."""
    forget()
    goal: Any = partial(reached, scenario) if scenario.lasting else None
    steps: Any = partial(_steps, scenario)
    return explore(scenario.initial(), steps, goal, most)


def forget() -> None:
    """Empties the caches of decisions: a rule may have been taken away, or put back."""
    values.forget()
    live.forget()
    for cached in (ingesting.claimed, flushing.attempted, processes.moved):
        cached.cache_clear()


def _steps(scenario: Scenario, state: State) -> Iterator[Step]:
    for steps in (ingest_steps, around_steps, reading_steps):
        for step in steps(scenario, state):
            assert isinstance(step.state, State)
            yield step._replace(state=_smaller(scenario, step.state))


def _smaller(scenario: Scenario, state: State) -> State:
    """Without requests, snapshots and files that nothing can need any more."""
    if not scenario.reads and not scenario.partial:
        state = state._replace(ingests=tuple(_one_tail(one) for one in state.ingests))
    if not left(state, "move"):
        state = state._replace(posts=tuple(p for p in state.posts if _matters(state, p)))
        if not left(state, "expire"):
            state = _without_history(state)
    if not left(state, "gc") and state.orphans is None:
        used = state.lake.referenced() | {f for post in state.posts for f in post.add}
        used |= {one.flush.file or 0 for one in state.ingests if one.flush}
        used |= {state.compaction.file} if state.compaction else set()
        files = tuple(one for one in state.lake.files if one[0] in used)
        state = state._replace(lake=state.lake._replace(files=files))
    return state


def _matters(state: State, post: Post) -> bool:
    return post.base == state.lake.head or post.sender is not None


def _without_history(state: State) -> State:
    """Keeps the ancestry of the head down to its marker and to everything that is named."""
    named = {post.id for post in state.posts}
    named |= {one.flush.id for one in state.ingests if one.flush and one.flush.id}
    named |= {one.pub.known.snap for one in state.ingests if one.pub}
    named |= {one.pub.held.snap for one in state.ingests if one.pub and one.pub.held}
    named |= {folder.man.snap for folder in state.folders if folder.man}
    if state.reader is not None:
        named |= {man.snap for man in (state.reader.pin, state.reader.ticket) if man}
    chain, at = [], state.lake.snap(state.lake.head)
    while at is not None:
        chain.append(at)
        at = None if at.parent is None else state.lake.snap(at.parent)
    marked = next((n for n, snap in enumerate(chain) if snap.marker is not None), len(chain))
    wanted = max([n for n, snap in enumerate(chain) if snap.id in named], default=0)
    keep = {snap.id for snap in chain[: max(marked, wanted) + 1]} | named
    snaps = tuple(snap for snap in state.lake.snaps if snap.id in keep)
    return state._replace(lake=state.lake._replace(snaps=snaps))


def _one_tail(ingest: Ingest) -> Ingest:
    """Where nobody reads, it does not matter how the tail is divided into segments."""
    if ingest.pub is None or len(ingest.pub.segs) < 2:
        return ingest
    parts: list[tuple[int, int, int, tuple[int, ...]]] = []
    for p, first, next_, rows in sorted(part for seg in ingest.pub.segs for part in seg.parts):
        if parts and (parts[-1][0], parts[-1][2]) == (p, first):
            parts[-1] = (p, parts[-1][1], next_, (*parts[-1][3], *rows))
        else:
            parts.append((p, first, next_, rows))
    topics = {seg.topic for seg in ingest.pub.segs}
    segs = (Seg(topics.pop(), tuple(parts)),) if len(topics) == 1 else ingest.pub.segs
    return ingest._replace(pub=ingest.pub._replace(segs=segs))
