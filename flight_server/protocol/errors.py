"""The error tree of the wire side, and its total mapping to what can be sent.

    FlightSqlError
    ├── InvalidArgument          the request is wrong: another request is needed
    │   ├── SyntaxRefused        the statement does not parse; carries line, column and a caret
    │   ├── MalformedMessage     bytes that are no message of the protocol
    │   └── HandleRefused        a ticket or handle that was not sealed here, or was altered
    ├── NotFound                 no such table, column, session, …; names the nearest ones
    ├── AlreadyExists            the thing to be made is there
    ├── FailedPrecondition       right request, wrong state
    │   └── StaleHandle          a statement handle that a later one has replaced, or an expired one
    ├── Unauthenticated          no credentials, or wrong ones
    ├── PermissionDenied         known caller, not allowed
    ├── Unimplemented            part of the protocol or of SQL that is not offered
    ├── ResourceExhausted        a limit of this server (memory, size, count) was met
    │   └── Overloaded           (retriable) too many statements at this moment
    ├── DeadlineExceeded         the statement ran into its time limit
    ├── Cancelled                the caller, or an operator, cancelled the statement
    ├── Aborted                  (retriable) lost against a concurrent change
    ├── TryAgain                 (retriable) something this server depends on is not there now
    ├── DataLost                 data that an answer needs is gone: never an answer with a hole
    └── Internal                 a defect of the server

Every class fixes ``code`` (a gRPC status name) and ``retriable``. Messages say what, the offending
value and what to do; they never hold a secret, a local path or a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

#: Longest message sent, in UTF-8 bytes: the text travels twice in HTTP/2 trailers, percent-encoded
#: (3 bytes per byte at worst), and clients refuse trailers above 8 to 16 KiB.
MAX_MESSAGE_BYTES = 1024

#: Every gRPC status that an error may name → the status that pyarrow's server can really send.
#: Four of them (and DATA_LOSS, OUT_OF_RANGE) cannot be sent: the nearest goes, and the message
#: starts with the name that was meant.
SENT_AS: Mapping[str, str] = MappingProxyType(
    {
        "INVALID_ARGUMENT": "INVALID_ARGUMENT",
        "NOT_FOUND": "NOT_FOUND",
        "UNIMPLEMENTED": "UNIMPLEMENTED",
        "UNAUTHENTICATED": "UNAUTHENTICATED",
        "PERMISSION_DENIED": "PERMISSION_DENIED",
        "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
        "CANCELLED": "CANCELLED",
        "UNAVAILABLE": "UNAVAILABLE",
        "INTERNAL": "INTERNAL",
        "UNKNOWN": "UNKNOWN",
        "ALREADY_EXISTS": "INVALID_ARGUMENT",
        "FAILED_PRECONDITION": "INVALID_ARGUMENT",
        "OUT_OF_RANGE": "INVALID_ARGUMENT",
        "RESOURCE_EXHAUSTED": "INTERNAL",
        "DATA_LOSS": "INTERNAL",
        "ABORTED": "UNAVAILABLE",
    }
)


class FlightSqlError(Exception):
    """Root of the wire side's errors; only these may reach the server's boundary on purpose."""

    code: ClassVar[str] = "INTERNAL"
    retriable: ClassVar[bool] = False


class InvalidArgument(FlightSqlError):
    """The request is wrong in itself; sending it again changes nothing."""

    code = "INVALID_ARGUMENT"


class SyntaxRefused(InvalidArgument):
    """The statement does not parse; the message carries line, column and a caret line."""


class MalformedMessage(InvalidArgument):
    """Bytes that are no message of the protocol, or an unknown one."""


class HandleRefused(InvalidArgument):
    """A ticket or handle that was not sealed with this server's key, or was altered since."""


class NotFound(FlightSqlError):
    """Something named in the request does not exist; the message names the nearest ones."""

    code = "NOT_FOUND"


class AlreadyExists(FlightSqlError):
    """The thing to be made is there already."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(FlightSqlError):
    """The request is right, the state it needs is not there (parameters unbound, …)."""

    code = "FAILED_PRECONDITION"


class StaleHandle(FailedPrecondition):
    """A statement handle or ticket that has expired, or that a later handle has replaced."""


class Unauthenticated(FlightSqlError):
    """No credentials, or wrong ones. Never says which half was wrong."""

    code = "UNAUTHENTICATED"


class PermissionDenied(FlightSqlError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"


class Unimplemented(FlightSqlError):
    """A part of the protocol or of SQL that is not offered; says what to use instead."""

    code = "UNIMPLEMENTED"


class ResourceExhausted(FlightSqlError):
    """A limit of this server was met; the message names the setting."""

    code = "RESOURCE_EXHAUSTED"


class Overloaded(ResourceExhausted):
    """Too many statements at this moment; the same one may pass later."""

    retriable = True


class DeadlineExceeded(FlightSqlError):
    """The statement ran into its time limit; the message names the setting."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(FlightSqlError):
    """The caller went away or cancelled the statement."""

    code = "CANCELLED"


class Aborted(FlightSqlError):
    """Lost against a concurrent change; the same request may pass when sent again."""

    code = "ABORTED"
    retriable = True


class TryAgain(FlightSqlError):
    """Something that the answer needs is not there at this moment."""

    code = "UNAVAILABLE"
    retriable = True


class DataLost(FlightSqlError):
    """Data that the answer needs is gone; an answer with a hole is never given."""

    code = "DATA_LOSS"


class Internal(FlightSqlError):
    """A defect of the server; its log has the details, the message has none."""


def sent_status(error: FlightSqlError) -> str:
    """The gRPC status that pyarrow can send for ``error``.

    A retriable error whose own status cannot be sent goes as UNAVAILABLE, so that a client's
    retry policy sees what is meant.
    """
    sent = SENT_AS[error.code]
    return "UNAVAILABLE" if error.retriable and sent != error.code else sent


def sent_message(error: FlightSqlError) -> str:
    """The text that goes out: at most :data:`MAX_MESSAGE_BYTES` bytes of UTF-8.

    Starts with the status that was meant where another one has to be sent.
    """
    text = str(error) or type(error).__name__
    if sent_status(error) != error.code:
        text = f"{error.code}: {text}"
    return cut(text, MAX_MESSAGE_BYTES)


def cut(text: str, limit_bytes: int) -> str:
    """``text``, ending in an ellipsis where its UTF-8 form is longer than ``limit_bytes``."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return encoded[: limit_bytes - len("…".encode())].decode(errors="ignore") + "…"
