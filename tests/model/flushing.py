"""A flush: its rows, its dead letters, its attempts and what their outcomes mean."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from catalog import commits
from catalog import flush as catalog_flush
from catalog.errors import CatalogError, Fenced, LogGap
from catalog.intents import Flush, Staged
from catalog.offsets import Offsets
from model import live
from model.explore import Step
from model.processes import again, ended, follow, in_order
from model.values import (
    UUID,
    Lake,
    Mk,
    Snapped,
    found_marker,
    marker,
    metadata,
    offsets,
    plain_marker,
    positions,
)
from model.world import (
    Flushing,
    Post,
    Scenario,
    State,
    broken,
    head_of,
    marker_now,
    new_file,
    new_id,
    stored,
    with_ingest,
)

#: Bound on a flush that nothing reaches.
MANY = 2**40


def begin_flush(scenario: Scenario, state: State, at: int, most: int) -> Iterator[Step]:
    """The tail, or its oldest ``most`` rows, is written as a file (rules 4 and 9)."""
    ingest = state.ingests[at]
    assert ingest.pub is not None
    segs, high = live.to_flush(ingest.pub, most)
    if most != MANY and len(segs) == len(ingest.pub.segs):
        return
    known = ingest.pub.known.marker
    target = catalog_flush.flush_target(marker(known), high)
    if target is None:
        return
    if state.topic != ingest.pub.topic and scenario.on("identity"):
        yield ended(state, at, "TopicRecreated, before a flush")
        return
    try:
        rows = live.read(segs, known.at, target)
    except LogGap:
        yield again(state, at, "the tail does not reach down to the recorded positions")
        return
    yield from _written(scenario, state, at, rows, target)


def _written(
    scenario: Scenario, state: State, at: int, rows: tuple[tuple[int, int, int], ...], end: Offsets
) -> Iterator[Step]:
    ingest = state.ingests[at]
    assert ingest.pub is not None
    known, target = ingest.pub.known.marker, positions(end, scenario.count)
    poison = scenario.poison(ingest.pub.topic, known.at, target)
    letters = tuple(row for row in poison if row not in rows)
    if not rows and not letters and not scenario.on("empty"):
        return
    now = marker_now(state, scenario.count)
    if now is None:
        yield ended(state, at, "MarkerLost")
        return
    file = new_file(state) if rows else None
    stage = "letters" if letters and scenario.on("letters first") else "try"
    flush = Flushing(stage, known, target, file, now.gc, None, letters)
    done = with_ingest(state, at, ingest._replace(flush=flush))
    done = stored(done, file, rows) if file is not None else done
    yield Step(f"W{at} writes the rows of [{known.at}, {target}): {rows}", done)


@cache
def attempted(lake: Lake, flush: Flushing) -> Mk | None:
    """The marker that an attempt commits; None: the flush has landed."""
    staged = None if flush.file is None else Staged((), 1, 1, flush.gc, UUID, 0)
    expected = marker(flush.expected)
    intent = Flush(staged, expected, expected.moved_to(offsets(flush.target)))
    base = found_marker(lake)
    if commits.has_landed(intent, metadata(lake), base, flush.id):
        return None
    return plain_marker(intent.marker_on(base, metadata(lake)), len(flush.target))


def go_on(scenario: Scenario, state: State, at: int, flush: Flushing) -> Iterator[Step]:
    """The next step of a flush under way (rules 5 and 6)."""
    if flush.stage == "letters":
        yield _letters(scenario, state, at, flush._replace(stage="try"))
    elif flush.stage in ("try", "unknown"):
        yield _try(scenario, state, at, flush)
        if flush.stage == "unknown":  # CommitUnknown: the same files go into another commit
            anew = flush._replace(stage="try", id=None)
            done = with_ingest(state, at, state.ingests[at]._replace(flush=anew))
            yield Step(f"W{at} does not learn the outcome: the same files, a new commit", done)
            if not scenario.on("keep files") and flush.file is not None:
                yield _thrown_away(scenario, state, at, flush.file)
    elif flush.stage == "landed":
        assert flush.id is not None
        now = Snapped(flush.id, flush.expected)
        if not flush.letters or scenario.on("letters first"):
            yield follow(scenario, state, at, now, "follows its commit")
        else:
            yield _letters(scenario, state, at, flush._replace(letters=()))


def _letters(scenario: Scenario, state: State, at: int, then: Flushing) -> Step:
    """Dead letters are committed before the rows: a record is never in neither table."""
    old, ingest = state.letters, state.ingests[at]
    new = ingest.flush
    assert new is not None
    if scenario.on("letters fence") and state.letters_of != ingest.writer:
        now = head_of(state, scenario.count)
        return follow(scenario, state, at, now, "may not commit dead letters, and follows the head")
    known = {*old} if scenario.on("letters once") else set()
    added = tuple(row for row in new.letters if row not in known)
    done = with_ingest(state, at, ingest._replace(flush=then))
    done = done._replace(letters=tuple(sorted((*old, *added))))
    return Step(f"W{at} commits dead letters {added}", done, wrong=broken(scenario, done))


def _thrown_away(scenario: Scenario, state: State, at: int, file: int) -> Step:
    files = tuple(one for one in state.lake.files if one[0] != file)
    done = with_ingest(state, at, state.ingests[at]._replace(flush=None))
    done = done._replace(lake=state.lake._replace(files=files))
    return Step(f"W{at} deletes its file f{file}", done, wrong=broken(scenario, done))


def _try(scenario: Scenario, state: State, at: int, flush: Flushing) -> Step:
    ingest = state.ingests[at]
    try:
        mark = attempted(state.lake._replace(files=()), flush)
    except Fenced:
        now = head_of(state, scenario.count)
        return follow(scenario, state, at, now, "is refused, and follows the head")
    except CatalogError as error:
        return ended(state, at, type(error).__name__)
    if mark is None:
        now = head_of(state, scenario.count)
        return follow(scenario, state, at, now, "finds that its commit has landed")
    number = flush.id or new_id(state)
    add = () if flush.file is None else (flush.file,)
    request = Post(at, number, state.lake.head, mark, add, ())
    sent = ingest._replace(flush=flush._replace(stage="sent", id=number))
    if not scenario.on("commit first") and ingest.pub is not None:
        sent = sent._replace(pub=live.moved(ingest.pub, Snapped(number, mark)))
    done = with_ingest(state._replace(posts=in_order((*state.posts, request))), at, sent)
    return Step(f"W{at} sends S{number} on S{state.lake.head}, up to {mark.at}", done)
