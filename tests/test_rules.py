"""Every rule of docs/architecture.md is shown by a test that cites its number."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOC = (ROOT / "docs" / "architecture.md").read_text()
#: Compaction and orphan removal are not built yet.
LATER = {7, 8}


def rules() -> dict[int, str]:
    """Rule → the tests that the table names for it."""
    part = DOC.split("<!-- rules -->")[1].split("<!-- /rules -->")[0]
    rows = re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", part, re.MULTILINE)
    return {int(number): shown for number, shown in rows}


def cited(text: str) -> set[int]:
    """The rules that a docstring cites: ``Rule 16: …``, ``Rules 4, 5 and 6: …``, ``Rules 4-6``."""
    found: set[int] = set()
    for match in re.finditer(r"[Rr]ules? ((?:\d+(?:(?:-| to |, | and )(?=\d))?)+)", text):
        for first, last in re.findall(r"(\d+)(?:(?:-| to )(\d+))?", match[1]):
            found |= set(range(int(first), int(last or first) + 1))
    return found


def citations_of(path: Path) -> Iterator[tuple[str, set[int]]]:
    """Every test function of a file with the rules its docstring cites.

    A citation of the module's or the class's docstring counts for no test: which one would it be?
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield f"{path.name}::{node.name}", cited(ast.get_docstring(node) or "")


@functools.cache
def shown() -> dict[str, set[int]]:
    return {
        name: numbers
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        for name, numbers in citations_of(path)
    }


def test_the_document_has_twenty_rules() -> None:
    assert sorted(rules()) == list(range(1, 21))


@pytest.mark.parametrize("rule", sorted(set(range(1, 21)) - LATER))
def test_a_test_cites_the_rule(rule: int) -> None:
    citing = [name for name, numbers in shown().items() if rule in numbers]
    assert citing, f"no test's docstring says 'Rule {rule}: …'"


@pytest.mark.parametrize("rule", sorted(set(range(1, 21)) - LATER))
def test_the_document_names_tests_that_exist_and_cite_the_rule(rule: int) -> None:
    named = re.findall(r"`(test_\w+\.py::test_\w+)`", rules()[rule])
    assert named, f"rule {rule} names no test in docs/architecture.md"
    for name in named:
        assert rule in shown().get(name, set()), f"{name} is gone, or does not cite rule {rule}"


def test_citations_are_read() -> None:
    assert cited("Rule 16: a cut") == {16}
    assert cited("Rules 4-6 and more") == {4, 5, 6}
    assert cited("Rules 2, 4 to 6 and 9: more") == {2, 4, 5, 6, 9}
    assert cited("see rules 1, 2 and 20: x") == {1, 2, 20}
    assert cited("the rule of 3") == set()
