"""GetTables with schemas over a catalog of ten thousand tables: time and memory."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as fl
from chaos.site import Layout
from pyiceberg.catalog.sql import SqlCatalog
from support_site import connect as connected

from bench.bare import Bare, bare_client
from bench.figures import Figure, at_most, below
from bench.stage import Stage, quantile, resident_bytes, running, say
from flight_server.protocol.codec import encode_command
from flight_server.protocol.messages import GetTables

TABLES, COLUMNS = 10_000, 20
NAMESPACE = "many"
#: Calls after the first one; the memory of the last third is held against that of the first.
CALLS = 30
KINDS = (pa.int64(), pa.string(), pa.float64(), pa.timestamp("us", "UTC"), pa.decimal128(18, 8))


def lane(stage: Stage) -> list[Figure]:
    """The first call, which reads every table's metadata; then warm ones."""
    layout = stage.site("metadata", flush_rows=1000)
    tables = stage.scaled(TABLES)
    say(f"metadata: a catalog of {tables:,} tables with {tables * COLUMNS:,} columns")
    fill(layout, tables)
    with running(layout, "serve", "--no-ingest") as process, connected(layout):
        server = process.child("server")
        assert server is not None
        with fl.connect(layout.uri) as client:
            command = encode_command(
                GetTables(db_schema_filter_pattern=NAMESPACE, include_schema=True)
            )
            descriptor = fl.FlightDescriptor.for_command(command)

            def ask() -> pa.Table:
                info = client.get_flight_info(descriptor)
                return client.do_get(info.endpoints[0].ticket).read_all()

            first_s, listed = _timed(ask)
            _check(listed, tables)
            say("metadata: warm")
            with Bare(listed) as bare:
                stream, close = bare_client(bare.port)
                times, raw, resident = [], [], []
                for _ in range(CALLS):
                    times.append(_timed(ask)[0])
                    resident.append(resident_bytes(server))
                    raw.append(_timed(stream)[0])
                close()
    third = CALLS // 3
    early, late = max(resident[:third]), max(resident[-third:])
    name = f"GetTables with schema, {tables:,} tables, {tables * COLUMNS:,} columns"
    yardstick = "raw Flight stream from memory"
    detail = {"bytes": float(listed.nbytes)}
    return [
        below(
            Figure(f"{name}, warm, p50", quantile(times, 0.5), "s", yardstick, quantile(raw, 0.5)),
            1.0,
        ),
        Figure(f"{name}, first call", first_s, "s", detail=detail),
        at_most(
            Figure(
                "… server: resident, last third of 30 calls", late, "bytes", "first third", early
            ),
            1.1,
        ),
    ]


def _timed(body: Callable[[], pa.Table]) -> tuple[float, pa.Table]:
    began = time.perf_counter()
    found = body()
    return time.perf_counter() - began, found


def _check(listed: pa.Table, tables: int) -> None:
    """A fast empty answer is no figure."""
    assert listed.num_rows == tables
    for place in (0, tables - 1):
        shown = pa.ipc.read_schema(pa.BufferReader(listed["table_schema"][place].as_py()))
        assert shown.names == [f"column_{i}" for i in range(COLUMNS)]


def fill(layout: Layout, tables: int) -> None:
    """One table made by pyiceberg, and copies of its metadata under names of their own."""
    catalog = SqlCatalog(
        "lake",
        uri=f"sqlite:///{layout.folder}/catalog.db",
        warehouse=f"file://{layout.folder}/lake",
    )
    with closing(catalog):
        catalog.create_namespace(NAMESPACE)
        schema = pa.schema([(f"column_{i}", KINDS[i % len(KINDS)]) for i in range(COLUMNS)])
        model = catalog.create_table(f"{NAMESPACE}.model", schema)
        text = Path(model.metadata_location.removeprefix("file://")).read_text()
        catalog.drop_table(f"{NAMESPACE}.model")
    folder = layout.folder / "lake" / NAMESPACE
    rows = []
    for number in range(tables):
        place = folder / f"table_{number:05}"
        file = place.with_suffix(".metadata.json")
        own = text.replace(str(model.metadata.table_uuid), str(uuid.uuid4()))
        file.write_text(own.replace(model.metadata.location, f"file://{place}"))
        rows.append(("lake", NAMESPACE, place.name, f"file://{file}", "TABLE"))
    with closing(sqlite3.connect(layout.folder / "catalog.db")) as database:
        database.executemany(
            "insert into iceberg_tables (catalog_name, table_namespace, table_name,"
            " metadata_location, iceberg_type) values (?, ?, ?, ?, ?)",
            rows,
        )
        database.commit()
