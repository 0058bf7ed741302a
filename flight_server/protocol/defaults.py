"""What a server is made with when nothing else is said: anybody may call, nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping

from flight_server.protocol.backend import Principal, Session
from flight_server.protocol.credentials import Credentials
from flight_server.protocol.errors import Unimplemented
from flight_server.protocol.messages import OptionValue


class Anybody:
    """No authentication: whatever is sent, everybody is ``anonymous``.

    Clients that log in all the same (JDBC always does) are let in.
    """

    def authenticate(self, credentials: Credentials | None) -> Principal:
        """Never refuses."""
        del credentials
        return Principal("anonymous")


class NoSession:
    """A session without options."""

    @property
    def options(self) -> Mapping[str, OptionValue]:
        """None."""
        return {}

    def set_option(self, name: str, value: OptionValue) -> None:
        """Refuse."""
        raise Unimplemented(
            f"this server keeps no sessions, so {name!r} cannot be set to {value!r}"
        )


class NoSessions:
    """Every call stands alone."""

    def resolve(self, cookie: str | None, principal: str) -> tuple[Session, str | None]:
        """Always the same nothing, and no cookie."""
        del cookie, principal
        return NoSession(), None

    def close(self, session: Session) -> bool:
        """There is none."""
        del session
        return False
