"""What travels between the consumer, the decoder and the live table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Consumer positions of one partition: ``[first, next)``, gaps of the log included (rule 1)."""

    topic: str
    partition: int
    first: int
    next: int


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


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that cannot become a row.

    Attributes:
        row: its index in the chunk.
        schema_id: the registry id in its frame; None where there is no frame.
        reason: what is wrong, without the record's bytes.
    """

    row: int
    topic: str
    partition: int
    offset: int
    schema_id: int | None
    reason: str
