"""`k2 demo` from outside: the whole house, killed, interrupted, run twice, run side by side."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flight_server
from flight_server.demo.folder import free_port, owned
from flight_server.exits import ExitCode
from flight_server.layers import ConfigRefused
from flight_server.sqlclient import Address, Client, ClientError

K2 = Path(sys.executable).with_name("k2")
#: Longest wait for something that must come, on a machine that does much else.
PATIENCE_S = 240.0
KEYS = [
    *("produced", "rows_total", "rows_history", "rows_live", "duplicates", "gaps", "commits"),
    *("freshness_p50_ms", "freshness_p99_ms"),
]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def until_in(running: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Waits for something that must come while the demo runs."""
    until(lambda: condition() or running.poll() is not None)
    if running.poll() is not None:
        pytest.fail(f"the demo has ended: {running.communicate()}")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("K2_")}
    return subprocess.Popen(
        [K2, "demo", "--folder", str(folder), "--rate", "4000", *arguments],
        env={**environ, "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    running = start(folder, *arguments)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()
        until(lambda: not survivors(folder))


def finished(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=PATIENCE_S)
    return running.returncode, out, err


def survivors(folder: Path) -> list[str]:
    listing = subprocess.run(["ps", "-axo", "args="], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if str(folder) in line]


def said(folder: Path, pattern: str) -> list[str]:
    log = folder / "logs" / "serve.log"
    return re.findall(pattern, log.read_text()) if log.exists() else []


def pids(folder: Path, child: str) -> list[int]:
    return [int(pid) for pid in said(folder, rf"child_started child={child} pid=(\d+)")]


def counts(folder: Path) -> tuple[int, int]:
    """Rows of the newest run's trades: all, and in history. (-1, -1): no answer now."""
    ports = said(folder, r"child_ready child=server port=(\d+)")
    if not ports:
        return -1, -1
    run = (folder / "run").read_text()
    sql = f"""select (select count(*) from market_data.trades_{run}) as n,
                     (select count(*) from market_data."trades_{run}$runs") as h"""
    try:
        with Client(Address.parse(f"127.0.0.1:{ports[-1]}")) as client, client.query(sql) as rows:
            (row,) = [row for batch in rows.batches for row in batch.to_pylist()]
            return row["n"], row["h"]
    except ClientError:
        return -1, -1


def exact(out: str) -> dict[str, int]:
    """The JSON line of a demo in which nothing was lost or doubled."""
    (line,) = out.splitlines()
    summary = json.loads(line)
    assert list(summary) == KEYS
    assert (summary["duplicates"], summary["gaps"]) == (0, 0)
    assert summary["produced"] == summary["rows_total"] > 0
    assert summary["rows_history"] + summary["rows_live"] == summary["rows_total"]
    assert summary["rows_history"] > 0
    assert summary["commits"] >= 2
    assert summary["freshness_p99_ms"] >= summary["freshness_p50_ms"] >= 0
    return summary


def test_two_demos_side_by_side_are_exact_and_a_second_run_keeps_the_first(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    with demo(first, "--for", "2s", "--json") as one, demo(second, "--for", "2s", "--json") as two:
        code_one, out_one, err_one = finished(one)
        code_two, out_two, err_two = finished(two)
    assert (code_one, code_two) == (ExitCode.OK, ExitCode.OK), err_one + err_two
    before = exact(out_one)
    exact(out_two)
    with demo(first, "--for", "1s", "--json") as again:
        code, out, err = finished(again)
    assert code == ExitCode.OK, err
    exact(out)
    with flight_server.open(first / "k2.toml") as db:
        names = set(db.tables())
        assert {f"market_data.{k}_{n}" for k in ("trades", "quotes") for n in (1, 2)} <= names
        (row,) = db.sql(
            """select (select count(*) from market_data.trades_1)
                    + (select count(*) from market_data.quotes_1) as n"""
        )
    # An earlier run stays as ordinary tables; its ingest may have flushed after the count.
    assert before["rows_history"] <= row["n"] <= before["rows_total"]


def test_killed_children_come_back_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo(folder, "--json") as running:
        until_in(running, lambda: counts(folder)[1] > 0)
        ingest = pids(folder, "ingest")
        seen = counts(folder)[0]
        os.kill(pids(folder, "server")[-1], signal.SIGSEGV)
        until_in(running, lambda: counts(folder)[0] > seen)
        assert pids(folder, "ingest") == ingest, "the ingest does not notice"
        os.kill(ingest[-1], signal.SIGKILL)
        until_in(running, lambda: len(pids(folder, "ingest")) == 2)
        seen = counts(folder)[0]
        until_in(running, lambda: counts(folder)[0] > seen)
        running.send_signal(signal.SIGINT)
        code, out, err = finished(running)
    assert code == ExitCode.OK, err
    exact(out)


def test_a_killed_demo_leaves_nothing_behind_and_runs_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo(folder) as running:
        until_in(running, lambda: counts(folder)[0] > 0)
        port = int(said(folder, r"child_ready child=server port=(\d+)")[-1])
        running.kill()
        running.communicate()
        until(lambda: not survivors(folder))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    with demo(folder, "--clean", "--for", "1s", "--json") as again:
        code, out, err = finished(again)
    assert code == ExitCode.OK, err
    exact(out)
    assert (folder / "run").read_text() == "1", "--clean begins anew"


def test_ctrl_c_ends_in_order_after_showing_everything(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo(folder) as running:
        assert running.stdout is not None
        shown = ""
        while "produced " not in shown:
            line = running.stdout.readline()
            assert line, "it ended before the live line"
            shown += line
        running.send_signal(signal.SIGINT)
        code, out, err = finished(running)
    assert code == ExitCode.OK, err
    for words in ("jdbc:arrow-flight-sql://127.0.0.1:", "adbc_driver_flightsql", "k2 sql --server"):
        assert words in shown
    for title in ("How many rows", "VWAP by symbol", "The newest trades"):
        assert title in shown
    assert re.search(r"duplicates\s+0\n\s+gaps\s+0", out)
    assert "\x1b[" not in shown + out, "colours are for terminals"


def test_one_folder_has_one_demo(tmp_path: Path) -> None:
    with (
        owned(tmp_path, clean=False),
        pytest.raises(ConfigRefused, match="another demo runs in"),
        owned(tmp_path, clean=False),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(ConfigRefused, match=r"cannot write to .*--folder"),
            owned(folder, clean=False),
        ):
            pass


def test_clean_removes_what_demos_make_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "warehouse").mkdir()
    (tmp_path / "run").write_text("7")
    with owned(tmp_path, clean=True) as run:
        assert run.number == 1
        assert not (tmp_path / "warehouse").exists()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_taken_port_is_passed_over_and_a_chosen_one_is_kept_from_other_demos() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with free_port(port) as one, free_port(port) as other:
            assert port < one < other <= port + 100
