"""The boundary to pyarrow: what is raised to it carries a status and one line of text.

pyarrow turns its own FlightErrors, KeyError, ValueError and NotImplementedError into statuses; of
all but the first it sends the whole traceback too. So there is one class per status, marked, and
the formatting of tracebacks gives nothing for marked ones.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar  # Any: traceback's own signature

from pyarrow import flight

from flight_server.protocol.errors import FlightSqlError, Internal, sent_message, sent_status

T = TypeVar("T")
log = logging.getLogger(__name__)


class _Bare:
    """Marks what is raised to pyarrow without a traceback."""


class _NotFound(KeyError, _Bare):
    """The only way to NOT_FOUND."""

    def __str__(self) -> str:
        return str(self.args[0])


class _InvalidArgument(ValueError, _Bare):
    """The only way to INVALID_ARGUMENT."""


class _Unimplemented(NotImplementedError, _Bare):
    """The only way to UNIMPLEMENTED."""


class _Unknown(RuntimeError, _Bare):
    """UNKNOWN, where no FlightError may be raised."""


_CARRIERS: Mapping[str, type[Exception]] = {
    "NOT_FOUND": _NotFound,
    "INVALID_ARGUMENT": _InvalidArgument,
    "UNIMPLEMENTED": _Unimplemented,
    "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
    "PERMISSION_DENIED": flight.FlightUnauthorizedError,
    "DEADLINE_EXCEEDED": flight.FlightTimedOutError,
    "CANCELLED": flight.FlightCancelledError,
    "UNAVAILABLE": flight.FlightUnavailableError,
    "INTERNAL": flight.FlightInternalError,
    "UNKNOWN": flight.FlightServerError,
}


def to_carrier(error: BaseException, *, bare: bool = False) -> Exception:
    """What pyarrow turns into the status and the text of ``error``.

    Anything but a :class:`FlightSqlError` is a defect of ours: logged with its stack, and sent
    without a word of it.

    Args:
        error: whatever was raised.
        bare: raise no FlightError: pyarrow's GetSchema alone catches none, and would send its
            traceback. What needs one goes as UNKNOWN, its status in front of the text.
    """
    if not isinstance(error, FlightSqlError):
        log.error("unexpected error", exc_info=error)
        error = Internal("the server made a mistake; its log has the details")
    status, text = sent_status(error), sent_message(error)
    if bare and not issubclass(_CARRIERS[status], _Bare):
        return _Unknown(text if text.startswith(error.code) else f"{error.code}: {text}")
    return _CARRIERS[status](text)


def silence_tracebacks() -> None:
    """Let pyarrow, which sends ``traceback.format_exception(…)`` of what is raised, send none."""
    original = traceback.format_exception
    if getattr(original, "k2_silenced", False):
        return

    @wraps(original)
    def format_exception(*args: Any, **kwargs: Any) -> list[str]:
        if any(isinstance(arg, _Bare) for arg in args):
            return []
        return original(*args, **kwargs)

    format_exception.k2_silenced = True  # type: ignore[attr-defined]  # a mark on our own function
    traceback.format_exception = format_exception


def answer(work: Callable[[], T], *, bare: bool = False) -> T:
    """The boundary: the only frame that raises to pyarrow (streams have theirs)."""
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 - an engine's panics are no Exceptions
        raise to_carrier(error, bare=bare) from None
