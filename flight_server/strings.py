"""Strings as views: what a scan gives where a statement is better off with them.

A view of 16 bytes holds a short string by itself: grouping, joining and comparing read nothing
else, and a filter copies no characters. Which statements are, ``flight_server.tuning`` says.
"""

from __future__ import annotations

import pyarrow as pa
from datafusion import DataFrame

from catalog.scan import column


def as_views(schema: pa.Schema) -> pa.Schema:
    """The schema with its plain string columns as views."""
    return pa.schema(
        [
            field.with_type(pa.string_view()) if pa.types.is_string(field.type) else field
            for field in schema
        ]
    )


def in_schema(frame: DataFrame, schema: pa.Schema) -> DataFrame:
    """The frame's columns in the types of ``schema``, cast by the engine and only where read."""
    have = frame.schema().types
    if have == schema.types:
        return frame
    return frame.select(
        *(
            column(want.name)
            if kind == want.type
            else column(want.name).cast(want.type).alias(want.name)
            for kind, want in zip(have, schema, strict=True)
        )
    )
