"""What the lanes found: a JSON file per lane, and the page that is made of them.

``results/<lane>.json`` holds the lane's last whole run; git keeps the earlier ones. A quick run
goes to ``results/quick/``, which is nobody's figures: not in git, not on the page.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.figures import Figure, amount
from bench.plots import drawings

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- results -->", "<!-- /results -->"
PINNED = (
    *("pyarrow", "datafusion", "pyiceberg", "confluent-kafka"),
    *("duckdb", "chdb", "roapi", "pysail"),
)


@dataclass(frozen=True)
class Run:
    """One lane's run.

    Attributes:
        lane: its name.
        when: its end, UTC.
        quick: a tenth of everything: good to see that a lane works, and for nothing else.
        seconds: how long it took.
        seed: what all generated data derives from.
        revision: of the repository; "+" where the tree was changed.
        machine: cores, memory, system.
        versions: package → version, Python's included.
        figures: what it found.
    """

    lane: str
    when: str
    quick: bool
    seconds: float
    seed: int
    revision: str
    machine: dict[str, object]
    versions: dict[str, str]
    figures: list[Figure]


def run_of(
    lane: str, figures: Sequence[Figure], seconds: float, *, quick: bool, seed: int = 0
) -> Run:
    """The run that ends now, on this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Run(
        lane,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        quick=quick,
        seconds=round(seconds, 1),
        seed=seed,
        revision=_revision(),
        machine={
            "cores": os.cpu_count(),
            "memory_gib": round(memory, 1),
            "system": f"{platform.system()} {platform.machine()}",
        },
        versions={"python": platform.python_version(), **dict(_versions())},
        figures=list(figures),
    )


def write(run: Run, folder: Path = HERE) -> Path:
    """Writes the lane's JSON; the path."""
    place = folder / "results" / ("quick" if run.quick else "")
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{run.lane}.json"
    path.write_text(json.dumps(asdict(run), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def write_page(order: Iterable[str], folder: Path = HERE) -> None:
    """The page's results and the plots, anew from the JSON files, lanes in this order."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    for stale in plots.glob("*.svg"):
        stale.unlink()
    runs = {path.stem: parse(path.read_text()) for path in (folder / "results").glob("*.json")}
    parts = []
    for lane in order:
        if lane not in runs:
            continue
        drawn = drawings(lane, runs[lane].figures)
        for name, (_, svg) in drawn.items():
            (plots / f"{name}.svg").write_text(svg)
        pictures = [f"![{title}](plots/{name}.svg)" for name, (title, _) in drawn.items()]
        parts += [section(runs[lane]), *pictures]
    readme = folder / "README.md"
    readme.write_text(with_part(readme.read_text(), "\n\n".join(parts)))


def parse(text: str) -> Run:
    """A run from its JSON."""
    fields = json.loads(text)
    return Run(**{**fields, "figures": [Figure(**each) for each in fields["figures"]]})


def section(run: Run) -> str:
    """A lane's run as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    machine = f"{run.machine['cores']} cores shared by all, {run.machine['memory_gib']} GiB"
    made = f"{run.when}, {run.seconds:.0f} s, revision {run.revision}, seed {run.seed}, {machine}"
    lines = [
        f"### {run.lane}",
        "",
        f"{made}; {versions}.",
        "",
        "| figure | value | yardstick | its value | ratio | goal | |",
        "|---|---:|---|---:|---:|---|---|",
        *map(_row, run.figures),
    ]
    return "\n".join(lines)


def _row(figure: Figure) -> str:
    against = "" if figure.against is None else amount(figure.against, figure.unit)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    ratio += "" if figure.noise is None else f" ± {figure.noise * (figure.ratio or 1):.2f}"
    mark = {None: "", True: "met", False: "**missed**"}[figure.met]
    mark += f"{' ' if mark else ''}{figure.note}"
    value = amount(figure.value, figure.unit)
    cells = (figure.name, value, figure.yardstick, against, ratio, figure.goal, mark)
    return f"| {' | '.join(cells)} |"


def with_part(text: str, content: str) -> str:
    """The text with the part between the markers replaced."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{content}\n{END}{rest.partition(END)[2]}"


def _versions() -> Iterable[tuple[str, str]]:
    for name in PINNED:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"


def _revision() -> str:
    """The short commit, from git; "unknown" outside of a clone."""
    head = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench")
    return (head or "unknown") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    found = subprocess.run(
        ["git", *arguments], cwd=HERE.parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def runs_at(place: str, repository: Path = HERE.parent) -> Mapping[str, Run]:
    """Lane → its run: of a JSON file, of a folder of them, or as a git revision has them.

    Raises:
        ValueError: there is no such file, folder or revision, or it holds no results.
    """
    path = Path(place)
    if path.is_dir():
        texts = [file.read_text() for file in sorted(path.glob("*.json"))]
    elif path.is_file():
        texts = [path.read_text()]
    else:
        names = _listing(place, repository)
        texts = [_shown(f"{place}:{name}", repository) for name in names]
    if not texts:
        raise ValueError(f"{place}: no lane's results there")
    return {run.lane: run for run in map(parse, texts)}


def _listing(revision: str, repository: Path) -> list[str]:
    command = ["git", "ls-tree", "--name-only", revision, "bench/results/"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{revision}: no file, folder or git revision")
    return [name for name in done.stdout.splitlines() if name.endswith(".json")]


def _shown(what: str, repository: Path) -> str:
    command = ["git", "show", what]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout
