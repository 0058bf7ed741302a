"""Schemas that follow each other, decoded by one declaration, against fastavro's resolution."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_avro import SPEC, KnownSchemas, chunk_of
from support_evolution import avro, encoded, resolved, side

from catalog.avro import RegistrySchema
from catalog.declaration import conform, field_id, ids
from catalog.decode import Decoder, first_declaration
from catalog.errors import SchemaChanged
from catalog.growth import Columns, continued
from catalog.iceberg_schema import iceberg_schema, plain_schema
from catalog.schemas import declare

#: Column kinds: what a writer may send first, and what it may send later.
WIDER: dict[str, tuple[Any, ...]] = {
    "int": ("int", "long"),
    "long": ("long", "int"),
    "float": ("float", "double"),
    "double": ("double", "float"),
    "string": ("string",),
    "boolean": ("boolean",),
    "enum": (side("A", "B"), side("B", "C", "A")),
    "decimal": (
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2},
    ),
    "list": ({"type": "array", "items": "int"}, {"type": "array", "items": ["null", "long"]}),
    "map": ({"type": "map", "values": "float"}, {"type": "map", "values": "double"}),
}
#: What both can be read as.
WIDEST: dict[str, Any] = {
    "int": "long",
    "long": "long",
    "float": "double",
    "double": "double",
    "string": "string",
    "boolean": "boolean",
    "enum": side("A", "B", "C"),
    "decimal": WIDER["decimal"][1],
    "list": WIDER["list"][1],
    "map": WIDER["map"][1],
}
DEFAULTS: dict[str, Any] = {
    "int": -3,
    "long": 2**30,
    "float": 1.5,
    "double": 2.5,
    "string": "é",
    "boolean": True,
    "enum": "A",
    "decimal": "\x01\x00",
    "list": [1, 2],
    "map": {"k": 0.5},
}


_LEAVES: dict[str, Any] = {
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=5),
    "boolean": st.booleans(),
}


def values(kind: Any) -> Any:
    """A strategy of values of an Avro type."""
    if isinstance(kind, str):
        return _LEAVES[kind]
    if isinstance(kind, list):
        return st.none() | values(next(one for one in kind if one != "null"))
    match kind["type"]:
        case "enum":
            return st.sampled_from(kind["symbols"])
        case "array":
            return st.lists(values(kind["items"]), max_size=3)
        case "map":
            return st.dictionaries(st.text(max_size=2), values(kind["values"]), max_size=2)
    most = 10 ** int(kind["precision"]) - 1
    return st.integers(-most, most).map(lambda n: Decimal(n).scaleb(-2))


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[int, Any], dict[str, Any], list[tuple[int, Any]]]:
    """Schemas by id, the schema that all of them are read as, and records (id, value)."""
    kinds = draw(st.lists(st.sampled_from(sorted(WIDER)), min_size=1, max_size=4, unique=True))
    last = draw(st.integers(2, 4))
    columns: list[dict[str, Any]] = []
    for at, kind in enumerate(kinds):
        first = 1 if at == 0 else draw(st.integers(1, last))
        gone = draw(st.integers(first + 1, last + 1)) if at else last + 1
        columns.append(
            {
                "kind": kind,
                "from": first,
                "to": gone,
                "null": draw(st.booleans()),
                "default": draw(st.booleans()),
                "renamed": draw(st.integers(first + 1, last + 1)),
                "name": f"c{at}",
                "types": [draw(st.sampled_from(WIDER[kind])) for _ in range(last + 1)],
            }
        )
    versions = {
        v: avro(*(_written(c, v) for c in columns if c["from"] <= v < c["to"]))
        for v in range(1, last + 1)
    }
    records = []
    for _ in range(draw(st.integers(1, 8))):
        version = draw(st.integers(1, last))
        drawn = {f["name"]: draw(values(f["type"])) for f in versions[version]["fields"]}
        records.append((version, drawn))
    return versions, avro(*(_read(c, last) for c in columns)), records


def _written(column: Mapping[str, Any], version: int) -> dict[str, Any]:
    kind = column["types"][version]
    found: dict[str, Any] = {"name": column["name"], "type": kind}
    if column["null"] and version % 2 == 0:
        found["type"] = [kind, "null"] if column["default"] else ["null", kind]
    if column["default"]:
        found["default"] = DEFAULTS[column["kind"]]
    if version >= column["renamed"]:
        found |= {"name": f"{column['name']}_new", "aliases": [column["name"]]}
    return found


def _read(column: Mapping[str, Any], last: int) -> dict[str, Any]:
    """The column as the table has it: its fill is the default that it came with."""
    first = _written(column, column["from"])
    kind = WIDEST[column["kind"]]
    fill = first.get("default")
    # fastavro's own reading of ["null", …] defaults wants the default's branch first.
    union = ["null", kind] if fill is None else [kind, "null"]
    name = _written(column, min(last, column["to"] - 1))["name"]
    aliases = [column["name"], f"{column['name']}_new"]
    return {"name": name, "type": union, "default": fill, "aliases": aliases}


def growing(versions: Mapping[int, Any]) -> tuple[Decoder, pa.Schema]:
    """A decoder of a new table that is declared by version 1, and its declaration then."""
    declared = declare(RegistrySchema(1, versions[1]), SPEC)
    table = plain_schema(iceberg_schema(declared.arrow), ids=True)
    first = continued(first_declaration(declared, SPEC), Columns(table, None, 99))
    return Decoder(declared, KnownSchemas(dict(versions)), SPEC, first, 100, grows=True), first


@settings(max_examples=60, deadline=None)
@given(histories())
def test_records_of_every_schema_are_what_avros_resolution_makes_of_them(
    history: tuple[dict[int, Any], dict[str, Any], list[tuple[int, Any]]],
) -> None:
    """However records of several schemas are cut into chunks, and whichever comes first."""
    versions, reader, records = history
    framed = [encoded(versions[v], value, v) for v, value in records]
    decoder, _ = growing(versions)
    parts = []
    for at in range(0, len(framed), 3):
        decoded = decoder.decode(chunk_of(framed[at : at + 3], first=at))
        assert not decoded.rejects
        parts.append((decoder.declaration, decoded.batch))
    newest = decoder.declaration
    found = [
        {name: row[name] for name in newest.names if not name.startswith("_")}
        for have, batch in parts
        for row in _as_fastavro(conform(batch, have, newest))
    ]
    wanted = [_known(resolved(value, versions, reader), newest) for value in framed]
    assert found == wanted


def _as_fastavro(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    return [
        {
            k: dict(v) if v and isinstance(v, list) and isinstance(v[0], tuple) else v
            for k, v in r.items()
        }
        for r in batch.to_pylist(maps_as_pydicts="strict")
    ]


def _known(row: Mapping[str, Any], newest: pa.Schema) -> dict[str, Any]:
    """The row by the names that the table has so far: a schema that was not met is not there."""
    found = {}
    for name in newest.names:
        if name.startswith("_"):
            continue
        base = name.removesuffix("_new")
        found[name] = next(v for k, v in row.items() if k.removesuffix("_new") == base)
    return found


PRIMITIVES = ("boolean", "int", "long", "float", "double", "string", "bytes")
#: (declared, met) → what the column becomes; every other pair is refused.
BECOMES = {
    **{(kind, kind): kind for kind in PRIMITIVES},
    ("int", "long"): "long",
    ("long", "int"): "long",
    ("float", "double"): "double",
    ("double", "float"): "double",
    ("double", "int"): "double",
    ("float", "int"): "double",
    ("bytes", "string"): "bytes",
}


@pytest.mark.parametrize("declared", PRIMITIVES)
@pytest.mark.parametrize("met", PRIMITIVES)
def test_a_type_changes_only_as_avro_and_iceberg_both_allow(declared: str, met: str) -> None:
    """No value is lost, and older files stay readable; the refusal shows both types."""
    versions = {i: avro({"name": "x", "type": kind}) for i, kind in ((1, declared), (2, met))}
    decoder, first = growing(versions)
    value = {"boolean": True, "string": "a", "bytes": b"a"}.get(met, 1)
    chunk = chunk_of([encoded(versions[2], {"x": value}, 2)])
    if (becomes := BECOMES.get((declared, met))) is None:
        with pytest.raises(SchemaChanged, match=r"id 2.*id 1.*'x'"):
            decoder.decode(chunk)
        assert decoder.declaration is first
        return
    row = decoder.decode(chunk).batch.to_pylist()[0]
    assert (
        row["x"]
        == resolved(chunk.values[0] or b"", versions, avro({"name": "x", "type": becomes}))["x"]
    )


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"name": "X", "type": "int"}, "'X': same name as 'x' where case is ignored"),
        ({"name": "_key", "type": "int"}, "'_key': the name is taken"),
        ({"name": "y", "type": "int", "default": "1"}, "'y' is a new field, .*the default"),
        ({"name": "y", "type": ["int", "string"]}, "a union of 2 branches"),
    ],
)
def test_a_new_field_that_the_table_cannot_take_is_refused(field: Any, message: str) -> None:
    old = {"name": "x", "type": "int"}
    versions = {1: avro(old), 2: avro(old, field)}
    decoder, _ = growing(versions)
    with pytest.raises(SchemaChanged, match=message):
        decoder.decode(chunk_of([b"\0" + (2).to_bytes(4) + b"\2\2"]))


def test_names_that_differ_in_case_are_one_name() -> None:
    versions = {1: avro({"name": "x", "type": "int"}), 2: avro({"name": "X", "type": "int"})}
    decoder, _ = growing(versions)
    with pytest.raises(SchemaChanged, match="'X' is a new field, its name is, or was, another"):
        decoder.decode(chunk_of([encoded(versions[2], {"X": 1}, 2)]))


def test_a_former_name_is_not_given_to_another_column() -> None:
    """Records of the oldest schema would land in one column or the other by chance."""
    versions = {
        1: avro({"name": "x", "type": "int"}),
        2: avro({"name": "y", "type": "int", "aliases": ["x"]}),
        3: avro({"name": "y", "type": "int"}, {"name": "x", "type": "int"}),
    }
    decoder, _ = growing(versions)
    decoder.decode(chunk_of([encoded(versions[2], {"y": 1}, 2)]))
    with pytest.raises(SchemaChanged, match="'x' is a new field, its name is, or was, another"):
        decoder.decode(chunk_of([encoded(versions[3], {"y": 1, "x": 2}, 3)]))


def test_what_comes_before_a_refused_schema_is_readable() -> None:
    """A boundary in the middle of a chunk; what follows it is not read."""
    versions = {1: avro({"name": "x", "type": "int"}), 2: avro({"name": "x", "type": "string"})}
    decoder, _ = growing(versions)
    framed = [encoded(versions[1], {"x": i}, 1) for i in range(4)]
    framed.insert(2, encoded(versions[2], {"x": "a"}, 2))
    chunk = chunk_of(framed)
    with pytest.raises(SchemaChanged):
        decoder.decode(chunk)
    kept = decoder.readable(chunk)
    assert decoder.decode(kept).batch.column("_offset").to_pylist() == [100, 101]
    assert [(r.first, r.next) for r in kept.ranges] == [(100, 102)]


def test_new_columns_get_ids_that_nothing_else_has() -> None:
    inner = avro({"name": "a", "type": "int"}, name="I")
    versions = {
        1: avro({"name": "x", "type": "int"}),
        2: avro(
            {"name": "x", "type": "int"}, {"name": "r", "type": {"type": "array", "items": inner}}
        ),
    }
    decoder, first = growing(versions)
    decoder.decode(chunk_of([encoded(versions[2], {"x": 1, "r": []}, 2)]))
    assert {*ids(decoder.declaration)} - ids(first) == {100, 101, 102}
    assert field_id(decoder.declaration.field("r")) == 100


def test_a_wrong_default_of_a_field_that_is_given_up_is_told() -> None:
    """The table was declared with it, and nobody needed it until now."""
    old = {"name": "x", "type": "int"}
    versions = {1: avro(old, {"name": "y", "type": "int", "default": "1"}), 2: avro(old)}
    decoder, _ = growing(versions)
    with pytest.raises(SchemaChanged, match=r"'y' is gone, .*the default"):
        decoder.decode(chunk_of([encoded(versions[2], {"x": 1}, 2)]))
