"""Updates: what the backend takes as one is executed; what else writes is refused in words.

The upload of these commands is never read: Go's clients send CommandStatementUpdate without a
schema message, and a read of it would wait for one.
"""

from __future__ import annotations

from typing import NoReturn

from flight_server.protocol import codec, messages
from flight_server.protocol.backend import Call, Permission, Statement
from flight_server.protocol.errors import Unimplemented, cut
from flight_server.protocol.prepared import prepared_statement
from flight_server.protocol.statements import Service, require_no_transaction

_READ_ONLY = "this server answers queries and writes nothing by Flight SQL"
_NO_TRANSACTIONS = "there are no transactions: every statement stands alone and needs none"


def update(
    service: Service, command: messages.StatementUpdate, _upload: object, call: Call
) -> bytes:
    """Execute the statement.

    Raises:
        Unimplemented: the backend does not take it as an update.
    """
    require_no_transaction(command.transaction_id)
    count = _updated(service, Statement(command.query), call)
    if count is None:
        raise Unimplemented(
            f"CommandStatementUpdate: {_READ_ONLY}; a statement that gives rows is executed as a "
            f"query, not as an update: {cut(command.query, 200)!r}"
        )
    return codec.update_result(count)


def update_prepared(
    service: Service, command: messages.PreparedStatementUpdate, _upload: object, call: Call
) -> bytes:
    """Execute the statement in a handle.

    Raises:
        Unimplemented: what was prepared gives rows (``is_update`` was false).
    """
    statement = prepared_statement(service, command.prepared_statement_handle, call)
    count = _updated(service, statement, call)
    if count is None:
        raise Unimplemented(
            f"CommandPreparedStatementUpdate: {_READ_ONLY}; the prepared statement gives rows: "
            "execute it as a query (not executemany), several rows of parameters give one result"
        )
    return codec.update_result(count)


def _updated(service: Service, statement: Statement, call: Call) -> int | None:
    service.authorize_statement(statement, call.principal, Permission.WRITE)
    return service.backend.update(statement, call)


def refuse_plan(*_: object) -> NoReturn:
    """Refuse a Substrait plan as an update.

    Raises:
        Unimplemented: always.
    """
    raise Unimplemented(
        f"CommandStatementSubstraitPlan: {_READ_ONLY}; a plan that reads is executed as a query, "
        "not as an update"
    )


def refuse_ingest(_service: object, command: messages.StatementIngest, *_: object) -> NoReturn:
    """Refuse the rows, unread.

    Raises:
        Unimplemented: always; names the table.
    """
    name = cut(".".join(filter(None, (command.catalog, command.schema, command.table))), 200)
    raise Unimplemented(f"CommandStatementIngest: {_READ_ONLY}; nothing was stored in {name!r}")


def refuse_transaction(_service: object, command: messages.Message, *_: object) -> NoReturn:
    """Refuse to begin or end one.

    Raises:
        Unimplemented: always.
    """
    raise Unimplemented(f"{messages.action_type(type(command))}: {_NO_TRANSACTIONS}")
