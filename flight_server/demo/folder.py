"""The demo's folder: one demo at a time, a new run each time, everything else kept.

demo-data/
lock            held while a demo runs
run             number of the newest run
k2.toml         configuration of the newest run
catalog.db      SQLite catalog with the tables of all runs
warehouse/      their data files
schemas/        the registry
live/RUN/       live segments of the newest run
spill/
logs/           what the processes of the newest run said
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flight_server.demo.feed import publish_schemas
from flight_server.demo.schemas import Kind
from flight_server.layers import ConfigRefused

KINDS: tuple[Kind, ...] = ("trades", "quotes")
#: How many ports after the wished one are tried.
_PORTS = 100
#: How long the embedded broker lets a fetch wait, in milliseconds: the demo's least freshness,
#: against the CPU of empty answers (librdkafka's default is 500).
_FETCH_WAIT_MS = 5
#: A flush this often, in seconds and rows: the embedded broker forgets the records of a topic
#: beyond about 400,000, and a killed ingest must find all those that are not in Iceberg yet.
_FLUSH_AGE_S = 5
_FLUSH_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run in a folder. Topics and tables carry its number: the broker is a new one."""

    folder: Path
    number: int

    def topics(self) -> Mapping[Kind, str]:
        """Kind → topic."""
        return {kind: f"market.equities.{kind}.demo{self.number}" for kind in KINDS}

    def table(self, kind: Kind) -> str:
        """The table's name in SQL, with its namespace."""
        return f"market_data.{kind}_{self.number}"

    def part(self, kind: Kind, suffix: str) -> str:
        """A derived table in SQL: ``runs``, ``live``, ``snapshots``."""
        return f'market_data."{kind}_{self.number}${suffix}"'

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "k2.toml"

    def log(self, process: str) -> Path:
        """Where a process of this run writes its log."""
        return self.folder / "logs" / f"{process}.log"


@contextlib.contextmanager
def owned(folder: Path, *, clean: bool) -> Iterator[Run]:
    """A new run in ``folder``, which is made; nobody else runs a demo there meanwhile.

    Raises:
        ConfigRefused: another demo does, or the folder cannot be made or written to.
    """
    folder = folder.absolute()
    with _lock_file(folder) as lock:
        if not _locked(lock):
            raise ConfigRefused(
                f"another demo runs in {folder}: end it, or name another folder with --folder"
            )
        if clean:
            _empty(folder)
        yield _next_run(folder)


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / "lock").open("a")
    except OSError as error:
        raise ConfigRefused(
            f"the demo cannot write to {folder} ({error.strerror}): name another folder with "
            "--folder"
        ) from error


def _empty(folder: Path) -> None:
    """Removes what demos make, and nothing else: the folder may have been named by mistake."""
    for name in ("run", "k2.toml", "catalog.db"):
        (folder / name).unlink(missing_ok=True)
    for name in ("warehouse", "schemas", "live", "spill", "logs"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def _next_run(folder: Path) -> Run:
    counter = folder / "run"
    number = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(number))
    # The live folder is a cache of a broker that is gone. Its last ingest may still be dying.
    shutil.rmtree(folder / "live", ignore_errors=True)
    (folder / "logs").mkdir(exist_ok=True)
    return Run(folder, number)


@contextlib.contextmanager
def free_port(wished: int, host: str = "127.0.0.1") -> Iterator[int]:
    """``wished``, or the next port after it that is free; no other demo takes it meanwhile.

    The server listens seconds after it was chosen, so demos that start together agree by a lock on
    a file in the system's temporary folder.

    Raises:
        ConfigRefused: none of a hundred is free.
    """
    for port in range(wished, min(wished + _PORTS, 65536)):
        with (Path(tempfile.gettempdir()) / f"k2-demo-port-{port}").open("a") as lock:
            if _locked(lock) and _can_listen(host, port):
                yield port
                return
    raise ConfigRefused(f"no free port at {wished} or after it: choose one with --port")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _can_listen(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def configure(run: Run, bootstrap: str, port: int) -> Mapping[Kind, int]:
    """Writes schemas and configuration; returns the schemas' ids."""
    tables = "".join(
        f"""
[[table]]
name = "{run.table(kind)}"
topics = ["{topic}"]
sort = ["symbol", "timestamp"]
partition = ["day(timestamp)"]
flush_rows = {_FLUSH_ROWS}
flush_age_s = {_FLUSH_AGE_S}
"""
        for kind, topic in run.topics().items()
    )
    run.config.write_text(
        f"""\
# Written by k2 demo, run {run.number}.
[server]
port = {port}
[kafka]
bootstrap.servers = "{bootstrap}"
# The mock cluster answers a fetch when this wait is over, not when records are there.
fetch.wait.max.ms = {_FETCH_WAIT_MS}
[registry]
url = "file:./schemas"
[catalog]
name = "lake"
type = "sql"
uri = "sqlite:///catalog.db"
warehouse = "./warehouse"
[live]
folder = "live/{run.number}"
[limits]
spill_folder = "spill"
{tables}"""
    )
    return publish_schemas(f"file:{run.folder / 'schemas'}", run.topics())
