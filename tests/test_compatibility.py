"""docs/compatibility.md: the page and the recorder that holds it to the tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support_clients import required_or_skipped, tool
from support_compatibility import CLIENTS, FEATURES, LIMITS, PAGE, Recorder, read, render

ALL = {(client, feature) for client in CLIENTS for feature in FEATURES}
SOME = {("ADBC", "queries"), ("JDBC", "parameters")}


def recorder(outcomes: dict[tuple[str, str], str], *, whole: bool = True) -> Recorder:
    found = Recorder(whole=whole)
    for cell, outcome in outcomes.items():
        report: Any = SimpleNamespace(
            user_properties=[("feature", list(cell))], when="call", passed=outcome == "passed"
        )
        found.pytest_runtest_logreport(report)
    return found


def test_what_is_rendered_is_read_again() -> None:
    assert read(render(SOME)) == SOME
    assert read(render(ALL)) == ALL
    assert read("") == set()


def test_the_page_leaves_no_cell_open() -> None:
    page = PAGE.read_text()
    assert "| ?" not in page
    assert set(LIMITS) <= ALL
    assert page == render(read(page))


def test_a_claim_that_no_test_shows_is_a_complaint() -> None:
    ran = recorder({("ADBC", "queries"): "passed"})
    assert "claimed, not shown: [('JDBC', 'parameters')]" in ran.compare(render(SOME))
    assert ran.compare(render({("ADBC", "queries")})) == ""


def test_a_skipped_test_is_no_complaint_but_one_that_is_not_claimed_is() -> None:
    """A machine without Go skips; the page stays as it is."""
    skipped = recorder({("ADBC", "queries"): "passed", ("JDBC", "parameters"): "skipped"})
    assert skipped.compare(render(SOME)) == ""
    part = recorder({("Go", "queries"): "passed"}, whole=False)
    assert "shown, not claimed: [('Go', 'queries')]" in part.compare(render(SOME))
    assert part.compare(render({*SOME, ("Go", "queries")})) == ""


@pytest.mark.parametrize("outcomes", [("passed", "failed"), ("failed", "passed")])
def test_one_failure_is_enough(outcomes: tuple[str, str]) -> None:
    found = recorder({})
    for outcome in outcomes:
        report: Any = SimpleNamespace(
            user_properties=[("feature", ["ADBC", "queries"])],
            when="call",
            passed=outcome == "passed",
        )
        found.pytest_runtest_logreport(report)
    assert found.works == set()


@pytest.mark.parametrize(("client", "feature"), sorted(LIMITS))
def test_limits_are_sentences(client: str, feature: str) -> None:
    assert len(LIMITS[client, feature]) > 10


@pytest.mark.parametrize(
    ("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_a_missing_client_skips_or_fails_as_wished(
    required: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("K2_REQUIRE_CLIENTS", required)
    with pytest.raises(outcome, match="go is missing: install Go"):
        required_or_skipped(lambda: [tool("go", "Go 1.25 or newer")])


def test_the_ci_requires_the_clients() -> None:
    script = (PAGE.parent.parent / ".ci" / "run").read_text()
    assert "export K2_REQUIRE_CLIENTS=1\n" in script
