"""What the partition of a data file proves of its rows, by each file's own spec.

Source: Iceberg table specification, "Partition Transforms".
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import singledispatch
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.types import NestedField

from catalog.bounds import typed
from catalog.iceberg_schema import plain_type
from catalog.recasts import Range, intersection

#: Partition values of some files; None: null, or none that is known.
Values = Sequence[object]

#: What numpy calls them.
_UNITS: Mapping[type, str] = {
    YearTransform: "Y",
    MonthTransform: "M",
    DayTransform: "D",
    HourTransform: "h",
}
_LAST = chr(sys.maxunicode)
_SURROGATES = range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class PartitionColumn:
    """A partition field as it stands in the specs: its place in each spec's record."""

    name: str
    type: pa.DataType
    places: Mapping[int, int]


@dataclass(slots=True)
class Source:
    """A column that files are partitioned by in one way.

    Attributes:
        name, type: the column's.
        transform: of its values.
        places: spec id → place of the value in the record of a file's partition.
    """

    name: str
    type: pa.DataType
    transform: Transform[Any, Any]
    places: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the partitions of some files say of one column; one value per file.

    Attributes:
        range: in which its values lie.
        null: True: all are null; False: none is; null: nothing is known.
    """

    range: Range
    null: pa.BooleanArray


def partition_columns(metadata: TableMetadata) -> Iterable[PartitionColumn]:
    """Partition fields of all specs by name; fields of one name and another type are left out."""
    schema = metadata.schema()
    found: dict[str, tuple[pa.DataType, dict[int, int]]] = {}
    for spec in metadata.partition_specs:
        for place, part in enumerate(spec.fields):
            source = _field(schema, part.source_id)
            if source is None:  # the source column was dropped: nothing can be pruned by it
                continue
            kind = plain_type(part.transform.result_type(source.field_type))
            known, places = found.setdefault(part.name, (kind, {}))
            if known == kind:
                places[spec.spec_id] = place
    return [PartitionColumn(name, kind, places) for name, (kind, places) in found.items()]


def outside(metadata: TableMetadata, names: Mapping[int, str]) -> Iterable[tuple[str, str]]:
    """Identity partition fields and their columns, of a table with files that it did not write."""
    if metadata.name_mapping() is None:
        return
    for spec in metadata.partition_specs:
        for part in spec.fields:
            if isinstance(part.transform, IdentityTransform) and part.source_id in names:
                yield part.name, names[part.source_id]


def _field(schema: Schema, field_id: int) -> NestedField | None:
    return next((field for field in schema.fields if field.field_id == field_id), None)


def sources_of(
    metadata: TableMetadata, columns: Mapping[int, tuple[str, pa.DataType]]
) -> tuple[Source, ...]:
    """Every way in which a spec partitions by one of these columns (by field id)."""
    found: dict[tuple[int, str], Source] = {}
    for spec in metadata.partition_specs:
        for place, part in enumerate(spec.fields):
            if part.source_id not in columns or isinstance(part.transform, VoidTransform):
                continue
            source = Source(*columns[part.source_id], part.transform)
            known = found.setdefault((part.source_id, str(part.transform)), source)
            known.places[spec.spec_id] = place
    return tuple(found.values())


def proofs(sources: Sequence[Source], files: Sequence[DataFile]) -> dict[str, Proof]:
    """Column → what the files' partitions prove of it."""
    found: dict[str, Proof] = {}
    for source in sources:
        mine = _proof(source, files)
        known = found.get(source.name)
        found[source.name] = mine if known is None else _both(known, mine)
    return found


def buckets_of(sources: Sequence[Source], files: Sequence[DataFile]) -> dict[str, pa.Array]:
    """``"<number of buckets>:<column>"`` → each file's bucket; null: unknown, or of nulls."""
    return {
        bucket_name(source): pa.array(_values(source, files), pa.int32())
        for source in sources
        if isinstance(source.transform, BucketTransform)
    }


def bucket_name(source: Source) -> str:
    """What :func:`buckets_of` calls a source that is a bucket transform."""
    assert isinstance(source.transform, BucketTransform)  # noqa: S101
    return f"{source.transform.num_buckets}:{source.name}"


