"""A table's Iceberg schema and its declaration: what a commit changes, and what others changed.

Columns are the same by field id, whatever they are called on either side: another tool may rename
a column, and our rows still go into it. The declaration that the newest commit follows stands in a
table property, in the same commit as the schema that it asks for.

Source: Apache Iceberg specification, "Schema Evolution".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from pyiceberg.io.pyarrow import pyarrow_to_schema
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AssertCurrentSchemaId,
    AssertLastAssignedFieldId,
    SetCurrentSchemaUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

from catalog.declaration import (
    aliases,
    all_fields,
    bare_type,
    bound,
    children,
    conform,
    field_id,
    find,
    from_text,
    ids,
    named,
    restricted,
    to_text,
    with_children,
)
from catalog.errors import SchemaConflict
from catalog.iceberg_schema import plain_schema
from catalog.offsets import MALFORMED
from catalog.spec import TableSpec

#: Table property: the declaration of the newest rows (``catalog.declaration.to_text``).
DECLARATION_PROPERTY = "k2.declaration"
#: Promotions of the Iceberg specification that keep a column's place (version 2).
_PROMOTED = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}


@dataclass(frozen=True, slots=True)
class Columns:
    """What an ingest has to know of a table's schema.

    Attributes:
        table: its columns with their field ids, as Iceberg has them now.
        declared: the declaration that its newest rows follow; None: none was ever recorded.
        last_id: the greatest field id that was ever given away.
    """

    table: pa.Schema
    declared: pa.Schema | None
    last_id: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What a commit of rows does to the schema of the table that it was made for.

    Attributes:
        base_schema_id, base_last_id: of the table when the rows were written; if either differs in
            the base of an attempt, the rows have to be written again.
        schema: the table's schema from this commit on; None: what it is.
        declared: the text of the declaration property.
    """

    base_schema_id: int
    base_last_id: int
    schema: Schema | None
    declared: str


def columns_of(metadata: TableMetadata) -> Columns:
    """The columns of a table as it stands.

    Raises:
        SchemaConflict: the recorded declaration cannot be read.
        Unsupported: a column's type cannot be read.
    """
    table = plain_schema(metadata.schema(), ids=True)
    text = metadata.properties.get(DECLARATION_PROPERTY)
    try:
        declared = None if text is None else from_text(text)
    except (*MALFORMED, OSError, pa.ArrowException) as error:
        raise SchemaConflict(
            f"the table property {DECLARATION_PROPERTY} cannot be read: remove it, and the "
            f"table's columns are matched by their names once more"
        ) from error
    return Columns(table, declared, metadata.last_column_id)


def continued(first: pa.Schema, columns: Columns, held: pa.Schema | None = None) -> pa.Schema:
    """The declaration that a table goes on with: the recorded one, else ``first``, with ids.

    Args:
        first: what the settings and the registry say now.
        columns: the table's.
        held: of the version that an earlier run published. Columns that it had and that are not
            committed yet come back with the fills that their rows were served with.

    Raises:
        SchemaConflict: see :func:`followed`.
    """
    declared = columns.declared
    if declared is None:
        declared = bound(first, columns.table)
    owed = ids(declared)
    if held is not None and ids(held) > owed and not (ids(held) - owed) & ids(columns.table):
        declared = held
    return followed(declared, columns.table, owed)


def followed(declared: pa.Schema, table: pa.Schema, owed: frozenset[int]) -> pa.Schema:
    """The declaration after what others did to the table: wider types, columns made optional.

    Columns that they added and renamed, and their order, are no concern of it.

    Args:
        declared: with ids.
        table: the table's columns with their ids.
        owed: the ids that the table must have; others of the declaration are still to come.

    Raises:
        SchemaConflict: a column was dropped, or became what the declaration cannot be; or one was
            added that must not be null. Shows both sides.
    """
    fields = _followed(list(declared), list(table), owed, "")
    return pa.schema(fields, declared.metadata)


