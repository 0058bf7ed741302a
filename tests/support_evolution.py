"""A topic whose schema changes, and what every record of it has to be, by fastavro's resolution."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
from support_ingest import World
from support_kafka import Broker

from catalog.manifest import Manifest
from catalog.segments import LiveReader
from catalog.spec import TableName, TableSpec
from catalog.tables import Tables
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits

NAME = TableName("market_data", "ticks")
OPTIONS = Options(schema="market_data")


def avro(*fields: Mapping[str, object], name: str = "Tick") -> dict[str, Any]:
    """A record schema of its fields."""
    return {"type": "record", "name": name, "fields": list(fields)}


def venue(*more: Mapping[str, object], lot: str) -> dict[str, Any]:
    """The type of a nested record."""
    return avro({"name": "mic", "type": "string"}, {"name": "lot", "type": lot}, *more, name="V")


def side(*symbols: str) -> dict[str, Any]:
    """The type of an enum."""
    return {"type": "enum", "name": "Side", "symbols": list(symbols)}


_TIER = {"name": "tier", "type": ["null", "string"], "default": None}
_CURRENCY = {"name": "currency", "type": "string", "default": "USD"}

#: What producers send, by registry id. 2 renames ``price``, widens it, ``size`` and ``lot``, adds
#: three fields; 3 drops ``note``, adds a symbol and a field whose default is a list.
VERSIONS: dict[int, dict[str, Any]] = {
    1: avro(
        {"name": "symbol", "type": "string"},
        {"name": "price", "type": "float"},
        {"name": "size", "type": "int"},
        {"name": "venue", "type": venue(lot="int")},
        {"name": "note", "type": "string"},
    ),
    2: avro(
        {"name": "symbol", "type": "string"},
        _CURRENCY,
        {"name": "px", "type": "double", "aliases": ["price"]},
        {"name": "size", "type": ["null", "long"]},
        {"name": "venue", "type": venue(_TIER, lot="long")},
        {"name": "note", "type": "string"},
        {"name": "side", "type": side("BUY", "SELL"), "default": "BUY"},
    ),
    3: avro(
        {"name": "symbol", "type": "string"},
        {"name": "px", "type": "double", "aliases": ["price"]},
        {"name": "size", "type": ["null", "long"]},
        {"name": "venue", "type": venue(_TIER, lot="long")},
        _CURRENCY,
        {"name": "side", "type": side("BUY", "SHORT", "SELL"), "default": "BUY"},
        {"name": "depth", "type": {"type": "array", "items": "int"}, "default": [7]},
    ),
}
#: What all of them are read as: every column that ever was.
READER = avro(
    {"name": "symbol", "type": "string"},
    {"name": "px", "type": "double", "aliases": ["price"]},
    {"name": "size", "type": ["null", "long"]},
    {"name": "venue", "type": venue(_TIER, lot="long")},
    {"name": "note", "type": ["null", "string"], "default": None},
    _CURRENCY,
    {"name": "side", "type": side("BUY", "SHORT", "SELL"), "default": "BUY"},
    {"name": "depth", "type": {"type": "array", "items": "int"}, "default": [7]},
)


def value_of(number: int, version: int) -> dict[str, Any]:
    """The record with this number, as a producer of a version makes it."""
    inside: dict[str, Any] = {"mic": f"M{number % 3}", "lot": number}
    if version > 1:
        inside["tier"] = None if number % 4 else f"T{number}"
    whole = {
        "symbol": f"S{number % 5}",
        "price": number / 4,
        "px": number / 8,
        "size": number if version == 1 or number % 3 else None,
        "venue": inside,
        "note": f"n{number}",
        "currency": "EUR",
        "side": ("BUY", "SELL", "SHORT")[number % version] if version > 1 else "BUY",
        "depth": [number, -number],
    }
    return {f["name"]: whole[f["name"]] for f in VERSIONS[version]["fields"]}


def encoded(schema: Mapping[str, Any], value: object, schema_id: int) -> bytes:
    """One framed record."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(dict(schema)), value)
    return b"\0" + schema_id.to_bytes(4, "big") + body.getvalue()


