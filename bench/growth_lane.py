"""What grows must not slow down: snapshots, live segments, tables of the catalog, clients.

Each size is its own server over its own lake; a size stands beside the smallest one.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa
from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog

from bench.figures import Figure, at_most
from bench.metadata_lane import fill as fill_catalog
from bench.peers import Ask, asking
from bench.stage import (
    SEED,
    TABLE,
    Stage,
    fill,
    manifest,
    quantile,
    running,
    say,
    set_keys,
    wait_for,
)
from bench.suite import asked
from bench.turns import noise
from catalog.offsets import Offsets
from catalog.records import Range, Segment
from catalog.segments import LiveWriter

SNAPSHOTS = (10, 100, 1_000, 10_000)
SEGMENTS = (1, 8, 60)
TABLES = (10, 100, 1_000, 10_000)
CLIENTS = (1, 4, 16, 64, 256)
ROWS, LIVE_ROWS = 100_000, 1_000_000
#: Seconds that each number of clients asks.
SECONDS = 4.0
#: How much slower the largest may be than the smallest.
GROWTH = 1.5
POINT = "select value from grown.points where id = {}"


def lane(stage: Stage) -> list[Figure]:
    """All four."""
    return [*_snapshots_and_clients(stage), *_tables(stage), *_segments(stage)]


# --- snapshots, tables, clients -----------------------------------------------------------------


def _snapshots_and_clients(stage: Stage) -> list[Figure]:
    """Tables that differ in their number of snapshots, then more and more clients of one."""
    layout = stage.site("growth", flush_rows=1000)
    sizes = _sizes(stage, SNAPSHOTS)
    say(f"growth: {', '.join(f'{size:,}' for size in sizes)} snapshots")
    _points(stage, layout, "points")
    for size in sizes:
        name = f"points_{size}"
        _points(stage, layout, name)
        _more_snapshots(layout, name, size)
    with running(layout, "serve", "--no-ingest"), asked(layout) as ask:
        asks = {size: _of(ask, f"points_{size}") for size in sizes}
        times = _in_turns(asks, _repeats(stage), POINT.format)
        clients = list(_clients(stage, layout.uri))
    return [*_beside_the_smallest("point query, {} snapshots", times), *clients]


def _of(ask: Ask, name: str) -> Ask:
    return lambda sql: ask(sql.replace("points", name))


def _tables(stage: Stage) -> list[Figure]:
    """A server per size of the catalog, all up and asked in turns."""
    with ExitStack() as stack:
        asks: dict[int, Ask] = {}
        for size in _sizes(stage, TABLES):
            say(f"growth: {size:,} tables")
            layout = stage.site(f"growth-{size}", flush_rows=1000)
            fill_catalog(layout, size - 1)
            _points(stage, layout, "points")
            stack.enter_context(running(layout, "serve", "--no-ingest"))
            asks[size] = stack.enter_context(asked(layout))
        times = _in_turns(asks, _repeats(stage), POINT.format)
    return list(_beside_the_smallest("point query, {} tables", times))


def _repeats(stage: Stage) -> int:
    return 100 if stage.timed else 3


def _sizes(stage: Stage, whole: Sequence[int]) -> list[int]:
    """The sizes that a smaller run takes: never fewer than two."""
    fitting = [size for size in whole if size <= max(whole) // stage.shrink]
    return fitting if len(fitting) > 1 else list(whole[:2])


def _in_turns(
    asks: dict[int, Ask], repeats: int, sql: Callable[[int], str]
) -> dict[int, list[float]]:
    """Seconds of one question after the other, sizes in turns; answers must be the same."""
    times: dict[int, list[float]] = {size: [] for size in asks}
    for number in range(repeats + 2):
        answers = []
        for size, ask in asks.items():
            began = time.perf_counter()
            answers.append(ask(sql(number)))
            if number >= 2:  # the first ones read the catalog
                times[size].append(time.perf_counter() - began)
        assert answers[0].num_rows, sql(number)
        assert all(answer.equals(answers[0]) for answer in answers), sql(number)
    return times


def _beside_the_smallest(name: str, times: dict[int, list[float]]) -> Iterator[Figure]:
    smallest, largest = min(times), max(times)
    for size, taken in times.items():
        ratios = [one / other for one, other in zip(taken, times[smallest], strict=True)]
        figure = Figure(
            *(name.format(f"{size:,}"), 1000 * quantile(taken, 0.5), "ms"),
            *("the smallest", 1000 * quantile(times[smallest], 0.5)),
            paired=statistics.median(ratios),
            noise=noise(ratios),
        )
        yield at_most(figure, GROWTH) if size == largest else figure


def _points(stage: Stage, layout: Layout, name: str) -> None:
    """A table that is asked: ids in order, so that one row group holds an id."""
    rows = max(stage.scaled(ROWS), 1_000)
    values = np.random.default_rng(SEED).random(rows)
    points = pa.table({"id": np.arange(rows), "value": values})
    with closing(_catalog(layout)) as catalog:
        catalog.create_namespace_if_not_exists("grown")
        catalog.create_table(f"grown.{name}", points.schema).append(points)


def _catalog(layout: Layout) -> SqlCatalog:
    warehouse, database = f"file://{layout.folder}/lake", f"sqlite:///{layout.folder}/catalog.db"
    return SqlCatalog("lake", uri=database, warehouse=warehouse)


def _more_snapshots(layout: Layout, name: str, count: int) -> None:
    """As many snapshots as a table has after so many commits, all with the same files.

    Ten thousand real commits would write the metadata file ten thousand times: hours.
    """
    with closing(_catalog(layout)) as catalog:
        location = catalog.load_table(f"grown.{name}").metadata_location
    file = Path(location.removeprefix("file://"))
    metadata = json.loads(file.read_text())
    (last,) = metadata["snapshots"]
    ids = [last["snapshot-id"] + number for number in range(count)]
    stamps = [last["timestamp-ms"] + number for number in range(count)]
    metadata["snapshots"] = [
        {
            **last,
            "snapshot-id": one,
            "timestamp-ms": at,
            "sequence-number": number + 1,
            **({"parent-snapshot-id": ids[number - 1]} if number else {}),
        }
        for number, (one, at) in enumerate(zip(ids, stamps, strict=True))
    ]
    metadata["snapshot-log"] = [
        {"snapshot-id": one, "timestamp-ms": at} for one, at in zip(ids, stamps, strict=True)
    ]
    metadata["current-snapshot-id"] = metadata["refs"]["main"]["snapshot-id"] = ids[-1]
    metadata |= {"last-sequence-number": count, "last-updated-ms": stamps[-1]}
    grown = file.with_name("grown.metadata.json")
    grown.write_text(json.dumps(metadata))
    with closing(sqlite3.connect(layout.folder / "catalog.db")) as database:
        database.execute(
            "update iceberg_tables set metadata_location = ? where table_name = ?",
            (f"file://{grown}", name),
        )
        database.commit()


# --- live segments ------------------------------------------------------------------------------


def _segments(stage: Stage) -> list[Figure]:
    """An aggregate over the tail, and a look for one symbol, whose rows lie in all segments."""
    rows = stage.scaled(LIVE_ROWS)
    layout = stage.site("growth-live", flush_rows=100 * rows)
    set_keys(layout, flush_age_s=1_000_000)
    fill(stage.broker, layout.topic, rows)
    with running(layout, "ingest"):
        wait_for(layout, visible=rows)
    sql = (
        "select symbol, count(*) as n, sum(quantity) as traded from market_data.trades"
        " where symbol <> 'S{:02}' group by symbol order by symbol"
    )
    times: dict[int, list[float]] = {}
    answers: dict[int, list[pa.Table]] = {}
    with running(layout, "serve", "--no-ingest"), asked(layout) as ask:
        for count in SEGMENTS:
            say(f"growth: {count} segments")
            _cut(layout, count)
            answers[count] = [ask(sql.format(number)) for number in range(3)]
            times |= _in_turns({count: ask}, 30 if stage.timed else 3, sql.format)
    assert all(each == answers[SEGMENTS[0]] for each in answers.values())
    return list(_beside_the_smallest("aggregate over the tail, {} segments", times))


def _cut(layout: Layout, count: int) -> None:
    """The same tail in so many segments, as a new manifest says."""
    now, folder = manifest(layout), layout.folder / "live"
    assert now is not None
    writer = LiveWriter(folder, TABLE, grace_s=3600)
    batches = writer.read(now.segments, now.committed, now.high)
    rows = pa.Table.from_batches([batch for batch in batches if batch.num_rows])
    rows = rows.sort_by(
        [("_topic", "ascending"), ("_partition", "ascending"), ("_offset", "ascending")]
    )
    segments: list[Segment] = []
    for number in range(count):
        ranges = tuple(
            Range(
                topic,
                partition,
                *_share(now.committed, now.high, (topic, partition), number, count),
            )
            for topic, partition in sorted(now.high)
        )
        segments.append(writer.write(_within(rows, ranges), ranges))
    writer.publish(replace(now, segments=tuple(segments), sequence=now.sequence + 1))


def _share(
    first: Offsets, next_: Offsets, place: tuple[str, int], number: int, count: int
) -> tuple[int, int]:
    """The part ``number`` of ``count`` of a partition's positions."""
    low, high = first.at(place), next_.at(place)
    return low + (high - low) * number // count, low + (high - low) * (number + 1) // count


