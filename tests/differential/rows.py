"""Tables of nasty values: what the random statements are asked of."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa

#: What may be done with an expression. ``int``, ``exact`` and ``decimal`` are small enough for any
#: arithmetic; ``wide``, ``float`` and ``huge`` hold extremes, and are only compared and grouped by.
Kind = Literal[
    "int", "wide", "float", "exact", "decimal", "huge", "text", "bool", "time", "zoned", "date"
]

TOPIC = "random"
PARTITIONS = 3
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("k", pa.int32()),
        pa.field("i", pa.int32()),
        pa.field("l", pa.int64()),
        pa.field("x", pa.float64()),
        pa.field("y", pa.float32()),
        pa.field("w", pa.float64()),
        pa.field("c", pa.decimal128(9, 2)),
        pa.field("d", pa.decimal128(18, 8)),
        pa.field("m", pa.decimal128(38, 10)),
        pa.field("u", pa.string()),
        pa.field("s", pa.string()),
        pa.field("b", pa.bool_()),
        pa.field("t", pa.timestamp("us")),
        pa.field("z", pa.timestamp("us", tz="UTC")),
        pa.field("day", pa.date32()),
        pa.field("g", pa.list_(pa.field("element", pa.int32()))),
        pa.field("r", pa.struct([pa.field("p", pa.int32()), pa.field("q", pa.string())])),
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
    ]
)
#: Columns by what may be done with them.
COLUMNS: dict[str, Kind] = {
    "id": "int",
    "k": "int",
    "i": "wide",
    "l": "wide",
    "x": "float",
    "y": "float",
    "w": "exact",
    "c": "decimal",
    "d": "decimal",
    "m": "huge",
    "u": "text",
    "s": "text",
    "b": "bool",
    "t": "time",
    "z": "zoned",
    "day": "date",
    "_partition": "int",
    "_offset": "int",
}

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the columns without a zone
NASTY_TEXTS = (
    *(
        "",
        " ",
        "a",
        "A",
        "aa",
        "ab",
        "b",
        "%",
        "_",
        "a%",
        "\\",
        "'",
        '"',
        "\n",
        "\x7f",
        "é",
        "e\u0301",
    ),
    *(
        "ß",
        "日本語",
        "\U0001f680",
        "\uffff",
        "\U0010ffff",
        "zzz",
        "x" * 300,
        "日" * 200,
        "null",
        "NaN",
    ),
)
WORDS = ("", "a", "B", "ab", "abc", "b", "ba")
_FLOATS = (math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0, 0.5, 1e300, -1e300, 5e-324, 2.0**53, 0.1)
_SINGLES = (math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0, 0.5, 2.0**127, 2.0**-149, 2.0**24)
_INTS = (-(2**31), 2**31 - 1, -1, 0, 1, 7)
_LONGS = (-(2**63), 2**63 - 1, 2**53 + 1, -(2**31) - 1, 2**31, -1, 0, 1)
_HUGE = tuple(
    Decimal(text)
    for text in (
        "9999999999999999999999999999.9999999999",
        "-9999999999999999999999999999.9999999999",
        *("0", "0.0000000001", "-0.0000000001", "1", "-1", "1234567890.0987654321"),
    )
)
_DECIMALS = tuple(
    Decimal(text)
    for text in (
        "0",
        "0.00000001",
        "-0.00000001",
        "1",
        "1.5",
        "-1.5",
        "99999.99999999",
        "2.00000001",
    )
)
_CENTS = tuple(map(Decimal, ("0", "0.01", "-0.01", "9999999.99", "-9999999.99", "1.50", "10")))
_MICROS = (0, -1, 1, 999_999, -86_400_000_000, -86_400_000_001, 1_709_251_200_000_000)
_TIMES = (
    *(_EPOCH + timedelta(microseconds=us) for us in _MICROS),
    datetime(1899, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001
    datetime(2199, 1, 1),  # noqa: DTZ001
)
_DATES = (
    date(1970, 1, 1),
    date(1969, 12, 31),
    date(1600, 2, 29),
    date(2024, 2, 29),
    date(9999, 12, 31),
)


@dataclass(frozen=True, slots=True)
class Dice:
    """Draws the values of rows.

    Attributes:
        rng: the source.
        signed_zero: whether floats may be -0.0, which engines do not agree about.
        nulls: the share of nulls.
    """

    rng: random.Random
    signed_zero: bool
    nulls: float

    def row(self, number: int, *, old: bool) -> dict[str, Any]:
        """One row; ``old``: one that every former schema could hold (see ``ways``)."""
        rng = self.rng
        floats = (*_FLOATS, -0.0) if self.signed_zero else _FLOATS
        singles = (*_SINGLES, -0.0) if self.signed_zero else _SINGLES
        usual = _EPOCH + timedelta(days=19_000 + number % 5, microseconds=rng.randrange(10**9))
        moment = self.of(_TIMES, lambda: usual, 0.2)
        return {
            "id": number,
            "k": self.maybe(rng.randrange(12)),
            "i": self.of(_INTS, lambda: rng.randrange(-50, 50)),
            "l": self.of(_INTS if old else _LONGS, lambda: number * 3),
            "x": self.of(singles if old else floats, lambda: rng.randrange(-40, 40) / 4),
            "y": None if old else self.of(singles, lambda: rng.randrange(-40, 40) / 4),
            "w": self.maybe(rng.randrange(-8000, 8000) / 8),
            "c": self.of(_CENTS, lambda: Decimal(rng.randrange(-999, 999)).scaleb(-2)),
            "d": self.of(_DECIMALS, lambda: Decimal(rng.randrange(-(10**11), 10**11)).scaleb(-8)),
            "m": self.of(_HUGE[2:] if old else _HUGE, lambda: Decimal(number)),
            "u": None if old else self.maybe(rng.choice(WORDS)),
            "s": self.of(NASTY_TEXTS, lambda: f"s{rng.randrange(30)}", 0.5),
            "b": self.maybe(rng.random() < 0.5),
            "t": moment,
            "z": None
            if (at := self.of(_TIMES, lambda: usual, 0.2)) is None
            else at.replace(tzinfo=UTC),
            "day": self.of(_DATES, usual.date, 0.3),
            "g": self.maybe([self.maybe(rng.randrange(5)) for _ in range(rng.randrange(4))]),
            "r": self.maybe(
                {
                    "p": self.maybe(rng.randrange(9)),
                    "q": None if old else self.maybe(rng.choice(WORDS)),
                }
            ),
            "_topic": TOPIC,
            "_partition": number % PARTITIONS,
            "_offset": number // PARTITIONS,
        }

    def of(self, nasty: Sequence[Any], usual: Callable[[], Any], share: float = 0.35) -> Any:
        """A nasty value, or a usual one, or null."""
        return self.maybe(self.rng.choice(nasty) if self.rng.random() < share else usual())

    def maybe(self, value: Any) -> Any:
        """The value, or null."""
        return None if self.rng.random() < self.nulls else value


def make(rng: random.Random, count: int, *, signed_zero: bool) -> pa.Table:
    """So many rows; the first third are such as every former schema could hold."""
    dice = Dice(rng, signed_zero, rng.choice((0.02, 0.1, 0.3)))
    rows = [dice.row(number, old=number < count // 3) for number in range(count)]
    return pa.Table.from_pylist([_single(row) for row in rows], SCHEMA)


def _single(row: dict[str, Any]) -> dict[str, Any]:
    """What a 32-bit column holds of a value."""
    if row["y"] is not None:
        row["y"] = struct.unpack("f", struct.pack("f", row["y"]))[0]
    return row
