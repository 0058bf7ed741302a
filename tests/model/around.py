"""What happens around the ingests: requests on their way, maintenance, other tools, the topic."""

from __future__ import annotations

from collections.abc import Iterator

from model.explore import Step
from model.processes import landed
from model.values import Mk, Row
from model.world import (
    Compaction,
    Post,
    Scenario,
    State,
    broken,
    left,
    marker_now,
    new_file,
    new_id,
    spend,
    stored,
    with_ingest,
)


def around_steps(scenario: Scenario, state: State) -> Iterator[Step]:
    """What may happen without an ingest's doing."""
    for post in sorted(set(state.posts), key=repr):
        yield from _request(scenario, state, post)
    yield from _compaction(scenario, state)
    yield from _expiry(scenario, state)
    yield from _orphans(scenario, state)
    yield from _moves(scenario, state)
    yield from _topic(scenario, state)


def _awaited(state: State, post: Post) -> bool:
    if post.sender == "compactor":
        return state.compaction is not None and state.compaction.stage == "sent"
    return isinstance(post.sender, int)


def _told(state: State, post: Post, stage: str) -> State:
    """The sender learns something: "landed", "try" (refused) or "unknown"."""
    if post.sender == "compactor":
        refused = state.compaction._replace(stage="refused") if state.compaction else None
        return state._replace(compaction=None if stage != "try" else refused)
    if not isinstance(post.sender, int):
        return state
    ingest = state.ingests[post.sender]
    assert ingest.flush is not None
    flush = ingest.flush._replace(stage=stage)
    if stage == "landed" and post.marker is not None:
        flush = flush._replace(expected=post.marker)
    return with_ingest(state, post.sender, ingest._replace(flush=flush))


def _request(scenario: Scenario, state: State, post: Post) -> Iterator[Step]:
    rest = list(state.posts)
    rest.remove(post)
    without, awaited = state._replace(posts=tuple(rest)), _awaited(state, post)
    name = f"commit S{post.id} on S{post.base}"
    again = state.lake.snap(post.id) is not None  # an id that is taken is refused as malformed
    may = post.base == state.lake.head and not again
    after = landed(without, post) if may else without
    what = "lands" if may else "is refused"
    wrong = broken(scenario, after) if may else None
    if awaited:
        stage = "landed" if may else ("unknown" if again else "try")
        yield Step(f"{name} {what}", _told(after, post, stage), wrong=wrong)
    else:
        yield Step(f"{name}, of nobody any more, {what}", after, good=not may, wrong=wrong)
        if may:
            yield Step(f"{name} vanishes", without)
    if awaited and left(state, "lose"):
        lost = spend(_told(after, post, "unknown"), "lose")
        yield Step(f"{name} {what}, its answer is lost", lost, good=False, wrong=wrong)
        lost = spend(_told(without, post, "unknown"), "lose")
        yield Step(f"{name} is lost", lost, good=False)
        late = post._replace(sender=None)
        posts = tuple(sorted((*without.posts, late), key=repr))
        lost = spend(_told(state._replace(posts=posts), post, "unknown"), "lose")
        yield Step(f"{name} times out and is still under way", lost, good=False)


def _rows(state: State, files: tuple[int, ...]) -> tuple[Row, ...]:
    stored_files = dict(state.lake.files)
    return tuple(sorted(row for file in files for row in stored_files[file]))


def _compaction(scenario: Scenario, state: State) -> Iterator[Step]:
    """Ours keeps the marker (rule 7) and minds the gc number (rule 8); others write none."""
    now = marker_now(state, scenario.count)
    if state.compaction is None:
        files = state.lake.top.files
        for fault in ("compact", "foreign"):
            if (
                left(state, fault)
                and now is not None
                and len(files) >= (2 if fault == "compact" else 1)
            ):
                file = new_file(state)
                after = stored(state, file, _rows(state, files))
                work = Compaction("new", 0, state.lake.head, files, file, now, fault == "foreign")
                label = f"a {'foreign tool' if work.foreign else 'compaction'} rewrites {files}"
                yield Step(label, spend(after._replace(compaction=work), fault), good=False)
        return
    work = state.compaction
    if work.stage == "new":
        marker = None if work.foreign else work.marker
        post = Post("compactor", new_id(state), work.base, marker, (work.file,), work.inputs)
        after = state._replace(posts=tuple(sorted((*state.posts, post), key=repr)))
        after = after._replace(compaction=work._replace(stage="sent", id=post.id))
        yield Step("the compaction is sent", after, good=False)
    elif work.stage == "refused":
        yield Step(*_rebased(scenario, state, work, now), good=False)
    if left(state, "ccrash"):
        posts = tuple(
            p._replace(sender=None) if p.sender == "compactor" else p for p in state.posts
        )
        after = state._replace(compaction=None, posts=tuple(sorted(posts, key=repr)))
        yield Step("the compaction is killed", spend(after, "ccrash"), good=False)


