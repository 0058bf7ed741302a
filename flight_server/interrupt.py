"""Ending a call into the engine from another thread.

DataFusion has no cancel handle. A call that waits for its next batch looks for a pending Python
exception about once a second; dropping the stream then stops its work. So the one way to end it
is an asynchronous exception in the thread that waits, and this module keeps that exception inside
the call: it never reaches code that did not ask for it.
"""

from __future__ import annotations

import copy
import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: How late a deadline may be noticed; the engine itself takes up to a second more.
_LOOK_S = 0.25


class _Interrupt(BaseException):
    """Sent into the waiting thread; never leaves :meth:`Interruptible.run`."""


class Interruptible:
    """The calls of one statement. One thread at a time runs them; any thread interrupts.

    Invariant (under ``_lock``): the exception is sent at most once, and only while ``_thread``
    stands inside :meth:`run`; whoever leaves takes back what has not arrived.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._error: Exception | None = None

    def run(self, call: Callable[[], T]) -> T:
        """The result of ``call()``.

        Raises:
            Exception: what :meth:`interrupt` was given, now or before.
        """
        try:
            try:
                self._enter()
                return call()
            finally:
                self._leave()
        except _Interrupt:
            self._leave()
            raise self._raised() from None

    def interrupt(self, error: Exception) -> bool:
        """Ends the running call, and every later one, with ``error``; the first one counts.

        Returns:
            Whether no call was running, so that nobody notices before the next one.
        """
        with self._lock:
            if self._error is not None:
                return False
            self._error = error
            if self._thread is not None:
                _send(self._thread, _Interrupt)
            return self._thread is None

    def check(self) -> None:
        """Raises what :meth:`interrupt` was given, if it was."""
        if self._error is not None:
            raise self._raised()

    @property
    def error(self) -> Exception | None:
        """What the calls were interrupted with."""
        return self._error

    def _raised(self) -> Exception:
        """A copy: what is raised holds frames, and they hold this object and the engine's stream.

        Kept here, it would be a cycle, and the engine would work on until Python's next garbage
        collection.
        """
        assert self._error is not None  # noqa: S101  # it is set before the exception is sent
        return copy.copy(self._error)

    def _enter(self) -> None:
        with self._lock:
            if self._error is not None:
                raise self._raised()
            self._thread = threading.get_ident()

    def _leave(self) -> None:
        with self._lock:
            if self._thread is not None and self._error is not None:
                # Today's CPython has delivered it by now, inside this very method; nothing in
                # its documentation says that it must.
                _send(self._thread, None)
            self._thread = None


def _send(thread: int, kind: type[BaseException] | None) -> None:
    """Sets, or with None takes back, the exception that ``thread`` will meet."""
    exception = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


#: When it ends, what ends it, what looks at it until then.
_Watched = tuple[float, Callable[[], object], Callable[[], object] | None]


class Watchdog:
    """Interrupts statements that run past their deadline. One thread, started at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[Interruptible, _Watched] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(
        self,
        target: Interruptible,
        at_s: float,
        end: Callable[[], object],
        look: Callable[[], object] | None = None,
    ) -> None:
        """At ``at_s`` (monotonic clock), ``end()`` is called, once, to interrupt ``target``.

        Until then, ``look()`` is called every quarter of a second; it must not wait.
        """
        with self._lock:
            self._watched[target] = (at_s, end, look)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="k2-deadlines", daemon=True)
                self._thread.start()

    def forget(self, target: Interruptible) -> None:
        """The statement has ended."""
        with self._lock:
            self._watched.pop(target, None)

    def close(self) -> None:
        """Ends the thread; idempotent."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_S):
            now_s = time.monotonic()
            with self._lock:
                due = [(t, end) for t, (at_s, end, _) in self._watched.items() if at_s <= now_s]
                for target, _ in due:
                    del self._watched[target]
                looks = [look for _, _, look in self._watched.values() if look is not None]
            for _, end in due:
                end()
            for look in looks:
                look()
