"""One record at a time: what is wrong with a value, in words.

A block of many records cannot say which one is bad. This reader walks a single value by the
writer's tree and either says what is wrong, or gives the value back in Avro's plainest encoding
(shortest integers, one block per array), so that the block reader gets nothing unusual. It is slow
and only runs over chunks that hold a bad record.

Source: Apache Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from catalog.avro import Leaf, ListOf, MapOf, Node, Nullable, RecordOf
from catalog.errors import shorten
from catalog.wire import long_bytes

#: Bytes of the longest integer: ten groups of seven bits hold 64.
_MAX_GROUPS = 10
_WORD = 1 << 64
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1
#: Bytes of an unscaled decimal that the block reader holds.
_DECIMAL_BYTES = 16
_DECIMAL_END = 1 << 8 * _DECIMAL_BYTES - 1


class MalformedError(ValueError):
    """A value is not exactly one record; the text says why, without the record's bytes."""


def plain_record(record: RecordOf, body: bytes) -> bytes:
    """The one record that ``body`` is, in its plainest encoding.

    Raises:
        MalformedError: ``body`` is no record, or more than one.
    """
    cursor = _Cursor(body)
    out: list[bytes] = []
    _copy(record, cursor, out, "")
    if cursor.at != len(body):
        raise MalformedError(f"{len(body) - cursor.at} bytes follow the record")
    return b"".join(out)


@dataclass(slots=True)
class _Cursor:
    """A place in a value."""

    body: bytes
    at: int = 0

    def take(self, size: int, path: str) -> bytes:
        if size < 0:
            raise MalformedError(f"{path}: a length of {size}")
        if size > len(self.body) - self.at:
            raise MalformedError(f"{path}: the value ends inside the record")
        self.at += size
        return self.body[self.at - size : self.at]

    def integer(self, path: str) -> int:
        value = 0
        for group in range(_MAX_GROUPS):
            byte = self.take(1, path)[0]
            value |= (byte & 0x7F) << (7 * group)
            if byte < 0x80:  # noqa: PLR2004 - the bit that says "more follows"
                if value >= _WORD:
                    break
                return (value >> 1) ^ -(value & 1)
        raise MalformedError(f"{path}: an integer of more than 64 bits")


def _copy(node: Node, cursor: _Cursor, out: list[bytes], path: str) -> None:
    match node:
        case RecordOf():
            for field in node.fields:
                _copy(field.node, cursor, out, f"{path}.{field.name}" if path else field.name)
        case Nullable():
            branch = cursor.integer(path)
            if branch not in (0, 1):
                raise MalformedError(f"{path}: the union has no branch {branch}")
            out.append(long_bytes(branch))
            if branch == node.branch:
                _copy(node.inner, cursor, out, path)
        case ListOf():
            where = f"{path}.element"
            _blocks(cursor, out, path, lambda items: _copy(node.item, cursor, items, where))
        case MapOf():
            _blocks(cursor, out, path, lambda items: _entry(node, cursor, items, path))
        case Leaf():
            out.append(_leaf(node, cursor, path))


def _blocks(
    cursor: _Cursor, out: list[bytes], path: str, copy_item: Callable[[list[bytes]], None]
) -> None:
    """The items of an array or map, whatever its blocks, as one block."""
    items: list[bytes] = []
    total = 0
    while count := cursor.integer(path):
        if count < 0:
            cursor.integer(path)  # bytes of the block, for readers that skip
        if abs(count) > len(cursor.body):
            raise MalformedError(f"{path}: {shorten(count)} items in {len(cursor.body)} bytes")
        for _ in range(abs(count)):
            copy_item(items)
        total += abs(count)
    out.extend((long_bytes(total), *items, b"\0") if total else (b"\0",))


def _entry(node: MapOf, cursor: _Cursor, out: list[bytes], path: str) -> None:
    out.append(_text(cursor, f"{path}.key"))
    _copy(node.value, cursor, out, f"{path}.value")


def _leaf(leaf: Leaf, cursor: _Cursor, path: str) -> bytes:
    match leaf.wire:
        case "boolean":
            return b"\1" if cursor.take(1, path) != b"\0" else b"\0"
        case "long":
            return long_bytes(cursor.integer(path))
        case "int" | "enum":
            value = cursor.integer(path)
            if not _INT_MIN <= value <= _INT_MAX:
                raise MalformedError(f"{path}: {value} is no integer of 32 bits")
            return long_bytes(value)
        case "string":
            return _text(cursor, path)
        case "float" | "double":
            return cursor.take(4 if leaf.wire == "float" else 8, path)
        case "bytes" | "fixed":
            return _bytes(leaf, cursor, path)


def _bytes(leaf: Leaf, cursor: _Cursor, path: str) -> bytes:
    size = leaf.size if leaf.wire == "fixed" else cursor.integer(path)
    value = cursor.take(size, path)
    if leaf.meaning == "decimal" and not _holds(leaf, value):
        raise MalformedError(f"{path}: beyond decimal128({leaf.precision}, {leaf.scale})")
    if leaf.wire == "fixed":
        return value
    if leaf.meaning == "decimal" and size > _DECIMAL_BYTES:
        value = value[-_DECIMAL_BYTES:]  # the rest repeats the sign
    return long_bytes(len(value)) + value


def _holds(leaf: Leaf, value: bytes) -> bool:
    """Whether the block reader can take a decimal; its precision is ``catalog.columns``' to see."""
    unscaled = int.from_bytes(value, signed=True)
    if leaf.wire == "fixed" and leaf.size > _DECIMAL_BYTES:
        end: int = 10**leaf.precision
        return abs(unscaled) < end
    return -_DECIMAL_END <= unscaled < _DECIMAL_END


def _text(cursor: _Cursor, path: str) -> bytes:
    value = cursor.take(cursor.integer(path), path)
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"{path}: text that is not UTF-8") from error
    return long_bytes(len(value)) + value
