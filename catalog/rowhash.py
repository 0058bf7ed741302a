"""One number per row, the same for equal values: to compare many rows in any order by their sum.

Made by whole columns. Integers, floats and decimals count by value, so a promoted column is the
same; a null is none of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from catalog.tallies import mixed

UInt64s: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]

_NULL = np.uint64(0x5851F42D4C957F2D)
#: Bytes of a 64-bit word.
_WORD = 8


def row_hashes(batch: pa.RecordBatch, columns: Sequence[str]) -> UInt64s:
    """The hashes of a batch's rows over some columns, in this order."""
    total = np.zeros(batch.num_rows, np.uint64)
    for number, name in enumerate(columns, start=1):
        total += mixed(_hashes(batch.column(name)) + np.uint64(number))
    return mixed(total)


def _hashes(column: pa.Array) -> UInt64s:
    """One number per value."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _of_dictionary(column)
    if pa.types.is_struct(kind):
        fields = [column.field(at) for at in range(kind.num_fields)]
        total = np.zeros(len(column), np.uint64)
        for number, field in enumerate(fields, start=1):
            total += mixed(_hashes(field) + np.uint64(number))
    elif pa.types.is_map(kind):
        entries = pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"])
        total = _summed(_hashes(entries), column.offsets)
    elif pa.types.is_list(kind):
        total = _summed(_hashes(column.values), column.offsets)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _of_dictionary(column.dictionary_encode())
    elif pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        total = _of_bytes(column, kind.byte_width)
    else:
        total = mixed(_words(column))
    if column.null_count:
        total = np.where(column.is_valid().to_numpy(zero_copy_only=False), total, _NULL)
    return total


def _of_dictionary(column: pa.Array) -> UInt64s:
    """Each distinct text is hashed once."""
    texts = column.dictionary.cast(pa.binary())
    lengths = np.diff(np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1])
    known = np.array([_NULL], np.uint64)
    if len(texts):
        size = int(lengths.sum())
        first = int(np.frombuffer(texts.buffers()[1], np.int32)[texts.offset])
        data = texts.buffers()[2]
        content = np.frombuffer(data, np.uint8)[first : first + size] if data else np.empty(0)
        starts = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(size) - np.repeat(starts[:-1], lengths)
        each = mixed(content.astype(np.uint64) + (places.astype(np.uint64) << np.uint64(_WORD)))
        sums = _running(each)
        found = sums[starts[1:]] - sums[starts[:-1]] + lengths.astype(np.uint64)
        known = np.concatenate((mixed(found), known))
    taken: UInt64s = known[column.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)]
    return taken


def _of_bytes(column: pa.Array, width: int) -> UInt64s:
    """Values of a fixed number of bytes."""
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width :]
    whole = -(-width // _WORD) * _WORD
    padded = np.zeros((len(column), whole), np.uint8)
    padded[:, :width] = raw[: len(column) * width].reshape(-1, width)
    words = padded.view(np.uint64)
    total = np.zeros(len(column), np.uint64)
    for at in range(words.shape[1]):
        total += mixed(words[:, at] + np.uint64(at))
    return total


def _words(column: pa.Array) -> UInt64s:
    """Numbers, times and truth values as 64-bit words; nulls are whatever stands there."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_temporal(kind):
        column = column.view(pa.int32() if kind.bit_width == pa.int32().bit_width else pa.int64())
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    numbers: Any = np.frombuffer(column.buffers()[1], np.uint64)
    words: UInt64s = numbers[column.offset : column.offset + len(column)]
    return words


def _summed(values: UInt64s, offsets: pa.Array) -> UInt64s:
    """Per list the sum of its values, each by its place in the list; and its length."""
    edges = offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.diff(edges)
    places = np.zeros(len(values), np.uint64)
    inner = np.arange(int(edges[-1] - edges[0])) - np.repeat(edges[:-1] - edges[0], lengths)
    places[int(edges[0]) : int(edges[-1])] = inner
    each = mixed(values + mixed(places + np.uint64(1)))
    sums = _running(each)
    return mixed(sums[edges[1:]] - sums[edges[:-1]] + lengths.astype(np.uint64))


def _running(values: UInt64s) -> UInt64s:
    """The sums of the first 0, 1, 2, … values, modulo 2**64."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=sums[1:])
    return sums
