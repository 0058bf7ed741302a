"""DuckDB behind the kernel: a second engine for the contract that every backend has to meet."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import duckdb
import pyarrow as pa
from support_backend import NUMBERS_ROWS

from flight_server.protocol import (
    Batches,
    Call,
    Planned,
    Prepared,
    ReadOnlyBackend,
    Rows,
    Statement,
    TableEntry,
)
from flight_server.protocol.errors import InvalidArgument, NotFound, Unimplemented
from flight_server.protocol.messages import OptionValue

_HEAD = struct.Struct(">I")


class Duck(ReadOnlyBackend):
    """The table ``lake.demo.numbers`` in DuckDB."""

    def __init__(self) -> None:
        self._database = duckdb.connect()
        self._database.execute("attach ':memory:' as lake; create schema lake.demo; use lake.demo")
        self._database.register("source", NUMBERS_ROWS)
        self._database.execute("create table numbers as select * from source")
        self._database.execute("alter table numbers alter n set not null")

    def plan(self, statement: Statement, _call: Call) -> Planned:
        """No row is asked for."""
        schema = self._schema(statement.query, statement.parameters)
        encoded = statement.query.encode()
        parameters = b"" if statement.parameters is None else _ipc(statement.parameters)
        return Planned(schema, _HEAD.pack(len(encoded)) + encoded + parameters)

    def prepare(self, statement: Statement, _call: Call) -> Prepared:
        """DuckDB infers no types of parameters: null."""
        query = statement.query
        count = self._count(query)
        unbound = pa.record_batch([pa.nulls(1)] * count, [str(i) for i in range(count)])
        names = pa.schema([(f"${i + 1}", pa.null()) for i in range(count)])
        return Prepared(self._schema(query, unbound if count else None), names)

    def open(self, payload: bytes, _call: Call) -> Rows:
        """All sets of parameters, one after the other."""
        (size,) = _HEAD.unpack_from(payload)
        query, encoded = payload[4 : 4 + size].decode(), payload[4 + size :]
        parameters = pa.ipc.open_stream(encoded).read_next_batch() if encoded else None
        return Batches(self._schema(query, parameters), self._rows(query, parameters))

    def tables(self, _call: Call) -> Iterable[TableEntry]:
        """The one."""
        return [TableEntry("lake", "demo", "numbers", "BASE TABLE", lambda: NUMBERS_ROWS.schema)]

    def check_option(self, name: str, value: OptionValue) -> OptionValue:
        """Catalog and schema, which never change."""
        if {"catalog": "lake", "schema": "demo"}.get(name) != value:
            raise NotFound(f"no option {name} {value!r}")
        return value

    def options(self, _call: Call) -> dict[str, OptionValue]:
        """See above."""
        return {"catalog": "lake", "schema": "demo"}

    def _count(self, query: str) -> int:
        try:
            return len(self._database.extract_statements(query)[0].named_parameters)
        except duckdb.ParserException as error:
            raise InvalidArgument(str(error).partition("\n")[0]) from error

    def _rows(self, query: str, parameters: pa.RecordBatch | None) -> Iterator[pa.RecordBatch]:
        for row in [{}] if parameters is None else parameters.to_pylist():
            yield from self._cursor(query, list(row.values())).to_arrow_reader(10_000)

    def _schema(self, query: str, parameters: pa.RecordBatch | None) -> pa.Schema:
        values = [] if parameters is None else list(parameters.to_pylist()[0].values())
        return self._cursor(f"select * from ({query}) limit 0", values).to_arrow_reader().schema

    def _cursor(self, query: str, values: list[object]) -> duckdb.DuckDBPyRelation:
        if query.lstrip().lower().startswith(("insert", "delete", "drop", "select * from (insert")):
            raise Unimplemented("INSERT is not offered")
        try:
            cursor = self._database.cursor()
            cursor.execute("use lake.demo")
            return cursor.sql(query, params=values or None)
        except (duckdb.ParserException, duckdb.BinderException) as error:
            raise InvalidArgument(str(error).partition("\n")[0]) from error
        except duckdb.CatalogException as error:
            raise NotFound(str(error).partition("\n")[0]) from error


def _ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded
