"""Dead letters: what is kept of a record that is no row, and where it waits for its commit.

Between read and flush letters wait in memory only. That is safe: their records lie at or past the
committed positions, so a new ingest reads them again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catalog.offsets import Offsets, TopicPartition
from catalog.records import Chunk, Range, Reject
from catalog.schemas import HEADERS, KEY, OFFSET, PARTITION, TIMESTAMP, TOPIC, metadata_schema
from catalog.spec import TableSpec

VALUE, ERROR, MESSAGE = "value", "error", "message"
SCHEMA_ID, REJECTED = "schema_id", "rejected"

#: One row per rejected record. The first six columns are those of every table (``_key`` and
#: ``_headers`` included); ``value`` is the record's, whole, null for a tombstone; ``error`` a
#: :class:`catalog.records.RejectKind`; ``message`` at most ``MESSAGE_CHARS`` long; ``schema_id``
#: the registry id in the frame, null without a frame; ``rejected`` when the record was read.
LETTER_SCHEMA = pa.schema(
    [
        *metadata_schema(key=True, headers=True),
        pa.field(VALUE, pa.binary()),
        pa.field(ERROR, pa.utf8(), nullable=False),
        pa.field(MESSAGE, pa.utf8(), nullable=False),
        pa.field(SCHEMA_ID, pa.int64()),
        pa.field(REJECTED, pa.timestamp("us", "UTC"), nullable=False),
    ]
)
#: Longest message of a letter, in characters.
MESSAGE_CHARS = 500
#: Arrow bytes of waiting letters at which the consumer pauses and a flush is due. A flood of large
#: bad records must not grow; a chunk or two on their way come on top.
WAITING_BYTES = 64 * 1024 * 1024


def letter_spec(spec: TableSpec) -> TableSpec:
    """The declaration of a table's dead letter table."""
    return TableSpec(spec.dead_letters, spec.topics, sort=(TOPIC, PARTITION, OFFSET))


def letters_of(chunk: Chunk, rejects: Sequence[Reject], now_us: int) -> pa.RecordBatch:
    """The letters of a chunk's rejects, by :data:`LETTER_SCHEMA`, in its order."""
    rows = chunk.metadata.take(pa.array([reject.row for reject in rejects], pa.int64()))
    columns = {
        **{name: rows.column(name) for name in (TOPIC, PARTITION, OFFSET, TIMESTAMP, KEY, HEADERS)},
        VALUE: [chunk.values[reject.row] for reject in rejects],
        ERROR: [str(reject.kind) for reject in rejects],
        MESSAGE: [reject.reason[:MESSAGE_CHARS] for reject in rejects],
        SCHEMA_ID: [reject.schema_id for reject in rejects],
        REJECTED: [now_us] * len(rejects),
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, LETTER_SCHEMA.field(name).type)
        for name, column in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=LETTER_SCHEMA)


class Waiting:
    """Letters that are in no commit yet.

    Invariant, under ``_lock``: in the order in which they were read. The decoding thread adds, the
    flushing thread takes and removes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Arrow bytes of all of them."""
        return self._bytes

    @property
    def rows(self) -> int:
        """How many they are."""
        with self._lock:
            return sum(batch.num_rows for batch in self._batches)

    def add(self, letters: pa.RecordBatch) -> None:
        """Letters of records that are read, and of no version yet."""
        with self._lock:
            self._batches.append(letters)
            self._bytes += letters.nbytes

    def below(self, target: Offsets) -> pa.RecordBatch | None:
        """The letters below ``target``, None: none is; they stay until :meth:`remove_below`."""
        with self._lock:
            batches = list(self._batches)
        if not batches:
            return None
        letters = pa.concat_batches(batches)
        taken = letters.filter(pa.array(rows_below(letters, target)))
        return taken if taken.num_rows else None

    def remove_below(self, target: Offsets) -> None:
        """Those are recorded."""
        with self._lock:
            if not self._batches:
                return
            letters = pa.concat_batches(self._batches)
            kept = letters.filter(pa.array(~rows_below(letters, target)))
            self._batches = [kept] if kept.num_rows else []
            self._bytes = kept.nbytes if kept.num_rows else 0


def rows_below(batch: pa.RecordBatch, target: Offsets) -> npt.NDArray[np.bool_]:
    """Which rows lie below their partition's position."""
    offsets = batch.column(OFFSET).to_numpy(zero_copy_only=False)
    below = np.zeros(batch.num_rows, np.bool_)
    for place, rows in places_of(batch).items():
        below |= rows & (offsets < target.at(place))
    return below


def places_of(batch: pa.RecordBatch) -> Mapping[TopicPartition, npt.NDArray[np.bool_]]:
    """The partitions that rows of the batch are of, and which rows."""
    pairs = batch.select([TOPIC, PARTITION])
    found = pa.Table.from_batches([pairs]).group_by([TOPIC, PARTITION]).aggregate([])
    partitions = batch.column(PARTITION).to_numpy(zero_copy_only=False)
    places = {}
    for place in found.to_pylist():
        same_topic = np.asarray(pc.equal(batch.column(TOPIC), place[TOPIC]), np.bool_)
        rows = same_topic & (partitions == place[PARTITION])
        places[place[TOPIC], place[PARTITION]] = rows
    return places


class Recorded:
    """Records that are letters for good: recorded at or past the table's committed positions.

    A crash between the two commits of a flush leaves them. Whatever these records would decode to
    now, they stay rejects, and are not recorded again.
    """

    def __init__(self, letters: Iterable[pa.RecordBatch] = ()) -> None:
        """Takes batches with at least topic, partition and offset."""
        found: dict[TopicPartition, list[npt.NDArray[np.int64]]] = {}
        for batch in letters:
            offsets = batch.column(OFFSET).to_numpy(zero_copy_only=False)
            for place, rows in places_of(batch).items():
                found.setdefault(place, []).append(offsets[rows])
        self._offsets = {place: np.unique(np.concatenate(each)) for place, each in found.items()}

    def __len__(self) -> int:
        return sum(len(offsets) for offsets in self._offsets.values())

    def holds(self, place: TopicPartition, offset: int) -> bool:
        """Whether the record is recorded."""
        offsets = self._offsets.get(place)
        return offsets is not None and bool(np.isin(offset, offsets))

    def touches(self, ranges: Iterable[Range]) -> bool:
        """Whether a recorded record may lie in one of the ranges."""
        return any(
            bool(((offsets >= r.first) & (offsets < r.next)).any())
            for r in ranges
            if (offsets := self._offsets.get((r.topic, r.partition))) is not None
        )

    def among(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_] | None:
        """Which rows are recorded; None: none is."""
        offsets = batch.column(OFFSET).to_numpy(zero_copy_only=False)
        hit = np.zeros(batch.num_rows, np.bool_)
        for place, rows in places_of(batch).items():
            if place in self._offsets:
                hit |= rows & np.isin(offsets, self._offsets[place])
        return hit if hit.any() else None
