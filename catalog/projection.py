"""Pyiceberg's projection of a file's rows onto a schema, with the nulls that it loses.

pyiceberg 0.12 makes lists and maps of structs anew from their offsets alone, so a list that is null
comes back empty (``ArrowProjectionVisitor.list`` and ``.map``). Its reader names the visitor by
itself, so the corrected one takes its place in the library's module.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import pyarrow as library
from pyiceberg.types import ListType, MapType


class _NullKeeping(library.ArrowProjectionVisitor):
    """The library's own, but null where the file's list or map was null."""

    def list(
        self, list_type: ListType, list_array: pa.Array | None, value_array: pa.Array | None
    ) -> pa.Array | None:
        """The list as the schema has it."""
        return _with_nulls(list_array, super().list(list_type, list_array, value_array))

    def map(
        self,
        map_type: MapType,
        map_array: pa.Array | None,
        key_result: pa.Array | None,
        value_result: pa.Array | None,
    ) -> pa.Array | None:
        """The map as the schema has it."""
        made = super().map(map_type, map_array, key_result, value_result)
        return _with_nulls(map_array, made)


def keep_nulls() -> None:
    """Corrects the library for this process; again does nothing."""
    library.ArrowProjectionVisitor = _NullKeeping  # type: ignore[misc]


def _with_nulls(before: pa.Array | None, made: pa.Array | None) -> pa.Array | None:
    if before is None or made is None or before.null_count == made.null_count:
        return made
    return pc.if_else(before.is_valid(), made, pa.scalar(None, made.type))
