"""What travels between the consumer, the decoder and the live table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Consumer positions of one partition: ``[first, next)``, gaps of the log included (rule 1)."""

    topic: str
    partition: int
    first: int
    next: int


@dataclass(frozen=True, slots=True)
class LogBounds:
    """What the log holds of one partition: the records of ``[begin, end)``.

    Attributes:
        begin: the first offset that is still there.
        stable: where a read_committed reader stops: an open transaction holds it below ``end``.
        end: the high watermark.
        held_us: since when ``stable`` has been held where it is, microseconds since the epoch as
            the ingest saw it; None: nothing holds it.
        close: retention has come close: half of what is there is not committed, and stays so.
    """

    topic: str
    partition: int
    begin: int
    stable: int
    end: int
    held_us: int | None = None
    close: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """The records of one poll, ordered by (topic, partition, offset).

    Attributes:
        values: the records' values as they came; None is a tombstone.
        metadata: one row per record, columns by ``catalog.schemas.metadata_schema(spec)``:
            _topic utf8!, _partition int32!, _offset int64!, _kafka_timestamp timestamp[us, UTC],
            then _key binary and _headers where the table asks for them.
        ranges: what the poll moved over, sorted; a range may hold no record at all (rule 3).
    """

    values: Sequence[bytes | None]
    metadata: pa.RecordBatch
    ranges: tuple[Range, ...]


class RejectKind(StrEnum):
    """Why a record is no row: the class of its error, as users see it."""

    NULL_VALUE = "null_value"
    NO_FRAME = "no_frame"
    UNKNOWN_SCHEMA = "unknown_schema"
    MALFORMED = "malformed"
    OUT_OF_RANGE = "out_of_range"
    TOO_LARGE = "too_large"
    #: It may decode now, but is in the dead letter table already.
    RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that cannot become a row.

    Attributes:
        row: its index in the chunk.
        kind: the class of the error.
        schema_id: the registry id in its frame; None where there is no frame.
        reason: what is wrong, without the record's bytes.
    """

    row: int
    topic: str
    partition: int
    offset: int
    kind: RejectKind
    schema_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class RejectCount:
    """What one partition's rejects were since its log was begun to be read.

    Attributes:
        rejected: records that became no row.
        tombstones: null values that were passed over, by the table's declaration.
        last_offset, last_error, last_message: of the newest reject.
        last_us: when it was read, microseconds since the epoch.
    """

    topic: str
    partition: int
    rejected: int = 0
    tombstones: int = 0
    last_offset: int | None = None
    last_error: str | None = None
    last_message: str | None = None
    last_us: int | None = None


@dataclass(slots=True)
class RejectReport:
    """What a manifest says about rejects; each value is replaced as a whole, by one thread.

    Attributes:
        counts: sorted, of partitions that had any; the decoding thread's.
        letters: how many are recorded, None: the table keeps none; the flushing thread's.
    """

    counts: tuple[RejectCount, ...] = ()
    letters: int | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a chunk became.

    Attributes:
        batch: the rows of the chunk minus its rejects, in its order, in the declared schema.
        rejects: by row.
    """

    batch: pa.RecordBatch
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One partition's share of a segment: positions and rows, both half-open.

    Attributes:
        first, next: consumer positions; ``[first, next)`` may hold fewer rows, or none (rule 3).
        row_first, row_next: the segment's rows of this partition, ordered by offset.
    """

    topic: str
    partition: int
    first: int
    next: int
    row_first: int
    row_next: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One immutable file of live rows, ordered by (topic, partition, offset).

    Attributes:
        file: its path relative to the live folder; never used twice.
        rows: rows in it.
        bytes: size of the file.
        parts: sorted by (topic, partition, first); their rows follow each other. One per
            partition, or several that do not touch, where a merge's inputs left a hole.
        created_us: when it was written, microseconds since the epoch; a merged segment carries
            the time of its oldest input.
        declared: which declaration its rows follow (``catalog.manifest.schema_key``); "": that of
            every manifest that lists it.
        checksum: of the file, by catalog/ipcfile.py; None: written before there was one.
    """

    file: str
    rows: int
    bytes: int
    parts: tuple[Part, ...]
    created_us: int
    declared: str = ""
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class Unflushed:
    """What a flush would take: rows, bytes (of Arrow), seconds since the oldest was read.

    ``age_s`` is None where there is nothing; progress without rows has an age too (rule 3).
    ``left`` says that a flush has taken what it may at most, and this is what it left.
    """

    rows: int
    bytes: int
    age_s: float | None
    left: bool = False
