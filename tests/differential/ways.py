"""The same rows kept in every way that a table may keep them, behind one engine.

A way is a namespace with the tables ``a`` and ``b``:

* ``history``: all rows committed, in several snapshots.
* ``live``: all rows in live segments.
* ``split``: history up to a random cut, which may lie inside a segment, and a tail.
* ``evolved``: a foreign table of many files, from which rows were deleted by position, by vector
  and by key, whose columns were added, renamed, promoted, moved, dropped and named again, and
  whose partitions changed.
* ``blind``: files without a single statistic, so nothing can be pruned: what they answer is what
  the others have to answer with pruning.

The name ``kept`` stands for whichever way is asked just then, as if the rows had moved between two
executions of one statement: so a text is planned once, as a dashboard's is, and answered from every
way. By a way's own name every statement is planned for itself.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import load_catalog
from support_lake import sqlite_properties

from catalog.copies import Copies
from catalog.lake import Lake
from catalog.manifest import Manifest
from catalog.offsets import Offsets, TopicIdentity
from catalog.records import Range
from catalog.segments import LiveReader, LiveWriter
from catalog.spec import TableName, TableSpec
from catalog.tables import Need, Pin, Tables, TableVersion
from differential.foreign import blind, evolved
from differential.rows import PARTITIONS, SCHEMA, TOPIC, make
from flight_server.backend import EngineBackend
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits
from flight_server.metrics import QueryLog
from flight_server.options import Settings
from flight_server.protocol import Sealer, Service
from flight_server.sessions import SessionStore

HYBRID = ("history", "live", "split")
WAYS = (*HYBRID, "evolved", "blind")
TABLES = ("a", "b")
#: DuckDB's own copy of the rows.
ORACLE = "memory.main"
#: The namespace that means another way each time.
KEPT = "kept"
_IDENTITY = (TopicIdentity(TOPIC, "cluster", "topic-id"),)
_NOWHERE = Offsets()
_STARTS = Offsets({(TOPIC, partition): 0 for partition in range(PARTITIONS)})
#: Partitions mean many files, and many files cost time: most tables have few.
_LAYOUTS: tuple[tuple[str, ...], ...] = (*[()] * 9, ("b",), ("u",), ("day(t)",))
_SORTS: tuple[tuple[str, ...], ...] = ((), ("k", "t"), ("id",), ("s",))
#: Rows of a and of b. An answer's time is that of planning unless there are thousands.
_SIZES = ((120, 32), (120, 32), (200, 40), (500, 60))


class Moving:
    """A source of versions in which the tables of ``kept`` are those of one way, then of another.

    Attributes:
        way: whose they are now. For one thread.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.way = HYBRID[0]

    def names(self) -> tuple[TableName, ...]:
        """The tables by their own names."""
        return self._tables.names()

    def pin(
        self,
        name: TableName,
        *,
        at_least: Offsets = _NOWHERE,
        deadline_s: float | None = None,
        tail: bool = True,
        as_of: str = "",
    ) -> Pin:
        """The newest version, under the name that was asked for."""
        found = self._tables.pin(
            self._own(name), at_least=at_least, deadline_s=deadline_s, tail=tail, as_of=as_of
        )
        return replace(found, name=name)

    def schema(self, pin: Pin) -> pa.Schema:
        """Its columns."""
        return self._tables.schema(self._owned(pin))

    def open(
        self, pin: Pin, *, need: Need = "hybrid", deadline_s: float | None = None
    ) -> TableVersion:
        """Its rows."""
        return self._tables.open(self._owned(pin), need=need, deadline_s=deadline_s)

    def listing(self) -> Mapping[TableName, str | None]:
        """The tables by their own names, and what names their columns."""
        return self._tables.listing()

    def describe(self, name: TableName, location: str | None = None) -> pa.Schema:
        """A table's columns."""
        return self._tables.describe(self._own(name), location)

    def metadata_table(self, pin: Pin, which: str) -> pa.Table:
        """A ``$`` table."""
        return self._tables.metadata_table(self._owned(pin), which)

    def _own(self, name: TableName) -> TableName:
        return TableName(self.way, name.table) if name.namespace == KEPT else name

    def _owned(self, pin: Pin) -> Pin:
        return replace(pin, name=self._own(pin.name))


@dataclass(frozen=True, slots=True)
class House:
    """Everything that a statement is asked of.

    Attributes:
        rows: by table.
        signed_zero: whether floats may be -0.0.
        engine: ours; tables are named ``way.table``, or ``kept.table``.
        tables: says what ``kept`` means.
        duck: the other engine.
    """

    rows: Mapping[str, pa.Table]
    signed_zero: bool
    engine: Engine
    tables: Moving
    duck: duckdb.DuckDBPyConnection

    def ask(
        self, sql: str, parameters: pa.RecordBatch | None = None, *, way: str = HYBRID[0]
    ) -> pa.Table:
        """Our answer; ``way``: what ``kept`` means in it."""
        self.tables.way = way
        plan = self.engine.plan(Statement(sql, parameters), Options())
        with self.engine.stream(plan) as stream:
            return stream.read_all()

    def service(self) -> Service:
        """The engine for a Flight SQL server."""
        sealer = Sealer([b"the key of all servers of a test"])
        backend = EngineBackend(self.engine, QueryLog(), Settings())
        return Service(backend, sealer, SessionStore(sealer))


