"""What a lane reports: values beside their yardsticks, and goals."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

#: A figure without samples of its own: nobody can say what noise is.
UNKNOWN = None


@dataclass(frozen=True)
class Figure:
    """One measured value, its yardstick and its goal.

    Attributes:
        name: what was measured. Figures of a lane whose names differ only in a number before a
            plural ("1 client", "64 clients", "10,000 files") are drawn as one line.
        value: how much of ``unit``; None where it could not be measured, ``note`` says why.
        unit: rows/s, ms, s, bytes or a ratio.
        yardstick: what the value is held against, measured in the same run; "" where the goal is
            absolute.
        against: the yardstick's value.
        goal: the wanted relation, as people read it.
        met: whether it holds; None where there is no goal.
        detail: further numbers of the same lane; ``q<number>`` are drawn as bars.
        paired: median of value ÷ yardstick over turns that were measured together; None: the
            quotient of the two values counts.
        noise: half the distance of the quartiles of those ratios (of the values where there is no
            yardstick), as a share of their median; None: unknown.
        note: what a reader must know beside it.
    """

    name: str
    value: float | None
    unit: str
    yardstick: str = ""
    against: float | None = None
    goal: str = ""
    met: bool | None = None
    detail: dict[str, float] = field(default_factory=dict)
    paired: float | None = None
    noise: float | None = UNKNOWN
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over yardstick."""
        if self.paired is not None:
            return self.paired
        return self.value / self.against if self.against and self.value is not None else None


def absent(name: str, yardstick: str, why: str) -> Figure:
    """The line of a peer that could not be asked, so that nobody takes it for beaten."""
    return Figure(name, None, "", yardstick, note=why)


def at_least(figure: Figure, ratio: float) -> Figure:
    """The goal ``value ≥ ratio × yardstick``."""
    met = figure.ratio is not None and figure.ratio >= ratio
    return replace(figure, goal=f"≥ {ratio:g} ×", met=met)


def at_most(figure: Figure, ratio: float) -> Figure:
    """The goal ``value ≤ ratio × yardstick``."""
    met = figure.ratio is not None and figure.ratio <= ratio
    return replace(figure, goal=f"≤ {ratio:g} ×", met=met)


def below(figure: Figure, limit: float) -> Figure:
    """The goal ``value ≤ limit``, in the figure's own unit."""
    met = figure.value is not None and figure.value <= limit
    return replace(figure, goal=f"≤ {limit:g} {figure.unit}", met=met)


def amount(value: float | None, unit: str) -> str:
    """A value with its unit, in as few digits as it deserves."""
    if value is None:
        return "-"
    if unit == "rows/s":
        return f"{value / 1e6:.3f} M rows/s" if value >= 1e5 else f"{value:,.0f} rows/s"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"
