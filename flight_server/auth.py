"""Who calls, and what they may: authenticators and policies for the kernel's seams."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from types import MappingProxyType

from flight_server.protocol.backend import Principal
from flight_server.protocol.credentials import BearerToken, Credentials, UserPassword
from flight_server.protocol.errors import Unauthenticated


class StaticUsers:
    """Names with passwords, and names with tokens, all from the configuration.

    Compares in constant time, and against a dummy where the name is unknown.
    """

    def __init__(
        self,
        passwords: Mapping[str, str] = MappingProxyType({}),
        tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._passwords = dict(passwords)
        self._tokens = dict(tokens)

    def __repr__(self) -> str:
        return f"StaticUsers({len(self._passwords)} passwords, {len(self._tokens)} tokens)"

    def authenticate(self, credentials: Credentials | None) -> Principal:
        """The named principal.

        Raises:
            Unauthenticated: none, or wrong ones; does not say which half was wrong.
        """
        match credentials:
            case UserPassword(user, password):
                expected = self._passwords.get(user)
                same = hmac.compare_digest(password.encode(), (expected or "").encode())
                if same and expected:
                    return Principal(user)
            case BearerToken(token):
                for name, expected in self._tokens.items():
                    if expected and hmac.compare_digest(token.encode(), expected.encode()):
                        return Principal(name)
            case None:
                raise Unauthenticated("credentials are needed: send user and password, or a token")
        raise Unauthenticated("wrong user, password or token")
