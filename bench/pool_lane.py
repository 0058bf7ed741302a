"""Statements that need more memory than the pool has: they spill or end typed, nothing dies."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog

from bench.figures import Figure, below
from bench.stage import SEED, Stage, peak_bytes, running, say
from bench.suite import asked

ROWS = 4_000_000
#: The pool of all statements: a small part of the rows, which take some 190 MiB.
POOL_BYTES = 64 * 2**20
#: Beside the pool: the process itself, what reading needs, and batches on their way.
ROOM_BYTES = 512 * 2**20
STATEMENTS = {
    "a sort of all rows": "select word, id from large.words order by word",
    "an aggregate with a group per row": (
        "select count(*) as n from (select word, count(*) as c from large.words group by word)"
    ),
    "a join of all rows with all": (
        "select count(*) as n from large.words a join large.words b on a.word = b.word"
    ),
}


def lane(stage: Stage) -> list[Figure]:
    """Each statement alone; afterwards the same process answers.

    Raises:
        AssertionError: an answer is wrong, an error is not typed, or the process is another one.
    """
    layout = stage.site("pool", flush_rows=1000)
    rows, pool = stage.scaled(ROWS), max(POOL_BYTES // stage.shrink, 2**20)
    with layout.config.open("a") as config:
        config.write(f"\n[limits]\nmemory_bytes = {pool}\n")
    say(f"pool: {rows:,} rows, {pool / 2**20:g} MiB")
    _fill(layout, rows)
    figures = []
    with running(layout, "serve", "--no-ingest") as process, asked(layout) as ask:
        server = process.child("server")
        assert server is not None
        for name, sql in STATEMENTS.items():
            say(f"pool: {name}")
            began = time.perf_counter()
            try:
                check(ask(sql), rows)
                outcome = "spilled and answered"
            except flightsql.Error as error:
                if "limits.memory_bytes" not in str(error):
                    raise
                outcome = "ended typed: limits.memory_bytes"
            seconds = time.perf_counter() - began
            assert process.child("server") == server, f"{name}: the process died"
            assert ask("select 1 as one")["one"].to_pylist() == [1]
            figures.append(Figure(f"{name}, larger than the pool", seconds, "s", note=outcome))
        peak = Figure("the server's most memory meanwhile", peak_bytes(server), "bytes")
    limit = pool + ROOM_BYTES
    bounded = below(peak, limit)
    return [*figures, replace(bounded, goal=f"≤ {limit / 2**20:g} MiB")]


def check(answer: pa.Table, rows: int) -> None:
    """All words in order, or how many there are: each word is there once."""
    if answer.column_names == ["n"]:
        assert answer["n"].to_pylist() == [rows]
        return
    words = answer["word"].combine_chunks()
    assert len(words) == rows
    assert pc.all(pc.less(words[:-1], words[1:])).as_py()


def _fill(layout: Layout, rows: int) -> None:
    """Words that differ, in no order."""
    numbers = np.random.default_rng(SEED).permutation(rows)
    words = pc.binary_join_element_wise(
        "a word that is as long as words are ",
        pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 10, "0"),
        "",
    )
    table = pa.table({"id": np.arange(rows), "word": words})
    warehouse, database = f"file://{layout.folder}/lake", f"sqlite:///{layout.folder}/catalog.db"
    with closing(SqlCatalog("lake", uri=database, warehouse=warehouse)) as catalog:
        catalog.create_namespace("large")
        catalog.create_table("large.words", table.schema).append(table)
