"""Many framed records at once: one Avro block, read by DataFusion, believed only with its nonces.

The values of a chunk are joined with a random nonce in front of each, as the one data block of an
Avro object container whose schema begins with ``nonce: fixed(8)`` and ``frame: fixed(5)``. A record
that is longer or shorter than its value shifts all that follow, so the nonces are not where they
should be; records that we append ourselves show it for the last one. The reader's batch size is
exactly the number of records, and the stream is dropped after one batch: bytes that are left over
would keep the reader spinning for ever.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datafusion import DataFrame, RecordBatchStream, SessionConfig, SessionContext

from catalog.avro import RecordOf
from catalog.errors import CatalogError
from catalog.wire import NONCE_BYTES, block_schema, empty_value, long_bytes, with_type_names

#: Batch sizes per doubling: a chunk is filled up to the next one (at most 1/8 more records) so
#: that the plans of all sizes can be kept.
_SIZES_PER_DOUBLING = 8
#: Executions of one physical plan.
_EXECUTIONS = 256
_SYNC = bytes(16)
#: Bytes behind joined values: a word may be read from any place in them.
TAIL_BYTES = 8
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Block:
    """What the reader made of a block: carrier columns by position.

    Attributes:
        columns: one per field, ``rows`` or more long; rows past ``rows`` are filling.
        rows: how many records were given.
        bytes: of the block, so no value is longer.
    """

    columns: tuple[pa.Array, ...]
    rows: int
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """Values in one piece, as a block has them.

    Attributes:
        values: as they came.
        nonce: random bytes that stand in front of each.
        data: nonces and values; then a nonce and :data:`TAIL_BYTES` times 0, which are no part.
    """

    values: Sequence[bytes]
    nonce: bytes
    data: bytes

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Joined | None:
        """Joins values; None: one of them is None."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        try:
            # The empty first part puts a nonce in front of the first value too.
            data = nonce.join(chain((b"",), values, (bytes(TAIL_BYTES),)))  # type: ignore[arg-type] # None raises
        except TypeError:
            return None
        return cls(values, nonce, data)  # type: ignore[arg-type] # none is None

    def bounds(self) -> npt.NDArray[np.int64]:
        """Where the nonce of each value begins, and where the last value ends."""
        sizes = np.fromiter(map(len, self.values), np.int64, len(self.values))
        return np.concatenate([[0], np.cumsum(sizes + NONCE_BYTES)])

    def without(self, rows: npt.NDArray[np.int64]) -> list[memoryview]:
        """The data of all values but those of ``rows``, ascending, in stretches."""
        whole = memoryview(self.data)[: len(self.data) - NONCE_BYTES - TAIL_BYTES]
        if not len(rows):
            return [whole]
        bounds = self.bounds()
        begins = [0, *bounds[rows + 1].tolist()]
        ends = [*bounds[rows].tolist(), len(whole)]
        return [whole[begin:end] for begin, end in zip(begins, ends, strict=True)]


class Scratch:
    """One file in memory that blocks pass through; not for use by two threads at once.

    On Linux it is anonymous memory, so nothing stays behind whatever ends the process; elsewhere
    a temporary file, emptied after every block.
    """

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._fd = os.memfd_create("k2-block", os.MFD_CLOEXEC)
            self.path = f"/proc/self/fd/{self._fd}"
        else:
            self._fd, self.path = tempfile.mkstemp(prefix="k2-block-")
            weakref.finalize(self, os.unlink, self.path)
        weakref.finalize(self, os.close, self._fd)

    def put(self, *parts: bytes | memoryview) -> None:
        """Replaces the contents."""
        at = 0
        for part in parts:
            view = memoryview(part)
            while view:
                done = os.pwrite(self._fd, view, at)
                view, at = view[done:], at + done
        os.ftruncate(self._fd, at)

    def clear(self) -> None:
        """Gives the memory back."""
        os.ftruncate(self._fd, 0)


