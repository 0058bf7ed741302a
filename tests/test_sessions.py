"""Cookie sessions: kept only when they are worth it, bounded, and never silently forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.offsets import Offsets
from catalog.spec import TableName
from flight_server.protocol.errors import StaleHandle
from flight_server.protocol.handles import Sealer
from flight_server.sessions import SessionLimits, SessionStore

SEALER = Sealer([b"k" * 32])
TRADES = TableName("market_data", "trades")


class Clock:
    """Seconds, moved by hand."""

    now = 0.0

    def __call__(self) -> float:  # noqa: D102 - it tells the time
        return self.now


def store(clock: Clock | None = None, **limits: float) -> SessionStore:
    return SessionStore(SEALER, SessionLimits(**limits), clock=clock or Clock())  # type: ignore[arg-type]


def test_a_client_without_cookies_leaves_nothing_behind() -> None:
    sessions = store()
    for _ in range(3):
        _, cookie = sessions.resolve(None, "alice")
        assert cookie is not None
    assert len(sessions) == 0


def test_a_cookie_that_comes_back_finds_its_session() -> None:
    sessions = store()
    _, cookie = sessions.resolve(None, "alice")
    session, again = sessions.resolve(cookie, "alice")
    assert again is None
    assert sessions.resolve(cookie, "alice") == (session, None)
    assert len(sessions) == 1


def test_an_option_set_in_the_first_call_is_kept() -> None:
    sessions = store()
    session, cookie = sessions.resolve(None, "alice")
    session.set_option("schema", "a")
    found, _ = sessions.resolve(cookie, "alice")
    assert found.options == {"schema": "a"}
    found.set_option("schema", None)
    assert found.options == {}


@pytest.mark.parametrize("cookie", ["", "junk", "!!!", "AAAA" * 30, "ü"])
def test_a_cookie_that_is_not_ours_gets_a_new_session(cookie: str) -> None:
    sessions = store()
    _, fresh = sessions.resolve(cookie, "alice")
    assert fresh is not None
    assert len(sessions) == 0


def test_another_users_cookie_opens_nothing() -> None:
    sessions = store()
    session, cookie = sessions.resolve(None, "alice")
    session.set_option("schema", "secret")
    other, fresh = sessions.resolve(cookie, "bob")
    assert fresh is not None
    assert other.options == {}


def test_a_closed_session_is_gone() -> None:
    sessions = store()
    session, cookie = sessions.resolve(None, "alice")
    assert not sessions.close(session)
    session.set_option("schema", "a")
    assert sessions.close(session)
    assert not sessions.close(session)
    assert sessions.resolve(cookie, "alice")[0].options == {}


def test_an_idle_session_with_options_is_reported_once() -> None:
    """Falling back to the defaults in silence could answer from another schema."""
    clock = Clock()
    sessions = store(clock, idle_s=100)
    session, cookie = sessions.resolve(None, "alice")
    session.set_option("schema", "a")
    clock.now = 99
    assert sessions.resolve(cookie, "alice")[0] is session  # used: lives on
    clock.now = 198
    assert sessions.resolve(cookie, "alice")[0] is session
    clock.now = 299
    with pytest.raises(StaleHandle, match="expired"):
        sessions.resolve(cookie, "alice")
    assert sessions.resolve(cookie, "alice")[0].options == {}


def test_an_idle_session_without_options_starts_anew_in_silence() -> None:
    clock = Clock()
    sessions = store(clock, idle_s=100)
    _, cookie = sessions.resolve(None, "alice")
    session, _ = sessions.resolve(cookie, "alice")
    clock.now = 101
    assert sessions.resolve(cookie, "alice")[0] is not session


def test_sessions_are_bounded_and_the_longest_unused_goes() -> None:
    sessions = store(count=2)
    cookies = []
    for name in ("a", "b", "c"):
        session, cookie = sessions.resolve(None, "alice")
        session.set_option("schema", name)
        cookies.append(cookie)
        sessions.resolve(cookies[0], "alice")
    assert len(sessions) == 2
    assert sessions.resolve(cookies[0], "alice")[0].options == {"schema": "a"}
    with pytest.raises(StaleHandle):
        sessions.resolve(cookies[1], "alice")


positions = st.dictionaries(
    st.tuples(st.sampled_from(["t", "u"]), st.integers(0, 2)), st.integers(0, 100)
).map(Offsets)


@given(seen=st.lists(positions, max_size=6))
def test_what_a_session_has_seen_never_goes_back(seen: list[Offsets]) -> None:
    """Rule 20: a session carries its greatest E, per partition."""
    session, _ = store().resolve(None, "alice")
    for high in seen:
        before = session.seen().get(TRADES, Offsets())
        session.saw(TRADES, "uuid", high)
        assert session.seen()[TRADES].covers(before)
        assert session.seen()[TRADES].covers(high)


def test_a_table_that_was_dropped_and_made_again_starts_anew() -> None:
    """Rule 20 holds per table, not per name: another uuid is another table."""
    session, _ = store().resolve(None, "alice")
    session.saw(TRADES, "one", Offsets({("t", 0): 100}))
    session.saw(TRADES, "two", Offsets({("t", 0): 5}))
    assert session.seen() == {TRADES: Offsets({("t", 0): 5})}
