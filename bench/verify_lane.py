"""`k2 verify`: rows a second, from the offset columns of a table's files."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from bench.figures import Figure
from bench.stage import PARTITIONS, Stage, say
from catalog.lake import Lake
from catalog.offsets import Offsets, TopicIdentity
from catalog.spec import TableName, TableSpec
from catalog.verify import verify

ROWS, FLUSHES = 8_000_000, 8
GOAL_ROWS_PER_S = 5_000_000
TOPIC = "market.equities.trades.k2"
SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("price", pa.float64()),
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
    ]
)
SPEC = TableSpec(TableName("market_data", "verified"), (TOPIC,), sort=("symbol", "timestamp"))


def lane(stage: Stage) -> list[Figure]:
    """A table of the flushes of an ingest, sorted by symbol, so that offsets lie mixed."""
    folder = stage.folder / "verify"
    folder.mkdir()
    properties = {"uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"}
    lake = Lake.open("lake", properties)
    rows = stage.scaled(ROWS)
    say(f"verify: writing {rows:,} rows")
    fill(lake, rows)
    took_s = []
    for _ in range(3):
        began = time.perf_counter()
        report = verify(lake, SPEC.name)
        took_s.append(time.perf_counter() - began)
        if report.state != "proved" or report.rows != rows:
            raise RuntimeError(f"the table is not proved: {report.findings}")
    lake.close()
    rate = rows / sorted(took_s)[1]
    goal = f"≥ {GOAL_ROWS_PER_S:,} rows/s"
    met = rate >= GOAL_ROWS_PER_S
    return [Figure("k2 verify, offsets of a table", rate, "rows/s", goal=goal, met=met)]


def fill(lake: Lake, rows: int) -> None:
    """Commits the rows as an ingest does."""
    each = rows // FLUSHES // PARTITIONS
    places = [(TOPIC, partition) for partition in range(PARTITIONS)]
    lake.ensure_table(SPEC, SCHEMA)
    topics = (TopicIdentity(TOPIC, "bench", "bench"),)
    head = lake.claim(SPEC.name, topics, "bench", 1, Offsets(dict.fromkeys(places, 0)))
    random = np.random.default_rng(1)
    for flush in range(FLUSHES):
        count = each * PARTITIONS
        columns = [
            pa.array(random.integers(0, 50, count)).cast(pa.string()),
            pa.array(random.integers(0, 10**12, count)).cast(SCHEMA.field("timestamp").type),
            pa.array(random.random(count)),
            pa.repeat(TOPIC, count),
            pa.array(np.repeat(np.arange(PARTITIONS, dtype=np.int32), each)),
            pa.array(np.tile(np.arange(flush * each, (flush + 1) * each), PARTITIONS)),
        ]
        assert head.marker is not None
        staged = lake.write_files(SPEC.name, pa.table(columns, schema=SCHEMA), SPEC)
        new = head.marker.moved_to(Offsets(dict.fromkeys(places, (flush + 1) * each)))
        head = lake.commit(SPEC.name, staged, expected=head.marker, new=new)
