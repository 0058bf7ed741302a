"""One record batch as an Arrow IPC file whose buffers lie on 64-byte boundaries.

DataFusion copies a decimal column whose buffer is not 16-byte aligned, on every registration;
pyarrow's writer aligns to 8 bytes and cannot be told otherwise, and arro3's holds the GIL for the
whole write (0.2 s for 500,000 rows, measured), which would stall the consume loop. So pyarrow
encodes the batch, outside the GIL, and :func:`write_file` lays its buffers out anew: the encoded
metadata is a flatbuffer in which only fixed-width numbers change, so they are patched in place.

Source: Arrow columnar format, "IPC File Format" and "Encapsulated message format";
format/Message.fbs, format/File.fbs for the field numbers below.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from pathlib import Path

#: Boundary of every buffer, in bytes: what Arrow recommends, and a cache line.
ALIGNMENT = 64
_MAGIC = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
_END_OF_STREAM = _CONTINUATION + b"\0\0\0\0"
#: A message starts with the continuation mark and its metadata's length.
_PREFIX_BYTES = 8
#: struct Buffer { offset: long; length: long; }
_BUFFER = struct.Struct("<qq")
#: struct Block { offset: long; metaDataLength: int; bodyLength: long; }
_BLOCK = struct.Struct("<qi4xq")
_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_UINT16 = struct.Struct("<H")
_UINT32 = struct.Struct("<I")
# Field numbers of the flatbuffer tables.
_MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 2, 3
_RECORD_BATCH_BUFFERS = 2
_FOOTER_DICTIONARIES, _FOOTER_RECORD_BATCHES = 2, 3
#: Collects small buffers into one write; larger ones go straight from Arrow's memory.
_WRITE_BUFFER_BYTES = 256 * 1024


def write_file(batch: pa.RecordBatch, path: Path) -> int:
    """Writes ``batch`` to a new file and returns its size in bytes.

    Args:
        batch: one batch; a slice writes its own rows only. Dictionary columns are refused.
        path: must not exist.

    Raises:
        ValueError: the schema holds a dictionary column.
        OSError: the file exists or cannot be written.
    """
    frame = _frame(batch.schema)
    layout = _lay_out(memoryview(batch.serialize()), start=len(frame.head))
    footer = bytearray(frame.footer)
    _BLOCK.pack_into(footer, frame.block, len(frame.head), len(layout.metadata), layout.body_bytes)
    with path.open("xb", buffering=_WRITE_BUFFER_BYTES) as file:
        file.write(frame.head)
        file.write(layout.metadata)
        for piece in layout.body:
            file.write(piece)
        file.write(_END_OF_STREAM)
        file.write(footer)
        file.write(_INT32.pack(len(footer)) + _MAGIC)
        return file.tell()


def checksum_of(path: Path) -> int:
    """The sum of a file's 64-bit words, modulo 2**64.

    It sees flipped bits, torn writes and pages of zeros, at 16 GB/s (a CRC: 0.4 GB/s, measured):
    cheap enough to be asked once by every process that maps the file.

    Raises:
        OSError: the file cannot be read.
    """
    with pa.memory_map(str(path)) as source:
        return _sum(source.read_buffer())


def map_file(path: Path, size: int, checksum: int | None = None) -> pa.RecordBatch:
    """The batch of a file written by :func:`write_file`, memory-mapped.

    No descriptor stays open; the mapping lives as long as a buffer of the batch, also after the
    file was unlinked.

    Args:
        path: the file.
        size: its size in bytes when it was written.
        checksum: what :func:`checksum_of` said then; None: it is not asked.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be opened.
        pa.ArrowInvalid: it has another size or checksum, or is no IPC file of one batch.
    """
    with pa.memory_map(str(path)) as source:
        if source.size() != size:
            raise pa.ArrowInvalid(f"the file holds {source.size()} bytes instead of {size}")
        if checksum is not None:
            if _sum(source.read_buffer()) != checksum:
                raise pa.ArrowInvalid("the file is not what was written")
            source.seek(0)
        return pa.ipc.open_file(source).get_batch(0)


def _sum(content: pa.Buffer) -> int:
    """Little-endian words; the last one is filled up with zeros."""
    words = np.frombuffer(content, "<u8", count=content.size // _INT64.size)
    rest = bytes(memoryview(content)[words.nbytes :])
    return (int(words.sum(dtype=np.uint64)) + int.from_bytes(rest, "little")) % 2**64


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all files of one schema share: all before the batch, and the footer.

    Attributes:
        block: where the footer's one Block stands.
    """

    head: bytes
    footer: bytes
    block: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """A record batch message laid out anew: the prefixed metadata and the padded body."""

    metadata: bytes
    body: tuple[memoryview | bytes, ...]
    body_bytes: int


