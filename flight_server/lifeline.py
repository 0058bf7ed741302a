"""Children that end when their parent ends, however it ends.

The parent keeps the writing end of a pipe. When the parent is gone, even by SIGKILL, the kernel
closes it, and the child reads the end of the file. This works on every Unix and needs no polling.
A second pipe carries one line back: the child is ready. A child may be started as a *standby*: it
loads its modules and waits until the one byte that is ever written tells it that its turn has come.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

_LIFELINE = "K2_LIFELINE_FD"
_READY = "K2_READY_FD"
_STANDBY = "K2_STANDBY"
#: Seconds between the polite end of an orphan (SIGTERM) and its hard one. An orphaned ingest holds
#: the live folder's lock, so a new supervisor waits this long at most.
ORPHAN_GRACE_S = 3.0
#: Added to the kernel's thousandths of memory used, when it chooses whom to end.
_DIE_FIRST = 500


class Child:
    """A process at our lifeline. ``ready`` is what it said when it was, None before."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        on_ready: Callable[[Mapping[str, object]], None] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        standby: bool = False,
    ) -> None:
        lifeline, self._hold = os.pipe()
        self._news, ready = os.pipe()
        variables = {**(os.environ if environ is None else environ)}
        variables |= {_LIFELINE: str(lifeline), _READY: str(ready)}
        variables |= {_STANDBY: "1"} if standby else {}
        try:
            self.process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
                list(arguments),
                env=variables,
                pass_fds=(lifeline, ready),
                process_group=0,  # Ctrl-C reaches the parent alone: it ends its children in order
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        except OSError:
            os.close(self._hold)
            os.close(self._news)
            raise
        finally:
            os.close(lifeline)
            os.close(ready)
        self.ready: Mapping[str, object] | None = None
        self._on_ready = on_ready
        self._reader = threading.Thread(target=self._read, name="k2-child-ready", daemon=True)
        self._reader.start()
        self._held = True
        self._ending = threading.Lock()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.process.pid

    def take_turn(self) -> bool:
        """Lets a standby begin; False where it has ended."""
        if self.process.poll() is not None:
            return False
        try:
            os.write(self._hold, b"!")
        except BrokenPipeError:
            return False
        return True

    def wait(self) -> int:
        """Its exit code, negative for the signal that ended it."""
        return self.process.wait()

    def wait_ready(self, timeout_s: float) -> Mapping[str, object] | None:
        """What it said when it was ready; None where it ended, or ``timeout_s`` passed, before."""
        self._reader.join(timeout_s)
        return self.ready

    def end(self, grace_s: float) -> int:
        """SIGTERM, then SIGKILL after ``grace_s`` seconds; its exit code. Idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        self._reader.join()
        with self._ending:
            if self._held:
                self._held = False
                os.close(self._hold)
        return code

    def _read(self) -> None:
        with os.fdopen(self._news, "rb") as news:
            line = news.readline()
        if line:
            self.ready = json.loads(line)
            if self._on_ready is not None:
                self._on_ready(self.ready or {})


def watch() -> threading.Event:
    """In a child: ends this process when its parent ends; the event is set when its turn has come.

    To be called before anything else: a child that still loads its modules, many seconds on a busy
    machine, ends with its parent as well. The process first gets a SIGTERM, so that it can end in
    order, and is ended :data:`ORPHAN_GRACE_S` later in any case. The turn of a standby comes with
    its parent's word; any other child's, and that of a process without a lifeline, has come.
    """
    turn = threading.Event()
    if os.environ.pop(_STANDBY, None) is None:
        turn.set()
    number = os.environ.pop(_LIFELINE, None)
    if number is None:
        return turn
    lifeline = int(number)
    for descriptor in (lifeline, int(os.environ.get(_READY, number))):
        os.set_inheritable(descriptor, False)

    def wait_for_the_end() -> None:
        while os.read(lifeline, 1):
            turn.set()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_GRACE_S)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait_for_the_end, name="k2-lifeline", daemon=True).start()
    return turn


def die_first() -> None:
    """Where memory runs out, the kernel ends this process and not another one (Linux).

    No limit knows all that a statement may take. The server has a supervisor that starts it again;
    what else runs on the machine may have nobody.
    """
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):  # not Linux, or a container that forbids it
        score.write_text(str(max(int(score.read_text()), _DIE_FIRST)))


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set; to be called on the main thread.

    A SIGTERM that comes when the work is over and the interpreter ends changes nothing: without our
    handlers, which the interpreter takes away first, it would turn an end in order into a death.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)
    return stop


def say_ready(**facts: object) -> None:
    """In a child: tells the parent, once, that the work has begun."""
    number = os.environ.pop(_READY, None)
    if number is None:
        return
    with os.fdopen(int(number), "wb") as ready:
        ready.write(json.dumps(facts).encode() + b"\n")
