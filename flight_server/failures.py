"""Typed errors as exit codes."""

from __future__ import annotations

from catalog.errors import (
    CatalogError,
    SchemaRefused,
    SchemaUnknown,
    SpecRefused,
    Unavailable,
    Unsupported,
)
from flight_server.exits import ExitCode
from flight_server.layers import ConfigRefused
from flight_server.protocol.errors import FlightSqlError

#: Looked up in order.
_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (ConfigRefused, ExitCode.CONFIG),
    (SpecRefused, ExitCode.CONFIG),
    (SchemaRefused, ExitCode.CONFIG),
    (SchemaUnknown, ExitCode.CONFIG),
    (Unsupported, ExitCode.CONFIG),
    (Unavailable, ExitCode.UNAVAILABLE),
    (CatalogError, ExitCode.FAILED),
    (FlightSqlError, ExitCode.FAILED),
)


def is_expected(error: BaseException) -> bool:
    """Whether the error's message is meant for the one who typed the command."""
    return isinstance(error, tuple(kind for kind, _ in _CODES))


def exit_code_of(error: BaseException) -> ExitCode:
    """What a command ends with that ended by ``error``."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.INTERNAL)