@lru_cache(maxsize=64)
def _frame(schema: pa.Schema) -> _Frame:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema))
    file = sink.getvalue().to_pybytes()
    tail = len(file) - len(_MAGIC) - _INT32.size
    footer = file[tail - _INT32.unpack_from(file, tail)[0] : tail]
    root = _reference(footer, 0)
    dictionaries = _field(footer, root, _FOOTER_DICTIONARIES)
    if dictionaries and _UINT32.unpack_from(footer, _reference(footer, dictionaries))[0]:
        raise ValueError("a segment cannot hold dictionary columns")
    block = _reference(footer, _field(footer, root, _FOOTER_RECORD_BATCHES)) + _UINT32.size
    return _Frame(file[: _BLOCK.unpack_from(footer, block)[0]], footer, block)


def _lay_out(message: memoryview, start: int) -> _Layout:
    """Moves the buffers of an encapsulated record batch message to 64-byte boundaries.

    Args:
        message: prefix, metadata, body as pyarrow encodes them.
        start: where the message will stand in the file.
    """
    metadata_end = _PREFIX_BYTES + _INT32.unpack_from(message, len(_CONTINUATION))[0]
    metadata = bytearray(message[_PREFIX_BYTES:metadata_end])
    metadata += bytes(-(start + metadata_end) % ALIGNMENT)
    root = _reference(metadata, 0)
    header = _reference(metadata, _field(metadata, root, _MESSAGE_HEADER))
    vector = _reference(metadata, _field(metadata, header, _RECORD_BATCH_BUFFERS))
    body: list[memoryview | bytes] = []
    position = 0
    for index in range(_UINT32.unpack_from(metadata, vector)[0]):
        at = vector + _UINT32.size + index * _BUFFER.size
        offset, length = _BUFFER.unpack_from(metadata, at)
        _BUFFER.pack_into(metadata, at, position, length)
        padding = -length % ALIGNMENT
        body.append(message[metadata_end + offset : metadata_end + offset + length])
        body.append(bytes(padding))
        position += length + padding
    length_field = _field(metadata, root, _MESSAGE_BODY_LENGTH)
    if length_field:  # absent: the default, an empty body
        _INT64.pack_into(metadata, length_field, position)
    prefix = _CONTINUATION + _INT32.pack(len(metadata))
    return _Layout(prefix + metadata, tuple(body), position)


def _reference(buffer: bytes | bytearray, position: int) -> int:
    """Follows the relative offset that stands at ``position``."""
    return position + int(_UINT32.unpack_from(buffer, position)[0])


def _field(buffer: bytes | bytearray, table: int, number: int) -> int:
    """Where field ``number`` of a table stands; 0 where it has its default value."""
    vtable = table - _INT32.unpack_from(buffer, table)[0]
    slot = _UINT16.size * (2 + number)
    if slot >= _UINT16.unpack_from(buffer, vtable)[0]:
        return 0
    offset = int(_UINT16.unpack_from(buffer, vtable + slot)[0])
    return table + offset if offset else 0
