"""The command line's client against a server of the kernel."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from support_flight import NUMBERS, Numbers, make_service, serving

from flight_server import sqlclient
from flight_server.exits import ExitCode
from flight_server.protocol import Batches, Call, Planned, Rows, Statement
from flight_server.sqlclient import (
    Address,
    Client,
    ServerUnreachable,
    StatementFailed,
    _explained,
    is_complete,
    parse_parameter,
    split_statements,
)
from flight_server.sqlshell import NameCompleter, Output, Shell, history_file

K2 = Path(sys.executable).with_name("k2")
PATIENCE_S = 60.0


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        serving(make_service(Numbers())) as server,
        Client(Address.parse(f"127.0.0.1:{server.port}")) as connected,
    ):
        yield connected


def test_rows_stream_while_the_block_lasts(client: Client) -> None:
    with client.query("select n from numbers") as result:
        assert result.schema.names == ["n"]
        assert [n for batch in result.batches for n in batch["n"].to_pylist()] == [0, 1, 2, 3, 4]


def test_the_servers_message_arrives_without_the_drivers_noise(client: Client) -> None:
    with pytest.raises(StatementFailed) as failed, client.query("select 2"):
        pass
    assert str(failed.value).startswith("I only know 'select n from numbers'")


def test_an_error_of_the_caller_stays_his_own(client: Client) -> None:
    with pytest.raises(BrokenPipeError), client.query("select n from numbers"):
        raise BrokenPipeError


def test_nobody_at_the_address_is_a_typed_error() -> None:
    with (
        pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1: check the address"),
        Client(Address.parse("127.0.0.1:1")) as client,
        client.query("select 1"),
    ):
        pass


def test_a_server_that_ends_in_between_is_a_typed_error() -> None:
    """Neither closing the statement nor closing the connection hides it."""
    with serving(make_service(Numbers())) as server:
        client = Client(Address.parse(f"127.0.0.1:{server.port}"))
        with client.query("select n from numbers") as result:
            next(result.batches)
            server.stop()
        with pytest.raises(ServerUnreachable), client.query("select n from numbers"):
            pass
        client.close()


class Slow(Numbers):
    """Answers neither a plan nor rows, ``where`` it is told, before ``go``."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.asked = threading.Event()
        self.go = threading.Event()

    def plan(self, statement: Statement, call: Call) -> Planned:
        """Waits, or not."""
        self._wait("plan")
        return super().plan(statement, call)

    def open(self, payload: bytes, call: Call) -> Rows:
        """Rows that wait, or not."""

        def rows() -> Iterator[pa.RecordBatch]:
            self._wait("rows")
            yield from super(Slow, self).open(payload, call)

        return Batches(NUMBERS.schema, rows())

    def _wait(self, where: str) -> None:
        if where == self.where:
            self.asked.set()
            self.go.wait(PATIENCE_S)


