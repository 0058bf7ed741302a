"""Who calls: headers → principal and session, for every RPC, the Handshake included."""

from __future__ import annotations

import base64
import json
from typing import Any  # pyarrow.flight has no types

from pyarrow import flight

from flight_server.protocol.backend import Call, Principal
from flight_server.protocol.boundary import to_carrier
from flight_server.protocol.credentials import (
    Authenticator,
    BearerToken,
    Headers,
    UserPassword,
    cookies,
    read_credentials,
)
from flight_server.protocol.errors import HandleRefused, StaleHandle, Unauthenticated
from flight_server.protocol.handles import Purpose
from flight_server.protocol.statements import Service

#: The middleware's name inside pyarrow.
MIDDLEWARE = "caller"
#: The name that the protocol suggests for the cookie of a session.
SESSION_COOKIE = "arrow_flight_session_id"
#: How long the bearer token lives that a login gets, in seconds.
TOKEN_LIFE_S = 24 * 3600.0


class Caller(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """One RPC's principal and session, and the headers to send back."""

    def __init__(self, call: Call, reply: dict[str, str]) -> None:
        self._call = call
        self._reply = reply

    def call(self, context: Any) -> Call:
        """The headers said everything."""
        del context
        return self._call

    def sending_headers(self) -> dict[str, str]:
        """Once: pyarrow asks twice for GetFlightInfo, and would send everything twice."""
        reply, self._reply = self._reply, {}
        return reply


class CallerFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Reads each RPC's headers."""

    def __init__(self, service: Service, authenticator: Authenticator) -> None:
        self._service = service
        self._authenticator = authenticator

    def start_call(self, info: Any, headers: Headers) -> Caller:
        """Raises to pyarrow by itself: a Handshake has no other frame of ours."""
        del info
        try:
            return self._caller(headers)
        except Exception as error:  # noqa: BLE001 - the boundary
            raise to_carrier(error) from None

    def _caller(self, headers: Headers) -> Caller:
        principal, token = self._authenticate(headers)
        cookie = cookies(headers).get(SESSION_COOKIE)
        session, new_cookie = self._service.sessions.resolve(cookie, principal.name)
        reply = {}
        if token is not None:
            reply["authorization"] = f"Bearer {token}"
        if new_cookie is not None:
            reply["set-cookie"] = f"{SESSION_COOKIE}={new_cookie}"
        return Caller(Call(principal, session), reply)

    def _authenticate(self, headers: Headers) -> tuple[Principal, str | None]:
        """The principal, and the token that a login by password gets."""
        credentials = read_credentials(headers)
        if isinstance(credentials, BearerToken):
            known = self._from_token(credentials.token)
            if known is not None:
                return known, None
        principal = self._authenticator.authenticate(credentials)
        if isinstance(credentials, UserPassword):
            return principal, self._to_token(principal)
        return principal, None

    def _from_token(self, token: str) -> Principal | None:
        """The principal of a token of ours; None where it is somebody else's."""
        try:
            sealed = base64.urlsafe_b64decode(token.encode())
            opened = self._service.sealer.unseal(Purpose.TOKEN, sealed)
        except (HandleRefused, ValueError):
            return None
        except StaleHandle as error:
            raise Unauthenticated("the login has expired; connect again") from error
        return Principal(opened.principal, frozenset(json.loads(opened.payload)))

    def _to_token(self, principal: Principal) -> str:
        roles = json.dumps(sorted(principal.roles)).encode()
        sealer, name = self._service.sealer, principal.name
        return base64.urlsafe_b64encode(
            sealer.seal(Purpose.TOKEN, name, roles, TOKEN_LIFE_S)
        ).decode()


class Certified(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """One RPC of a client whose certificate says who it is; only the RPC's context shows it."""

    def __init__(self, service: Service, headers: Headers) -> None:
        self._service = service
        self._cookie = cookies(headers).get(SESSION_COOKIE)

    def call(self, context: Any) -> Call:
        """The principal is the certificate's first alternative name, else its common name.

        Raises:
            Unauthenticated: it has neither.
        """
        name = context.peer_identity().decode(errors="replace")
        if not name:
            raise Unauthenticated("the client's certificate names nobody")
        session, new_cookie = self._service.sessions.resolve(self._cookie, name)
        if new_cookie is not None:
            context.add_header("set-cookie", f"{SESSION_COOKIE}={new_cookie}")
        return Call(Principal(name), session)


class CertifiedFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Reads each RPC's cookie; credentials in headers count for nothing."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def start_call(self, info: Any, headers: Headers) -> Certified:
        """Refuses nobody: gRPC has checked the certificate."""
        del info
        return Certified(self._service, headers)


class NoHandshake(flight.ServerAuthHandler):  # type: ignore[misc]  # pyarrow has no types
    """Makes Handshake succeed: the headers have been read by then."""

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        """Nothing is exchanged."""

    def is_valid(self, token: bytes) -> bytes:
        """Who calls stands in the middleware."""
        del token
        return b""


def call_of(context: Any) -> Call:
    """The caller of the RPC that ``context`` belongs to."""
    caller: Caller | Certified = context.get_middleware(MIDDLEWARE)
    return caller.call(context)
