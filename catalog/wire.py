"""How records are encoded: the schema that the block reader is given, and the empty record.

The reader gets names by position (``c0``, ``c1``, …; named types are numbered), so no name of a
topic can disturb it, and no logical types but decimal: what values *mean* is
``catalog.columns``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pyarrow as pa

from catalog.avro import Leaf, ListOf, MapOf, Node, Nullable, RecordOf

#: Bytes of the nonce in front of every record of a block: 2⁻⁶⁴ is the chance of one bad record to
#: pass for good, and the compare is one of 64-bit integers.
NONCE_BYTES = 8
#: Bytes of Confluent's frame: a zero, then the schema id, big-endian.
#: Source: Confluent Schema Registry, "Wire format".
FRAME_BYTES = 5

Json = str | list["Json"] | dict[str, object]


def block_schema(record: RecordOf) -> dict[str, object]:
    """The writer's schema of a block: nonce, frame, then the record's fields.

    Enums are ints (the encoding is the same; the index is checked afterwards). A union with null
    gets a third branch that nobody writes: the reader takes any index but null's for the other
    branch in unions of two, and checks it in unions of three.
    """
    names = count()
    body = _record(record, names)
    prefix = [
        {"name": "nonce", "type": {"type": "fixed", "name": "k2_nonce", "size": NONCE_BYTES}},
        {"name": "frame", "type": {"type": "fixed", "name": "k2_frame", "size": FRAME_BYTES}},
    ]
    fields = body["fields"]
    assert isinstance(fields, list)  # noqa: S101 - made a few lines below
    return {**body, "fields": [*prefix, *fields]}


def empty_value(node: Node) -> bytes:
    """The encoding of a small valid value: null, zero, the first symbol, or nothing."""
    match node:
        case RecordOf():
            return b"".join(empty_value(f.node) for f in node.fields)
        case Nullable():
            return b"\0" if node.branch == 1 else b"\x02"
        case Leaf(wire="fixed"):
            return bytes(node.size)
        case Leaf(wire="float"):
            return bytes(4)
        case Leaf(wire="double"):
            return bytes(8)
        case _:
            return b"\0"


def long_bytes(value: int) -> bytes:
    """Avro's encoding of an integer of 64 bits: zigzag, then base 128 with the lowest first."""
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def with_type_names(schema: pa.Schema, avro: Mapping[str, object]) -> pa.Schema:
    """``schema`` with the metadata that the block reader puts on fields of named types.

    The reader infers a schema without the metadata, then refuses to cast a union's children to
    it. So the inferred schema is completed, and nothing is cast.

    Args:
        schema: as inferred from a block of :func:`block_schema`.
        avro: that block schema.
    """
    fields = avro["fields"]
    assert isinstance(fields, list)  # noqa: S101 - block_schema made it
    return pa.schema(
        [_named(field, json["type"]) for field, json in zip(schema, fields, strict=True)]
    )


def _record(record: RecordOf, names: Iterator[int]) -> dict[str, object]:
    name = f"k2_{next(names)}"
    fields = [{"name": f"c{i}", "type": _type(f.node, names)} for i, f in enumerate(record.fields)]
    return {"type": "record", "name": name, "fields": fields}


def _type(node: Node, names: Iterator[int]) -> Json:
    match node:
        case RecordOf():
            return _record(node, names)
        case ListOf():
            return {"type": "array", "items": _type(node.item, names)}
        case MapOf():
            return {"type": "map", "values": _type(node.value, names)}
        case Nullable():
            inner = _type(node.inner, names)
            pair: list[Json] = [inner, "null"] if node.branch == 0 else ["null", inner]
            return [*pair, "int" if inner == "boolean" else "boolean"]
        case Leaf():
            return _leaf(node, names)


def _leaf(leaf: Leaf, names: Iterator[int]) -> Json:
    if leaf.wire == "enum":
        return "int"
    if leaf.wire != "fixed" and leaf.meaning != "decimal":
        return leaf.wire
    json: dict[str, object] = {"type": leaf.wire}
    if leaf.wire == "fixed":
        json |= {"name": f"k2_{next(names)}", "size": leaf.size}
    if leaf.meaning == "decimal":
        json |= {"logicalType": "decimal", "precision": leaf.precision, "scale": leaf.scale}
    return json


def _named(field: pa.Field, avro: Any) -> pa.Field:
    field = field.with_type(_named_type(field.type, avro))
    if not isinstance(avro, dict):
        return field
    kept = {"avro.name": "name", "precision": "precision", "scale": "scale"}
    return field.with_metadata({key: str(avro[k]) for key, k in kept.items() if k in avro})


def _named_type(kind: pa.DataType, avro: Any) -> pa.DataType:
    match avro:
        case list():
            children = [_named(kind.field(i), branch) for i, branch in enumerate(avro)]
            return pa.dense_union(children, kind.type_codes)
        case {"type": "record", "fields": fields}:
            return pa.struct([_named(kind.field(i), f["type"]) for i, f in enumerate(fields)])
        case {"items": items}:
            return pa.list_(_named(kind.value_field, items))
        case {"values": values}:
            return pa.map_(kind.key_field, _named(kind.item_field, values))
        case _:
            return kind