def _followed(
    declared: Sequence[pa.Field], table: Sequence[pa.Field], owed: frozenset[int], path: str
) -> list[pa.Field]:
    theirs = {field_id(field): field for field in table}
    found = []
    for field in declared:
        number = field_id(field)
        where = f"{path}{field.name}"
        other = theirs.pop(number, None) if number is not None else None
        if other is not None:
            found.append(_followed_field(field, other, owed, where))
        elif number in owed:
            ours = f"{bare_type(field.type)}, field id {number}"
            raise _conflict(where, ours, "has no such column any more")
        else:
            found.append(field)
    for other in theirs.values():
        if not other.nullable:
            raise _conflict(f"{path}{other.name}", "unknown", "requires a value in it")
    return found


def _followed_field(ours: pa.Field, theirs: pa.Field, owed: frozenset[int], path: str) -> pa.Field:
    # Where ours is optional and the table's is not, the next commit makes it so.
    kind = _followed_type(ours.type, theirs.type, owed, path)
    return ours.with_type(kind).with_nullable(theirs.nullable or ours.nullable)


def _followed_type(
    ours: pa.DataType, theirs: pa.DataType, owed: frozenset[int], path: str
) -> pa.DataType:
    inside, others = children(ours), children(theirs)
    if pa.types.is_struct(ours) and pa.types.is_struct(theirs):
        return pa.struct(_followed(inside, others, owed, f"{path}."))
    if inside and ours.id == theirs.id:
        pairs = zip(inside, others, strict=True)
        return with_children(
            ours, [_followed_field(a, b, owed, f"{path}.{a.name}") for a, b in pairs]
        )
    if not inside and (ours == theirs or promotes(ours, theirs)):
        return theirs
    if not inside and not others and promotes(theirs, ours):
        return ours  # ours is to become what the next commit makes of the table's
    raise _conflict(path, str(bare_type(ours)), f"has {bare_type(theirs)}")


