"""Messages of Protocol Buffers, as far as the engine's plans are read and changed as bytes.

Source: the encoding's specification, protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Field number and raw bytes (key included) of every field of a message.

    Raises:
        ValueError: it is no message.
    """
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _BYTES:
            length, at = _varint(message, at)
            at += length
        elif wire in {_FIXED32, _FIXED64}:
            at += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("this is not a protobuf message")
        yield key >> 3, message[start:at]


def without(message: bytes, path: Sequence[int], numbers: frozenset[int]) -> bytes:
    """A message without these fields of the messages inside that ``path`` leads to.

    Raises:
        ValueError: it is no message.
    """
    kept = bytearray()
    for number, raw in fields(message):
        if path and number == path[0]:
            kept += bytes_field(number, without(payload(raw), path[1:], numbers))
        elif path or number not in numbers:
            kept += raw
    return bytes(kept)


def payload(raw: bytes) -> bytes:
    """What a field of bytes, or of a message, holds."""
    _, start = _varint(raw, 0)
    length, start = _varint(raw, start)
    return raw[start : start + length]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the continuation bit
            return value, at
        shift += 7


def bytes_field(number: int, held: bytes) -> bytes:
    """A field that holds these bytes, or this message."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(held)) + held


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
