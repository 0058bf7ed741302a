"""`k2 serve`: two children, restarted independently, with one fate.

The supervisor holds neither engine nor Kafka client nor configuration: what can crash is in its
children. A child that was ready and ends is started again, after a delay that doubles up to
``max_delay_s`` and starts anew after a stable run. A child that ends with one of
``HOPELESS`` before it was ever ready ends the whole: the start has failed, its message says why.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flight_server.exits import ExitCode
from flight_server.lifeline import Child, say_ready

log = logging.getLogger("k2.supervisor")

#: Ends of a start that a restart would only repeat.
HOPELESS = frozenset({ExitCode.CONFIG, ExitCode.UNAVAILABLE, ExitCode.USAGE, ExitCode.INTERNAL})


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start.

    Attributes:
        environ: laid over the supervisor's own.
        standby: keep a second process that has loaded its modules and waits for the first one's
            end. Imports are most of a restart: 2 s of a busy processor.
    """

    name: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    standby: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between an end and the next start, in seconds.

    Attributes:
        first_s: a killed server must answer again within 2 s, imports included.
        stable_s: a run this long starts the delays anew.
    """

    first_s: float = 0.05
    max_delay_s: float = 10.0
    stable_s: float = 10.0

    def next_delay(self, delay_s: float, ran_s: float) -> float:
        """The delay after a run of ``ran_s`` seconds that ``delay_s`` had preceded (0: none)."""
        if delay_s == 0 or ran_s >= self.stable_s:
            return self.first_s
        return min(delay_s * 2, self.max_delay_s)


class Keeper:
    """Keeps one child alive, on a thread of its own, until ``stop``.

    Invariant (docs/architecture.md rule 11): a child begins only after the one before it has been
    reaped, so there are never two at work; a standby does not work.
    """

    def __init__(
        self,
        spec: ChildSpec,
        stop: threading.Event,
        on_ready: Callable[[], None],
        *,
        backoff: Backoff,
        grace_s: float,
    ) -> None:
        self.spec = spec
        self.starts = 0
        #: The exit code with which the start failed for good.
        self.failure: int | None = None
        self._stop = stop
        self._announce = on_ready
        self._backoff = backoff
        self._grace_s = grace_s
        self._child: Child | None = None
        self._standby: Child | None = None
        self.ready = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"k2-keep-{spec.name}")

    @property
    def pid(self) -> int | None:
        """The process id of the child that runs now."""
        child = self._child
        return None if child is None else child.pid

    def start(self) -> None:
        """Starts the child and watches it."""
        self._thread.start()

    def end(self) -> None:
        """Ends the child in order; the thread is over when this returns. ``stop`` must be set."""
        with self._lock:
            child, standby = self._child, self._standby
        if standby is not None:
            standby.end(0)
        if child is not None:
            child.end(self._grace_s)
        self._thread.join()

    def _run(self) -> None:
        delay_s = 0.0
        while not self._stop.wait(delay_s):
            began = time.monotonic()
            code = self._run_once()
            if code is None:
                return
            ran_s = time.monotonic() - began
            delay_s = self._backoff.next_delay(delay_s, ran_s)
            if self._stop.is_set():
                return
            if not self.ready.is_set() and code in HOPELESS:
                self.failure = code
                self._stop.set()
                return
            log.warning(
                "child_ended child=%s end=%s ran_s=%.1f restart_in_s=%.2f",
                self.spec.name,
                describe_end(code),
                ran_s,
                delay_s,
            )

    def _run_once(self) -> int | None:
        """Runs the child to its end; None where the stop came first."""
        with self._lock:
            if self._stop.is_set():
                return None
            self._child = child = self._take_standby() or self._new(standby=False)
        self.starts += 1
        log.info("child_started child=%s pid=%d", self.spec.name, child.pid)
        code = child.wait()
        child.end(0)
        return code

    def _new(self, *, standby: bool) -> Child:
        environ = {**os.environ, **self.spec.environ}
        return Child(self.spec.arguments, environ=environ, on_ready=self._on_ready, standby=standby)

    def _take_standby(self) -> Child | None:
        """The standby, at work from now on; None where there is none."""
        standby, self._standby = self._standby, None
        if standby is None or standby.take_turn():
            return standby
        standby.end(0)
        return None

    def _on_ready(self, facts: Mapping[str, object]) -> None:
        with self._lock:
            if self.spec.standby and not self._stop.is_set():
                self._standby = self._new(standby=True)
        self.ready.set()
        self._announce()
        shown = " ".join(f"{key}={value}" for key, value in facts.items())
        log.info("child_ready child=%s %s", self.spec.name, shown)


class Supervisor:
    """Starts the children, waits, ends them all."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        backoff: Backoff | None = None,
        grace_s: float = 10.0,
        stop: threading.Event | None = None,
    ) -> None:
        self._stop = stop or threading.Event()
        self._announcing = threading.Lock()
        self.keepers = tuple(
            Keeper(spec, self._stop, self._announce, backoff=backoff or Backoff(), grace_s=grace_s)
            for spec in children
        )

    def stop(self) -> None:
        """Asks :meth:`run` to end; may be called from a signal handler."""
        self._stop.set()

    def _announce(self) -> None:
        """Tells our own parent, where there is one, when the last child has become ready."""
        with self._announcing:
            if all(keeper.ready.is_set() for keeper in self.keepers):
                say_ready(children=len(self.keepers))

    def run(self) -> int:
        """Runs until :meth:`stop`, or until a start has failed for good; the exit code."""
        for keeper in self.keepers:
            keeper.start()
        self._stop.wait()
        enders = [threading.Thread(target=keeper.end) for keeper in self.keepers]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
        failures = [keeper.failure for keeper in self.keepers if keeper.failure is not None]
        return failures[0] if failures else ExitCode.OK


def describe_end(code: int) -> str:
    """An exit code in words: ``SIGSEGV``, ``exit 70``."""
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def child_specs(
    config: str | None, *, ingest: bool = True, environ: Mapping[str, str] | None = None
) -> tuple[ChildSpec, ...]:
    """The server, and the ingest unless it runs elsewhere."""
    names = ("server", "ingest") if ingest else ("server",)
    flags = (config,) if config else ()
    return tuple(
        ChildSpec(
            name,
            (sys.executable, "-m", "flight_server.child", name, *flags),
            environ or {},
            standby=name == "server",
        )
        for name in names
    )


def serve(children: Sequence[ChildSpec], stop: threading.Event) -> int:
    """`k2 serve`: runs on the main thread until ``stop``; the exit code."""
    return Supervisor(children, stop=stop).run()


def supervise_until(stop: threading.Event, config: str | None = None) -> int:
    """`k2 serve` as a child process."""
    return serve(child_specs(config), stop)