def _rebased(
    scenario: Scenario, state: State, work: Compaction, now: Mk | None
) -> tuple[str, State]:
    if now is None or not {*work.inputs} <= {*state.lake.top.files}:
        return "the compaction gives up: its inputs are gone", state._replace(compaction=None)
    if scenario.on("gc number") and now.gc != work.marker.gc:
        return "the compaction gives up: orphan removal ran", state._replace(compaction=None)
    marker = now if scenario.on("marker anew") else work.marker
    anew = work._replace(stage="new", base=state.lake.head, marker=marker)
    return f"the compaction is built anew on S{state.lake.head}", state._replace(compaction=anew)


def _expiry(scenario: Scenario, state: State) -> Iterator[Step]:
    """Ours keeps every kept snapshot's marker in reach (rule 2) and what may be read (rule 15)."""
    if not left(state, "expire"):
        return
    read = {*_in_use(scenario, state)} if scenario.on("retention") else set()
    for snap in state.lake.snaps:
        if snap.id == state.lake.head or snap.id in read:
            continue
        snaps = tuple(one for one in state.lake.snaps if one.id != snap.id)
        after = state._replace(lake=state.lake._replace(snaps=snaps))
        if scenario.on("keep markers") and any(
            marker_now(after, scenario.count, one.id) != marker_now(state, scenario.count, one.id)
            for one in snaps
        ):
            continue
        dead = {*snap.files} - after.lake.referenced()
        files = tuple(one for one in after.lake.files if one[0] not in dead)
        after = spend(after._replace(lake=after.lake._replace(files=files)), "expire")
        wrong = broken(scenario, after)
        yield Step(f"S{snap.id} expires", after, good=False, wrong=wrong)


def _in_use(scenario: Scenario, state: State) -> Iterator[int]:
    """Snapshots that were heads lately: published ones, too, if publications follow the head."""
    if scenario.on("follow"):
        yield from (folder.man.snap for folder in state.folders if folder.man is not None)
        yield from (one.pub.known.snap for one in state.ingests if one.pub is not None)
        yield from (one.flush.id for one in state.ingests if one.flush and one.flush.id)
    if state.reader is not None:
        yield from (man.snap for man in (state.reader.pin, state.reader.ticket) if man is not None)


def _orphans(scenario: Scenario, state: State) -> Iterator[Step]:
    """List old files that nothing names; move the gc number; look again; delete (rule 8)."""
    if state.orphans is None:
        if left(state, "gc") and (listed := _old_orphans(state)):
            after = spend(state._replace(orphans=("listed", listed)), "gc")
            yield Step(f"orphan removal lists {listed}", after, good=False)
        return
    phase, files = state.orphans
    if phase == "listed" and scenario.on("gc fence"):
        now = marker_now(state, scenario.count)
        if now is not None:
            post = Post(None, new_id(state), state.lake.head, now._replace(gc=now.gc + 1), (), ())
            after = landed(state, post)._replace(orphans=("fenced", files))
            yield Step("orphan removal moves the gc number", after, good=False)
        yield Step("orphan removal gives up", state._replace(orphans=None), good=False)
        return
    dead = {*files} - state.lake.referenced()
    kept = tuple(one for one in state.lake.files if one[0] not in dead)
    after = state._replace(lake=state.lake._replace(files=kept), orphans=None)
    wrong = broken(scenario, after)
    yield Step(f"orphan removal deletes {sorted(dead)}", after, good=False, wrong=wrong)


def _old_orphans(state: State) -> tuple[int, ...]:
    """Files that nothing names and that no running process is about to commit."""
    young = {
        one.flush.file
        for one in state.ingests
        if one.state == "up" and one.flush and one.flush.stage in ("letters", "try", "sent")
    }
    if state.compaction is not None and state.compaction.stage != "refused":
        young.add(state.compaction.file)
    named = state.lake.referenced() | young
    return tuple(number for number, _ in state.lake.files if number not in named)


def _moves(scenario: Scenario, state: State) -> Iterator[Step]:
    """Somebody rolls main back, or moves it to a snapshot of another branch."""
    if not left(state, "move"):
        return
    for snap in state.lake.snaps:
        if snap.id != state.lake.head:
            after = spend(state._replace(lake=state.lake._replace(head=snap.id)), "move")
            wrong = broken(scenario, after)
            yield Step(f"main is moved to S{snap.id}", after, good=False, wrong=wrong)


def _topic(scenario: Scenario, state: State) -> Iterator[Step]:
    if left(state, "recreate") and state.topic == 0:
        after = state._replace(topic=1, starts=(0,) * scenario.count)
        yield Step("the topic is created again", spend(after, "recreate"), good=False)
    if left(state, "add") and state.partitions < scenario.count:
        after = state._replace(partitions=state.partitions + 1)
        yield Step("the topic gets a partition", spend(after, "add"), good=False)
    if left(state, "mend"):
        after = spend(state._replace(mended=True), "mend")
        yield Step("what could not be decoded can be now", after, good=False)
    if left(state, "delete"):
        for p, end in enumerate(scenario.ends(state)):
            for first in range(state.starts[p] + 1, end + 1):
                starts = (*state.starts[:p], first, *state.starts[p + 1 :])
                after = spend(state._replace(starts=starts), "delete")
                yield Step(f"records of p{p} below {first} are deleted", after, good=False)