def _within(rows: pa.Table, ranges: Sequence[Range]) -> pa.RecordBatch:
    """The rows of these positions, as one batch."""
    partitions, offsets = rows["_partition"].to_numpy(), rows["_offset"].to_numpy()
    wanted = np.zeros(len(offsets), bool)
    for each in ranges:
        inside = (offsets >= each.first) & (offsets < each.next)
        wanted |= (partitions == each.partition) & inside
    table = rows.filter(pa.array(wanted)).combine_chunks()
    return table.to_batches()[0]


def _clients(stage: Stage, uri: str) -> Iterator[Figure]:
    for count in CLIENTS[: None if stage.timed else 2]:
        say(f"growth: {count} clients")
        times, seconds = _together(uri, count, stage.seconds(SECONDS))
        clients = f"point query, {count} client{'s' if count > 1 else ''}"
        yield Figure(f"{clients}, p50", 1000 * quantile(times, 0.5), "ms")
        yield Figure(f"{clients}, p99", 1000 * quantile(times, 0.99), "ms")
        yield Figure(f"{clients}, all together", len(times) / seconds, "/s")


def _together(uri: str, count: int, seconds: float) -> tuple[list[float], float]:
    """Times of all questions of ``count`` clients, and how long they asked.

    Raises:
        AssertionError: a client was refused or got another answer.
    """
    times: list[float] = []
    failed: list[Exception] = []
    start = threading.Barrier(count + 1)

    def client(number: int) -> None:
        try:
            with asking(uri) as ask:
                ask(POINT.format(number))
                start.wait(120)
                limit = time.perf_counter() + seconds
                while (began := time.perf_counter()) < limit:
                    assert ask(POINT.format(number)).num_rows == 1
                    times.append(time.perf_counter() - began)
        except (flightsql.Error, AssertionError, threading.BrokenBarrierError) as error:
            failed.append(error)
            start.abort()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        start.wait(120)
    except threading.BrokenBarrierError:
        assert failed
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    assert not failed, f"{count} clients: {failed[0]}"
    return times, time.perf_counter() - began
