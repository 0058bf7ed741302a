"""Registry schema → declared Arrow schema: every type once, and everything that is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from support_avro import SPEC, record

from catalog.avro import MAX_DEPTH, Leaf, RecordOf, RegistrySchema, parse_record
from catalog.errors import SchemaRefused
from catalog.schemas import HEADERS, KEY, declare, metadata_schema

NANOS = {"type": "long", "logicalType": "timestamp-nanos"}
INSTANT = pa.timestamp("us", "UTC")


def _decimal(precision: object, scale: object = 0, **more: object) -> dict[str, object]:
    return {
        "type": "bytes",
        "logicalType": "decimal",
        "precision": precision,
        "scale": scale,
        **more,
    }


def _logical(kind: str, logical: str) -> dict[str, str]:
    return {"type": kind, "logicalType": logical}


def _element(kind: pa.DataType, *, nullable: bool = False) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable))


def _map(kind: pa.DataType, *, nullable: bool = False) -> pa.DataType:
    return pa.map_(pa.field("key", pa.utf8(), nullable=False), pa.field("value", kind, nullable))


@pytest.mark.parametrize(
    ("avro", "arrow"),
    [
        ("boolean", pa.bool_()),
        ("int", pa.int32()),
        ("long", pa.int64()),
        ("float", pa.float32()),
        ("double", pa.float64()),
        ("bytes", pa.binary()),
        ("string", pa.utf8()),
        ({"type": {"type": "string"}}, pa.utf8()),
        ({"type": "string", "avro.java.string": "String"}, pa.utf8()),
        ({"type": "fixed", "name": "F", "size": 4}, pa.binary(4)),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, pa.utf8()),
        (_decimal(18, 8), pa.decimal128(18, 8)),
        (_decimal(38, 38), pa.decimal128(38, 38)),
        (_decimal(18, 8, type="fixed", name="D", size=8), pa.decimal128(18, 8)),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4}, pa.decimal128(4, 0)),
        (_logical("int", "date"), pa.date32()),
        (_logical("int", "time-millis"), pa.time64("us")),
        (_logical("long", "time-micros"), pa.time64("us")),
        (_logical("long", "timestamp-millis"), INSTANT),
        (_logical("long", "timestamp-micros"), INSTANT),
        (_logical("long", "local-timestamp-millis"), pa.timestamp("us")),
        (_logical("long", "local-timestamp-micros"), pa.timestamp("us")),
        (_logical("string", "uuid"), pa.utf8()),
        ({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}, pa.utf8()),
        ({"type": "array", "items": "int"}, _element(pa.int32())),
        ({"type": "array", "items": ["null", "int"]}, _element(pa.int32(), nullable=True)),
        ({"type": "map", "values": "int"}, _map(pa.int32())),
        ({"type": "map", "values": ["int", "null"]}, _map(pa.int32(), nullable=True)),
        (
            record(("x", ["null", "int"]), ("y", "string"), name="N"),
            pa.struct([pa.field("x", pa.int32()), pa.field("y", pa.utf8(), nullable=False)]),
        ),
        # A logical type on a base that it is not defined for, or that nobody knows, is ignored.
        (_logical("string", "date"), pa.utf8()),
        (_logical("int", "timestamp-millis"), pa.int32()),
        (_logical("bytes", "big-decimal"), pa.binary()),
        ({"type": "fixed", "name": "U", "size": 8, "logicalType": "uuid"}, pa.binary(8)),
    ],
)
def test_every_type_has_one_plain_arrow_type(avro: object, arrow: pa.DataType) -> None:
    declared = declare(RegistrySchema(1, record(("x", avro), ("n", ["null", "long"]))), SPEC)
    assert declared.arrow.field("x") == pa.field("x", arrow, nullable=False)
    assert declared.arrow.field("n") == pa.field("n", pa.int64())


@pytest.mark.parametrize("union", [["null", "string"], ["string", "null"]])
def test_a_union_with_null_in_either_order_is_a_nullable_column(union: list[str]) -> None:
    declared = declare(RegistrySchema(1, record(("x", union))), SPEC)
    assert declared.arrow.field("x") == pa.field("x", pa.utf8())


def test_the_kafka_metadata_stands_behind_the_topics_columns() -> None:
    declared = declare(RegistrySchema(1, record(("b", "int"), ("a", "int"))), SPEC)
    assert declared.arrow.names == ["b", "a", "_topic", "_partition", "_offset", "_kafka_timestamp"]
    assert [f.nullable for f in declared.arrow] == [False, False, False, False, False, True]
    types = [f.type for f in declared.arrow][2:]
    assert types == [pa.utf8(), pa.int32(), pa.int64(), INSTANT]


def test_key_and_headers_are_columns_on_request() -> None:
    spec = replace(SPEC, key=True, headers=True)
    declared = declare(RegistrySchema(1, record(("a", "int"))), spec)
    header = pa.struct([pa.field("key", pa.utf8()), pa.field("value", pa.binary())])
    assert declared.arrow.field(KEY) == pa.field(KEY, pa.binary())
    assert declared.arrow.field(HEADERS) == pa.field(HEADERS, _element(header, nullable=True))
    assert list(declared.arrow)[1:] == list(metadata_schema(key=True, headers=True))


_SELF = record(("next", ["null", "Node"]), name="Node")
_DEEP: Any = "int"
for _ in range(MAX_DEPTH + 1):
    _DEEP = {"type": "array", "items": _DEEP}
#: Each record holds the one before twice: 2¹⁶ fields when they are written out.
_DOUBLING: Any = record(("a", "int"), name="N0")
for _i in range(1, 17):
    _DOUBLING = record(("a", _DOUBLING), ("b", f"N{_i - 1}"), name=f"N{_i}")


@pytest.mark.parametrize(
    ("avro", "message"),
    [
        (_SELF, r"'x\.next': type Node contains itself"),
        ({"type": "array", "items": _SELF}, r"'x\.element\.next'.*contains itself"),
        (["null", "int", "string"], "'x': a union of 3 branches"),
        (["int"], "'x': a union of 1 branches"),
        (["int", "string"], "'x': a union of 2 branches"),
        (["null"], "'x': a union of 1 branches"),
        (["null", "null"], "'x': a union of 2 branches"),
        ([], "'x': a union of 0 branches"),
        (["null", ["null", "int"]], "'x': a union directly inside a union"),
        ("null", "'x': type null"),
        ({"type": "null"}, "'x': type null"),
        ({"type": "array", "items": "null"}, r"'x\.element': type null"),
        ({"type": "map", "values": "null"}, r"'x\.value': type null"),
        ({"type": "record", "name": "E", "fields": []}, "'x': a record without fields"),
        ({"type": "record", "fields": [{"name": "a", "type": "int"}]}, "without a name"),
        ({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, "'x': a duration"),
        (_decimal(39), "'x': decimal of 39 digits"),
        (_decimal(0), "'x': a decimal needs"),
        (_decimal(None), "'x': a decimal needs"),
        (_decimal("9"), "'x': a decimal needs"),
        (_decimal(True), "'x': a decimal needs"),
        (_decimal(4, 5), r"'x': decimal scale 5 is outside 0\.\.4"),
        (_decimal(4, -1), "'x': decimal scale -1"),
        (_decimal(3, type="fixed", name="D", size=1), "'x': 3 digits do not fit"),
        ({"type": "fixed", "name": "F", "size": 0}, "'x': a fixed of size 0"),
        ({"type": "fixed", "name": "F", "size": "4"}, "'x': a fixed of size 4"),
        ({"type": "fixed", "name": "F", "size": 2**31}, "'x': a fixed of size 2147483648"),
        ({"type": "enum", "name": "E", "symbols": []}, "'x': an enum without symbols"),
        ("Missing", "'x': no type has the name 'Missing'"),
        ({"type": "array"}, r"'x\.element': 'None' is no Avro type"),
        (NANOS, r"'x': timestamp-nanos .*timestamp_nanos"),
        (_logical("long", "local-timestamp-nanos"), "'x': timestamp-nanos"),
        (record(("a", "int"), ("A", "int"), name="N"), r"'x\.A': same name as 'a'"),
        (record(("a b", "int"), name="N"), "'x': 'a b' is no field name"),
        (_DEEP, "nested deeper than"),
        (_DOUBLING, "more than 10000 types"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_with_the_fields_path(
    avro: object, message: str
) -> None:
    with pytest.raises(SchemaRefused, match=f"schema id 9, .*{message}"):
        declare(RegistrySchema(9, record(("x", avro))), SPEC)


@pytest.mark.parametrize("avro", ["int", {"type": "array", "items": "int"}, ["null", "int"]])
def test_a_schema_that_is_no_record_is_refused(avro: object) -> None:
    with pytest.raises(SchemaRefused, match="is no record"):
        declare(RegistrySchema(9, {"type": avro}), SPEC)


@pytest.mark.parametrize(
    "name", ["_topic", "_partition", "_offset", "_kafka_timestamp", "_key", "_headers", "_OFFSET"]
)
def test_the_names_of_the_metadata_are_taken(name: str) -> None:
    with pytest.raises(SchemaRefused, match=f"field '{name}': the name is taken"):
        declare(RegistrySchema(9, record((name, "int"))), SPEC)


def test_a_nested_field_may_have_a_name_of_the_metadata() -> None:
    avro = record(("x", record(("_offset", "int"), name="N")))
    assert declare(RegistrySchema(9, avro), SPEC).arrow.field("x").type.field(0).name == "_offset"


def test_nanoseconds_become_longs_or_microseconds_when_asked() -> None:
    schema = RegistrySchema(1, record(("x", NANOS)))
    as_long = declare(schema, replace(SPEC, timestamp_nanos="as_long"))
    truncated = declare(schema, replace(SPEC, timestamp_nanos="truncate"))
    assert as_long.arrow.field("x").type == pa.int64()
    assert truncated.arrow.field("x").type == INSTANT


def test_names_are_resolved_through_namespaces() -> None:
    """Source: Avro 1.12, "Names": a name without dots is one of the enclosing namespace."""
    inner = {"type": "enum", "name": "Side", "symbols": ["BUY"]}
    other = {"type": "enum", "name": "other.Side", "symbols": ["SELL"]}
    avro = {
        **record(
            ("a", inner),
            ("b", other),
            ("c", "Side"),
            ("d", "market.Side"),
            ("e", "other.Side"),
            ("f", {"type": "array", "items": "Side"}),
        ),
        "namespace": "market",
    }
    tree = parse_record(RegistrySchema(1, avro), "refuse")
    buy, sell = Leaf("enum", symbols=("BUY",)), Leaf("enum", symbols=("SELL",))
    assert [f.node for f in tree.fields][:5] == [buy, sell, buy, buy, sell]


def test_a_name_inside_a_named_type_is_relative_to_that_types_namespace() -> None:
    holder = {
        "type": "record",
        "name": "x.Holder",
        "fields": [
            {"name": "side", "type": {"type": "enum", "name": "Side", "symbols": ["A"]}},
            {"name": "again", "type": "Side"},
        ],
    }
    tree = parse_record(RegistrySchema(1, record(("h", holder), ("s", "x.Side"))), "refuse")
    assert tree.fields[1].node == Leaf("enum", symbols=("A",))
    assert isinstance(tree.fields[0].node, RecordOf)
    assert tree.fields[0].node.fields[0].node == tree.fields[0].node.fields[1].node


def test_a_type_may_be_used_twice_without_being_recursive() -> None:
    avro = record(("a", record(("x", "int"), name="N")), ("b", "N"), ("c", ["null", "N"]))
    types = declare(RegistrySchema(1, avro), SPEC).arrow.types[:3]
    assert len(set(types)) == 1
