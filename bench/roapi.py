"""ROAPI, a Flight SQL server in Rust over the same engine: what stands beside our own latency."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import peers

#: Comes with requirements-tools.lock (``make bench`` installs it).
BINARY = Path(sys.executable).with_name("roapi")


@contextlib.contextmanager
def roapi(folder: Path) -> Iterator[str]:
    """A server over one small table; gives the URI of its Flight SQL endpoint.

    Raises:
        PeerUnavailable: it is not there.
    """
    small = folder.with_suffix(".csv")
    small.write_text("a,b\n1,2\n")
    with peers.roapi(folder, {"small": small}) as uri:
        yield uri
