"""Named places where a test may end the process: the seam of the fault tests.

``reach("commit.sent")`` does nothing in production. With ``K2_KILL_POINT=name:n`` in the
environment, the n-th time that ``name`` is reached the process dies by SIGKILL, as from outside.
"""

from __future__ import annotations

import os
import signal
import threading

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

#: Places that only records meet which cannot be decoded.
POISON_POINTS = ("letters.committed", "replay.rows_committed", "replay.letters_taken_off")


class _Countdown:
    """Counts one kill point down; any thread may reach it."""

    def __init__(self, setting: str) -> None:
        name, _, count = setting.partition(":")
        if name not in (*KILL_POINTS, *POISON_POINTS):
            raise ValueError(f"K2_KILL_POINT names no kill point: {name!r}")
        self.name = name
        self._left = int(count or "1")
        self._lock = threading.Lock()

    def reach(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_countdown = _Countdown(os.environ["K2_KILL_POINT"]) if os.environ.get("K2_KILL_POINT") else None


def reach(name: str) -> None:
    """Says that the process stands at the place ``name``."""
    if _countdown is not None and _countdown.name == name:
        _countdown.reach()
