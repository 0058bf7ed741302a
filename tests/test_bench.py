"""What the benchmarks make of measurements: pairs, noise, pages, drawings, comparisons."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import __main__ as program
from bench.compare import changes, main
from bench.figures import Figure, absent, at_least, at_most, below
from bench.lanes import LANES
from bench.plots import drawings
from bench.results import Run, parse, run_of, runs_at, section, write, write_page
from bench.turns import Turns, alternate

ROOT = Path(__file__).resolve().parent.parent


def lane_run(lane: str, *figures: Figure, quick: bool = False) -> Run:
    return replace(run_of(lane, figures, 12.3, quick=quick, seed=1), when="2026-01-01T00:00:00Z")


# --- pairs --------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_turns_ratios() -> None:
    """A slow moment that both meet does not count; the medians' own quotient would say 0.4."""
    turns = Turns({"ours": [1.0, 4.0, 30.0], "peer": [1.0, 10.0, 10.0]})
    figure = turns.figure("f", "ours", "peer", "peer")
    assert (figure.value, figure.against, figure.ratio) == (4.0, 10.0, 1.0)
    assert figure.noise == pytest.approx((2.0 - 0.7) / 2)


def test_the_larger_of_two_yardsticks_counts_turn_by_turn() -> None:
    turns = Turns({"ours": [2.0, 2.0, 2.0], "a": [1.0, 4.0, 1.0], "b": [2.0, 1.0, 1.0]})
    assert turns.ratios("ours", "a", "b") == [1.0, 0.5, 2.0]


def test_a_rate_is_above_the_yardstick_where_the_time_is_below() -> None:
    rate = Turns({"ours": [1.0] * 3, "peer": [2.0] * 3}).rate("f", 100, "ours", "peer", "peer")
    assert (rate.value, rate.against, rate.ratio) == (100.0, 50.0, 2.0)
    assert at_least(rate, 2.0).met is True
    assert at_least(rate, 2.1).met is False


def test_nobody_always_follows_the_same_one() -> None:
    order: list[str] = []
    alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2)
    assert order == ["a", "b", "b", "a"]


def test_a_figure_that_is_not_there_meets_no_goal() -> None:
    missing = absent("f", "peer", "it does not start")
    assert [at_least(missing, 1).met, at_most(missing, 1).met, below(missing, 1).met] == [False] * 3


# --- the page -----------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    return tmp_path


def test_a_lane_run_again_replaces_its_own_part_only(page: Path) -> None:
    for lane, value in (("tpch", 1.0), ("ingest", 2.0), ("tpch", 3.0)):
        write(lane_run(lane, Figure(f"{lane} figure", value, "s")), page)
        write_page(["ingest", "tpch"], page)
    text = (page / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert re.findall(r"### (\w+)", text) == ["ingest", "tpch"]
    assert "| ingest figure | 2 s |" in text
    assert "| tpch figure | 3 s |" in text
    assert "1 s" not in text


def test_a_quick_run_is_on_no_page(page: Path) -> None:
    path = write(lane_run("tpch", Figure("f", 1.0, "s"), quick=True), page)
    assert path.parent.name == "quick"
    write_page(["tpch"], page)
    assert "| f |" not in (page / "README.md").read_text()


def test_a_run_is_read_as_it_was_written(page: Path) -> None:
    run = lane_run("tpch", at_most(Figure("f", 1.0, "s", "peer", 2.0, detail={"q1": 0.5}), 1.0))
    assert parse(write(run, page).read_text()) == run


def test_a_part_says_when_on_what_and_of_which_versions() -> None:
    text = section(lane_run("tpch", absent("f", "ROAPI", "roapi does not listen")))
    assert "2026-01-01T00:00:00Z, 12 s, revision " in text
    assert "seed 1" in text
    for package in ("python", "datafusion", "duckdb", "roapi", "chdb", "pysail"):
        assert package in text
    assert "| f | - | ROAPI |  |  |  | roapi does not listen |" in text


def test_the_page_shows_the_results_that_lie_beside_it() -> None:
    """Nobody edits a figure by hand."""
    text = (ROOT / "bench" / "README.md").read_text()
    for path in (ROOT / "bench" / "results").glob("*.json"):
        assert section(parse(path.read_text())) in text


def test_a_lane_that_fails_leaves_its_earlier_figures(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_stage: object) -> list[Figure]:
        raise AssertionError("Q1: DuckDB answers otherwise")

    monkeypatch.setattr(program, "LANES", {"tpch": wrong})
    monkeypatch.setattr(program, "write", lambda run: write(run, page))
    assert not program.run("tpch", None, None, quick=True)  # type: ignore[arg-type]
    assert not (page / "results").exists()


def test_every_lane_has_a_line_on_the_page() -> None:
    text = (ROOT / "bench" / "README.md").read_text()
    assert re.findall(r"^\* \*\*(\w+)\*\*", text, re.MULTILINE) == list(LANES)


# --- comparing ----------------------------------------------------------------------------------


def both(old: Figure, new: Figure) -> str:
    (change,) = changes({"l": lane_run("l", old)}, {"l": lane_run("l", new)})
    return change.mark


@pytest.mark.parametrize(
    ("unit", "before", "after", "mark"),
    [
        *(("s", 1.0, 1.15, ""), ("s", 1.0, 1.3, "worse"), ("s", 1.0, 0.7, "better")),
        *(("rows/s", 1.0, 1.3, "better"), ("rows/s", 1.0, 0.7, "worse")),
    ],
)
def test_what_lies_beyond_the_noise_of_both_is_marked(
    unit: str, before: float, after: float, mark: str
) -> None:
    old, new = Figure("f", before, unit, noise=0.1), Figure("f", after, unit, noise=0.1)
    assert both(old, new) == mark


def test_a_figure_with_a_yardstick_is_compared_by_its_ratio() -> None:
    """The machine was twice as slow: nothing of ours changed."""
    old = Figure("f", 1.0, "s", "peer", 2.0, noise=0.05)
    assert both(old, Figure("f", 2.0, "s", "peer", 4.0, noise=0.05)) == ""
    assert both(old, Figure("f", 1.0, "s", "peer", 1.0, noise=0.05)) == "worse"


def test_nobody_judges_where_noise_is_unknown() -> None:
    assert both(Figure("f", 1.0, "s"), Figure("f", 9.0, "s", noise=0.1)) == "?"


def test_runs_come_from_files_folders_and_revisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    file = write(lane_run("tpch", Figure("f", 1.0, "s", noise=0.0)), repository / "bench")
    assert runs_at(str(file)) == runs_at(str(file.parent))
    git = ["git", "-C", str(repository), "-c", "user.name=b", "-c", "user.email=b@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "bench: one run"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    assert runs_at("HEAD", repository) == runs_at(str(file))
    with pytest.raises(ValueError, match="no file, folder or git revision"):
        runs_at("no-such-thing", repository)
    newer = tmp_path / "newer.json"
    shutil.copy(file, newer)
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"lane": "other"}))
    assert main([str(file), str(newer)]) == 2
    assert main([str(file), str(file)]) == 0
    assert "1.00 ×         1 s →        1 s  tpch: f" in capsys.readouterr().out


