"""Cookie sessions: options, and the greatest position seen per table (rule 20). On one server."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from catalog.offsets import Offsets
from catalog.spec import TableName
from flight_server.protocol import backend as protocol
from flight_server.protocol.errors import HandleRefused, PermissionDenied, StaleHandle
from flight_server.protocol.handles import Purpose, Retired, Sealer
from flight_server.protocol.messages import OptionValue

#: A cookie outlives its session: what it proves is only that we made it, for this user.
_COOKIE_LIFE_S = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions are remembered, and for how long after their last call."""

    count: int = 10_000
    idle_s: float = 3600.0


class Session:
    """One session. Any thread; one lock.

    Invariant: positions seen never go back while a table keeps its uuid.

    Attributes:
        returned: its cookie has come back at least once: the client keeps cookies.
    """

    def __init__(self, session_id: bytes, keep: Callable[[Session], None]) -> None:
        self.id = session_id
        self.returned = False
        self._keep = keep
        self._lock = threading.Lock()
        self._options: dict[str, OptionValue] = {}
        self._seen: dict[TableName, tuple[str, Offsets]] = {}

    @property
    def options(self) -> Mapping[str, OptionValue]:
        """A copy of the options that were set."""
        with self._lock:
            return dict(self._options)

    def set_option(self, name: str, value: OptionValue) -> None:
        """Set one option; None erases it. From here on the session is remembered."""
        with self._lock:
            if value is None:
                self._options.pop(name, None)
            else:
                self._options[name] = value
        self._keep(self)

    def seen(self) -> Mapping[TableName, Offsets]:
        """The greatest high position per table that an answer of this session has shown."""
        with self._lock:
            return {name: high for name, (_, high) in self._seen.items()}

    def knows(self, name: TableName, table_uuid: str) -> bool:
        """Whether what was seen of ``name`` was of this very table."""
        with self._lock:
            return name in self._seen and self._seen[name][0] == table_uuid

    def saw(self, name: TableName, table_uuid: str, high: Offsets) -> None:
        """An answer shows ``name`` up to ``high``; another uuid starts anew."""
        with self._lock:
            known, before = self._seen.get(name, (table_uuid, Offsets()))
            greatest = high.max(before) if known == table_uuid else high
            self._seen[name] = (table_uuid, greatest)


@dataclass(slots=True)
class _Kept:
    session: Session
    used_s: float


class SessionStore:
    """The sessions of one server, the longest unused one first. Any thread; one lock.

    A session is kept when its cookie comes back (so the client keeps cookies) or when an option is
    set. One that was forgotten while it had options is reported once, by ``StaleHandle``: silently
    falling back to the defaults could answer from another schema.
    """

    def __init__(
        self,
        sealer: Sealer,
        limits: SessionLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sealer = sealer
        self._limits = limits or SessionLimits()
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lost = Retired(self._limits.count)

    def resolve(self, cookie: str | None, principal: str) -> tuple[Session, str | None]:
        """The session of ``cookie``, or a new one and the cookie to hand out for it.

        Raises:
            StaleHandle: the session had options and was forgotten; the next call starts anew.
        """
        known = None if cookie is None else self._open_cookie(cookie, principal)
        if known is None:
            session = Session(secrets.token_bytes(8), self._keep)
            return session, self._make_cookie(session.id, principal)
        return self._find(known), None

    def close(self, session: protocol.Session) -> bool:
        """Forget ``session``; False where it was not kept."""
        if not isinstance(session, Session):
            return False
        with self._lock:
            return self._kept.pop(session.id, None) is not None

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)

    def _find(self, session_id: bytes) -> Session:
        self._expire()
        with self._lock:
            kept = self._kept.get(session_id)
        if kept is not None:
            kept.session.returned = True
            self._keep(kept.session)
            return kept.session
        if self._lost.remove(session_id):
            raise StaleHandle(
                "the session has expired and its options are gone: set them again, or connect again"
            )
        session = Session(session_id, self._keep)
        session.returned = True
        self._keep(session)
        return session

    def _keep(self, session: Session) -> None:
        with self._lock:
            self._kept[session.id] = _Kept(session, self._clock())
            self._kept.move_to_end(session.id)
        self._expire()

    def _expire(self) -> None:
        oldest = self._clock() - self._limits.idle_s
        with self._lock:
            while self._kept:
                first = next(iter(self._kept.values()))
                if len(self._kept) <= self._limits.count and first.used_s >= oldest:
                    return
                del self._kept[first.session.id]
                if first.session.options:
                    self._lost.add(first.session.id)

    def _make_cookie(self, session_id: bytes, principal: str) -> str:
        sealed = self._sealer.seal(Purpose.SESSION, principal, b"", _COOKIE_LIFE_S, session_id)
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def _open_cookie(self, cookie: str, principal: str) -> bytes | None:
        """The id in a cookie of ours for this user; None for any other: it gets a new one."""
        try:
            sealed = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            return self._sealer.unseal_for(Purpose.SESSION, sealed, principal).id
        except (HandleRefused, StaleHandle, PermissionDenied, ValueError):
            return None
