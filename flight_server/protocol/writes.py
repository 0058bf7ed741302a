"""Commands and actions that write: decoded, their permission asked, and refused in words.

The upload of a refused command is never read: Go's clients send CommandStatementUpdate without a
schema message, and a read of it would wait for one.
"""

from __future__ import annotations

from typing import NoReturn

from flight_server.protocol import messages
from flight_server.protocol.errors import Unimplemented, cut

_READ_ONLY = "this server answers queries and writes nothing by Flight SQL"
_NO_TRANSACTIONS = "there are no transactions: every statement stands alone and needs none"


def refuse_update(_service: object, command: messages.StatementUpdate, *_: object) -> NoReturn:
    """Refuse the statement, whatever it is.

    Raises:
        Unimplemented: always.
    """
    raise Unimplemented(
        f"CommandStatementUpdate: {_READ_ONLY}; a statement that gives rows is executed as a "
        f"query, not as an update: {cut(command.query, 200)!r}"
    )


def refuse_prepared_update(*_: object) -> NoReturn:
    """Refuse the statement: what was prepared here gives rows (``is_update`` was false).

    Raises:
        Unimplemented: always.
    """
    raise Unimplemented(
        f"CommandPreparedStatementUpdate: {_READ_ONLY}; the prepared statement gives rows: execute "
        "it as a query (not executemany), several rows of parameters give one result"
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
