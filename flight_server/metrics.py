"""Counters, histograms and the query log.

Every process has its own registry (never prometheus-client's global one: two servers may live in
one process). The query log is a bounded ring; ``system.queries`` is its Arrow form.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from catalog.errors import CatalogError
from catalog.logwatch import uncommitted_share
from catalog.manifest import Manifest
from catalog.observer import Committed
from catalog.spec import TableName
from flight_server.admission import Size

State = Literal["running", "finished", "failed", "cancelled"]

#: Finished statements that ``system.queries`` remembers; running ones are always there.
REMEMBERED = 1000
#: Longest statement text kept in the log, in characters.
STATEMENT_CHARS = 500
#: Upper bounds in seconds: a point look-up takes 2 ms, the longest statement minutes.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

#: ``system.queries``.
QUERIES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("user", pa.utf8(), nullable=False),
        pa.field("statement", pa.utf8(), nullable=False),
        pa.field("started", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("state", pa.utf8(), nullable=False),
        pa.field("planning_ms", pa.float64()),
        pa.field("total_ms", pa.float64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("error_code", pa.utf8()),
        pa.field("pins", pa.list_(pa.field("element", pa.utf8(), nullable=False)), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """One statement; durations in milliseconds.

    Attributes:
        total_ms: until now while the statement runs.
        pins: what it reads, one text per table.
    """

    id: int
    user: str
    statement: str
    started: datetime
    state: State = "running"
    planning_ms: float | None = None
    total_ms: float = 0.0
    rows: int = 0
    bytes: int = 0
    error_code: str | None = None
    pins: tuple[str, ...] = ()


class Query:
    """A running statement, from admission to its last batch; ``finish`` is idempotent.

    One thread at a time uses it; the log reads its record, which is replaced, never changed.
    """

    def __init__(self, log: QueryLog, record: QueryRecord) -> None:
        self._log = log
        self._began = time.monotonic()
        self._record = record

    @property
    def record(self) -> QueryRecord:
        """The statement as it stands now."""
        if self._record.state != "running":
            return self._record
        return replace(self._record, total_ms=self._elapsed_ms())

    def planned(self, pins: Iterable[str]) -> None:
        """The statement has been planned over ``pins``."""
        self._record = replace(
            self._record, planning_ms=self._elapsed_ms(), pins=tuple(sorted(pins))
        )

    def sent(self, rows: int, size_bytes: int) -> None:
        """So much has gone to the client since the statement began."""
        self._record = replace(self._record, rows=rows, bytes=size_bytes)

    def finish(self, error_code: str | None = None) -> None:
        """The statement is over; ``error_code`` is a Flight status name, None for success."""
        if self._record.state != "running":
            return
        states: dict[str | None, State] = {None: "finished", "CANCELLED": "cancelled"}
        self._record = replace(
            self._record,
            state=states.get(error_code, "failed"),
            error_code=error_code,
            total_ms=self._elapsed_ms(),
        )
        self._log.finished(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(None if error is None else str(getattr(error, "code", "INTERNAL")))

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self._began) * 1000


class QueryLog:
    """Running and recently finished statements; thread safe.

    Invariant: a statement is in ``_running`` or in ``_done``, never in both, never in neither.
    """

    def __init__(self, metrics: Metrics | None = None, *, remembered: int = REMEMBERED) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._running: dict[int, Query] = {}
        self._done: deque[QueryRecord] = deque(maxlen=remembered)
        self._metrics = metrics

    def begin(self, user: str, statement: str) -> Query:
        """A statement starts."""
        record = QueryRecord(next(self._ids), user, _cut(statement), datetime.now(UTC), pins=())
        query = Query(self, record)
        with self._lock:
            self._running[record.id] = query
        if self._metrics is not None:
            self._metrics.running.inc()
        return query

    def finished(self, query: Query) -> None:
        """Called by :meth:`Query.finish`."""
        record = query.record
        with self._lock:
            del self._running[record.id]
            self._done.append(record)
        if self._metrics is not None:
            self._metrics.count(record)

    def records(self) -> tuple[QueryRecord, ...]:
        """By id, the oldest first."""
        with self._lock:
            records = [*self._done, *(query.record for query in self._running.values())]
        return tuple(sorted(records, key=lambda record: record.id))

    def to_arrow(self) -> pa.Table:
        """``system.queries``, by :data:`QUERIES_SCHEMA`."""
        names = QUERIES_SCHEMA.names
        rows = [{name: getattr(record, name) for name in names} for record in self.records()]
        return pa.Table.from_pylist(rows, schema=QUERIES_SCHEMA)


class Metrics:
    """The server's figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queries = Counter(
            "k2_queries", "Statements by outcome", ["state", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "k2_query_seconds", "Life of a statement", buckets=_SECONDS, registry=self.registry
        )
        self.planning_seconds = Histogram(
            "k2_planning_seconds", "Planning a statement", buckets=_SECONDS, registry=self.registry
        )
        self.rows = Counter("k2_query_rows", "Rows sent", registry=self.registry)
        self.bytes = Counter("k2_query_bytes", "Arrow bytes sent", registry=self.registry)
        self.running = Gauge("k2_queries_running", "Statements running", registry=self.registry)
        self.places = Gauge(
            "k2_places",
            "Statements that compute, or wait for a place to",
            ["state", "size"],
            registry=self.registry,
        )

    def watch_places(
        self, count: Callable[[Literal["running", "waiting"], Size], int], sizes: Iterable[Size]
    ) -> None:
        """From now on the gauge shows what ``count`` says, each time it is read."""
        states: tuple[Literal["running", "waiting"], ...] = ("running", "waiting")
        for state, size in itertools.product(states, sizes):
            self.places.labels(state, size).set_function(functools.partial(count, state, size))

    def count(self, record: QueryRecord) -> None:
        """A statement is over."""
        self.running.dec()
        self.queries.labels(record.state, record.error_code or "OK").inc()
        self.seconds.observe(record.total_ms / 1000)
        if record.planning_ms is not None:
            self.planning_seconds.observe(record.planning_ms / 1000)
        self.rows.inc(record.rows)
        self.bytes.inc(record.bytes)


