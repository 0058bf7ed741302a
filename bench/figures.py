"""What a lane reports, and the table that is made of it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- results -->", "<!-- /results -->"
PINNED = ("pyarrow", "datafusion", "pyiceberg", "confluent-kafka", "duckdb")


@dataclass(frozen=True)
class Figure:
    """One measured value, its yardstick and its goal.

    Attributes:
        name: what was measured.
        value: how much of ``unit``.
        unit: rows/s, ms, s, bytes or a ratio.
        yardstick: what the value is held against, measured in the same run; "" where the goal is
            absolute.
        against: the yardstick's value.
        goal: the wanted relation, as people read it.
        met: whether it holds; None where there is no goal.
        detail: further numbers of the same lane.
    """

    name: str
    value: float
    unit: str
    yardstick: str = ""
    against: float | None = None
    goal: str = ""
    met: bool | None = None
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Value over yardstick."""
        return self.value / self.against if self.against else None


def at_least(figure: Figure, ratio: float) -> Figure:
    """The goal ``value ≥ ratio × yardstick``."""
    met = figure.ratio is not None and figure.ratio >= ratio
    return Figure(**{**asdict(figure), "goal": f"≥ {ratio:g} ×", "met": met})


def at_most(figure: Figure, ratio: float) -> Figure:
    """The goal ``value ≤ ratio × yardstick``."""
    met = figure.ratio is not None and figure.ratio <= ratio
    return Figure(**{**asdict(figure), "goal": f"≤ {ratio:g} ×", "met": met})


def below(figure: Figure, limit: float) -> Figure:
    """The goal ``value ≤ limit``, in the figure's own unit."""
    goal = f"≤ {limit:g} {figure.unit}"
    return Figure(**{**asdict(figure), "goal": goal, "met": figure.value <= limit})


def write(figures: Sequence[Figure], *, quick: bool, folder: Path = HERE) -> Path:
    """Writes ``results/<time>.json`` and the table in README.md (not for a quick run)."""
    run = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": quick,
        "machine": {"cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PINNED},
        "figures": [asdict(figure) for figure in figures],
    }
    (folder / "results").mkdir(exist_ok=True)
    name = "quick" if quick else run["when"].replace(":", "").replace("-", "")  # type: ignore[union-attr]
    path = folder / "results" / f"{name}.json"
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    if not quick:
        readme = folder / "README.md"
        readme.write_text(with_table(readme.read_text(), table(run)))
    return path


def table(run: dict[str, object]) -> str:
    """The run as a Markdown table."""
    figures = [Figure(**each) for each in run["figures"]]  # type: ignore[attr-defined]
    machine, versions = run["machine"], run["versions"]
    lines = [
        f"{run['when']}, {machine['cores']} cores shared by broker, ingest, server and client, "  # type: ignore[index]
        f"Python {run['python']}, "
        + ", ".join(f"{name} {number}" for name, number in versions.items())  # type: ignore[attr-defined]
        + ".",
        "",
        "| figure | value | yardstick | its value | ratio | goal | |",
        "|---|---:|---|---:|---:|---|---|",
    ]
    for figure in figures:
        against = "" if figure.against is None else amount(figure.against, figure.unit)
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        mark = {None: "", True: "met", False: "**missed**"}[figure.met]
        lines.append(
            f"| {figure.name} | {amount(figure.value, figure.unit)} | {figure.yardstick} | "
            f"{against} | {ratio} | {figure.goal} | {mark} |"
        )
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    """A value with its unit, in as few digits as it deserves."""
    if unit == "rows/s":
        return f"{value / 1e6:.3f} M rows/s" if value >= 1e5 else f"{value:,.0f} rows/s"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:.3g} {unit}"


def with_table(text: str, content: str) -> str:
    """The text with the part between the markers replaced."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{content}\n{END}{rest.partition(END)[2]}"