class BlockReader:
    """Reads blocks of one writer's schema; not for use by two threads at once."""

    def __init__(self, record: RecordOf, scratch: Scratch) -> None:
        avro = block_schema(record)
        self._scratch = scratch
        self._header = _header(avro)
        self._empty = empty_value(record)
        self._plans: dict[int, _Plan] = {}
        scratch.put(self._header)
        inferred = _context(1).read_avro(scratch.path, file_extension="").schema()
        self._schema = with_type_names(inferred, avro)

    def read(self, values: Sequence[bytes | None], frame: bytes) -> Block | None:
        """The records of ``values``, all of which must begin with ``frame``.

        Returns:
            None if any value is not exactly one record with that frame that the reader accepts;
            which one it is, the block cannot tell.

        Raises:
            CatalogError: the reader failed for a reason that is not in the values.
        """
        prefix = self.prefix(values, frame)
        if prefix is None or prefix.rows < len(values):
            return None
        return prefix

    def prefix(self, values: Sequence[bytes | None], frame: bytes) -> Block | None:
        """The first records of ``values`` that prove themselves, at best all.

        The record after them, where there is one, is not one that the reader accepts.

        Returns:
            None where nothing is known: the reader stumbled somewhere, or a value is None.

        Raises:
            CatalogError: as :meth:`read`.
        """
        joined = Joined.of(values)
        return None if joined is None else self.proved(joined, frame)

    def proved(
        self, joined: Joined, frame: bytes, without: npt.NDArray[np.int64] = _NONE
    ) -> Block | None:
        """As :meth:`prefix`, of all values but those of the rows ``without``, ascending."""
        rows = len(joined.values) - len(without)
        size = _size(rows + 1)
        filling = (joined.nonce + frame + self._empty) * (size - rows)
        data: list[bytes | memoryview] = [*joined.without(without), filling]
        bytes_ = sum(map(len, data))
        self._scratch.put(self._header, long_bytes(size), long_bytes(bytes_), *data, _SYNC)
        try:
            batch = self._first_batch(size)
        finally:
            self._scratch.clear()
        if batch is None or batch.num_rows != size:
            return None
        matching = _matching(batch, joined.nonce, frame)
        # A record is proved by the nonce after it.
        proved = rows if matching == size else min(rows, max(0, matching - 1))
        return Block(tuple(batch.columns[2:]), proved, bytes_)

    def _first_batch(self, size: int) -> pa.RecordBatch | None:
        """One batch; the stream is dropped when this returns."""
        stream = self._stream(size)
        try:
            return next(stream).to_pyarrow()
        except StopIteration as error:
            raise CatalogError("the block reader found no block") from error
        except Exception as error:
            if "Arrow error" in str(error):  # all that it says about bytes; I/O is named otherwise
                return None
            raise CatalogError(f"the block reader failed ({type(error).__name__})") from error
        except BaseException as error:
            # A panic of the engine is no Exception; hostile bytes may be its cause.
            if type(error).__name__ == "PanicException":
                return None
            raise

    def _stream(self, size: int) -> RecordBatchStream:
        """The block's batches of ``size`` records; contexts fix the batch size."""
        plan = self._plans.get(size)
        if plan is None:
            context = _context(size)
            frame = context.read_avro(self._scratch.path, schema=self._schema, file_extension="")
            plan = self._plans[size] = _Plan(context, frame)
        return plan.stream()


class _Plan:
    """Reads the file again and again by one physical plan: making it takes half of a small read.

    A plan keeps the figures of all its executions, so it is made anew after some.
    """

    def __init__(self, context: SessionContext, frame: DataFrame) -> None:
        self._context, self._frame = context, frame
        self._plan = frame.execution_plan()
        self._left = _EXECUTIONS

    def stream(self) -> RecordBatchStream:
        """The file as it is now."""
        if not self._left:
            self._plan, self._left = self._frame.execution_plan(), _EXECUTIONS
        self._left -= 1
        return self._context.execute(self._plan, 0)


def _context(batch_rows: int) -> SessionContext:
    config = SessionConfig().with_target_partitions(1).with_batch_size(batch_rows)
    # Nothing to optimise in a scan of one file; a third of a small chunk's time otherwise.
    config = config.set("datafusion.optimizer.max_passes", "0")
    # Off, or a plan hands its file out once and has nothing to read when it is executed again.
    config = config.set("datafusion.execution.enable_file_stream_work_stealing", "false")
    return SessionContext(config.set("datafusion.execution.collect_statistics", "false"))


def _size(rows: int) -> int:
    """The least m·2ᵏ ≥ ``rows`` with m ≤ 2 · :data:`_SIZES_PER_DOUBLING`."""
    shift = max(0, (rows - 1).bit_length() - _SIZES_PER_DOUBLING.bit_length())
    return -(-rows >> shift) << shift


def _matching(batch: pa.RecordBatch, nonce: bytes, frame: bytes) -> int:
    """How many of the batch's first rows carry the nonce and the frame."""
    nonces = np.frombuffer(_fixed_bytes(batch.column(0)), dtype=np.uint64)
    frames = np.frombuffer(_fixed_bytes(batch.column(1)), dtype=np.uint8)
    wanted = np.frombuffer(frame, dtype=np.uint8)
    same = nonces == np.frombuffer(nonce, dtype=np.uint64)
    same &= (frames.reshape(batch.num_rows, -1) == wanted).all(axis=1)
    return batch.num_rows if same.all() else int(same.argmin())


def _fixed_bytes(column: pa.Array) -> memoryview:
    width = column.type.byte_width
    start = column.offset * width
    return memoryview(column.buffers()[1])[start : start + len(column) * width]


def _header(avro: dict[str, object]) -> bytes:
    """Source: Apache Avro 1.12 specification, "Object Container Files"."""
    text = json.dumps(avro).encode()
    words = (b"avro.schema", text, b"avro.codec", b"null")
    pairs = b"".join(long_bytes(len(word)) + word for word in words)
    return b"Obj\x01" + long_bytes(2) + pairs + long_bytes(0) + _SYNC
