"""A small real site: SQLite catalog, an ordinary table, a hybrid table, the engine over them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from support_lake import IDENTITY, SCHEMA, STARTS, Place, Writer, log_rows, sqlite_properties

from catalog.lake import Lake
from catalog.manifest import Manifest
from catalog.offsets import Offsets
from catalog.records import Range, Segment
from catalog.segments import LiveReader, LiveWriter
from catalog.spec import TableName, TableSpec
from catalog.tables import Tables
from flight_server.backend import EngineBackend
from flight_server.engine import Engine
from flight_server.limits import Limits
from flight_server.metrics import QueryLog
from flight_server.options import Settings
from flight_server.plans import Options
from flight_server.protocol import Sealer, Service
from flight_server.sessions import SessionStore

TICKS = TableSpec(TableName("market_data", "ticks"), ("ticks",), sort=("symbol", "at"))
NUMBERS = TableName("demo", "numbers")
NUMBERS_ROWS = pa.table(
    {"n": [1, 2, 3, 4, 5], "label": ["one", "two", None, "four", "five"]},
    schema=pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("label", pa.string())]),
)


@dataclass
class Site:
    """Tables in ``folder``; the hybrid one is moved on by hand, in the order of rule 10.

    Attributes:
        position: what was consumed.
        live: the segments that the next manifest lists.
    """

    folder: Path
    position: Offsets = STARTS
    live: list[Segment] = field(default_factory=list)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.place = Place(sqlite_properties(self.folder), TICKS)
        lake = self.place.lake()
        lake.ensure_table(TICKS, SCHEMA)
        self.writer = Writer.claiming(self.place, "writer", lake)
        self.segments = LiveWriter(self.folder / "live", TICKS.name, 0.0)
        catalog = self.place.foreign()
        catalog.create_namespace(NUMBERS.namespace)
        table = catalog.create_table(str(NUMBERS), schema=NUMBERS_ROWS.schema)
        table.append(NUMBERS_ROWS)

    @property
    def committed(self) -> Offsets:
        """C."""
        return self.writer.marker.positions

    def consume(self, rows: int) -> None:
        """``rows`` more records of each partition become one live segment."""
        to = self.position.with_positions([(tp, p + rows) for tp, p in self.position.items()])
        ranges = tuple(Range(*tp, self.position.at(tp), to.at(tp)) for tp in sorted(to))
        batch = log_rows(self.position, to).combine_chunks().to_batches()[0]
        self.live.append(self.segments.write(batch, ranges))
        self.position = to

    def flush(self) -> None:
        """Commits everything consumed; no segment stays listed."""
        staged = self.writer.lake.write_files(
            TICKS.name, log_rows(self.committed, self.position), TICKS
        )
        self.writer.commit(staged, self.writer.marker.moved_to(self.position))
        self.live.clear()

    def publish(self) -> None:
        """One manifest, atomically."""
        head = self.writer.head
        self.sequence += 1
        self.segments.publish(
            Manifest(
                table=TICKS.name,
                table_uuid=head.table_uuid,
                topics=IDENTITY,
                snapshot_id=head.snapshot_id,
                metadata_location=head.metadata_location,
                committed=self.committed,
                high=self.committed.max(self.position),
                watermarks=self.position,
                segments=tuple(self.live),
                schema_id=1,
                arrow_schema=SCHEMA,
                published_us=time.time_ns() // 1000,
                sequence=self.sequence,
            )
        )

    @cached_property
    def log(self) -> QueryLog:
        """The query log of the one engine."""
        return QueryLog()

    @cached_property
    def engine(self) -> Engine:
        """The engine of :meth:`service`."""
        return self.make_engine()

    def make_engine(self, **limits: Any) -> Engine:
        """Another engine, as another process would have one."""
        lake = Lake.open("lake", self.place.properties, timeout_s=60)
        tables = Tables(lake, LiveReader(self.folder / "live"), [TICKS], refresh_ms=0)
        system = {"lag": tables.lag, "tables": tables.overview, "queries": self.log.to_arrow}
        return Engine(tables, lake, Limits(**limits), catalog_name="lake", system=system)

    def backend(self, engine: Engine | None = None, **settings: Any) -> EngineBackend:
        """The backend over an engine."""
        merged = {"options": Options(schema="market_data"), "session_wait_s": 0.05, **settings}
        return EngineBackend(engine or self.engine, self.log, Settings(**merged))

    def service(self, **more: Any) -> Service:
        """A service with sessions; all services share a key."""
        sealer = Sealer([b"the key of all servers of a test"])
        backend = more.pop("backend", None) or self.backend()
        return Service(backend, sealer, SessionStore(sealer), **more)

    def close(self) -> None:
        """Ends the engine's threads."""
        self.engine.close()
        self.writer.lake.close()
