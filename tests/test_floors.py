"""The house's floors: what a module may import stands in docs/architecture.md and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "architecture.md"
PACKAGES = ("catalog", "flight_server")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: ``| floor | `module` | charter | libraries |``."""

    floor: float
    libraries: frozenset[str]


def read_table(text: str) -> dict[str, Row]:
    """Module file → row. A row ``package/*`` stands for a package whose modules share a floor."""
    pattern = re.compile(
        r"^\| *([\d.]+) *\| *`([\w/*]+?(?:\.py|/\*))` *\|[^|]*\|([^|]*)\|", re.MULTILINE
    )
    return {
        module: Row(float(floor), frozenset(re.findall(r"`([\w.]+)`", libraries)))
        for floor, module, libraries in pattern.findall(text)
    }


def row_of(module: str, table: Mapping[str, Row]) -> Row | None:
    """The row of a module file, or of the folder it lies in."""
    return table.get(module) or table.get(f"{module.rpartition('/')[0]}/*")


def imports(source: str, module: str) -> Iterator[tuple[str, int]]:
    """Dotted names that the source imports, each with its line."""
    package = module.removesuffix(".py").removesuffix("/__init__").split("/")
    depth = len(package) - (0 if module.endswith("__init__.py") else 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: depth - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{prefix}.{alias.name}", node.lineno) for alias in node.names)


def file_of(dotted: str, files: frozenset[str]) -> str | None:
    """The file of ours that a dotted name means: the longest prefix that is a module."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        path = "/".join(parts[:end])
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if candidate in files:
                return candidate
    return None


def owner(dotted: str, libraries: frozenset[str]) -> str | None:
    """The most specific named library that a dotted name lies in."""
    found = [name for name in libraries if dotted == name or dotted.startswith(f"{name}.")]
    return max(found, key=len, default=None)


def violations(sources: Mapping[str, str], table: Mapping[str, Row]) -> list[str]:
    """Every breach of the table, one sentence each."""
    files = frozenset(sources)
    found = []
    for module, source in sorted(sources.items()):
        row = row_of(module, table)
        if row is None:
            found.append(f"{module}: unknown; give it a floor and a charter in {TABLE.name}")
            continue
        package = module.split("/", maxsplit=1)[0]
        named = frozenset(
            library
            for name, other in table.items()
            if name.startswith(f"{package}/")
            for library in other.libraries
        )
        for dotted, line in imports(source, module):
            found += _judge(f"{module}:{line}", dotted, row, Context(module, files, named, table))
    return found


@dataclass(frozen=True, slots=True)
class Context:
    """What one import is judged by."""

    module: str
    files: frozenset[str]
    named: frozenset[str]
    table: Mapping[str, Row]


def _judge(where: str, dotted: str, row: Row, context: Context) -> Iterator[str]:
    target = file_of(dotted, context.files)
    if target is not None and target != context.module:
        other = row_of(target, context.table)
        same_folder = target.rpartition("/")[0] == context.module.rpartition("/")[0]
        shared = context.module not in context.table and same_folder
        if other is not None and other.floor >= row.floor and not shared:
            yield f"{where}: floor {row.floor:g} imports {target} on floor {other.floor:g}"
        if context.module.startswith("flight_server/protocol/") and not target.startswith(
            "flight_server/protocol/"
        ):
            yield f"{where}: the protocol package imports {target}; it must stand alone"
        if context.module.startswith("catalog/") and not target.startswith("catalog/"):
            yield f"{where}: catalog/ imports {target}; it never imports flight_server"
    library = owner(dotted, context.named)
    if library is not None and library not in row.libraries:
        yield f"{where}: imports {library}, which belongs to another module (see {TABLE.name})"


def tree() -> dict[str, str]:
    """Every module of ours, generated protocol code aside."""
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    }


def test_every_import_goes_to_a_lower_floor() -> None:
    """The floors of docs/architecture.md hold for every module of the tree."""
    breaches = violations(tree(), read_table(TABLE.read_text()))
    assert not breaches, "\n".join(breaches)


def test_the_table_names_only_modules_that_exist() -> None:
    files = {*tree(), *(f"{path.rpartition('/')[0]}/*" for path in tree())}
    gone = sorted(set(read_table(TABLE.read_text())) - files)
    assert not gone, f"in docs/architecture.md but not in the tree: {gone}"


def test_modules_stay_readable_in_one_sitting() -> None:
    """A module has at most 400 lines."""
    long = {name: lines for name, text in tree().items() if (lines := len(text.splitlines())) > 400}
    assert not long


SMALL = {
    "catalog/low.py": Row(0, frozenset()),
    "catalog/high.py": Row(1, frozenset({"pyiceberg"})),
    "flight_server/top.py": Row(2, frozenset()),
    "flight_server/protocol/wire.py": Row(2, frozenset()),
}
SOUND = {
    "catalog/low.py": "import os",
    "catalog/high.py": "from catalog.low import x\nimport pyiceberg.table",
    "flight_server/top.py": "from catalog import high",
    "flight_server/protocol/wire.py": "import json",
}


def test_a_sound_tree_passes() -> None:
    assert violations(SOUND, SMALL) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("catalog/low.py", "from catalog.high import x", "floor 0 imports catalog/high.py"),
        ("catalog/low.py", "from .high import x", "floor 0 imports catalog/high.py"),
        ("catalog/low.py", "from . import high", "floor 0 imports catalog/high.py"),
        ("catalog/low.py", "def f():\n    import catalog.high", "low.py:2: floor 0 imports"),
        ("catalog/low.py", "from pyiceberg.table import Table", "belongs to another module"),
        ("catalog/high.py", "import flight_server.top", "never imports flight_server"),
        ("flight_server/protocol/wire.py", "import catalog.low", "must stand alone"),
        ("catalog/new.py", "", "unknown; give it a floor"),
    ],
)
def test_a_breach_is_found(module: str, source: str, complaint: str) -> None:
    """The floor test bites."""
    assert any(complaint in breach for breach in violations({**SOUND, module: source}, SMALL))


def test_the_table_in_the_docs_is_read() -> None:
    table = read_table(TABLE.read_text())
    assert table["catalog/errors.py"].floor == 0
    assert "pyiceberg" in table["catalog/lake.py"].libraries
