"""Both error trees are total: every class says its status, and every status can be sent."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

import catalog.errors
import flight_server.protocol.errors
from catalog.errors import CatalogError, shorten
from flight_server.protocol.errors import SENT_AS, FlightSqlError


def subclasses(root: type) -> Iterator[type]:
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)


TREES = (
    (CatalogError, catalog.errors),
    (FlightSqlError, flight_server.protocol.errors),
)
CLASSES = [
    cls
    for root, module in TREES
    for cls in (root, *sorted(subclasses(root), key=lambda c: c.__name__))
    if cls.__module__ == module.__name__
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_maps_to_a_status_that_can_be_sent(cls: type[CatalogError]) -> None:
    assert cls.code in SENT_AS
    assert isinstance(cls.retriable, bool)
    assert inspect.getdoc(cls)


@pytest.mark.parametrize(("root", "module"), TREES)
def test_the_tree_in_the_docstring_names_every_class(root: type, module: object) -> None:
    drawn = inspect.getdoc(module) or ""
    names = {cls.__name__ for cls in subclasses(root) if cls.__module__ == module.__name__}
    assert {name for name in names if f" {name} " not in f"{drawn} ".replace("\n", " ")} == set()


def test_no_error_class_hides_outside_its_tree() -> None:
    """A class of ours elsewhere would escape the mapping above."""
    ours = {module.__name__ for _, module in TREES}
    strays = [
        f"{cls.__module__}.{cls.__name__}"
        for root, _ in TREES
        for cls in subclasses(root)
        if cls.__module__ not in ours and cls.__module__.startswith(("catalog.", "flight_server."))
    ]
    assert strays == []


def test_a_wait_helps_only_where_the_status_says_so() -> None:
    """Retriable classes carry a status that clients retry on, and the other way round."""
    retriable = {cls.code for cls in CLASSES if cls.retriable}
    assert retriable <= {"UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"}
    assert all(cls.retriable for cls in CLASSES if cls.code == "UNAVAILABLE")


def test_long_values_are_cut() -> None:
    assert shorten("x" * 1000) == "x" * 199 + "…"
    assert shorten("x" * 200) == "x" * 200
