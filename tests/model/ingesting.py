"""What an ingest does: claim, consume, publish, trim, merge, flush, follow the head."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from catalog import commits
from catalog import flush as flushing
from catalog import ingest as ingesting
from catalog.commits import Claim, Flush, Staged
from catalog.errors import CatalogError, Fenced, LogGap
from catalog.flush import StartAgain
from catalog.kafka_client import check_bounds
from catalog.offsets import Offsets
from model import live
from model.explore import Step
from model.values import (
    NAME,
    TOPIC,
    UUID,
    Lake,
    Mk,
    Positions,
    Seg,
    Snap,
    Snapped,
    found_marker,
    head,
    identity,
    marker,
    metadata,
    offsets,
    plain_marker,
    positions,
)
from model.world import (
    Flushing,
    Folder,
    Ingest,
    Post,
    Scenario,
    State,
    broken,
    head_of,
    left,
    marker_now,
    new_file,
    new_id,
    spend,
    stored,
    with_folder,
    with_ingest,
)

_MANY = 2**40


def ingest_steps(scenario: Scenario, state: State) -> Iterator[Step]:
    """What each ingest may do next, and what may be done to it."""
    for at, ingest in enumerate(state.ingests):
        if ingest.state == "down":
            if not _folder_in_use(scenario, state, at):
                yield from _claim(scenario, state, at)
        elif ingest.state == "again":
            yield from _claim(scenario, state, at)
        elif ingest.state == "paused":
            yield Step(
                f"W{at} goes on (SIGCONT)", with_ingest(state, at, ingest._replace(state="up"))
            )
            if scenario.one_folder:
                yield Step(f"the supervisor kills W{at}, which is paused", _killed(state, at))
        elif ingest.state == "up":
            yield from _faults(state, at)
            yield from _running(scenario, state, at)


def _folder_in_use(scenario: Scenario, state: State, at: int) -> bool:
    """Rule 11: one ingest per live folder."""
    others = [one for n, one in enumerate(state.ingests) if n != at] if scenario.one_folder else []
    alive = ("up", "again", "paused") if scenario.on("lock") else ("up", "again")
    return any(one.state in alive for one in others)


def _killed(state: State, at: int) -> State:
    return with_ingest(_unanswered(state, at), at, Ingest("down"))


def _unanswered(state: State, at: int) -> State:
    """Nobody waits for the ingest's requests any more; they are still under way."""
    posts = tuple(p._replace(sender=None) if p.sender == at else p for p in state.posts)
    return state._replace(posts=_sorted(posts))


def _sorted(posts: tuple[Post, ...]) -> tuple[Post, ...]:
    return tuple(sorted(posts, key=repr))


def _ended(state: State, at: int, why: str) -> Step:
    ended = state.ingests[at]._replace(state="ended", flush=None, owner=None, pub=None)
    return Step(f"W{at} ends: {why}", with_ingest(_unanswered(state, at), at, ended))


def _again(state: State, at: int, why: str) -> Step:
    again = Ingest("again", writer=state.ingests[at].writer)
    return Step(f"W{at} reads again: {why}", with_ingest(_unanswered(state, at), at, again))


def _faults(state: State, at: int) -> Iterator[Step]:
    if left(state, "crash"):
        yield Step(f"W{at} is killed", spend(_killed(state, at), "crash"), good=False)
    if left(state, "pause"):
        paused = with_ingest(state, at, state.ingests[at]._replace(state="paused"))
        yield Step(f"W{at} is paused (SIGSTOP)", spend(paused, "pause"), good=False)


@cache
def _claimed(lake: Lake, topic: int, writer: int, starts: Positions) -> Mk | None:
    """The marker that a claim commits; None: it is in the table already."""
    claim = Claim((identity(topic),), f"w{writer}", 7, offsets(starts))
    base = found_marker(lake)
    if commits.has_landed(claim, metadata(lake), base, None):
        return None
    return plain_marker(claim.marker_on(base, metadata(lake)), len(starts))


