"""The messages of Flight SQL as frozen values: every command, every action, the results' numbers.

Names are the protocol's without their prefix and suffix
(``CommandGetTables`` → :class:`GetTables`); an absent optional field is None.

Source: Flight.proto and FlightSql.proto (proto/README.md says which).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

SQL_PACKAGE = "arrow.flight.protocol.sql"
FLIGHT_PACKAGE = "arrow.flight.protocol"

#: What a session option may hold; None erases it.
OptionValue = str | bool | int | float | tuple[str, ...] | None


class Message:
    """Root of the decoded messages; ``proto`` is the full name in the protocol's files."""

    __slots__ = ()
    proto: ClassVar[str]


# --- commands --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StatementQuery(Message):
    """One SQL statement that gives rows."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandStatementQuery"
    query: str
    transaction_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class StatementUpdate(Message):
    """One SQL statement that writes."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandStatementUpdate"
    query: str
    transaction_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class SubstraitPlan(Message):
    """A serialised Substrait plan and the version it was written by."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.SubstraitPlan"
    plan: bytes
    version: str


@dataclass(frozen=True, slots=True)
class StatementSubstraitPlan(Message):
    """A Substrait plan to run."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandStatementSubstraitPlan"
    plan: SubstraitPlan | None
    transaction_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class TicketStatementQuery(Message):
    """The ticket of a planned statement."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.TicketStatementQuery"
    statement_handle: bytes


@dataclass(frozen=True, slots=True)
class PreparedStatementQuery(Message):
    """A prepared statement that gives rows."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandPreparedStatementQuery"
    prepared_statement_handle: bytes


@dataclass(frozen=True, slots=True)
class PreparedStatementUpdate(Message):
    """A prepared statement that writes."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandPreparedStatementUpdate"
    prepared_statement_handle: bytes


@dataclass(frozen=True, slots=True)
class TableDefinitionOptions(Message):
    """What an ingest does about a table that is (not) there; numbers as in the protocol."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandStatementIngest.TableDefinitionOptions"
    if_not_exist: int
    if_exists: int


@dataclass(frozen=True, slots=True)
class StatementIngest(Message):
    """Rows to be stored in a table."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandStatementIngest"
    table_definition_options: TableDefinitionOptions | None
    table: str
    schema: str | None
    catalog: str | None
    temporary: bool
    transaction_id: bytes | None
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GetSqlInfo(Message):
    """Facts about the server; no ids: all of them."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetSqlInfo"
    info: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GetXdbcTypeInfo(Message):
    """The SQL types; None: all of them."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetXdbcTypeInfo"
    data_type: int | None = None


@dataclass(frozen=True, slots=True)
class GetCatalogs(Message):
    """The catalogs."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetCatalogs"


@dataclass(frozen=True, slots=True)
class GetDbSchemas(Message):
    """The schemas. A catalog of "" means those without one, None any."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetDbSchemas"
    catalog: str | None = None
    db_schema_filter_pattern: str | None = None


@dataclass(frozen=True, slots=True)
class GetTables(Message):
    """The tables; patterns know ``%`` and ``_``; no types: any type."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetTables"
    catalog: str | None = None
    db_schema_filter_pattern: str | None = None
    table_name_filter_pattern: str | None = None
    table_types: tuple[str, ...] = ()
    include_schema: bool = False


@dataclass(frozen=True, slots=True)
class GetTableTypes(Message):
    """The types of tables."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetTableTypes"


@dataclass(frozen=True, slots=True)
class GetPrimaryKeys(Message):
    """The primary key of a table."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetPrimaryKeys"
    catalog: str | None
    db_schema: str | None
    table: str


@dataclass(frozen=True, slots=True)
class GetExportedKeys(Message):
    """The foreign keys that point at a table."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetExportedKeys"
    catalog: str | None
    db_schema: str | None
    table: str


@dataclass(frozen=True, slots=True)
class GetImportedKeys(Message):
    """The foreign keys of a table."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetImportedKeys"
    catalog: str | None
    db_schema: str | None
    table: str


@dataclass(frozen=True, slots=True)
class GetCrossReference(Message):
    """The foreign keys from one table to another."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.CommandGetCrossReference"
    pk_catalog: str | None
    pk_db_schema: str | None
    pk_table: str
    fk_catalog: str | None
    fk_db_schema: str | None
    fk_table: str


# --- actions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreatePreparedStatement(Message):
    """A statement to prepare."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionCreatePreparedStatementRequest"
    query: str
    transaction_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class CreatePreparedSubstraitPlan(Message):
    """A Substrait plan to prepare."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionCreatePreparedSubstraitPlanRequest"
    plan: SubstraitPlan | None
    transaction_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class ClosePreparedStatement(Message):
    """A handle that the client is done with."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionClosePreparedStatementRequest"
    prepared_statement_handle: bytes


