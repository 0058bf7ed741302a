"""The lock files: complete, hashed, and bound to no package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
#: What only make bench and make fuzz need.
TOOLS = (ROOT / "requirements-tools.lock").read_text()
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = WHOLE["project"]
BOTH = pytest.mark.parametrize("lock", [LOCK, TOOLS], ids=["requirements", "tools"])


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


@BOTH
def test_the_lock_names_no_address(lock: str) -> None:
    assert "://" not in lock
    assert " @ " not in lock
    assert not re.search(r"^-", lock, re.MULTILINE)  # --index-url, --find-links, -e, -r


@BOTH
def test_every_line_is_pinned_and_hashed(lock: str) -> None:
    for block in re.split(r"\n(?! )", lock.strip()):
        assert re.match(r"[a-z0-9._-]+==[^ ]+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]


@pytest.mark.parametrize("requirement", declared(), ids=lambda r: r.name)
def test_the_lock_satisfies_the_declaration(requirement: Requirement) -> None:
    pins = locked(LOCK).get(requirement.name.lower().replace("_", "-"), [])
    assert pins, "not in requirements.lock: make lock"
    for pin in pins:
        (specifier,) = pin.specifier
        assert requirement.specifier.contains(specifier.version)


def test_the_tools_are_locked_and_no_part_of_what_tests_install() -> None:
    declared_tools = [Requirement(line) for line in WHOLE["dependency-groups"]["tools"]]
    pins = locked(TOOLS)
    assert {requirement.name for requirement in declared_tools} == set(pins)
    assert not set(pins) & set(locked(LOCK))
    for requirement in declared_tools:
        for pin in pins[requirement.name]:
            (specifier,) = pin.specifier
            assert requirement.specifier.contains(specifier.version)


def test_the_versions_whose_abi_matters_are_exact() -> None:
    exact = {"pyarrow", "pyiceberg", "pyiceberg-core", "datafusion", "confluent-kafka"}
    for requirement in declared():
        if requirement.name in exact:
            assert [s.operator for s in requirement.specifier] == ["=="]
            exact.discard(requirement.name)
    assert exact == set()
