"""What becomes of a process: killed, ended by an error, reading again, following the head."""

from __future__ import annotations

from functools import cache

from catalog import flush as catalog_flush
from catalog.errors import Fenced
from catalog.flush import StartAgain
from model import live
from model.explore import Step
from model.values import (
    NAME,
    Mk,
    Snap,
    Snapped,
    head,
    marker,
)
from model.world import (
    Ingest,
    Post,
    Scenario,
    State,
    with_ingest,
)


def killed(state: State, at: int) -> State:
    """Nothing is left of a process but its requests."""
    return with_ingest(unanswered(state, at), at, Ingest("down"))


def unanswered(state: State, at: int) -> State:
    """Nobody waits for the ingest's requests any more; they are still under way."""
    posts = tuple(p._replace(sender=None) if p.sender == at else p for p in state.posts)
    return state._replace(posts=in_order(posts))


def in_order(posts: tuple[Post, ...]) -> tuple[Post, ...]:
    """Requests under way are a set: states are told apart by it alone."""
    return tuple(sorted(posts, key=repr))


def ended(state: State, at: int, why: str) -> Step:
    """A typed error ends an ingest."""
    ended = state.ingests[at]._replace(state="ended", flush=None, owner=None, pub=None)
    return Step(f"W{at} ends: {why}", with_ingest(unanswered(state, at), at, ended))


def again(state: State, at: int, why: str) -> Step:
    """The same process, with the same writer id, forgets its live table and claims again."""
    again = Ingest("again", writer=state.ingests[at].writer)
    return Step(f"W{at} reads again: {why}", with_ingest(unanswered(state, at), at, again))


def landed(state: State, post: Post) -> State:
    """A commit becomes the head."""
    lake = state.lake
    kept = [file for file in lake.top.files if file not in post.drop]
    files = tuple(sorted([*kept, *post.add]))  # a file that is added twice counts twice
    snap = Snap(post.id, lake.head, post.marker, files)
    copy = lake.copy if post.marker is None else (post.id, post.marker)
    return state._replace(lake=lake._replace(snaps=(*lake.snaps, snap), head=post.id, copy=copy))


@cache
def moved(owner: Mk, known: Snapped, now: Snapped) -> bool:
    """The catalog's own decision."""
    return catalog_flush.has_moved(marker(owner), head(known), head(now), NAME)


def follow(scenario: Scenario, state: State, at: int, now: Snapped | None, label: str) -> Step:
    """The head as it is now, or as a commit left it (rule 13); a flush is over."""
    ingest = state.ingests[at]
    assert ingest.pub is not None
    if now is None:
        return ended(state, at, "MarkerLost")
    try:
        moves = moved(ingest.owner or now.marker, ingest.pub.known, now)
    except StartAgain as turn:
        return again(state, at, str(turn))
    except Fenced:
        if not scenario.follows:
            return ended(state, at, "Fenced")
        fenced = unanswered(with_ingest(state, at, ingest._replace(owner=None)), at)
        return follow(scenario, fenced, at, now, "is fenced, and follows")
    pub = live.moved(ingest.pub, now) if moves else ingest.pub
    label = f"W{at} {label}: S{now.snap} C={now.marker.at}"
    return Step(label, with_ingest(state, at, ingest._replace(pub=pub, flush=None)))