def _values(source: Source, files: Sequence[DataFile]) -> list[object]:
    return [
        None if (place := source.places.get(file.spec_id)) is None else file.partition[place]
        for file in files
    ]


def _proof(source: Source, files: Sequence[DataFile]) -> Proof:
    """Transforms give null for null and for nothing else."""
    values = _values(source, files)
    null = [
        value is None if file.spec_id in source.places else None
        for value, file in zip(values, files, strict=True)
    ]
    try:
        spread = span(source.transform, values, source.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError, TypeError, ValueError):
        spread = _nothing(values, source.type)  # read by a type that the column had before
    return Proof(spread, pa.array(null, pa.bool_()))


def _both(one: Proof, other: Proof) -> Proof:
    return Proof(intersection(one.range, other.range), pc.coalesce(one.null, other.null))


@singledispatch
def span(transform: Transform[Any, Any], values: Values, kind: pa.DataType) -> Range:
    """Bounds, both inclusive, of what the transform makes these values of.

    Args:
        transform: a partition field's; of one that keeps no order nothing is known.
        values: of the partitions, temporal ones as integers.
        kind: the source column's type.
    """
    del transform
    return _nothing(values, kind)


def _nothing(values: Values, kind: pa.DataType) -> Range:
    return Range(pa.nulls(len(values), kind), pa.nulls(len(values), kind))


@span.register(IdentityTransform)
def _(transform: IdentityTransform[Any], values: Values, kind: pa.DataType) -> Range:
    del transform
    if pa.types.is_floating(kind):  # NaN has a place in no order
        return _nothing(values, kind)
    same = typed(list(values), kind)
    return Range(same, same)


@span.register(YearTransform)
@span.register(MonthTransform)
@span.register(DayTransform)
@span.register(HourTransform)
def _(transform: Transform[Any, Any], values: Values, kind: pa.DataType) -> Range:
    """Whole units since 1970.

    Writers of old rounded times before it towards zero: a value that is not positive may also be
    the unit before (as Iceberg's own readers take it).
    """
    number = np.array([0 if value is None else value for value in values], np.int64)
    fine = kind.unit if pa.types.is_timestamp(kind) else "D"
    coarse = f"datetime64[{_UNITS[type(transform)]}]"
    first = np.where(number <= 0, number - 1, number).astype(coarse)
    start, next_ = (at.astype(f"datetime64[{fine}]") for at in (first, (number + 1).astype(coarse)))
    exact = (start.astype(coarse) == first) & (next_.astype(coarse) == (number + 1).astype(coarse))
    unknown = ~exact | np.array([value is None for value in values], bool)
    lower, upper = (at.astype(np.int64) for at in (start, next_ - 1))
    storage = pa.int64() if pa.types.is_timestamp(kind) else pa.int32()
    return Range(*(pa.array(at, mask=unknown).cast(storage).view(kind) for at in (lower, upper)))


@span.register(TruncateTransform)
def _(transform: TruncateTransform[Any], values: Values, kind: pa.DataType) -> Range:
    ends = [_end(value, transform.width) for value in values]
    if pa.types.is_integer(kind):  # some writers let the least numbers wrap around to the greatest
        most = 2 ** (kind.bit_width - 1) - 1
        ends = [end if isinstance(end, int) and -most <= end <= most else None for end in ends]
        values = [
            max(v, -most - 1) if isinstance(v, int) and end is not None else None
            for v, end in zip(values, ends, strict=True)
        ]
    return Range(pa.array(values, kind), pa.array(ends, kind))


def _end(value: object, width: int) -> object:
    """The greatest value that is truncated to this one, or something above it; None: unknown."""
    if isinstance(value, int):
        return value + width - 1
    if isinstance(value, Decimal):
        return value + (width - 1) * Decimal(1).scaleb(int(value.as_tuple().exponent))
    if isinstance(value, str):
        return value if len(value) < width else _after_text(value)
    if isinstance(value, bytes):
        return value if len(value) < width else _after_bytes(value)
    return None


def _after_text(prefix: str) -> str | None:
    """The least text above all that begin so; None: there is none."""
    kept = prefix.rstrip(_LAST)
    if not kept:
        return None
    last = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if last in _SURROGATES else last)


def _after_bytes(prefix: bytes) -> bytes | None:
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
