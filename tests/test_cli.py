"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from support_flight import Numbers, make_service, serving
from support_house import write_config

from flight_server.demo.broker import EmbeddedBroker
from flight_server.exits import MEANINGS, ExitCode
from flight_server.versions import PINNED, WrongVersions, check_versions, wrong_versions

ROOT = Path(__file__).parent.parent
K2 = Path(sys.executable).with_name("k2")
#: Longest wait for a command that must end.
PATIENCE_S = 120.0
SELECT = "select n from numbers"


def k2(*arguments: str, folder: Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the real command in ``folder``, without settings of the one who tests."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("K2_")}
    return subprocess.run(
        [K2, *arguments],
        cwd=folder,
        env={**environ, "COLUMNS": "200", "TERM": "dumb"},
        input=given,
        stdin=None if given is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(make_service(Numbers())) as server:
        yield f"127.0.0.1:{server.port}"


def test_version_names_every_pinned_library(tmp_path: Path) -> None:
    done = k2("version", "--json", folder=tmp_path)
    assert done.returncode == ExitCode.OK
    assert len(done.stdout.splitlines()) == 1
    assert {name: json.loads(done.stdout)[name] for name in PINNED} == dict(PINNED)
    assert "pyarrow 26" in k2("version", folder=tmp_path).stdout


def test_the_pins_are_those_of_the_project_file() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    exact = dict(each.split("==") for each in wanted if "==" in each)
    assert {name.partition("[")[0]: number for name, number in exact.items()} == dict(PINNED)


def test_other_versions_are_refused_with_found_wanted_and_remedy() -> None:
    check_versions()
    found = {**PINNED, "datafusion": "54.0.0", "pyarrow": None}
    pyarrow, datafusion = wrong_versions(found)
    assert datafusion == (
        "datafusion 54.0.0 is installed, but 55.0.0 is needed: pip install 'datafusion==55.0.0'"
    )
    assert pyarrow.startswith("pyarrow is not installed, but 26.0.1 is needed")
    assert issubclass(WrongVersions, ValueError)


def test_config_prints_the_effective_values_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "k2.toml").write_text("[kafka]\n'sasl.password' = 'hush'\n[server]\nport = 1234")
    done = k2("config", folder=tmp_path)
    assert done.returncode == ExitCode.OK
    assert tomllib.loads(done.stdout)["server"]["port"] == 1234
    assert "hush" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["config", "serve", "ingest"])
def test_a_wrong_configuration_ends_a_command_at_once(tmp_path: Path, command: str) -> None:
    (tmp_path / "k2.toml").write_text("[server]\nprot = 1")
    done = k2(command, folder=tmp_path)
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr.strip().splitlines()[-1] == (
        "k2: server.prot: unknown key; did you mean 'port'?"
    )
    assert "Traceback" not in done.stderr


COMMANDS = (
    "demo",
    "serve",
    "ingest",
    "config",
    "version",
    "sql",
    "feed",
    "doctor",
    "verify",
    "repair",
    "hash",
)


def test_help_lists_commands_and_exit_codes(tmp_path: Path) -> None:
    shown = k2("--help", folder=tmp_path).stdout
    for command in COMMANDS:
        assert f" {command} " in shown
    for code, meaning in MEANINGS.items():
        assert f"{int(code)}: {meaning}" in shown


def test_the_documentation_lists_every_command_and_exit_code() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for code, meaning in MEANINGS.items():
        assert f"| {int(code)} | {meaning} |" in text
    for command in COMMANDS:
        assert f"## `k2 {command}`" in text


def test_sql_writes_rows_to_stdout_and_the_rest_to_stderr(address: str, tmp_path: Path) -> None:
    done = k2("sql", "--server", address, SELECT, folder=tmp_path)
    assert done.returncode == ExitCode.OK
    assert done.stdout.split() == ['"n"', "0", "1", "2", "3", "4"]
    assert done.stderr.startswith("5 rows in ")


def test_sql_reads_several_statements_from_stdin(address: str, tmp_path: Path) -> None:
    script = f"{SELECT};\n{SELECT}; -- two of them"
    done = k2("sql", "-s", address, "--format", "json", folder=tmp_path, given=script)
    assert done.returncode == ExitCode.OK
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [*range(5), *range(5)]
    assert done.stderr.count("5 rows in ") == 2


