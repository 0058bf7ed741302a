"""Measuring in turns: what else happens on the machine meets all that are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping

from bench.figures import Figure

#: Turns of a comparison; odd, so that the median is one of them.
REPEATS = 5


class Turns(Mapping[str, float]):
    """Who → the median of its times in seconds; ``taken`` are all of them, in turns."""

    def __init__(self, taken: Mapping[str, list[float]]) -> None:
        self.taken = taken

    def __getitem__(self, who: str) -> float:
        return statistics.median(self.taken[who])

    def __iter__(self) -> Iterator[str]:
        return iter(self.taken)

    def __len__(self) -> int:
        return len(self.taken)

    def ratios(self, one: str, *others: str) -> list[float]:
        """Turn by turn: the time of ``one`` over the larger time of the others."""
        rows = zip(*(self.taken[who] for who in (one, *others)), strict=True)
        return [row[0] / max(row[1:]) for row in rows]

    def figure(self, name: str, one: str, yardstick: str, *others: str) -> Figure:
        """Seconds of ``one`` beside the larger of the others' medians."""
        found = self.ratios(one, *others)
        against = max(self[who] for who in others)
        return Figure(
            *(name, self[one], "s", yardstick, against),
            paired=statistics.median(found),
            noise=noise(found),
        )

    def rate(self, name: str, amount: float, one: str, yardstick: str, other: str) -> Figure:
        """``amount`` rows per second of ``one`` beside as many of the other."""
        found = self.ratios(other, one)
        return Figure(
            *(name, amount / self[one], "rows/s", yardstick, amount / self[other]),
            paired=statistics.median(found),
            noise=noise(found),
        )


def alternate(lanes: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> Turns:
    """Calls each in turns, forwards and backwards, so that nobody always follows the same one."""
    taken: dict[str, list[float]] = {who: [] for who in lanes}
    for turn in range(repeats):
        order = list(lanes) if turn % 2 == 0 else list(reversed(lanes))
        for who in order:
            began = time.perf_counter()
            lanes[who]()
            taken[who].append(time.perf_counter() - began)
    return Turns(taken)


def noise(values: list[float]) -> float | None:
    """Half the distance of the quartiles, as a share of the median; None for fewer than three."""
    if len(values) < 3:
        return None
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle
