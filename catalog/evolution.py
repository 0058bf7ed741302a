"""Which writer's schemas a declaration holds, how their columns become its, and how it grows.

By name and alias, as in Avro's schema resolution: a field that the writer does not have takes the
declared fill, or null; types may widen without losing a value. What the declaration would lose (a
column it lacks, a wider type, a null) makes it grow (:func:`evolved`), within what Iceberg can do
to a table without touching its files: optional columns are added, int becomes long, float double,
a decimal gains digits, a required column becomes optional, a column is renamed. Anything else is
refused, and the error says what either side has. Nothing is ever dropped: a field that the writers
gave up stays, and is null (or its fill) in their rows.

Sources: Apache Avro 1.12 specification, "Schema Resolution" and "Aliases"; Apache Iceberg
specification, "Schema Evolution".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
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
    arrow_field,
    arrow_type,
    is_nullable,
)
from catalog.columns import (
    Column,
    ListColumn,
    MapColumn,
    NullableColumn,
    RecordColumn,
    leaf_column,
)
from catalog.declaration import (
    aliases,
    all_fields,
    bare_type,
    by_schema,
    children,
    fill,
    ids,
    is_filled,
    schema_id,
    tagged,
    with_children,
)
from catalog.errors import SchemaChanged, SchemaRefused

#: An array of one element: the default that a writer's schema gives a field.
Default = Callable[[RecordField], pa.Array]
Sources = tuple[tuple[int, Column] | pa.Array, ...]

_WIDER = {
    pa.int32(): (pa.int64(), pa.float64()),
    pa.float32(): (pa.float64(),),
    pa.utf8(): (pa.binary(),),
}
#: What Iceberg makes of a column without touching its files.
_PROMOTED = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}


def declaration(record: RecordOf, metadata: pa.Schema, default: Default) -> pa.Schema:
    """The first declaration of a table: a schema's fields, then the columns of Kafka metadata.

    Args:
        record: the registry's schema.
        metadata: ``catalog.schemas.metadata_schema``.
        default: evaluates a default; what it refuses is told when a row needs the value.
    """
    return pa.schema([*(declared_field(f, default) for f in record.fields), *metadata])


def declared_field(field: RecordField, default: Default) -> pa.Field:
    """A writer's field as a declared one, without ids: with its aliases and its fill."""
    arrow = arrow_field(field).with_type(_declared_type(field.node, default))
    if field.aliases:
        arrow = tagged(arrow, names=field.aliases)
    if field.default is NO_DEFAULT or field.default is None:
        return arrow
    try:
        return tagged(arrow, value=default(field))
    except SchemaRefused as error:
        return tagged(arrow, no_value=str(error))


def _declared_type(node: Node, default: Default) -> pa.DataType:
    node = node.inner if isinstance(node, Nullable) else node
    kind = arrow_type(node)
    match node:
        case RecordOf():
            return pa.struct([declared_field(f, default) for f in node.fields])
        case ListOf():
            item = kind.value_field.with_type(_declared_type(node.item, default))
            inside: list[pa.Field] = [item]
        case MapOf():
            value = kind.item_field.with_type(_declared_type(node.value, default))
            inside = [kind.key_field, value]
        case Leaf():
            return kind
    return with_children(kind, inside)


