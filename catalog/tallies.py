"""How many rows a table holds of each partition, and which: what lets the table be proved later.

A snapshot records, beside its positions, the sum of all commits up to it (docs/operations.md,
"Proving a table"). Sums and not the commit's own numbers, because snapshots are expired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

#: A partition of a topic, as in catalog.offsets.
_Place: TypeAlias = tuple[str, int]
_UInt64s: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]
_Int64s: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]

_WORD = 2**64
# Odd numbers without a pattern (splitmix64's): neighbours get sums that look unrelated.
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
_SHIFTS = (np.uint64(32), np.uint64(29))


def mixed(numbers: _UInt64s) -> _UInt64s:
    """Each number spread over 64 bits; a bijection, so two numbers never become one."""
    out = numbers * _FACTORS[0]
    out ^= out >> _SHIFTS[0]
    out *= _FACTORS[1]
    out ^= out >> _SHIFTS[1]
    return out


def checksum(offsets: _Int64s) -> int:
    """A sum over offsets in any order, modulo 2**64."""
    return int(mixed(offsets.astype(np.int64, copy=False).view(np.uint64)).sum(dtype=np.uint64))


@dataclass(frozen=True, slots=True)
class Tally:
    """What a table holds of one partition, in ``[first, position)``.

    Attributes:
        first: where the counting begins.
        rows: records in the table.
        sum: :func:`checksum` of their offsets.
        rejects: records that are in the log and, by the table's policy, not in the table.
        lost: half-open ranges that the log no longer held when they were due, given up by
            `k2 repair`, ascending.
        older: the table may hold rows below ``first``, from before tallies were kept.
    """

    first: int
    rows: int = 0
    sum: int = 0
    rejects: int = 0
    lost: tuple[tuple[int, int], ...] = ()
    older: bool = False

    def plus(self, more: Tally) -> Tally:
        """This and what came later; ``first`` stays."""
        return replace(
            self,
            rows=self.rows + more.rows,
            sum=(self.sum + more.sum) % _WORD,
            rejects=self.rejects + more.rejects,
            lost=_merged((*self.lost, *more.lost)),
        )

    def minus(self, less: Tally) -> Tally:
        """This without rows that left the table, and rejects that became rows."""
        total = (self.sum - less.sum) % _WORD
        rejects = self.rejects - less.rejects
        return replace(self, rows=self.rows - less.rows, sum=total, rejects=rejects)


@dataclass(frozen=True, slots=True)
class Tallies(Mapping[_Place, Tally]):
    """A frozen map (topic, partition) → :class:`Tally`."""

    _of: Mapping[_Place, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ordered = {place: self._of[place] for place in sorted(self._of)}
        object.__setattr__(self, "_of", MappingProxyType(ordered))

    def __getitem__(self, place: _Place) -> Tally:
        return self._of[place]

    def __iter__(self) -> Iterator[_Place]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __hash__(self) -> int:
        return hash(tuple(self._of.items()))

    def begun_at(self, positions: Mapping[_Place, int], places: Iterable[_Place]) -> Tallies:
        """These, and an empty tally for each other place, from its position on.

        A place without a position is a new one, from 0 on; one with a position and without a
        tally is older than tallies are.
        """
        new = {
            place: Tally(positions.get(place, 0), older=place in positions)
            for place in {*positions, *places} - self._of.keys()
        }
        return Tallies({**self._of, **new})

    def plus(self, more: Tallies) -> Tallies:
        """Per partition the sum; every partition of ``more`` must have begun here."""
        return Tallies({**self._of, **{p: self._of[p].plus(more[p]) for p in more}})

    def minus(self, less: Tallies) -> Tallies:
        """Without rows that left the table; every partition of ``less`` must have begun here."""
        return Tallies({**self._of, **{p: self._of[p].minus(less[p]) for p in less}})

    def to_json(self) -> dict[str, dict[str, list[object]]]:
        """``{"topic": {"0": [first, rows, "sum in hex", rejects, [[first, next], …], older]}}``."""
        nested: dict[str, dict[str, list[object]]] = {}
        for (topic, partition), t in self._of.items():
            lost = [list(pair) for pair in t.lost]
            item = [t.first, t.rows, f"{t.sum:x}", t.rejects, lost, int(t.older)]
            nested.setdefault(topic, {})[str(partition)] = item
        return nested

    @classmethod
    def from_json(cls, nested: Mapping[str, Mapping[str, Sequence[Any]]]) -> Tallies:
        """The inverse of :meth:`to_json`."""
        return cls(
            {
                (topic, int(partition)): _tally(*item)
                for topic, parts in nested.items()
                for partition, item in parts.items()
            }
        )


def tallies_of(rows: pa.Table, topic: str, partition: str, offset: str) -> Tallies:
    """What ``rows``, in any order, add; ``first`` is the lowest offset of each partition.

    The columns are named by their meaning.
    """
    if not rows.num_rows or not {topic, partition, offset} <= {*rows.schema.names}:
        return Tallies()  # rows that do not say where they are from, of a table beside ours
    hashes = [
        pa.array(mixed(chunk.to_numpy(zero_copy_only=False).view(np.uint64)))
        for chunk in rows[offset].chunks
    ]
    keyed = pa.table(
        {
            "topic": rows[topic],
            "partition": rows[partition],
            "offset": rows[offset],
            "hash": pa.chunked_array(hashes, pa.uint64()),
        }
    )
    asked = [("offset", "min"), ("offset", "count"), ("hash", "sum")]  # Arrow's sum wraps around
    grouped = keyed.group_by(["topic", "partition"]).aggregate(asked)
    columns = ("topic", "partition", "offset_min", "offset_count", "hash_sum")
    return Tallies(
        {
            (name, number): Tally(lowest, count, total)
            for name, number, lowest, count, total in zip(
                *(grouped[column].to_pylist() for column in columns), strict=True
            )
        }
    )


def _tally(*item: Any) -> Tally:
    first, rows, total, rejects, lost, older = item
    ranges = tuple((int(low), int(high)) for low, high in lost)
    return Tally(int(first), int(rows), int(total, 16), int(rejects), ranges, bool(older))


def _merged(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ascending; those that touch become one."""
    out: list[tuple[int, int]] = []
    for first, next_ in sorted(ranges):
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(next_, out[-1][1]))
        else:
            out.append((first, next_))
    return tuple(out)
