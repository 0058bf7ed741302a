"""What happens to a record that cannot become a row.

With ``on_error = "stop"`` the table stops at it: the rows before it count, the positions stay in
front of it, and the error names it. Nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import PoisonRecord, shorten
from catalog.offsets import TopicPartition
from catalog.records import Chunk, Decoded, Range, Reject
from catalog.schemas import OFFSET, PARTITION, TOPIC
from catalog.spec import TableSpec


def apply_policy(rejects: Sequence[Reject], spec: TableSpec) -> None:
    """Does what the table's ``on_error`` says.

    Raises:
        PoisonRecord: there is a reject and the policy is to stop; names the first one's topic,
            partition, offset and schema id, and how many partitions have one.
    """
    first = _first_of_each(rejects)
    if not first:
        return
    reject = next(iter(first.values()))
    schema = "no schema id" if reject.schema_id is None else f"schema id {reject.schema_id}"
    more = f" ({len(first) - 1} more partitions have one)" if len(first) > 1 else ""
    raise PoisonRecord(
        f"table {spec.name}: the record at topic {shorten(reject.topic)!r}, partition "
        f"{reject.partition}, offset {reject.offset} ({schema}) cannot be decoded: "
        f"{reject.reason}{more}. The table stops in front of it; correct or delete the record, "
        f"then restart the ingest"
    )


def rows_before(chunk: Chunk, decoded: Decoded) -> tuple[pa.RecordBatch, tuple[Range, ...]]:
    """What of a chunk may be published although it holds rejects.

    Returns:
        The rows of every partition before its first reject, in the chunk's order, and the chunk's
        ranges cut to end at that reject's offset, so that positions never pass it; ranges that
        end where they begin are left out. Without rejects: everything.
    """
    stops = {tp: reject.offset for tp, reject in _first_of_each(decoded.rejects).items()}
    if not stops:
        return decoded.batch, chunk.ranges
    keep = np.ones(decoded.batch.num_rows, np.bool_)
    for (topic, partition), offset in stops.items():
        keep &= ~_at_or_after(decoded.batch, topic, partition, offset)
    ranges = (
        replace(r, next=min(r.next, stops.get((r.topic, r.partition), r.next)))
        for r in chunk.ranges
    )
    return decoded.batch.filter(pa.array(keep)), tuple(r for r in ranges if r.first < r.next)


def _first_of_each(rejects: Sequence[Reject]) -> dict[TopicPartition, Reject]:
    """The first reject of every partition that has one, in order of partition."""
    first: dict[TopicPartition, Reject] = {}
    for reject in sorted(rejects, key=lambda r: (r.topic, r.partition, r.offset)):
        first.setdefault((reject.topic, reject.partition), reject)
    return first


def _at_or_after(
    batch: pa.RecordBatch, topic: str, partition: int, offset: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    same_topic = pc.equal(batch.column(TOPIC), topic)
    same_partition = pc.equal(batch.column(PARTITION), pa.scalar(partition, pa.int32()))
    later = pc.greater_equal(batch.column(OFFSET), pa.scalar(offset, pa.int64()))
    return np.asarray(pc.and_(pc.and_(same_topic, same_partition), later), np.bool_)