@contextmanager
def house(folder: Path, seed: str, sizes: tuple[int, int] | None = None) -> Iterator[House]:
    """Tables of so many rows, drawn by a seed as their numbers are, in every way."""
    rng = random.Random(seed)
    sizes = sizes or rng.choice(_SIZES)
    signed_zero = rng.random() < 0.3
    rows = {
        name: make(rng, size, signed_zero=signed_zero)
        for name, size in zip(TABLES, sizes, strict=True)
    }
    properties = sqlite_properties(folder)
    with ExitStack() as stack:
        lake = Lake.open("lake", properties, copies=Copies(folder / "copies", 1 << 30))
        stack.callback(lake.close)
        specs = [
            _hybrid(lake, folder / "live", TableName(way, name), rows[name], rng)
            for way in HYBRID
            for name in TABLES
        ]
        catalog = load_catalog("lake", **properties)
        stack.callback(catalog.close)
        for way, build in (("evolved", evolved), ("blind", blind)):
            catalog.create_namespace(way)
            for name in TABLES:
                build(catalog, f"{way}.{name}", rows[name], rng)
        live = LiveReader(folder / "live")
        tables = Moving(Tables(lake, live, specs, refresh_ms=3_600_000))
        engine = Engine(tables, lake, Limits(spill_folder=folder / "spill"))
        stack.callback(engine.close)
        duck = stack.enter_context(duckdb.connect(config={"threads": 1}))
        duck.execute("set timezone = 'UTC'")
        for name in TABLES:
            duck.register("given", rows[name])
            duck.execute(f"create table {name} as select * from given")
            duck.unregister("given")
        yield House(rows, signed_zero, engine, tables, duck)


# --- hybrid tables


def _hybrid(
    lake: Lake, folder: Path, name: TableName, rows: pa.Table, rng: random.Random
) -> TableSpec:
    """A fed table as an ingest would leave it: commits up to C, segments around and after it."""
    spec = TableSpec(name, (TOPIC,), sort=rng.choice(_SORTS), partition=rng.choice(_LAYOUTS))
    lake.ensure_table(spec, SCHEMA)
    head = lake.claim(name, _IDENTITY, "writer", 1, _STARTS)
    end = Offsets({tp: _length(rows, tp[1]) for tp in _STARTS})
    cut = {"history": end, "live": _STARTS, "split": _between(_STARTS, end, rng)}[name.namespace]
    position = _STARTS
    for to in _steps(_STARTS, cut, rng):
        assert head.marker is not None
        staged = lake.write_files(name, _of_log(rows, position, to), spec)
        head = lake.commit(name, staged, expected=head.marker, new=head.marker.moved_to(to))
        position = to
    writer, segments = LiveWriter(folder, name, 0.0), []
    position = _between(_STARTS, cut, rng)  # a segment may begin before the cut
    for to in _steps(position, end, rng):
        batch = _of_log(rows, position, to).combine_chunks().to_batches() or SCHEMA.empty_table()
        ranges = tuple(Range(*tp, position.at(tp), to.at(tp)) for tp in sorted(to))
        segments.append(writer.write(batch[0], ranges))
        position = to
    writer.publish(
        Manifest(
            table=name,
            table_uuid=head.table_uuid,
            topics=_IDENTITY,
            snapshot_id=head.snapshot_id,
            metadata_location=head.metadata_location,
            committed=cut,
            high=end,
            watermarks=end,
            segments=tuple(segments),
            schema_id=1,
            arrow_schema=SCHEMA,
            published_us=time.time_ns() // 1000,
            sequence=1,
        )
    )
    return spec


def _length(rows: pa.Table, partition: int) -> int:
    return int(pc.sum(pc.equal(rows["_partition"], partition)).as_py())


def _of_log(rows: pa.Table, first: Offsets, end: Offsets) -> pa.Table:
    """The records of ``[first, end)`` of every partition."""
    parts = [
        rows.filter(
            (pc.field("_partition") == partition)
            & (pc.field("_offset") >= first.at((topic, partition)))
            & (pc.field("_offset") < end.at((topic, partition)))
        )
        for topic, partition in sorted(end)
    ]
    return pa.concat_tables(parts)


def _between(first: Offsets, end: Offsets, rng: random.Random) -> Offsets:
    return Offsets({tp: rng.randint(first.at(tp), end.at(tp)) for tp in end})


def _steps(first: Offsets, end: Offsets, rng: random.Random) -> list[Offsets]:
    """Positions on the way, the last one the end; none where there is no way."""
    if first.same_as(end):
        return []
    found = [first]
    for _ in range(rng.choice((0, 0, 0, 1, 2, 4))):
        found.append(_between(found[-1], end, rng))
    kept = [to for at, to in itertools.pairwise(found) if not at.same_as(to)]
    return kept if kept and kept[-1].same_as(end) else [*kept, end]
