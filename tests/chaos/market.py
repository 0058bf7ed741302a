"""Trades whose every column follows from one random number, so that a torn row shows.

The number travels as ``source_sequence``; a record's content hash is the number if all other
columns agree with it, else 0. Sums of it (and of the price) are what digests are compared with.
"""

from __future__ import annotations

import io
import json
import struct
from decimal import Decimal
from pathlib import Path

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

SCHEMA_ID = 7
SYMBOLS = 50
#: 2026-01-05, in microseconds: two days of events, so two partitions of the table.
DAY_US = 86_400_000_000
START_US = 1_767_571_200_000_000
#: Prices stay below this many units of 10^-8, so that sums over millions of rows fit int64.
PRICE_UNITS = 10**11
#: The random numbers stay below 2^40 for the same reason.
NUMBER_BITS = 40

Ints = npt.NDArray[np.int64]

_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
TRADE = {
    "type": "record",
    "name": "Trade",
    "namespace": "k2.market",
    "fields": [
        {"name": "message_id", "type": "string"},
        {"name": "trade_id", "type": "string"},
        {"name": "symbol", "type": "string"},
        {"name": "exchange", "type": "string"},
        {
            "name": "asset_class",
            "type": {
                "type": "enum",
                "name": "AssetClass",
                "symbols": ["equities", "crypto", "futures", "options"],
            },
        },
        {"name": "timestamp", "type": _MICROS},
        {"name": "price", "type": _DECIMAL},
        {"name": "quantity", "type": _DECIMAL},
        {"name": "currency", "type": "string"},
        {
            "name": "side",
            "type": {
                "type": "enum",
                "name": "Side",
                "symbols": ["BUY", "SELL", "SELL_SHORT", "UNKNOWN"],
            },
        },
        {"name": "trade_conditions", "type": {"type": "array", "items": "string"}},
        {"name": "source_sequence", "type": ["null", "long"], "default": None},
        {"name": "ingestion_timestamp", "type": _MICROS},
        {"name": "platform_sequence", "type": ["null", "long"], "default": None},
        {
            "name": "vendor_data",
            "type": ["null", {"type": "map", "values": "string"}],
            "default": None,
        },
    ],
}
_PARSED = fastavro.parse_schema(json.loads(json.dumps(TRADE)))
_FRAME = struct.pack(">bI", 0, SCHEMA_ID)

#: What a reader asks for, so that :func:`content_hashes` can judge the row.
JUDGED = "source_sequence, symbol, price, quantity, timestamp, platform_sequence"


def trade(number: int) -> dict[str, object]:
    """The trade that ``number`` means."""
    return {
        "message_id": f"m{number:x}",
        "trade_id": f"t{number % 9973}",
        "symbol": f"S{number % SYMBOLS:02d}",
        "exchange": "XK2F",
        "asset_class": ("equities", "crypto", "futures", "options")[number % 4],
        "timestamp": START_US + number % (2 * DAY_US),
        "price": Decimal(price_units(number)).scaleb(-8),
        "quantity": Decimal(quantity_units(number)).scaleb(-8),
        "currency": "USD",
        "side": ("BUY", "SELL", "SELL_SHORT", "UNKNOWN")[number % 4],
        "trade_conditions": ["@", "F", "I"][: number % 4],
        "source_sequence": number,
        "ingestion_timestamp": START_US + number % DAY_US,
        "platform_sequence": None if number % 3 == 0 else number // 3,
        "vendor_data": None if number % 5 else {"lot": str(number % 7)},
    }


def price_units(number: int) -> int:
    """The price in units of 10^-8."""
    return number % PRICE_UNITS + 1


def quantity_units(number: int) -> int:
    """The quantity in units of 10^-8."""
    return number // SYMBOLS % 10**10 + 1


def encode(number: int) -> bytes:
    """The record's value as it stands in Kafka."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, _PARSED, trade(number))
    return _FRAME + body.getvalue()


def cut_off(record: bytes) -> bytes:
    """A poison record: its last field is not whole."""
    return record[:-1]


def pool(seed: int, size: int) -> tuple[Ints, list[bytes]]:
    """``size`` random numbers and their records."""
    numbers = np.random.default_rng(seed).integers(1, 1 << NUMBER_BITS, size, dtype=np.int64)
    return numbers, [encode(int(number)) for number in numbers]


def write_registry(folder: Path, subject: str) -> None:
    """A registry folder that knows the one schema."""
    folder.mkdir(exist_ok=True)
    (folder / f"{SCHEMA_ID}.avsc").write_text(json.dumps(TRADE))
    (folder / "subjects.json").write_text(json.dumps({subject: SCHEMA_ID}))


def content_hashes(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """Per row its number, or 0 where a column disagrees with the number."""
    numbers = rows["source_sequence"].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    symbols = pc.cast(pc.utf8_slice_codeunits(rows["symbol"], 1), pa.int64())
    platform = rows["platform_sequence"]
    sound = (
        (_ints(symbols) == numbers % SYMBOLS)
        & (_units(rows["price"]) == numbers % PRICE_UNITS + 1)
        & (_units(rows["quantity"]) == numbers // SYMBOLS % 10**10 + 1)
        & (_ints(pc.cast(rows["timestamp"], pa.int64())) == START_US + numbers % (2 * DAY_US))
        & (_ints(pc.is_null(platform)) == (numbers % 3 == 0))
        & (_ints(platform.fill_null(0)) == np.where(numbers % 3 == 0, 0, numbers // 3))
    )
    return np.where(sound, numbers, 0).astype(np.uint64)


def _units(column: pa.ChunkedArray) -> Ints:
    """A decimal(18, 8) column in units of 10^-8."""
    return _ints(pc.cast(pc.multiply(column, pa.scalar(10**8, pa.decimal128(9, 0))), pa.int64()))


def _ints(column: pa.ChunkedArray) -> Ints:
    values: Ints = column.combine_chunks().to_numpy(zero_copy_only=False)
    return values
