"""A statement's rows in disjoint shares, so that a client can fetch them in parallel.

Exactness: a share is a condition on **where a row comes from**, never on how an answer is computed.
Rows of a hybrid table are told apart by ``_offset`` alone, which no flush, merge or compaction
changes, so it does not matter that one share is answered from segments and another one, later, from
files (rule 17). Rows of an ordinary table are told apart by their data file: its snapshot's list of
files never changes. The half-open ranges of the shares cover every offset (every file) once, so the
union of the shares is the whole, whatever the ranges are; the estimates only balance them.

Only statements that treat every row by itself can be divided: ``analysis.is_divisible``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import DataFrame, col, lit

from catalog.pins import TableVersion

_OFFSET = "_offset"


@dataclass(frozen=True, slots=True)
class Share:
    """Which rows of the one table.

    Attributes:
        by: "offset": rows whose ``_offset`` lies in the range; "file": rows of the files whose
            place, in the order of their paths, does.
        first: where the range starts.
        next: where the range ends, exclusive; None: it has no end.
    """

    by: Literal["offset", "file"]
    first: int
    next: int | None

    def narrow_files(self, entries: pa.Table) -> pa.Table:
        """The data files of a snapshot, all of them, that this share reads."""
        if self.by != "file":
            return entries
        count = None if self.next is None else self.next - self.first
        return entries.sort_by("path").slice(self.first, count)

    def filters(self) -> tuple[Any, ...]:
        """The condition on rows, as filters of a scan all of which must hold."""
        if self.by != "offset":
            return ()
        lower = () if self.first == 0 else (col(_OFFSET) >= lit(self.first),)
        return lower if self.next is None else (*lower, col(_OFFSET) < lit(self.next))

    def narrow_rows(self, frame: DataFrame) -> DataFrame:
        """The rows of ``frame`` that belong to this share."""
        for each in self.filters():
            frame = frame.filter(each)
        return frame


def divide(version: TableVersion, count: int) -> tuple[Share, ...]:
    """At most ``count`` shares of about as many rows each; less than two: not divided."""
    if version.pin.kind == "plain":
        places = _places_of_files(version.entries, count)
        return _ranges("file", places)
    return _ranges("offset", _cuts(_pieces(version), count))


def _ranges(by: Literal["offset", "file"], cuts: Sequence[int]) -> tuple[Share, ...]:
    """Between the cuts, below the first and from the last on: everything, once."""
    bounds: list[int | None] = [0, *sorted({cut for cut in cuts if cut > 0}), None]
    if len(bounds) == 2:  # noqa: PLR2004  # no cut
        return ()
    return tuple(Share(by, first or 0, end) for first, end in itertools.pairwise(bounds))


def _places_of_files(entries: pa.Table, count: int) -> list[int]:
    """Places in the order of paths at which a new share begins."""
    rows = entries.sort_by("path")["record_count"].to_pylist()
    total, below = sum(rows), 0
    cuts: list[int] = []
    for place, each in enumerate(rows):
        if below * count >= (len(cuts) + 1) * total > 0:
            cuts.append(place)
        below += each
    return cuts[: count - 1]


def _pieces(version: TableVersion) -> list[tuple[int, int, int]]:
    """(least offset, greatest offset, rows) of each file and of each live batch."""
    lower, upper = (
        pc.struct_field(version.entries[which].combine_chunks(), _OFFSET).to_pylist()
        if version.entries.num_rows
        else []
        for which in ("lower", "upper")
    )
    rows = version.entries["record_count"].to_pylist()
    found = list(zip(lower, upper, rows, strict=True))
    for batch in version.live:
        ends = pc.min_max(batch.column(_OFFSET))
        found.append((ends["min"].as_py(), ends["max"].as_py(), batch.num_rows))
    return [(a, b, n) for a, b, n in found if a is not None and b is not None and n]


def _cuts(pieces: Sequence[tuple[int, int, int]], count: int) -> list[int]:
    """Offsets that leave about the same number of rows between them; each piece taken to be even.

    One sweep over where pieces begin and end: a table may have a hundred thousand of them.
    """
    if not pieces:
        return []
    first, last, rows = (np.array(column, np.float64) for column in zip(*pieces, strict=True))
    end = last + 1
    points = np.unique(np.concatenate([first, end]))
    change = np.zeros(len(points))
    np.add.at(change, np.searchsorted(points, first), rows / (end - first))
    np.add.at(change, np.searchsorted(points, end), -rows / (end - first))
    below = np.concatenate([[0.0], np.cumsum(np.cumsum(change)[:-1] * np.diff(points))])
    wanted = rows.sum() * np.arange(1, count) / count
    cuts = np.ceil(np.interp(wanted, below, points)).astype(np.int64)
    return [int(cut) for cut in cuts if 0 < cut < points[-1]]
