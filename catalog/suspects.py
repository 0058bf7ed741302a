"""Which of many values cannot be records: one walk over all of them at once, column by column.

A hint and no judgement. A value that is not flagged may still be bad, which the block reader says
of its block (``catalog.blocks``), and what is wrong with one that is flagged says
``catalog.strict``. Only lengths are followed, so a walk costs about as much as reading a block.

Source: Apache Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from catalog.avro import Leaf, ListOf, MapOf, Node, Nullable, RecordOf
from catalog.blocks import TAIL_BYTES, Joined
from catalog.wire import FRAME_BYTES, NONCE_BYTES

_Ints = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

#: Rounds of the arrays and maps of values that are walked together, each a few calls over those
#: that are not at an end; and as many more of few values.
_ROUNDS = 64
#: The first so many values show whether the others are worth the walk.
_SAMPLE = 64
#: Values that are walked together: they and the places in them stay in the processor's cache.
_TOGETHER = 8_192
#: One value in so many may have a longer array or map: it is suspect then.
_RARE = 100
_WIDTHS = {"boolean": 1, "float": 4, "double": 8}
#: Past every value, however often a step comes on top.
_LOST = 1 << 40
#: The bits of a word's bytes that say "more follows".
_MORE = np.uint64(0x8080_8080_8080_8080)
#: Words that hold what follows the first byte of the longest integer.
_LONGEST_WORDS = 2


def _signed(value: _Ints) -> _Ints:
    """Zigzag undone."""
    return (value >> 1 & (1 << 63) - 1) ^ -(value & 1)


#: First byte → the integer, where it is the only byte.
_SHORT = _signed(np.arange(256) & 0x7F)
#: First byte of a length → bytes to step over, the length's included, where it is the only byte.
_STEP = np.where(_SHORT < 0, _LOST, _SHORT + 1)
#: First byte of a union's index of two branches → 0, 1 or 2: none of them.
_BRANCH = np.where((_SHORT == 0) | (_SHORT == 1), _SHORT, 2).astype(np.uint8)


class _TooManyRoundsError(Exception):
    """A long array or map: the walk would take a step for each item."""


def suspects(record: RecordOf, frame: bytes, joined: Joined) -> _Ints | None:
    """The rows, ascending, whose value has another frame or does not end where its record does.

    Returns:
        None where the values are not worth the walk: an array or map among them is long.
    """
    bounds, walk = joined.bounds(), _Walk(np.frombuffer(joined.data, np.uint8))
    found = [np.empty(0, np.int64)]
    steps = [*range(_SAMPLE, len(joined.values), _TOGETHER), len(joined.values)]
    try:
        for first, next_ in pairwise([0, *steps]):
            begins, ends = bounds[first:next_] + NONCE_BYTES, bounds[first + 1 : next_ + 1]
            odd = walk.over(record, begins + FRAME_BYTES, ends) != ends
            found.append(first + np.flatnonzero(odd | walk.differ(frame, begins)))
    except _TooManyRoundsError:
        return None
    return np.concatenate(found)


class _Walk:
    """Steps over fields of many values; a place past all values is that of a lost one.

    Args:
        raw: the values and a word of 0.
    """

    def __init__(self, raw: npt.NDArray[np.uint8]) -> None:
        self._raw = raw
        self._words: _Words = np.ndarray(len(raw) - TAIL_BYTES + 1, "<u8", raw, strides=(1,))
        self._left, self._few = [0, 0], 0

    def over(self, record: RecordOf, at: _Ints, ends: _Ints) -> _Ints:
        """Where the records end that begin at ``at`` and should end at ``ends``."""
        self._left, self._few = [_ROUNDS, _ROUNDS], 1 + len(at) // _RARE
        return self._skip(record, at, ends)

    def differ(self, frame: bytes, at: _Ints) -> npt.NDArray[np.bool_]:
        """Whether other bytes than ``frame`` stand at ``at``."""
        heads = self._words[at] & np.uint64((1 << 8 * FRAME_BYTES) - 1)
        differ: npt.NDArray[np.bool_] = heads != np.uint64(int.from_bytes(frame, "little"))
        return differ

    def _skip(self, node: Node, at: _Ints, ends: _Ints) -> _Ints:
        match node:
            case RecordOf():
                for field in node.fields:
                    at = self._skip(field.node, at, ends)
                return at
            case Nullable():
                return self._nullable(node, at, ends)
            case ListOf():
                return self._blocks(at, ends, lambda some, to: self._skip(node.item, some, to))
            case MapOf():
                value = node.value
                return self._blocks(
                    at, ends, lambda some, to: self._skip(value, self._sized(some), to)
                )
            case Leaf():
                return self._leaf(node, at)

    def _nullable(self, node: Nullable, at: _Ints, ends: _Ints) -> _Ints:
        branch = _BRANCH.take(self._bytes(at))
        at = self._integers_end(at)
        filled = np.flatnonzero(branch == node.branch)
        at[filled] = self._skip(node.inner, at[filled], ends[filled])
        at[branch > 1] = _LOST
        return at

    def _leaf(self, leaf: Leaf, at: _Ints) -> _Ints:
        if leaf.wire in ("string", "bytes"):
            return self._sized(at)
        if leaf.wire in ("int", "long", "enum"):
            return self._integers_end(at)
        return at + (leaf.size if leaf.wire == "fixed" else _WIDTHS[leaf.wire])

    def _bytes(self, at: _Ints) -> npt.NDArray[np.uint8]:
        """The bytes at ``at``; 0 past all values."""
        return self._raw.take(at, mode="clip")

    def _sized(self, at: _Ints) -> _Ints:
        """Where the strings end that begin at ``at``."""
        byte = self._bytes(at)
        ends = at + _STEP.take(byte)
        long = np.flatnonzero(byte >= 0x80)  # noqa: PLR2004 - the bit that says "more follows"
        if len(long):
            size, begins = self._integers(at[long])
            ends[long] = np.where((size < 0) | (size > len(self._raw)), _LOST, begins + size)
        return ends

    def _integers_end(self, at: _Ints) -> _Ints:
        """Where the integers end that begin at ``at``."""
        ends = at + 1
        rows = np.flatnonzero(self._bytes(at) >= 0x80)  # noqa: PLR2004 - "more follows"
        for _ in range(_LONGEST_WORDS):
            if not len(rows):
                return ends
            some = ends[rows]
            last = ~self._words[np.minimum(some, len(self._words) - 1)] & _MORE
            # The bits below the lowest one that is set: eight for each byte that more follows.
            ends[rows] = some + (np.bitwise_count(last ^ (last - np.uint64(1))) >> np.uint8(3))
            rows = rows[last == 0]
        ends[rows] = _LOST
        return ends

    def _integers(self, at: _Ints) -> tuple[_Ints, _Ints]:
        """The integers that begin at ``at``, and where they end."""
        byte = self._bytes(at)
        value, at = _SHORT.take(byte), at + 1
        more = np.flatnonzero(byte >= 0x80)  # noqa: PLR2004 - the bit that says "more follows"
        if not len(more):
            return value, at
        long, places, rows = (byte[more] & 0x7F).astype(np.int64), at[more], np.arange(len(more))
        for shift in range(7, 64, 7):
            if not len(rows):
                break
            byte = self._bytes(places[rows])
            long[rows] |= (byte & 0x7F).astype(np.int64) << shift
            places[rows] += 1
            rows = rows[byte >= 0x80]  # noqa: PLR2004 - the bit that says "more follows"
        value[more] = _signed(long)
        at[more] = places
        return value, at

    def _blocks(self, at: _Ints, ends: _Ints, item: Callable[[_Ints, _Ints], _Ints]) -> _Ints:
        """Where arrays or maps end: blocks of items until an empty one."""
        open_ = np.arange(len(at))
        while len(open_):
            count, at[open_] = self._integers(at[open_])
            sized = open_[count < 0]
            at[sized] = self._integers_end(at[sized])
            open_, count = open_[count != 0], np.abs(count[count != 0])
            rows = open_
            while len(rows):
                self._round(at, rows)
                at[rows] = item(at[rows], ends[rows])
                count = count - 1
                # What is past its value's end reads others' bytes.
                more = (count > 0) & (at[rows] < ends[rows])
                rows, count = rows[more], count[more]
            at[open_[at[open_] >= ends[open_]]] = _LOST
            open_ = open_[at[open_] < _LOST]
            self._round(at, open_)
        return at

    def _round(self, at: _Ints, rows: _Ints) -> None:
        """Counts; after too many rounds of a few rows, they and all further few ones are lost."""
        few = len(rows) <= self._few
        if self._left[few]:
            self._left[few] -= 1
        elif few:
            at[rows] = _LOST
        else:
            raise _TooManyRoundsError
