"""Avro schemas as a tree: names resolved, what a table cannot hold refused, Arrow types chosen.

The registry hands out Avro JSON. :func:`parse_record` turns it into a tree of :class:`Node` that
holds no name references, no namespaces and no unions but "nullable"; the decoder and the declared
schema are functions of that tree.

Source: Apache Avro 1.12 specification, "Schema Declaration", "Names", "Logical Types".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeGuard

import pyarrow as pa

from catalog.errors import SchemaRefused, shorten
from catalog.spec import TimestampNanos

#: Depth of nesting that is read; deeper schemas would end in Python's recursion limit.
MAX_DEPTH = 32
#: Types in one schema after references are followed: a chain of records that each name the next
#: one twice doubles at every step.
MAX_NODES = 10_000
#: Digits that Arrow's decimal128 and Iceberg's decimal hold.
MAX_PRECISION = 38

#: Bytes of a fixed: far more than a Kafka record holds by default, and small enough to allocate.
MAX_FIXED_BYTES = 16 * 1024 * 1024

Primitive = Literal["boolean", "int", "long", "float", "double", "bytes", "string"]
Meaning = Literal[
    "plain", "decimal", "date", "time-millis", "time-micros", "millis", "micros", "nanos", "uuid"
]
#: Stands for "the field has no default" (None is a default).
NO_DEFAULT = object()

_PRIMITIVES = ("boolean", "int", "long", "float", "double", "bytes", "string")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: (base type, logical type) → what the value means. Other pairs are the base type alone, as the
#: specification asks.
_MEANINGS: Mapping[tuple[str, str], Meaning] = {
    ("bytes", "decimal"): "decimal",
    ("fixed", "decimal"): "decimal",
    ("int", "date"): "date",
    ("int", "time-millis"): "time-millis",
    ("long", "time-micros"): "time-micros",
    ("long", "timestamp-millis"): "millis",
    ("long", "timestamp-micros"): "micros",
    ("long", "timestamp-nanos"): "nanos",
    ("long", "local-timestamp-millis"): "millis",
    ("long", "local-timestamp-micros"): "micros",
    ("long", "local-timestamp-nanos"): "nanos",
    ("string", "uuid"): "uuid",
    ("fixed", "uuid"): "uuid",
}
_PLAIN_ARROW: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.utf8(),
    "enum": pa.utf8(),
}
_MEANING_ARROW: Mapping[str, pa.DataType] = {
    "date": pa.date32(),
    "time-millis": pa.time64("us"),
    "time-micros": pa.time64("us"),
    "uuid": pa.utf8(),
}
_INSTANTS = ("millis", "micros", "nanos")


@dataclass(frozen=True, slots=True)
class RegistrySchema:
    """A schema as the registry knows it; immutable, as registry ids are.

    Attributes:
        schema_id: the id that stands in the records' frames.
        avro: the parsed JSON; types of referenced subjects stand inside it at their first use.
    """

    schema_id: int
    avro: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A type without children.

    Attributes:
        wire: how it is encoded.
        meaning: what the encoded value says.
        utc: whether a timestamp is an instant (False: a local one).
        size: bytes of a fixed.
        symbols: of an enum, by index.
    """

    wire: Primitive | Literal["fixed", "enum"]
    meaning: Meaning = "plain"
    utc: bool = False
    size: int = 0
    precision: int = 0
    scale: int = 0
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array."""

    item: Node


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map; its keys are strings."""

    value: Node


@dataclass(frozen=True, slots=True)
class Nullable:
    """A union of null and one type; ``branch`` is the index of the type that is not null."""

    inner: Leaf | ListOf | MapOf | RecordOf
    branch: int


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field; ``default`` is Avro's JSON form, or :data:`NO_DEFAULT`."""

    name: str
    node: Node
    aliases: tuple[str, ...] = ()
    default: object = NO_DEFAULT


@dataclass(frozen=True, slots=True)
class RecordOf:
    """A record of at least one field."""

    fields: tuple[RecordField, ...]


Node = Leaf | ListOf | MapOf | Nullable | RecordOf


def parse_record(schema: RegistrySchema, nanos: TimestampNanos) -> RecordOf:
    """The tree of a topic's schema.

    Args:
        schema: a registry schema whose top level is a record.
        nanos: what a field of type timestamp-nanos becomes.

    Raises:
        SchemaRefused: recursive types, unions other than of null and one type, null and empty
            records, duration, malformed decimals or decimals over 38 digits, unknown names, names
            that differ only in case, schemas that are too deep or too large; the message names
            the field's path.
    """
    node = _Parser(schema.schema_id, nanos).parse(schema.avro, _Place())
    if not isinstance(node, RecordOf):
        raise SchemaRefused(
            f"schema id {schema.schema_id} is no record: a table needs named columns"
        )
    return node


