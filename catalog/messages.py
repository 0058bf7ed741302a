"""The client's message objects taken apart into arrays, without Python code per message.

``map(Message.value, …)`` over C methods costs 25-40 ns a message and property; a ``for`` loop over
the same messages costs ten times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from confluent_kafka import Message

from catalog.errors import LogGap
from catalog.records import Chunk, Range
from catalog.schemas import HEADERS, KEY, TIMESTAMP

_Int64s: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]

#: Bits of a place's code that hold the partition; the topic's index stands above them.
_PARTITION_BITS = 32
#: Kafka's own word for "no timestamp".
_NO_TIME = -1


@dataclass(frozen=True, slots=True)
class Places:
    """What the rows of a chunk are told apart by.

    Attributes:
        topics: names, sorted; a *code* is the topic's index, shifted by 32 bits, + partition, so
            codes order as (topic, partition) does.
        schema: ``catalog.schemas.metadata_schema`` of the table.
    """

    topics: tuple[str, ...]
    schema: pa.Schema

    def code(self, topic: str, partition: int) -> int:
        """The code of a partition."""
        return (self.topics.index(topic) << _PARTITION_BITS) + partition


@dataclass(frozen=True, slots=True)
class Rows:
    """Messages taken apart; one entry per message everywhere.

    ``times`` are in milliseconds, :data:`_NO_TIME` where the message has none. ``keys`` and
    ``headers`` are empty unless the table asks for them.
    """

    values: list[bytes | None]
    codes: _Int64s
    offsets: _Int64s
    times: _Int64s
    keys: list[bytes | None]
    headers: list[object]


def take_apart(messages: Sequence[Message], places: Places) -> Rows:
    """The messages as arrays, in the order in which the client gave them."""
    n = len(messages)
    codes = np.fromiter(map(Message.partition, messages), np.int64, n)
    if len(places.topics) > 1:
        index: dict[str | None, int] = {topic: i for i, topic in enumerate(places.topics)}
        topics = map(index.__getitem__, map(Message.topic, messages))
        codes += np.fromiter(topics, np.int64, n) << _PARTITION_BITS
    times = map(itemgetter(1), map(Message.timestamp, messages))
    return Rows(
        values=list(map(Message.value, messages)),
        codes=codes,
        offsets=np.fromiter(map(Message.offset, messages), np.int64, n),
        times=np.fromiter(times, np.int64, n),
        keys=list(map(Message.key, messages)) if KEY in places.schema.names else [],
        headers=list(map(Message.headers, messages)) if HEADERS in places.schema.names else [],
    )


def in_log_order(parts: Sequence[Rows]) -> Rows:
    """All rows, ordered by (topic, partition, offset).

    The client gives runs of one partition, each in the log's order; so whole runs are moved.
    """
    rows = _joined(parts)
    n = len(rows.codes)
    if n <= 1 or not np.any(rows.codes[1:] < rows.codes[:-1]):
        return rows
    starts = np.concatenate(([0], np.flatnonzero(np.diff(rows.codes)) + 1))
    bounds = [*starts.tolist(), n]
    runs = [slice(bounds[i], bounds[i + 1]) for i in np.argsort(rows.codes[starts], kind="stable")]
    return Rows(
        values=list(chain.from_iterable(map(rows.values.__getitem__, runs))),
        codes=np.concatenate([rows.codes[run] for run in runs]),
        offsets=np.concatenate([rows.offsets[run] for run in runs]),
        times=np.concatenate([rows.times[run] for run in runs]),
        keys=list(chain.from_iterable(map(rows.keys.__getitem__, runs))),
        headers=list(chain.from_iterable(map(rows.headers.__getitem__, runs))),
    )


def to_chunk(rows: Rows, ranges: tuple[Range, ...], places: Places) -> Chunk:
    """The chunk of rows in log order that lie in ``ranges`` (sorted).

    Raises:
        LogGap: a row lies outside its partition's range, or a partition's offsets do not rise.
    """
    _check(rows, ranges, places)
    bounds = [0, *(np.flatnonzero(np.diff(rows.codes >> _PARTITION_BITS)) + 1), len(rows.codes)]
    topics = [
        pa.repeat(places.topics[int(rows.codes[first]) >> _PARTITION_BITS], int(end - first))
        for first, end in pairwise(bounds)
        if end > first
    ]
    columns = [
        pa.concat_arrays(topics) if topics else pa.array([], pa.utf8()),
        pa.array((rows.codes & (2**_PARTITION_BITS - 1)).astype(np.int32)),
        pa.array(rows.offsets),
        _instants(rows.times, places.schema.field(TIMESTAMP).type),
    ]
    names = places.schema.names
    if KEY in names:
        columns.append(pa.array(rows.keys, pa.binary()))
    if HEADERS in names:
        columns.append(pa.array(rows.headers, places.schema.field(HEADERS).type))
    return Chunk(rows.values, pa.RecordBatch.from_arrays(columns, schema=places.schema), ranges)


def _instants(times: _Int64s, kind: pa.DataType) -> pa.Array:
    missing = times == _NO_TIME
    micros = pa.array(times * 1000, mask=missing) if missing.any() else pa.array(times * 1000)
    return micros.view(kind)


def _joined(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    none = np.empty(0, np.int64)
    return Rows(
        values=list(chain.from_iterable(part.values for part in parts)),
        codes=np.concatenate([none, *(part.codes for part in parts)]),
        offsets=np.concatenate([none, *(part.offsets for part in parts)]),
        times=np.concatenate([none, *(part.times for part in parts)]),
        keys=list(chain.from_iterable(part.keys for part in parts)),
        headers=list(chain.from_iterable(part.headers for part in parts)),
    )


def _check(rows: Rows, ranges: tuple[Range, ...], places: Places) -> None:
    """Every row lies in its partition's range, in order: what all else is built on."""
    if not len(rows.codes):
        return
    codes = np.array([places.code(r.topic, r.partition) for r in ranges], np.int64)
    at = np.minimum(np.searchsorted(codes, rows.codes), max(len(codes) - 1, 0))
    if len(codes) and np.array_equal(codes[at], rows.codes):
        firsts = np.array([r.first for r in ranges], np.int64)[at]
        nexts = np.array([r.next for r in ranges], np.int64)[at]
        inside = (rows.offsets >= firsts) & (rows.offsets < nexts)
        rising = (np.diff(rows.offsets) > 0) | (np.diff(rows.codes) > 0)
        if inside.all() and rising.all():
            return
    raise LogGap("the Kafka client gave records outside the positions that it moved over")
