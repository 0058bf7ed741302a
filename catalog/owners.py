"""Who owns a table, in words: for those it fences, and for whoever looks for it."""

from __future__ import annotations

import os
import socket
import time

from catalog.errors import shorten
from catalog.offsets import Marker

#: Longest name of a node, in characters; with process and start it stays below what errors repeat.
MAX_NODE_CHARS = 100


def this_process(node: str | None = None) -> str:
    """``host, process 4711, started 2026-01-31T12:00:00Z``.

    The time is for people who look into logs: nothing compares clocks.

    Args:
        node: what to say instead of the host's name.
    """
    name = (node or socket.gethostname() or "unknown host")[:MAX_NODE_CHARS]
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"{name}, process {os.getpid()}, started {started}"


def named(marker: Marker) -> str:
    """The owner that ``marker`` records: in words where there are any, and its epoch."""
    who = shorten(marker.owner) if marker.owner else f"writer {shorten(marker.writer)}"
    return f"{who} (epoch {marker.epoch})"