@dataclass(frozen=True, slots=True)
class Resolver:
    """Compiles the columns of one writer's schema.

    Attributes:
        writer_id: registry id of the schema that the records carry.
        declared_id: registry id of the schema that the table is declared by.
    """

    writer_id: int
    declared_id: int

    def sources(self, writer: RecordOf, declared: Sequence[pa.Field], path: str = "") -> Sources:
        """Per declared field the writer's position and column, or its fill.

        Raises:
            SchemaChanged: the declared record cannot hold every value of the writer's, or a fill
                that is needed is no value of its field.
        """
        places = matched(writer, declared)
        found: list[tuple[int, Column] | pa.Array] = []
        for field, place in zip(declared, places, strict=True):
            where = _inside(path, field.name)
            if place is None:
                found.append(self._missing(field, where))
            else:
                found.append((place, self.column(writer.fields[place].node, field, where)))
        for place, theirs in enumerate(writer.fields):
            if place not in places:
                raise self._changed(_inside(path, theirs.name), "the table has no such field")
        return tuple(found)

    def column(self, writer: Node, declared: pa.Field, path: str) -> Column:
        """The column of one type; errors as :meth:`sources`."""
        target = bare_type(declared.type)
        if isinstance(writer, Nullable):
            if not declared.nullable:
                raise self._changed(path, "it may be null now, and the table's may not")
            inner = self.column(writer.inner, declared, path)
            return NullableColumn(inner, writer.branch, target, path).convert
        inside = children(declared.type)
        match writer:
            case ListOf() if pa.types.is_list(target):
                item = self.column(writer.item, inside[0], f"{path}.element")
                return ListColumn(item, target).convert
            case MapOf() if pa.types.is_map(target):
                value = self.column(writer.value, inside[1], f"{path}.value")
                return MapColumn(value, target).convert
            case RecordOf() if pa.types.is_struct(target):
                return RecordColumn(self.sources(writer, inside, path), target).convert
            case Leaf() if holds(arrow_type(writer), target):
                return leaf_column(writer, path, target)
            case _:
                kinds = f"it is {arrow_type(writer)} now, and the table's is {target}"
                raise self._changed(path, kinds)

    def _missing(self, field: pa.Field, path: str) -> pa.Array:
        try:
            value = fill(field)
        except SchemaRefused as error:
            raise self._changed(path, str(error)) from error
        if value is not None:
            return value
        if field.nullable:
            return pa.nulls(1, bare_type(field.type))
        raise self._changed(path, "the writer has no such field, and it has no default")

    def _changed(self, path: str, why: str) -> SchemaChanged:
        return SchemaChanged(
            f"records carry schema id {self.writer_id}, the table is declared by id "
            f"{self.declared_id}; field {path!r}: {why}. The table's declaration is fixed by "
            f"schema_id: remove it, or set schema_id = {self.writer_id}"
        )


def matched(writer: RecordOf, declared: Sequence[pa.Field]) -> list[int | None]:
    """Per declared field the place of the writer's: by its name, else by one of its aliases."""
    places = {field.name: place for place, field in enumerate(writer.fields)}
    found = [places.pop(field.name, None) for field in declared]
    for at, field in enumerate(declared):
        if found[at] is None:
            former = next((name for name in aliases(field) if name in places), None)
            found[at] = None if former is None else places.pop(former)
    return found


def evolved(
    declared: pa.Schema,
    writer: RecordOf,
    writer_id: int,
    default: Default,
    *,
    next_id: int,
    metadata: int,
) -> pa.Schema:
    """The declaration that holds every value of a writer's schema, and all that it held before.

    Args:
        declared: with the ids of its columns; the last ``metadata`` ones are not the topic's.
        writer: the schema that was met.
        writer_id: its registry id.
        default: evaluates the defaults of fields that are new.
        next_id: new columns are numbered from here on, or above the declaration's own ids.
        metadata: how many columns of Kafka metadata it ends with.

    Returns:
        The topic's columns in their order, new ones after them, then those of Kafka metadata.

    Raises:
        SchemaChanged: it cannot be, or Iceberg could not read older files so; shows what either
            side has.
    """
    numbers = itertools.count(max(next_id, 1 + max(ids(declared), default=0)))
    growth = _Growth(writer_id, schema_id(declared), default, numbers)
    split = len(declared) - metadata
    own = list(declared)[:split]
    grown = growth.fields(own, writer, "", {field.name.lower() for field in declared})
    return by_schema(pa.schema([*grown, *list(declared)[split:]], declared.metadata), writer_id)


@dataclass(frozen=True, slots=True)
class _Growth:
    """One step of a declaration."""

    writer_id: int
    declared_id: int | None
    default: Default
    numbers: Iterator[int]

    def fields(
        self, declared: Sequence[pa.Field], writer: RecordOf, path: str, taken: set[str]
    ) -> list[pa.Field]:
        """The fields of one record; ``taken`` are the names, in lower case, that exist beside."""
        places = matched(writer, declared)
        renamed = self._renamed(declared, writer, places)
        grown = [
            self._without(field, path)
            if place is None
            else self._with(field, writer.fields[place], path, renamed=at in renamed)
            for at, (field, place) in enumerate(
                zip(declared, [renamed.get(i, p) for i, p in enumerate(places)], strict=True)
            )
        ]
        former = {name.lower() for field in grown for name in aliases(field)}
        names = [field.name.lower() for field in grown]
        for place in renamed.values():
            name = writer.fields[place].name
            if names.count(name.lower()) > 1 or name.lower() in taken:
                raise self._refused(_inside(path, name), "a new name", "it is another column's")
        known = taken.union(names)
        used = {*(p for p in places if p is not None), *renamed.values()}
        for place, field in enumerate(writer.fields):
            if place in used:
                continue
            where = _inside(path, field.name)
            if field.name.lower() in known | former:
                raise self._refused(where, "a new field", "its name is, or was, another column's")
            grown.append(self._new(declared_field(field, self.default), where))
        return grown

    def _renamed(
        self, declared: Sequence[pa.Field], writer: RecordOf, places: list[int | None]
    ) -> dict[int, int]:
        """Declared fields that a new field of the writer names among its aliases."""
        free = {field.name: at for at, field in enumerate(declared) if places[at] is None}
        found: dict[int, int] = {}
        for place, field in enumerate(writer.fields):
            old = next((name for name in field.aliases if name in free), None)
            if place not in places and old is not None:
                found[free.pop(old)] = place
        return found

    def _with(self, field: pa.Field, writer: RecordField, path: str, *, renamed: bool) -> pa.Field:
        where = _inside(path, field.name)
        grown = field.with_type(self._type(field.type, writer.node, where))
        grown = grown.with_nullable(field.nullable or is_nullable(writer.node))
        names = dict.fromkeys((*aliases(field), *writer.aliases))
        if renamed:
            names[field.name] = None
            grown = grown.with_name(writer.name)
        names.pop(grown.name, None)
        return tagged(grown, names=tuple(names)) if tuple(names) != aliases(field) else grown

    def _without(self, field: pa.Field, path: str) -> pa.Field:
        """A field that the writer has not: its rows hold the fill, or null."""
        self._refuse_no_value(field, _inside(path, field.name), "gone")
        return field if is_filled(field) else field.with_nullable(True)

    def _type(self, declared: pa.DataType, node: Node, path: str) -> pa.DataType:
        node = node.inner if isinstance(node, Nullable) else node
        inside = children(declared)
        match node:
            case RecordOf() if pa.types.is_struct(declared):
                return pa.struct(self.fields(inside, node, path, set()))
            case ListOf() if pa.types.is_list(declared):
                item = self._child(inside[0], node.item, f"{path}.element")
                return with_children(declared, [item])
            case MapOf() if pa.types.is_map(declared):
                value = self._child(inside[1], node.value, f"{path}.value")
                return with_children(declared, [inside[0], value])
            case Leaf() if not inside:
                return self._leaf(declared, arrow_type(node), path)
            case _:
                raise self._kinds(path, arrow_type(node), declared)

    def _child(self, declared: pa.Field, node: Node, path: str) -> pa.Field:
        grown = declared.with_type(self._type(declared.type, node, path))
        return grown.with_nullable(declared.nullable or is_nullable(node))

    def _leaf(self, declared: pa.DataType, writer: pa.DataType, path: str) -> pa.DataType:
        """The narrowest type that holds both and that Iceberg promotes the declared one to."""
        wider = [declared, _PROMOTED.get(declared)]
        if pa.types.is_decimal128(declared) and pa.types.is_decimal128(writer):
            wider.append(pa.decimal128(max(declared.precision, writer.precision), declared.scale))
        for kind in wider:
            if kind is not None and holds(writer, kind):
                return kind
        raise self._kinds(path, writer, declared)

    def _new(self, field: pa.Field, path: str) -> pa.Field:
        """A column that enters the table: optional, for rows of before, with ids all through."""
        self._refuse_no_value(field, path)
        return self._numbered(field.with_nullable(True))

    def _refuse_no_value(self, field: pa.Field, path: str, what: str = "a new field") -> None:
        """Refuses a wrong default now, and not when a row of an older schema comes."""
        for child in all_fields([field]):
            try:
                fill(child)
            except SchemaRefused as error:
                raise self._refused(path, what, str(error)) from error

    def _numbered(self, field: pa.Field) -> pa.Field:
        field = tagged(field, number=next(self.numbers))
        inside = [self._numbered(child) for child in children(field.type)]
        return field.with_type(with_children(field.type, inside)) if inside else field

    def _kinds(self, path: str, writer: pa.DataType, declared: pa.DataType) -> SchemaChanged:
        return self._refused(path, str(writer), f"the table's is {bare_type(declared)}")

    def _refused(self, path: str, theirs: str, ours: str) -> SchemaChanged:
        return SchemaChanged(
            f"records carry schema id {self.writer_id}, which the table, declared by id "
            f"{self.declared_id}, cannot become: field {path!r} is {theirs}, {ours}. The table "
            f"stops in front of the first such record: feed them into a new table, or correct "
            f"the schema"
        )


def holds(writer: pa.DataType, declared: pa.DataType) -> bool:
    """Whether every value of the writer's type has exactly one of the declared type."""
    if writer == declared or declared in _WIDER.get(writer, ()):
        return True
    if pa.types.is_decimal128(writer) and pa.types.is_decimal128(declared):
        return bool(writer.scale == declared.scale and writer.precision <= declared.precision)
    return bool(pa.types.is_fixed_size_binary(writer) and declared == pa.binary())


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
