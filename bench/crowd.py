"""Clients that ask without a pause while something else is measured."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.synchronize
import threading
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue

from bench.peers import Ask, asking

CLIENTS = 8
#: What each of them asks: an aggregate over all rows, history and tail.
SQL = (
    "select symbol, count(*) as n, sum(quantity) as traded from market_data.trades"
    " group by symbol order by symbol"
)
#: How long they may take to be there, and to end, in seconds.
PATIENCE_S = 120.0


@contextlib.contextmanager
def crowd(uri: str) -> Iterator[None]:
    """:data:`CLIENTS` clients in a process of their own, from the first answer of each.

    Raises:
        AssertionError: one of them was refused, or not answered at all.
    """
    spawn = multiprocessing.get_context("spawn")
    stop, ready, answers = spawn.Event(), spawn.Semaphore(0), spawn.SimpleQueue()
    process = spawn.Process(target=_ask, args=(uri, stop, ready, answers), daemon=True)
    process.start()
    try:
        for _ in range(CLIENTS):
            assert ready.acquire(timeout=PATIENCE_S), "a client is not answered"
        yield
    finally:
        stop.set()
        process.join(PATIENCE_S)
    failures = [answers.get() for _ in range(CLIENTS)]
    assert not any(failures), next(filter(None, failures))


def _ask(
    uri: str,
    stop: multiprocessing.synchronize.Event,
    ready: multiprocessing.synchronize.Semaphore,
    answers: SimpleQueue[str],
) -> None:
    """The body of the process: a thread per client, which says at its end what went wrong."""

    def client() -> None:
        failure = ""
        try:
            with asking(uri) as ask:
                before = _rows(ask)
                ready.release()
                while not stop.is_set():
                    now = _rows(ask)
                    assert now >= before, f"{now} rows after {before}"
                    before = now
        except Exception as error:  # noqa: BLE001 - it travels to the other process as words
            failure = f"{type(error).__name__}: {error}"
            ready.release()
        answers.put(failure)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _rows(ask: Ask) -> int:
    """All rows of the answer's groups: they never become fewer."""
    return sum(ask(SQL)["n"].to_pylist())
