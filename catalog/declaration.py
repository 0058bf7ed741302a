"""A declaration: an Arrow schema whose fields, nested ones too, say which column they are.

What a table's rows look like changes while it runs. A declaration names each column by Iceberg's
field id, so that rows of one declaration can be read as rows of another (:func:`conform`): by id,
never by name or place, in either direction. Beside the id a field carries the names it had before
(``k2.aliases``) and the value of a row whose writer did not know it (``k2.fill``), which is fixed
when the column enters the table: so a row's value depends neither on when it was decoded nor on
where it lies.

The tags are field metadata; data files written by Iceberg's libraries carry the same ids in the
same place. What clients see is :func:`bare`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from catalog.errors import SchemaRefused
from catalog.remembered import Remembered

#: Where Parquet files and declarations hold Iceberg's field ids.
FIELD_ID = b"PARQUET:field_id"
_ALIASES, _FILL, _SCHEMA_ID = b"k2.aliases", b"k2.fill", b"k2.schema-id"
_TAGS = frozenset((FIELD_ID, _ALIASES, _FILL, _SCHEMA_ID))
#: Begins a fill that could not be made: the rest is the reason.
_NO_FILL = b"!"


def field_id(field: pa.Field) -> int | None:
    """Iceberg's id of a field; None where it has none."""
    text = (field.metadata or {}).get(FIELD_ID)
    return None if text is None else int(text)


def aliases(field: pa.Field) -> tuple[str, ...]:
    """The names that the field had before, and those that its writers gave it."""
    return tuple(json.loads((field.metadata or {}).get(_ALIASES, b"[]")))


def fill(field: pa.Field) -> pa.Array | None:
    """The value, in an array of one element, of rows whose writer has no such field.

    Returns:
        None: null, or no value at all where the field is required.

    Raises:
        SchemaRefused: the writer's schema gave a default that is no value of the field.
    """
    text = (field.metadata or {}).get(_FILL)
    if text is None:
        return None
    if text.startswith(_NO_FILL):
        raise SchemaRefused(text[len(_NO_FILL) :].decode())
    (batch,) = pa.ipc.open_stream(base64.b64decode(text)).read_all().to_batches()
    value = batch.column(0)
    return value if value.type == bare_type(field.type) else value.cast(bare_type(field.type))


def is_filled(field: pa.Field) -> bool:
    """Whether rows without the field are anything but null in it."""
    return _FILL in (field.metadata or {})


def has_fill(field: pa.Field) -> bool:
    """The same of the field and all below it."""
    return any(is_filled(one) for one in all_fields([field]))


def schema_id(schema: pa.Schema) -> int | None:
    """Registry id of the newest schema that the declaration holds; None where it is not told."""
    text = (schema.metadata or {}).get(_SCHEMA_ID)
    return None if text is None else int(text)


def by_schema(schema: pa.Schema, registry_id: int) -> pa.Schema:
    """The declaration, said to hold the registry's schema ``registry_id``."""
    return schema.with_metadata({**(schema.metadata or {}), _SCHEMA_ID: str(registry_id).encode()})


def tagged(
    field: pa.Field,
    *,
    number: int | None = None,
    names: Sequence[str] | None = None,
    value: pa.Array | None = None,
    no_value: str | None = None,
) -> pa.Field:
    """The field with some of its tags replaced; None leaves one as it is."""
    tags = dict(field.metadata or {})
    if number is not None:
        tags[FIELD_ID] = str(number).encode()
    if names is not None:
        tags[_ALIASES] = json.dumps(list(names)).encode()
    if value is not None:
        tags[_FILL] = _fill_text(value)
    if no_value is not None:
        tags[_FILL] = _NO_FILL + no_value.encode()
    return field.with_metadata(tags or None)


def children(kind: pa.DataType) -> list[pa.Field]:
    """The fields of a struct, the element of a list, key and value of a map; else none."""
    if pa.types.is_struct(kind):
        return [kind.field(i) for i in range(kind.num_fields)]
    if pa.types.is_list(kind):
        return [kind.value_field]
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    return []


def with_children(kind: pa.DataType, fields: Sequence[pa.Field]) -> pa.DataType:
    """The nested type with other children."""
    if pa.types.is_struct(kind):
        return pa.struct(list(fields))
    return pa.list_(fields[0]) if pa.types.is_list(kind) else pa.map_(*fields)


def all_fields(fields: Iterable[pa.Field]) -> Iterator[pa.Field]:
    """The fields and all below them."""
    for field in fields:
        yield field
        yield from all_fields(children(field.type))


def ids(schema: pa.Schema) -> frozenset[int]:
    """Every id of a declaration."""
    return frozenset(n for field in all_fields(schema) if (n := field_id(field)) is not None)


def is_numbered(schema: pa.Schema) -> bool:
    """Whether it is a declaration, and not a schema whose columns go by their names."""
    return len(schema) > 0 and field_id(schema.field(0)) is not None


def has_ids(schema: pa.Schema) -> bool:
    """Whether every column says which one it is."""
    return all(field_id(field) is not None for field in schema)


def bare_type(kind: pa.DataType) -> pa.DataType:
    """The type without tags."""
    fields = children(kind)
    return with_children(kind, [bare_field(field) for field in fields]) if fields else kind


def bare_field(field: pa.Field) -> pa.Field:
    """The field without tags; other metadata (a doc string) stays."""
    rest = {k: v for k, v in (field.metadata or {}).items() if k not in _TAGS}
    return pa.field(field.name, bare_type(field.type), field.nullable, rest or None)


