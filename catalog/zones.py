"""Zones of live rows: the filters that leave data files out leave runs of live rows out, too.

The log's order is nearly the order of time, so a minute out of an hour of live rows lies in few
zones. Small materialized aggregates (Moerkotte, VLDB 1998), worked out when a filter first asks for
a column, and kept for as long as the mapped segment lives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.outcomes import Bits
from catalog.prune import needed
from catalog.remembered import Remembered

#: Rows of a zone. A smaller batch is one, and soon part of a larger batch.
ZONE_ROWS = 65_536


class Zones:
    """The zones of some batches, and their bounds (:class:`catalog.prune.Bounds`).

    Args:
        live: batches of one schema.
        zone_rows: rows of a zone; the last one of a batch may have fewer.
    """

    #: Rows are where the log has them, in no bucket.
    buckets = None

    def __init__(self, live: Sequence[pa.RecordBatch], zone_rows: int = ZONE_ROWS) -> None:
        self._live = live
        self._zone_rows = zone_rows
        self.rows = np.array([len(zone) for each in live for zone in self._cut(each)], np.int64)

    def field(self, which: str, column: str) -> pa.Array | None:
        """A column's ``lower`` or ``upper`` bounds or ``null_count``, an item per zone."""
        schema = self._live[0].schema
        position = schema.get_field_index(column)
        if which not in _Ends._fields or position < 0 or not _is_bounded(schema.types[position]):
            return None
        return pa.concat_arrays([getattr(self._ends(each, column), which) for each in self._live])

    def kept(self, keep: Bits) -> tuple[pa.RecordBatch, ...]:
        """The rows of these zones in their order, nothing copied, whole batches as they were."""
        found: list[pa.RecordBatch] = []
        place = 0
        for batch in self._live:
            count = -(-batch.num_rows // self._zone_rows)
            mine, place = keep[place : place + count], place + count
            found += [batch] if mine.all() else self._runs(batch, mine)
        return tuple(found)

    def _runs(self, batch: pa.RecordBatch, keep: Bits) -> Iterator[pa.RecordBatch]:
        """The zones that stay; neighbours are one slice."""
        edges = np.flatnonzero(np.diff(keep, prepend=False, append=False)) * self._zone_rows
        for start, stop in edges.reshape(-1, 2).tolist():
            yield batch.slice(start, stop - start)

    def _ends(self, batch: pa.RecordBatch, column: str) -> _Ends:
        known, key = _known(batch), (column, self._zone_rows)
        found = known.get(key)
        if found is None:
            values = batch.column(column)
            zones = list(self._cut(values))
            ends = [pc.min_max(zone) for zone in zones]
            found = known[key] = _Ends(
                pa.array([each["min"] for each in ends], values.type),
                pa.array([each["max"] for each in ends], values.type),
                pa.array([zone.null_count for zone in zones], pa.int64()),
            )
        return found

    def _cut(self, rows: Any) -> Iterator[Any]:
        """A batch or an array, zone by zone."""
        for start in range(0, len(rows), self._zone_rows):
            yield rows.slice(start, self._zone_rows)


class _Ends(NamedTuple):
    """What is known of a column, an item per zone; the names are those of the entries of files."""

    lower: pa.Array
    upper: pa.Array
    null_count: pa.Array


@Remembered
def _known(_: pa.RecordBatch) -> dict[tuple[str, int], _Ends]:
    """By column and rows of a zone; threads may work twice, and put the same."""
    return {}


def _is_bounded(kind: pa.DataType) -> bool:
    """Types that Arrow orders as the engine does; NaN would lie outside all bounds."""
    types = pa.types
    dates = types.is_timestamp(kind) or types.is_date(kind)
    return bool(types.is_integer(kind) or types.is_decimal(kind) or types.is_string(kind) or dates)


def passing(
    live: tuple[pa.RecordBatch, ...],
    scans: Sequence[Sequence[Any]],
    zone_rows: int = ZONE_ROWS,
) -> tuple[pa.RecordBatch, ...]:
    """The live rows that at least one of the statement's scans may let through.

    All where no batch is larger than a zone: looking would cost more than reading them.

    Args:
        live: batches of one schema.
        scans: per reference to the table its pushed filters, as :func:`catalog.prune.surviving`
            takes them.
        zone_rows: rows of a zone.

    Returns:
        Batches and slices of them, in their order; nothing is copied.
    """
    if not scans or all(batch.num_rows <= zone_rows for batch in live):
        return live
    zones = Zones(live, zone_rows)
    return zones.kept(needed(zones, scans))
