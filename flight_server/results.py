"""A running statement: its slot, its deadline, and the stream of its batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import pyarrow as pa

from catalog.erasure import Holding
from flight_server.admission import Admission, Size
from flight_server.hybrid import Report
from flight_server.interrupt import Interruptible, Watchdog
from flight_server.limits import Deadline, Limits, guard
from flight_server.names import Reference
from flight_server.protocol.errors import Cancelled
from flight_server.protocol.sizes import sliced
from flight_server.wire import to_wire

T = TypeVar("T")


class Work:
    """What one execution holds: waits for its slot when made, gives it back when closed.

    While nobody waits for the engine, because the batch before is still being sent, the slot is
    kept for ``limits.slow_reader_s``; then others have it, and the next batch waits for its turn.
    The engine's stream stays open: its memory is bounded by the pool, and by its bounded channels.
    A statement that is ended meanwhile gives up slot and stream at once: the reader may take for
    ever.

    One share of a divided statement holds a slot only while the engine works for it: a client may
    open all shares and read one after the other, and would wait for itself for ever.

    Invariant (under ``_lock``): the slot is given up only while ``_idle_since_s`` is set.

    Raises:
        Overloaded, DeadlineExceeded: there was no slot in time.
    """

    def __init__(
        self,
        limits: Limits,
        deadline: Deadline,
        watchdog: Watchdog,
        admission: Admission,
        *,
        is_share: bool = False,
    ) -> None:
        self.limits = limits
        self.deadline = deadline
        self.reports: Mapping[Reference, Report] = MappingProxyType({})
        self._calls = Interruptible()
        #: What the statement holds besides its slot; given back last.
        self.holding = Holding(check=self.check)
        self._watchdog = watchdog
        self._admission = admission
        self._is_share = is_share
        self._size: Size = "small"
        self._lock = threading.Lock()
        #: The monotonic time since when nobody waits for the engine; None: somebody does.
        self._idle_since_s: float | None = None
        self._slot = None if is_share else admission.enter(deadline)
        #: Drops the engine's stream; the result's own.
        self.give_up: Callable[[], None] | None = None
        watchdog.watch(self._calls, deadline.at_s, lambda: self._end(Deadline.error()), self._lend)

    def weigh(self, rows: int | None) -> None:
        """The statement will read so many rows, None: nobody knows; it may wait for its turn again.

        Raises:
            Overloaded, DeadlineExceeded: there was no slot in time.
        """
        if rows is None or rows > self.limits.small_rows:
            self._size = "large"
            if self._slot is not None:
                self._slot.grow(self.deadline)

    def run(self, call: Callable[[], T]) -> T:
        """``call()``, ended by the deadline or by :meth:`cancel`."""
        if self._is_share:
            with self._admission.enter(self.deadline, self._size):
                return self._calls.run(call)
        self._resume()
        try:
            return self._calls.run(call)
        finally:
            self._idle_since_s = time.monotonic()

    def cancel(self) -> None:
        """Ends the statement from any thread; idempotent."""
        self._end(Cancelled("the statement was cancelled"))

    def check(self) -> None:
        """Raises what the statement was ended with, if it was."""
        self._calls.check()

    def close(self) -> None:
        """Gives back the slot and what is held; idempotent."""
        self.give_up = None
        self._watchdog.forget(self._calls)
        if (slot := self._slot) is not None:
            slot.release()
        self.holding.resources.close()

    def _resume(self) -> None:
        """Takes a slot again, if the one before was lent out."""
        with self._lock:
            self._idle_since_s = None
            if self._slot is not None:
                return
        slot = self._admission.enter(self.deadline, self._size, again=True)
        with self._lock:
            self._slot = slot

    def _lend(self) -> None:
        """Gives the slot to others while the reader is slow; the watchdog asks."""
        with self._lock:
            since_s = self._idle_since_s
            if self._slot is None or since_s is None:
                return
            if time.monotonic() - since_s >= self.limits.slow_reader_s:
                self._slot.release()
                self._slot = None

    def _end(self, error: Exception) -> None:
        if not self._calls.interrupt(error):
            return
        if (give_up := self.give_up) is not None:
            give_up()
        if (slot := self._slot) is not None:
            slot.release()


class ResultStream:
    """The batches of a result: plain types, the promised schema, bounded size.

    One thread iterates, once, and closes; ``cancel`` may come from any thread. The engine works
    only while a batch is waited for, so memory stays flat however slow the reader is.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], work: Work) -> None:
        self._schema = schema
        self._source = batches
        self._work = work
        self._batches = guard(self._sized(), work.limits, work.deadline)
        self._closing = threading.Lock()
        work.give_up = self._give_up
        self.rows = 0
        self.bytes = 0

    @property
    def schema(self) -> pa.Schema:
        """The plan's schema."""
        return self._schema

    @property
    def reports(self) -> Mapping[Reference, Report]:
        """Files and rows behind each reference, for the query log."""
        return self._work.reports

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches; the end of them, or an error, closes the stream.

        Raises:
            Cancelled, DeadlineExceeded, ResourceExhausted: it was ended.
            FlightSqlError, CatalogError: the statement failed; what was sent before is no answer.
        """
        try:
            for batch, size in self._batches:
                self.rows += batch.num_rows
                self.bytes += size
                yield batch
            self._work.check()  # given up by another thread: this is not the end of the rows
        except ValueError as error:  # it is being given up in this very moment
            self._work.check()
            raise error from None
        finally:
            self.close()

    def read_all(self) -> pa.Table:
        """The rest of the result in memory; closes the stream."""
        with self:
            return pa.Table.from_batches(list(self), self._schema)

    def cancel(self) -> None:
        """A blocked or later iteration raises ``Cancelled``; any thread, idempotent."""
        self._work.cancel()

    def close(self) -> None:
        """Stops the engine's work and gives the slot back; idempotent."""
        with self._closing:
            for generator in (self._batches, self._source):
                close = getattr(generator, "close", None)
                if close is not None:
                    close()
            self._work.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _give_up(self) -> None:
        """Called by the thread that ended the statement, while no batch is waited for."""
        close = getattr(self._source, "close", None)
        if close is not None:
            with suppress(ValueError):  # it runs again: then it meets the interrupt by itself
                close()

    def _sized(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        for batch in self._source:
            if batch.num_rows:
                yield from sliced(to_wire(batch, self._schema), self._work.limits.batch_bytes)
