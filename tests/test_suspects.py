"""Records that are not whole are found at once; a record never looks like one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_avro import chunk_of, decoder, encode, examples, record, schemas, values_of

from catalog import salvage, suspects
from catalog.avro import RecordOf, RegistrySchema
from catalog.blocks import Joined
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


def _found(values: list[bytes], tree: RecordOf = TREE) -> list[int] | None:
    joined = Joined.of(values)
    assert joined is not None
    rows = suspects.suspects(tree, values[0][:5], joined)
    return None if rows is None else rows.tolist()


VALUES = [_value(x - 50) for x in range(300)]


def test_whatever_is_cut_off_or_followed_by_more_is_found() -> None:
    """At every length of one value, whatever the bytes that follow it look like."""
    for size in range(5, len(VALUES[70])):
        assert _found([*VALUES[:70], VALUES[70][:size], *VALUES[71:]]) == [70]
    longer = [*VALUES[:-1], VALUES[-1] + b"\0"]
    assert _found(longer) == [len(VALUES) - 1]


@examples(60)
@given(st.data())
def test_records_are_never_suspect(data: st.DataObject) -> None:
    avro = data.draw(schemas())
    rows = data.draw(st.lists(values_of(avro), min_size=1, max_size=20))
    tree = record_of(declare(RegistrySchema(7, avro), SPEC), SPEC)
    found = _found([encode(avro, row) for row in rows], tree)
    assert not found or len(found) == 1, "one array may be long"


def test_bytes_without_sense_end_somewhere() -> None:
    """Lengths and counts beyond all bounds, negative ones, integers that do not end."""
    junk = [
        VALUES[0][:5] + bytes([byte]) * size for byte in (1, 2, 127, 128, 255) for size in (9, 90)
    ]
    assert _found([*VALUES, *junk]) == list(range(300, 310))


def test_a_value_with_another_frame_or_none_is_found() -> None:
    other = [b"\0\0\0\0\x08" + VALUES[3][5:], b"", b"\0", b'{"x": 1}']
    assert _found([*VALUES[:9], *other, *VALUES[9:]]) == [9, 10, 11, 12]


def test_long_arrays_are_not_walked_unless_they_are_few() -> None:
    long = _value(1, tags=2 * suspects._ROUNDS)
    assert _found([long] * 3) is None
    assert _found([*VALUES, long]) == [len(VALUES)]


def test_a_chunk_with_few_bad_records_is_read_as_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither windows nor halves: only the bad ones are looked at on their own."""
    salvaged: list[int] = []
    real = salvage.Salvage.read

    def read(self: salvage.Salvage, values: list[bytes]) -> object:
        salvaged.append(len(values))
        return real(self, values)

    monkeypatch.setattr(salvage.Salvage, "read", read)
    values = [value[:-1] if row in (7, 200) else value for row, value in enumerate(VALUES)]
    decode = decoder(AVRO)[0].decode
    for _ in range(2):
        found = decode(chunk_of(values))
        assert [reject.row for reject in found.rejects] == [7, 200]
        assert {reject.kind for reject in found.rejects} == {RejectKind.MALFORMED}
        offsets = found.batch.column("_offset").to_pylist()
        assert offsets == [100 + row for row in range(300) if row not in (7, 200)]
    assert salvaged == [2, 2]


@pytest.mark.parametrize("hint", [[3], [], None], ids=["another", "none", "no walk"])
@pytest.mark.parametrize(
    "spoiled",
    [lambda value: value[:-1], lambda value: value + b"12345678" + value],
    ids=["cut off", "two in one"],
)
def test_a_wrong_hint_costs_no_record(
    monkeypatch: pytest.MonkeyPatch, hint: list[int] | None, spoiled: Callable[[bytes], bytes]
) -> None:
    """What the walk says is believed of no record: a good one stays, a bad one is found.

    Where the reader stumbles, and where it reads on with all that follows one place too late.
    """
    monkeypatch.setattr(
        salvage, "suspects", lambda *_: hint if hint is None else np.array(hint, np.int64)
    )
    values = [spoiled(value) if row == 200 else value for row, value in enumerate(VALUES)]
    found = decoder(AVRO)[0].decode(chunk_of(values))
    assert [reject.row for reject in found.rejects] == [200]
    offsets = found.batch.column("_offset").to_pylist()
    assert offsets == [100 + row for row in range(300) if row != 200]
    flags = found.batch.column("flag").to_pylist()
    assert flags == [row % 2 == 0 for row in range(300) if row != 200]
