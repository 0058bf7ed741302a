"""`k2 demo`: broker, feed, ingest and server as processes, and SQL over what they do."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from flight_server.demo.feed import FeedSpec
from flight_server.demo.folder import KINDS, Run, configure, free_port, owned
from flight_server.demo.screen import Screen, statements
from flight_server.demo.tally import (
    Audit,
    FeedReports,
    Freshness,
    Split,
    audit,
    count_split,
    newest_row_statement,
)
from flight_server.exits import ExitCode
from flight_server.lifeline import Child
from flight_server.sqlclient import Address, Client, ClientError

T = TypeVar("T")

#: Seconds for a process of the demo to become ready: imports on a slow machine included.
_START_S = 120.0
#: Seconds for the first flush to be seen, and for the last row to become visible.
_VISIBLE_S = 120.0
_POLL_S = 0.1
#: Seconds between two changes of the live line.
_LINE_S = 0.5
_LONGEST_PAUSE_S = 5.0
#: Seconds for a process to end in order.
_END_S = 15.0


class DemoFailed(Exception):
    """A process of the demo ended, or did not begin; names its log."""


@dataclass(frozen=True, slots=True)
class DemoSpec:
    """The command's options. ``for_s`` None runs until Ctrl-C."""

    folder: Path
    clean: bool
    rate: float
    for_s: float | None
    port: int
    seed: int
    as_json: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The last word, and the one line of ``--json``."""

    produced: int
    rows_total: int
    rows_history: int
    rows_live: int
    duplicates: int
    gaps: int
    commits: int
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None

    @property
    def exact(self) -> bool:
        """Every message that was acknowledged is one row."""
        return not self.duplicates and not self.gaps and self.produced == self.rows_total


def run_demo(spec: DemoSpec, stop: threading.Event) -> int:
    """The whole demo until ``stop``; its exit code, FAILED where the counts are not exact.

    Raises:
        ConfigRefused: the folder is in use, or no port is free.
        CatalogError: the broker does not answer.
    """
    screen = Screen(quiet=spec.as_json)
    try:
        with owned(spec.folder, clean=spec.clean) as run, ExitStack() as stack:
            summary = _Demo(spec, run, stack, screen).play(stop)
    except (DemoFailed, ClientError) as error:
        sys.stderr.write(f"k2: {error}\n")
        return ExitCode.FAILED
    if summary is None:
        return ExitCode.INTERRUPTED
    screen.finish(asdict(summary))
    if spec.as_json:
        sys.stdout.write(json.dumps(asdict(summary)) + "\n")
    return ExitCode.OK if summary.exact else ExitCode.FAILED


class _Demo:
    """One run. The stack ends its processes in the reverse order of their start."""

    def __init__(self, spec: DemoSpec, run: Run, stack: ExitStack, screen: Screen) -> None:
        self._spec = spec
        self._run = run
        self._stack = stack
        self._screen = screen
        self._bootstrap = ""
        self._address = Address("")

    def play(self, stop: threading.Event) -> Summary | None:
        """None where it was interrupted before anything could be shown."""
        feed, reports = self._start(stop)
        if reports is None or stop.is_set():
            return None
        client = self._stack.enter_context(Client(self._address))
        self._screen.connect_hints(self._address.uri, self._run.config)
        freshness = Freshness(lambda: Client(self._address), newest_row_statement(self._run))
        freshness.start()
        began = time.monotonic()
        self._await(lambda: count_split(client, self._run).history > 0, stop)
        if not stop.is_set():
            for title, sql in statements(self._run):
                _patiently(lambda title=title, sql=sql: self._screen.query(client, title, sql))  # type: ignore[misc]  # called at once
        self._watch(client, reports, freshness, stop, began)
        freshness.stop()
        feed.end(_END_S)
        produced = self._all_acknowledged(reports)
        self._await(lambda: count_split(client, self._run).rows >= sum(produced.values()), None)
        exact = _patiently(lambda: audit(client, self._run, produced, self._bootstrap))
        return _summarise(exact, produced, freshness)

    def _start(self, stop: threading.Event) -> tuple[Child, FeedReports | None]:
        """Broker, feed, and when the feed's topics are there, ingest and server."""
        broker = self._spawn("broker")
        self._bootstrap = str(self._ready("broker", broker)["bootstrap"])
        port = self._stack.enter_context(free_port(self._spec.port))
        schema_ids = configure(self._run, self._bootstrap, port)
        self._address = Address(f"grpc://127.0.0.1:{port}")
        spec = FeedSpec(
            properties={"bootstrap.servers": self._bootstrap},
            topics=dict(self._run.topics()),
            schema_ids=dict(schema_ids),
            rate=self._spec.rate,
            seed=self._spec.seed,
            start_us=int(time.time() * 1e6),
            run=f"d{self._run.number}",
        )
        feed = self._spawn("feed", json.dumps(asdict(spec)), pipe=True)
        self._ready("feed", feed)
        if feed.process.stdout is None:
            raise DemoFailed("the feed has no output")
        reports = FeedReports(feed.process.stdout)
        self._await(lambda: len({t for t, _ in reports.delivered()}) == len(KINDS), stop, feed)
        house = self._spawn("serve", str(self._run.config))
        self._ready("serve", house, stop)
        return feed, reports

    def _watch(
        self,
        client: Client,
        reports: FeedReports,
        freshness: Freshness,
        stop: threading.Event,
        began: float,
    ) -> None:
        """Keeps the live line until the time is over or somebody stops it."""
        ends = float("inf") if self._spec.for_s is None else began + self._spec.for_s
        with self._screen.line() as show:
            while not stop.is_set() and (asked := time.monotonic()) < ends:
                split = self._count(client)
                if split is not None:
                    produced = sum(reports.delivered().values())
                    show(produced, split, freshness.quantile_ms(0.5))
                # Counting every row takes longer as they grow: at most a fifth of the time.
                # (An answer that came late says nothing about the next one.)
                pause_s = min(max(_LINE_S, 4 * (time.monotonic() - asked)), _LONGEST_PAUSE_S)
                stop.wait(min(pause_s, max(0.0, ends - time.monotonic())))

    def _count(self, client: Client) -> Split | None:
        """None while the server is being restarted."""
        try:
            return count_split(client, self._run)
        except ClientError as error:
            self._screen.note(f"no answer: {error}")
            return None

    def _all_acknowledged(self, reports: FeedReports) -> dict[tuple[str, int], int]:
        last = reports.join()
        if not last.get("done") or last.get("failed"):
            raise DemoFailed(
                f"the feed did not end in order ({last.get('error') or 'no last report'}): "
                f"see {self._run.log('feed')}"
            )
        return reports.delivered()

    def _spawn(self, role: str, *arguments: str, pipe: bool = False) -> Child:
        log: BinaryIO = self._stack.enter_context(self._run.log(role).open("wb"))
        child = Child(
            [sys.executable, "-m", "flight_server.child", role, *arguments],
            stdout=-1 if pipe else log,
            stderr=log,
        )
        self._stack.callback(child.end, _END_S)
        return child

    def _ready(
        self, role: str, child: Child, stop: threading.Event | None = None
    ) -> dict[str, object]:
        deadline = time.monotonic() + _START_S
        while child.wait_ready(_POLL_S) is None:
            if stop is not None and stop.is_set():
                return {}
            ended = child.process.poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended at its start" if ended else f"is not ready after {_START_S:g} s"
                raise DemoFailed(f"{role} {what}: {_last_words(self._run.log(role))}")
        return dict(child.ready or {})

    def _await(
        self,
        condition: Callable[[], bool],
        stop: threading.Event | None,
        child: Child | None = None,
    ) -> None:
        """Polls until the condition holds, somebody stops, or the time is over.

        Raises:
            DemoFailed: the time is over, or ``child`` has ended.
        """
        deadline = time.monotonic() + _VISIBLE_S
        while not (stop is not None and stop.is_set()) and not _holds(condition):
            if child is not None and child.process.poll() is not None:
                raise DemoFailed(f"the feed has ended: {_last_words(self._run.log('feed'))}")
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"nothing came for {_VISIBLE_S:g} s: {_last_words(self._run.log('serve'))}"
                )
            time.sleep(_POLL_S)


def _patiently(work: Callable[[], T]) -> T:
    """The result of ``work``, begun again while the server is being restarted.

    Raises:
        ClientError: it still fails when the patience ends.
    """
    deadline = time.monotonic() + _VISIBLE_S
    while True:
        try:
            return work()
        except ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _holds(condition: Callable[[], bool]) -> bool:
    """A server that is being restarted does not hold it yet."""
    try:
        return condition()
    except ClientError:
        return False


def _summarise(exact: Audit, produced: dict[tuple[str, int], int], freshness: Freshness) -> Summary:
    return Summary(
        produced=sum(produced.values()),
        rows_total=exact.rows,
        rows_history=exact.history,
        rows_live=exact.live,
        duplicates=exact.duplicates,
        gaps=exact.gaps,
        commits=exact.commits,
        freshness_p50_ms=freshness.quantile_ms(0.50),
        freshness_p99_ms=freshness.quantile_ms(0.99),
    )


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'it said nothing'} (see {log})"
