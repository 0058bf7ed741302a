"""Results as text or files, batch by batch: table, csv, json, parquet, arrow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from types import MappingProxyType
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

Format = Literal["table", "csv", "json", "parquet", "arrow"]

#: Rows that decide the widths of a table's columns; later rows may stick out.
_SAMPLE_ROWS = 1000
#: Widest column of a table, in characters; longer texts are cut.
_MAX_WIDTH = 60
#: Formats that are no text: never written to a terminal.
BINARY: frozenset[Format] = frozenset({"parquet", "arrow"})

Write = Callable[[pa.RecordBatch], None]


def write_rows(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO, form: Format
) -> int:
    """Writes the batches as they come; returns the number of rows."""
    rows = 0
    with _WRITERS[form](schema, sink) as write:
        for batch in batches:
            write(batch)
            rows += batch.num_rows
    return rows


def texts(column: pa.Array) -> list[str | None]:
    """The values as texts; None stays None. Nested values become JSON."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return list(column.to_pylist())
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        return list(column.cast(pa.utf8()).to_pylist())
    return [None if value is None else _text(value) for value in column.to_pylist()]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, (list, dict)):
        return _dumps(value)
    return str(_plain(value))


def _dumps(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: object) -> object:
    """A value that JSON lacks: decimals as texts (a float would lose digits), times as ISO 8601."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat().replace("+00:00", "Z")
    return value.hex() if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _table(schema: pa.Schema, sink: BinaryIO) -> Iterator[Write]:
    waiting: list[pa.RecordBatch] = []
    widths: list[int] = []

    def flush() -> None:
        if not widths:
            widths.extend(_widths(schema, waiting))
            sink.write(_heading(schema, widths).encode())
        sink.writelines("".join(_lines(schema, batch, widths)).encode() for batch in waiting)
        waiting.clear()

    def write(batch: pa.RecordBatch) -> None:
        waiting.append(batch)
        if widths or sum(each.num_rows for each in waiting) >= _SAMPLE_ROWS:
            flush()

    yield write
    if schema.names:
        flush()


def _widths(schema: pa.Schema, batches: list[pa.RecordBatch]) -> list[int]:
    widths = []
    for index, name in enumerate(schema.names):
        longest = len(name)
        for batch in batches:
            values = texts(batch.column(index).slice(0, _SAMPLE_ROWS))
            longest = max([longest, *(len(_shown(value)) for value in values)])
        widths.append(min(longest, _MAX_WIDTH))
    return widths


def _heading(schema: pa.Schema, widths: list[int]) -> str:
    names = " | ".join(_cut(n, w).ljust(w) for n, w in zip(schema.names, widths, strict=True))
    return f"{names.rstrip()}\n{'-+-'.join('-' * width for width in widths)}\n"


def _lines(schema: pa.Schema, batch: pa.RecordBatch, widths: list[int]) -> Iterator[str]:
    columns = [texts(column) for column in batch.columns]
    right = [_is_number(field.type) for field in schema]
    for row in zip(*columns, strict=True):
        cells = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in (
                (_cut(_shown(value), width), width, to_right)
                for value, width, to_right in zip(row, widths, right, strict=True)
            )
        )
        yield " | ".join(cells).rstrip() + "\n"


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _shown(value: str | None) -> str:
    return "NULL" if value is None else value.replace("\n", "⏎")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


@contextlib.contextmanager
def _csv(schema: pa.Schema, sink: BinaryIO) -> Iterator[Write]:
    """RFC 4180 with a header; nulls are empty, nested values JSON."""
    flat = pa.schema([(field.name, _csv_type(field.type)) for field in schema])
    with pa.csv.CSVWriter(sink, flat) as writer:

        def write(batch: pa.RecordBatch) -> None:
            columns = [
                column if column.type == field.type else pa.array(texts(column), pa.utf8())
                for column, field in zip(batch.columns, flat, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))

        yield write


def _csv_type(kind: pa.DataType) -> pa.DataType:
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return kind if plain else pa.utf8()


@contextlib.contextmanager
def _json(schema: pa.Schema, sink: BinaryIO) -> Iterator[Write]:
    """One object per line. Of columns with one name the last one wins."""

    def write(batch: pa.RecordBatch) -> None:
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        sink.write(
            b"".join(
                (_dumps(dict(zip(schema.names, row, strict=True))) + "\n").encode() for row in rows
            )
        )

    yield write


@contextlib.contextmanager
def _parquet(schema: pa.Schema, sink: BinaryIO) -> Iterator[Write]:
    with pa.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        yield writer.write_batch


@contextlib.contextmanager
def _arrow(schema: pa.Schema, sink: BinaryIO) -> Iterator[Write]:
    """The IPC stream format."""
    with pa.ipc.new_stream(sink, schema) as writer:
        yield writer.write_batch


_Writer = Callable[[pa.Schema, BinaryIO], contextlib.AbstractContextManager[Write]]
_WRITERS: Mapping[Format, _Writer] = MappingProxyType(
    {"table": _table, "csv": _csv, "json": _json, "parquet": _parquet, "arrow": _arrow}
)
