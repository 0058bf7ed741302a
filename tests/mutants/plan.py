"""The list of mutants, read from the files beside this one."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Mutant:
    """One guard that is taken away.

    Attributes:
        name: what is so without it.
        rules: of docs/architecture.md; empty: it keeps none of them.
        file: relative to the repository.
        find: occurs exactly once in it.
        replace: what stands there instead.
        tests: relative to tests/; the first one that fails is enough.
    """

    name: str
    rules: tuple[int, ...]
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def fault(self, root: Path = ROOT) -> str | None:
        """Why the entry cannot be used any more: the code has moved on; None: it can."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file} is gone"
        count = path.read_text().count(self.find)
        return None if count == 1 else f"{self.find!r} occurs {count} times in {self.file}"

    def apply(self, root: Path) -> str:
        """Changes the file; returns what it held."""
        path = root / self.file
        kept = path.read_text()
        path.write_text(kept.replace(self.find, self.replace))
        return kept


def mutants() -> tuple[Mutant, ...]:
    """All of them, by file and in its order."""
    return tuple(
        Mutant(**{**entry, "rules": tuple(entry["rules"]), "tests": tuple(entry["tests"])})
        for path in sorted(Path(__file__).parent.glob("*.toml"))
        for entry in tomllib.loads(path.read_text())["mutant"]
    )
