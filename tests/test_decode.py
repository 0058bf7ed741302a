"""The decoder against fastavro, against hostile bytes, and against schemas that move on.

``K2_FUZZ=1`` runs a hundred times as many, and new, examples.
"""

from __future__ import annotations

import random
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_avro import (
    SPEC,
    Refused,
    chunk_of,
    decoder,
    encode,
    examples,
    expected,
    read_strictly,
    record,
    rows_of,
    schemas,
    values_of,
)

from catalog import blocks
from catalog.avro import RegistrySchema, parse_record
from catalog.blocks import BlockReader, Scratch
from catalog.decode import Decoder
from catalog.errors import CatalogError, RegistryUnavailable, SchemaChanged, SchemaRefused
from catalog.ipcfile import map_file, write_file
from catalog.records import Chunk, Decoded, Range
from catalog.schemas import declare
from catalog.strict import MalformedError, plain_record

TRADE = record(
    ("symbol", "string"),
    ("price", {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}),
    ("size", ["null", "long"]),
    ("tags", {"type": "array", "items": "string"}),
)
ROW = {"symbol": "AAPL", "price": b"\x05", "size": 7, "tags": ["a", "b"]}
GOOD = encode(TRADE, ROW)
FRAME = GOOD[:5]


def _decode(avro: dict[str, Any], values: Sequence[bytes | None], **more: Any) -> Decoded:
    return decoder(avro, **more)[0].decode(chunk_of(values))


def _offsets(decoded: Decoded) -> list[int]:
    return decoded.batch.column("_offset").to_pylist()


# --- agreement with fastavro ----------------------------------------------------------------------


@examples(60)
@given(st.data())
def test_every_value_of_every_type_is_what_fastavro_reads(data: st.DataObject) -> None:
    """Values that no table can hold (digits, ranges) are rejects, alone and exactly those."""
    avro = data.draw(schemas())
    raws = data.draw(st.lists(values_of(avro), max_size=12))
    decode, declared = decoder(avro)
    decoded = decode.decode(chunk_of([encode(avro, raw) for raw in raws]))

    rows, bad = [], []
    for row, raw in enumerate(raws):
        try:
            rows.append(expected(avro, raw))
        except Refused:
            bad.append(row)
    assert decoded.batch.schema.equals(declared.arrow)
    decoded.batch.validate(full=True)
    assert rows_of(decoded.batch, avro) == rows
    assert [reject.row for reject in decoded.rejects] == bad
    assert _offsets(decoded) == [100 + i for i in range(len(raws)) if i not in bad]


@examples(40)
@given(st.data())
def test_hostile_bytes_are_rejected_or_read_as_fastavro_reads_them(data: st.DataObject) -> None:
    """Never a shifted row: the records around a broken one are untouched."""
    avro = data.draw(schemas())
    raws = data.draw(st.lists(values_of(avro), min_size=1, max_size=8))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    values = [encode(avro, raw) for raw in raws]
    values = [_mutate(rng, value) if rng.random() < 0.3 else value for value in values]

    decoded = _decode(avro, values)
    rejects = {reject.row for reject in decoded.rejects}
    assert _offsets(decoded) == [100 + i for i in range(len(values)) if i not in rejects]
    rows = iter(rows_of(decoded.batch, avro))
    for row, value in enumerate(values):
        wanted, unusual = _reading(avro, value)
        if row in rejects:
            assert wanted is None or unusual
        else:
            assert next(rows) == wanted


def _reading(avro: dict[str, Any], value: bytes) -> tuple[Any, bool]:
    """What fastavro reads (None: nothing), and whether no writer would encode it that way."""
    try:
        raw = read_strictly(avro, value[5:])
        return expected(avro, raw), encode(avro, raw) != value
    except Refused:
        return None, True