def arrow_type(node: Node) -> pa.DataType:
    """The plain Arrow type of a node (a nullable's is its inner one's)."""
    match node:
        case Nullable():
            return arrow_type(node.inner)
        case ListOf():
            return pa.list_(pa.field("element", arrow_type(node.item), is_nullable(node.item)))
        case MapOf():
            value = pa.field("value", arrow_type(node.value), is_nullable(node.value))
            return pa.map_(pa.field("key", pa.utf8(), nullable=False), value)
        case RecordOf():
            return pa.struct([arrow_field(f) for f in node.fields])
        case Leaf():
            return _leaf_arrow_type(node)


def arrow_field(record_field: RecordField) -> pa.Field:
    """The Arrow field of a record's field."""
    node = record_field.node
    return pa.field(record_field.name, arrow_type(node), is_nullable(node))


def is_nullable(node: Node) -> bool:
    """Whether the type is a union with null."""
    return isinstance(node, Nullable)


def _leaf_arrow_type(leaf: Leaf) -> pa.DataType:
    if leaf.meaning == "decimal":
        return pa.decimal128(leaf.precision, leaf.scale)
    if leaf.meaning in _INSTANTS:
        return pa.timestamp("us", "UTC" if leaf.utc else None)
    if leaf.meaning == "plain" and leaf.wire == "fixed":
        return pa.binary(leaf.size)
    return _MEANING_ARROW.get(leaf.meaning) or _PLAIN_ARROW[leaf.wire]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the parser stands: the path for messages, and what names are relative to."""

    path: str = ""
    namespace: str = ""
    depth: int = 0
    inside: frozenset[str] = field(default_factory=frozenset)

    def child(self, name: str) -> _Place:
        return replace(self, path=f"{self.path}.{name}" if self.path else name)


class _Parser:
    """One walk over one schema; remembers the definitions that were met."""

    def __init__(self, schema_id: int, nanos: TimestampNanos) -> None:
        self._id = schema_id
        self._nanos = nanos
        self._named: dict[str, tuple[Mapping[str, object], str]] = {}
        self._nodes = 0

    def parse(self, avro: object, place: _Place) -> Node:
        self._count(place)
        place = replace(place, depth=place.depth + 1)
        if isinstance(avro, str):
            return self._by_name(avro, place)
        if isinstance(avro, list):
            return self._union(avro, place)
        if not isinstance(avro, Mapping):
            raise self._refuse(place, f"{shorten(avro)!r} is no Avro type")
        return self._complex(avro, place)

    def _complex(self, avro: Mapping[str, object], place: _Place) -> Node:  # noqa: PLR0911 - a line per kind
        match avro.get("type"):
            case "record" | "error":
                return self._record(avro, place)
            case "enum":
                return self._enum(avro, place)
            case "fixed":
                return self._fixed(avro, place)
            case "array":
                return ListOf(self.parse(avro.get("items"), place.child("element")))
            case "map":
                return MapOf(self.parse(avro.get("values"), place.child("value")))
            case str() as name if name in _PRIMITIVES:
                return self._leaf(Leaf(wire=name), avro, place)  # type: ignore[arg-type] # the tuple holds the Literal's names
            case inner:
                return self.parse(inner, place)

    def _count(self, place: _Place) -> None:
        self._nodes += 1
        if place.depth > MAX_DEPTH:
            raise self._refuse(place, f"nested deeper than {MAX_DEPTH} types")
        if self._nodes > MAX_NODES:
            raise self._refuse(place, f"more than {MAX_NODES} types")

    def _by_name(self, name: str, place: _Place) -> Node:
        if name in _PRIMITIVES:
            return Leaf(wire=name)  # type: ignore[arg-type] # the tuple holds the Literal's names
        if name == "null":
            raise self._refuse(place, "type null holds no value: remove the field")
        full = name if "." in name or not place.namespace else f"{place.namespace}.{name}"
        found = full if full in self._named else name
        if found in place.inside:
            raise self._refuse(place, f"type {shorten(found)} contains itself")
        if found not in self._named:
            raise self._refuse(place, f"no type has the name {shorten(name)!r}")
        definition, namespace = self._named[found]
        return self.parse({**definition, "name": found}, replace(place, namespace=namespace))

    def _union(self, branches: list[object], place: _Place) -> Node:
        others = [(i, b) for i, b in enumerate(branches) if b not in ("null", {"type": "null"})]
        if len(branches) != 2 or len(others) != 1:  # noqa: PLR2004 - null and one other
            raise self._refuse(
                place, f"a union of {len(branches)} branches: only null and one type make a column"
            )
        branch, inner = others[0]
        node = self.parse(inner, place)
        if isinstance(node, Nullable):
            raise self._refuse(place, "a union directly inside a union")
        return Nullable(node, branch)

    def _record(self, avro: Mapping[str, object], place: _Place) -> RecordOf:
        place = self._define(avro, place)
        fields = avro.get("fields")
        if not isinstance(fields, list) or not fields:
            raise self._refuse(place, "a record without fields")
        parsed = tuple(self._field(f, place) for f in fields)
        seen: dict[str, str] = {}
        for f in parsed:
            other = seen.setdefault(f.name.lower(), f.name)
            if other is not f.name:
                raise self._refuse(
                    place.child(f.name), f"same name as {other!r} where case is ignored: rename one"
                )
        return RecordOf(parsed)

    def _field(self, avro: object, place: _Place) -> RecordField:
        name = avro.get("name") if isinstance(avro, Mapping) else None
        if not isinstance(avro, Mapping) or not isinstance(name, str) or not _NAME.match(name):
            raise self._refuse(place, f"{shorten(name)!r} is no field name")
        aliases = avro.get("aliases", ())
        return RecordField(
            name=name,
            node=self.parse(avro.get("type"), place.child(name)),
            aliases=tuple(str(a) for a in aliases) if isinstance(aliases, list) else (),
            default=avro.get("default", NO_DEFAULT),
        )

    def _enum(self, avro: Mapping[str, object], place: _Place) -> Leaf:
        place = self._define(avro, place)
        symbols = avro.get("symbols")
        if not isinstance(symbols, list) or not symbols:
            raise self._refuse(place, "an enum without symbols")
        return Leaf(wire="enum", symbols=tuple(str(s) for s in symbols))

    def _fixed(self, avro: Mapping[str, object], place: _Place) -> Leaf:
        place = self._define(avro, place)
        size = avro.get("size")
        if not _is_int(size) or not 0 < size <= MAX_FIXED_BYTES:
            raise self._refuse(place, f"a fixed of size {shorten(size)}; 1 to {MAX_FIXED_BYTES}")
        return self._leaf(Leaf(wire="fixed", size=size), avro, place)

    def _leaf(self, leaf: Leaf, avro: Mapping[str, object], place: _Place) -> Leaf:
        logical = str(avro.get("logicalType"))  # what is no name is unknown, and ignored
        if logical == "duration":
            raise self._refuse(place, "a duration has no SQL type here")
        meaning = _MEANINGS.get((leaf.wire, logical), "plain")
        if meaning == "decimal":
            return self._decimal(leaf, avro, place)
        if meaning == "uuid" and leaf.wire == "fixed" and leaf.size != 16:  # noqa: PLR2004 - 128 bits
            return leaf
        if meaning == "nanos" and self._nanos != "truncate":
            if self._nanos == "refuse":
                raise self._refuse(
                    place,
                    "timestamp-nanos does not fit microseconds: set timestamp_nanos to "
                    "'as_long' or 'truncate'",
                )
            return leaf
        return replace(leaf, meaning=meaning, utc=not logical.startswith("local-"))

    def _decimal(self, leaf: Leaf, avro: Mapping[str, object], place: _Place) -> Leaf:
        precision, scale = avro.get("precision"), avro.get("scale", 0)
        if not _is_int(precision) or not _is_int(scale) or precision < 1:
            raise self._refuse(place, "a decimal needs a precision and a scale that are integers")
        if precision > MAX_PRECISION:
            raise self._refuse(
                place, f"decimal of {precision} digits; {MAX_PRECISION} are the most"
            )
        if not 0 <= scale <= precision:
            raise self._refuse(place, f"decimal scale {scale} is outside 0..{precision}")
        if leaf.wire == "fixed" and 10**precision > 2 ** (8 * leaf.size - 1):
            raise self._refuse(place, f"{precision} digits do not fit a fixed of {leaf.size} bytes")
        return replace(leaf, meaning="decimal", precision=precision, scale=scale)

    def _define(self, avro: Mapping[str, object], place: _Place) -> _Place:
        name, namespace = avro.get("name"), avro.get("namespace")
        if not isinstance(name, str) or not name:
            raise self._refuse(place, f"a {avro.get('type')} without a name")
        if "." in name:
            namespace = name.rpartition(".")[0]
        elif not isinstance(namespace, str):
            namespace = place.namespace
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        self._named.setdefault(full, (avro, namespace))
        return replace(place, namespace=namespace, inside=place.inside | {full})

    def _refuse(self, place: _Place, why: str) -> SchemaRefused:
        where = f"field {shorten(place.path)!r}" if place.path else "the top level"
        return SchemaRefused(f"schema id {self._id}, {where}: {why}")


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
