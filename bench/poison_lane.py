"""Poison: what one record in 10,000 that cannot be decoded costs the ingest's rate."""

from __future__ import annotations

from dataclasses import replace

from chaos.site import Layout

from bench.figures import Figure, at_least
from bench.ingest_lane import FLUSH_AGE_S, first_publication
from bench.stage import Stage, fill, running, say, set_keys, wait_for
from bench.turns import Turns

ROWS = 1_000_000
#: One record in so many is cut off, so that its block is refused.
EVERY = 10_000
#: Flushes of the whole: of as many rows as the ingest lane's.
FLUSHES = 4
#: Clean and poisoned runs take turns, so that what else happens on the machine meets both.
TURNS = 3


def lane(stage: Stage) -> list[Figure]:
    """The rate with one reject in 10,000 beside the clean rate, of the same table otherwise."""
    rows = stage.scaled(ROWS)
    taken: dict[str, list[float]] = {"clean": [], "poisoned": []}
    for turn in range(stage.turns(TURNS)):
        taken["clean"].append(_seconds(stage, f"clean{turn}", rows, every=0))
        taken["poisoned"].append(_seconds(stage, f"poisoned{turn}", rows, every=EVERY))
    name, yardstick = "ingest, one reject in 10,000 to dead letters", "no reject, same table"
    figure = Turns(taken).rate(name, rows, "poisoned", yardstick, "clean")
    return [at_least(replace(figure, detail={"rows": rows, "rejects": rows // EVERY}), 0.9)]


def _seconds(stage: Stage, name: str, rows: int, every: int) -> float:
    layout = _site(stage, name, rows)
    say(f"poison: {name}: writing {rows:,} trades")
    fill(stage.broker, layout.topic, rows, poison_every=every)
    with running(layout, "ingest"):
        began = first_publication(layout)
        return wait_for(layout, committed=rows) - began


def _site(stage: Stage, name: str, rows: int) -> Layout:
    layout = stage.site(f"poison-{name}", flush_rows=rows // FLUSHES)  # one commit more in each
    set_keys(layout, flush_age_s=FLUSH_AGE_S)
    with layout.config.open("a") as config:
        config.write('on_error = "dead_letter"\n')
    return layout
