"""Every example of another client runs as it stands (test_readme.py runs Python's on a broker)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support_clients import (
    CLIENTS,
    TRADES,
    House,
    compiled,
    go,
    jdbc,
    npm,
    required_or_skipped,
    run,
    sqlalchemy,
    tool,
)

EXAMPLES = CLIENTS.parent.parent / "examples"


def output(argv: list[str], house: House, cwd: Path) -> list[str]:
    done = subprocess.run(
        argv,
        env={**os.environ, "URI": house.uri},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def by_symbol() -> list[str]:
    """What the examples print: a line per symbol."""
    symbols = TRADES["symbol"].to_pylist()
    return [f"{symbol} {symbols.count(symbol)}" for symbol in sorted(set(symbols))]


def test_java(client_house: House, by_symbol: list[str], tmp_path: Path) -> None:
    argv = required_or_skipped(jdbc)
    options, jars = argv[1 : argv.index("-cp")], argv[argv.index("-cp") + 1].partition(":")[2]
    compiled(argv[0], jars, EXAMPLES / "Trades.java", tmp_path)
    started = [argv[0], *options, "-cp", f"{tmp_path}:{jars}", "Trades"]
    assert output(started, client_house, tmp_path) == by_symbol


def test_go(client_house: House, by_symbol: list[str], tmp_path: Path) -> None:
    required_or_skipped(go)
    compiler = tool("go", "Go")
    built = ["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w"]
    run(
        [compiler, *built, "-o", str(tmp_path / "trades"), str(EXAMPLES / "trades.go")],
        CLIENTS / "go",
        CGO_ENABLED="0",
    )
    assert output([str(tmp_path / "trades")], client_house, tmp_path) == by_symbol


def test_node(client_house: House, by_symbol: list[str], tmp_path: Path) -> None:
    node, client = required_or_skipped(npm)
    (tmp_path / "node_modules").symlink_to(Path(client).parent / "node_modules")
    shutil.copy(EXAMPLES / "trades.mjs", tmp_path)
    assert output([node, "trades.mjs"], client_house, tmp_path) == by_symbol


def test_pyarrow_by_hand(client_house: House, by_symbol: list[str], tmp_path: Path) -> None:
    argv = [sys.executable, str(EXAMPLES / "pyarrow_flight.py")]
    assert output(argv, client_house, tmp_path) == by_symbol
    text = "x" * 300  # a length of two bytes
    assert output([*argv, f"select '{text}' as text"], client_house, tmp_path) == [text]


def test_sqlalchemy(client_house: House, tmp_path: Path) -> None:
    python, _ = required_or_skipped(sqlalchemy)
    script = str(EXAMPLES / "sqlalchemy" / "trades.py")
    assert len(output([python, script], client_house, tmp_path)) == TRADES.num_rows