def promotes(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Whether Iceberg may change a column of the first type to the second."""
    if pa.types.is_decimal128(narrow) and pa.types.is_decimal128(wide):
        return bool(narrow.scale == wide.scale and narrow.precision < wide.precision)
    return bool(_PROMOTED.get(narrow) == wide)


def growth(metadata: TableMetadata, declared: pa.Schema) -> Growth:
    """What a commit of rows of ``declared`` has to do to a table.

    Raises:
        SchemaConflict: the table cannot take the rows; nothing was changed.
    """
    columns = columns_of(metadata)
    known = ids(columns.declared) if columns.declared is not None else ids(columns.table)
    wider = followed(declared, columns.table, ids(declared) & known)
    table = metadata.schema()
    former = {n: f for f in all_fields(columns.declared or ()) if (n := field_id(f)) is not None}
    tags = {n: f for f in all_fields(declared) if (n := field_id(f)) is not None}
    wanted = _Merge(tags, former).struct(table.as_struct(), pyarrow_to_schema(wider).as_struct())
    _refuse_twice(wanted)
    text = to_text(declared)
    if wanted == table.as_struct():
        return Growth(table.schema_id, metadata.last_column_id, None, text)
    same = next((s.schema_id for s in metadata.schemas if s.as_struct() == wanted), None)
    number = 1 + max(s.schema_id for s in metadata.schemas) if same is None else same
    schema = Schema(
        *wanted.fields, schema_id=number, identifier_field_ids=table.identifier_field_ids
    )
    return Growth(table.schema_id, metadata.last_column_id, schema, text)


def grown(metadata: TableMetadata, change: Growth) -> TableMetadata:
    """The metadata as the commit will leave its schemas."""
    schema = change.schema
    if schema is None:
        return metadata
    added = [] if any(s.schema_id == schema.schema_id for s in metadata.schemas) else [schema]
    return metadata.model_copy(
        update={
            "schemas": [*metadata.schemas, *added],
            "current_schema_id": schema.schema_id,
            "last_column_id": max(metadata.last_column_id, schema.highest_field_id),
        }
    )


def placed(
    metadata: TableMetadata, batches: Sequence[pa.RecordBatch], declared: pa.Schema, spec: TableSpec
) -> tuple[list[pa.RecordBatch], TableSpec]:
    """Rows of a declaration in the table's columns, and the sort columns by the table's names."""
    target = restricted(plain_schema(metadata.schema(), ids=True), ids(declared))
    sort = []
    for name in spec.sort:
        ours = named(declared, name)
        place = None if ours is None else find(target, ours)
        sort.append(name if place is None else target.field(place).name)
    return [conform(batch, declared, target) for batch in batches], replace(spec, sort=tuple(sort))


def schema_updates(
    metadata: TableMetadata, growth: Growth
) -> tuple[tuple[TableUpdate, ...], tuple[TableRequirement, ...]]:
    """The table's next schema, under the condition that its columns are what they were."""
    same = (
        AssertCurrentSchemaId.model_validate({"current-schema-id": growth.base_schema_id}),
        AssertLastAssignedFieldId.model_validate({"last-assigned-field-id": growth.base_last_id}),
    )
    if growth.schema is None:
        return (), same
    number = growth.schema.schema_id
    chosen = SetCurrentSchemaUpdate.model_validate({"schema-id": number})
    if any(schema.schema_id == number for schema in metadata.schemas):
        return (chosen,), same
    return (AddSchemaUpdate(schema=growth.schema), chosen), same


@dataclass(frozen=True, slots=True)
class _Merge:
    """The table's fields made to hold the declaration's, by id; what only it has stays."""

    declared: dict[int, pa.Field]
    former: dict[int, pa.Field]

    def struct(self, table: StructType, wanted: StructType) -> StructType:
        ours = {field.field_id: field for field in wanted.fields}
        kept = [
            self._field(field, ours.pop(field.field_id)) if field.field_id in ours else field
            for field in table.fields
        ]
        return StructType(*kept, *ours.values())

    def _field(self, table: NestedField, wanted: NestedField) -> NestedField:
        return NestedField(
            field_id=table.field_id,
            name=self._name(table, wanted),
            field_type=self._type(table.field_type, wanted.field_type),
            required=table.required and wanted.required,
            doc=table.doc,
        )

    def _name(self, table: NestedField, wanted: NestedField) -> str:
        """The table's, unless it is what the column was called here before: then ours."""
        before = self.former.get(table.field_id)
        names = aliases(self.declared[table.field_id])
        ours = table.name in names and (before is None or before.name == table.name)
        return wanted.name if ours else table.name

    def _type(self, table: IcebergType, wanted: IcebergType) -> IcebergType:
        if isinstance(table, StructType) and isinstance(wanted, StructType):
            return self.struct(table, wanted)
        if isinstance(table, ListType) and isinstance(wanted, ListType):
            return ListType(
                element_id=table.element_id,
                element=self._type(table.element_type, wanted.element_type),
                element_required=table.element_required and wanted.element_required,
            )
        if isinstance(table, MapType) and isinstance(wanted, MapType):
            return MapType(
                key_id=table.key_id,
                key_type=table.key_type,
                value_id=table.value_id,
                value_type=self._type(table.value_type, wanted.value_type),
                value_required=table.value_required and wanted.value_required,
            )
        return wanted


def _refuse_twice(schema: StructType) -> None:
    names: set[str] = set()
    for field in schema.fields:
        if field.name.lower() in names:
            raise SchemaConflict(
                f"column {field.name!r} would be in the table twice: another tool gave its name "
                f"to another column; rename that one"
            )
        names.add(field.name.lower())


def _conflict(path: str, ours: str, theirs: str) -> SchemaConflict:
    return SchemaConflict(
        f"column {path!r} is {ours} in the topic's declaration, and the Iceberg table, changed by "
        f"another tool, {theirs}: nothing is written; undo that change, or feed the topic into a "
        f"new table"
    )
