"""Keys of deleted rows, and the newest delete of each: null-safe, by whole columns.

Values are equal as Iceberg's own comparators have it: null equals null, NaN equals NaN, and -0.0
is not 0.0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

#: What :meth:`KeySet.newest` says of a row whose key was never deleted: older than every file.
NEVER = -1


class KeySet:
    """Keys of one or more columns with sequence numbers; frozen once made.

    Every column is coded by its distinct values, then pairs of codes are coded again, so that a
    key of any width ends as one small integer.

    Args:
        columns: the keys, column by column; not empty.
        sequences: int64, the sequence number of each key's delete file.
    """

    def __init__(self, columns: Sequence[pa.Array], sequences: NDArray[np.int64]) -> None:
        normal = [comparable(column) for column in columns]
        self._values = [pc.unique(column) for column in normal]
        self._pairs: list[pa.Array] = []
        codes = pc.index_in(normal[0], value_set=self._values[0])
        for column, values in zip(normal[1:], self._values[1:], strict=True):
            pairs = _paired(codes, column, values)
            self._pairs.append(pc.unique(pairs))
            codes = pc.index_in(pairs, value_set=self._pairs[-1])
        # One more place, for the rows that have no code.
        self._newest = np.full(1 + pc.count_distinct(codes).as_py(), NEVER, np.int64)
        np.maximum.at(self._newest, np.asarray(codes), sequences)

    @property
    def nbytes(self) -> int:
        """About what it takes of memory."""
        arrays = sum(array.nbytes for array in (*self._values, *self._pairs))
        return int(arrays + self._newest.nbytes)

    def newest(self, columns: Sequence[pa.Array]) -> NDArray[np.int64]:
        """Per row the greatest sequence number of the deletes of its key; :data:`NEVER`: none.

        Args:
            columns: of the very types that the set was made of.
        """
        codes = pc.index_in(comparable(columns[0]), value_set=self._values[0])
        for i, column in enumerate(columns[1:]):
            pairs = _paired(codes, comparable(column), self._values[i + 1])
            codes = pc.index_in(pairs, value_set=self._pairs[i])
        places = np.asarray(pc.fill_null(codes, len(self._newest) - 1), np.int64)
        newest: NDArray[np.int64] = self._newest[places]
        return newest


def comparable(column: pa.Array) -> pa.Array:
    """Floating values as the bits of their one canonical form; others as they are."""
    if not pa.types.is_floating(column.type):
        return column
    nan = pa.scalar(float("nan"), column.type)
    one = pc.if_else(pc.is_nan(column), nan, column)
    return one.view(pa.int32() if column.type.bit_width == pa.int32().bit_width else pa.int64())


def _paired(codes: pa.Array, column: pa.Array, values: pa.Array) -> pa.Array:
    """One integer per pair of codes; null where either column has no code."""
    second = pc.index_in(column, value_set=values).cast(pa.int64())
    return pc.add(pc.multiply(codes.cast(pa.int64()), len(values)), second)
