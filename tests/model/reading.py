"""A session that reads statements and redeems a ticket, at any server, at any time."""

from __future__ import annotations

from collections.abc import Iterator

from catalog.errors import CatalogError, LogGap, SegmentMissing
from model import live
from model.explore import Step
from model.values import Man, Positions, Row
from model.world import Folder, Reader, Scenario, State


def reading_steps(scenario: Scenario, state: State) -> Iterator[Step]:
    """What the session may do next."""
    reader = state.reader
    if reader is None:
        return
    if reader.phase == "idle":
        for at, folder in enumerate(state.folders):
            if folder.man is not None:
                yield from _pins(scenario, state, at, folder.man)
    elif reader.phase == "pinned":
        yield from _answers(scenario, state, reader, state.folders[reader.at])


def _pins(scenario: Scenario, state: State, at: int, man: Man) -> Iterator[Step]:
    reader = state.reader
    assert reader is not None
    seen = reader.last if scenario.on("session") else (0,) * scenario.count
    refusal = live.refusal_to_pin(man, seen)
    if isinstance(refusal, LogGap):
        yield Step(
            f"server {at} refuses: a gap", state, good=False, wrong=_false_gap(scenario, man)
        )
    elif refusal is None:
        pinned = reader._replace(phase="pinned", at=at, pin=man)
        yield Step(
            f"a statement pins E={man.high} at server {at}", _with(state, pinned), good=False
        )
    if reader.ticket is not None and reader.redeemed < 1:
        again = reader._replace(phase="pinned", at=at, pin=reader.ticket, redeemed=1)
        yield Step(f"the ticket is redeemed at server {at}", _with(state, again), good=False)


def _with(state: State, reader: Reader) -> State:
    return state._replace(reader=reader)


def _false_gap(scenario: Scenario, man: Man) -> str | None:
    """A gap error is true only where records lie that no segment holds."""
    held = {
        (man.topic, p, offset)
        for seg in man.segs
        for p, first, next_, _ in seg.parts
        for offset in range(first, next_)
    }
    if {*scenario.rows(man.topic, man.committed, man.high)} - held:
        return None
    return f"a gap is reported where no row is missing: C={man.committed}, E={man.high}"


def _answers(scenario: Scenario, state: State, reader: Reader, folder: Folder) -> Iterator[Step]:
    pinned, man = reader.pin, folder.man
    assert pinned is not None
    assert man is not None
    asked = pinned
    if not scenario.on("one version"):  # each partition's end is looked up when it is read
        asked = asked._replace(high=(*pinned.high[:-1], max(pinned.high[-1], man.high[-1])))
    if not scenario.on("same end"):
        asked = man
    rows = live.readable(state.lake, asked.snap, man.snap)
    found = live.answered(man, folder.disk, rows, asked)
    own = reader.ticket is not None and pinned == reader.ticket and reader.redeemed == 1
    idle = reader._replace(phase="idle", at=0, pin=None)
    if isinstance(found, CatalogError):
        name = type(found).__name__
        wrong = None
        if isinstance(found, SegmentMissing):
            wrong = "a segment that the published manifest lists is gone"
        elif _expired(state, pinned):
            wrong = f"S{pinned.snap} expired while a pin names it"
        elif pinned == man:
            wrong = f"the published version itself cannot be read: {name}"
        yield Step(f"it is refused: {name}", _with(state, idle), good=False, wrong=wrong)
        return
    wrong = _judged(scenario, reader, pinned, found, ticket=own)
    last = tuple(map(max, reader.last, pinned.high))
    ticket = (reader.ticket or pinned) if scenario.tickets else None
    idle = idle._replace(last=last, ticket=ticket)
    yield Step(f"it is answered with {found}", _with(state, idle), good=False, wrong=wrong)


def _expired(state: State, man: Man) -> bool:
    snap = state.lake.snap(man.snap)
    files = {number for number, _ in state.lake.files}
    return snap is None or not {*snap.files} <= files


def _judged(
    scenario: Scenario, reader: Reader, pinned: Man, found: tuple[Row, ...], *, ticket: bool
) -> str | None:
    zero: Positions = (0,) * scenario.count
    bad = {*scenario.poison(pinned.topic, zero, pinned.high)}
    rows = tuple(row for row in found if row not in bad)
    if rows != tuple(sorted(scenario.rows(pinned.topic, zero, pinned.high))):
        return f"answer {found} is not the log up to {pinned.high}"
    if not ticket and any(e < seen for e, seen in zip(pinned.high, reader.last, strict=True)):
        return f"the session goes back from {reader.last} to {pinned.high}"
    return None
