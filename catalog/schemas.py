"""The declared schema of a table: the topic's fields, then the record's Kafka metadata.

Plain Arrow types only, chosen so that Parquet, Iceberg and every Flight SQL client hold them:
utf8, binary, fixed_size_binary, bool, int32, int64, float32, float64, decimal128, date32,
time64[us], timestamp[us] with zone UTC (an instant) or without (a local one), list (child
``element``), map (``key``, ``value``) and struct.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from catalog.avro import RecordOf, RegistrySchema, arrow_field, parse_record
from catalog.errors import SchemaRefused
from catalog.spec import TableSpec

__all__ = [
    "HEADERS",
    "KEY",
    "OFFSET",
    "PARTITION",
    "TIMESTAMP",
    "TOPIC",
    "DeclaredSchema",
    "RegistrySchema",
    "declare",
    "metadata_schema",
    "record_of",
    "topic_record",
]

TOPIC, PARTITION, OFFSET = "_topic", "_partition", "_offset"
TIMESTAMP, KEY, HEADERS = "_kafka_timestamp", "_key", "_headers"
_RESERVED = frozenset((TOPIC, PARTITION, OFFSET, TIMESTAMP, KEY, HEADERS))

_HEADER = pa.struct([pa.field("key", pa.utf8()), pa.field("value", pa.binary())])
_ALWAYS = (
    pa.field(TOPIC, pa.utf8(), nullable=False),
    pa.field(PARTITION, pa.int32(), nullable=False),
    pa.field(OFFSET, pa.int64(), nullable=False),
    pa.field(TIMESTAMP, pa.timestamp("us", "UTC")),
)


def metadata_schema(*, key: bool, headers: bool) -> pa.Schema:
    """The columns that say where a row comes from.

    Columns: ``_topic`` utf8 not null, ``_partition`` int32 not null, ``_offset`` int64 not null,
    ``_kafka_timestamp`` timestamp[us, UTC]; then on request ``_key`` binary (null: the record has
    none) and ``_headers`` list<element: struct<key: utf8, value: binary>> (null: none).
    """
    fields = list(_ALWAYS)
    if key:
        fields.append(pa.field(KEY, pa.binary()))
    if headers:
        fields.append(pa.field(HEADERS, pa.list_(pa.field("element", _HEADER))))
    return pa.schema(fields)


@dataclass(frozen=True, slots=True)
class DeclaredSchema:
    """What every row of a table looks like, whatever schema its record was written with.

    Attributes:
        arrow: the topic's columns in the schema's order, then :func:`metadata_schema`'s.
        schema_id: the registry id that the table is declared by.
        avro: that schema's parsed JSON.
    """

    arrow: pa.Schema
    schema_id: int
    avro: Mapping[str, object]


def declare(schema: RegistrySchema, spec: TableSpec) -> DeclaredSchema:
    """The declared schema of the table that ``spec`` feeds from records of ``schema``.

    Raises:
        SchemaRefused: a field has a type that a table cannot hold, or the name of a metadata
            column (case ignored; also of those that this table does not ask for).
    """
    record = topic_record(schema, spec)
    columns = [arrow_field(f) for f in record.fields]
    metadata = metadata_schema(key=spec.key, headers=spec.headers)
    return DeclaredSchema(pa.schema([*columns, *metadata]), schema.schema_id, schema.avro)


def topic_record(schema: RegistrySchema, spec: TableSpec) -> RecordOf:
    """The tree of a topic's schema. Errors as :func:`declare`."""
    record = parse_record(schema, spec.timestamp_nanos)
    for field in record.fields:
        if field.name.lower() in _RESERVED:
            raise SchemaRefused(
                f"schema id {schema.schema_id}, field {field.name!r}: the name is taken by the "
                f"column of Kafka metadata; rename the field"
            )
    return record


def record_of(declared: DeclaredSchema, spec: TableSpec) -> RecordOf:
    """The tree that the declared columns stand for, aliases and defaults included."""
    return parse_record(RegistrySchema(declared.schema_id, declared.avro), spec.timestamp_nanos)
