"""A site with history committed and a tail that no flush takes away."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog

from bench.stage import SEED, Stage, fill, running, say, set_keys, settle, wait_for


def with_history(stage: Stage, name: str, rows: int, settings: str = "") -> Layout:
    """A site whose table (with these ``settings``) has ``rows`` rows in Iceberg.

    It never flushes again.
    """
    layout = stage.site(name, flush_rows=max(rows // 5, 1))
    set_keys(layout, flush_age_s=2)
    layout.config.write_text(layout.config.read_text() + settings)
    say(f"{name}: loading {rows:,} rows of history")
    with running(layout, "ingest"):
        fill(stage.broker, layout.topic, rows)
        wait_for(layout, committed=rows)
    set_keys(layout, flush_age_s=1_000_000, flush_rows=1_000_000_000)
    layout.config.write_text(layout.config.read_text() + 'flush_bytes = "1TiB"\n')
    return layout


def add_live(stage: Stage, layout: Layout, rows: int, visible: int) -> None:
    """``rows`` more, until ``visible`` are there and their segments are merged."""
    if rows:
        say(f"{layout.folder.name}: {rows:,} more live rows")
        fill(stage.broker, layout.topic, rows, seed=SEED + 2)
    wait_for(layout, visible=visible)
    if stage.timed:
        settle(layout)


def linked_history(layout: Layout, folder: Path) -> Path:
    """The table's data files, exactly those of its newest snapshot, linked into one folder."""
    folder.mkdir()
    warehouse, database = f"file://{layout.folder}/lake", f"sqlite:///{layout.folder}/catalog.db"
    with closing(SqlCatalog("lake", uri=database, warehouse=warehouse)) as catalog:
        tasks = catalog.load_table(layout.table).scan().plan_files()
    for number, task in enumerate(tasks):
        os.link(task.file.file_path.removeprefix("file://"), folder / f"{number:04}.parquet")
    return folder
