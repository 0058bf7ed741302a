"""Who may compute: places for statements, in order of arrival, some kept for small ones.

A statement comes in as a small one: until it is planned and its files are pruned, nobody knows
what it costs. One that turns out to be large gives its place up and waits for one of those that
large ones may take, all but the reserved: so a small statement waits for small ones at most, and,
as the order is that of arrival among those who may go, no large one waits for ever.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from flight_server.limits import Deadline
from flight_server.protocol.errors import Overloaded

__all__ = ["SIZES", "Admission", "Size", "Slot"]

Size = Literal["small", "large"]
SIZES: tuple[Size, ...] = ("small", "large")
#: Statements that may wait, in all: each holds a thread of gRPC's.
QUEUE_LENGTH = 1000


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    number: int
    turn: threading.Event = field(default_factory=threading.Event)


class Slot:
    """The right to compute for one statement; a context manager.

    Invariant (under the admission's lock): ``_held`` says whether it counts among the running.
    """

    def __init__(self, admission: Admission, size: Size) -> None:
        self._admission = admission
        self._size: Size = size
        self._held = True

    def release(self) -> None:
        """Gives the place to whoever has waited longest; idempotent, any thread."""
        with self._admission.lock:
            if self._held:
                self._held = False
                self._admission.leave(self._size)

    def grow(self, deadline: Deadline) -> None:
        """Counts as a large one from here on; while it waits for its turn it holds no place.

        Raises:
            Overloaded, DeadlineExceeded: as :meth:`Admission.enter`; it holds none then.
        """
        with self._admission.lock:
            if not self._held or self._size == "large" or self._admission.promote():
                self._size = "large"
                return
        self.release()
        self._admission.wait("large", deadline)
        with self._admission.lock:
            self._size, self._held = "large", True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.release()


class Admission:
    """Lets ``concurrency`` statements compute at a time; any thread.

    Args:
        concurrency: places in all.
        queue_wait_s: longest wait of a statement for its turn.
        reserved: places that large statements never take; one is always left to them.
        queue_length: statements that may wait.

    Invariant (under ``lock``): nobody waits who may go.
    """

    def __init__(
        self,
        concurrency: int,
        queue_wait_s: float,
        *,
        reserved: int = 0,
        queue_length: int = QUEUE_LENGTH,
    ) -> None:
        self.lock = threading.Lock()
        self._concurrency = concurrency
        self._most_large = max(1, concurrency - reserved)
        self._queue_wait_s = queue_wait_s
        self._queue_length = queue_length
        self._numbers = itertools.count()
        self._running: dict[Size, int] = dict.fromkeys(SIZES, 0)
        self._waiting: dict[Size, deque[_Waiting]] = {size: deque() for size in SIZES}

    def enter(self, deadline: Deadline, size: Size = "small", *, again: bool = False) -> Slot:
        """A slot, as soon as there is one.

        Args:
            deadline: the statement's.
            size: which places it may take.
            again: it has computed before: only its deadline bounds the wait.

        Raises:
            Overloaded: no slot within ``queue_wait_s``, or too many wait already.
            DeadlineExceeded: the statement's own time ended first.
        """
        self.wait(size, deadline, again=again)
        return Slot(self, size)

    @property
    def running(self) -> int:
        """Slots in use."""
        with self.lock:
            return sum(self._running.values())

    @property
    def waiting(self) -> int:
        """Statements in the queue."""
        with self.lock:
            return sum(map(len, self._waiting.values()))

    def count(self, state: Literal["running", "waiting"], size: Size) -> int:
        """Statements of one size that compute, or wait for their turn."""
        with self.lock:
            return self._running[size] if state == "running" else len(self._waiting[size])

    # --- for slots -------------------------------------------------------------------------------

    def wait(self, size: Size, deadline: Deadline, *, again: bool = False) -> None:
        """Until the caller counts among the running; raises as :meth:`enter`."""
        with self.lock:
            mine = _Waiting(next(self._numbers))
            self._waiting[size].append(mine)
            self._let_in()
            if mine.turn.is_set():
                return
            if not again and sum(map(len, self._waiting.values())) > self._queue_length:
                self._waiting[size].remove(mine)
                raise self._refusal(f"{self._queue_length} others wait for their turn")
        longest_s = deadline.left_s() if again else min(self._queue_wait_s, deadline.left_s())
        if not mine.turn.wait(min(longest_s, threading.TIMEOUT_MAX)):
            with self.lock:
                if not mine.turn.is_set():
                    self._waiting[size].remove(mine)
                    if deadline.left_s() == 0:
                        raise deadline.error()
                    waited = f"this one has waited {self._queue_wait_s:g} s for its turn"
                    raise self._refusal(waited)

    def promote(self) -> bool:
        """Under the lock: whether one of the running may count as large on the spot."""
        if self._waiting["large"] or self._running["large"] >= self._most_large:
            return False
        self._running["small"] -= 1
        self._running["large"] += 1
        return True

    def leave(self, size: Size) -> None:
        """Under the lock: a place is free."""
        self._running[size] -= 1
        self._let_in()

    def _let_in(self) -> None:
        while sum(self._running.values()) < self._concurrency:
            large_may = self._running["large"] < self._most_large
            sizes = [s for s in SIZES if self._waiting[s] and (s == "small" or large_may)]
            if not sizes:
                return
            size = min(sizes, key=lambda each: self._waiting[each][0].number)
            self._running[size] += 1
            self._waiting[size].popleft().turn.set()

    def _refusal(self, why: str) -> Overloaded:
        return Overloaded(
            f"{self._concurrency} statements may run at a time, and {why}: try again, or raise "
            "limits.concurrency"
        )
