"""Large statements leave places to small ones, and slow readers theirs to everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support_engine import TRADES, FolderTables, trades
from support_flight import until

from flight_server.admission import SIZES, Admission, Size, Slot
from flight_server.engine import Engine, ResultStream
from flight_server.limits import Deadline, Limits
from flight_server.metrics import Metrics
from flight_server.plans import Options, Statement
from flight_server.protocol.errors import DeadlineExceeded, Overloaded

NEVER = Deadline()
ROWS = 200_000
SERIES = f"select value from generate_series(1, {ROWS})"
RECURSIVE = "with recursive n as (select 1 as i union select 2) select i from n"
OPTIONS = Options(schema=TRADES.namespace)


def counts(admission: Admission) -> tuple[int, int, int, int]:
    """(small that run, small that wait, large that run, large that wait)."""
    small, large = (
        (admission.count("running", size), admission.count("waiting", size)) for size in SIZES
    )
    return *small, *large


@contextmanager
def grown(admission: Admission, number: int, slots: list[Slot]) -> Iterator[None]:
    """So many statements that turn out to be large; ``slots`` gets those that may go."""

    def body() -> None:
        slot = admission.enter(NEVER)
        slot.grow(NEVER)
        slots.append(slot)
        ended.wait()
        slot.release()

    ended = threading.Event()
    threads = [threading.Thread(target=body, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_a_small_statement_finds_a_place_however_many_large_ones_there_are() -> None:
    admission = Admission(3, 20, reserved=1)
    slots: list[Slot] = []
    with grown(admission, 64, slots):
        until(lambda: counts(admission) == (0, 0, 2, 62))
        with admission.enter(Deadline.after(0)):  # at once
            assert counts(admission) == (1, 0, 2, 62)
    until(lambda: len(slots) == 64)
    assert counts(admission) == (0, 0, 0, 0)


def waiting(
    admission: Admission, size: Size, order: list[str], name: str
) -> tuple[threading.Thread, Callable[[], None]]:
    """A statement in the queue: its thread, and what ends it once it was let in."""
    ended = threading.Event()

    def body() -> None:
        with admission.enter(NEVER, size):
            order.append(name)
            ended.wait()

    before = admission.waiting
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    until(lambda: admission.waiting == before + 1)
    return thread, ended.set


def test_a_large_statement_is_not_overtaken_by_small_ones_that_came_later() -> None:
    """The order is that of arrival among those who may go."""
    admission = Admission(2, 20, reserved=1)
    held = [admission.enter(NEVER), admission.enter(NEVER)]
    order: list[str] = []
    wanted: list[tuple[Size, str]] = [("large", "L1"), ("large", "L2"), ("small", "s1")]
    queue = [waiting(admission, size, order, name) for size, name in wanted]
    held[0].release()
    until(lambda: order == ["L1"])
    held[1].release()  # the second large one may not take the last place
    until(lambda: order == ["L1", "s1"])
    queue[0][1]()
    until(lambda: order == ["L1", "s1", "L2"])
    for thread, end in queue:
        end()
        thread.join()
    assert counts(admission) == (0, 0, 0, 0)


def test_a_statement_that_turns_out_to_be_large_waits_without_a_place() -> None:
    admission = Admission(2, 0.01, reserved=1)
    with admission.enter(NEVER, "large"):
        slot = admission.enter(NEVER)
        with pytest.raises(Overloaded, match=r"limits\.concurrency"):
            slot.grow(NEVER)
        assert counts(admission) == (0, 0, 1, 0)
        slot.release()  # it holds none: nothing is given back twice
        assert counts(admission) == (0, 0, 1, 0)


def test_a_growing_statement_does_not_pass_those_that_wait() -> None:
    admission = Admission(3, 0.01, reserved=0)
    slots = [admission.enter(NEVER) for _ in range(3)]
    order: list[str] = []
    thread, end = waiting_patiently(admission, order)
    with pytest.raises(Overloaded):
        slots[0].grow(Deadline())
    until(lambda: order == ["first"])
    end()
    thread.join()


def waiting_patiently(
    admission: Admission, order: list[str]
) -> tuple[threading.Thread, Callable[[], None]]:
    """A large statement that has computed before: only its deadline bounds its wait."""
    ended = threading.Event()

    def body() -> None:
        with admission.enter(NEVER, "large", again=True):
            order.append("first")
            ended.wait()

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    until(lambda: admission.waiting == 1)
    return thread, ended.set


def test_one_place_serves_both_sizes() -> None:
    admission = Admission(1, 0, reserved=5)
    for size in SIZES:
        admission.enter(NEVER, size).release()


def test_the_queue_is_bounded() -> None:
    admission = Admission(1, 20, queue_length=1)
    order: list[str] = []
    with admission.enter(NEVER):
        thread, end = waiting(admission, "small", order, "s")
        with pytest.raises(Overloaded, match="1 others wait"):
            admission.enter(NEVER)
        assert admission.waiting == 1
    until(lambda: order == ["s"])
    end()
    thread.join()


def test_the_places_show_in_the_metrics() -> None:
    admission, metrics = Admission(2, 20), Metrics()
    metrics.watch_places(admission.count, SIZES)

    def shown(state: str, size: str) -> float | None:
        return metrics.registry.get_sample_value("k2_places", {"state": state, "size": size})

    with admission.enter(NEVER, "large"):
        assert (shown("running", "large"), shown("running", "small")) == (1, 0)
    assert (shown("running", "large"), shown("waiting", "large")) == (0, 0)


# --- in the engine -----------------------------------------------------------------------------


@contextmanager
def an_engine(tmp_path: Path, limits: Limits) -> Iterator[Engine]:
    tables = FolderTables(tmp_path)
    tables.publish(TRADES, [trades(0, 100), trades(100, 100)], trades(200, 10).to_batches())
    engine = Engine(tables, tables, limits)
    try:
        yield engine
    finally:
        engine.close()


def opened(engine: Engine, sql: str) -> ResultStream:
    return engine.stream(engine.plan(Statement(sql), OPTIONS))


@pytest.mark.parametrize(
    ("sql", "size"),
    [
        ("select 1", "small"),
        ("select price from trades where _offset < 5", "small"),  # one file and the live rows
        ("select price from trades", "large"),
        ("explain select price from trades", "small"),
        ("explain analyze select price from trades", "large"),
        (SERIES, "large"),
        (RECURSIVE, "large"),
    ],
)
def test_the_size_is_what_is_left_to_read_after_pruning(
    tmp_path: Path, sql: str, size: Size
) -> None:
    with an_engine(tmp_path, Limits(small_rows=150)) as engine, opened(engine, sql):
        assert engine.admission.count("running", size) == 1
        assert engine.admission.running == 1


def test_a_slow_reader_lends_its_place_and_gets_every_row(tmp_path: Path) -> None:
    """While it waits for its turn again, it takes nobody's."""
    with an_engine(tmp_path, Limits(concurrency=1, slow_reader_s=0.01)) as engine:
        slow = opened(engine, SERIES)
        batches = iter(slow)
        rows = [next(batches).num_rows]
        until(lambda: engine.admission.running == 0)
        assert opened(engine, "select 1").read_all().num_rows == 1
        place = engine.admission.enter(NEVER)
        reader = threading.Thread(
            target=lambda: rows.extend(b.num_rows for b in batches), daemon=True
        )
        reader.start()
        until(lambda: engine.admission.waiting == 1)
        assert len(rows) == 1
        place.release()
        reader.join()
        assert sum(rows) == ROWS
        assert engine.admission.running == 0


def test_a_statement_that_waits_for_its_place_again_still_has_its_deadline(tmp_path: Path) -> None:
    limits = Limits(concurrency=1, slow_reader_s=0.01, statement_timeout_s=1.5)
    with an_engine(tmp_path, limits) as engine:
        batches = iter(opened(engine, SERIES))
        next(batches)
        until(lambda: engine.admission.running == 0)
        with engine.admission.enter(NEVER):
            with pytest.raises(DeadlineExceeded):
                list(batches)
            assert engine.admission.waiting == 0
        assert engine.admission.running == 0