@Remembered
@lru_cache(maxsize=256)
def bare(schema: pa.Schema) -> pa.Schema:
    """What clients see of a declaration: the same columns without tags."""
    rest = {k: v for k, v in (schema.metadata or {}).items() if k not in _TAGS}
    return pa.schema([bare_field(field) for field in schema], rest or None)


def to_text(schema: pa.Schema) -> str:
    """A declaration as text: base64 of its Arrow IPC message."""
    return base64.b64encode(schema.serialize()).decode()


@lru_cache(maxsize=64)
def from_text(text: str) -> pa.Schema:
    """The inverse of :func:`to_text`.

    Raises:
        ValueError, pa.ArrowException, OSError: it is none.
    """
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def find(fields: Iterable[pa.Field], wanted: pa.Field) -> int | None:
    """Where a column stands among ``fields``: by its id, by its name where one has no id."""
    number = field_id(wanted)
    for place, field in enumerate(fields):
        other = field_id(field)
        if number == other if None not in (number, other) else wanted.name == field.name:
            return place
    return None


def named(fields: Iterable[pa.Field], name: str) -> pa.Field | None:
    """The field that is called ``name``, or was."""
    known = list(fields)
    now = next((field for field in known if field.name == name), None)
    return now or next((field for field in known if name in aliases(field)), None)


def restricted(schema: pa.Schema, wanted: frozenset[int]) -> pa.Schema:
    """The columns whose ids are ``wanted``, nested ones too."""
    return pa.schema(_restricted(schema, wanted), schema.metadata)


def bound(schema: pa.Schema, table: pa.Schema) -> pa.Schema:
    """The declaration with the ids of the table's columns of the same names, nested ones too."""
    named = [_bound(field, list(table)) for field in schema]
    return pa.schema(named, schema.metadata)


def conform(batch: pa.RecordBatch, have: pa.Schema, want: pa.Schema) -> pa.RecordBatch:
    """Rows of the declaration ``have`` as rows of ``want``; nothing is copied that need not be.

    Columns that ``have`` lacks take their fill; columns that ``want`` lacks are left out.

    Raises:
        pa.ArrowInvalid: a value does not fit a narrower type.
    """
    if have is want or have.equals(want, check_metadata=True):
        return batch
    arrays = _conformed(list(have), batch.columns, list(want), batch.num_rows)
    return pa.RecordBatch.from_arrays(arrays, schema=bare(want))


def _conformed(
    have: Sequence[pa.Field], arrays: Sequence[pa.Array], want: Sequence[pa.Field], rows: int
) -> list[pa.Array]:
    found = []
    for field in want:
        place = find(have, field)
        if place is None:
            found.append(filled(field, rows))
        else:
            found.append(_converted(arrays[place], have[place], field))
    return found


def filled(field: pa.Field, rows: int) -> pa.Array:
    """A column that the rows lack."""
    value = fill(field)
    if value is None:
        return pa.nulls(rows, bare_type(field.type))
    return value.take(pa.array(np.zeros(rows, np.int32)))


def _converted(array: pa.Array, have: pa.Field, want: pa.Field) -> pa.Array:
    target = bare_type(want.type)
    if array.type == target and _same_children(have.type, want.type):
        return array
    inside, outside = children(have.type), children(want.type)
    if not outside:
        return array.cast(target)
    if array.offset:
        array = array.take(pa.array(np.arange(len(array))))
    mask = array.is_null() if array.null_count else None
    if pa.types.is_struct(target):
        columns = [array.field(i) for i in range(len(inside))]
        made = _conformed(inside, columns, outside, len(array))
        return pa.StructArray.from_arrays(made, fields=list(target), mask=mask)
    if pa.types.is_list(target):
        items = _converted(array.values, inside[0], outside[0])
        return pa.ListArray.from_arrays(array.offsets, items, type=target, mask=mask)
    items = _converted(array.items, inside[1], outside[1])
    return pa.MapArray.from_arrays(array.offsets, array.keys, items, type=target, mask=mask)


def _same_children(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether fields stand at the same places, and mean the same columns."""
    one, other = children(have), children(want)
    return len(one) == len(other) and all(
        (pa.types.is_struct(have) is False or find([mine], theirs) == 0)
        and _same_children(mine.type, theirs.type)
        for mine, theirs in zip(one, other, strict=True)
    )


def _restricted(fields: Iterable[pa.Field], wanted: frozenset[int]) -> list[pa.Field]:
    kept = []
    for field in fields:
        if field_id(field) in wanted:
            inside = children(field.type)
            if inside:
                field = field.with_type(with_children(field.type, _restricted(inside, wanted)))  # noqa: PLW2901
            kept.append(field)
    return kept


def _bound(field: pa.Field, table: Sequence[pa.Field]) -> pa.Field:
    theirs = next((other for other in table if other.name == field.name), None)
    if theirs is None:
        return field
    mine, others = children(field.type), children(theirs.type)
    if not pa.types.is_struct(field.type) and len(mine) == len(others):
        others = [o.with_name(m.name) for m, o in zip(mine, others, strict=True)]
    if mine:
        inside = [_bound(child, others) for child in mine]
        field = field.with_type(with_children(field.type, inside))
    return tagged(field, number=field_id(theirs))


def _fill_text(value: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays([value.slice(0, 1)], ["fill"])
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return base64.b64encode(sink.getvalue())
