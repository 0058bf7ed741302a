"""A Flight SQL server around a backend, and the twenty-line backend of the kernel's README."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions, dbapi
from pyarrow import flight

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
    codec,
    messages,
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


def hand(server: FlightSqlServer) -> flight.FlightClient:
    """A bare pyarrow client; the test closes it."""
    return flight.connect(f"grpc://127.0.0.1:{server.port}")


def descriptor(command: messages.Message) -> flight.FlightDescriptor:
    """What a client asks GetFlightInfo, GetSchema and DoPut with."""
    return flight.FlightDescriptor.for_command(codec.encode_command(command))


def fetch(client: flight.FlightClient, command: messages.Message, **more: Any) -> pa.Table:
    """GetFlightInfo, then DoGet of its endpoint; the schemas must agree, metadata included."""
    info = client.get_flight_info(descriptor(command), **more)
    (endpoint,) = info.endpoints
    table = read(client.do_get(endpoint.ticket, **more))
    assert table.schema.equals(info.schema, check_metadata=True)
    return table


def read(reader: flight.FlightStreamReader) -> pa.Table:
    """All chunks; ``read_all`` would turn CANCELLED into a KeyboardInterrupt."""
    batches = [chunk.data for chunk in reader]
    return pa.Table.from_batches(batches, reader.schema)


def act(client: flight.FlightClient, request: messages.Message, **more: Any) -> list[bytes]:
    """One action, its body wrapped or bare as the protocol has it."""
    wrapped = request.proto.startswith(messages.SQL_PACKAGE + ".")
    body = codec.encode_command(request) if wrapped else codec.encode_bare(request)
    action = flight.Action(messages.action_type(type(request)), body)
    return [result.body.to_pybytes() for result in client.do_action(action, **more)]


def unwrapped(body: bytes, name: str) -> Any:
    """The message ``name`` in an Any."""
    value = codec._parse("google.protobuf.Any", body)
    assert value.type_url.endswith(f".{name}")
    return codec._parse(value.type_url.rpartition("/")[2], value.value)


def bare(body: bytes, name: str) -> Any:
    """The message ``name`` as it stands."""
    return codec._parse(f"{messages.FLIGHT_PACKAGE}.{name}", body)


def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait for ``condition``; fail when it never comes."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
