"""Small tables for the engine's tests: real Parquet files and live batches, no catalog behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog.errors import NotReady, TableNotFound
from catalog.files import CONSTANT, PROVEN
from catalog.lake import FileRequest
from catalog.offsets import Offsets
from catalog.reports import offsets_table
from catalog.shapes import Group
from catalog.spec import TableName
from catalog.stores import StoreOptions
from catalog.tables import Need, Pin, TableVersion
from flight_server.engine import Engine, Options, Statement
from flight_server.limits import Limits

TRADES = TableName("market_data", "trades")
FEW = TableName("market_data", "few")
PLAIN = TableName("market_data", "symbols")

TRADES_SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("price", pa.decimal128(18, 8), nullable=False),
        pa.field("quantity", pa.decimal128(18, 8)),
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("conditions", pa.list_(pa.field("element", pa.string(), nullable=False))),
        pa.field("vendor", pa.map_(pa.string(), pa.string())),
        pa.field("note", pa.string()),
        pa.field("ratio", pa.float64()),
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("_kafka_timestamp", pa.timestamp("us", tz="UTC")),
    ]
)
START = datetime(2024, 3, 1, tzinfo=UTC)
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")


def trades(first: int, count: int) -> pa.Table:
    """Rows of offsets ``[first, first + count)``: one a second, symbols in turn, price = offset."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "symbol": [SYMBOLS[n % 4] for n in numbers],
            "price": [Decimal(n) for n in numbers],
            "quantity": [None if n % 10 == 0 else Decimal(n % 7) for n in numbers],
            "timestamp": [START + timedelta(seconds=n) for n in numbers],
            "conditions": [["x"] * (n % 3) for n in numbers],
            "vendor": [[("k", str(n))] for n in numbers],
            "note": [None for _ in numbers],
            "ratio": [n / 2 for n in numbers],
            "_topic": ["market.equities.trades.demo" for _ in numbers],
            "_partition": [0 for _ in numbers],
            "_offset": list(numbers),
            "_kafka_timestamp": [START for _ in numbers],
        },
        schema=TRADES_SCHEMA,
    )


_FIXED = [
    pa.field("path", pa.string(), nullable=False),
    pa.field("file_format", pa.string(), nullable=False),
    pa.field("record_count", pa.int64(), nullable=False),
    pa.field("sequence_number", pa.int64()),
    pa.field("delete_files", pa.list_(pa.field("element", pa.string(), nullable=False))),
    pa.field("equality_deletes", pa.bool_(), nullable=False),
    pa.field("deletes", pa.list_(pa.int32())),
    pa.field("partial", pa.bool_(), nullable=False),
]


def entries_of(schema: pa.Schema, files: Sequence[tuple[Path, pa.Table]]) -> pa.Table:
    """What ``Lake.entries`` says of these files; bounds of text are cut at 2 characters."""
    columns = [f for f in schema if not pa.types.is_nested(f.type)]
    typed = pa.struct([(f.name, f.type) for f in columns])
    counts = pa.struct([(f.name, pa.int64()) for f in columns])
    rows = [
        {
            "path": f"file://{path.absolute()}",
            "file_format": "parquet",
            "record_count": table.num_rows,
            "sequence_number": i,
            "delete_files": [],
            "equality_deletes": False,
            "deletes": [],
            "partial": False,
            "lower": {f.name: _bound(table[f.name], "min") for f in columns},
            "upper": {f.name: _bound(table[f.name], "max") for f in columns},
            "null_count": {f.name: table[f.name].null_count for f in columns},
            "nan": {f.name: _nan(table[f.name]) for f in columns if _is_float(f)},
        }
        for i, (path, table) in enumerate(files)
    ]
    layout = [
        *_FIXED,
        pa.field("lower", typed),
        pa.field("upper", typed),
        pa.field("null_count", counts),
        pa.field("nan", pa.struct([(f.name, pa.int8()) for f in columns if _is_float(f)])),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(layout))


def _is_float(field: pa.Field) -> bool:
    return bool(pa.types.is_floating(field.type))


def _nan(column: pa.ChunkedArray) -> int:
    return CONSTANT if pc.any(pc.is_nan(column)).as_py() else PROVEN


def _bound(column: pa.ChunkedArray, which: str) -> object:
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return None  # Iceberg's bounds leave NaN out, so they bound nothing
    value = pc.min_max(column)[which].as_py()
    if not isinstance(value, str):
        return value
    return value[:2] if which == "min" else value[:1] + chr(ord(value[1:2] or " ") + 1)


@dataclass
class Kept:
    """One table: files on disk, live batches in memory."""

    schema: pa.Schema
    files: list[tuple[Path, pa.Table]] = field(default_factory=list)
    live: list[pa.RecordBatch] = field(default_factory=list)
    kind: Literal["hybrid", "plain"] = "hybrid"
    version: int = 0