def interrupted(backend: Slow, *command: object, answers: bool) -> tuple[int, str, str]:
    """SIGINT comes when the command waits for the server, which ``answers`` after it, or never.

    Returns its exit code, out and err.
    """
    with serving(make_service(backend)) as server:
        running = subprocess.Popen(
            [*map(str, command), f"127.0.0.1:{server.port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert backend.asked.wait(PATIENCE_S), running.communicate(timeout=PATIENCE_S)
            running.send_signal(signal.SIGINT)
            if answers:
                threading.Timer(0.5, backend.go.set).start()
            out, err = running.communicate(timeout=PATIENCE_S)
        finally:
            backend.go.set()
            running.kill()
            running.wait()
    return running.returncode, out, err


@pytest.mark.parametrize("where", ["plan", "rows"])
def test_ctrl_c_ends_a_script_while_it_waits(where: str) -> None:
    """The statements after it are not run: the server is not asked for ``select 2``."""
    script = "select n from numbers; select 2"
    command = (K2, "sql", script, "--format", "csv", "--server")
    code, out, err = interrupted(Slow(where), *command, answers=False)
    assert (code, err) == (ExitCode.INTERRUPTED, "")
    assert "4" not in out


def test_ctrl_c_at_the_prompt_cancels_the_statement_alone(tmp_path: Path) -> None:
    """On a terminal: the next statement is answered on the same connection."""
    slow = Slow("rows")
    ours, its = pty.openpty()
    with serving(make_service(slow)) as server:
        running = subprocess.Popen(
            [K2, "sql", "--server", f"127.0.0.1:{server.port}"],
            env={**os.environ, "TERM": "dumb", "XDG_STATE_HOME": str(tmp_path)},
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        try:
            type_after(ours, "k2> ", "select n from numbers;\r")
            assert slow.asked.wait(PATIENCE_S)
            running.send_signal(signal.SIGINT)
            slow.where = "nowhere"
            type_after(ours, "cancelled", "select n from numbers;\r")
            type_after(ours, "5 rows in", "\\q\r")
            assert running.wait(PATIENCE_S) == ExitCode.OK
        finally:
            slow.go.set()
            running.kill()
            running.wait()
            os.close(ours)


def type_after(terminal: int, shown: str, keys: str) -> None:
    """Types ``keys`` when the terminal has ``shown`` something."""
    seen, end = "", time.monotonic() + PATIENCE_S
    while shown not in seen:
        left = end - time.monotonic()
        assert left > 0, seen
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 65_536).decode()
    os.write(terminal, keys.encode())


WATCHED = """
import sys
from flight_server.lean import without_data_frames
from flight_server.lifeline import stop_on_signals
stop = stop_on_signals()
without_data_frames()
from flight_server.sqlclient import Address, Client
with Client(Address.parse(sys.argv[1])) as client, client.query("select n from numbers") as rows:
    print(sum(batch.num_rows for batch in rows.batches), stop.is_set())
"""


@pytest.mark.parametrize("where", ["plan", "rows"])
def test_a_handler_hears_ctrl_c_while_a_statement_waits(where: str) -> None:
    """`k2 demo` counts rows when it comes: the statement ends, and the demo knows."""
    command = (sys.executable, "-c", WATCHED)
    assert interrupted(Slow(where), *command, answers=True) == (0, "5 True\n", "")


def test_a_server_that_does_not_answer_a_close_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        """A driver's handle whose server was stopped."""

        _closed = False

        def close(self) -> None:
            never.wait(PATIENCE_S)

    never = threading.Event()
    monkeypatch.setattr(sqlclient, "_END_S", 0.05)
    handle: Any = Stuck()
    sqlclient._let_go(handle)
    assert handle._closed
    never.set()


def test_names_for_completion_come_from_the_server(client: Client) -> None:
    assert {"demo", "numbers", "demo.numbers", "n"} <= set(client.names())


def test_completion_offers_names_and_keywords(client: Client) -> None:
    completer = NameCompleter(client)
    completer.refresh()

    def offered(text: str) -> list[str]:
        return [c.text for c in completer.get_completions(Document(text), CompleteEvent())]

    assert offered("select n from demo.nu") == ["demo.numbers"]
    assert offered("sel") == ["select"]
    assert offered("select ") == []


def test_statements_are_split_outside_quotes_and_comments() -> None:
    script = "select ';' as \"a;b\"; -- no; really\nselect 2; /* ; */ ;"
    assert split_statements(script) == ["select ';' as \"a;b\"", "-- no; really\nselect 2"]
    assert split_statements("  -- nothing\n ; ") == []
    assert split_statements("select a-b, a/b") == ["select a-b, a/b"]


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("select 1;", True),
        ("select 1; -- done", True),
        ("select 1", False),
        ("select ';", False),
        ("select 1 -- ;", False),
        ("", False),
    ],
)
def test_a_statement_is_complete_at_its_semicolon(text: str, *, complete: bool) -> None:
    assert is_complete(text) == complete


def test_parameters_are_json_where_they_are_json() -> None:
    texts = ["42", "1.5", "true", "null", '"42"', "KAR", "[1]", "2026-01-01"]
    expected = [42, 1.5, True, None, "42", "KAR", "[1]", "2026-01-01"]
    assert [parse_parameter(text) for text in texts] == expected


def test_the_prompt_runs_statements_and_goes_on_after_an_error(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    said: list[str] = []
    out = io.BytesIO()
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text("select 2;\r\\f csv\rselect n from numbers\r;\r\\q\r")
        Shell(client, Output(out, "table", said.append)).run()
    assert out.getvalue().decode().split() == ['"n"', "0", "1", "2", "3", "4"]
    assert any("error: I only know" in line for line in said)
    assert any(line.startswith("5 rows in ") for line in said)
    assert "select 2;" in history_file().read_text()


_ENGINE = "INTERNAL: [FlightSQL] too large. Detail: Internal (Internal; DoGet: endpoint 0: [])"
_KERNEL = "INVALID_ARGUMENT: [FlightSQL] no FROM. Detail: Python exception:  (InvalidArgument; Get)"


@pytest.mark.parametrize(
    ("said", "shown"),
    [(_ENGINE, "too large"), (_KERNEL, "no FROM"), ("of Detail: all", "of Detail: all")],
)
def test_what_the_driver_adds_is_not_shown(said: str, shown: str) -> None:
    assert str(_explained(Exception(said), Address.parse("127.0.0.1:1"))) == shown
