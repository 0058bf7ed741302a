"""ROAPI, a Flight SQL server in Rust over the same engine: what stands beside our own latency."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support_stack import free_port

#: Comes with requirements-tools.lock (``make bench`` installs it).
BINARY = Path(sys.executable).with_name("roapi")
_START_S = 30.0


@contextlib.contextmanager
def roapi(folder: Path) -> Iterator[str]:
    """A server over one small table; gives the URI of its Flight SQL endpoint.

    It logs every call at its default level, which costs it a third: it is told to be quiet.

    Raises:
        TimeoutError: it does not listen in time.
    """
    folder.mkdir()
    (folder / "small.csv").write_text("a,b\n1,2\n")
    port = free_port()
    command = [str(BINARY), "--table", f"small={folder / 'small.csv'}"]
    for name, at in (("flight-sql", port), ("http", free_port()), ("postgres", free_port())):
        command += [f"--addr-{name}", f"127.0.0.1:{at}"]
    with (folder / "roapi.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "RUST_LOG": "error"}
        )
    try:
        _wait_for(port)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    limit = time.monotonic() + _START_S
    while time.monotonic() < limit:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError("ROAPI does not listen")
