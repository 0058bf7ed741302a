"""requirements.lock: complete, hashed, and bound to no package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(text: str) -> dict[str, list[Requirement]]:
    """Package → its pinned lines; there are several where versions depend on the Python."""
    found: dict[str, list[Requirement]] = {}
    for block in re.split(r"\n(?! )", text.strip()):
        requirement = Requirement(block.split(" \\\n")[0])
        found.setdefault(requirement.name, []).append(requirement)
    return found


def declared() -> list[Requirement]:
    extra = PROJECT["optional-dependencies"]["test"]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extra]]


def test_the_lock_names_no_address() -> None:
    assert "://" not in LOCK
    assert " @ " not in LOCK
    assert not re.search(r"^-", LOCK, re.MULTILINE)  # --index-url, --find-links, -e, -r


def test_every_line_is_pinned_and_hashed() -> None:
    for block in re.split(r"\n(?! )", LOCK.strip()):
        assert re.match(r"[a-z0-9._-]+==[^ ]+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]


@pytest.mark.parametrize("requirement", declared(), ids=lambda r: r.name)
def test_the_lock_satisfies_the_declaration(requirement: Requirement) -> None:
    pins = locked(LOCK).get(requirement.name.lower().replace("_", "-"), [])
    assert pins, "not in requirements.lock: make lock"
    for pin in pins:
        (specifier,) = pin.specifier
        assert requirement.specifier.contains(specifier.version)


def test_the_versions_whose_abi_matters_are_exact() -> None:
    exact = {"pyarrow", "pyiceberg", "pyiceberg-core", "datafusion", "confluent-kafka"}
    for requirement in declared():
        if requirement.name in exact:
            assert [s.operator for s in requirement.specifier] == ["=="]
            exact.discard(requirement.name)
    assert exact == set()
