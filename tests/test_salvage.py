"""Around bad records every good one is saved, wherever the bad ones stand and however many."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_avro import chunk_of, decoder, encode, examples, record

from catalog import salvage
from catalog.decode import Decoder
from catalog.records import RejectKind
from catalog.spec import TableName, TableSpec

AVRO = record(
    ("x", "long"),
    ("tags", {"type": "array", "items": "string"}),
    ("more", ["null", {"type": "map", "values": "long"}]),
)
ROWS = 5_000


def _value(x: int) -> bytes:
    tags = [f"t{x}"] * (x % 3)
    return encode(AVRO, {"x": x, "tags": tags, "more": {"k": x} if x % 2 else None})


GOOD = [_value(x) for x in range(ROWS)]
SPOILERS = (
    lambda value: value[:-1],
    lambda value: value + b"\0",
    lambda value: value[:5],
    lambda value: value[:5] + b"\xff" * 12,
    lambda value: value + value[5:],
)
EDGES = {0, 15, 16, 17, 1023, 1024, 2047, 2048, 4095, ROWS - 1}


@pytest.mark.parametrize(
    "bad",
    [
        {0},
        {ROWS - 1},
        {2047, 2048},
        EDGES,
        set(range(0, ROWS, 500)),
        set(range(0, ROWS, 40)),
        set(range(2_000, 2_500)),
        set(range(ROWS)) - {3_000},
        set(range(ROWS)),
    ],
    ids=["first", "last", "two", "edges", "few", "many", "a run", "all but one", "all"],
)
def test_exactly_the_bad_records_are_rejects(bad: set[int]) -> None:
    """Twice: the second chunk is read carefully at once, because the first held bad records."""
    spoil = random.Random(len(bad))
    values = [spoil.choice(SPOILERS)(v) if i in bad else v for i, v in enumerate(GOOD)]
    decode = decoder(AVRO)[0].decode
    for _ in range(2):
        found = decode(chunk_of(values))
        assert [reject.row for reject in found.rejects] == sorted(bad)
        assert {reject.kind for reject in found.rejects} == {RejectKind.MALFORMED}
        kept = [x for x in range(ROWS) if x not in bad]
        assert found.batch.column("x").to_pylist() == kept
        assert found.batch.column("_offset").to_pylist() == [100 + x for x in kept]
        assert found.batch.column("tags").to_pylist() == [[f"t{x}"] * (x % 3) for x in kept]
        assert found.batch.column("more").to_pylist() == [
            [("k", x)] if x % 2 else None for x in kept
        ]
    assert decode(chunk_of(GOOD)).batch.num_rows == ROWS


def test_few_records_are_read_one_by_one_around_a_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow path for one bad record, not for its chunk."""
    strict = []
    real = salvage.plain_record

    def plain_record(*arguments: object) -> bytes:
        strict.append(arguments)
        return real(*arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(salvage, "plain_record", plain_record)
    values = [*GOOD[:3_000], GOOD[3_000][:-1], *GOOD[3_001:]]
    found = decoder(AVRO)[0].decode(chunk_of(values))
    assert [reject.row for reject in found.rejects] == [3_000]
    assert 0 < len(strict) <= 32


#: The table's schema, and a later one of the same table: records change to it, and back.
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
OLD = record(("x", "long"), ("price", PRICE), ("tags", {"type": "array", "items": "string"}))
NEW = record(("tags", {"type": "array", "items": "string"}), ("x", "int"), ("price", PRICE))
SPEC = TableSpec(TableName("a", "b"), ("t",), max_value_bytes=400)
#: What a producer may write, each from its number: good ones first, then every way of being bad.
WRITTEN = {
    "old": lambda x: _tick(x, 0),
    "new": lambda x: encode(NEW, _fields(x), 8),
    "long array": lambda x: _tick(x, tags=150),
    "cut off": lambda x: _tick(x)[:-1],
    "cut off, new": lambda x: encode(NEW, _fields(x), 8)[:-2],
    "too long": lambda x: _tick(x) + b"\0",
    "two records": lambda x: _tick(x) + _tick(x)[5:],
    "a record after a record": lambda x: _tick(x) + _tick(x),
    "no UTF-8": lambda x: _tick(x).replace(b"t", b"\xff"),
    "frame alone": lambda _: _tick(1)[:5],
    "noise": lambda x: _tick(1)[:5] + random.Random(x).randbytes(30),
    "JSON": lambda x: b'{"x": %d}' % x,
    "Avro without a frame": lambda x: _tick(x)[5:],
    "empty": lambda _: b"",
    "a tombstone": lambda _: None,
    "unknown id": lambda x: encode(OLD, _fields(x), 99),
    "beyond its precision": lambda x: encode(OLD, {**_fields(x), "price": b"\x7f\xff\xff"}),
    "beyond the limit": lambda x: _tick(x, tags=300),
}


def _fields(x: int, tags: int = 0) -> dict[str, object]:
    return {"x": x, "price": (x % 9_000).to_bytes(2), "tags": ["t"] * (tags or 1 + x % 3)}


def _tick(x: int, tags: int = 0) -> bytes:
    return encode(OLD, _fields(x, tags))


@examples(20)
@given(st.data())
def test_poison_of_every_kind_costs_itself_only(data: st.DataObject) -> None:
    """In chunks of any size the rows and rejects are those of one record at a time.

    Around a few odd records stand many usual ones; the decoder goes on from chunk to chunk, so it
    has seen bad ones, or another schema, before.
    """
    kinds = st.sampled_from(["old", *WRITTEN])
    usual = st.sampled_from(["old", "old", "new"])
    runs = data.draw(
        st.lists(st.tuples(st.lists(kinds, max_size=4), usual, st.integers(0, 150)), max_size=4)
    )
    written = [kind for odd, most, count in runs for kind in [*odd, *[most] * count]]
    values = [WRITTEN[kind](100 + x) for x, kind in enumerate(written)]
    whole, single = (decoder(OLD, {8: NEW}, SPEC)[0] for _ in range(2))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(values)), max_size=4)))
    found = [
        each
        for first, next_ in itertools.pairwise([0, *cuts, len(values)])
        for each in [_decoded(whole, values[first:next_], first)]
    ]
    assert _joined(found) == _joined([_decoded(single, [v], row) for row, v in enumerate(values)])


def _decoded(decode: Decoder, values: list[bytes | None], first: int) -> tuple[list, list]:
    """Rows, and rejects by their offset."""
    found = decode.decode(chunk_of(values, first=first))
    rejects = [(r.offset, r.kind, r.schema_id, r.reason) for r in found.rejects]
    assert [r.row + first for r in found.rejects] == [r.offset for r in found.rejects]
    return found.batch.to_pylist(), rejects


def _joined(found: list[tuple[list, list]]) -> tuple[list, list]:
    return [row for rows, _ in found for row in rows], [r for _, bad in found for r in bad]
