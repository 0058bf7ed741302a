"""The good records of a block that was refused, at nearly the speed of a block.

A block with one bad record is refused as a whole, and the reader cannot say where it stumbled (its
second batch of a block is not to be trusted, so neither can smaller batches). A walk over all
records at once finds those that do not end where they should (``catalog.suspects``); if all others
are a block, only those few are left.

What is left, or the whole where the walk is no help, is read in windows, and a window that is
refused is halved until a few records are left, which are looked at one by one (``catalog.strict``).
A bad record then costs a few milliseconds, not its chunk's speed; a window in which many are bad is
read strictly, and so is the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.avro import RecordOf
from catalog.blocks import Block, BlockReader, Joined
from catalog.errors import CatalogError
from catalog.strict import MalformedError, plain_record
from catalog.suspects import suspects
from catalog.wire import FRAME_BYTES

#: Records of a window. A block costs 0.4 ms and 0.6 µs a record; halving costs a window and a half.
_WINDOW = 2_048
#: Records that are looked at one by one (30 µs each) rather than halved again.
_FEW = 16
#: From so many bad records in a window on, halving costs more than looking at each.
_MANY = 12
#: One value in so many may be suspect, at most: each is looked at strictly.
_RARE = 100


def all_but_suspects(
    writer: tuple[BlockReader, RecordOf, bytes], joined: Joined, *, refused: bool
) -> tuple[Block, npt.NDArray[np.int64]] | None:
    """All values but a few, read as one block, and which those few are, ascending.

    Args:
        writer: the schema, and what each of its values begins with.
        joined: the values; a few may be of any kind.
        refused: they are known to be no block as a whole.

    Returns:
        None: they are more than a few, or without them it is no block either.

    Raises:
        CatalogError: the block reader failed for a reason that is not in the values.
    """
    reader, record, frame = writer
    rows = suspects(record, frame, joined)
    if rows is None or len(rows) * _RARE > len(joined.values) or (refused and not len(rows)):
        return None
    block = reader.proved(joined, frame, rows)
    if block is None or block.rows < len(joined.values) - len(rows):
        return None
    return block, rows


@dataclass(slots=True)
class Salvage:
    """Reads values of one writer's schema and keeps what is good.

    Attributes:
        frame: what every value begins with.
        bad: record → what is wrong with it.
    """

    reader: BlockReader
    record: RecordOf
    frame: bytes
    bad: dict[int, str] = field(default_factory=dict)
    _pieces: list[tuple[pa.Array, ...]] = field(default_factory=list)
    _good: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _strict: bool = False

    def read(self, values: Sequence[bytes]) -> tuple[Block, npt.NDArray[np.int64]] | None:
        """The good records as one block, and which of ``values`` they are; None: none is.

        Raises:
            CatalogError: the block reader failed for a reason that is not in the values.
        """
        for first in range(0, len(values), _WINDOW):
            before = len(self.bad)
            self._range(values, first, min(first + _WINDOW, len(values)), before)
            self._strict = len(self.bad) - before >= _MANY
        return self._saved()

    def _saved(self) -> tuple[Block, npt.NDArray[np.int64]] | None:
        if not self._good:
            return None
        if len(self._pieces) == 1:
            return Block(self._pieces[0], len(self._good[0])), self._good[0]
        columns = [pa.concat_arrays(parts) for parts in zip(*self._pieces, strict=True)]
        return Block(tuple(columns), len(columns[0])), np.concatenate(self._good)

    def _range(
        self, values: Sequence[bytes], first: int, end: int, before: int, *, refused: bool = False
    ) -> bool:
        """Reads ``[first, end)``, which may be known to be refused; whether all of it is good."""
        clean = len(self.bad)
        while first < end:
            if end - first <= _FEW or self._strict or len(self.bad) - before >= _MANY:
                self._one_by_one(values, first, end)
                break
            found = None if refused else self.reader.prefix(values[first:end], self.frame)
            if found is not None:
                self._keep(found, np.arange(first, first + found.rows))
                first += found.rows
                if first < end:  # this is the bad one
                    self._one_by_one(values, first, first + 1)
                first += 1
                continue
            half = (first + end) // 2
            # Where the first half is good, the second one is refused: it need not be tried.
            refused = self._range(values, first, half, before)
            first = half
        return len(self.bad) == clean

    def _one_by_one(self, values: Sequence[bytes], first: int, end: int) -> None:
        plain, good = [], []
        for row in range(first, end):
            try:
                plain.append(self.frame + plain_record(self.record, values[row][FRAME_BYTES:]))
                good.append(row)
            except MalformedError as error:
                self.bad[row] = str(error)
        if not plain:
            return
        block = self.reader.read(plain, self.frame)
        if block is None:
            raise CatalogError(
                f"the block reader refuses {len(plain)} records of schema id "
                f"{int.from_bytes(self.frame[1:])} that are valid one by one"
            )
        self._keep(block, np.array(good, np.int64))

    def _keep(self, block: Block, rows: npt.NDArray[np.int64]) -> None:
        if block.rows:
            self._pieces.append(tuple(column.slice(0, block.rows) for column in block.columns))
            self._good.append(rows)
