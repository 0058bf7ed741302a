"""Sail, a Flight SQL server in Rust over the same engine, which speaks Spark's SQL."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import peers

#: Comes with requirements-tools.lock (``make bench`` installs it).
BINARY = Path(sys.executable).with_name("sail")


@contextlib.contextmanager
def sail(folder: Path) -> Iterator[str]:
    """A server without tables; gives the URI of its Flight SQL endpoint.

    Raises:
        PeerUnavailable: it is not there.
    """
    with peers.sail(folder, {}) as uri:
        yield uri
