"""Questions of a web analyst over one wide table: the shapes of ClickBench, on generated rows.

The table has the columns that ClickBench's questions ask for, with their kinds of distributions
(few search phrases among many empty ones, skewed counters, few engines), and the questions scan,
count distinct, group by few and by very many keys, match patterns and take the top. Orders are made
total, so that an answer is one answer.
"""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog

from bench.figures import Figure
from bench.stage import SEED, Stage, say
from bench.suite import suite

ROWS, FILES = 4_000_000, 4
#: Further columns that nobody asks for: what makes a wide table wide.
FILLERS = 24
DAY_0, DAYS = 15_887, 31  # July 2013


def lane(stage: Stage) -> list[Figure]:
    """All questions, beside the same peers as TPC-H."""
    layout = stage.site("hits", flush_rows=1000)
    say("hits: generating")
    folder = fill(layout, stage.scaled(ROWS))
    return suite("ClickBench-like", layout, "web", {"hits": folder}, queries())


def queries() -> list[str]:
    """The questions, in order."""
    text = Path(__file__).with_name("hits.sql").read_text()
    parts = re.split(r"^-- \d+$", text, flags=re.MULTILINE)[1:]
    return [part.strip().removesuffix(";") for part in parts]


def fill(layout: Layout, rows: int) -> Path:
    """Makes the Iceberg table ``web.hits``; returns the folder of its data files."""
    warehouse, database = f"file://{layout.folder}/lake", f"sqlite:///{layout.folder}/catalog.db"
    with closing(SqlCatalog("lake", uri=database, warehouse=warehouse)) as catalog:
        catalog.create_namespace("web")
        random = np.random.default_rng(SEED)
        first = hits(random, rows // FILES)
        table = catalog.create_table("web.hits", first.schema)
        table.append(first)
        for _ in range(FILES - 1):
            table.append(hits(random, rows // FILES))
        return Path(table.location().removeprefix("file://")) / "data"


def hits(random: np.random.Generator, rows: int) -> pa.Table:
    """``rows`` hits, in order of their time."""
    seconds = np.sort(random.integers(DAY_0 * 86_400, (DAY_0 + DAYS) * 86_400, rows))
    users = random.zipf(1.2, rows) % 500_000 * 7919 + 435_090_932
    phrase = np.where(random.random(rows) < 0.8, 0, 1 + random.zipf(1.3, rows) % 50_000)
    model = np.where(random.random(rows) < 0.9, 0, 1 + random.integers(0, 160, rows))
    page, site = random.zipf(1.4, rows) % 100_000, random.integers(0, 12, rows)
    counter = random.zipf(1.3, rows) % 6_000
    columns: dict[str, object] = {
        "event_time": pa.array(seconds * 1_000_000).cast(pa.timestamp("us")),
        "event_date": pa.array((seconds // 86_400).astype(np.int32)).cast(pa.date32()),
        "counter_id": counter.astype(np.int32),
        "user_id": users,
        "region_id": (random.zipf(1.3, rows) % 5_000).astype(np.int32),
        "adv_engine_id": np.where(
            random.random(rows) < 0.97, 0, random.integers(1, 30, rows)
        ).astype(np.int32),
        "resolution_width": random.choice([0, 1024, 1280, 1366, 1600, 1920], rows).astype(np.int32),
        "is_refresh": (random.random(rows) < 0.15).astype(np.int32),
        "search_phrase": _words("phrase of ", phrase),
        "mobile_model": _words("model ", model),
        "url": pc.binary_join_element_wise(
            pc.take(pa.array(["google", *(f"site{n}" for n in range(1, 12))]), pa.array(site)),
            pa.array(page).cast(pa.string()),
            ".example/page/",
        ),
    }
    fillers = {f"filler_{n:02}": random.integers(0, 10**n % 977 + 2, rows) for n in range(FILLERS)}
    return pa.table({**columns, **fillers})


def _words(prefix: str, numbers: np.ndarray) -> pa.Array:
    """The words of the numbers; 0 is the empty word."""
    words = pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")
    return pc.if_else(pa.array(numbers == 0), "", words)
