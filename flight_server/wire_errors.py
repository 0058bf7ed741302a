"""The data side's errors → the wire's: one table by status, so that it is total."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from catalog.errors import CatalogError
from flight_server.protocol.errors import (
    Aborted,
    DataLost,
    FailedPrecondition,
    FlightSqlError,
    Internal,
    NotFound,
    ResourceExhausted,
    TryAgain,
    Unimplemented,
)

#: Status of a catalog error → the wire error that carries it. A test enumerates all classes.
BY_CODE: Mapping[str, type[FlightSqlError]] = {
    "INTERNAL": Internal,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": FailedPrecondition,
    "UNAVAILABLE": TryAgain,
    "ABORTED": Aborted,
    "DATA_LOSS": DataLost,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNIMPLEMENTED": Unimplemented,
}


def to_wire_error(error: CatalogError) -> FlightSqlError:
    """The same status; the text starts with the class's name, which users look up."""
    return BY_CODE[error.code](f"{type(error).__name__}: {error}")


@contextmanager
def wire_errors() -> Iterator[None]:
    """Inside the block, catalog errors become wire errors."""
    try:
        yield
    except CatalogError as error:
        raise to_wire_error(error) from error
