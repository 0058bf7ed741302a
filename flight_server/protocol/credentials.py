"""Headers → credentials. What they are worth is an :class:`Authenticator`'s business."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flight_server.protocol.backend import Principal
from flight_server.protocol.errors import Unauthenticated

#: As gRPC delivers them: lower-case names.
Headers = Mapping[str, Sequence[str | bytes]]


@dataclass(frozen=True, slots=True)
class UserPassword:
    """``authorization: Basic``."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BearerToken:
    """``authorization: Bearer``."""

    token: str = field(repr=False)


Credentials = UserPassword | BearerToken


class Authenticator(Protocol):
    """Who is this?"""

    def authenticate(self, credentials: Credentials | None) -> Principal:
        """The principal of ``credentials``; None: none were sent.

        Raises:
            Unauthenticated: they are missing or wrong.
        """


def read_credentials(headers: Headers) -> Credentials | None:
    """The ``authorization`` header.

    ``Bearer None`` and an empty value count as none: flightsql-dbapi sends the former when it was
    given no credentials.

    Raises:
        Unauthenticated: a header that is neither Basic nor Bearer, or no base64.
    """
    found = header(headers, "authorization")
    scheme, _, value = (found or "").strip().partition(" ")
    value = value.strip()
    if not value or (scheme.lower() == "bearer" and value == "None"):
        return None
    if scheme.lower() == "bearer":
        return BearerToken(value)
    if scheme.lower() == "basic":
        return _user_password(value)
    raise Unauthenticated("the authorization header is neither Basic nor Bearer")


def header(headers: Headers, name: str) -> str | None:
    """The first value of a header as text."""
    values = headers.get(name) or ()
    for value in values:
        return value.decode("latin-1") if isinstance(value, bytes) else value
    return None


def cookies(headers: Headers) -> dict[str, str]:
    """The ``cookie`` header(s), by name."""
    found: dict[str, str] = {}
    for line in headers.get("cookie") or ():
        text = line.decode("latin-1") if isinstance(line, bytes) else line
        for pair in text.split(";"):
            name, _, value = pair.strip().partition("=")
            found[name] = value.strip('"')
    return found


def _user_password(encoded: str) -> UserPassword:
    padded = encoded.rstrip("=")
    padded += "=" * (-len(padded) % 4)  # Go's clients send it unpadded
    try:
        text = base64.b64decode(padded, validate=True).decode()
    except ValueError as error:  # bytes that are no ASCII, no base64, no UTF-8
        raise Unauthenticated("the Basic authorization header is not base64 of text") from error
    user, colon, password = text.partition(":")
    if not colon:
        raise Unauthenticated("the Basic authorization header lacks the colon")
    return UserPassword(user, password)
