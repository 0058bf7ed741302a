"""The processes under test: started, watched and killed from outside, as an operator would."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from support_stack import free_port

from chaos.market import write_registry

#: ``k2`` of the environment that runs this.
K2 = str(Path(sys.executable).with_name("k2"))
#: Longest orderly end, in seconds.
END_S = 30.0


@dataclass(frozen=True)
class Layout:
    """One place where the system runs.

    Attributes:
        folder: holds the configuration, the live folder, the lake and the logs.
        topic: the topic under the table.
        table: ``namespace.table``.
        port: of the Flight server.
        config: the configuration file.
    """

    folder: Path
    topic: str
    table: str
    port: int
    config: Path

    @property
    def uri(self) -> str:
        """Where the server answers."""
        return f"grpc://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Home:
    """Where tables live.

    Attributes:
        catalog: the catalog's properties; None: SQLite in the layout's folder.
        namespace: of the table.
    """

    catalog: Mapping[str, str] | None = None
    namespace: str = "market_data"


SQLITE = Home()


def lay_out(
    folder: Path,
    bootstrap: str,
    topic: str,
    flush_rows: int,
    *,
    flush_age_s: float = 3.0,
    home: Home = SQLITE,
) -> Layout:
    """Writes the configuration and the registry folder."""
    catalog = home.catalog or {
        "type": "sql",
        "uri": "sqlite:///catalog.db",
        "warehouse": f"file://{folder / 'lake'}",
    }
    lines = "".join(f'"{key}" = "{value}"\n' for key, value in catalog.items())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lake").mkdir(exist_ok=True)
    write_registry(folder / "schemas", f"{topic}-value")
    port = free_port()
    config = folder / "k2.toml"
    config.write_text(f"""\
[server]
port = {port}
ticket_key = "chaos-has-nothing-to-hide"

[kafka]
"bootstrap.servers" = "{bootstrap}"

[registry]
url = "file:./schemas"

[catalog]
{lines}
[live]
folder = "live"
grace_s = 2
reload_s = 0.5

[[table]]
name = "{home.namespace}.trades"
topics = ["{topic}"]
sort = ["symbol", "timestamp"]
partition = ["day(timestamp)"]
flush_rows = {flush_rows}
flush_age_s = {flush_age_s}
""")
    return Layout(folder, topic, f"{home.namespace}.trades", port, config)


#: prctl(2): the signal that a process gets when its parent dies. macOS has no such thing.
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """In the new process: a SIGKILL of the test run leaves nothing behind (on Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """One process of the system and those below it."""

    def __init__(
        self,
        layout: Layout,
        arguments: Sequence[str],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("K2_")} | environment
        with (layout.folder / f"{arguments[0]}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [K2, *arguments, "--config", str(layout.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                cwd=layout.folder,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one prepared system call, no lock
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def child(self, role: str) -> int | None:
        """The pid of a child, ``server`` or ``ingest``; None where there is none now."""
        for pid, parent, command in processes():
            if parent == self.pid and f"flight_server.child {role}" in command:
                return pid
        return None

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code; None where it still runs after ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> int:
        """SIGTERM and its exit code; SIGKILL (and so -9) where that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        if self.wait(END_S) is None:
            self.kill()
        return self._process.returncode


def processes() -> list[tuple[int, int, str]]:
    """(pid, parent, command) of every process, on Linux and macOS."""
    listing = subprocess.run(
        ["ps", "-axwwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(None, 2) for line in listing.stdout.splitlines())
    return [(int(row[0]), int(row[1]), row[2]) for row in rows if len(row) == 3]


def pid_of(layout: Layout, role: str) -> int | None:
    """A process of this layout that plays ``role``, server or ingest, however it was started."""
    for pid, _, command in processes():
        if str(layout.config) in command and (
            f"flight_server.child {role}" in command or f"k2 {role} " in command
        ):
            return pid
    return None


def published_s(layout: Layout) -> float:
    """When the ingest published last, in seconds since the epoch; 0.0: never."""
    found = (layout.folder / "live").rglob("manifest*")
    return max((stat.st_mtime for path in found if (stat := _stat(path))), default=0.0)


def _stat(path: Path) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat()
    return None


def survivors(layout: Layout) -> list[int]:
    """Processes of this layout that run now, whoever their parent is."""
    return [pid for pid, _, command in processes() if str(layout.config) in command]


def wait_until_gone(layout: Layout, timeout_s: float) -> list[int]:
    """The processes of this layout that are still there after ``timeout_s`` seconds."""
    limit = time.monotonic() + timeout_s
    while (left := survivors(layout)) and time.monotonic() < limit:
        time.sleep(0.1)
    return left


def kill_pid(pid: int) -> bool:
    """SIGKILL; False where the process was gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