@dataclass(frozen=True, slots=True)
class BeginTransaction(Message):
    """A transaction to begin."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionBeginTransactionRequest"


@dataclass(frozen=True, slots=True)
class BeginSavepoint(Message):
    """A savepoint to begin."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionBeginSavepointRequest"
    transaction_id: bytes
    name: str


@dataclass(frozen=True, slots=True)
class EndTransaction(Message):
    """A transaction to end; 1 commits, 2 rolls back."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionEndTransactionRequest"
    transaction_id: bytes
    action: int


@dataclass(frozen=True, slots=True)
class EndSavepoint(Message):
    """A savepoint to end; 1 releases, 2 rolls back."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionEndSavepointRequest"
    savepoint_id: bytes
    action: int


@dataclass(frozen=True, slots=True)
class CancelQuery(Message):
    """A FlightInfo (its bytes) to cancel; the deprecated form of CancelFlightInfo."""

    proto: ClassVar[str] = f"{SQL_PACKAGE}.ActionCancelQueryRequest"
    info: bytes


@dataclass(frozen=True, slots=True)
class CancelFlightInfo(Message):
    """The tickets of a FlightInfo to cancel."""

    proto: ClassVar[str] = f"{FLIGHT_PACKAGE}.CancelFlightInfoRequest"
    info: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RenewFlightEndpoint(Message):
    """The ticket of an endpoint whose life is to be prolonged."""

    proto: ClassVar[str] = f"{FLIGHT_PACKAGE}.RenewFlightEndpointRequest"
    endpoint: bytes


@dataclass(frozen=True, slots=True)
class SetSessionOptions(Message):
    """Options to set; a value of None erases."""

    proto: ClassVar[str] = f"{FLIGHT_PACKAGE}.SetSessionOptionsRequest"
    session_options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GetSessionOptions(Message):
    """The session's options are asked for."""

    proto: ClassVar[str] = f"{FLIGHT_PACKAGE}.GetSessionOptionsRequest"


@dataclass(frozen=True, slots=True)
class CloseSession(Message):
    """The session is over."""

    proto: ClassVar[str] = f"{FLIGHT_PACKAGE}.CloseSessionRequest"


# --- results ---------------------------------------------------------------------------------


class CancelStatus(IntEnum):
    """Source: CancelStatus of Flight.proto."""

    CANCELLED = 1
    CANCELLING = 2
    NOT_CANCELLABLE = 3


class OptionError(IntEnum):
    """Source: SetSessionOptionsResult.ErrorValue."""

    INVALID_NAME = 1
    INVALID_VALUE = 2
    ERROR = 3


class CloseStatus(IntEnum):
    """Source: CloseSessionResult.Status."""

    CLOSED = 1
    CLOSING = 2
    NOT_CLOSEABLE = 3


# --- the tables ------------------------------------------------------------------------------

#: Any-wrapped commands in descriptors and tickets, by full name.
COMMANDS: Mapping[str, type[Message]] = {
    kind.proto: kind
    for kind in (
        *(StatementQuery, StatementUpdate, StatementSubstraitPlan, StatementIngest),
        *(TicketStatementQuery, PreparedStatementQuery, PreparedStatementUpdate),
        *(GetSqlInfo, GetXdbcTypeInfo, GetCatalogs, GetDbSchemas, GetTables, GetTableTypes),
        *(GetPrimaryKeys, GetExportedKeys, GetImportedKeys, GetCrossReference),
    )
}

_ACTION_KINDS: tuple[type[Message], ...] = (
    *(CreatePreparedStatement, CreatePreparedSubstraitPlan, ClosePreparedStatement),
    *(BeginTransaction, BeginSavepoint, EndTransaction, EndSavepoint, CancelQuery),
    *(CancelFlightInfo, RenewFlightEndpoint),
    *(SetSessionOptions, GetSessionOptions, CloseSession),
)


def action_type(kind: type[Message]) -> str:
    """``…ActionBeginSavepointRequest`` → ``BeginSavepoint``, the name in ``Action.type``."""
    return kind.proto.rpartition(".")[2].removeprefix("Action").removesuffix("Request")


#: Messages of ``Action.body``, by action type.
ACTIONS: Mapping[str, type[Message]] = {action_type(kind): kind for kind in _ACTION_KINDS}
