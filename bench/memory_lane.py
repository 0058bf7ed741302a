"""Memory: what the live table costs beside its Arrow bytes, and whether the processes stay flat."""

from __future__ import annotations

import multiprocessing
import statistics
import time

import pyarrow as pa
from chaos.site import Layout, Process
from support_site import connect as connected

from bench.figures import Figure, at_most, below
from bench.freshness_lane import steady
from bench.stage import Stage, fill, resident_bytes, running, say, set_keys, wait_for

LIVE_ROWS = 1_000_000
#: Of load: some 37 flushes. What a flush or a query leaves behind is there after each of them, so
#: thirds of a dozen flushes show it; a longer run would show no other kind of growth.
SECONDS = 150
#: A flush every four seconds, and a growing number of small files.
FLUSH_ROWS = 200_000
_SQL = "select symbol, count(*), sum(cast(price as double)) from market_data.trades group by symbol"
#: How much the median may grow between the first and the last third of the run.
FLAT = 1.1
#: Of rest after the load: the engine's reading threads end after ten seconds without work, and what
#: their allocators kept goes back to the system then.
REST_S = 15
#: Samples that have thirds.
LEAST = 3
ROLES = ("server", "ingest")


def lane(stage: Stage) -> list[Figure]:
    """Live bytes beside Arrow bytes; resident memory over minutes of load."""
    near, far = stage.site("flat", FLUSH_ROWS), stage.s3_site("flat-s3", FLUSH_ROWS)
    return [
        *_live_bytes(stage),
        *_flat(stage, far, "lake in S3"),
        *_flat(stage, near, "lake in local files"),
    ]


def _live_bytes(stage: Stage) -> list[Figure]:
    layout = stage.site("bytes", flush_rows=1_000_000_000)
    set_keys(layout, flush_age_s=1_000_000, grace_s=1)
    rows = stage.scaled(LIVE_ROWS)
    say("memory: live bytes")
    with running(layout, "serve"), connected(layout) as connection:
        fill(stage.broker, layout.topic, rows)
        wait_for(layout, visible=rows)
        with connection.cursor() as cursor:
            cursor.execute('select * from market_data."trades$live"')
            arrow = cursor.fetch_arrow_table().combine_chunks().get_total_buffer_size()
        time.sleep(stage.seconds(5))  # the inputs of the last merge go after their grace
        held = sum(file.stat().st_size for file in (layout.folder / "live").rglob("*.arrow"))
    return [at_most(Figure("live folder", held, "bytes", "the rows' Arrow bytes", arrow), 1.3)]


def _flat(stage: Stage, layout: Layout, where: str) -> list[Figure]:
    seconds = stage.seconds(SECONDS)
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    say(f"memory: {seconds} s of load, {where}")
    with running(layout, "serve") as supervisor, connected(layout) as connection:
        wait_for(layout)
        feed = spawn.Process(
            target=steady, args=(stage.broker.bootstrap, layout.topic, stop), daemon=True
        )
        feed.start()
        try:
            samples = _watch(supervisor, connection, seconds)
        finally:
            stop.set()
            feed.join(30)
        time.sleep(stage.seconds(REST_S))
        rest = _sizes(supervisor)
    figures = []
    for role, sizes in samples.items():
        third = len(sizes) // 3
        before, after = statistics.median(sizes[:third]), statistics.median(sizes[-third:])
        name = f"{role}, {where}: resident"
        figures += [
            below(Figure(f"{name}, last third ÷ first", after / before, "×"), FLAT),
            Figure(f"{name} at most", max(sizes), "bytes"),
            Figure(f"{name} after {REST_S} s of rest", rest[role], "bytes"),
        ]
    return figures


def _watch(supervisor: Process, connection: object, seconds: float) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = {role: [] for role in ROLES}
    warm = time.perf_counter() + seconds / 10
    limit = time.perf_counter() + seconds
    with connection.cursor() as cursor:  # type: ignore[attr-defined] # the driver has no types
        while time.perf_counter() < limit or min(map(len, samples.values())) < LEAST:
            cursor.execute(_SQL)
            answer = cursor.fetch_arrow_table()
            assert isinstance(answer, pa.Table)
            if time.perf_counter() > warm:
                for role, size in _sizes(supervisor).items():
                    samples[role].append(size)
            time.sleep(0.25)
    return samples


def _sizes(supervisor: Process) -> dict[str, int]:
    """Resident bytes of the children that run."""
    pids = {role: supervisor.child(role) for role in ROLES}
    return {role: resident_bytes(pid) for role, pid in pids.items() if pid is not None}
