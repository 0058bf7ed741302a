"""Generated Avro schemas and records, and what fastavro says they are.

The expected values are computed from the schema's JSON and fastavro's raw readings (logical types
taken out), by other means than the decoder's: record by record, with Python's numbers.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

import fastavro
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from catalog.avro import RegistrySchema
from catalog.decode import Decoder
from catalog.errors import SchemaUnknown
from catalog.records import Chunk, Range
from catalog.schemas import DeclaredSchema, declare, metadata_schema
from catalog.spec import TableName, TableSpec

SPEC = TableSpec(TableName("market_data", "t"), ("t",))
_LOGICAL = ("logicalType", "precision", "scale")
_EXACT = Context(prec=60)
FUZZ = os.environ.get("K2_FUZZ") == "1"


def examples(count: int) -> settings:
    """Hypothesis settings: the same ``count`` examples every time; many new ones with K2_FUZZ=1."""
    return settings(
        max_examples=count * 100 if FUZZ else count,
        derandomize=not FUZZ,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


class Refused(Exception):
    """The value has no place in a table: a reject is expected."""


@dataclass
class KnownSchemas:
    """A registry in memory; runs through the registries' contract suite."""

    schemas: Mapping[int, object] = field(default_factory=dict)
    subjects: Mapping[str, int] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def get(self, schema_id: int) -> RegistrySchema:
        """As of every registry."""
        self.asked.append(schema_id)
        if schema_id not in self.schemas:
            raise SchemaUnknown(f"schema id {schema_id} is unknown")
        avro = self.schemas[schema_id]
        return RegistrySchema(schema_id, avro if isinstance(avro, Mapping) else {"type": avro})

    def latest(self, subject: str) -> RegistrySchema:
        """As of every registry."""
        if subject not in self.subjects:
            raise SchemaUnknown(f"subject {subject!r} is unknown")
        return self.get(self.subjects[subject])

    def close(self) -> None:
        """Nothing is open."""


def record(*fields: tuple[str, object], name: str = "R") -> dict[str, Any]:
    """A record schema of (name, type) pairs."""
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def decoder(
    avro: Mapping[str, Any], others: Mapping[int, object] | None = None, spec: TableSpec = SPEC
) -> tuple[Decoder, DeclaredSchema]:
    """A decoder of a table declared by ``avro`` under id 7; ``others`` are known by their ids."""
    schemas = {7: avro, **(others or {})}
    declared = declare(RegistrySchema(7, avro), spec)
    return Decoder(declared, KnownSchemas(schemas), spec), declared


def chunk_of(
    values: Sequence[bytes | None], *, topic: str = "t", partition: int = 0, first: int = 100
) -> Chunk:
    """A chunk of one partition; its offsets begin with ``first`` and have no gap."""
    rows = len(values)
    metadata = pa.RecordBatch.from_arrays(
        [
            pa.array([topic] * rows, pa.utf8()),
            pa.array([partition] * rows, pa.int32()),
            pa.array(range(first, first + rows), pa.int64()),
            pa.array([1_700_000_000_000_000] * rows, pa.timestamp("us", "UTC")),
        ],
        schema=metadata_schema(key=False, headers=False),
    )
    return Chunk(values, metadata, (Range(topic, partition, first, first + rows),))


def raw_schema(avro: Any) -> Any:
    """The schema without logical types."""
    if isinstance(avro, dict):
        return {k: raw_schema(v) for k, v in avro.items() if k not in _LOGICAL}
    return [raw_schema(v) for v in avro] if isinstance(avro, list) else avro


