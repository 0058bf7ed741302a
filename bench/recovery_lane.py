"""Recovery: a tail read again after a restart, and a table taken over from a dead writer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from chaos.site import Layout, Process

from bench.figures import Figure, below
from bench.stage import PATIENCE_S, Stage, fill, manifest, say, set_keys, wait_for
from catalog.manifest import Manifest

ROWS = 1_000_000
#: After the first start, which has nothing to recover; the median counts.
RESTARTS = 3
#: Deaths of writers; the slowest take-over counts.
DEATHS = 3


def lane(stage: Stage) -> list[Figure]:
    """Seconds from the start of the process until all is visible, and from death to new owner."""
    return [below(recovery(stage), 3), below(take_over(stage), 5)]


def recovery(stage: Stage) -> Figure:
    """An ingest with nothing in history is ended and started again."""
    rows = stage.scaled(ROWS)
    layout = stage.site("recovery", flush_rows=10 * rows)
    set_keys(layout, flush_age_s=3600)
    say(f"recovery: writing {rows:,} trades")
    fill(stage.broker, layout.topic, rows)
    seconds = []
    for restart in range(1 + stage.turns(RESTARTS)):
        before = manifest(layout)
        began = time.perf_counter()
        process = Process(layout, ["ingest"])
        try:
            if before is None:
                wait_for(layout, visible=rows)
            else:
                _wait(layout, _after(before))
                seconds.append(time.perf_counter() - began)
        finally:
            process.end()
        say(f"recovery: start {restart} took {time.perf_counter() - began:.1f} s with its end")
    median = sorted(seconds)[len(seconds) // 2]
    return Figure(f"recovery of a tail of {rows:,} rows, from start", median, "s")


def take_over(stage: Stage) -> Figure:
    """Two standbys; the one that writes is killed, and started again as the other's standby."""
    first = stage.site("owner", flush_rows=10_000_000)
    text = first.config.read_text().replace("[live]", '[live]\nrole = "standby"')
    first.config.write_text(text)
    second = replace(first, folder=first.folder / "second", config=first.folder / "second.toml")
    second.folder.mkdir()
    second.config.write_text(text.replace('folder = "live"', 'folder = "second/live"'))
    fill(stage.broker, first.topic, stage.scaled(100_000))
    say("take-over: kill -9")
    seconds = []
    with ExitStack() as stack:
        writer, standby = first, second
        process = _started(stack, writer, "writer")
        for _ in range(stage.turns(DEATHS)):
            heir = _started(stack, standby, "follower")
            died = time.perf_counter()
            process.kill()
            seconds.append(_wait(standby, lambda found: found.role == "writer") - died)
            writer, standby, process = standby, writer, heir
    detail = {"fastest": min(seconds)}
    return Figure("take-over after the writer's death", max(seconds), "s", detail=detail)


def _started(stack: ExitStack, layout: Layout, role: str) -> Process:
    """The process, once it does what is expected of it now."""
    before = manifest(layout)
    process = Process(layout, ["ingest"])
    stack.callback(process.end)
    _wait(layout, lambda found: found.role == role and (before is None or _after(before)(found)))
    return process


def _after(before: Manifest) -> Callable[[Manifest], bool]:
    return lambda found: found.sequence > before.sequence


def _wait(layout: Layout, done: Callable[[Manifest], bool]) -> float:
    """The moment at which a published version is as wanted."""
    limit = time.perf_counter() + PATIENCE_S
    while (found := manifest(layout)) is None or not done(found):
        if time.perf_counter() > limit:
            raise TimeoutError(f"the last version of {layout.folder.name} was {found}")
        time.sleep(0.005)
    return time.perf_counter()
