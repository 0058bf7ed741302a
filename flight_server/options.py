"""The options of a session: their names, which values they take, and what is in force."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from zoneinfo import available_timezones

from flight_server import protocol
from flight_server.plans import Options
from flight_server.protocol.backend import COMPRESSIONS
from flight_server.protocol.errors import InvalidArgument, NotFound, cut
from flight_server.protocol.messages import OptionValue

#: More streams than this from one client gain nothing: each of them takes a slot.
MAX_ENDPOINTS = 64
#: The value that stands for none.
_NO_COMPRESSION = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the backend needs to know.

    Attributes:
        catalog: the one catalog's name in SQL.
        options: what a session starts with.
        statement_timeout_s: the server's own limit, told in GetSqlInfo.
        session_wait_s: how long a statement waits for a table to get as far as its session has
            seen (rule 20), before it answers NotReady.
    """

    catalog: str = "lake"
    options: Options = Options()  # noqa: RUF009 - frozen
    statement_timeout_s: float = 300.0
    session_wait_s: float = 5.0


def check_option(settings: Settings, name: str, value: OptionValue) -> OptionValue:
    """The value to store; text is taken for every option.

    Raises:
        NotFound: no such option; names the nearest.
        InvalidArgument: not a value for it.
    """
    check = _OPTIONS.get(name)
    if check is None:
        raise unknown_option(name)
    return None if value is None else check(settings, value)


def unknown_option(name: str) -> NotFound:
    """The error for a name that is none of the options."""
    near = difflib.get_close_matches(name.lower(), _OPTIONS, n=3, cutoff=0.5) or sorted(_OPTIONS)
    return NotFound(f"there is no session option {cut(name, 200)!r}: did you mean {_either(near)}?")


def options_in_force(settings: Settings, session: protocol.Session) -> Mapping[str, OptionValue]:
    """The session's options over the defaults."""
    options = engine_options(settings, session)
    return {
        "catalog": settings.catalog,
        "schema": options.schema,
        "time_zone": options.time_zone,
        "statement_timeout": options.timeout_s or settings.statement_timeout_s,
        "endpoints": options.endpoints,
        "compression": session.options.get("compression", _NO_COMPRESSION),
    }


def engine_options(settings: Settings, session: protocol.Session) -> Options:
    """Those that the engine asks for."""
    found = session.options
    changes: dict[str, object] = {}
    for option, attribute in _ATTRIBUTES.items():
        if option in found:
            changes[attribute] = found[option]
    return replace(settings.options, **changes)  # type: ignore[arg-type]  # check_option saw to the types


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _catalog(settings: Settings, value: OptionValue) -> OptionValue:
    if value != settings.catalog:
        raise InvalidArgument(f"the only catalog is {settings.catalog!r}")
    return value


def _schema(_settings: Settings, value: OptionValue) -> OptionValue:
    if not isinstance(value, str) or not value:
        raise InvalidArgument("schema is the name of a namespace")
    return value


def _time_zone(_settings: Settings, value: OptionValue) -> OptionValue:
    if not isinstance(value, str) or (value != "UTC" and value not in available_timezones()):
        raise InvalidArgument("time_zone is a name such as UTC or Europe/Berlin")
    return value


def _timeout(settings: Settings, value: OptionValue) -> OptionValue:
    """Seconds, as a number or its text."""
    try:
        seconds = float(value)  # type: ignore[arg-type]  # a list is refused below
    except (TypeError, ValueError):
        seconds = 0.0
    if isinstance(value, bool) or not 0 < seconds <= settings.statement_timeout_s:
        raise InvalidArgument(
            f"statement_timeout is a number of seconds up to {settings.statement_timeout_s:g}"
        )
    return seconds


def _endpoints(_settings: Settings, value: OptionValue) -> OptionValue:
    """A whole number, or its text."""
    try:
        count = int(value)  # type: ignore[arg-type]  # a list is refused below
    except (TypeError, ValueError, OverflowError):
        count = 0
    if isinstance(value, (bool, float)) or not 1 <= count <= MAX_ENDPOINTS:
        raise InvalidArgument(f"endpoints is a whole number from 1 to {MAX_ENDPOINTS}")
    return count


def _compression(_settings: Settings, value: OptionValue) -> OptionValue:
    if value not in COMPRESSIONS and value != _NO_COMPRESSION:
        known = ", ".join((*COMPRESSIONS, _NO_COMPRESSION))
        raise InvalidArgument(f"compression is one of {known}")
    return None if value == _NO_COMPRESSION else value


_OPTIONS: Mapping[str, Callable[[Settings, OptionValue], OptionValue]] = {
    "catalog": _catalog,
    "schema": _schema,
    "time_zone": _time_zone,
    "statement_timeout": _timeout,
    "endpoints": _endpoints,
    "compression": _compression,
}
#: Session option → attribute of the engine's Options.
_ATTRIBUTES = {
    "schema": "schema",
    "time_zone": "time_zone",
    "statement_timeout": "timeout_s",
    "endpoints": "endpoints",
}
