"""The result schemas of the metadata commands, and pure builders: filter, sort, fill.

Schemas follow the C++ and Go implementations where they disagree with the protocol file's comments
(GetPrimaryKeys: key_sequence, then key_name); clients compare them strictly, nullability included.

Source: comments of the Command* messages in FlightSql.proto; ``SqlSchema`` of Arrow C++.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from flight_server.protocol.backend import TableEntry
from flight_server.protocol.errors import InvalidArgument
from flight_server.protocol.messages import GetDbSchemas, GetTables

_PREFIX = "ARROW:FLIGHT:SQL:"
#: Rows of a batch of GetTables without schemas: about half a megabyte.
_ROWS = 10_000
#: Schemas in one batch of GetTables, in bytes: a batch stays below 2 MiB, which all clients take.
_SCHEMA_BYTES = 1024 * 1024
#: Characters of a pattern of names.
MAX_PATTERN = 10_000


def _schema(**columns: pa.DataType) -> pa.Schema:
    """``name_`` is a column ``name`` that is never null."""
    return pa.schema(
        [
            pa.field(name.removesuffix("_"), kind, nullable=not name.endswith("_"))
            for name, kind in columns.items()
        ]
    )


CATALOGS = _schema(catalog_name_=pa.utf8())
DB_SCHEMAS = _schema(catalog_name=pa.utf8(), db_schema_name_=pa.utf8())
TABLES = _schema(
    catalog_name=pa.utf8(), db_schema_name=pa.utf8(), table_name_=pa.utf8(), table_type_=pa.utf8()
)
TABLES_WITH_SCHEMA = TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
TABLE_TYPES = _schema(table_type_=pa.utf8())
PRIMARY_KEYS = _schema(
    catalog_name=pa.utf8(),
    db_schema_name=pa.utf8(),
    table_name_=pa.utf8(),
    column_name_=pa.utf8(),
    key_sequence_=pa.int32(),
    key_name=pa.utf8(),
)
#: GetExportedKeys, GetImportedKeys and GetCrossReference.
FOREIGN_KEYS = _schema(
    pk_catalog_name=pa.utf8(),
    pk_db_schema_name=pa.utf8(),
    pk_table_name_=pa.utf8(),
    pk_column_name_=pa.utf8(),
    fk_catalog_name=pa.utf8(),
    fk_db_schema_name=pa.utf8(),
    fk_table_name_=pa.utf8(),
    fk_column_name_=pa.utf8(),
    key_sequence_=pa.int32(),
    fk_key_name=pa.utf8(),
    pk_key_name=pa.utf8(),
    update_rule_=pa.uint8(),
    delete_rule_=pa.uint8(),
)


def tables_schema(command: GetTables) -> pa.Schema:
    """Four columns, and ``table_schema`` only where it was asked for."""
    return TABLES_WITH_SCHEMA if command.include_schema else TABLES


def build_catalogs(names: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """Sorted, each once."""
    yield _batch(CATALOGS, [(name,) for name in sorted(set(names))])


def build_db_schemas(
    command: GetDbSchemas, pairs: Iterable[tuple[str | None, str]]
) -> Iterator[pa.RecordBatch]:
    """Sorted by (catalog, schema), filtered as the command says."""
    in_catalog = _exact(command.catalog)
    named = like(command.db_schema_filter_pattern)
    kept = {(c, s) for c, s in pairs if in_catalog(c) and named(s)}
    yield _batch(DB_SCHEMAS, sorted(kept, key=lambda pair: (pair[0] or "", pair[1])))


def build_tables(
    command: GetTables, entries: Iterable[TableEntry], encoded: EncodedSchemas
) -> Iterator[pa.RecordBatch]:
    """Sorted by (catalog, schema, table, type), filtered; schemas are made batch by batch."""
    kept = sorted(_filtered(command, entries), key=_table_order)
    if not command.include_schema:
        for start in range(0, len(kept), _ROWS):
            yield _batch(TABLES, [_table_row(each) for each in kept[start : start + _ROWS]])
        return
    rows: list[tuple[object, ...]] = []
    size = 0
    for entry in kept:
        columns = encoded.of(entry)
        if rows and size + len(columns) > _SCHEMA_BYTES:
            yield _batch(TABLES_WITH_SCHEMA, rows)
            rows, size = [], 0
        rows.append((*_table_row(entry), columns))
        size += len(columns)
    if rows:
        yield _batch(TABLES_WITH_SCHEMA, rows)


def build_table_types(types: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """Sorted, each once."""
    yield _batch(TABLE_TYPES, [(name,) for name in sorted(set(types))])


def no_rows() -> Iterator[pa.RecordBatch]:
    """What a server without keys answers."""
    return iter(())


def _filtered(command: GetTables, entries: Iterable[TableEntry]) -> Iterator[TableEntry]:
    in_catalog = _exact(command.catalog)
    in_schema = like(command.db_schema_filter_pattern)
    named = like(command.table_name_filter_pattern)
    types = set(command.table_types)
    for entry in entries:
        if types and entry.type not in types:
            continue
        if in_catalog(entry.catalog) and in_schema(entry.schema) and named(entry.name):
            yield entry


def _table_order(entry: TableEntry) -> tuple[str, str, str, str]:
    return (entry.catalog or "", entry.schema or "", entry.name, entry.type)


def _table_row(entry: TableEntry) -> tuple[object, ...]:
    return (entry.catalog, entry.schema, entry.name, entry.type)


class EncodedSchemas:
    """Tables' schemas as the wire wants them, kept by version. Any thread; one lock.

    What is kept is compressed (twenty columns repeat their table's name twenty times: 7 KB become
    one) and bounded in bytes; the longest unused ones go first.
    """

    def __init__(self, capacity_bytes: int = 64 * 1024 * 1024) -> None:
        self._capacity = capacity_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Place, _Encoded] = OrderedDict()
        self._bytes = 0

    def of(self, entry: TableEntry) -> bytes:
        """``table_schema`` of a table."""
        place = (entry.catalog, entry.schema, entry.name, entry.type)
        if entry.version is not None:
            with self._lock:
                known = self._kept.get(place)
                if known is not None:
                    self._kept.move_to_end(place)
            if known is not None and known.version == entry.version:
                plain: bytes = _LZ4.decompress(known.content, known.size, asbytes=True)
                return plain
        made: bytes = _described_table(entry).serialize().to_pybytes()
        if entry.version is not None:
            content = _LZ4.compress(made, asbytes=True)
            self._keep(place, _Encoded(entry.version, len(made), content))
        return made

    @property
    def kept_bytes(self) -> int:
        """What is kept, in bytes."""
        with self._lock:
            return self._bytes

    def _keep(self, place: _Place, made: _Encoded) -> None:
        with self._lock:
            old = self._kept.pop(place, None)
            self._kept[place] = made
            self._bytes += made.taken_bytes - (0 if old is None else old.taken_bytes)
            while self._bytes > self._capacity:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= gone.taken_bytes


#: Catalog, schema, name and type.
_Place = tuple[str | None, str | None, str, str]
_LZ4 = pa.Codec("lz4_raw")
#: What one kept schema takes beside its bytes: key, texts and objects, about.
_ENTRY_BYTES = 1000


@dataclass(frozen=True, slots=True)
class _Encoded:
    version: str
    size: int
    content: bytes

    @property
    def taken_bytes(self) -> int:
        return len(self.content) + _ENTRY_BYTES


def _described_table(entry: TableEntry) -> pa.Schema:
    """The columns with their place in the catalog and their SQL type as field metadata."""
    place = {_PREFIX + "TABLE_NAME": entry.name}
    if entry.catalog is not None:
        place[_PREFIX + "CATALOG_NAME"] = entry.catalog
    if entry.schema is not None:
        place[_PREFIX + "DB_SCHEMA_NAME"] = entry.schema
    fields = [_described(column, place) for column in entry.columns()]
    return pa.schema(fields)


@lru_cache(maxsize=256)  # one statement asks for its own three times
def describe(schema: pa.Schema) -> pa.Schema:
    """``schema`` with TYPE_NAME, PRECISION and SCALE in its fields' metadata.

    JDBC reports precision and scale 0 for decimals without them.
    """
    return pa.schema([_described(column, {}) for column in schema], schema.metadata)


def _described(column: pa.Field, extra: dict[str, str]) -> pa.Field:
    return column.with_metadata({**(column.metadata or {}), **_facts(column.type), **extra})


@lru_cache(maxsize=256)
def _facts(kind: pa.DataType) -> dict[str, str]:
    facts = {_PREFIX + "TYPE_NAME": type_name(kind)}
    if pa.types.is_decimal(kind):
        facts[_PREFIX + "PRECISION"] = str(kind.precision)
        facts[_PREFIX + "SCALE"] = str(kind.scale)
    return facts


_TYPE_NAMES: Sequence[tuple[Callable[[pa.DataType], bool], str]] = (
    (pa.types.is_decimal, "DECIMAL"),
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_int8, "TINYINT"),
    (pa.types.is_int16, "SMALLINT"),
    (pa.types.is_int32, "INTEGER"),
    (pa.types.is_int64, "BIGINT"),
    (pa.types.is_uint8, "TINYINT UNSIGNED"),
    (pa.types.is_uint16, "SMALLINT UNSIGNED"),
    (pa.types.is_uint32, "INTEGER UNSIGNED"),
    (pa.types.is_uint64, "BIGINT UNSIGNED"),
    (pa.types.is_float32, "REAL"),
    (pa.types.is_float64, "DOUBLE"),
    (pa.types.is_string, "VARCHAR"),
    (pa.types.is_binary, "VARBINARY"),
    (pa.types.is_fixed_size_binary, "BINARY"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (pa.types.is_duration, "INTERVAL"),
    (pa.types.is_interval, "INTERVAL"),
    (pa.types.is_list, "ARRAY"),
    (pa.types.is_map, "MAP"),
    (pa.types.is_struct, "STRUCT"),
    (pa.types.is_null, "NULL"),
)


def type_name(kind: pa.DataType) -> str:
    """The SQL name of an Arrow type, as GetXdbcTypeInfo lists it."""
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz is None else "TIMESTAMP WITH TIME ZONE"
    return next((name for matches, name in _TYPE_NAMES if matches(kind)), str(kind).upper())


def like(pattern: str | None) -> Callable[[str | None], bool]:
    r"""A matcher for ``%`` (any text) and ``_`` (one character), ``\`` escapes; None: anything.

    The empty pattern matches what has no such name, and nothing else.

    Raises:
        InvalidArgument: it has more than :data:`MAX_PATTERN` characters.
    """
    if pattern is None:
        return lambda _name: True
    if len(pattern) > MAX_PATTERN:
        raise InvalidArgument(f"a pattern of names has at most {MAX_PATTERN:,} characters")
    parts = [""]
    for each in re.findall(r"\\.|[^\\]|\\", pattern, re.DOTALL):
        if each == "%":
            parts.append("")
        else:
            parts[-1] += "." if each == "_" else re.escape(each[-1])
    first, *others = parts
    # What stands between two % is where it is found first: no other place would leave more room.
    between = [f"(?>.*?{each})" for each in others[:-1]]
    last = [f".*{each}" for each in others[-1:]]
    compiled = re.compile("".join([first, *between, *last]), re.DOTALL)
    return lambda name: compiled.fullmatch(name or "") is not None


def _exact(wanted: str | None) -> Callable[[str | None], bool]:
    """The empty text means those without one, None any."""
    return lambda name: wanted is None or (name or "") == wanted


def _batch(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
