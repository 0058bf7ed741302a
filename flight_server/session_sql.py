"""What SET, USE, SHOW and RESET do: the same as the actions about session options do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa

from flight_server import protocol
from flight_server.options import Settings, check_option, options_in_force, unknown_option
from flight_server.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, cut
from flight_server.protocol.messages import OptionValue
from flight_server.sessions import Session
from flight_server.sqlsession import ResetAll, SessionStatement, SetOption, ShowOptions, UseSchema

#: SET, USE and RESET give no rows: clients take a result without columns for none.
NO_COLUMNS = pa.schema([])
#: Of SHOW; every value as text.
SHOWN = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class SessionSql:
    """Runs these statements.

    Attributes:
        settings: the server's.
        schemas: the names of the schemas that there are.
    """

    settings: Settings
    schemas: Callable[[], Iterable[str]]

    def plan(self, statement: SessionStatement) -> pa.Schema:
        """The columns of the answer; changes nothing.

        Raises:
            NotFound: no such option, schema or catalog; names the nearest.
            InvalidArgument: not a value for the option.
        """
        if isinstance(statement, ShowOptions):
            if statement.name is not None:
                check_option(self.settings, statement.name, None)
            return SHOWN
        if not isinstance(statement, ResetAll):
            self._change(statement)
        return NO_COLUMNS

    def run(self, statement: SessionStatement, session: protocol.Session) -> pa.Table:
        """Shows or changes the session's options.

        Raises:
            NotFound, InvalidArgument: as :meth:`plan`.
            FailedPrecondition: the client keeps no cookies, so that nothing would come of it.
        """
        if isinstance(statement, ShowOptions):
            return self._show(statement, session)
        if isinstance(session, Session) and not session.returned:
            raise FailedPrecondition(
                "SET, USE and RESET need a session, and this call came without its cookie: let the "
                "client keep cookies (ADBC: adbc.flight.sql.rpc.with_cookie_middleware = true), or "
                "send it again with the cookie that came with this answer"
            )
        if isinstance(statement, ResetAll):
            changes: dict[str, OptionValue] = dict.fromkeys(session.options)
        else:
            name, value = self._change(statement)
            changes = {name: value}
        for name, value in changes.items():
            session.set_option(name, value)
        return NO_COLUMNS.empty_table()

    def _show(self, statement: ShowOptions, session: protocol.Session) -> pa.Table:
        found = options_in_force(self.settings, session)
        names = list(found) if statement.name is None else [statement.name]
        if not set(names) <= set(found):
            raise unknown_option(names[0])
        rows = [{"name": name, "value": _shown(found[name])} for name in names]
        return pa.Table.from_pylist(rows, SHOWN)

    def _change(self, statement: SetOption | UseSchema) -> tuple[str, OptionValue]:
        if isinstance(statement, UseSchema):
            return "schema", self._existing(statement.path)
        return statement.name, check_option(self.settings, statement.name, statement.value)

    def _existing(self, path: tuple[str, ...]) -> str:
        """The schema that USE means; one that does not exist is a mistake in writing."""
        if len(path) > 1 and path[0] == self.settings.catalog:
            path = path[1:]
        name, known = ".".join(path), sorted(set(self.schemas()))
        if name in known:
            return name
        if name == self.settings.catalog:
            raise InvalidArgument(f"{name!r} is the catalog: USE {name}.schema, or USE CATALOG")
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:10]
        raise NotFound(
            f"there is no schema {cut(name, 200)!r} with tables in the catalog "
            f"{self.settings.catalog!r}: there are {', '.join(near)}"
        )


def _shown(value: OptionValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