def test_sql_writes_a_file(address: str, tmp_path: Path) -> None:
    done = k2("sql", "-s", address, "-f", "parquet", "-o", "n.parquet", SELECT, folder=tmp_path)
    assert done.returncode == ExitCode.OK
    assert done.stdout == ""
    assert pyarrow.parquet.read_table(tmp_path / "n.parquet")["n"].to_pylist() == [0, 1, 2, 3, 4]


def test_sql_names_a_file_that_cannot_be_written(address: str, tmp_path: Path) -> None:
    done = k2("sql", "-s", address, "-o", "no/where.csv", SELECT, folder=tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert (
        done.stderr
        == "k2: no/where.csv cannot be written (No such file or directory): see --output\n"
    )


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet", "arrow"])
def test_a_reader_that_has_enough_is_no_failure(address: str, tmp_path: Path, form: str) -> None:
    """As in `k2 sql … | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [K2, "sql", "-s", address, "-f", form, SELECT],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == ExitCode.OK


def test_sql_fails_with_the_servers_words(address: str, tmp_path: Path) -> None:
    done = k2("sql", "-s", address, "select 2", folder=tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.startswith("k2: I only know 'select n from numbers'")


def test_sql_says_that_nobody_answers(tmp_path: Path) -> None:
    done = k2("sql", "-s", "127.0.0.1:1", "select 1", folder=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "no Flight SQL server answers" in done.stderr
    nowhere = k2("sql", "-s", "nowhere.invalid:1", "select 1", folder=tmp_path)
    assert nowhere.returncode == ExitCode.UNAVAILABLE


def test_wrong_arguments_have_their_own_exit_code(tmp_path: Path) -> None:
    assert k2("sql", "--format", "xml", "select 1", folder=tmp_path).returncode == ExitCode.USAGE
    assert k2("demo", "--for", "soon", folder=tmp_path).returncode == ExitCode.USAGE


def test_feed_reports_one_json_object(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        done = k2(
            *("feed", "--bootstrap", broker.bootstrap, "--rate", "0", "--count", "5000", "--json"),
            folder=tmp_path,
        )
    assert done.returncode == ExitCode.OK, done.stderr
    report = json.loads(done.stdout)
    assert sum(sum(parts.values()) for parts in report["delivered"].values()) == 5000
    assert (tmp_path / "schemas" / "subjects.json").exists()


def test_feed_ends_in_order_at_ctrl_c(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        feed = subprocess.Popen(
            [K2, "feed", "--bootstrap", broker.bootstrap, "--rate", "1000", "--json"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
        )
        try:
            while not (tmp_path / "schemas" / "subjects.json").exists():
                assert feed.poll() is None
            feed.send_signal(signal.SIGINT)
            out, _ = feed.communicate(timeout=PATIENCE_S)
        finally:
            feed.kill()
            feed.wait()
    assert feed.returncode == ExitCode.OK
    assert json.loads(out)["done"] is True


def test_feed_names_a_broker_that_does_not_answer(tmp_path: Path) -> None:
    done = k2("feed", "--bootstrap", "127.0.0.1:1", "--count", "1", folder=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "no Kafka broker answered at 127.0.0.1:1" in done.stderr


def test_serve_refuses_a_taken_port_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "k2.toml").write_text(
            f'[server]\nport = {port}\n[catalog]\nuri = "sqlite:///c.db"\nwarehouse = "w"'
        )
        done = k2("serve", folder=tmp_path)
    assert done.returncode == ExitCode.CONFIG, done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
    assert "server.port" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"127.0.0.1:9"', '"127.0.0.1:1"', "127.0.0.1:1"),
        ("[catalog]", '[registry]\nurl = "http://127.0.0.1:1"\n[catalog]', "registry"),
        ('uri = "sqlite:///catalog.db"', 'type = "rest"\nuri = "http://127.0.0.1:1"', "catalog"),
        ('name = "market', 'key = 3\nname = "market', "table.0.key"),
        (
            "[catalog]",
            '[kafka]\nbootstrap.servers = "127.0.0.1:9"\nno.such = 1\n[catalog]',
            "no.such",
        ),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_what_and_where(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    config = write_config(tmp_path, "127.0.0.1:9")
    text = config.read_text()
    if "[kafka]" in new:
        text = text.replace('[kafka]\nbootstrap.servers = "127.0.0.1:9"\n', "")
    assert old in text
    config.write_text(text.replace(old, new, 1))
    done = k2("serve", folder=tmp_path)
    assert done.returncode in {ExitCode.UNAVAILABLE, ExitCode.CONFIG}, done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("k2: ")][:1]
    assert expected in message
    assert "Traceback" not in done.stderr
