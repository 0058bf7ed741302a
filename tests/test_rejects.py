"""What a bad record does to its table, and what of its chunk still counts."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support_avro import SPEC, chunk_of, decoder, encode, record

from catalog.errors import PoisonRecord
from catalog.records import Chunk, Range
from catalog.rejects import apply_policy, rows_before

AVRO = record(("x", "long"))


def _value(x: int) -> bytes:
    return encode(AVRO, {"x": x})


def _chunk(*parts: Chunk) -> Chunk:
    values = [value for part in parts for value in part.values]
    ranges = tuple(r for part in parts for r in part.ranges)
    return Chunk(values, pa.concat_batches([p.metadata for p in parts]), ranges)


def test_without_rejects_nothing_is_raised_and_everything_counts() -> None:
    chunk = chunk_of([_value(1), _value(2)])
    decoded = decoder(AVRO)[0].decode(chunk)
    apply_policy(decoded.rejects, SPEC)
    assert rows_before(chunk, decoded) == (decoded.batch, chunk.ranges)


def test_the_table_stops_and_the_error_says_where() -> None:
    chunk = chunk_of([_value(1), _value(2) + b"x", None])
    decoded = decoder(AVRO)[0].decode(chunk)
    with pytest.raises(PoisonRecord) as caught:
        apply_policy(decoded.rejects, SPEC)
    text = str(caught.value)
    for part in ("market_data.t", "'t'", "partition 0", "offset 101", "schema id 7", "1 bytes"):
        assert part in text


def test_a_record_without_a_frame_has_no_schema_id() -> None:
    decoded = decoder(AVRO)[0].decode(chunk_of([b"{}"]))
    with pytest.raises(PoisonRecord, match="offset 100 \\(no schema id\\)"):
        apply_policy(decoded.rejects, SPEC)


def test_the_error_counts_the_other_partitions_that_have_one() -> None:
    chunk = _chunk(
        chunk_of([None, None], partition=0),
        chunk_of([None], partition=1),
        chunk_of([b""], topic="u"),
    )
    decoded = decoder(AVRO)[0].decode(chunk)
    with pytest.raises(PoisonRecord, match=r"offset 100 .*2 more partitions"):
        apply_policy(decoded.rejects, SPEC)


def test_positions_never_pass_a_bad_record_and_rows_before_it_count() -> None:
    """Rule 1: the cut range is half-open and ends at the record that could not be read."""
    chunk = _chunk(
        chunk_of([_value(0), _value(1), _value(2)], topic="a", partition=0, first=10),
        chunk_of([_value(3), None, _value(5), None], topic="b", partition=0, first=20),
        chunk_of([b"", _value(7)], topic="b", partition=1, first=30),
    )
    decoded = decoder(AVRO)[0].decode(chunk)
    batch, ranges = rows_before(chunk, decoded)
    assert batch.column("x").to_pylist() == [0, 1, 2, 3]
    assert ranges == (Range("a", 0, 10, 13), Range("b", 0, 20, 21))


def test_what_the_log_skipped_before_a_bad_record_counts_too() -> None:
    """Rules 1 and 3: control records leave gaps; the range is cut, not the distance of rows."""
    chunk = chunk_of([_value(1), None], first=50)
    decoded = decoder(AVRO)[0].decode(chunk)
    wide = Chunk(chunk.values, chunk.metadata, (Range("t", 0, 40, 60), Range("t", 3, 5, 9)))
    batch, ranges = rows_before(wide, decoded)
    assert batch.num_rows == 1
    assert ranges == (Range("t", 0, 40, 51), Range("t", 3, 5, 9))