def encode(avro: Any, value: object, schema_id: int = 7) -> bytes:
    """One framed record, written by fastavro from raw values."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(raw_schema(avro)), value)
    return b"\0" + schema_id.to_bytes(4) + out.getvalue()


def read_strictly(avro: Any, body: bytes) -> Any:
    """The raw reading of fastavro of exactly one record.

    Raises:
        Refused: fastavro fails, or bytes are left over.
    """
    source = io.BytesIO(body)
    try:
        value = fastavro.schemaless_reader(source, fastavro.parse_schema(raw_schema(avro)))
    except (EOFError, IndexError, ValueError, StopIteration, OverflowError, MemoryError) as error:
        raise Refused from error
    if source.tell() != len(body):
        raise Refused
    return value


def expected(avro: Any, raw: Any, named: dict[str, Any] | None = None) -> Any:
    """What a table holds for a raw value, in :func:`plain`'s form.

    Raises:
        Refused: the value has no place in a table.
    """
    named = {} if named is None else named
    if isinstance(avro, str) and avro in named:
        avro = named[avro]
    if isinstance(avro, list):
        inner = next(b for b in avro if b != "null")
        return None if raw is None else expected(inner, raw, named)
    kind = avro["type"] if isinstance(avro, dict) else avro
    if isinstance(avro, dict) and "name" in avro:
        named[avro["name"]] = avro
    if kind == "record":
        # Every field, so that a named type is known although its first value is null.
        _define(avro, named)
        return {f["name"]: expected(f["type"], raw[f["name"]], named) for f in avro["fields"]}
    if kind == "array":
        return [expected(avro["items"], item, named) for item in raw]
    if kind == "map":
        return {key: expected(avro["values"], item, named) for key, item in raw.items()}
    return _expected_leaf(kind, avro if isinstance(avro, dict) else {}, raw)


def _define(avro: Any, named: dict[str, Any]) -> None:
    if isinstance(avro, list):
        for branch in avro:
            _define(branch, named)
    if isinstance(avro, dict):
        if "name" in avro and "type" in avro and avro["type"] in ("record", "enum", "fixed"):
            named[avro["name"]] = avro
        for key in ("items", "values", "type"):
            _define(avro.get(key), named)
        for f in avro.get("fields", ()):
            _define(f["type"], named)


def _expected_leaf(kind: str, avro: Mapping[str, Any], raw: Any) -> Any:  # noqa: C901 - a line per meaning
    logical = avro.get("logicalType")
    if kind == "int" and not -(2**31) <= raw < 2**31:
        raise Refused
    if kind == "long" and not -(2**63) <= raw < 2**63:
        raise Refused
    match logical:
        case "decimal":
            unscaled = int.from_bytes(raw, "big", signed=True)
            if abs(unscaled) >= 10 ** avro["precision"]:
                raise Refused
            return Decimal(unscaled).scaleb(-avro["scale"], _EXACT)
        case "time-millis" | "time-micros":
            micros = raw * (1000 if logical == "time-millis" else 1)
            if not 0 <= micros < 86_400_000_000:
                raise Refused
            return micros
        case "timestamp-millis" | "local-timestamp-millis":
            if not -(2**63) <= raw * 1000 < 2**63:
                raise Refused
            return raw * 1000
        case "timestamp-nanos" | "local-timestamp-nanos":
            return raw // 1000
        case "uuid" if kind == "fixed":
            return str(uuid.UUID(bytes=raw))
    return _bits(raw) if kind in ("float", "double") else raw


def plain(scalar: pa.Scalar) -> Any:
    """A scalar as Python values that compare exactly: times are integers, floats their bits."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_struct(kind):
        return {f.name: plain(scalar[i]) for i, f in enumerate(kind)}
    if pa.types.is_map(kind):
        entries = [(plain(e["key"]), plain(e["value"])) for e in scalar.values]
        assert len({k for k, _ in entries}) == len(entries)
        return dict(entries)
    if pa.types.is_list(kind):
        return [plain(item) for item in scalar.values]
    if pa.types.is_temporal(kind):
        return scalar.value
    return _bits(scalar.as_py()) if pa.types.is_floating(kind) else scalar.as_py()


def _bits(value: float) -> object:
    return "nan" if math.isnan(value) else struct.pack("<d", value)


