"""Carrier columns → declared columns: unions, enums, times and decimals by whole columns.

The block reader hands out *carriers*: ints for enums, dates and times, dense unions of three for
what may be null, decimals that nobody checked. A :class:`Column` turns one carrier into one array
of exactly the declared type, and says which elements have no value there (:class:`Fault`). It is
compiled once per pair of writer's and declared type, where evolution is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catalog.avro import Leaf

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

DAY_MS = 86_400_000
#: Milliseconds whose microseconds fit 64 bits.
_MAX_MS = (2**63 - 1) // 1000
#: Digits that fit 64 bits: such decimals are compared as integers.
_WORD_DIGITS = 18
_HYPHENS = (8, 13, 18, 23)
_UUID_CHARS = 36


class Fault(NamedTuple):
    """Elements that have no value of the declared type.

    Attributes:
        bad: one flag per element of the array that it came with.
        reason: what is wrong, with the field's path.
    """

    bad: Mask
    reason: str


class Converted(NamedTuple):
    """A declared array and its faults; faulty elements hold any value."""

    array: pa.Array
    faults: tuple[Fault, ...] = ()


#: One carrier → one declared array of the same length.
Column = Callable[[pa.Array], Converted]


def leaf_column(leaf: Leaf, path: str, target: pa.DataType) -> Column:
    """The column of a type without children, cast to ``target`` where that is wider."""
    natural = _natural_column(leaf, path)

    def cast(carrier: pa.Array) -> Converted:
        array, faults = natural(carrier)
        return Converted(array if array.type == target else array.cast(target), faults)

    return cast


def _natural_column(leaf: Leaf, path: str) -> Column:
    if leaf.meaning == "decimal":
        return _Decimals(path, leaf.precision, pa.decimal128(leaf.precision, leaf.scale)).convert
    if leaf.wire == "enum":
        return _Enums(path, pa.array(leaf.symbols, pa.utf8())).convert
    if leaf.meaning == "uuid" and leaf.wire == "fixed":
        return lambda carrier: Converted(_uuid_text(carrier))
    if leaf.meaning == "date":
        return lambda carrier: Converted(carrier.view(pa.date32()))
    stamp = pa.timestamp("us", "UTC" if leaf.utc else None)
    rescaled = {
        "time-millis": _Rescaled(path, pa.time64("us"), 1000, 0, DAY_MS - 1),
        "time-micros": _Rescaled(path, pa.time64("us"), 1, 0, DAY_MS * 1000 - 1),
        "millis": _Rescaled(path, stamp, 1000, -_MAX_MS, _MAX_MS),
        "micros": _Rescaled(path, stamp),
        "nanos": _Rescaled(path, stamp, divisor=1000),
    }.get(leaf.meaning)
    return rescaled.convert if rescaled else Converted


@dataclass(frozen=True, slots=True)
class _Rescaled:
    """Integers that become a time: a bound, and a factor or a divisor (rounding down)."""

    path: str
    target: pa.DataType
    factor: int = 1
    least: int | None = None
    most: int | None = None
    divisor: int = 1

    def convert(self, carrier: pa.Array) -> Converted:
        values: Ints = carrier.to_numpy(zero_copy_only=True).astype(np.int64, copy=False)
        faults = self._outside(values)
        if self.factor != 1:
            values = values * self.factor  # faulty ones wrap around
        if self.divisor != 1:
            values = values // self.divisor
        return Converted(pa.array(values).view(self.target), faults)

    def _outside(self, values: Ints) -> tuple[Fault, ...]:
        if self.least is None or self.most is None or not len(values):
            return ()
        if values.min() >= self.least and values.max() <= self.most:
            return ()
        bad = (values < self.least) | (values > self.most)
        return (Fault(bad, f"{self.path}: outside the range of {self.target}"),)


@dataclass(frozen=True, slots=True)
class _Enums:
    """Indexes that become symbols."""

    path: str
    symbols: pa.Array

    def convert(self, carrier: pa.Array) -> Converted:
        indexes = carrier.to_numpy(zero_copy_only=True)
        bad = (indexes < 0) | (indexes >= len(self.symbols))
        if not bad.any():
            return Converted(self.symbols.take(carrier))
        array = self.symbols.take(pa.array(np.where(bad, 0, indexes)))
        return Converted(array, (Fault(bad, f"{self.path}: no symbol has this index"),))


@dataclass(frozen=True, slots=True)
class _Decimals:
    """Decimals that may have more digits than they were declared with."""

    path: str
    digits: int
    target: pa.DataType

    def convert(self, carrier: pa.Array) -> Converted:
        bad = self._beyond(carrier)
        if not bad.any():
            return Converted(carrier)
        return Converted(carrier, (Fault(bad, f"{self.path}: beyond {self.target}"),))

    def _beyond(self, carrier: pa.Array) -> Mask:
        if self.digits <= _WORD_DIGITS:
            words = np.frombuffer(carrier.buffers()[1], np.int64).reshape(-1, 2)
            words = words[carrier.offset : carrier.offset + len(carrier)]
            low, high, limit = words[:, 0], words[:, 1], 10**self.digits
            one_word = high == low >> 63
            fits: Mask = one_word & (low < limit) & (low > -limit)
            return ~fits
        unscaled = pa.Array.from_buffers(
            pa.decimal128(38, 0), len(carrier), carrier.buffers(), offset=carrier.offset
        )
        most = Decimal(10**self.digits - 1)
        bounds = [pa.scalar(b, pa.decimal128(38, 0)) for b in (most, most.copy_negate())]
        above, below = pc.greater(unscaled, bounds[0]), pc.less(unscaled, bounds[1])
        return np.asarray(pc.or_(above, below), np.bool_)


def _uuid_text(carrier: pa.Array) -> pa.Array:
    """16 bytes → 8-4-4-4-12 lower-case hexadecimal digits."""
    rows = len(carrier)
    raw = np.frombuffer(carrier.buffers()[1], np.uint8).reshape(-1, 16)
    raw = raw[carrier.offset : carrier.offset + rows]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.full((rows, _UUID_CHARS), ord("-"), np.uint8)
    places = [i for i in range(_UUID_CHARS) if i not in _HYPHENS]
    text[:, places[0::2]] = digits[raw >> 4]
    text[:, places[1::2]] = digits[raw & 15]
    offsets = np.arange(rows + 1, dtype=np.int32) * _UUID_CHARS
    return pa.Array.from_buffers(
        pa.utf8(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text))]
    )


@dataclass(frozen=True, slots=True)
class NullableColumn:
    """A dense union of null, a type and a filler nobody writes → that type, nullable."""

    inner: Column
    branch: int
    target: pa.DataType
    path: str

    def convert(self, carrier: pa.Array) -> Converted:
        """The declared array of one carrier."""
        codes = carrier.type_codes.to_numpy(zero_copy_only=True)
        offsets = carrier.offsets.to_numpy(zero_copy_only=True)
        present = codes == self.branch
        child = carrier.field(self.branch)
        if present.all() and len(child) == len(carrier):
            return self.inner(child)
        faults = self._unknown_branch(codes)
        if not present.any():
            return Converted(pa.nulls(len(carrier), self.target), faults)
        array, inside = self.inner(child)
        taken = array.take(pa.array(offsets, mask=~present))
        return Converted(taken, (*faults, *(self._outward(f, present, offsets) for f in inside)))

    def _unknown_branch(self, codes: npt.NDArray[np.int8]) -> tuple[Fault, ...]:
        bad = codes > 1
        return (Fault(bad, f"{self.path}: the union has no such branch"),) if bad.any() else ()

    @staticmethod
    def _outward(fault: Fault, present: Mask, offsets: npt.NDArray[np.int32]) -> Fault:
        bad = np.zeros(len(present), np.bool_)
        bad[present] = fault.bad[offsets[present]]
        return Fault(bad, fault.reason)


@dataclass(frozen=True, slots=True)
class ListColumn:
    """An array; a fault of an element is one of the list."""

    item: Column
    target: pa.DataType

    def convert(self, carrier: pa.Array) -> Converted:
        """The declared array of one carrier."""
        array, faults = self.item(carrier.values)
        lists = pa.ListArray.from_arrays(carrier.offsets, array, type=self.target)
        return Converted(lists, _of_parents(faults, carrier.offsets))


@dataclass(frozen=True, slots=True)
class MapColumn:
    """A map. Of several values for one key the last one counts, as in every Avro reader."""

    value: Column
    target: pa.DataType

    def convert(self, carrier: pa.Array) -> Converted:
        """The declared array of one carrier."""
        array, faults = self.value(carrier.items)
        offsets, keys = carrier.offsets, carrier.keys
        kept = _last_of_each_key(offsets.to_numpy(), keys)
        parents = _of_parents(faults, offsets)
        if kept is not None:
            before = np.concatenate(([0], np.cumsum(kept)))
            offsets = pa.array(before[offsets.to_numpy()].astype(np.int32))
            keys, array = keys.filter(pa.array(kept)), array.filter(pa.array(kept))
        return Converted(pa.MapArray.from_arrays(offsets, keys, array, type=self.target), parents)


@dataclass(frozen=True, slots=True)
class RecordColumn:
    """A nested record.

    Attributes:
        sources: per declared field the writer's position and the column, or the array of one
            element that stands for a field which the writer does not have.
    """

    sources: tuple[tuple[int, Column] | pa.Array, ...]
    target: pa.DataType

    def convert(self, carrier: pa.Array) -> Converted:
        """The declared array of one carrier."""
        columns = [carrier.field(i) for i in range(carrier.type.num_fields)]
        arrays, faults = convert_all(self.sources, columns, len(carrier))
        return Converted(pa.StructArray.from_arrays(arrays, fields=list(self.target)), faults)


def convert_all(
    sources: Iterable[tuple[int, Column] | pa.Array], columns: list[pa.Array], rows: int
) -> tuple[list[pa.Array], tuple[Fault, ...]]:
    """The declared columns of one record type, ``rows`` elements each."""
    arrays: list[pa.Array] = []
    faults: list[Fault] = []
    for source in sources:
        if isinstance(source, pa.Array):
            arrays.append(source.take(pa.array(np.zeros(rows, np.int32))))
            continue
        index, column = source
        array, found = column(columns[index])
        arrays.append(array)
        faults.extend(found)
    return arrays, tuple(faults)


def _of_parents(faults: Iterable[Fault], offsets: pa.Array) -> tuple[Fault, ...]:
    """Faults of a list's elements as faults of the lists."""
    bounds = offsets.to_numpy()
    before = [(np.concatenate(([0], np.cumsum(f.bad))), f.reason) for f in faults]
    return tuple(Fault(sums[bounds[1:]] > sums[bounds[:-1]], reason) for sums, reason in before)


def _last_of_each_key(offsets: npt.NDArray[np.int32], keys: pa.Array) -> Mask | None:
    """Which entries are the last of their key in their map; None where all are."""
    sizes = np.diff(offsets)
    if not len(sizes) or sizes.max() <= 1:
        return None
    encoded = keys.dictionary_encode()
    rows = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    pairs = rows * len(encoded.dictionary) + encoded.indices.to_numpy()
    # The first place from the end is the last place.
    _, places = np.unique(pairs[::-1], return_index=True)
    if len(places) == len(pairs):
        return None
    kept = np.zeros(len(pairs), np.bool_)
    kept[len(pairs) - 1 - places] = True
    return kept