class FolderTables:
    """``TableSource`` and ``Store`` over a folder; counts what is asked of it.

    ``publish`` makes a new version; pins of older ones stay answerable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now: dict[TableName, Kept] = {}
        self.past: dict[tuple[TableName, int], Kept] = {}
        self.pinned: list[TableName] = []
        self.opened: list[tuple[TableName, Need]] = []
        self.unready: set[TableName] = set()

    def publish(
        self,
        name: TableName,
        files: Sequence[pa.Table] = (),
        live: Sequence[pa.RecordBatch] = (),
        kind: Literal["hybrid", "plain"] = "hybrid",
        blooms: Sequence[str] = (),
    ) -> None:
        """A new version of a table made of these files and live batches.

        Files have Bloom filters of the columns ``blooms``.
        """
        version = self.now[name].version + 1 if name in self.now else 1
        schema = (files[0] if files else live[0]).schema
        written = []
        for i, table in enumerate(files):
            path = self.folder / str(name) / f"v{version}-{i}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            filters = {name: {"ndv": table.num_rows} for name in blooms} or None
            pq.write_table(table, path, compression="zstd", bloom_filter_options=filters)
            written.append((path, table))
        self.now[name] = Kept(schema, written, list(live), kind, version)
        self.past[name, version] = self.now[name]

    def names(self) -> tuple[TableName, ...]:
        """Every table."""
        return tuple(sorted(self.now))

    def listing(self) -> dict[TableName, str | None]:
        """Every table; nothing names its columns."""
        return dict.fromkeys(sorted(self.now))

    def pin(
        self,
        name: TableName,
        *,
        at_least: Offsets = Offsets(),  # noqa: B008  # frozen
        deadline_s: float | None = None,
        tail: bool = True,
        as_of: str = "",
    ) -> Pin:
        """The newest version; its number is its high position."""
        assert not as_of
        del deadline_s, tail
        self.pinned.append(name)
        if name in self.unready:
            raise NotReady(f"{name} has not been published yet")
        if name not in self.now:
            raise TableNotFound(f"there is no table {name}")
        kept = self.now[name]
        high = Offsets({("t", 0): kept.version})
        if not high.covers(at_least):
            raise NotReady(f"{name} is behind")
        return Pin(
            name=name,
            table_uuid=str(name),
            kind=kept.kind,
            topics=(),
            snapshot_id=kept.version,
            metadata_location="",
            schema_id=1,
            committed=Offsets(),
            high=high,
        )

    def _kept(self, pin: Pin) -> Kept:
        return self.past[pin.name, pin.snapshot_id or 0]

    def schema(self, pin: Pin) -> pa.Schema:
        """The columns of a version."""
        return self._kept(pin).schema

    def open(
        self, pin: Pin, *, need: Need = "hybrid", deadline_s: float | None = None
    ) -> TableVersion:
        """The rows of a version."""
        del deadline_s
        self.opened.append((pin.name, need))
        kept = self._kept(pin)
        live = () if need == "runs" else tuple(kept.live)
        rows = sum(batch.num_rows for batch in live)
        return TableVersion(pin, kept.schema, entries_of(kept.schema, kept.files), live, rows)

    def describe(self, name: TableName, location: str | None = None) -> pa.Schema:
        """The columns of the newest version."""
        assert location is None
        if name in self.unready:
            raise NotReady(f"{name} has not been published yet")
        return self.now[name].schema

    def metadata_table(self, pin: Pin, which: str) -> pa.Table:
        """A small table about a version."""
        if which == "offsets":
            return offsets_table(pin.committed, pin.high, pin.high)
        if which == "snapshots":
            return pa.table({"snapshot_id": [pin.snapshot_id]})
        return entries_of(self.schema(pin), self._kept(pin).files).select(["path", "record_count"])

    def store_options(self, name: TableName, path: str) -> StoreOptions:
        """Local files."""
        del name, path
        return StoreOptions("file")

    def location(self, name: TableName, metadata_location: str) -> str:
        """The folder of the table."""
        del metadata_location
        return (self.folder / str(name)).as_uri()

    def names_are_stable(
        self, name: TableName, metadata_location: str, declared: pa.Schema | None = None
    ) -> bool:
        """No column was ever renamed."""
        del name, metadata_location, declared
        return True

    def file_groups(
        self, name: TableName, request: FileRequest
    ) -> tuple[list[Group], tuple[str, ...]]:
        """The files here have no field ids."""
        del name
        return [], request.paths

    def read_files(self, name: TableName, request: FileRequest) -> Iterator[pa.RecordBatch]:
        """No file has deletes here."""
        raise NotImplementedError(f"{name} {request}")


def ask(engine: Engine, text: str, values: pa.RecordBatch | None = None) -> list[object]:
    """A statement's rows, as DuckDB's client gives them."""
    plan = engine.plan(Statement(text, values), Options(schema="market_data"))
    return [tuple(row.values()) for row in engine.stream(plan).read_all().to_pylist()]


@contextmanager
def trades_and_few(folder: Path, **others: pa.Table) -> Iterator[Engine]:
    """Trades: offsets 0 to 349; few: 0 to 39. Both have files and a tail; others have a file."""
    kept = FolderTables(folder)
    live = trades(300, 50).to_batches()
    kept.publish(TRADES, [trades(100 * i, 100) for i in range(3)], live)
    kept.publish(FEW, [trades(0, 20)], trades(20, 20).to_batches())
    for name, rows in others.items():
        kept.publish(TableName("market_data", name), [rows])
    with closing(Engine(kept, kept, Limits())) as engine:
        yield engine


@contextmanager
def trades_and_few_in_duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    """The same rows."""
    columns = ["symbol", "price", "quantity", "note", "ratio", "_offset"]
    with duckdb.connect() as made:
        made.register("trades", trades(0, 350).select(columns))
        made.register("few", trades(0, 40).select(columns))
        yield made


def assert_alike(engine: Engine, duck: duckdb.DuckDBPyConnection, text: str) -> None:
    """Both answer with the same rows, in the same order."""
    assert ask(engine, text) == duck.execute(text).fetchall()