def _mutate(rng: random.Random, value: bytes) -> bytes:
    """A few small damages behind the frame."""
    body = bytearray(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        first, last = sorted(rng.randrange(5, len(body) + 1) for _ in range(2))
        match rng.randrange(7):
            case 0 if first < len(body):
                body[first] ^= 1 << rng.randrange(8)
            case 1:
                body.insert(first, rng.randrange(256))
            case 2:
                del body[first : first + 1]
            case 3:
                del body[first:]
            case 4:
                body += rng.randbytes(rng.randrange(1, 12))
            case 5:
                integers = (b"\xff" * 9 + b"\1", b"\x80" * 11 + b"\0", b"\xff\xff\xff\xff\x0f")
                body[first:first] = rng.choice((*integers, b"\1", b"\x80\0"))
            case _:
                body[first:last] = body[first:last][::-1]
    return bytes(body)


@examples(30)
@given(st.data())
def test_the_plain_form_of_a_record_is_what_fastavro_writes(data: st.DataObject) -> None:
    """The slow path's reader agrees with fastavro on records that are decoded one by one."""
    avro = data.draw(schemas())
    raw = data.draw(values_of(avro))
    body = encode(avro, raw)[5:]
    tree = parse_record(RegistrySchema(7, avro), "refuse")
    try:
        plain = plain_record(tree, body)
    except MalformedError:
        with pytest.raises(Refused):
            expected(avro, raw)
        return
    reading = read_strictly(avro, plain)
    try:
        assert expected(avro, reading) == expected(avro, raw)
    except Refused:
        with pytest.raises(Refused):
            expected(avro, raw)


@pytest.mark.parametrize("rows", [1, 7, 16, 17, 33, 1000, 4097])
def test_chunks_of_any_size_come_out_whole(rows: int) -> None:
    values = [encode(TRADE, {**ROW, "size": i}) for i in range(rows)]
    decode, _ = decoder(TRADE)
    assert decode.decode(chunk_of(values)).batch.column("size").to_pylist() == list(range(rows))
    assert decode.decode(chunk_of(values[:3])).batch.column("size").to_pylist() == [0, 1, 2][:rows]


def test_an_empty_chunk_has_no_rows_and_the_declared_schema() -> None:
    decode, declared = decoder(TRADE)
    decoded = decode.decode(chunk_of([]))
    assert (decoded.batch.num_rows, decoded.rejects) == (0, ())
    assert decoded.batch.schema.equals(declared.arrow)


def test_a_batch_can_be_written_as_a_live_segment(tmp_path: Path) -> None:
    """Nulls of nested records lie over fields that are not null: the writer must accept it."""
    inner = record(("x", "int"), ("y", {"type": "map", "values": ["null", "string"]}), name="N")
    avro = record(("n", ["null", inner]), ("l", {"type": "array", "items": ["null", "N"]}))
    value = {"x": 1, "y": {"k": None}}
    raws = [{"n": None, "l": [None, value]}, {"n": value, "l": []}]
    decoded = _decode(avro, [encode(avro, raw) for raw in raws])
    segment = tmp_path / "segment.arrow"
    assert map_file(segment, write_file(decoded.batch, segment)).equals(decoded.batch)


def test_key_and_headers_travel_with_the_rows() -> None:
    spec = replace(SPEC, key=True, headers=True)
    decode, declared = decoder(TRADE, spec=spec)
    chunk = chunk_of([GOOD, b"", GOOD])
    fields = list(declared.arrow)[-2:]
    more = [
        pa.array([b"a", b"b", None], fields[0].type),
        pa.array([[{"key": "h", "value": b"1"}], [], None], fields[1].type),
    ]
    metadata = pa.RecordBatch.from_arrays(
        [*chunk.metadata.columns, *more], schema=pa.schema([*chunk.metadata.schema, *fields])
    )
    decoded = decode.decode(replace(chunk, metadata=metadata))
    assert decoded.batch.column("_key").to_pylist() == [b"a", None]
    assert decoded.batch.column("_headers").to_pylist() == [[{"key": "h", "value": b"1"}], None]


# --- bad records ----------------------------------------------------------------------------------

POISON = {
    "magic": (b"\1" + GOOD[1:], None, "the first byte is 1"),
    "json": (b'{"symbol": "AAPL"}', None, "the first byte is 123"),
    "unknown schema id": (b"\0" + (99).to_bytes(4) + GOOD[5:], 99, "unknown schema id"),
    "truncated": (GOOD[:-1], 7, "the value ends inside the record"),
    "cut to the frame": (FRAME, 7, "symbol: the value ends inside the record"),
    "cut inside the frame": (GOOD[:3], None, "3 bytes are less than a frame"),
    "trailing byte": (GOOD + b"\0", 7, "1 bytes follow the record"),
    "trailing bytes": (GOOD + b"\xff" * 40, 7, "40 bytes follow the record"),
    "two records": (GOOD + GOOD, 7, f"{len(GOOD)} bytes follow the record"),
    "two bodies": (GOOD + GOOD[5:], 7, f"{len(GOOD) - 5} bytes follow the record"),
    "empty": (b"", None, "empty value"),
    "null": (None, None, "null value"),
    "negative length": (FRAME + b"\1", 7, "symbol: a length of -1"),
    "huge length": (FRAME + b"\xfe\xff\xff\xff\xff\x7f", 7, "symbol: the value ends"),
    "endless integer": (FRAME + b"\xff" * 20, 7, "symbol: an integer of more than 64 bits"),
    "no text": (FRAME + b"\x02\xff" + GOOD[10:], 7, "symbol: text that is not UTF-8"),
    "a third branch": (GOOD.replace(b"\x02\x0e", b"\x04\x0e"), 7, "size: the union has no"),
    "huge array": (GOOD[:-6] + b"\xfe\xff\xff\xff\xff\xff\x7f", 7, "tags: .* items in"),
    "digits": (encode(TRADE, {**ROW, "price": b"\x7f" * 9}), 7, r"price: beyond decimal128\(18, 8"),
    "many digits": (encode(TRADE, {**ROW, "price": b"\x7f" * 30}), 7, "price: beyond decimal128"),
}


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("name", POISON)
def test_a_bad_record_costs_itself_only(name: str, place: int) -> None:
    """First, in the middle or last: the others keep their values and offsets."""
    bad, schema_id, reason = POISON[name]
    values: list[bytes | None] = [encode(TRADE, {**ROW, "size": i}) for i in range(5)]
    values[place] = bad
    decoded = _decode(TRADE, values)
    (reject,) = decoded.rejects
    where = (reject.row, reject.topic, reject.partition, reject.offset, reject.schema_id)
    assert where == (place, "t", 0, 100 + place, schema_id)
    assert re.search(reason, reject.reason)
    others = [i for i in range(5) if i != place]
    assert decoded.batch.column("size").to_pylist() == others
    assert _offsets(decoded) == [100 + i for i in others]


@pytest.mark.parametrize("name", POISON)
def test_a_chunk_of_one_bad_record_has_no_rows(name: str) -> None:
    bad, _, _ = POISON[name]
    decoded = _decode(TRADE, [bad])
    assert decoded.batch.num_rows == 0
    assert [r.offset for r in decoded.rejects] == [100]


def test_two_records_in_one_value_and_none_in_the_next_are_no_two_rows() -> None:
    """FACTS of the reader: without nonces the block is valid, at offsets that are wrong."""
    decoded = _decode(TRADE, [GOOD + GOOD, b""])
    assert decoded.batch.num_rows == 0
    assert [r.row for r in decoded.rejects] == [0, 1]


def test_the_nonces_are_what_finds_shifted_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard bites: with a nonce that the producer knows, a forged value passes for two rows."""
    tree = parse_record(RegistrySchema(7, TRADE), "refuse")
    forged: list[bytes | None] = [GOOD + bytes(8) + GOOD]
    # One value, two records, and the filling after them one too many to be read.
    assert BlockReader(tree, Scratch()).read(forged, FRAME) is None
    monkeypatch.setattr(blocks.secrets, "token_bytes", bytes)
    block = BlockReader(tree, Scratch()).read(forged, FRAME)
    assert block is not None
    assert block.columns[0].to_pylist()[:2] == ["AAPL", "AAPL"]


@pytest.mark.parametrize("name", ["trailing byte", "trailing bytes", "two records", "truncated"])
def test_no_reader_is_left_spinning(name: str) -> None:
    """The engine's reader never ends on bytes behind a block's last record; we drop it first."""
    _decode(TRADE, [GOOD, GOOD, POISON[name][0]])
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.15  # a spinning reader would take all of it


def test_what_follows_a_bad_chunk_is_decoded_as_ever() -> None:
    decode, _ = decoder(TRADE)
    for _ in range(3):
        assert len(decode.decode(chunk_of([GOOD, GOOD + b"x"])).rejects) == 1
        assert decode.decode(chunk_of([GOOD, GOOD])).batch.num_rows == 2


@pytest.mark.parametrize(
    ("kind", "raw", "reason"),
    [
        ({"type": "int", "logicalType": "time-millis"}, 86_400_000, r"x: .*time64\[us\]"),
        ({"type": "int", "logicalType": "time-millis"}, -1, r"x: .*time64\[us\]"),
        ({"type": "long", "logicalType": "time-micros"}, 86_400_000_000, r"x: .*time64\[us\]"),
        ({"type": "long", "logicalType": "timestamp-millis"}, 2**62, r"x: .*timestamp\[us, tz"),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, -(2**62), "x: .*timestamp"),
    ],
)
def test_times_that_do_not_fit_are_rejects(kind: object, raw: int, reason: str) -> None:
    avro = record(("x", kind), ("l", {"type": "array", "items": ["null", kind]}))
    chunk = [{"x": 5, "l": []}, {"x": raw, "l": []}, {"x": 5, "l": [None, 5, raw]}]
    decoded = _decode(avro, [encode(avro, r) for r in chunk])
    assert [r.row for r in decoded.rejects] == [1, 2]
    assert re.search(reason, decoded.rejects[0].reason)
    assert decoded.rejects[1].reason.startswith("l.element: ")


@pytest.mark.parametrize("index", [3, -1, 2**31 - 1])
def test_an_index_that_no_symbol_has_is_a_reject(index: int) -> None:
    avro = record(("x", {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}))
    as_int = record(("x", "int"))
    decoded = _decode(avro, [encode(avro, {"x": "C"}), encode(as_int, {"x": index})])
    assert decoded.batch.column("x").to_pylist() == ["C"]
    assert [r.reason for r in decoded.rejects] == ["x: no symbol has this index"]


def test_of_two_values_for_one_key_the_last_counts() -> None:
    avro = record(("m", {"type": "map", "values": "int"}))
    twice = b"\0\0\0\0\7" + b"\x06" + b"\x02a\x02" + b"\x02b\x04" + b"\x02a\x06" + b"\0"
    decoded = _decode(avro, [encode(avro, {"m": {"z": 9}}), twice, encode(avro, {"m": {}})])
    assert [sorted(m) for m in decoded.batch.column("m").to_pylist()] == [
        [("z", 9)],
        [("a", 3), ("b", 2)],
        [],
    ]


@pytest.mark.parametrize("behind", [b"", b"x"])
def test_arrays_in_several_blocks_are_one_list(behind: bytes) -> None:
    """Source: Avro 1.12, "Arrays": a negative count is followed by the block's size.

    The second time a bad record sends the chunk the slow way, to the same result.
    """
    avro = record(("l", {"type": "array", "items": "int"}))
    blocked = b"\0\0\0\0\7" + b"\x03\x04\x02\x04" + b"\x02\x06" + b"\0"
    decoded = _decode(avro, [blocked, encode(avro, {"l": [9]}) + behind])
    assert decoded.batch.column("l").to_pylist()[0] == [1, 2, 3]
    assert len(decoded.rejects) == len(behind)


def test_nanoseconds_are_cut_down_to_microseconds() -> None:
    avro = record(("x", {"type": "long", "logicalType": "timestamp-nanos"}))
    values = [encode(avro, {"x": x}) for x in (1999, -1, -(2**63))]
    spec = replace(SPEC, timestamp_nanos="truncate")
    decoded = _decode(avro, values, spec=spec)
    assert decoded.batch.column("x").cast(pa.int64()).to_pylist() == [1, -1, -(2**63) // 1000]
    as_long = _decode(avro, values, spec=replace(SPEC, timestamp_nanos="as_long"))
    assert as_long.batch.column("x").to_pylist() == [1999, -1, -(2**63)]


# --- several partitions, several schemas ----------------------------------------------------------

NEWER = record(("size", ["null", "int"]), ("symbol", "string"))
OLDER = record(("symbol", "string"), ("size", ["null", "long"]), ("venue", ["null", "string"]))


def test_records_of_several_schemas_come_out_in_the_chunks_order() -> None:
    values = []
    for i in range(40):
        if i % 3 == 0:
            values.append(encode(NEWER, {"symbol": f"n{i}", "size": i}, 8))
        else:
            values.append(encode(OLDER, {"symbol": f"o{i}", "size": i, "venue": "X"}, 7))
    values[11] = values[11][:-1]
    values[12] += b"\0"
    decode, _ = decoder(OLDER, {8: NEWER})
    for _ in range(2):
        decoded = decode.decode(chunk_of(values))
        kept = [i for i in range(40) if i not in (11, 12)]
        assert decoded.batch.column("size").to_pylist() == kept
        assert decoded.batch.column("symbol").to_pylist() == [
            f"{'o' if i % 3 else 'n'}{i}" for i in kept
        ]
        assert decoded.batch.column("venue").null_count == len([i for i in kept if i % 3 == 0])
        assert [(r.row, r.schema_id) for r in decoded.rejects] == [(11, 7), (12, 8)]
    assert decode.decode(chunk_of(values[1:3])).batch.column("size").to_pylist() == [1, 2]


def test_records_of_several_partitions_keep_their_places() -> None:
    one = chunk_of([GOOD, GOOD + b"x"], partition=1, first=10)
    two = chunk_of([GOOD, None], topic="u", partition=0, first=20)
    metadata = pa.concat_batches([one.metadata, two.metadata])
    chunk = Chunk([*one.values, *two.values], metadata, (*one.ranges, *two.ranges))
    decoded = decoder(TRADE)[0].decode(chunk)
    names = ("_topic", "_partition", "_offset")
    rows = zip(*(decoded.batch.column(n).to_pylist() for n in names), strict=True)
    assert list(rows) == [("t", 1, 10), ("u", 0, 20)]
    assert [(r.topic, r.partition, r.offset) for r in decoded.rejects] == [
        ("t", 1, 11),
        ("u", 0, 21),
    ]


def test_random_ids_do_not_flood_the_registry() -> None:
    values = [b"\0" + (1000 + i).to_bytes(4) + b"x" for i in range(200)]
    decode, _ = decoder(TRADE)
    assert len(decode.decode(chunk_of([*values, GOOD])).rejects) == 200
    registry: Any = decode._registry
    # Eight in vain, the first of them once more while the chunk still looked like one block.
    assert len(registry.asked) <= 9


class _Away:
    """A registry that cannot be reached."""

    def get(self, schema_id: int) -> RegistrySchema:
        raise RegistryUnavailable(f"no answer for {schema_id}")

    def latest(self, subject: str) -> RegistrySchema:
        raise RegistryUnavailable(f"no answer for {subject}")

    def close(self) -> None:
        """Nothing is open."""


def test_a_registry_that_is_away_is_no_reason_to_reject_a_record() -> None:
    decode = Decoder(declare(RegistrySchema(7, TRADE), SPEC), _Away(), SPEC)
    assert decode.decode(chunk_of([GOOD])).batch.num_rows == 1
    with pytest.raises(RegistryUnavailable):
        decode.decode(chunk_of([GOOD, b"\0" + (8).to_bytes(4) + GOOD[5:]]))


DECIMAL_9 = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
DECIMAL_18 = {**DECIMAL_9, "precision": 18}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
ENUM_3 = {"type": "enum", "name": "E", "symbols": ["C", "B", "A"]}
INNER = record(("a", "int"), name="I")
INNER_2 = record(("b", ["null", "int"]), ("a", "int"), name="I")


@pytest.mark.parametrize(
    ("writer", "declared", "raw", "held"),
    [
        ("int", "long", -5, -5),
        ("int", "double", -5, -5.0),
        ("float", "double", 0.5, 0.5),
        ("string", "bytes", "é", "é".encode()),
        ({"type": "fixed", "name": "F", "size": 2}, "bytes", b"ab", b"ab"),
        (ENUM, "string", "B", "B"),
        (ENUM_3, ENUM, "C", "C"),
        ("string", {"type": "string", "logicalType": "uuid"}, "x", "x"),
        (DECIMAL_9, DECIMAL_18, b"\x05", "0.05"),
        (MILLIS, MICROS, 7, 7000),
        ("long", ["null", "long"], 7, 7),
        ("int", ["long", "null"], 7, 7),
        (["null", "int"], ["long", "null"], None, None),
        (["int", "null"], ["null", "long"], 7, 7),
        (
            {"type": "array", "items": "int"},
            {"type": "array", "items": ["null", "long"]},
            [1, 2],
            [1, 2],
        ),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, {"k": 1}, {"k": 1}),
        (INNER, INNER_2, {"a": 1}, {"a": 1, "b": None}),
        (["null", INNER], ["null", INNER_2], {"a": 1}, {"a": 1, "b": None}),
    ],
)
def test_a_schema_that_loses_nothing_is_read_into_the_declared_one(
    writer: object, declared: object, raw: object, held: object
) -> None:
    old, new = record(("x", writer)), record(("x", declared))
    decode, target = decoder(new, {8: old})
    decoded = decode.decode(chunk_of([encode(old, {"x": raw}, 8)]))
    assert decoded.batch.schema.equals(target.arrow)
    decoded.batch.validate(full=True)
    (row,) = rows_of(decoded.batch, new)
    value = struct.unpack("<d", row["x"])[0] if isinstance(held, float) else row["x"]
    assert (str(value) if isinstance(held, str) else value) == held


@pytest.mark.parametrize(
    ("writer", "declared", "message"),
    [
        (record(("x", "int"), ("new", "int")), record(("x", "int")), "'new': the table has no"),
        (record(("x", "long")), record(("x", "int")), "'x': it is int64 now.*table's is int32"),
        (record(("x", "long")), record(("x", "double")), "'x': it is int64 now"),
        (record(("x", "string")), record(("x", "long")), "'x': it is string now"),
        (record(("x", DECIMAL_18)), record(("x", DECIMAL_9)), "'x': it is decimal128"),
        (record(("x", ["null", "int"])), record(("x", "int")), "'x': it may be null now"),
        (record(("y", "int")), record(("y", "int"), ("x", "int")), "'x': the writer has no such"),
        (record(("x", INNER_2)), record(("x", INNER)), r"'x\.b': the table has no such field"),
        (
            record(("x", {"type": "array", "items": "string"})),
            record(("x", {"type": "array", "items": "int"})),
            r"'x\.element': it is string",
        ),
        (
            record(("x", {"type": "array", "items": "int"})),
            record(("x", {"type": "map", "values": "int"})),
            "'x': it is list",
        ),
        (record(("x", ["null", "int", "string"])), record(("x", "int")), "a union of 3 branches"),
        ("string", record(("x", "int")), "is no record"),
    ],
)
def test_a_schema_that_the_table_would_lose_something_of_stops_it(
    writer: object, declared: dict[str, Any], message: str
) -> None:
    """The message names the field, both schema ids and what to do."""
    decode, _ = decoder(declared, {8: writer})
    with pytest.raises(SchemaChanged, match=message) as caught:
        decode.decode(chunk_of([b"\0" + (8).to_bytes(4) + b"x"]))
    assert "id 8" in str(caught.value)
    assert "id 7" in str(caught.value)


def _with(avro: dict[str, Any], **more: object) -> dict[str, Any]:
    fields = [*avro["fields"][:-1], {**avro["fields"][-1], **more}]
    return {**avro, "fields": fields}


def test_a_renamed_field_is_found_by_its_alias() -> None:
    new = _with(record(("y", "long")), aliases=["x"])
    decode, _ = decoder(new, {8: record(("x", "int"))})
    old = encode(record(("x", "int")), {"x": 5}, 8)
    assert decode.decode(chunk_of([old])).batch.column("y").to_pylist() == [5]


@pytest.mark.parametrize(
    ("kind", "default", "held"),
    [
        ("boolean", True, True),
        ("int", -3, -3),
        ("long", 2**40, 2**40),
        ("float", 1, struct.pack("<d", 1.0)),
        ("double", 1.5, struct.pack("<d", 1.5)),
        ("string", "é", "é"),
        ("bytes", "\u00ff", b"\xff"),
        ({"type": "fixed", "name": "F", "size": 2}, "ab", b"ab"),
        (ENUM, "B", "B"),
        (MILLIS, 5, 5000),
        (["null", "int"], None, None),
        (["int", "null"], 4, 4),
        ({"type": "array", "items": "int"}, [], []),
        ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
        ({"type": "map", "values": "string"}, {"k": "v"}, {"k": "v"}),
        (INNER_2, {"a": 1, "b": None}, {"b": None, "a": 1}),
    ],
)
def test_a_field_that_the_writer_lacks_takes_the_declared_default(
    kind: object, default: object, held: object
) -> None:
    """Source: Avro 1.12, "Schema Resolution"."""
    old = record(("x", "int"))
    new = _with(record(("x", "int"), ("y", kind)), default=default)
    decode, target = decoder(new, {8: old})
    decoded = decode.decode(chunk_of([encode(old, {"x": i}, 8) for i in range(3)]))
    assert decoded.batch.schema.equals(target.arrow)
    assert [row["y"] for row in rows_of(decoded.batch, new)] == [held] * 3


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("int", "5"),
        ("int", 2**31),
        ("long", 2**63),
        ("string", 5),
        ("boolean", 1),
        ("bytes", "\u0100"),
        ({"type": "fixed", "name": "F", "size": 2}, "abc"),
        (ENUM, "Z"),
        ({"type": "array", "items": "int"}, {}),
        (INNER, {}),
        (DECIMAL_9, "\x7f" * 8),
        ({"type": "int", "logicalType": "time-millis"}, -1),
    ],
)
def test_a_default_that_is_no_value_of_its_type_is_refused(kind: object, default: object) -> None:
    new = _with(record(("x", "int"), ("y", kind)), default=default)
    old = record(("x", "int"))
    decode, _ = decoder(new, {8: old})
    with pytest.raises((SchemaRefused, SchemaChanged), match="'y': the default"):
        decode.decode(chunk_of([encode(old, {"x": 1}, 8)]))


def test_a_failing_reader_is_no_reason_to_reject_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the engine's complaints about the bytes count against them."""
    decode, _ = decoder(TRADE)
    reader = decode._writers[7].reader
    wrong = reader._schema.set(2, pa.field("c0", pa.struct([pa.field("y", pa.int32())])))
    monkeypatch.setattr(reader, "_schema", wrong)
    with pytest.raises(CatalogError, match="the block reader failed"):
        decode.decode(chunk_of([GOOD]))


def test_a_block_that_is_gone_is_no_reason_to_reject_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode, _ = decoder(TRADE)
    monkeypatch.setattr(decode._scratch, "path", "/nowhere/k2")
    with pytest.raises(CatalogError, match="the block reader found no block") as caught:
        decode.decode(chunk_of([GOOD]))
    assert "nowhere" not in str(caught.value)


def test_a_range_without_records_is_an_empty_batch() -> None:
    """Rule 3: empty progress is progress."""
    chunk = replace(chunk_of([]), ranges=(Range("t", 0, 5, 9),))
    decoded = decoder(TRADE)[0].decode(chunk)
    assert (decoded.batch.num_rows, decoded.rejects) == (0, ())
