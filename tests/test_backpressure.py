"""What stands in the way of rows: a full disk, a full live table, a catalog that is away."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from support_ingest import (
    SCHEMA_ID,
    WAIT_S,
    Watching,
    World,
    committed,
    reached,
    running,
)
from support_kafka import Broker
from support_log import NAME, Log, assert_answer, spec_of

import catalog.segments
import flight_server
from catalog.errors import LakeUnavailable, LiveFolderFull
from catalog.ipcfile import map_file
from catalog.segments import table_folder

# --- a full disk --------------------------------------------------------------------------------


def torn(world: World) -> list[str]:
    """Segment files that are listed and cannot be read whole, or are not listed."""
    manifest = world.manifest(NAME)
    assert manifest is not None
    for segment in manifest.segments:
        assert map_file(world.live.folder / segment.file, segment.bytes).num_rows == segment.rows
    listed = {Path(segment.file).name for segment in manifest.segments}
    folder = world.live.folder / table_folder(NAME)
    return sorted({file.name for file in folder.glob("*.arrow")} - listed)


class Disk:
    """A disk that is full while ``full`` is set: half of each file is written, then no more.

    Not a limit on the process's files: on Linux that would hit its files in memory, too.
    """

    def __init__(self, folder: Path, suffixes: tuple[str, ...], patch: pytest.MonkeyPatch) -> None:
        self.full = threading.Event()
        self.refused = 0
        write_segment, write_bytes = catalog.segments.write_file, Path.write_bytes

        def refuse(file: Path) -> bool:
            inside = file.is_relative_to(folder) and file.name.endswith(suffixes)
            self.refused += inside and self.full.is_set()
            return inside and self.full.is_set()

        def segment(batch: pa.RecordBatch, file: Path) -> int:
            size = write_segment(batch, file)
            if refuse(file):
                os.truncate(file, size // 2)
                raise OSError(errno.ENOSPC, "No space left on device")
            return size

        def text(file: Path, content: bytes) -> int:
            if refuse(file):
                write_bytes(file, content[: len(content) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_bytes(file, content)

        patch.setattr(catalog.segments, "write_file", segment)
        patch.setattr(Path, "write_bytes", text)


@pytest.mark.parametrize(
    "suffixes", [(".arrow",), (".arrow", ".tmp", "reserve")], ids=["segments", "manifests too"]
)
def test_a_full_disk_shows_and_mends_and_leaves_nothing_torn(
    suffixes: tuple[str, ...],
    mock_broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rule 14: nothing is dropped, the state says why, and it mends by itself with room."""
    log, world = Log(mock_broker, "t"), World.make(tmp_path, mock_broker.properties)
    disk, watching = Disk(world.live.folder, suffixes, monkeypatch), Watching()
    log.write(20)
    with running(world.sources(observer=watching), spec_of(log)) as it:
        world.wait(NAME, reached("t", *log.ends))
        disk.full.set()
        log.write(4_000)
        limit = time.monotonic() + WAIT_S
        while disk.refused < 5 or not watching.troubles:
            assert time.monotonic() < limit
            time.sleep(0.02)
        if ".tmp" not in suffixes:
            full = world.wait(NAME, lambda m: m.state == "paused")
            assert "LiveFolderFull: the live folder has no room" in (full.error or "")
            assert full.reason == "the live folder has no room: reading goes on when there is some"
            # What was live before went into history at once, to make room.
            world.wait(NAME, committed("t", 10, 10))
        while torn(world):  # what the grace keeps, and what is being written just now
            assert time.monotonic() < limit
            time.sleep(0.02)
        assert_answer(world, log)
        disk.full.clear()
        world.wait(NAME, reached("t", *log.ends))
        world.wait(NAME, lambda m: (m.state, m.error, m.reason) == ("running", None, None))
        assert not it.errors
        assert_answer(world, log)
    assert {type(trouble) for trouble in watching.troubles} == {LiveFolderFull}