def resolved(value: bytes, versions: Mapping[int, Mapping[str, Any]], reader: Any) -> Any:
    """A record as Avro's schema resolution reads it."""
    writer = fastavro.parse_schema(dict(versions[int.from_bytes(value[1:5], "big")]))
    return fastavro.schemaless_reader(
        io.BytesIO(value[5:]), writer, fastavro.parse_schema(dict(reader))
    )


@dataclass
class Topic:
    """A topic of two partitions and everything that was sent to it."""

    broker: Broker
    name: str
    sent: dict[tuple[int, int], bytes] = field(default_factory=dict)
    ends: list[int] = field(default_factory=lambda: [0, 0])
    number: int = 0

    def send(self, versions: Sequence[int]) -> None:
        """One record per version, round robin over the partitions, in this order in each."""
        values = []
        for version in versions:
            value = encoded(VERSIONS[version], value_of(self.number, version), version)
            values.append((self.number % 2, value))
            self.number += 1
        self.put(values)

    def put(self, values: Sequence[tuple[int, bytes]]) -> None:
        """Values by partition."""
        for partition in (0, 1):
            mine = [value for at, value in values if at == partition]
            if mine:
                self.broker.produce(self.name, mine, partition=partition)
            for value in mine:
                self.sent[partition, self.ends[partition]] = value
                self.ends[partition] += 1

    def spec(self, **changes: Any) -> TableSpec:
        """The table that it feeds."""
        options = {"flush_rows": 10**9, "flush_age_s": 3600.0, **changes}
        return TableSpec(NAME, (self.name,), **options)

    def wanted(self, manifest: Manifest, reader: Any = READER) -> list[dict[str, Any]]:
        """What the rows of a version have to be, read by a schema."""
        rows = []
        for (partition, offset), value in sorted(self.sent.items()):
            if offset < manifest.high.at((self.name, partition)):
                where = {"_partition": partition, "_offset": offset}
                rows.append({**where, **resolved(value, VERSIONS, reader)})
        return rows


def register(folder: Path, topic: str, newest: int, versions: Mapping[int, object]) -> None:
    """Makes a folder a registry of schemas by their ids, with a subject's newest one."""
    schemas = folder / "schemas"
    schemas.mkdir(exist_ok=True)
    for file in schemas.glob("*.avsc"):
        file.unlink()
    for number, schema in versions.items():
        (schemas / f"{number}.avsc").write_text(json.dumps(schema))
    (schemas / "subjects.json").write_text(json.dumps({f"{topic}-value": newest}))


@contextmanager
def answering(world: World, spec: TableSpec) -> Iterator[Engine]:
    """An engine over the world's lake and live folder."""
    lake = world.lake()
    tables = Tables(lake, LiveReader(world.live.folder), [spec], refresh_ms=0)
    engine = Engine(tables, lake, Limits())
    try:
        yield engine
    finally:
        engine.close()
        lake.close()


def ask(engine: Engine, text: str) -> list[dict[str, Any]]:
    """A statement's rows."""
    rows: list[dict[str, Any]] = (
        engine.stream(engine.plan(Statement(text), OPTIONS)).read_all().to_pylist()
    )
    return rows


def select(reader: Mapping[str, Any] = READER) -> str:
    """Every column of a schema, in the order of :meth:`Topic.wanted`."""
    columns = ", ".join(f["name"] for f in reader["fields"])
    return f"select _partition, _offset, {columns} from ticks order by 1, 2"


_CHILD = """
import json, sys, threading
from pathlib import Path
from support_ingest import World
from catalog.ingest import run_ingest
from catalog.spec import LiveSpec, TableName, TableSpec
folder, kafka, topic = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
world = World(folder, kafka, LiveSpec(folder / "live", grace_s=1.0, reload_s=0.2))
spec = TableSpec(TableName("market_data", "ticks"), (topic,), flush_rows=10**9, flush_age_s=0.2)
run_ingest([spec], world.sources(), threading.Event())
"""


@contextmanager
def ingesting(
    world: World, topic: Topic, kill_point: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """An ingest in a process of its own, that may end at a named place; killed at the end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    if kill_point:
        environment["K2_KILL_POINT"] = kill_point
    arguments = [str(world.folder), json.dumps(dict(world.kafka)), topic.name]
    child = subprocess.Popen([sys.executable, "-c", _CHILD, *arguments], env=environment)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
