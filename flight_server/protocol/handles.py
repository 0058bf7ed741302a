"""Seal and unseal tickets, statement handles and tokens: what the server need not remember.

A sealed handle is::

    version 1 | purpose 1 | key id 4 | id 8 | expiry 8 (µs since the epoch) | n 2 | principal n
    | payload (version 1: zlib, version 2: as it is) | HMAC-SHA256 32 over all that stands before it

It proves that a server with the same key made it, for this principal and this purpose, and that it
has not expired. It is **not** encrypted: whoever holds it can read the payload, which is its
principal's own statement. Any server with the key can open it.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
import struct
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from flight_server.protocol.errors import (
    HandleRefused,
    PermissionDenied,
    ResourceExhausted,
    StaleHandle,
)

_ZLIB, _PLAIN = 1, 2
#: Smaller payloads stay as they are: compressing takes longer than sending them.
_PLAIN_BYTES = 1024
_HEAD = struct.Struct(">BB4s8sQH")
_MAC_BYTES = 32
#: Shortest key accepted: HMAC-SHA256 gains nothing above 32 bytes and is weak far below.
MIN_KEY_BYTES = 16
#: Largest payload before compression: a statement (1 MiB), parameters (1 MiB) and pins.
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
#: Fastest level: handles are short-lived, and level 1 already halves SQL text.
_ZLIB_LEVEL = 1


class Purpose(IntEnum):
    """What a handle is for: one kind is never accepted in place of another."""

    TICKET = 1
    STATEMENT = 2
    TOKEN = 3
    SESSION = 4


_NAMES = {
    Purpose.TICKET: "ticket",
    Purpose.STATEMENT: "statement handle",
    Purpose.TOKEN: "token",
    Purpose.SESSION: "session cookie",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """What an authentic handle holds.

    Attributes:
        id: 8 bytes that no other handle has.
        principal: whom it was made for.
        expires_s: seconds since the epoch after which it is refused.
        payload: what was sealed.
    """

    id: bytes
    principal: str
    expires_s: float
    payload: bytes


class Sealer:
    """Seals with the first key, opens with any (so keys can be rotated). Thread safe: immutable."""

    def __init__(self, keys: Sequence[bytes], *, clock: Callable[[], float] = time.time) -> None:
        if not keys or any(len(key) < MIN_KEY_BYTES for key in keys):
            raise ValueError(f"a ticket key has at least {MIN_KEY_BYTES} bytes")
        self._keys = {hashlib.sha256(b"key id" + key).digest()[:4]: _prepared(key) for key in keys}
        self._newest = next(iter(self._keys))
        self._clock = clock
        # Counted on from a random start: a system call per handle would be one more place at which
        # threads queue up for the interpreter.
        self._ids = itertools.count(int.from_bytes(secrets.token_bytes(8)))

    def seal(
        self,
        purpose: Purpose,
        principal: str,
        payload: bytes,
        life_s: float,
        handle_id: bytes | None = None,
    ) -> bytes:
        """A handle for ``principal`` that lives ``life_s`` seconds; with a new id unless given.

        Raises:
            ResourceExhausted: the payload has more than :data:`MAX_PAYLOAD_BYTES` bytes.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ResourceExhausted(
                f"statement, parameters and pins take {len(payload)} bytes, and a "
                f"{_NAMES[purpose]} holds {MAX_PAYLOAD_BYTES}: send smaller ones"
            )
        name = principal.encode()
        expiry = int((self._clock() + life_s) * 1e6)
        unique = handle_id or (next(self._ids) % 2**64).to_bytes(8)
        version = _PLAIN if len(payload) <= _PLAIN_BYTES else _ZLIB
        content = payload if version == _PLAIN else zlib.compress(payload, _ZLIB_LEVEL)
        head = _HEAD.pack(version, purpose, self._newest, unique, expiry, len(name))
        body = b"".join((head, name, content))
        return body + _mac(self._keys[self._newest], body)

    def unseal(self, purpose: Purpose, sealed: bytes) -> Opened:
        """What ``sealed`` holds, whoever shows it.

        Raises:
            HandleRefused: not sealed with one of the keys, altered, or made for another purpose.
            StaleHandle: expired.
        """
        body, found = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
        refused = HandleRefused(
            f"this {_NAMES[purpose]} was not made by this server: it was altered, or the server "
            "has another server.ticket_key; ask again"
        )
        if len(body) < _HEAD.size:
            raise refused
        version, kind, key_id, handle_id, expiry, size = _HEAD.unpack_from(body)
        key = self._keys.get(key_id)
        if key is None or not hmac.compare_digest(_mac(key, body), found):
            raise refused
        if version not in {_ZLIB, _PLAIN} or kind != purpose:
            raise refused
        if expiry < self._clock() * 1e6:
            raise StaleHandle(f"this {_NAMES[purpose]} has expired; ask again")
        start = _HEAD.size + size
        payload = body[start:] if version == _PLAIN else zlib.decompress(body[start:])
        return Opened(handle_id, body[_HEAD.size : start].decode(), expiry / 1e6, payload)

    def unseal_for(self, purpose: Purpose, sealed: bytes, principal: str) -> Opened:
        """What ``sealed`` holds, if ``principal`` shows it.

        Raises:
            HandleRefused, StaleHandle: as :meth:`unseal`.
            PermissionDenied: it was made for somebody else.
        """
        opened = self.unseal(purpose, sealed)
        if opened.principal != principal:
            raise PermissionDenied(f"this {_NAMES[purpose]} was made for another user")
        return opened


def _prepared(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


def _mac(key: hmac.HMAC, body: bytes) -> bytes:
    # hmac.digest lets go of the interpreter for a microsecond's work, and under load waits long to
    # get it back; a copy of the keyed state does not.
    mac = key.copy()
    mac.update(body)
    return mac.digest()


class Retired:
    """Ids of handles that later ones have replaced, or that were closed or cancelled.

    Bounded: the oldest are forgotten (they expire anyway). One lock; any thread.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, handle_id: bytes) -> None:
        """From now on ``handle_id`` is retired."""
        with self._lock:
            self._ids[handle_id] = None
            self._ids.move_to_end(handle_id)
            if len(self._ids) > self._capacity:
                self._ids.popitem(last=False)

    def remove(self, handle_id: bytes) -> bool:
        """Forget one id; False where it was not there."""
        with self._lock:
            return self._ids.pop(handle_id, b"") is None

    def __len__(self) -> int:
        with self._lock:
            return len(self._ids)

    def __contains__(self, handle_id: bytes | None) -> bool:
        with self._lock:
            return handle_id in self._ids
