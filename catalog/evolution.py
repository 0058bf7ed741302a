"""Which writer's schemas a declared table can hold, and how their columns become the table's.

By name, as in Avro's schema resolution: a field that the writer does not have takes the declared
default, or null; types may widen without losing a value. What the declared table would lose (a
column it lacks, a wider type, a null) is refused and says what to do.

Source: Apache Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from catalog.avro import (
    NO_DEFAULT,
    Leaf,
    ListOf,
    MapOf,
    Node,
    Nullable,
    RecordField,
    RecordOf,
    arrow_type,
)
from catalog.columns import (
    Column,
    ListColumn,
    MapColumn,
    NullableColumn,
    RecordColumn,
    leaf_column,
)
from catalog.errors import SchemaChanged

#: An array of one element: the declared default of a field.
Default = Callable[[RecordField], pa.Array]
Sources = tuple[tuple[int, Column] | pa.Array, ...]

_WIDER = {
    pa.int32(): (pa.int64(), pa.float64()),
    pa.float32(): (pa.float64(),),
    pa.utf8(): (pa.binary(),),
}


@dataclass(frozen=True, slots=True)
class Resolver:
    """Compiles the columns of one writer's schema.

    Attributes:
        writer_id: registry id of the schema that the records carry.
        declared_id: registry id of the schema that the table is declared by.
        default: evaluates a declared default.
    """

    writer_id: int
    declared_id: int
    default: Default

    def sources(self, writer: RecordOf, declared: RecordOf, path: str = "") -> Sources:
        """Per declared field the writer's position and column, or its default.

        Raises:
            SchemaChanged: the declared record cannot hold every value of the writer's.
        """
        positions = {f.name: i for i, f in enumerate(writer.fields)}
        found: list[tuple[int, Column] | pa.Array] = []
        for field in declared.fields:
            name = next((n for n in (field.name, *field.aliases) if n in positions), None)
            where = f"{path}.{field.name}" if path else field.name
            if name is None:
                found.append(self._missing(field, where))
                continue
            index = positions.pop(name)
            found.append((index, self.column(writer.fields[index].node, field.node, where)))
        if positions:
            name = next(iter(positions))
            raise self._changed(f"{path}.{name}" if path else name, "the table has no such field")
        return tuple(found)

    def column(self, writer: Node, declared: Node, path: str) -> Column:
        """The column of one type; errors as :meth:`sources`."""
        if isinstance(writer, Nullable):
            if not isinstance(declared, Nullable):
                raise self._changed(path, "it may be null now, and the table's may not")
            inner = self.column(writer.inner, declared.inner, path)
            return NullableColumn(inner, writer.branch, arrow_type(declared), path).convert
        if isinstance(declared, Nullable):
            return self.column(writer, declared.inner, path)
        target = arrow_type(declared)
        match writer, declared:
            case ListOf(), ListOf():
                item = self.column(writer.item, declared.item, f"{path}.element")
                return ListColumn(item, target).convert
            case MapOf(), MapOf():
                value = self.column(writer.value, declared.value, f"{path}.value")
                return MapColumn(value, target).convert
            case RecordOf(), RecordOf():
                return RecordColumn(self.sources(writer, declared, path), target).convert
            case Leaf(), Leaf() if holds(arrow_type(writer), target):
                return leaf_column(writer, path, target)
            case _:
                kinds = f"it is {arrow_type(writer)} now, and the table's is {target}"
                raise self._changed(path, kinds)

    def _missing(self, field: RecordField, path: str) -> pa.Array:
        if field.default is not NO_DEFAULT:
            return self.default(field)
        if isinstance(field.node, Nullable):
            return pa.nulls(1, arrow_type(field.node))
        raise self._changed(path, "the writer has no such field, and it has no default")

    def _changed(self, path: str, why: str) -> SchemaChanged:
        return SchemaChanged(
            f"records carry schema id {self.writer_id}, the table is declared by id "
            f"{self.declared_id}; field {path!r}: {why}. Restart the ingest to declare the table "
            f"by the subject's newest schema, or set schema_id = {self.writer_id}"
        )


def holds(writer: pa.DataType, declared: pa.DataType) -> bool:
    """Whether every value of the writer's type has exactly one of the declared type."""
    if writer == declared or declared in _WIDER.get(writer, ()):
        return True
    if pa.types.is_decimal128(writer) and pa.types.is_decimal128(declared):
        return bool(writer.scale == declared.scale and writer.precision <= declared.precision)
    return bool(pa.types.is_fixed_size_binary(writer) and declared == pa.binary())
