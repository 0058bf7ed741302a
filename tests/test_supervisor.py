"""The supervisor and the lifeline, with real processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flight_server.exits import ExitCode
from flight_server.lifeline import Child
from flight_server.supervisor import Backoff, ChildSpec, Supervisor, child_specs, describe_end

CHILD = Path(__file__).parent / "support_children.py"
#: Long enough for a loaded machine; nothing asserts that something took less.
PATIENCE_S = 60.0
QUICK = Backoff(first_s=0.01, max_delay_s=0.02, stable_s=3600)


def until(condition: Callable[[], object]) -> None:
    """Waits for something that must come; fails the test where it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def spec(folder: Path, name: str, behaviour: str) -> ChildSpec:
    log = folder / f"{name}.log"
    return ChildSpec(name, (sys.executable, str(CHILD), behaviour), {"K2_TEST_LOG": str(log)})


def pids(folder: Path, name: str) -> list[int]:
    log = folder / f"{name}.log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


@contextmanager
def running(*children: ChildSpec, grace_s: float = 10.0) -> Iterator[Supervisor]:
    supervisor = Supervisor(children, backoff=QUICK, grace_s=grace_s)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join()


@pytest.mark.parametrize("signal_number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_that_dies_is_restarted_and_its_sibling_does_not_notice(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    with running(spec(tmp_path, "server", "run"), spec(tmp_path, "ingest", "run")):
        until(lambda: pids(tmp_path, "server") and pids(tmp_path, "ingest"))
        ingest = pids(tmp_path, "ingest")
        for round_number in range(1, 4):
            os.kill(pids(tmp_path, "server")[-1], signal_number)
            until(lambda wanted=round_number + 1: len(pids(tmp_path, "server")) == wanted)
        assert pids(tmp_path, "ingest") == ingest
        assert alive(ingest[0])


def test_a_child_is_gone_before_the_next_one_starts(tmp_path: Path) -> None:
    """Rule 11: the supervisor kills before it restarts."""
    with running(spec(tmp_path, "ingest", "run")):
        for started in range(1, 4):
            until(lambda wanted=started: len(pids(tmp_path, "ingest")) == wanted)
            os.kill(pids(tmp_path, "ingest")[-1], signal.SIGKILL)
            until(lambda wanted=started + 1: len(pids(tmp_path, "ingest")) == wanted)
            assert [pid for pid in pids(tmp_path, "ingest")[:-1] if alive(pid)] == []


def test_a_standby_takes_over_and_only_then_begins_to_work(tmp_path: Path) -> None:
    """Rule 11: a standby does no work before the one at work has been reaped."""
    with_standby = replace(spec(tmp_path, "server", "run"), standby=True)
    with running(with_standby) as supervisor:
        keeper = supervisor.keepers[0]
        for started in range(1, 4):
            until(lambda wanted=started: len(pids(tmp_path, "server")) == wanted)
            until(lambda: keeper._standby is not None)
            standby = keeper._standby
            assert standby is not None
            assert standby.pid not in pids(tmp_path, "server"), "it waits for its turn"
            os.kill(pids(tmp_path, "server")[-1], signal.SIGKILL)
            until(lambda wanted=standby.pid: pids(tmp_path, "server")[-1] == wanted)
        until(lambda: keeper._standby is not None)
        last = keeper._standby
    assert last is not None
    assert not alive(last.pid), "a standby ends with its supervisor"


def test_a_standby_that_died_is_replaced_by_a_new_start(tmp_path: Path) -> None:
    with_standby = replace(spec(tmp_path, "server", "run"), standby=True)
    with running(with_standby) as supervisor:
        keeper = supervisor.keepers[0]
        until(lambda: keeper._standby is not None)
        assert keeper._standby is not None
        os.kill(keeper._standby.pid, signal.SIGKILL)
        keeper._standby.wait()
        os.kill(pids(tmp_path, "server")[0], signal.SIGKILL)
        until(lambda: len(pids(tmp_path, "server")) == 2)


def test_stopping_ends_every_child_and_succeeds(tmp_path: Path) -> None:
    codes: list[int] = []
    supervisor = Supervisor([spec(tmp_path, name, "run") for name in ("server", "ingest")])
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()
    until(lambda: pids(tmp_path, "server") and pids(tmp_path, "ingest"))
    supervisor.stop()
    thread.join()
    assert codes == [ExitCode.OK]
    assert not any(alive(pid) for name in ("server", "ingest") for pid in pids(tmp_path, name))


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    with running(spec(tmp_path, "server", "stubborn"), grace_s=0.2) as supervisor:
        until(lambda: pids(tmp_path, "server"))
        supervisor.stop()
    assert not alive(pids(tmp_path, "server")[0])


@pytest.mark.parametrize("code", [ExitCode.CONFIG, ExitCode.UNAVAILABLE])
def test_a_start_that_cannot_succeed_ends_the_whole_with_its_code(
    tmp_path: Path, code: ExitCode
) -> None:
    children = [spec(tmp_path, "server", "run"), spec(tmp_path, "ingest", f"exit-{int(code)}")]
    assert Supervisor(children, backoff=QUICK).run() == code
    assert len(pids(tmp_path, "ingest")) == 1
    assert not any(alive(pid) for pid in pids(tmp_path, "server"))


def test_a_child_that_was_ready_is_restarted_whatever_it_ends_with(tmp_path: Path) -> None:
    with running(spec(tmp_path, "ingest", "ready-then-exit")) as supervisor:
        until(lambda: len(pids(tmp_path, "ingest")) >= 3)
        assert supervisor.keepers[0].failure is None


def test_any_other_end_before_ready_is_retried(tmp_path: Path) -> None:
    with running(spec(tmp_path, "ingest", "exit-1")):
        until(lambda: len(pids(tmp_path, "ingest")) >= 3)


def test_the_delay_doubles_up_to_its_bound_and_a_stable_run_resets_it() -> None:
    backoff = Backoff(first_s=0.05, max_delay_s=1.0, stable_s=10.0)
    delays = [0.0]
    for _ in range(7):
        delays.append(backoff.next_delay(delays[-1], ran_s=1.0))
    assert delays[1:] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.next_delay(1.0, ran_s=10.0) == 0.05


def test_ends_are_logged_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert describe_end(-signal.SIGSEGV) == "SIGSEGV"
    assert describe_end(70) == "exit 70"
    with (
        caplog.at_level(logging.INFO, "k2.supervisor"),
        running(spec(tmp_path, "server", "run")) as supervisor,
    ):
        until(lambda: pids(tmp_path, "server"))
        os.kill(pids(tmp_path, "server")[0], signal.SIGKILL)
        until(lambda: supervisor.keepers[0].starts == 2)
    assert "child_ended child=server end=SIGKILL" in caplog.text


PARENT = """
import sys, time
from flight_server.supervisor import ChildSpec, Supervisor
log, child = sys.argv[1:]
specs = [ChildSpec(n, (sys.executable, child, b), {"K2_TEST_LOG": f"{log}/{n}.log"}, True)
         for n, b in (("server", "run"), ("ingest", "stubborn"))]
Supervisor(specs).run()
"""


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """By SIGKILL, where it can tell nobody; and although one of them ignores SIGTERM."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), str(CHILD)])
    try:
        until(lambda: pids(tmp_path, "server") and pids(tmp_path, "ingest"))
    finally:
        parent.kill()
        parent.wait()
    for name in ("server", "ingest"):
        until(lambda name=name: not alive(pids(tmp_path, name)[0]))


@pytest.mark.parametrize("standby", [False, True])
def test_a_child_that_still_loads_its_modules_ends_with_its_parent(
    tmp_path: Path, *, standby: bool
) -> None:
    """On a busy machine that takes longer than a new supervisor would wait."""
    slow = textwrap.dedent(
        f"""
        import os, pathlib, time
        from flight_server import child

        def load(name):
            pathlib.Path({str(tmp_path / "pid")!r}).write_text(f"{{os.getpid()}}")
            time.sleep(3600)

        child.importlib.import_module = load
        child.main(["server"])
        """
    )
    parent = textwrap.dedent(
        f"""
        import sys, time
        from flight_server.lifeline import Child
        Child([sys.executable, "-c", {slow!r}], standby={standby})
        time.sleep(3600)
        """
    )
    pid = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", parent]) as supervisor:
        try:
            until(lambda: pid.exists() and pid.read_text())
        finally:
            supervisor.kill()
    until(lambda: not alive(int(pid.read_text())))


def test_a_child_says_once_that_it_is_ready(tmp_path: Path) -> None:
    environ = {**os.environ, "K2_TEST_LOG": str(tmp_path / "log")}
    child = Child([sys.executable, str(CHILD), "run"], environ=environ)
    try:
        assert child.wait_ready(PATIENCE_S) == {"behaviour": "run"}
    finally:
        assert child.end(PATIENCE_S) == -signal.SIGTERM
    silent = Child([sys.executable, str(CHILD), "exit-3"], environ=environ)
    assert silent.wait_ready(PATIENCE_S) is None
    assert silent.end(PATIENCE_S) == 3


def test_a_sigterm_while_the_interpreter_ends_changes_nothing() -> None:
    """Sent by what is destroyed with the modules, after our handlers were taken away."""
    script = textwrap.dedent("""
        import os, signal, sys
        from flight_server.lifeline import stop_on_signals

        class Late:
            def __del__(self, kill=os.kill, pid=os.getpid()):
                assert sys.is_finalizing()
                kill(pid, signal.SIGTERM)
                print("told again")

        late = Late()
        stop_on_signals()
    """)
    command = [sys.executable, "-c", script]
    child = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (child.returncode, child.stdout) == (0, b"told again\n"), child.stderr.decode()


def test_the_supervisor_loads_neither_engine_nor_kafka_nor_settings() -> None:
    """It must not be able to crash with its children: only the standard library and ours."""
    code = textwrap.dedent(
        """
        import sys
        import flight_server.supervisor
        heavy = {"datafusion", "pyarrow", "confluent_kafka", "pyiceberg", "pydantic", "numpy"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_the_ingest_is_left_out_on_request() -> None:
    assert [child.name for child in child_specs("k2.toml")] == ["server", "ingest"]
    (server,) = child_specs(None, ingest=False)
    assert server.arguments[1:] == ("-m", "flight_server.child", "server")


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels choose by themselves")
def test_the_server_is_the_first_to_go_where_memory_runs_out() -> None:
    code = "from flight_server.lifeline import die_first; die_first(); die_first()"
    show = "print(open('/proc/self/oom_score_adj').read())"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {show}"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= 500
