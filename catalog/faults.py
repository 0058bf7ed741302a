"""Named places where a test may end, hold up or fail the process: the seam of the fault tests.

``reach("commit.landed")`` does nothing in production. With ``K2_KILL_POINT=name:n`` in the
environment, the n-th time that ``name`` is reached the process dies by SIGKILL, as from outside.
``K2_FAULTS=name:n:delay:0.2,name:n:error`` makes every n-th time slow, or fail like a catalog.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping

from catalog.errors import LakeUnavailable

#: Every place, in the order in which a good record meets them.
KILL_POINTS = (
    "decode.before",
    "decode.after",
    "segment.written",
    "publish.before",
    "publish.renamed",
    "merge.written",
    "merge.published",
    "flush.files_written",
    "commit.before_send",
    "commit.landed",
    "commit.before_publish",
    "trim.before",
    "trim.half",
)
#: The places around a call to the catalog or the store, where a call may fail.
ERROR_POINTS = (
    "flush.files_written",
    "commit.before_send",
    "commit.landed",
    "commit.before_publish",
)

log = logging.getLogger(__name__)

#: Places that only records meet which cannot be decoded.
POISON_POINTS = ("letters.committed", "replay.rows_committed", "replay.letters_taken_off")


class _Place:
    """What happens at one place, and every how many times; any thread may reach it."""

    def __init__(self, name: str, times: str, act: Callable[[], None]) -> None:
        if name not in (*KILL_POINTS, *POISON_POINTS):
            raise ValueError(f"K2_KILL_POINT or K2_FAULTS names no kill point: {name!r}")
        self.name = name
        self._times = int(times)
        self._act = act
        self._reached = 0
        self._lock = threading.Lock()

    def reach(self) -> None:
        with self._lock:
            self._reached += 1
            due = self._reached % self._times == 0
        if due:
            self._act()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fault(name: str, kind: str, seconds: str) -> Callable[[], None]:
    def delay() -> None:
        log.warning("fault_injected point=%s kind=delay", name)
        time.sleep(float(seconds))

    def fail() -> None:
        log.warning("fault_injected point=%s kind=error", name)
        raise LakeUnavailable(f"a fault was injected at {name} (K2_FAULTS)")

    if kind == "error" and name not in ERROR_POINTS:
        raise ValueError(f"K2_FAULTS: no call can fail at {name!r}")
    return {"delay": delay, "error": fail}[kind]


def _places(environ: Mapping[str, str]) -> list[_Place]:
    places = []
    if setting := environ.get("K2_KILL_POINT"):
        name, _, count = setting.partition(":")
        places.append(_Place(name, count or "1", _kill))
    for setting in filter(None, environ.get("K2_FAULTS", "").split(",")):
        name, count, kind, *seconds = setting.split(":")
        places.append(_Place(name, count, _fault(name, kind, *(seconds or ["0"]))))
    return places


_armed = _places(os.environ)


def reach(name: str) -> None:
    """Says that the process stands at the place ``name``.

    Raises:
        LakeUnavailable: a test wanted it so.
    """
    for place in _armed:
        if place.name == name:
            place.reach()