def _claim(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    """An ingest becomes the owner and finds its place in the log (rules 5, 9 and 12)."""
    lake = state.lake._replace(files=())
    writer = state.ingests[at].writer or 1 + max(
        [state.lake.copy[1].writer]
        + [one.writer for one in state.ingests]
        + [one.marker.writer for one in (*state.lake.snaps, *state.posts) if one.marker]
    )
    try:
        mark = _claimed(lake, state.topic, writer, state.starts)
    except CatalogError as error:
        yield _ended(state, at, type(error).__name__)
        return
    if mark is None:
        yield _begun(scenario, state, at, writer)
        return
    request = Post(None, new_id(state), state.lake.head, mark, (), ())
    yield _begun(scenario, landed(state, request), at, writer)
    if left(state, "lose"):
        late = state._replace(posts=_sorted((*state.posts, request)))
        yield Step(
            f"W{at} gives up a claim that is still under way", spend(late, "lose"), good=False
        )


def _begun(scenario: Scenario, state: State, at: int, writer: int) -> Step:
    known = head_of(state, scenario.count)
    assert known is not None
    previous = state.folders[scenario.folder_of(at)].man
    pub = live.opened(previous, state.topic, known)
    ends = scenario.ends(state)
    try:
        ingesting._refuse_short_log(live.owed(pub), offsets(ends))
        for p in range(state.partitions):
            check_bounds((TOPIC, p), known.marker.at[p], state.starts[p], ends[p])
    except CatalogError as error:
        return _ended(state, at, type(error).__name__)
    begun = Ingest("up", True, writer, known.marker, pub, None, state.partitions)
    label = f"W{at} claims the table, epoch {known.marker.epoch}, from {known.marker.at}"
    return Step(label, with_ingest(state, at, begun))


def landed(state: State, post: Post) -> State:
    """A commit becomes the head."""
    lake = state.lake
    kept = [file for file in lake.top.files if file not in post.drop]
    files = tuple(sorted([*kept, *post.add]))  # a file that is added twice counts twice
    snap = Snap(post.id, lake.head, post.marker, files)
    copy = lake.copy if post.marker is None else (post.id, post.marker)
    return state._replace(lake=lake._replace(snaps=(*lake.snaps, snap), head=post.id, copy=copy))


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
        for most in (_MANY, 1) if scenario.partial else (_MANY,):
            yield from _begin_flush(scenario, state, at, most)
    else:
        yield from _go_on(scenario, state, at, ingest.flush)


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
        return _ended(state, at, "TopicRecreated, before rows of another topic are published")
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
    for pair in zip(segs, segs[1:], strict=False):
        if not {*pair} <= folder.disk:
            continue
        pub, whole = live.merged(ingest.pub, pair)
        done = with_ingest(state, at, ingest._replace(pub=pub))
        done = with_folder(done, place, folder._replace(disk=folder.disk | {whole}))
        yield Step(f"W{at} merges two segments", done, good=False)


@cache
def _moved(owner: Mk, known: Snapped, now: Snapped) -> bool:
    return flushing.has_moved(marker(owner), head(known), head(now), NAME)


def _follow(state: State, at: int, now: Snapped | None, label: str) -> Step:
    """The head as it is now, or as a commit left it (rule 13); a flush is over."""
    ingest = state.ingests[at]
    assert ingest.owner is not None
    assert ingest.pub is not None
    if now is None:
        return _ended(state, at, "MarkerLost")
    try:
        moved = _moved(ingest.owner, ingest.pub.known, now)
    except StartAgain as turn:
        return _again(state, at, str(turn))
    except Fenced:
        return _ended(state, at, "Fenced")
    pub = live.moved(ingest.pub, now) if moved else ingest.pub
    label = f"W{at} {label}: S{now.snap} C={now.marker.at}"
    return Step(label, with_ingest(state, at, ingest._replace(pub=pub, flush=None)))


def _look(scenario: Scenario, state: State, at: int) -> Iterator[Step]:
    ingest = state.ingests[at]
    assert ingest.pub is not None
    if state.lake.head != ingest.pub.known.snap and scenario.on("follow"):
        yield _follow(state, at, head_of(state, scenario.count), "follows the head")


def _begin_flush(scenario: Scenario, state: State, at: int, most: int) -> Iterator[Step]:
    ingest = state.ingests[at]
    assert ingest.pub is not None
    segs, high = live.to_flush(ingest.pub, most)
    if most != _MANY and len(segs) == len(ingest.pub.segs):
        return
    known = ingest.pub.known.marker
    target = flushing.flush_target(marker(known), high)
    if target is None:
        return
    if state.topic != ingest.pub.topic and scenario.on("identity"):
        yield _ended(state, at, "TopicRecreated, before a flush")
        return
    try:
        rows = live.read(segs, known.at, target)
    except LogGap:
        yield _again(state, at, "the tail does not reach down to the recorded positions")
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
        yield _ended(state, at, "MarkerLost")
        return
    file = new_file(state) if rows else None
    stage = "letters" if letters and scenario.on("letters first") else "try"
    flush = Flushing(stage, known, target, file, now.gc, None, letters)
    done = with_ingest(state, at, ingest._replace(flush=flush))
    done = stored(done, file, rows) if file is not None else done
    yield Step(f"W{at} writes the rows of [{known.at}, {target}): {rows}", done)


@cache
def _attempt(lake: Lake, flush: Flushing) -> Mk | None:
    """The marker that an attempt commits; None: the flush has landed."""
    staged = None if flush.file is None else Staged((), 1, 1, flush.gc, UUID, 0)
    expected = marker(flush.expected)
    intent = Flush(staged, expected, expected.moved_to(offsets(flush.target)))
    base = found_marker(lake)
    if commits.has_landed(intent, metadata(lake), base, flush.id):
        return None
    return plain_marker(intent.marker_on(base, metadata(lake)), len(flush.target))


def _go_on(scenario: Scenario, state: State, at: int, flush: Flushing) -> Iterator[Step]:
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
            yield _follow(state, at, now, "follows its commit")
        else:
            yield _letters(scenario, state, at, flush._replace(letters=()))


def _letters(scenario: Scenario, state: State, at: int, then: Flushing) -> Step:
    """Dead letters are committed before the rows: a record is never in neither table."""
    old = state.letters
    new = state.ingests[at].flush
    assert new is not None
    known = {*old} if scenario.on("letters once") else set()
    added = tuple(row for row in new.letters if row not in known)
    done = with_ingest(state, at, state.ingests[at]._replace(flush=then))
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
        mark = _attempt(state.lake._replace(files=()), flush)
    except Fenced:
        now = head_of(state, scenario.count)
        return _follow(state, at, now, "is refused, and follows the head")
    except CatalogError as error:
        return _ended(state, at, type(error).__name__)
    if mark is None:
        now = head_of(state, scenario.count)
        return _follow(state, at, now, "finds that its commit has landed")
    number = flush.id or new_id(state)
    add = () if flush.file is None else (flush.file,)
    request = Post(at, number, state.lake.head, mark, add, ())
    sent = ingest._replace(flush=flush._replace(stage="sent", id=number))
    if not scenario.on("commit first") and ingest.pub is not None:
        sent = sent._replace(pub=live.moved(ingest.pub, Snapped(number, mark)))
    done = with_ingest(state._replace(posts=_sorted((*state.posts, request))), at, sent)
    return Step(f"W{at} sends S{number} on S{state.lake.head}, up to {mark.at}", done)
