"""What an ADBC, a pyarrow and a JDBC client see of each class of error of ours.

The backend raises the class that the statement names: while planning, or in the middle of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from adbc_driver_manager import AdbcStatusCode
from pyarrow import flight
from support_clients import jdbc, program, required_or_skipped
from support_flight import connect, descriptor, hand, make_service, read, serving
from test_errors import CLASSES

from catalog.errors import CatalogError
from flight_server.protocol import (
    Batches,
    Call,
    FlightSqlServer,
    Planned,
    ReadOnlyBackend,
    Rows,
    Statement,
    TableEntry,
    messages,
)
from flight_server.protocol.errors import FlightSqlError, sent_status
from flight_server.wire_errors import to_wire_error, wire_errors

TEXT = "what happened; what to do"
ROWS = pa.table({"n": [1, 2, 3]})
BY_NAME = {cls.__name__: cls for cls in CLASSES}
#: gRPC status → ADBC's code, the DBAPI's class, pyarrow's class.
SEEN = {
    "INVALID_ARGUMENT": ("INVALID_ARGUMENT", dbapi.ProgrammingError, pa.ArrowInvalid),
    "NOT_FOUND": ("NOT_FOUND", dbapi.ProgrammingError, pa.ArrowKeyError),
    "UNIMPLEMENTED": ("NOT_IMPLEMENTED", dbapi.NotSupportedError, pa.ArrowNotImplementedError),
    "UNAUTHENTICATED": (
        "UNAUTHENTICATED",
        dbapi.ProgrammingError,
        flight.FlightUnauthenticatedError,
    ),
    "PERMISSION_DENIED": (
        "UNAUTHORIZED",
        dbapi.ProgrammingError,
        flight.FlightUnauthorizedError,
    ),
    "DEADLINE_EXCEEDED": ("TIMEOUT", dbapi.OperationalError, flight.FlightTimedOutError),
    "CANCELLED": ("CANCELLED", dbapi.OperationalError, flight.FlightCancelledError),
    "UNAVAILABLE": ("IO", dbapi.OperationalError, flight.FlightUnavailableError),
    "INTERNAL": ("INTERNAL", dbapi.InternalError, flight.FlightInternalError),
}

#: Where JDBC's driver has another name for the status.
JDBC_NAMES = {"PERMISSION_DENIED": "UNAUTHORIZED", "DEADLINE_EXCEEDED": "TIMED_OUT"}


class Raising(ReadOnlyBackend):
    """``plan NotFound`` and ``rows NotFound`` raise that class; ``defect`` something else."""

    def plan(self, statement: Statement, _call: Call) -> Planned:
        """Of the protocol."""
        phase, _, name = statement.query.partition(" ")
        if phase == "plan":
            self._fail(name)
        return Planned(ROWS.schema, name.encode())

    def open(self, payload: bytes, _call: Call) -> Rows:
        """Of the protocol."""
        return Batches(ROWS.schema, self._rows(payload.decode()))

    def tables(self, _call: Call) -> list[TableEntry]:
        """None."""
        return []

    def _rows(self, name: str) -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        self._fail(name)

    def _fail(self, name: str) -> None:
        if name == "defect":
            raise ZeroDivisionError("/etc/secret: hunter2")
        with wire_errors():
            raise BY_NAME[name](TEXT)


@pytest.fixture(scope="module")
def server() -> Iterator[FlightSqlServer]:
    with serving(make_service(Raising())) as server:
        yield server


def wire_error(name: str) -> FlightSqlError:
    error = BY_NAME[name](TEXT)
    return to_wire_error(error) if isinstance(error, CatalogError) else error


def check_text(text: str, name: str) -> None:
    """What happened is there; a path, a stack or the program's inner life is not."""
    assert TEXT in text
    if wire_error(name).code != sent_status(wire_error(name)):
        assert wire_error(name).code in text
    assert not re.search(r"Traceback|\.py\b|File \"", text)


def by_adbc(server: FlightSqlServer, sql: str) -> None:
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        cursor.fetchall()


def by_pyarrow(server: FlightSqlServer, sql: str) -> None:
    with hand(server) as client:
        info = client.get_flight_info(descriptor(messages.StatementQuery(sql)))
        read(client.do_get(info.endpoints[0].ticket))


@pytest.mark.feature("ADBC", "errors")
@pytest.mark.parametrize("phase", ["plan", "rows"])
@pytest.mark.parametrize("name", BY_NAME)
def test_adbc_sees(name: str, phase: str, server: FlightSqlServer) -> None:
    code, kind, _ = SEEN[sent_status(wire_error(name))]
    with pytest.raises(dbapi.Error) as caught:
        by_adbc(server, f"{phase} {name}")
    check_text(str(caught.value), name)
    assert caught.value.status_code == AdbcStatusCode[code]
    assert type(caught.value) is kind


@pytest.mark.feature("pyarrow", "errors")
@pytest.mark.parametrize("phase", ["plan", "rows"])
@pytest.mark.parametrize("name", BY_NAME)
def test_pyarrow_sees(name: str, phase: str, server: FlightSqlServer) -> None:
    _, _, kind = SEEN[sent_status(wire_error(name))]
    with pytest.raises((pa.ArrowException, flight.FlightError)) as caught:
        by_pyarrow(server, f"{phase} {name}")
    check_text(str(caught.value), name)
    assert type(caught.value) is kind


@pytest.fixture(scope="module")
def by_jdbc(server: FlightSqlServer) -> dict[str, Any]:
    """What the JDBC driver saw, by statement; one program runs them all."""
    url = f"jdbc:arrow-flight-sql://127.0.0.1:{server.port}/?useEncryption=false"
    given = [f"{phase} {name}" for phase in ("plan", "rows") for name in (*BY_NAME, "defect")]
    argv = [*required_or_skipped(jdbc), "errors", url]
    lines = program("jdbc", argv, "\n".join(given) + "\n")
    return dict(zip(given, (line["value"] for line in lines), strict=True))


@pytest.mark.feature("JDBC", "errors")
@pytest.mark.parametrize("phase", ["plan", "rows"])
@pytest.mark.parametrize("name", BY_NAME)
def test_jdbc_sees(name: str, phase: str, by_jdbc: dict[str, Any]) -> None:
    seen = by_jdbc[f"{phase} {name}"]
    check_text(seen["message"] + seen["root"], name)
    status = sent_status(wire_error(name))
    assert f"FlightRuntimeException: {JDBC_NAMES.get(status, status)}: " in seen["root"]


@pytest.mark.parametrize("phase", ["plan", "rows"])
def test_nobody_sees_the_text_of_a_defect(
    phase: str, server: FlightSqlServer, by_jdbc: dict[str, Any]
) -> None:
    with pytest.raises(dbapi.InternalError) as caught:
        by_adbc(server, f"{phase} defect")
    for text in (str(caught.value), str(by_jdbc[f"{phase} defect"])):
        assert not re.search("hunter2|secret|ZeroDivision|Traceback", text)
        assert "INTERNAL" in text
