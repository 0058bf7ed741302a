"""Who calls, and what they may: authenticators and policies for the kernel's seams."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import argon2

from flight_server.layers import ConfigRefused
from flight_server.protocol.backend import Principal
from flight_server.protocol.credentials import BearerToken, Credentials, UserPassword
from flight_server.protocol.errors import Overloaded, Unauthenticated

#: What every hash starts with, whatever its parameters; no other password does.
_HASH = "$argon2"
#: argon2id with the parameters of RFC 9106, section 4, second choice: 64 MiB, three passes.
_HASHER = argon2.PasswordHasher()
#: Hashes that are computed at a time: each takes 64 MiB and a core for 50 ms, and callers whom
#: nobody knows can ask for them.
_AT_A_TIME = 2
#: Longest wait for one's turn at the hashes, in seconds: waiting logins hold threads.
_TURN_S = 5.0


def hash_password(password: str) -> str:
    """What stands for ``password`` in the settings; another text at each call."""
    return _HASHER.hash(password)


def read_users(path: Path) -> dict[str, str]:
    """User names and hashes of a file with a line ``name:hash`` each; ``#`` starts a comment line.

    Raises:
        ConfigRefused: it cannot be read, or a line is none such; never shows what stands there.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigRefused(f"server.users_file: {path} cannot be read") from error
    users: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        name, _, hashed = (part.strip() for part in line.partition(":"))
        if not name or name in users or not hashed.startswith(_HASH):
            raise ConfigRefused(
                f"server.users_file: line {number} is no name:hash of a new user: k2 hash makes one"
            )
        users[name] = hashed
    return users


class StaticUsers:
    """Names with passwords or their hashes, and names with tokens, all from the configuration.

    Compares in constant time, and against a dummy where the name is unknown. A password that was
    right once is known again by a keyed digest, one per user: the hash is slow on purpose, and
    some clients send the password with every call.

    Invariant (under ``_lock``): ``_right`` holds digests of passwords that their hash has let in.

    Raises:
        ConfigRefused: a hash that is none.
    """

    def __init__(
        self,
        passwords: Mapping[str, str] = MappingProxyType({}),
        tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        hashed = {name: text for name, text in passwords.items() if text.startswith(_HASH)}
        for name, text in hashed.items():
            _require_hash(name, text)
        self._hashes = hashed
        self._passwords = {name: text for name, text in passwords.items() if name not in hashed}
        self._tokens = dict(tokens)
        self._dummy = hash_password(secrets.token_hex()) if hashed else None
        self._turns = threading.BoundedSemaphore(_AT_A_TIME)
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._right: dict[str, bytes] = {}

    def __repr__(self) -> str:
        count = len(self._passwords) + len(self._hashes)
        return f"StaticUsers({count} passwords, {len(self._tokens)} tokens)"

    def authenticate(self, credentials: Credentials | None) -> Principal:
        """The named principal.

        Raises:
            Unauthenticated: none, or wrong ones; does not say which half was wrong.
            Overloaded: too many passwords are being checked against hashes.
        """
        match credentials:
            case UserPassword(user, password):
                if self._is_right(user, password):
                    return Principal(user)
            case BearerToken(token):
                for name, expected in self._tokens.items():
                    if expected and hmac.compare_digest(token.encode(), expected.encode()):
                        return Principal(name)
            case None:
                raise Unauthenticated("credentials are needed: send user and password, or a token")
        raise Unauthenticated("wrong user, password or token")

    def _is_right(self, user: str, password: str) -> bool:
        expected = self._passwords.get(user)
        if expected is not None or self._dummy is None:
            same = hmac.compare_digest(password.encode(), (expected or "").encode())
            return bool(same and expected)
        digest = hmac.digest(self._key, f"{user}\0{password}".encode(), "sha256")
        with self._lock:
            known = self._right.get(user, b"")
        if hmac.compare_digest(digest, known):
            return True
        if not self._turns.acquire(timeout=_TURN_S):
            raise Overloaded("too many logins at once: try again")
        try:
            right = _verify(self._hashes.get(user, self._dummy), password) and user in self._hashes
        finally:
            self._turns.release()
        if right:
            with self._lock:
                self._right[user] = digest
        return right


def _verify(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except argon2.exceptions.VerificationError:
        return False


def _require_hash(name: str, text: str) -> None:
    try:
        _HASHER.verify(text, "")
    except argon2.exceptions.VerifyMismatchError:
        return
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError) as error:
        raise ConfigRefused(
            f"server.users: the hash of {name!r} is none: make it with k2 hash"
        ) from error
