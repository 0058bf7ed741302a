"""docs/reliability.md: every failure seen in the wild names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from model.machine import run
from model.rules import REMOVALS

TESTS = Path(__file__).resolve().parent
DOC = (TESTS.parent / "docs" / "reliability.md").read_text()
#: Rows of the table of failures that the project began with.
FAILURES = 19


def rows() -> dict[int, str]:
    """Number of a failure → its last cell, which names its tests."""
    part = DOC.split("<!-- failures -->")[1].split("<!-- /failures -->")[0]
    found = re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", part, re.MULTILINE)
    return {int(number): tests for number, tests in found}


def named_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}


def test_every_failure_has_a_row() -> None:
    assert sorted(rows()) == list(range(1, FAILURES + 1))


@pytest.mark.parametrize("failure", range(1, FAILURES + 1))
def test_a_failure_names_tests_that_exist(failure: int) -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", rows()[failure])
    assert named, f"failure {failure} names no test"
    for file, name in named:
        assert name in named_in(file), f"{file}::{name} is gone"


def test_the_trace_in_the_document_is_what_the_model_finds() -> None:
    """Rule 6: the shortest way to lose a file."""
    removal = next(one for one in REMOVALS if one.off == ("keep files",))
    with removal.applied() as scenario:
        found = run(scenario)
    shown = DOC.split("```")[1].strip("\n").splitlines()
    assert [line.split(". ", 1)[1] for line in shown] == list(found.trace)
