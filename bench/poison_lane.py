"""Poison: what one record in 10,000 that cannot be decoded costs the ingest's rate."""

from __future__ import annotations

from dataclasses import replace

from chaos.site import Layout, lay_out

from bench.figures import Figure, at_least
from bench.ingest_lane import FLUSH_AGE_S, FLUSHES, ROWS, TURNS, first_publication
from bench.stage import PARTITIONS, Stage, fill, running, say, set_keys, wait_for
from bench.turns import Turns

#: One record in so many is cut off, so that its block is refused.
EVERY = 10_000


def lane(stage: Stage) -> list[Figure]:
    """The rate with one reject in 10,000 beside the clean rate, of the same table otherwise.

    As many rows and flushes as in the ingest lane, each flush with its commit of dead letters.
    Clean and poisoned runs take turns, so that what else happens on the machine meets both.
    """
    rows = stage.scaled(ROWS)
    topics = {"clean": _topic(stage, rows, every=0), "poisoned": _topic(stage, rows, every=EVERY)}
    taken: dict[str, list[float]] = {who: [] for who in topics}
    for turn in range(stage.turns(TURNS)):
        for who, topic in topics.items():
            say(f"poison: turn {turn + 1}, {who}")
            taken[who].append(_seconds(_site(stage, f"{who}{turn}", topic, rows), rows))
    name, yardstick = "ingest, one reject in 10,000 to dead letters", "no reject, same table"
    figure = Turns(taken).rate(name, rows, "poisoned", yardstick, "clean")
    return [at_least(replace(figure, detail={"rows": rows, "rejects": rows // EVERY}), 0.9)]


def _topic(stage: Stage, rows: int, every: int) -> str:
    topic: str = stage.broker.create_topic(PARTITIONS)
    say(f"poison: writing {rows:,} trades")
    fill(stage.broker, topic, rows, poison_every=every)
    return topic


def _seconds(layout: Layout, rows: int) -> float:
    """From the first look at the log until every record is a committed row or letter."""
    with running(layout, "ingest"):
        began = first_publication(layout)
        return wait_for(layout, committed=rows) - began


def _site(stage: Stage, name: str, topic: str, rows: int) -> Layout:
    folder = stage.folder / f"poison-{name}"
    layout = lay_out(folder, stage.broker.bootstrap, topic, rows // FLUSHES)
    set_keys(layout, flush_age_s=FLUSH_AGE_S)
    with layout.config.open("a") as config:
        config.write('on_error = "dead_letter"\n')
    return layout
