"""Avro's default values: JSON in the schema, a value in the column.

Source: Apache Avro 1.12 specification, "Complex Types" (field default values).
"""

from __future__ import annotations

import struct
from typing import Any

from catalog.avro import NO_DEFAULT, Leaf, ListOf, MapOf, Node, Nullable, RecordField, RecordOf
from catalog.errors import SchemaRefused, shorten
from catalog.wire import long_bytes


def default_bytes(field: RecordField) -> bytes:
    """The encoding of a field's default.

    Raises:
        SchemaRefused: the default is no value of the field's type.
    """
    try:
        return _encode(field.node, field.default)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, OverflowError) as error:
        raise SchemaRefused(
            f"field {field.name!r}: the default {shorten(field.default)} is no value of its type"
        ) from error


def _encode(node: Node, default: Any) -> bytes:
    match node:
        case Nullable():
            if default is None:
                return long_bytes(1 - node.branch)
            return long_bytes(node.branch) + _encode(node.inner, default)
        case RecordOf():
            return b"".join(_member(f, default) for f in node.fields)
        case ListOf():
            return _block([_encode(node.item, item) for item in _of(list, default)])
        case MapOf():
            entries = _of(dict, default).items()
            return _block([_text(key) + _encode(node.value, value) for key, value in entries])
        case Leaf():
            return _leaf(node, default)


def _member(field: RecordField, default: Any) -> bytes:
    value = _of(dict, default).get(field.name, field.default)
    if value is NO_DEFAULT:
        raise KeyError(field.name)
    return _encode(field.node, value)


def _leaf(leaf: Leaf, default: Any) -> bytes:  # noqa: C901, PLR0911 - a line per encoding
    match leaf.wire:
        case "boolean":
            return b"\1" if _of(bool, default) else b"\0"
        case "int":
            return long_bytes(struct.unpack("<i", struct.pack("<i", default))[0])
        case "long":
            return long_bytes(struct.unpack("<q", struct.pack("<q", default))[0])
        case "float":
            return struct.pack("<f", default)
        case "double":
            return struct.pack("<d", default)
        case "enum":
            return long_bytes(leaf.symbols.index(default))
        case "string":
            return _text(default)
        case "bytes" | "fixed":
            # One character per byte, code points 0 to 255.
            value = bytes(_of(str, default), "latin-1")
            if leaf.wire == "bytes":
                return long_bytes(len(value)) + value
            if len(value) != leaf.size:
                raise ValueError(len(value))
            return value


def _block(items: list[bytes]) -> bytes:
    return b"".join((long_bytes(len(items)), *items, b"\0")) if items else b"\0"


def _text(value: Any) -> bytes:
    encoded = _of(str, value).encode()
    return long_bytes(len(encoded)) + bytes(encoded)


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(type(value).__name__)
    return value