# --- drawing ------------------------------------------------------------------------------------


def drawn(*figures: Figure) -> list[tuple[str, ET.Element]]:
    made = drawings("l", figures).values()
    return [(title, ET.fromstring(svg)) for title, svg in made]  # noqa: S314 - our own


def test_figures_that_differ_in_one_number_become_lines() -> None:
    figures = [
        Figure(f"`select 1`, {n} client{'s' if n > 1 else ''}, p50", 1.0 * n, "ms", peer, 2.0)
        for n in (1, 8, 64)
        for peer in ("ROAPI", "bare <Flight>")
    ]
    ((title, svg),) = drawn(*figures, Figure("another one", 1.0, "s"))
    words = [each.text for each in svg.iter() if each.tag.endswith("text")]
    assert title == "select 1, … clients, p50"
    assert {"K2 Flight", "ROAPI", "bare <Flight>", "1", "8", "64"} <= set(words)
    lines = [each for each in svg.iter() if each.tag.endswith("polyline")]
    assert [len(each.attrib["points"].split()) for each in lines] == [3, 3, 3]


def test_ratios_by_query_become_bars_with_gaps_for_what_a_peer_cannot() -> None:
    engine = Figure("TPC-H, 2 queries", 1.0, "s", "the engine", 1.0, detail={"q1": 1.0, "q2": 2.0})
    chdb = Figure("TPC-H, 1 of 2 queries", 1.0, "s", "chDB there", 1.0, detail={"q2": 0.5})
    ((_, svg),) = drawn(engine, chdb)
    bars = [each for each in svg.iter() if each.attrib.get("rx") == "1.5"]
    assert [each.attrib["class"] for each in bars] == ["c0", "c0", "c1"]
    heights = [float(each.attrib["height"]) for each in bars]
    assert heights[0] == 0
    assert heights[1] > 0
    assert heights[2] == pytest.approx(heights[1], abs=0.2)  # half is as far as twice
    assert float(bars[2].attrib["y"]) > float(bars[1].attrib["y"])


def test_rates_become_bars_and_all_is_legible_in_the_dark() -> None:
    ((title, svg),) = drawn(Figure("ingest, broker → live", 5e5, "rows/s", "bare loop", 6e5))
    assert "rows per second" in title
    style = next(each.text or "" for each in svg.iter() if each.tag.endswith("style"))
    assert "prefers-color-scheme:dark" in style


def test_a_drawing_names_no_place_outside() -> None:
    for _, svg in drawings("l", [Figure("f", 1.0, "rows/s", "g", 2.0)]).values():
        assert set(re.findall(r"https?://[^\"]+", svg)) == {"http://www.w3.org/2000/svg"}