# --- the catalog is away ------------------------------------------------------------------------


def config(world: World, log: Log) -> Path:
    """Settings of a server beside the ingest; it asks for an ordinary table's head each time."""
    catalog = "".join(f'"{key}" = "{value}"\n' for key, value in world.properties.items())
    file = world.folder / "k2.toml"
    file.write_text(
        f'[kafka]\n"bootstrap.servers" = "{log.broker.bootstrap}"\n'
        f'[registry]\nurl = "file:{world.folder}/schemas"\n[catalog]\nrefresh_ms = 0\n{catalog}'
        f'[live]\nfolder = "{world.live.folder}"\n'
        f'[[table]]\nname = "{NAME}"\ntopics = ["{log.topic}"]\nschema_id = {SCHEMA_ID}\n'
    )
    return file


class Impatient(World):
    """A world that waits a second for a catalog that is held by another connection, not fifteen."""

    @property
    def properties(self) -> dict[str, str]:
        """The lake's."""
        own = super().properties
        return {**own, "uri": f"{own['uri']}?timeout=1"}


@contextmanager
def away(world: World) -> Iterator[None]:
    """The catalog's database answers nobody: another connection holds it for itself."""
    with closing(sqlite3.connect(world.folder / "catalog.db", timeout=WAIT_S)) as holder:
        holder.execute("begin exclusive")
        yield
        holder.rollback()


def test_while_the_catalog_is_away_answers_go_on_and_the_consumer_waits_at_the_bound(
    mock_broker: Broker, tmp_path: Path
) -> None:
    """Rule 14: more comes than may be live; history and tail answer, and all is caught up after."""
    log = Log(mock_broker, "t")
    world = Impatient.make(tmp_path, mock_broker.properties, max_bytes=60_000)
    log.write(100)
    watching = Watching()
    ask = f"select count(*) n, count(distinct _offset * 2 + _partition) d from {NAME}"
    with running(world.sources(observer=watching), spec_of(log, flush_age_s=0.3)):
        world.wait(NAME, committed("t", *log.ends))
        other = load_catalog("lake", **world.properties)
        other.create_table("market_data.plain", schema=other.load_table(str(NAME)).schema())
        with flight_server.open(config(world, log)) as db:
            (row,), (plain,) = db.sql(ask), db.sql("select count(*) n from market_data.plain")
            assert (row["n"], plain["n"]) == (100, 0)
            with away(world):
                log.write(10_000)
                world.wait(NAME, lambda m: m.state == "paused" and "LakeUn" in (m.error or ""))
                log.write(10_000)  # the first ones may all have been on their way by then
                world.wait(NAME, lambda m: not m.high.covers(m.watermarks))  # by a look at the log
                lags = list(db.sql("select * from system.lag order by partition"))
                lag = lags[0]
                assert lag["state"] == "paused"
                assert "live rows fill live.max_bytes (60000 bytes)" in str(lag["reason"])
                assert lag["live_share"] >= 1  # type: ignore[operator] # a number
                # Which partition the consumer had read further when it paused is chance.
                assert any(each["lag_rows"] > 0 for each in lags)  # type: ignore[operator] # numbers
                (row,) = db.sql(ask)
                held = world.manifest(NAME)
                assert held is not None
                assert row["n"] == row["d"] == sum(held.high.values())
                assert 100 < row["n"] < 20_100  # type: ignore[operator] # a number
                with pytest.raises(LakeUnavailable, match="plain"):  # no version of it is held
                    list(db.sql("select count(*) n from market_data.plain"))
            world.wait(NAME, committed("t", *log.ends))
            world.wait(NAME, lambda m: (m.state, m.error, m.reason) == ("running", None, None))
            (row,) = db.sql(ask)
            assert (row["n"], row["d"]) == (20_100, 20_100)
    assert_answer(world, log)
    assert sum(one.rows for one in watching.commits) == 20_100
    assert {type(trouble) for trouble in watching.troubles} == {LakeUnavailable}
