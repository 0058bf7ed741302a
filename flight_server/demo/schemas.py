"""The Avro schemas of the synthetic market (docs/architecture.md, "Market data")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Kind = Literal["trades", "quotes"]

_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
ASSET_CLASSES = ("equities", "crypto", "futures", "options")
SIDES = ("BUY", "SELL", "SELL_SHORT", "UNKNOWN")


def _enum(name: str, symbols: tuple[str, ...]) -> dict[str, object]:
    return {"type": "enum", "name": name, "symbols": list(symbols)}


def _record(name: str, identity: str, body: list[tuple[str, object]]) -> dict[str, object]:
    fields: list[tuple[str, object]] = [
        ("message_id", "string"),
        (identity, "string"),
        ("symbol", "string"),
        ("exchange", "string"),
        ("asset_class", _enum("AssetClass", ASSET_CLASSES)),
        ("timestamp", _MICROS),
        *body,
        ("source_sequence", ["null", "long"]),
        ("ingestion_timestamp", _MICROS),
        ("platform_sequence", ["null", "long"]),
        ("vendor_data", ["null", {"type": "map", "values": "string"}]),
    ]
    return {
        "type": "record",
        "name": name,
        "namespace": "k2.market",
        "fields": [
            {"name": field, "type": kind} | ({"default": None} if isinstance(kind, list) else {})
            for field, kind in fields
        ],
    }


TRADE: Mapping[str, object] = MappingProxyType(
    _record(
        "Trade",
        "trade_id",
        [
            ("price", _DECIMAL),
            ("quantity", _DECIMAL),
            ("currency", "string"),
            ("side", _enum("Side", SIDES)),
            ("trade_conditions", {"type": "array", "items": "string"}),
        ],
    )
)
QUOTE: Mapping[str, object] = MappingProxyType(
    _record(
        "Quote",
        "quote_id",
        [
            ("bid_price", _DECIMAL),
            ("bid_quantity", _DECIMAL),
            ("ask_price", _DECIMAL),
            ("ask_quantity", _DECIMAL),
            ("currency", "string"),
        ],
    )
)
SCHEMAS: Mapping[Kind, Mapping[str, object]] = MappingProxyType({"trades": TRADE, "quotes": QUOTE})


def schema_text(kind: Kind) -> str:
    """The schema as the registry stores it."""
    return json.dumps(dict(SCHEMAS[kind]), separators=(",", ":"))
