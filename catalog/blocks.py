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
from itertools import chain, repeat

import numpy as np
import pyarrow as pa
from datafusion import DataFrame, SessionConfig, SessionContext

from catalog.avro import RecordOf
from catalog.errors import CatalogError
from catalog.wire import NONCE_BYTES, block_schema, empty_value, long_bytes, with_type_names

#: Batch sizes per doubling: a chunk is filled up to the next one (at most 1/8 more records) so
#: that the plans of all sizes can be kept.
_SIZES_PER_DOUBLING = 8
_SYNC = bytes(16)


@dataclass(frozen=True, slots=True)
class Block:
    """What the reader made of a block: carrier columns by position.

    Attributes:
        columns: one per field, ``rows`` or more long; rows past ``rows`` are filling.
        rows: how many records were given.
    """

    columns: tuple[pa.Array, ...]
    rows: int


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

    def put(self, *parts: bytes) -> None:
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
        self._plans: dict[int, DataFrame] = {}
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
        rows = len(values)
        size = _size(rows + 1)
        nonce = secrets.token_bytes(NONCE_BYTES)
        filling = repeat(frame + self._empty, size - rows)
        try:
            # The empty first part puts a nonce in front of the first value too.
            data = nonce.join(chain((b"",), values, filling))  # type: ignore[arg-type] # None raises
        except TypeError:
            return None
        self._scratch.put(self._header, long_bytes(size), long_bytes(len(data)), data, _SYNC)
        try:
            batch = self._first_batch(size)
        finally:
            self._scratch.clear()
        if batch is None or not _all_are(batch, nonce, frame, size):
            return None
        return Block(tuple(batch.columns[2:]), rows)

    def _first_batch(self, size: int) -> pa.RecordBatch | None:
        """One batch; the stream is dropped when this returns."""
        stream = self._plan(size).execute_stream()
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

    def _plan(self, size: int) -> DataFrame:
        """The plan whose batches hold ``size`` records; contexts fix the batch size."""
        if size not in self._plans:
            self._plans[size] = _context(size).read_avro(
                self._scratch.path, schema=self._schema, file_extension=""
            )
        return self._plans[size]


def _context(batch_rows: int) -> SessionContext:
    config = SessionConfig().with_target_partitions(1).with_batch_size(batch_rows)
    # Nothing to optimise in a scan of one file; a third of a small chunk's time otherwise.
    config = config.set("datafusion.optimizer.max_passes", "0")
    return SessionContext(config.set("datafusion.execution.collect_statistics", "false"))


def _size(rows: int) -> int:
    """The least m·2ᵏ ≥ ``rows`` with m ≤ 2 · :data:`_SIZES_PER_DOUBLING`."""
    shift = max(0, (rows - 1).bit_length() - _SIZES_PER_DOUBLING.bit_length())
    return -(-rows >> shift) << shift


def _all_are(batch: pa.RecordBatch, nonce: bytes, frame: bytes, size: int) -> bool:
    if batch.num_rows != size:
        return False
    nonces = np.frombuffer(_fixed_bytes(batch.column(0)), dtype=np.uint64)
    frames = np.frombuffer(_fixed_bytes(batch.column(1)), dtype=np.uint8)
    wanted = np.frombuffer(frame, dtype=np.uint8)
    same_nonce = bool((nonces == np.frombuffer(nonce, dtype=np.uint64)).all())
    return same_nonce and bool((frames.reshape(size, -1) == wanted).all())


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
