"""Records that are not whole are found at once; a record never looks like one of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_avro import chunk_of, decoder, encode, examples, record, schemas, values_of

from catalog import salvage, suspects
from catalog.avro import RegistrySchema
from catalog.records import RejectKind
from catalog.schemas import declare, record_of
from catalog.spec import TableName, TableSpec

AVRO = record(
    ("flag", "boolean"),
    ("ratio", "double"),
    ("share", "float"),
    ("id", {"type": "fixed", "name": "Id", "size": 3}),
    ("side", {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}),
    ("number", "long"),
    ("raw", "bytes"),
    ("tags", {"type": "array", "items": "string"}),
    ("more", ["null", {"type": "map", "values": "long"}]),
)
SPEC = TableSpec(TableName("a", "b"), ("t",))
TREE = record_of(declare(RegistrySchema(7, AVRO), SPEC), SPEC)


def _value(x: int, tags: int = 2) -> bytes:
    fields = {"flag": x % 2 == 0, "ratio": x / 3, "share": 0.5, "id": b"abc", "side": "SELL"}
    more = {"k": -x, "l": 2**62} if x % 3 else None
    return encode(
        AVRO,
        {**fields, "number": x**5, "raw": b"r" * (x % 90), "tags": ["t"] * tags, "more": more},
    )


VALUES = [_value(x - 50) for x in range(300)]


def test_whatever_is_cut_off_or_followed_by_more_is_found() -> None:
    """At every length of one value, unless what follows it reads like a long array's count."""
    for size in range(5, len(VALUES[70])):
        found = suspects.suspects(TREE, [*VALUES[:70], VALUES[70][:size], *VALUES[71:]])
        assert found is None or found.tolist() == [70]
    assert found is not None
    longer = [*VALUES[:-1], VALUES[-1] + b"\0"]
    assert suspects.suspects(TREE, longer).tolist() == [len(VALUES) - 1]


@examples(60)
@given(st.data())
def test_records_are_never_suspect(data: st.DataObject) -> None:
    avro = data.draw(schemas())
    rows = data.draw(st.lists(values_of(avro), min_size=1, max_size=20))
    tree = record_of(declare(RegistrySchema(7, avro), SPEC), SPEC)
    found = suspects.suspects(tree, [encode(avro, row) for row in rows])
    assert found is None or found.tolist() == []


def test_bytes_without_sense_end_somewhere() -> None:
    """Lengths and counts beyond all bounds, negative ones, integers that do not end."""
    junk = [
        VALUES[0][:5] + bytes([byte]) * size for byte in (1, 2, 127, 128, 255) for size in (9, 90)
    ]
    found = suspects.suspects(TREE, [*VALUES, *junk])
    assert found is None or set(found.tolist()) == set(range(300, 310))


def test_a_long_array_is_not_walked() -> None:
    assert suspects.suspects(TREE, [_value(1, tags=suspects._ROUNDS + 1)]) is None


def test_a_chunk_with_few_bad_records_is_read_as_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither windows nor halves: the bad ones are taken out and the rest is a block."""
    monkeypatch.setattr(salvage.Salvage, "_range", None)
    values = [value[:-1] if row in (7, 200) else value for row, value in enumerate(VALUES)]
    decode = decoder(AVRO)[0].decode
    for _ in range(2):
        found = decode(chunk_of(values))
        assert [reject.row for reject in found.rejects] == [7, 200]
        assert {reject.kind for reject in found.rejects} == {RejectKind.MALFORMED}
        offsets = found.batch.column("_offset").to_pylist()
        assert offsets == [100 + row for row in range(300) if row not in (7, 200)]


@pytest.mark.parametrize("hint", [[3], [], None], ids=["another", "none", "no walk"])
def test_a_wrong_hint_costs_no_record(
    monkeypatch: pytest.MonkeyPatch, hint: list[int] | None
) -> None:
    """What the walk says is believed of no record: a good one stays, a bad one is found."""
    monkeypatch.setattr(
        salvage, "suspects", lambda *_: hint if hint is None else np.array(hint, np.int64)
    )
    values = [value[:-1] if row == 200 else value for row, value in enumerate(VALUES)]
    found = decoder(AVRO)[0].decode(chunk_of(values))
    assert [reject.row for reject in found.rejects] == [200]
    assert found.batch.num_rows == 299
