"""Streams that are being sent: who watches them, and how they are stopped.

A client that goes away only resets its HTTP/2 stream. Nothing tells the thread that is blocked
inside the engine, so one watcher thread asks gRPC for every open stream, and cancels its rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flight_server.protocol.backend import Rows

#: How often gRPC is asked, in seconds: a question costs a microsecond, and only open streams ask.
POLL_S = 0.05
#: Rounds without an open stream after which the watcher sleeps until the next one: a server under
#: load never pays for waking it.
_IDLE_ROUNDS = 20


@dataclass(frozen=True, slots=True, eq=False)
class _Open:
    ticket_id: bytes | None
    gone: Callable[[], bool]
    rows: Rows


class Running:
    """All open streams of one server. Any thread.

    Invariant, kept by the one lock: ``gone`` is asked only while its stream is registered, for
    gRPC's context dies with its RPC.
    """

    def __init__(self) -> None:
        self._open: set[_Open] = set()
        self._changed = threading.Condition()
        self._stopped = False
        self._asleep = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(
        self, rows: Rows, gone: Callable[[], bool], ticket_id: bytes | None
    ) -> Iterator[None]:
        """Cancel ``rows`` when ``gone`` says so, or its ticket is cancelled, inside the block."""
        entry = _Open(ticket_id, gone, rows)
        with self._changed:
            self._open.add(entry)
            self._start()
            if self._asleep:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._open.discard(entry)

    def cancel(self, ticket_id: bytes) -> bool:
        """Cancel the streams of a ticket; False where none is open."""
        with self._changed:
            found = [entry.rows for entry in self._open if entry.ticket_id == ticket_id]
        for rows in found:
            rows.cancel()
        return bool(found)

    def __len__(self) -> int:
        with self._changed:
            return len(self._open)

    def stop(self) -> None:
        """Cancel what is open and end the watcher. Idempotent."""
        with self._changed:
            self._stopped = True
            found = [entry.rows for entry in self._open]
            thread = self._thread
            self._changed.notify()
        for rows in found:
            rows.cancel()
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="flight-watcher", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        idle = 0
        while not self._stopped:
            with self._changed:
                lost = [entry.rows for entry in self._open if entry.gone()]
                idle = 0 if self._open else idle + 1
            for rows in lost:
                rows.cancel()
            with self._changed:
                if not self._stopped:
                    self._asleep = idle > _IDLE_ROUNDS and not self._open
                    self._changed.wait(None if self._asleep else POLL_S)
                    self._asleep = False
