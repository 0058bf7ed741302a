"""Helpers of the ingest's tests: a topic of framed Avro, a lake and a live folder, and answers."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fastavro
import pyarrow as pa
from pyiceberg.catalog import load_catalog

from catalog.errors import CatalogError
from catalog.ingest import Sources, run_ingest
from catalog.kafka import TopicReader
from catalog.lake import Lake
from catalog.manifest import Manifest
from catalog.observer import Committed
from catalog.offsets import Offsets
from catalog.registry import open_registry
from catalog.segments import LiveReader
from catalog.spec import LiveSpec, TableName, TableSpec

SCHEMA_ID = 7
SCHEMA = {
    "type": "record",
    "name": "Tick",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "number", "type": "long"},
    ],
}
_PARSED = fastavro.parse_schema(dict(SCHEMA))
#: Bound on a wait: for a broken ingest only, on a machine that does much else.
WAIT_S = 120.0

#: A visible row: (partition, offset, number).
Row = tuple[int, int, int]


def framed(number: int, *, schema_id: int = SCHEMA_ID) -> bytes:
    """One record as a Confluent producer writes it."""
    return framed_text(f"S{number % 5}", number, schema_id=schema_id)


def framed_text(symbol: str, number: int, *, schema_id: int = SCHEMA_ID) -> bytes:
    """One record with a symbol of any length."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, _PARSED, {"symbol": symbol, "number": number})
    return b"\0" + schema_id.to_bytes(4, "big") + body.getvalue()


@dataclass
class Watching:
    """An observer that remembers."""

    commits: list[Committed] = field(default_factory=list)
    troubles: list[CatalogError] = field(default_factory=list)
    rejects: Counter[str] = field(default_factory=Counter)
    stops: dict[TableName, CatalogError] = field(default_factory=dict)
    rows: int = 0

    def consumed(self, table: TableName, rows: int, size_bytes: int) -> None:
        """Counts rows."""
        del table, size_bytes
        self.rows += rows

    def rejected(self, table: TableName, counts: Mapping[str, int]) -> None:
        """Is added up."""
        del table
        self.rejects.update(counts)

    def published(self, table: TableName, manifest: Manifest, newest_us: int | None) -> None:
        """Is not of interest."""
        del table, manifest, newest_us

    def committed(self, table: TableName, committed: Committed) -> None:
        """Is kept."""
        del table
        self.commits.append(committed)

    def troubled(self, table: TableName, trouble: CatalogError) -> None:
        """Is kept."""
        del table
        self.troubles.append(trouble)

    def stopped(self, table: TableName, error: CatalogError) -> None:
        """Is kept."""
        self.stops[table] = error


@dataclass(frozen=True)
class World:
    """Everything around one ingest."""

    folder: Path
    kafka: Mapping[str, str]
    live: LiveSpec

    @classmethod
    def make(cls, folder: Path, kafka: Mapping[str, str], **live: float) -> World:
        """A world in an empty folder; keywords change the live folder's declaration."""
        schemas = folder / "schemas"
        schemas.mkdir(exist_ok=True)
        (schemas / f"{SCHEMA_ID}.avsc").write_text(json.dumps(SCHEMA))
        options = {"grace_s": 1.0, "reload_s": 0.2, **live}
        spec = LiveSpec(folder / "live", **options)  # type: ignore[arg-type] # floats for ints
        # The mock cluster answers a fetch when its wait is over, not when a record comes.
        return cls(folder, {**kafka, "fetch.wait.max.ms": "20"}, spec)

    @property
    def properties(self) -> dict[str, str]:
        """The lake's."""
        return {
            "uri": f"sqlite:///{self.folder}/catalog.db",
            "warehouse": f"file://{self.folder}/warehouse",
        }

    def lake(self) -> Lake:
        """A client of our own."""
        return Lake.open("lake", self.properties, timeout_s=60)

    def sources(self, **changes: object) -> Sources:
        """What an ingest process would be given."""
        parts: dict[str, object] = {
            "lake": self.lake(),
            "registry": open_registry(f"file:{self.folder}/schemas", {}),
            "reader": lambda spec: TopicReader(
                self.kafka, spec.topics, key=spec.reads_key, headers=spec.reads_headers
            ),
            "live": self.live,
            **changes,
        }
        return Sources(**parts)  # type: ignore[arg-type] # built by keyword

    def manifest(self, name: TableName) -> Manifest | None:
        """What a server would see now."""
        return LiveReader(self.live.folder).manifest(name)

    def history(self, name: TableName, snapshot_id: int | None) -> list[Row]:
        """Rows of a snapshot, as another tool reads them."""
        table = load_catalog("lake", **self.properties).load_table(str(name))
        return _rows(table.scan(snapshot_id=snapshot_id).to_arrow().to_batches())

    def answer(self, name: TableName) -> tuple[list[Row], Manifest]:
        """All rows of the published version, sorted, and the version."""
        reader = LiveReader(self.live.folder)
        manifest = reader.manifest(name)
        assert manifest is not None
        tail = reader.batches(manifest.segments, manifest.committed, manifest.high)
        return sorted(self.history(name, manifest.snapshot_id) + _rows(tail)), manifest

    def wait(self, name: TableName, done: Callable[[Manifest], bool]) -> Manifest:
        """The first published version that ``done`` likes."""
        reader = LiveReader(self.live.folder)
        limit = time.monotonic() + WAIT_S
        while True:
            manifest = reader.manifest(name)
            if manifest is not None and done(manifest):
                return manifest
            assert time.monotonic() < limit, f"the last version was {manifest}"
            time.sleep(0.02)


def _rows(batches: Iterable[pa.RecordBatch]) -> list[Row]:
    rows: list[Row] = []
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("_partition", "_offset", "number"))
        rows += zip(*columns, strict=True)
    return rows


def reached(topic: str, *ends: int) -> Callable[[Manifest], bool]:
    """Whether a version reaches these ends of partitions 0, 1 and so on."""
    wanted = Offsets({(topic, partition): end for partition, end in enumerate(ends)})
    return lambda manifest: manifest.high.covers(wanted)


def committed(topic: str, *ends: int) -> Callable[[Manifest], bool]:
    """Whether a version's snapshot reaches these ends."""
    wanted = Offsets({(topic, partition): end for partition, end in enumerate(ends)})
    return lambda manifest: manifest.committed.covers(wanted)


@dataclass
class Running:
    """An ingest in a thread."""

    stop: threading.Event
    thread: threading.Thread
    errors: dict[TableName, CatalogError] = field(default_factory=dict)
    crash: BaseException | None = None

    def end(self) -> None:
        """Stops it and waits."""
        self.stop.set()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@contextmanager
def running(sources: Sources, *specs: TableSpec) -> Iterator[Running]:
    """Runs an ingest of the tables; whatever ended it by surprise is raised at the end."""
    it = Running(threading.Event(), threading.Thread())

    def body() -> None:
        try:
            it.errors.update(run_ingest(specs, sources, it.stop))
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            it.crash = error

    it.thread = threading.Thread(target=body)
    it.thread.start()
    try:
        yield it
    finally:
        it.end()
    if it.crash is not None:
        raise it.crash


def assert_exact(rows: list[Row], sent: Mapping[int, list[tuple[int, int]]], end: Offsets) -> None:
    """Rows are, per partition, exactly what was sent below the version's end."""
    below = {(partition): position for (_, partition), position in end.items()}
    wanted = sorted(
        (partition, offset, number)
        for partition, records in sent.items()
        for offset, number in records
        if offset < below.get(partition, 0)
    )
    assert rows == wanted
