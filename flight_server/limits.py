"""What one statement, and all of them together, may take: deadlines and caps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from flight_server.protocol.errors import DeadlineExceeded, ResourceExhausted
from flight_server.sqltext import Bounds

__all__ = ["Deadline", "Limits", "guard"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings; names and units as in ``[limits]``.

    Attributes:
        statement_timeout_s: longest life of a statement, waiting for its turn included.
        memory_bytes: memory pool shared by all running statements; sorts and aggregates spill.
        spill_folder: where they spill to; None: the system's temporary folder.
        spill_bytes: bound on what one statement spills.
        footers_bytes: bound on footers of data files that are kept in memory.
        concurrency: statements that run at the same time.
        reserved: how many of these places statements that read much never take.
        small_rows: more rows in the files and segments that survive pruning, and it reads much.
        queue_wait_s: longest wait of a statement for its turn.
        slow_reader_s: a client that takes longer for a batch loses its place until it goes on.
        max_sql_bytes: longest statement, UTF-8 bytes.
        max_operators: most operators in a statement.
        max_depth: deepest nesting of brackets.
        max_product_rows: largest estimated product of a join without an equality.
        max_result_rows: rows that one statement may return; None: any number.
        max_result_bytes: Arrow bytes that one statement may return; None: any number.
        max_parameter_sets: rows of parameters that one statement may be executed with.
        batch_bytes: largest batch on the wire; a single row that is larger travels alone.
    """

    statement_timeout_s: float = 300.0
    memory_bytes: int = 2 * 1024**3
    spill_folder: Path | None = None
    spill_bytes: int = 16 * 1024**3
    footers_bytes: int = 768 * 1024**2
    concurrency: int = 8
    reserved: int = 2
    small_rows: int = 1_000_000
    queue_wait_s: float = 30.0
    slow_reader_s: float = 1.0
    max_sql_bytes: int = 64 * 1024
    max_operators: int = 1000
    max_depth: int = 50
    max_product_rows: int = 1_000_000_000
    max_result_rows: int | None = None
    max_result_bytes: int | None = None
    max_parameter_sets: int = 1000
    batch_bytes: int = 2 * 1024 * 1024

    def bounds(self) -> Bounds:
        """What a statement's text may hold."""
        return Bounds(self.max_sql_bytes, self.max_operators, self.max_depth)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock after which a statement has no right to run."""

    at_s: float = math.inf

    @classmethod
    def after(cls, seconds: float | None) -> Self:
        """``seconds`` from now; None: never."""
        return cls(math.inf if seconds is None else time.monotonic() + seconds)

    def earlier(self, other: Deadline) -> Deadline:
        """Whichever comes first."""
        return self if self.at_s <= other.at_s else other

    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    def check(self) -> None:
        """Raises :exc:`DeadlineExceeded` once the moment has come."""
        if time.monotonic() >= self.at_s:
            raise self.error()

    @staticmethod
    def error() -> DeadlineExceeded:
        """What a statement past its deadline ends with."""
        return DeadlineExceeded(
            "the statement ran into its time limit: ask for less, or raise "
            "limits.statement_timeout_s"
        )


def guard(
    batches: Iterator[tuple[pa.RecordBatch, int]], limits: Limits, deadline: Deadline
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The same batches, each with its size in bytes, until a cap or the deadline is met.

    Raises:
        ResourceExhausted: more rows or bytes than the caps allow; nothing beyond them is sent.
        DeadlineExceeded: the deadline passed between two batches.
    """
    rows = size = 0
    for batch, batch_bytes in batches:
        deadline.check()
        rows += batch.num_rows
        size += batch_bytes
        if limits.max_result_rows is not None and rows > limits.max_result_rows:
            raise ResourceExhausted(
                f"the result has more than {limits.max_result_rows} rows "
                "(limits.max_result_rows): aggregate, filter or add LIMIT"
            )
        if limits.max_result_bytes is not None and size > limits.max_result_bytes:
            raise ResourceExhausted(
                f"the result has more than {limits.max_result_bytes} bytes "
                "(limits.max_result_bytes): aggregate, filter or ask for fewer columns"
            )
        yield batch, batch_bytes
