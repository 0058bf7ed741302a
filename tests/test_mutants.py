"""The list of mutants fits the code: `make mutants` shows that the tests catch them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from mutants.plan import ROOT, Mutant, mutants

#: Rules that no code of ours keeps yet (7) or that settings keep (15).
NO_CODE = {7, 15}


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_an_entry_fits_the_code_and_names_tests_that_exist(mutant: Mutant) -> None:
    """A guard that was rewritten needs its mutant rewritten, or it is no longer watched."""
    assert mutant.fault() is None
    assert mutant.find != mutant.replace
    assert mutant.tests
    for test in mutant.tests:
        file, name = re.fullmatch(r"(test_\w+\.py)::(test_\w+)(?:\[.*\])?", test).groups()  # type: ignore[union-attr]
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}


def test_every_rule_loses_a_guard() -> None:
    assert {rule for one in mutants() for rule in one.rules} == {*range(1, 21)} - NO_CODE


def test_names_are_told_apart() -> None:
    names = [one.name for one in mutants()]
    assert len(names) == len(set(names)) >= 100


def test_a_mutant_changes_one_place_and_a_stale_one_says_why(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("if a:\n    b\n")
    mutant = Mutant("m", (), "code.py", "if a:", "if False:", ("test_x.py::test_y",))
    assert mutant.fault(tmp_path) is None
    assert mutant.apply(tmp_path) == "if a:\n    b\n"
    assert (tmp_path / "code.py").read_text() == "if False:\n    b\n"
    assert mutant.fault(tmp_path) == "'if a:' occurs 0 times in code.py"
