"""Records per second of the decoder, beside fastavro with dictionaries in the same run.

``python bench/decode.py [records]`` prints one JSON object: 200,000 synthetic trades decoded as one
chunk (best and median of several), the same records through ``fastavro.schemaless_reader`` and
``pa.Table.from_pylist`` (a tenth of them, or it takes too long), and milliseconds per small chunk.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from catalog.avro import RegistrySchema
from catalog.decode import Decoder
from catalog.errors import SchemaUnknown
from catalog.records import Chunk, Range
from catalog.schemas import declare, metadata_schema
from catalog.spec import TableName, TableSpec

_PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}
_TIME = {"type": "long", "logicalType": "timestamp-micros"}
_CLASSES = ["equities", "crypto", "futures", "options"]
_SIDES = ["BUY", "SELL", "SELL_SHORT", "UNKNOWN"]
TRADE: dict[str, Any] = {
    "type": "record",
    "name": "Trade",
    "namespace": "market",
    "fields": [
        {"name": name, "type": kind}
        for name, kind in (
            ("message_id", "string"),
            ("trade_id", "string"),
            ("symbol", "string"),
            ("exchange", "string"),
            ("asset_class", {"type": "enum", "name": "AssetClass", "symbols": _CLASSES}),
            ("timestamp", _TIME),
            ("price", _PRICE),
            ("quantity", _PRICE),
            ("currency", "string"),
            ("side", {"type": "enum", "name": "Side", "symbols": _SIDES}),
            ("trade_conditions", {"type": "array", "items": "string"}),
            ("source_sequence", ["null", "long"]),
            ("ingestion_timestamp", _TIME),
            ("platform_sequence", ["null", "long"]),
            ("vendor_data", ["null", {"type": "map", "values": "string"}]),
        )
    ],
}
FIRST_US = 1_767_225_600_000_000


class _Empty:
    """The table's own schema needs no registry."""

    def get(self, schema_id: int) -> RegistrySchema:
        raise SchemaUnknown(str(schema_id))

    def latest(self, subject: str) -> RegistrySchema:
        raise SchemaUnknown(subject)

    def close(self) -> None:
        """Nothing is open."""


def trades(rows: int, seed: int = 1) -> list[bytes]:
    """Framed trades with schema id 1."""
    rng = random.Random(seed)
    raw = json.loads(json.dumps(TRADE).replace('"logicalType"', '"meant"'))
    schema = fastavro.parse_schema(raw)
    out = []
    for i in range(rows):
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, _trade(rng, i))
        out.append(b"\0\0\0\0\1" + body.getvalue())
    return out


def _trade(rng: random.Random, i: int) -> dict[str, object]:
    return {
        "message_id": f"{rng.getrandbits(64):016x}",
        "trade_id": f"T{i:09d}",
        "symbol": f"SYM{rng.randrange(50):02d}",
        "exchange": "XNAS",
        "asset_class": "equities",
        "timestamp": FIRST_US + 10 * i,
        "price": rng.randrange(10**9, 10**11).to_bytes(6),
        "quantity": (rng.randrange(1, 500) * 10**8).to_bytes(6),
        "currency": "USD",
        "side": rng.choice(_SIDES),
        "trade_conditions": rng.choices(["@", "F", "T"], k=rng.randrange(3)),
        "source_sequence": i if i % 10 else None,
        "ingestion_timestamp": FIRST_US + 10 * i + 7,
        "platform_sequence": i,
        "vendor_data": {"feed": "a"} if i % 20 == 0 else None,
    }


def chunk_of(values: list[bytes]) -> Chunk:
    """One partition's chunk."""
    rows = len(values)
    columns = [
        pa.array(["trades"] * rows),
        pa.array([0] * rows, pa.int32()),
        pa.array(range(rows), pa.int64()),
        pa.array([FIRST_US] * rows, pa.timestamp("us", "UTC")),
    ]
    metadata = pa.RecordBatch.from_arrays(columns, schema=metadata_schema(key=False, headers=False))
    return Chunk(values, metadata, (Range("trades", 0, 0, rows),))


def seconds(call: Callable[[], object], times: int) -> list[float]:
    """How long each of ``times`` calls took, after two that do not count."""
    took = []
    for _ in range(times + 2):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return sorted(took[2:])


def main() -> None:
    """Measures and prints."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    values = trades(rows)
    spec = TableSpec(TableName("market_data", "trades"), ("trades",))
    decoder = Decoder(declare(RegistrySchema(1, TRADE), spec), _Empty(), spec)
    chunk = chunk_of(values)
    assert decoder.decode(chunk).batch.num_rows == rows
    ours = seconds(lambda: decoder.decode(chunk), 7)
    cpu = time.process_time()
    for _ in range(5):
        decoder.decode(chunk)
    cpu = (time.process_time() - cpu) / 5

    schema, part = fastavro.parse_schema(TRADE), values[: rows // 10]

    def peer() -> pa.Table:
        bodies = (io.BytesIO(value[5:]) for value in part)
        return pa.Table.from_pylist([fastavro.schemaless_reader(b, schema) for b in bodies])

    theirs = len(part) / statistics.median(seconds(peer, 1))
    small = {n: chunk_of(values[:n]) for n in (1, 10, 100, 1000)}
    result = {
        "records": rows,
        "decode_records_per_s": round(rows / statistics.median(ours)),
        "decode_best_records_per_s": round(rows / ours[0]),
        "decode_records_per_cpu_s": round(rows / cpu),
        "fastavro_from_pylist_records_per_s": round(theirs),
        "ratio": round(rows / statistics.median(ours) / theirs, 1),
        "small_chunk_ms": {
            str(n): round(1000 * statistics.median(seconds(lambda c=c: decoder.decode(c), 101)), 3)
            for n, c in small.items()
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