class IngestMetrics:
    """The ingest's figures; a ``catalog.observer.Observer``."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        by = ["table"]
        self.rows = Counter("k2_ingest_rows", "Rows made live", by, registry=registry)
        self.bytes = Counter("k2_ingest_bytes", "Arrow bytes made live", by, registry=registry)
        self.rejects = Counter(
            "k2_ingest_rejects",
            "Records that became no row, by kind; tombstone: passed over",
            ["table", "kind"],
            registry=registry,
        )
        self.commits = Counter("k2_ingest_commits", "Iceberg commits", by, registry=registry)
        self.committed_rows = Counter(
            "k2_ingest_committed_rows", "Rows committed to Iceberg", by, registry=registry
        )
        self.commit_seconds = Histogram(
            "k2_ingest_commit_seconds", "A flush", by, buckets=_SECONDS, registry=registry
        )
        self.visible_age = Gauge(
            "k2_ingest_visible_age_seconds",
            "Age of the youngest record when it was last published",
            by,
            registry=registry,
        )
        self.live_rows = Gauge("k2_ingest_live_rows", "Rows in segments", by, registry=registry)
        self.live_bytes = Gauge("k2_ingest_live_bytes", "Live bytes", by, registry=registry)
        self.behind = Gauge(
            "k2_ingest_behind", "Offsets up to the high watermarks", by, registry=registry
        )
        self.held = Gauge(
            "k2_ingest_held", "Offsets that open transactions hold back", by, registry=registry
        )
        self.uncommitted_share = Gauge(
            "k2_ingest_uncommitted_share",
            "Greatest share of a partition's log that history lacks, where records are deleted",
            by,
            registry=registry,
        )
        self.retention_close = Gauge(
            "k2_ingest_retention_close",
            "Partitions whose log loses records before history may have them",
            by,
            registry=registry,
        )
        self.paused = Gauge(
            "k2_ingest_paused", "1 at the bound of live bytes", by, registry=registry
        )
        self.troubles = Counter(
            "k2_ingest_troubles", "Failures tried again", ["table", "error"], registry=registry
        )
        self.halted = Gauge(
            "k2_ingest_stopped", "1 where the table has stopped", by, registry=registry
        )

    def consumed(self, table: TableName, rows: int, size_bytes: int) -> None:
        """A chunk became a segment."""
        self.rows.labels(str(table)).inc(rows)
        self.bytes.labels(str(table)).inc(size_bytes)

    def rejected(self, table: TableName, counts: Mapping[str, int]) -> None:
        """A chunk had rejects."""
        for kind, count in counts.items():
            self.rejects.labels(str(table), kind).inc(count)

    def published(self, table: TableName, manifest: Manifest, newest_us: int | None) -> None:
        """A manifest is on disk."""
        name = str(table)
        if newest_us is not None:
            self.visible_age.labels(name).set(max(0.0, time.time() - newest_us / 1e6))
        behind = sum(max(0, n - manifest.high.at(p)) for p, n in manifest.watermarks.items())
        self.live_rows.labels(name).set(sum(segment.rows for segment in manifest.segments))
        self.live_bytes.labels(name).set(sum(segment.bytes for segment in manifest.segments))
        self.behind.labels(name).set(behind)
        self.paused.labels(name).set(manifest.state == "paused")
        self._log_seen(name, manifest)

    def _log_seen(self, name: str, manifest: Manifest) -> None:
        shares = [
            uncommitted_share(bounds, manifest.committed.at((bounds.topic, bounds.partition)))
            for bounds in manifest.log
        ]
        self.held.labels(name).set(sum(bounds.end - bounds.stable for bounds in manifest.log))
        self.uncommitted_share.labels(name).set(max((share or 0.0 for share in shares), default=0))
        self.retention_close.labels(name).set(sum(bounds.close for bounds in manifest.log))

    def committed(self, table: TableName, committed: Committed) -> None:
        """A flush landed."""
        self.commits.labels(str(table)).inc()
        self.committed_rows.labels(str(table)).inc(committed.rows)
        self.commit_seconds.labels(str(table)).observe(committed.seconds)

    def troubled(self, table: TableName, trouble: CatalogError) -> None:
        """Something is tried again."""
        self.troubles.labels(str(table), type(trouble).__name__).inc()

    def stopped(self, table: TableName, error: CatalogError) -> None:
        """A table needs somebody."""
        self.troubles.labels(str(table), type(error).__name__).inc()
        self.halted.labels(str(table)).set(1)


class MetricsEndpoint:
    """The Prometheus endpoint of one registry, on its own thread."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)

    @property
    def port(self) -> int:
        """The port it listens on (a free one where 0 was asked for)."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops answering; idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _cut(statement: str) -> str:
    if len(statement) <= STATEMENT_CHARS:
        return statement
    return statement[: STATEMENT_CHARS - 1] + "…"
