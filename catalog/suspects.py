"""Which of many values cannot be records: one walk over all of them at once, column by column.

A hint and no judgement. A value that is not flagged may still be bad, which the block reader says
of its block (``catalog.blocks``), and what is wrong with one that is flagged says
``catalog.strict``. Only lengths are followed, so a walk costs about as much as reading a block.

Source: Apache Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.avro import Leaf, ListOf, MapOf, Node, Nullable, RecordOf
from catalog.wire import FRAME_BYTES

_Ints = npt.NDArray[np.int64]

#: Rounds of all arrays and maps together; each is a few calls over the values that are left.
_ROUNDS = 64
#: The first so many values show whether the others are worth the walk.
_SAMPLE = 64
_WIDTHS = {"boolean": 1, "float": 4, "double": 8}


def _signed(value: _Ints) -> _Ints:
    """Zigzag undone."""
    return (value >> 1 & (1 << 63) - 1) ^ -(value & 1)


#: First byte → the integer, where it is the only byte.
_SHORT = _signed(np.arange(256) & 0x7F)


class _TooManyRoundsError(Exception):
    """A long array or map: the walk would take a step for each item."""


def suspects(record: RecordOf, values: Sequence[bytes]) -> _Ints | None:
    """The rows, ascending, whose value does not end where its record does.

    Returns:
        None where the values are not worth the walk: an array or map among them is long.
    """
    try:
        _walk(record, values[:_SAMPLE])
        return _walk(record, values)
    except _TooManyRoundsError:
        return None


def _walk(record: RecordOf, values: Sequence[bytes]) -> _Ints:
    _, places, data = pa.array([*values, b"\0"], pa.large_binary()).buffers()
    bounds = np.frombuffer(places, np.int64)[: len(values) + 1]
    walk = _Walk(np.frombuffer(data, np.uint8)[: bounds[-1] + 1])
    return np.flatnonzero(walk.skip(record, bounds[:-1] + FRAME_BYTES) != bounds[1:])


@dataclass(slots=True)
class _Walk:
    """Steps over fields of many values; a place past all values is that of a lost one.

    Attributes:
        raw: the values and one 0.
    """

    raw: npt.NDArray[np.uint8]
    _left: int = _ROUNDS

    def skip(self, node: Node, at: _Ints) -> _Ints:
        """Where the fields end that begin at ``at``."""
        match node:
            case RecordOf():
                for field in node.fields:
                    at = self.skip(field.node, at)
                return at
            case Nullable():
                return self._nullable(node, at)
            case ListOf():
                return self._blocks(at, lambda some: self.skip(node.item, some))
            case MapOf():
                return self._blocks(at, lambda some: self.skip(node.value, self._sized(some)))
            case Leaf():
                return self._leaf(node, at)

    def _nullable(self, node: Nullable, at: _Ints) -> _Ints:
        branch, at = self._integers(at)
        filled = np.flatnonzero(branch == node.branch)
        at[filled] = self.skip(node.inner, at[filled])
        at[(branch < 0) | (branch > 1)] = len(self.raw)
        return at

    def _leaf(self, leaf: Leaf, at: _Ints) -> _Ints:
        if leaf.wire in ("string", "bytes"):
            return self._sized(at)
        if leaf.wire in ("int", "long", "enum"):
            return self._integers(at)[1]
        return at + (leaf.size if leaf.wire == "fixed" else _WIDTHS[leaf.wire])

    def _sized(self, at: _Ints) -> _Ints:
        size, at = self._integers(at)
        return np.where((size < 0) | (size > len(self.raw)), len(self.raw), at + size)

    def _integers(self, at: _Ints) -> tuple[_Ints, _Ints]:
        """The integers that begin at ``at``, and where they end."""
        last = len(self.raw) - 1
        byte = self.raw[np.minimum(at, last)]
        value, at = _SHORT[byte], at + 1
        more = np.flatnonzero(byte & 0x80)
        long, places, rows = (byte[more] & 0x7F).astype(np.int64), at[more], np.arange(len(more))
        for shift in range(7, 64, 7):
            if not len(rows):
                break
            byte = self.raw[np.minimum(places[rows], last)]
            long[rows] |= (byte & 0x7F).astype(np.int64) << shift
            places[rows] += 1
            rows = rows[byte >= 0x80]  # noqa: PLR2004 - the bit that says "more follows"
        value[more] = _signed(long)
        at[more] = places
        return value, at

    def _blocks(self, at: _Ints, item: Callable[[_Ints], _Ints]) -> _Ints:
        """Where arrays or maps end: blocks of items until an empty one."""
        open_ = np.arange(len(at))
        while len(open_):
            count, at[open_] = self._integers(at[open_])
            sized = open_[count < 0]
            at[sized] = self._integers(at[sized])[1]
            count = np.abs(count)
            open_, count = open_[count > 0], count[count > 0]
            rows = open_
            while len(rows):
                self._round()
                at[rows] = item(at[rows])
                count = count - 1
                rows, count = rows[count > 0], count[count > 0]
            self._round()
        return at

    def _round(self) -> None:
        if not self._left:
            raise _TooManyRoundsError
        self._left -= 1
