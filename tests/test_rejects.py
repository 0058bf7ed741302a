"""What a bad record does to its table, and what of its chunk still counts."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from support_avro import SPEC, chunk_of, decoder, encode, record

from catalog.errors import PoisonRecord, TooManyRejects
from catalog.letters import Recorded
from catalog.offsets import Offsets
from catalog.records import Chunk, Range
from catalog.rejects import Judged, Rejects, rows_before
from catalog.schemas import metadata_schema

AVRO = record(("x", "long"))


def _value(x: int) -> bytes:
    return encode(AVRO, {"x": x})


def _chunk(*parts: Chunk) -> Chunk:
    values = [value for part in parts for value in part.values]
    ranges = tuple(r for part in parts for r in part.ranges)
    return Chunk(values, pa.concat_batches([p.metadata for p in parts]), ranges)


def _stopped(*parts: Chunk) -> str:
    """Why the table stops at these records."""
    chunk = _chunk(*parts)
    judged = Rejects(SPEC).judge(chunk, decoder(AVRO)[0].decode(chunk))
    assert type(judged.error) is PoisonRecord
    return str(judged.error)


def test_without_rejects_nothing_stops_and_everything_counts() -> None:
    chunk = chunk_of([_value(1), _value(2)])
    decoded = decoder(AVRO)[0].decode(chunk)
    assert Rejects(SPEC).judge(chunk, decoded) == Judged(decoded.batch, chunk.ranges)


def test_the_table_stops_and_the_error_says_where() -> None:
    text = _stopped(chunk_of([_value(1), _value(2) + b"x", None]))
    for part in ("market_data.t", "'t'", "partition 0", "offset 101", "schema id 7", "1 bytes"):
        assert part in text


def test_a_record_without_a_frame_has_no_schema_id() -> None:
    assert "offset 100 (no schema id)" in _stopped(chunk_of([b"{}"]))


def test_the_error_counts_the_other_partitions_that_have_one() -> None:
    text = _stopped(
        chunk_of([None, None], partition=0),
        chunk_of([None], partition=1),
        chunk_of([b""], topic="u"),
    )
    assert "offset 100 " in text
    assert "2 more partitions" in text


def test_a_skipped_record_is_passed_and_counted() -> None:
    """Rule 3: the range is passed whole; rows before and after the record count."""
    rejects = Rejects(replace(SPEC, on_error="skip", tombstones="skip"))
    chunk = chunk_of([_value(1), b"{}", None, _value(2)])
    judged = rejects.judge(chunk, decoder(AVRO)[0].decode(chunk))
    assert judged.batch.column("x").to_pylist() == [1, 2]
    assert (judged.ranges, judged.error) == (chunk.ranges, None)
    assert judged.counted == {"no_frame": 1, "tombstone": 1}
    (count,) = rejects.report.counts
    assert (count.rejected, count.tombstones, count.last_offset) == (1, 1, 101)
    assert rejects.waiting.rows == 0


def test_letters_wait_until_their_flush_and_in_order_of_reading() -> None:
    rejects = Rejects(replace(SPEC, on_error="dead_letter"))
    for first in (100, 110):
        chunk = with_key_and_headers(chunk_of([b"{}", _value(1), b"["], first=first))
        rejects.judge(chunk, decoder(AVRO)[0].decode(chunk))
    below = Offsets({("t", 0): 111})
    taken = rejects.waiting.below(below)
    assert taken is not None
    assert taken.column("_offset").to_pylist() == [100, 102, 110]
    assert taken.column("value").to_pylist() == [b"{}", b"[", b"{}"]
    assert rejects.waiting.bytes > 0
    rejects.waiting.remove_below(below)
    assert rejects.waiting.rows == 1
    rejects.waiting.remove_below(Offsets({("t", 0): 113}))
    assert (rejects.waiting.rows, rejects.waiting.bytes) == (0, 0)


def with_key_and_headers(chunk: Chunk) -> Chunk:
    """As the log's reader gives it for a table that keeps letters."""
    schema = metadata_schema(key=True, headers=True)
    nulls = [pa.nulls(chunk.metadata.num_rows, field.type) for field in list(schema)[4:]]
    columns = [*chunk.metadata.columns, *nulls]
    return replace(chunk, metadata=pa.RecordBatch.from_arrays(columns, schema=schema))


def test_a_recorded_letter_stays_one_and_does_not_wait_again() -> None:
    """After a crash between the two commits the dead letter table is ahead of the table."""
    rejects = Rejects(
        replace(SPEC, on_error="dead_letter"), Recorded([chunk_of([b"", b""]).metadata])
    )
    chunk = with_key_and_headers(chunk_of([_value(1), b"{}", _value(3), b"{"]))
    judged = rejects.judge(chunk, decoder(AVRO)[0].decode(chunk))
    assert judged.batch.column("x").to_pylist() == [3]
    assert judged.counted == {"no_frame": 2, "recorded": 1}
    waiting = rejects.waiting.below(Offsets({("t", 0): 999}))
    assert waiting is not None
    assert waiting.column("_offset").to_pylist() == [103]


@pytest.mark.parametrize(
    ("share", "bad", "stops"), [(0.5, 20, False), (0.5, 21, True), (1.0, 40, False)]
)
def test_the_share_is_taken_over_a_window_and_the_limit_itself_is_allowed(
    share: float, bad: int, *, stops: bool
) -> None:
    spec = replace(SPEC, on_error="skip", max_reject_share=share, reject_window=40)
    rejects = Rejects(spec)
    decode = decoder(AVRO)[0].decode
    early = chunk_of([b"{}"] * 39)  # too few to say anything, and out of the window soon
    assert rejects.judge(early, decode(early)).error is None
    clean = chunk_of([_value(1)] * 40, first=200)
    assert rejects.judge(clean, decode(clean)).error is None
    chunk = chunk_of([_value(1)] * (40 - bad) + [b"{}"] * bad, first=300)
    judged = rejects.judge(chunk, decode(chunk))
    assert isinstance(judged.error, TooManyRejects) is stops
    assert bool(judged.ranges) is not stops


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
