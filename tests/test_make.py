"""The Makefile says what is missing, and `make test` is everything that CI runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", "requirements.lock", "requirements-tools.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("target", ["demo", "test"])
def test_without_a_python_that_fits_it_says_which_ones_do(target: str, tmp_path: Path) -> None:
    done = make(tmp_path, target, "PYTHON=")
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_test_lints_types_and_tests_from_the_lock(tmp_path: Path) -> None:
    planned = make(tmp_path, "-n", "test").stdout
    for command in (
        "--require-hashes -r requirements.lock",
        "ruff check .",
        "ruff format --check .",
        ".venv/bin/mypy",
        ".venv/bin/pytest",
    ):
        assert command in planned


@pytest.mark.parametrize("target", ["test", "bench", "fuzz"])
def test_only_bench_and_fuzz_install_the_tools(target: str, tmp_path: Path) -> None:
    planned = make(tmp_path, "-n", target).stdout
    assert ("-r requirements-tools.lock" in planned) == (target != "test")


def test_the_demo_passes_its_arguments_on(tmp_path: Path) -> None:
    assert (
        "k2 demo --for 30s --json" in make(tmp_path, "-n", "demo", "ARGS=--for 30s --json").stdout
    )


def test_help_lists_every_target_that_people_use(tmp_path: Path) -> None:
    listed = make(tmp_path, "help").stdout
    for target in (
        "demo",
        "test",
        "lint",
        "chaos",
        "model",
        "mutants",
        "fuzz",
        "differential",
        "bench",
        "bench-compare",
        "lock",
        "clean",
    ):
        assert f"make {target} " in listed
