"""A Flight SQL server around a backend, and the twenty-line backend of the kernel's README."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions, dbapi

from flight_server.protocol import (
    Batches,
    Call,
    FlightSqlServer,
    Planned,
    ReadOnlyBackend,
    Rows,
    Sealer,
    Service,
    Statement,
    TableEntry,
)
from flight_server.protocol.errors import InvalidArgument
from flight_server.sessions import SessionStore

KEY = b"a key of thirty-two bytes or so."

NUMBERS = pa.table({"n": pa.array(range(5), pa.int64())})


class Numbers(ReadOnlyBackend):
    """Knows one table and one statement."""

    def plan(self, statement: Statement, _call: Call) -> Planned:
        """``select n from numbers`` and nothing else."""
        if statement.query.rstrip("; ").lower() != "select n from numbers":
            raise InvalidArgument(f"I only know 'select n from numbers', not {statement.query!r}")
        return Planned(NUMBERS.schema, b"numbers")

    def open(self, payload: bytes, _call: Call) -> Rows:
        """The rows."""
        assert payload == b"numbers"
        return Batches(NUMBERS.schema, iter(NUMBERS.to_batches()))

    def tables(self, _call: Call) -> list[TableEntry]:
        """The table."""
        return [TableEntry("lake", "demo", "numbers", "BASE TABLE", lambda: NUMBERS.schema)]


def make_service(backend: Any, **more: Any) -> Service:
    """A service with sessions and a fixed key."""
    sealer = more.pop("sealer", None) or Sealer([KEY])
    return Service(backend, sealer, more.pop("sessions", None) or SessionStore(sealer), **more)


@contextmanager
def serving(service: Service, **more: Any) -> Iterator[FlightSqlServer]:
    """A server on a free loopback port."""
    server = FlightSqlServer(service, "grpc://127.0.0.1:0", **more)
    try:
        yield server
    finally:
        server.stop()


def connect(server: FlightSqlServer, **options: str) -> Any:
    """A stock ADBC connection (DBAPI) with cookies."""
    more = {DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true", **options}
    return dbapi.connect(f"grpc://127.0.0.1:{server.port}", db_kwargs=more, autocommit=True)
