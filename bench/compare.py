"""``make bench-compare OLD=… NEW=…``: what changed between two runs, and what of it is no noise.

OLD and NEW are git revisions, JSON files or folders of them. A figure with a yardstick is compared
by its ratio to that, measured in the same run: another machine, or a busier hour, moves both. What
has none is compared by its value. A change is marked where it is larger than the noise of both runs
together, ``?`` where a run had too few turns to know its noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.figures import Figure
from bench.results import Run, runs_at


@dataclass(frozen=True)
class Change:
    """One figure in both runs.

    Attributes:
        lane: of the figure.
        old: as it was.
        new: as it is.
    """

    lane: str
    old: Figure
    new: Figure

    @property
    def factor(self) -> float:
        """New over old: of the ratios to the yardstick where there are any, else of the values."""
        old, new = self.old.ratio, self.new.ratio
        if old and new is not None:
            return new / old
        assert self.old.value
        assert self.new.value is not None
        return self.new.value / self.old.value

    @property
    def mark(self) -> str:
        """``better`` or ``worse`` beyond the noise, "" within it, ``?`` where noise is unknown."""
        if self.old.noise is None or self.new.noise is None:
            return "?"
        if max(self.factor, 1 / self.factor) <= 1 + self.old.noise + self.new.noise:
            return ""
        return "better" if (self.factor > 1) == larger_is_better(self.new) else "worse"


def larger_is_better(figure: Figure) -> bool:
    """Rates grow, everything else should shrink."""
    return figure.unit.endswith("/s")


def changes(old: Mapping[str, Run], new: Mapping[str, Run]) -> Iterator[Change]:
    """Figures that both have, by lane, name and yardstick, in the new runs' order."""
    for lane, run in new.items():
        known = {_key(figure): figure for figure in old[lane].figures} if lane in old else {}
        for figure in run.figures:
            before = known.get(_key(figure))
            if before is not None and before.value and figure.value:
                yield Change(lane, before, figure)


def _key(figure: Figure) -> tuple[str, str]:
    return figure.name, figure.yardstick


def main(arguments: list[str] | None = None) -> int:
    """Prints one line per figure; 2 where there is nothing to compare."""
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    flags = parser.parse_args(arguments)
    try:
        found = list(changes(runs_at(flags.old), runs_at(flags.new)))
    except ValueError as error:
        print(error)
        return 2
    for change in found:
        name = change.new.name + (f" ÷ {change.new.yardstick}" if change.new.yardstick else "")
        print(
            f"{change.mark:>6} {change.factor:6.2f} ×  {_shown(change.old):>10} →"
            f" {_shown(change.new):>10}  {change.lane}: {name}"
        )
    if not found:
        print("no figure is in both")
    return 0 if found else 2


def _shown(figure: Figure) -> str:
    ratio = figure.ratio
    return f"{figure.value:.4g} {figure.unit}" if ratio is None else f"{ratio:.3f}"


if __name__ == "__main__":
    sys.exit(main())
