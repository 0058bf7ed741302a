"""Which files hold a version's rows, and whether names say which of their columns is which."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.name_mapping import MappedField
from pyiceberg.types import NestedField

from catalog.copies import Copies
from catalog.deletes import absolute
from catalog.erasure import Holding, as_copied, without_deleted
from catalog.files import Origin, files_at
from catalog.heads import snapshot_at
from catalog.remembered import Remembered
from catalog.rereading import FileRequest


@Remembered
def names_suffice(metadata: TableMetadata) -> bool:
    """Whether a scan that matches columns by name reads every file of the table right.

    As far as the table's properties and defaults tell: not where a column has a value in files from
    before it, or where files without field ids may call a column otherwise
    (``schema.name-mapping.default``).
    """
    if has_defaults(metadata):
        return False
    mapping = metadata.name_mapping()
    return mapping is None or _is_plain(mapping, metadata.schema().as_struct().fields)


@Remembered
def has_defaults(metadata: TableMetadata) -> bool:
    """Whether files may lack a column that has a value in their rows (format version 3)."""
    return any(
        schema.find_field(number).initial_default is not None
        for schema in metadata.schemas
        for number in schema.field_ids
    )


def _is_plain(mapping: Iterable[MappedField], fields: Iterable[NestedField]) -> bool:
    """Whether every field is mapped from its own name and from no other."""
    mapped = {each.field_id: each for each in mapping}
    return all(
        (mine := mapped.get(each.field_id)) is not None
        and list(mine.names) == [each.name]
        and _is_plain(mine.fields, getattr(each.field_type, "fields", ()))
        for each in fields
    )


def requested(origin: Origin, request: FileRequest) -> pa.Table:
    """The entries of the files asked for."""
    table = origin.found.table
    return table.filter(pc.is_in(table["path"], pa.array(request.paths, pa.string())))


def left_files(
    origin: Origin, request: FileRequest, copies: Copies, holding: Holding
) -> list[tuple[str, DataFile]]:
    """The files asked for, by path; copies in the place of those that lost rows."""
    entries = requested(origin, request)
    touched = entries.filter(pc.greater(pc.list_value_length(entries["deletes"]), 0))
    made = without_deleted(origin, touched, copies, holding)
    snapshot = snapshot_at(origin.metadata, request.snapshot_id)
    files = files_at(snapshot, origin.io, request.paths) if snapshot else []
    return [(absolute(each.file_path), file) for each in files if (file := as_copied(each, made))]
