"""A seeded synthetic market: the traits of an exchange feed, nobody's data.

About fifty symbols of unequal activity whose prices walk at random on a one-cent grid, often
staying where they are. Activity comes in bursts. A few event times are late by up to a minute and
neighbours swap their order. Of the quotes some are locked or crossed, and a one-sided book shows as
size zero. Everything but the wall clock's start comes from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flight_server.demo.encode import (
    Cells,
    encode_choices,
    encode_constant,
    encode_decimals,
    encode_longs,
    encode_nullable_longs,
    encode_numbered,
    encode_text,
    join,
)
from flight_server.demo.schemas import Kind

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: Invented symbols, the most active first.
SYMBOLS: tuple[str, ...] = tuple(
    f"{a}{b}{c}"
    for a in "KVXZQ"
    for b, c in ("AR", "BO", "CU", "DA", "EX", "FI", "GO", "HY", "IM", "JU")
)
EXCHANGES = ("XK2A", "XK2B", "XK2C", "XK2D")
_CONDITIONS = (b"\x00", b"\x02\x02@\x00", b"\x02\x02F\x00", b"\x04\x02@\x02T\x00", b"\x02\x02I\x00")
_VENDOR = (
    b"\x00",
    b"\x02\x02" + encode_text("venue") + encode_text("dark") + b"\x00",
    b"\x02\x04"
    + encode_text("venue")
    + encode_text("lit")
    + encode_text("tape")
    + encode_text("A")
    + b"\x00",
)
#: One cent in units of decimal(18,8).
_CENT = 1_000_000
#: One share in units of decimal(18,8).
_SHARE = 100_000_000
#: Digits of the running number in message ids: a feed of a million a second lasts 30 years.
_DIGITS = 15

LATE = 0.01
SWAPPED = 0.02
UNCHANGED = 0.4
LOCKED = 0.01
CROSSED = 0.005
ONE_SIDED = 0.01
#: Bursts: how much faster than the average, and how often (mean 1).
BURSTS = ((0.4, 0.5), (1.0, 0.4), (4.0, 0.1))


@dataclass(frozen=True, slots=True)
class Events:
    """Some consecutive events of one kind, still as columns."""

    symbol: NDArray[np.int64]
    timestamp_us: Longs
    cents: Longs
    sequence: Longs


@dataclass(frozen=True, slots=True)
class Messages:
    """Some consecutive messages of one kind, ready to send."""

    keys: list[bytes]
    values: list[bytes]

    def part(self, first: float, next_: float) -> Messages:
        """Those from share ``first`` to share ``next_`` of all, 0 to 1, half-open."""
        bounds = slice(round(first * len(self.values)), round(next_ * len(self.values)))
        return Messages(self.keys[bounds], self.values[bounds])


class Market:
    """The state of the walk; one thread uses it.

    Args:
        seed: same seed, same start, same sequence of calls: same bytes.
        start_us: event time of the first event, microseconds since 1970.
        run: stands in every message id, so that ids of two runs differ.
    """

    def __init__(self, seed: int, start_us: int, run: str = "s") -> None:
        self._random = np.random.default_rng(seed)
        self._clock_us = float(start_us)
        self._run = run
        self._cents = self._random.integers(500, 50_000, len(SYMBOLS)).astype(np.int64)
        weights = 1.0 / np.arange(1, len(SYMBOLS) + 1) ** 0.8
        self._activity = np.cumsum(weights / weights.sum())
        self._sequence: dict[Kind, int] = {"trades": 0, "quotes": 0}
        self._keys = [symbol.encode() for symbol in SYMBOLS]

    def burst(self) -> float:
        """How much faster than the average the market runs for the next moment."""
        factors, odds = zip(*BURSTS, strict=True)
        return float(self._random.choice(factors, p=odds)) / sum(
            factor * odd for factor, odd in BURSTS
        )

    def messages(self, kind: Kind, count: int, seconds: float, schema_id: int) -> Messages:
        """The next ``count`` messages of ``kind``, spread over ``seconds`` of market time."""
        if not count:
            return Messages([], [])
        events = self._events(kind, count, seconds)
        columns = [encode_constant(b"\x00" + schema_id.to_bytes(4, "big"), count)]
        columns += self._trade(events) if kind == "trades" else self._quote(events)
        keys = self._keys
        return Messages([keys[index] for index in events.symbol.tolist()], join(columns))

    def advance(self, seconds: float) -> None:
        """Market time passes."""
        self._clock_us += seconds * 1e6

    def _events(self, kind: Kind, count: int, seconds: float) -> Events:
        random = self._random
        symbol = np.searchsorted(self._activity, random.random(count)).astype(np.int64)
        symbol = np.minimum(symbol, len(SYMBOLS) - 1)
        times = self._clock_us + np.sort(random.random(count)) * seconds * 1e6
        late = random.random(count) < LATE
        times[late] -= random.random(int(late.sum())) * 60e6
        swapped = random.random(count) < SWAPPED
        times[swapped] -= random.random(int(swapped.sum())) * 5e3
        first = self._sequence[kind]
        self._sequence[kind] = first + count
        sequence = np.arange(first, first + count, dtype=np.int64)
        return Events(symbol, times.astype(np.int64), self._walk(symbol), sequence)

    def _walk(self, symbol: Longs) -> Longs:
        """Each event's price in cents; every symbol goes on from where it stood."""
        random, count = self._random, len(symbol)
        steps = random.integers(-3, 4, count)
        steps[random.random(count) < UNCHANGED] = 0
        order = np.argsort(symbol, kind="stable")
        walked = np.cumsum(steps[order])
        grouped = symbol[order]
        begins = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
        base = np.repeat(walked[begins] - steps[order][begins], np.diff(np.r_[begins, count]))
        prices = np.empty(count, dtype=np.int64)
        # Reflected at one cent: a price is never zero or negative.
        prices[order] = np.abs(self._cents[grouped] + walked - base - 1) + 1
        ends = np.r_[begins[1:] - 1, count - 1]
        self._cents[grouped[ends]] = prices[order[ends]]
        return prices

    def _head(self, kind_letter: str, events: Events) -> list[Cells]:
        rows = len(events.symbol)
        return [
            encode_numbered(f"{self._run}-{kind_letter}", events.sequence, _DIGITS),
            encode_numbered(kind_letter.upper(), events.sequence, _DIGITS),
            encode_choices([encode_text(symbol) for symbol in SYMBOLS], events.symbol),
            encode_choices([encode_text(name) for name in EXCHANGES], events.symbol % 4),
            encode_constant(b"\x00", rows),
            encode_longs(events.timestamp_us),
        ]

    def _tail(self, events: Events) -> list[Cells]:
        random, rows = self._random, len(events.symbol)
        delay_us = (random.exponential(800.0, rows) + 50).astype(np.int64)
        return [
            encode_nullable_longs(events.sequence, random.random(rows) < 0.97),  # noqa: PLR2004  # some feeds have none
            encode_longs(events.timestamp_us + delay_us),
            encode_nullable_longs(events.sequence, random.random(rows) < 0.5),  # noqa: PLR2004  # the same
            encode_choices(_VENDOR, self._pick((0.9, 0.06, 0.04), rows)),
        ]

    def _trade(self, events: Events) -> list[Cells]:
        random, rows = self._random, len(events.symbol)
        lots = np.ceil(random.pareto(1.5, rows) * 20).clip(1, 50_000).astype(np.int64)
        return [
            *self._head("t", events),
            encode_decimals(events.cents * _CENT),
            encode_decimals(lots * _SHARE),
            encode_constant(encode_text("USD"), rows),
            encode_longs(self._pick((0.45, 0.45, 0.08, 0.02), rows)),
            encode_choices(_CONDITIONS, self._pick((0.6, 0.2, 0.1, 0.05, 0.05), rows)),
            *self._tail(events),
        ]

    def _quote(self, events: Events) -> list[Cells]:
        random, rows = self._random, len(events.symbol)
        spread = random.integers(1, 6, rows)
        chance = random.random(rows)
        spread[chance < LOCKED + CROSSED] = 0
        spread[chance < CROSSED] = -1
        bid, ask = random.integers(1, 500, rows), random.integers(1, 500, rows)
        side = random.random(rows)
        bid[side < ONE_SIDED] = 0
        ask[side > 1 - ONE_SIDED] = 0
        return [
            *self._head("q", events),
            encode_decimals(events.cents * _CENT),
            encode_decimals(bid * (100 * _SHARE)),
            encode_decimals(np.maximum(events.cents + spread, 1) * _CENT),
            encode_decimals(ask * (100 * _SHARE)),
            encode_constant(encode_text("USD"), rows),
            *self._tail(events),
        ]

    def _pick(self, odds: Sequence[float], rows: int) -> Longs:
        return np.searchsorted(np.cumsum(odds), self._random.random(rows)).clip(0, len(odds) - 1)
