"""Admission, deadlines, caps, and ending a call from another thread."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from datafusion import SessionContext

from flight_server.admission import Admission
from flight_server.interrupt import Interruptible, Watchdog
from flight_server.limits import Deadline, Limits, guard
from flight_server.protocol.errors import (
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    ResourceExhausted,
)

NEVER = Deadline()


def wait_until(holds: Callable[[], bool]) -> None:
    """Gives other threads time; fails after 20 s."""
    until_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def test_statements_are_admitted_first_come_first_served() -> None:
    admission = Admission(1, queue_wait_s=20)
    first = admission.enter(NEVER)
    order: list[int] = []

    def statement(n: int) -> None:
        with admission.enter(NEVER):
            order.append(n)

    threads = []
    for n in range(5):
        threads.append(threading.Thread(target=statement, args=(n,)))
        threads[-1].start()
        wait_until(lambda: admission.waiting == len(threads))
    first.release()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert (admission.running, admission.waiting) == (0, 0)


def test_whoever_waits_too_long_is_told_to_try_again() -> None:
    admission = Admission(1, queue_wait_s=0.01)
    with admission.enter(NEVER):
        with pytest.raises(Overloaded, match=r"limits\.concurrency") as refused:
            admission.enter(NEVER)
        assert refused.value.retriable
        assert admission.waiting == 0
    admission.enter(NEVER).release()


def test_a_statement_does_not_wait_past_its_own_deadline() -> None:
    admission = Admission(1, queue_wait_s=1000)
    with admission.enter(NEVER), pytest.raises(DeadlineExceeded):
        admission.enter(Deadline.after(0.01))


def test_a_slot_is_given_back_once() -> None:
    admission = Admission(2, queue_wait_s=0)
    slot = admission.enter(NEVER)
    slot.release()
    slot.release()
    held = [admission.enter(NEVER), admission.enter(NEVER)]
    with pytest.raises(Overloaded):
        admission.enter(NEVER)
    assert len(held) == 2


def test_slots_survive_many_threads() -> None:
    """No slot is lost or made, however entering, giving up and leaving mix."""
    admission = Admission(3, queue_wait_s=0.001)
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(100):
            try:
                with admission.enter(NEVER):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except Overloaded:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 3
    assert (admission.running, admission.waiting) == (0, 0)


def test_deadlines_combine_to_the_earlier() -> None:
    soon, late = Deadline.after(1), Deadline.after(100)
    assert soon.earlier(late) is soon
    assert late.earlier(soon) is soon
    assert Deadline.after(None).at_s == math.inf
    NEVER.check()
    with pytest.raises(DeadlineExceeded, match=r"limits\.statement_timeout_s"):
        Deadline(time.monotonic()).check()


BATCH = pa.record_batch({"a": pa.array(range(100), pa.int64())})


@pytest.mark.parametrize(
    ("limits", "passes"),
    [
        (Limits(), 3),
        (Limits(max_result_rows=300), 3),
        (Limits(max_result_rows=299), 2),
        (Limits(max_result_bytes=2400), 3),
        (Limits(max_result_bytes=2399), 2),
        (Limits(max_result_rows=0), 0),
    ],
)
def test_a_stream_ends_with_an_error_at_its_cap(limits: Limits, passes: int) -> None:
    """Never with a shorter answer that looks whole."""
    sized = BATCH, BATCH.nbytes
    guarded = guard(iter([sized] * 3), limits, NEVER)
    assert [next(guarded) for _ in range(passes)] == [sized] * passes
    with pytest.raises(StopIteration if passes == 3 else ResourceExhausted):
        next(guarded)


def test_a_stream_ends_at_its_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        list(guard(iter([(BATCH, 800)]), Limits(), Deadline(0)))


def test_an_interrupted_call_of_the_engine_ends_with_the_given_error() -> None:
    """The call is inside Rust, without the GIL, for far longer than the test waits."""
    calls = Interruptible()
    frame = SessionContext().sql("select sum(value) from generate_series(1, 1000000000000)")
    started = threading.Event()

    def run() -> object:
        started.set()
        return frame.collect()

    def interrupt() -> None:
        started.wait()
        calls.interrupt(Cancelled("by the test"))
        calls.interrupt(DeadlineExceeded("too late to count"))

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Cancelled, match="by the test"):
        calls.run(run)
    thread.join()
    with pytest.raises(Cancelled, match="by the test"):
        calls.run(lambda: 1)


@pytest.fixture
def nervous_threads() -> Iterator[None]:
    """Threads take turns every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_for_ever(calls: Interruptible) -> None:
    while True:
        calls.run(lambda: sum(range(5)))


@pytest.mark.usefixtures("nervous_threads")
def test_an_interrupt_never_hits_code_outside_the_call() -> None:
    """The exception is taken back where the call ended first: a thousand races, no stray one."""
    for _ in range(1000):
        calls = Interruptible()
        thread = threading.Thread(target=calls.interrupt, args=(Cancelled("x"),))
        thread.start()
        with pytest.raises(Cancelled):
            run_for_ever(calls)
        assert sum(range(200)) == 19_900
        thread.join()


def test_errors_of_the_call_itself_pass_through() -> None:
    calls = Interruptible()
    with pytest.raises(ZeroDivisionError):
        calls.run(lambda: 1 // 0)
    assert calls.run(lambda: 5) == 5
    assert calls.error is None


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    dog = Watchdog()
    yield dog
    dog.close()
    dog.close()


def test_the_watchdog_interrupts_what_is_late_and_nothing_else(watchdog: Watchdog) -> None:
    late, early, forgotten = Interruptible(), Interruptible(), Interruptible()
    watchdog.watch(early, time.monotonic() + 1000, lambda: early.interrupt(Deadline.error()))
    watchdog.watch(forgotten, time.monotonic() - 1, lambda: forgotten.interrupt(Deadline.error()))
    watchdog.forget(forgotten)
    watchdog.watch(late, time.monotonic() - 1, lambda: late.interrupt(Deadline.error()))
    wait_until(lambda: late.error is not None)
    assert isinstance(late.error, DeadlineExceeded)
    assert early.error is None
    assert forgotten.error is None


class _Stream:
    """Stands for the engine's: it works until it is dropped."""


def test_an_interrupted_call_lets_go_of_the_engines_stream_at_once() -> None:
    """Only dropping it stops the engine's threads: a cycle would keep it until a collection."""
    calls = Interruptible()

    def end_a_call() -> weakref.ref[_Stream]:
        stream = _Stream()
        calls.interrupt(Cancelled("by the test"))
        with contextlib.suppress(Cancelled):
            calls.run(functools.partial(next, stream, None))  # never run
        return weakref.ref(stream)

    gc.disable()
    try:
        assert end_a_call()() is None
    finally:
        gc.enable()
