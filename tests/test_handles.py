"""Sealed handles: what is accepted back, from whom, and until when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_server.protocol.errors import (
    HandleRefused,
    PermissionDenied,
    ResourceExhausted,
    StaleHandle,
)
from flight_server.protocol.handles import MAX_PAYLOAD_BYTES, Purpose, Retired, Sealer

KEY = b"k" * 32
OTHER = b"o" * 32


@given(
    payload=st.binary(max_size=2000),
    principal=st.text(max_size=40),
    purpose=st.sampled_from(Purpose),
)
def test_what_was_sealed_comes_back(payload: bytes, principal: str, purpose: Purpose) -> None:
    sealed = Sealer([KEY]).seal(purpose, principal, payload, 60)
    opened = Sealer([KEY]).unseal_for(purpose, sealed, principal)
    assert (opened.payload, opened.principal) == (payload, principal)


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, flip: int) -> None:
    sealed = bytearray(Sealer([KEY]).seal(Purpose.TICKET, "alice", b"select 1" * 20, 60))
    sealed[position % len(sealed)] ^= flip
    with pytest.raises(HandleRefused):
        Sealer([KEY]).unseal_for(Purpose.TICKET, bytes(sealed), "alice")


@given(junk=st.binary(max_size=200))
def test_random_bytes_are_refused(junk: bytes) -> None:
    with pytest.raises(HandleRefused):
        Sealer([KEY]).unseal(Purpose.TICKET, junk)


def test_every_truncation_is_refused() -> None:
    sealed = Sealer([KEY]).seal(Purpose.TICKET, "alice", b"select 1", 60)
    for size in range(len(sealed)):
        with pytest.raises(HandleRefused):
            Sealer([KEY]).unseal(Purpose.TICKET, sealed[:size])


def test_an_expired_handle_is_stale() -> None:
    now = [1000.0]
    sealer = Sealer([KEY], clock=lambda: now[0])
    sealed = sealer.seal(Purpose.TICKET, "alice", b"x", 60)
    now[0] = 1059.9
    assert sealer.unseal(Purpose.TICKET, sealed).expires_s == 1060.0
    now[0] = 1060.1
    with pytest.raises(StaleHandle, match="expired"):
        sealer.unseal(Purpose.TICKET, sealed)


def test_a_handle_serves_its_principal_only() -> None:
    sealed = Sealer([KEY]).seal(Purpose.TICKET, "alice", b"x", 60)
    with pytest.raises(PermissionDenied):
        Sealer([KEY]).unseal_for(Purpose.TICKET, sealed, "bob")


def test_a_handle_serves_its_purpose_only() -> None:
    """A statement handle is no ticket, whatever it holds."""
    sealed = Sealer([KEY]).seal(Purpose.STATEMENT, "alice", b"x", 60)
    with pytest.raises(HandleRefused):
        Sealer([KEY]).unseal_for(Purpose.TICKET, sealed, "alice")


def test_keys_can_be_rotated() -> None:
    """The first key seals, all of them open; a key that is gone opens nothing."""
    old = Sealer([KEY]).seal(Purpose.TICKET, "alice", b"old", 60)
    both = Sealer([OTHER, KEY])
    new = both.seal(Purpose.TICKET, "alice", b"new", 60)
    assert both.unseal(Purpose.TICKET, old).payload == b"old"
    assert Sealer([OTHER]).unseal(Purpose.TICKET, new).payload == b"new"
    with pytest.raises(HandleRefused):
        Sealer([OTHER]).unseal(Purpose.TICKET, old)


def test_ids_differ_and_can_be_kept() -> None:
    sealer = Sealer([KEY])
    first, second = (sealer.seal(Purpose.TICKET, "a", b"x", 60) for _ in range(2))
    one = sealer.unseal(Purpose.TICKET, first)
    assert one.id != sealer.unseal(Purpose.TICKET, second).id
    again = sealer.seal(Purpose.TICKET, "a", b"x", 60, one.id)
    assert sealer.unseal(Purpose.TICKET, again).id == one.id


def test_a_payload_beyond_the_bound_is_refused_in_words() -> None:
    with pytest.raises(ResourceExhausted, match=str(MAX_PAYLOAD_BYTES)):
        Sealer([KEY]).seal(Purpose.TICKET, "a", bytes(MAX_PAYLOAD_BYTES + 1), 60)


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b""]])
def test_weak_keys_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Sealer(keys)


def test_retired_ids_are_bounded_and_the_oldest_go_first() -> None:
    retired = Retired(capacity=2)
    for handle_id in (b"1", b"2", b"1", b"3"):
        retired.add(handle_id)
    assert [handle_id in retired for handle_id in (b"1", b"2", b"3")] == [True, False, True]
    assert retired.remove(b"1")
    assert not retired.remove(b"1")