def rows_of(batch: pa.RecordBatch, avro: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The topic's columns of a batch as :func:`plain` values."""
    names = [f["name"] for f in avro["fields"]]
    columns = [[plain(scalar) for scalar in batch.column(i)] for i in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


# --- strategies -----------------------------------------------------------------------------------


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    """A record of one to six fields of any supported type, nested three deep."""
    maker = _SchemaMaker(draw)
    return maker.record(depth=3)


class _SchemaMaker:
    """Draws types; named ones get new names, or are named again."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._names = itertools.count()
        self._known: list[str] = []

    def record(self, depth: int) -> dict[str, Any]:
        name = f"N{next(self._names)}"
        names = self._draw(
            st.lists(st.sampled_from("abcdefXYZ"), min_size=1, max_size=6, unique_by=str.lower)
        )
        fields = [{"name": n, "type": self.maybe_null(depth - 1)} for n in names]
        self._known.append(name)
        return {"type": "record", "name": name, "fields": fields}

    def maybe_null(self, depth: int) -> Any:
        inner = self.type(depth)
        order = self._draw(st.sampled_from(("plain", "first", "second")))
        return {"plain": inner, "first": ["null", inner], "second": [inner, "null"]}[order]

    def type(self, depth: int) -> Any:
        kinds = ["leaf", "leaf", "leaf", "named"]
        if depth > 0:
            kinds += ["array", "map", "record"]
        match self._draw(st.sampled_from(kinds)):
            case "array":
                return {"type": "array", "items": self.maybe_null(depth - 1)}
            case "map":
                return {"type": "map", "values": self.maybe_null(depth - 1)}
            case "record":
                return self.record(depth)
            case "named" if self._known:
                return self._draw(st.sampled_from(self._known))
        return self.leaf()

    def leaf(self) -> Any:
        leaf = self._draw(st.sampled_from(_LEAVES))
        if leaf == "decimal":
            leaf = self.decimal()
        if isinstance(leaf, dict) and leaf["type"] in ("fixed", "enum"):
            name = f"N{next(self._names)}"
            self._known.append(name)
            return {**leaf, "name": name}
        return leaf

    def decimal(self) -> dict[str, Any]:
        precision = self._draw(st.integers(1, 38))
        scale = self._draw(st.integers(0, precision))
        json = {"logicalType": "decimal", "precision": precision, "scale": scale}
        if self._draw(st.booleans()):
            return {"type": "bytes", **json}
        least = next(n for n in range(1, 20) if 10**precision <= 2 ** (8 * n - 1))
        return {"type": "fixed", "size": self._draw(st.integers(least, least + 4)), **json}


def _of(kind: str, logical: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "logicalType": logical, **more}


_LEAVES: list[Any] = [
    *("boolean", "int", "long", "float", "double", "bytes", "string"),
    *("decimal", "decimal", "decimal"),
    {"type": "fixed", "size": 3},
    {"type": "enum", "symbols": ["A", "B", "C"]},
    _of("int", "date"),
    _of("int", "time-millis"),
    _of("long", "time-micros"),
    _of("long", "timestamp-millis"),
    _of("long", "timestamp-micros"),
    _of("long", "local-timestamp-millis"),
    _of("long", "local-timestamp-micros"),
    _of("string", "uuid"),
    _of("fixed", "uuid", size=16),
]


def values_of(avro: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Raw values of a schema, extreme ones and such that no table can hold included."""
    named: dict[str, Any] = {}
    _define(avro, named)
    return _values(avro, named)


def _values(avro: Any, named: Mapping[str, Any]) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - a line per kind
    if isinstance(avro, str) and avro in named:
        avro = named[avro]
    if isinstance(avro, list):
        inner = next(b for b in avro if b != "null")
        return st.none() | _values(inner, named)
    kind = avro["type"] if isinstance(avro, dict) else avro
    json = avro if isinstance(avro, dict) else {}
    match kind:
        case "record":
            return st.fixed_dictionaries(
                {f["name"]: _values(f["type"], named) for f in json["fields"]}
            )
        case "array":
            return st.lists(_values(json["items"], named), max_size=3)
        case "map":
            return st.dictionaries(st.text(max_size=3), _values(json["values"], named), max_size=3)
        case "enum":
            return st.sampled_from(json["symbols"])
        case _ if json.get("logicalType") == "decimal":
            return _decimal_bytes(json)
        case "fixed":
            return st.binary(min_size=json["size"], max_size=json["size"])
        case _:
            return _leaf_values(kind, json.get("logicalType"))


def _leaf_values(kind: str, logical: str | None) -> st.SearchStrategy[Any]:
    valid_times = {"time-millis": 86_400_000, "time-micros": 86_400_000_000}
    if logical in valid_times:
        in_range = st.integers(0, valid_times[logical] - 1)
        return st.one_of(*[in_range] * 8, st.integers(-1, 2**31 - 1))
    ints = {"int": 31, "long": 63}
    if kind in ints:
        bits = ints[kind]
        edges = [-(2**bits), 2**bits - 1, 0, -1]
        small = st.integers(-(2**40) % 2**31, 2**40 % 2**31) | st.integers(-100, 100)
        return small | st.integers(-(2**bits), 2**bits - 1) | st.sampled_from(edges)
    return {
        "boolean": st.booleans(),
        "float": st.floats(width=32),
        "double": st.floats(),
        "bytes": st.binary(max_size=5),
        "string": st.text(max_size=5),
    }[kind]


def _decimal_bytes(json: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    limit = 10 ** json["precision"]
    if json["type"] == "fixed":
        size = json["size"]
        top = 2 ** (8 * size - 1)
        inside = st.integers(-limit + 1, limit - 1) | st.sampled_from((limit - 1, 1 - limit))
        outside = st.integers(-top, top - 1) | st.sampled_from((-top, top - 1, max(-limit, -top)))
        return st.one_of(*[inside] * 8, outside).map(lambda v: v.to_bytes(size, signed=True))
    numbers = st.integers(-limit + 1, limit - 1) | st.sampled_from((limit - 1, 1 - limit, 0, -1))
    outside = st.sampled_from((limit, -limit, limit * 10**5, -(2**127), 2**127 - 1, 2**130))
    padding = st.sampled_from((0, 0, 0, 1, 7, 20))
    sizes = st.tuples(st.one_of(*[numbers] * 8, outside), padding)
    return sizes.map(lambda v: v[0].to_bytes((v[0].bit_length() + 8) // 8 + v[1], signed=True))
