"""Around bad records every good one is saved, wherever the bad ones stand and however many."""

from __future__ import annotations

import random

import pytest
from support_avro import chunk_of, decoder, encode, record

from catalog import salvage
from catalog.records import RejectKind

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
