"""What an ingest does: claim, consume, publish, trim, merge, follow the head."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

from catalog import commits
from catalog import ingest as ingesting
from catalog.errors import CatalogError
from catalog.intents import Claim
from catalog.kafka_client import check_bounds
from model import live
from model.explore import Step
from model.flushing import MANY, begin_flush, go_on
from model.processes import ended, follow, in_order, killed, landed
from model.values import (
    TOPIC,
    Lake,
    Mk,
    Positions,
    Seg,
    found_marker,
    identity,
    metadata,
    offsets,
    plain_marker,
)
from model.world import (
    Folder,
    Ingest,
    Post,
    Scenario,
    State,
    head_of,
    left,
    new_id,
    spend,
    with_folder,
    with_ingest,
)


def ingest_steps(scenario: Scenario, state: State) -> Iterator[Step]:
    """What each ingest may do next, and what may be done to it."""
    for at, ingest in enumerate(state.ingests):
        if ingest.state == "down":
            if not _folder_in_use(scenario, state, at):
                yield from _start(scenario, state, at)
        elif ingest.state == "again":
            yield from _start(scenario, state, at)
        elif ingest.state == "paused":
            yield Step(
                f"W{at} goes on (SIGCONT)", with_ingest(state, at, ingest._replace(state="up"))
            )
            if scenario.one_folder:
                yield Step(f"the supervisor kills W{at}, which is paused", killed(state, at))
        elif ingest.state == "up":
            yield from _faults(state, at)
            yield from _running(scenario, state, at)


def _folder_in_use(scenario: Scenario, state: State, at: int) -> bool:
    """Rule 11: one ingest per live folder."""
    others = [one for n, one in enumerate(state.ingests) if n != at] if scenario.one_folder else []
    alive = ("up", "again", "paused") if scenario.on("lock") else ("up", "again")
    return any(one.state in alive for one in others)


def _faults(state: State, at: int) -> Iterator[Step]:
    if left(state, "crash"):
        yield Step(f"W{at} is killed", spend(killed(state, at), "crash"), good=False)
    if left(state, "pause"):
        paused = with_ingest(state, at, state.ingests[at]._replace(state="paused"))
        yield Step(f"W{at} is paused (SIGSTOP)", spend(paused, "pause"), good=False)


@cache
def claimed(lake: Lake, topic: int, writer: int, starts: Positions) -> Mk | None:
    """The marker that a claim commits; None: it is in the table already."""
    claim = Claim((identity(topic),), f"w{writer}", 7, offsets(starts))
    base = found_marker(lake)
    if commits.has_landed(claim, metadata(lake), base, None):
        return None
    return plain_marker(claim.marker_on(base, metadata(lake)), len(starts))


def _writer(state: State, at: int) -> int:
    """The random id of a process: one that nobody has."""
    return state.ingests[at].writer or 1 + max(
        [state.lake.copy[1].writer]
        + [one.writer for one in state.ingests]
        + [one.marker.writer for one in (*state.lake.snaps, *state.posts) if one.marker]
    )


def _start(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    if scenario.follows and at:
        yield _begun(scenario, state, at, _writer(state, at), owns=False)
    else:
        yield from _claim(scenario, state, at)


def _take_over(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    """A follower becomes the owner when none is up; its live table stays."""
    ingest, lake = state.ingests[at], state.lake._replace(files=())
    if any(one.state in ("up", "again") and one.owner for one in state.ingests):
        return
    mark = claimed(lake, state.topic, ingest.writer, state.starts)
    if mark is not None:
        request = Post(None, new_id(state), state.lake.head, mark, (), ())
        state = landed(state, request)
    now = head_of(state, scenario.count)
    assert now is not None
    owner = ingest._replace(owner=now.marker)
    state = with_ingest(state._replace(letters_of=ingest.writer), at, owner)
    yield follow(scenario, state, at, now, f"takes over, epoch {now.marker.epoch}")


def _claim(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    """An ingest becomes the owner and finds its place in the log (rules 5, 9 and 12)."""
    lake = state.lake._replace(files=())
    writer = _writer(state, at)
    try:
        mark = claimed(lake, state.topic, writer, state.starts)
    except CatalogError as error:
        yield ended(state, at, type(error).__name__)
        return
    if mark is None:
        yield _begun(scenario, state, at, writer)
        return
    request = Post(None, new_id(state), state.lake.head, mark, (), ())
    yield _begun(scenario, landed(state, request), at, writer)
    if left(state, "lose"):
        late = state._replace(posts=in_order((*state.posts, request)))
        yield Step(
            f"W{at} gives up a claim that is still under way", spend(late, "lose"), good=False
        )


def _begun(scenario: Scenario, state: State, at: int, writer: int, *, owns: bool = True) -> Step:
    known = head_of(state, scenario.count)
    if known is None:
        return ended(state, at, "MarkerLost")
    state = state._replace(letters_of=writer) if owns else state
    previous = state.folders[scenario.folder_of(at)].man
    pub = live.opened(previous, state.topic, known)
    ends = scenario.ends(state)
    try:
        ingesting._refuse_short_log(live.owed(pub), offsets(ends))
        for p in range(state.partitions):
            check_bounds((TOPIC, p), known.marker.at[p], state.starts[p], ends[p])
    except CatalogError as error:
        return ended(state, at, type(error).__name__)
    owner = known.marker if owns else None
    begun = Ingest("up", True, writer, owner, pub, None, state.partitions)
    what = f"claims the table, epoch {known.marker.epoch}," if owns else "follows the table"
    label = f"W{at} {what} from {known.marker.at}"
    return Step(label, with_ingest(state, at, begun))


def _running(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    ingest = state.ingests[at]
    yield from _consume(scenario, state, at)
    if scenario.reads:
        yield from _publish(scenario, state, at)
        yield from _trim(scenario, state, at)
    if scenario.merges:
        yield from _merge(scenario, state, at)
    if ingest.flush is None:
        yield from _look(scenario, state, at)
        if ingest.owner is None:
            yield from _take_over(scenario, state, at)
            return
        for most in (MANY, 1) if scenario.partial else (MANY,):
            yield from begin_flush(scenario, state, at, most)
    else:
        yield from go_on(scenario, state, at, ingest.flush)


def _consume(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    ingest = state.ingests[at]
    assert ingest.pub is not None
    if ingest.known < state.partitions:
        wider = ingest._replace(known=state.partitions)
        if not scenario.on("earliest"):
            high = (*ingest.pub.high[: ingest.known], *scenario.ends(state)[ingest.known :])
            wider = wider._replace(pub=ingest.pub._replace(high=high))
        yield Step(f"W{at} finds new partitions", with_ingest(state, at, wider))
    for p in range(ingest.known if ingest.reading else 0):
        log, first = scenario.log[state.topic][p], ingest.pub.high[p]
        if state.starts[p] > first and not scenario.on("stay"):  # auto.offset.reset
            high = (*ingest.pub.high[:p], state.starts[p], *ingest.pub.high[p + 1 :])
            reset = ingest._replace(pub=ingest.pub._replace(high=high))
            yield Step(f"W{at} is set to {state.starts[p]} in p{p}", with_ingest(state, at, reset))
        elif state.starts[p] > first:
            over = with_ingest(state, at, ingest._replace(reading=False))
            yield Step(f"W{at} finds p{p} deleted below {state.starts[p]}: reading ends", over)
        elif first < len(log):
            yield _extend(scenario, state, at, p)


def _extend(scenario: Scenario, state: State, at: int, p: int) -> Step:
    """The next record, and the offsets without one before it, or the rest of the log."""
    ingest = state.ingests[at]
    assert ingest.pub is not None
    if state.topic != ingest.pub.topic and scenario.on("identity"):
        return ended(state, at, "TopicRecreated, before rows of another topic are published")
    log, first = scenario.log[state.topic][p], ingest.pub.high[p]
    found = next((n for n in range(first, len(log)) if log[n] != "."), None)
    next_ = len(log) if found is None else found + 1
    held = () if found is None or _rejected(scenario, state, p, found) else (found,)
    if not scenario.on("ranges"):
        first = first if found is None else found
    seg = Seg(state.topic, ((p, first, next_, held),))
    if scenario.reads:
        folder = scenario.folder_of(at)
        disk = state.folders[folder].disk | {seg}
        state = with_folder(state, folder, state.folders[folder]._replace(disk=disk))
    more = with_ingest(state, at, ingest._replace(pub=live.extended(ingest.pub, seg)))
    return Step(f"W{at} consumes p{p} [{first}, {next_})", more)


def _rejected(scenario: Scenario, state: State, p: int, offset: int) -> bool:
    """Whether a record is a dead letter: it cannot be decoded now, or could not once (sticky)."""
    if scenario.log[state.topic][p][offset] != "x":
        return False
    sticky = scenario.on("sticky") and (state.topic, p, offset) in state.letters
    return sticky or not state.mended


def _publish(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    ingest, place = state.ingests[at], scenario.folder_of(at)
    assert ingest.pub is not None
    pub, man = live.published(ingest.pub)
    folder = state.folders[place]
    if man is None or man == folder.man:
        return
    done = with_ingest(state, at, ingest._replace(pub=pub))
    if not scenario.on("order"):  # the old manifest is still there when its segments go
        gone = with_folder(done, place, folder._replace(disk=folder.disk & {*man.segs}))
        yield Step(f"W{at} trims before it publishes", gone)
    done = with_folder(done, place, folder._replace(man=man))
    yield Step(f"W{at} publishes S{man.snap} C={man.committed} E={man.high}", done)


def _trim(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    ingest, place = state.ingests[at], scenario.folder_of(at)
    assert ingest.pub is not None
    folder = state.folders[place]
    listed = () if folder.man is None or not scenario.on("trim") else folder.man.segs
    disk = folder.disk & {*live.kept(ingest.pub), *listed}
    if disk != folder.disk:
        yield Step(f"W{at} trims", with_folder(state, place, Folder(folder.man, disk)))


def _merge(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    ingest, place = state.ingests[at], scenario.folder_of(at)
    assert ingest.pub is not None
    segs, folder = ingest.pub.segs, state.folders[place]
    for pair in itertools.pairwise(segs):
        if not {*pair} <= folder.disk:
            continue
        pub, whole = live.merged(ingest.pub, pair)
        done = with_ingest(state, at, ingest._replace(pub=pub))
        done = with_folder(done, place, folder._replace(disk=folder.disk | {whole}))
        yield Step(f"W{at} merges two segments", done, good=False)


def _look(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    ingest = state.ingests[at]
    assert ingest.pub is not None
    if state.lake.head != ingest.pub.known.snap and scenario.on("follow"):
        yield follow(scenario, state, at, head_of(state, scenario.count), "follows the head")
