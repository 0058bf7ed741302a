"""A Flight SQL server kernel that knows no engine: see README.md in this folder."""

from flight_server.protocol.backend import (
    Backend,
    Call,
    Permission,
    Planned,
    Policy,
    Prepared,
    Principal,
    ReadOnlyBackend,
    Rows,
    Session,
    Sessions,
    Statement,
    TableEntry,
    allow_all,
)
from flight_server.protocol.credentials import (
    Authenticator,
    BearerToken,
    Credentials,
    UserPassword,
)
from flight_server.protocol.errors import FlightSqlError
from flight_server.protocol.handles import Sealer
from flight_server.protocol.routes import Batches
from flight_server.protocol.server import FlightSqlServer, Tls
from flight_server.protocol.statements import Facts, Service

__all__ = [
    "Authenticator",
    "Backend",
    "Batches",
    "BearerToken",
    "Call",
    "Credentials",
    "Facts",
    "FlightSqlError",
    "FlightSqlServer",
    "Permission",
    "Planned",
    "Policy",
    "Prepared",
    "Principal",
    "ReadOnlyBackend",
    "Rows",
    "Sealer",
    "Service",
    "Session",
    "Sessions",
    "Statement",
    "TableEntry",
    "Tls",
    "UserPassword",
    "allow_all",
]
