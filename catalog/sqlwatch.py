"""Time limits for a SQL catalog's database, whose drivers have none.

A server that is stopped, or a network that swallows packets, keeps a driver waiting for ever in
C code. So whoever uses a connection for too long finds its socket shut down: the driver then
raises what it raises for every lost connection, on the thread that waits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Engine, event

#: Seconds for one use of a connection: a statement or two and their commit.
USE_S = 20.0


@dataclass(frozen=True, slots=True)
class _Use:
    """One use of a connection: its end, and the socket that is shut down then."""

    timer: threading.Timer
    line: socket.socket


class _Entry(Protocol):
    """SQLAlchemy's record of one pooled connection."""

    info: dict[object, _Use]


class _Driven(Protocol):
    """A driver's connection that lives on a socket."""

    def fileno(self) -> int:
        """The socket's file descriptor."""
        ...


def limit_uses(engine: Engine) -> None:
    """Gives every use of a connection :data:`USE_S` seconds, from check-out to check-in.

    A connection without a socket (SQLite) is left alone: its driver has a limit of its own.
    """

    def begin(connection: _Driven, entry: _Entry, *_: object) -> None:
        end(connection, entry)
        with contextlib.suppress(AttributeError, OSError):
            # A duplicate: the number may belong to another file by the time the limit is up.
            line = socket.socket(fileno=os.dup(connection.fileno()))
            timer = threading.Timer(USE_S, _shut_down, (line,))
            timer.daemon = True
            entry.info[limit_uses] = _Use(timer, line)
            timer.start()

    def end(_: object, entry: _Entry) -> None:
        if (use := entry.info.pop(limit_uses, None)) is not None:
            use.timer.cancel()
            use.line.close()

    event.listen(engine, "connect", begin, insert=True)  # before the dialect's own questions
    event.listen(engine, "checkout", begin)
    event.listen(engine, "checkin", end)
    event.listen(engine, "close", end)


def _shut_down(line: socket.socket) -> None:
    with contextlib.suppress(OSError), line:  # closed, or lost already
        line.shutdown(socket.SHUT_RDWR)
