"""Properties of the handshake: agreement, refusal without effect, order, wiping."""

from dataclasses import astuple
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.noise import vectors as v
from wghsm.noise import (
    InitiationFields,
    Initiator,
    OutOfOrderError,
    Reason,
    Rejected,
    Responder,
    ResponseFields,
    SessionKeys,
    SoftwareCustody,
)
from wghsm.noise._handshake import Stage
from wghsm.noise.curve import LOW_ORDER_POINTS, public_key

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("twin")

octets32 = st.binary(min_size=32, max_size=32)
LOW_ORDER = sorted(LOW_ORDER_POINTS)


class Pair:
    """Two identities that know each other."""

    def __init__(
        self, s_i: bytes = v.S_I, s_r: bytes = v.S_R, psk_i: bytes | None = None, psk_r: bytes | None = None
    ) -> None:
        self.public_i, self.public_r = public_key(s_i), public_key(s_r)
        self.custody_i = SoftwareCustody(s_i, {self.public_r: psk_i} if psk_i else None)
        self.custody_r = SoftwareCustody(s_r, {self.public_i: psk_r} if psk_r else None)
        self.initiator = Initiator(self.custody_i, self.public_r)
        self.responder = Responder(self.custody_r)

    def initiation(self, e_i: bytes = v.E_I, timestamp: bytes = v.TIMESTAMP) -> InitiationFields:
        fields = self.initiator.write_initiation(bytearray(e_i), timestamp)
        assert not isinstance(fields, Rejected)
        return fields

    def consume(self, fields: InitiationFields) -> None:
        assert self.responder.read_static(fields.ephemeral, fields.static) == self.public_i
        assert isinstance(self.responder.read_timestamp(fields.timestamp), bytes)

    def response(self, e_r: bytes = v.E_R) -> ResponseFields:
        self.consume(self.initiation())
        fields = self.responder.write_response(bytearray(e_r))
        assert not isinstance(fields, Rejected)
        return fields


def flips(data: bytes) -> list[bytes]:
    """`data` with each of its bits flipped in turn."""
    number = int.from_bytes(data, "big")
    return [(number ^ (1 << bit)).to_bytes(len(data), "big") for bit in range(len(data) * 8)]


def flip(data: bytes, draw: st.DataObject) -> bytes:
    return draw.draw(st.sampled_from(flips(data)))


@given(octets32, octets32, octets32, octets32, st.one_of(st.none(), octets32), st.binary(min_size=12, max_size=12))
def test_both_roles_agree(s_i: bytes, s_r: bytes, e_i: bytes, e_r: bytes, psk: bytes | None, timestamp: bytes) -> None:
    pair = Pair(s_i, s_r, psk, psk)
    fields = pair.initiation(e_i, timestamp)
    assert [len(field) for field in astuple(fields)] == [32, 48, 28]
    assert pair.responder.read_static(fields.ephemeral, fields.static) == pair.public_i
    assert pair.responder.read_timestamp(fields.timestamp) == timestamp
    response = pair.responder.write_response(bytearray(e_r))
    assert not isinstance(response, Rejected)
    assert [len(field) for field in astuple(response)] == [32, 16]
    theirs = pair.responder.session_keys()
    ours = pair.initiator.read_response(response.ephemeral, response.empty)
    assert isinstance(ours, SessionKeys)
    assert ours.send == theirs.receive
    assert ours.receive == theirs.send
    assert ours.send != ours.receive
    assert len(ours.send) == len(ours.receive) == 32


@given(octets32, octets32)
def test_another_psk_is_refused(psk_i: bytes, psk_r: bytes) -> None:
    pair = Pair(psk_i=psk_i, psk_r=psk_r)
    response = pair.response()
    answer = pair.initiator.read_response(response.ephemeral, response.empty)
    if psk_i == psk_r:
        assert isinstance(answer, SessionKeys)
    else:
        assert answer == Rejected(Reason.AUTHENTICATION)


def test_zeros_are_no_psk() -> None:
    pair = Pair(psk_i=bytes(32))
    response = pair.response()
    assert isinstance(pair.initiator.read_response(response.ephemeral, response.empty), SessionKeys)


def test_another_responder_learns_nothing() -> None:
    fields = Pair().initiation()
    stranger = Responder(SoftwareCustody(b"\x44" * 32))
    assert stranger.read_static(fields.ephemeral, fields.static) == Rejected(Reason.AUTHENTICATION)


# Bit 255 of a public key is ignored by X25519, but it is part of the transcript.
@settings(max_examples=300)
@given(st.data())
def test_any_flipped_bit_of_an_initiation_is_refused_and_the_right_one_still_passes(data: st.DataObject) -> None:
    pair = Pair()
    good = pair.initiation()
    which = data.draw(st.sampled_from(["ephemeral", "static", "timestamp"]))
    if which == "ephemeral":
        answer = pair.responder.read_static(flip(good.ephemeral, data), good.static)
        assert isinstance(answer, Rejected)
    if which == "static":
        answer = pair.responder.read_static(good.ephemeral, flip(good.static, data))
        assert answer == Rejected(Reason.AUTHENTICATION)
    assert pair.responder.read_static(good.ephemeral, good.static) == pair.public_i
    if which == "timestamp":
        answer = pair.responder.read_timestamp(flip(good.timestamp, data))
        assert answer == Rejected(Reason.AUTHENTICATION)
    assert pair.responder.read_timestamp(good.timestamp) == v.TIMESTAMP
    response = pair.responder.write_response(bytearray(v.E_R))
    assert not isinstance(response, Rejected)
    assert isinstance(pair.initiator.read_response(response.ephemeral, response.empty), SessionKeys)


def test_every_flipped_bit_of_a_response_is_refused_and_the_right_one_still_passes() -> None:
    pair = Pair(psk_i=v.PSK, psk_r=v.PSK)
    good = pair.response()
    for ephemeral in flips(good.ephemeral):
        assert isinstance(pair.initiator.read_response(ephemeral, good.empty), Rejected)
    for empty in flips(good.empty):
        assert pair.initiator.read_response(good.ephemeral, empty) == Rejected(Reason.AUTHENTICATION)
    keys = pair.initiator.read_response(good.ephemeral, good.empty)
    assert isinstance(keys, SessionKeys)
    assert keys.send == pair.responder.session_keys().receive


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=40), st.binary(max_size=20))
def test_any_bytes_get_an_answer(first: bytes, second: bytes, third: bytes, fourth: bytes) -> None:
    pair = Pair()
    assert isinstance(pair.responder.read_static(first, second), Rejected)
    pair.responder.read_static(*astuple(pair.initiation())[:2])
    assert isinstance(pair.responder.read_timestamp(third), Rejected)
    assert isinstance(pair.initiator.read_response(first, fourth), Rejected)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_fields_of_a_wrong_length_are_refused_as_such(length: int) -> None:
    pair = Pair()
    good = pair.initiation()
    refused = Rejected(Reason.LENGTH)
    assert pair.responder.read_static(bytes(length), good.static) == refused
    assert pair.responder.read_static(good.ephemeral, bytes(length)) == refused
    pair.responder.read_static(good.ephemeral, good.static)
    assert pair.responder.read_timestamp(bytes(length)) == refused
    assert pair.initiator.read_response(bytes(length), bytes(16)) == refused
    assert pair.initiator.read_response(public_key(v.E_R), bytes(length)) == refused


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_low_order_ephemeral_is_refused_in_both_roles(point: bytes) -> None:
    pair = Pair()
    good = pair.initiation()
    assert pair.responder.read_static(point, good.static) == Rejected(Reason.ZERO_DH)
    assert pair.initiator.read_response(point, bytes(16)) == Rejected(Reason.ZERO_DH)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_low_order_static_key_is_refused_in_both_roles(point: bytes) -> None:
    assert Initiator(SoftwareCustody(v.S_I), point).write_initiation(bytearray(v.E_I), v.TIMESTAMP) == Rejected(
        Reason.ZERO_DH
    )

    # An initiator that claims the point as its own static key gets as far as the second DH.
    class Claiming(SoftwareCustody):
        @property
        def public_key(self) -> bytes:
            return point

    responder = Responder(SoftwareCustody(v.S_R))
    fields = Initiator(Claiming(v.S_I), v.PUBLIC_S_R).write_initiation(bytearray(v.E_I), v.TIMESTAMP)
    assert not isinstance(fields, Rejected)
    assert responder.read_static(fields.ephemeral, fields.static) == point
    assert responder.read_timestamp(fields.timestamp) == Rejected(Reason.ZERO_DH)


class ZeroCustody(SoftwareCustody):
    """A token that does not notice that a result is zero."""

    zero_live = True

    def dh(self, public: bytes) -> bytearray:
        return bytearray(32) if self.zero_live else super().dh(public)

    def static_static(self, peer_public: bytes) -> bytearray:
        return super().static_static(peer_public) if self.zero_live else bytearray(32)


def test_zeros_from_a_token_are_refused_in_both_roles() -> None:
    pair = Pair()
    good = pair.initiation()
    refused = Rejected(Reason.ZERO_DH)
    custody = ZeroCustody(v.S_R)
    responder = Responder(custody)
    assert responder.read_static(good.ephemeral, good.static) == refused
    custody.zero_live = False
    assert responder.read_static(good.ephemeral, good.static) == pair.public_i
    assert responder.read_timestamp(good.timestamp) == refused

    custody = ZeroCustody(v.S_I)
    initiator = Initiator(custody, pair.public_r)
    assert not isinstance(initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP), Rejected)
    response = Pair().response()
    assert initiator.read_response(response.ephemeral, response.empty) == refused
    custody.zero_live = False
    assert isinstance(initiator.read_response(response.ephemeral, response.empty), SessionKeys)
    assert Initiator(custody, pair.public_r).write_initiation(bytearray(v.E_I), v.TIMESTAMP) == refused


class TokenGoneError(Exception):
    """What a custody raises when its token fails."""


class FailingCustody(SoftwareCustody):
    """A token that fails at the named operation until it is mended."""

    failing: str | None = None

    def _fail(self, operation: str) -> None:
        if self.failing == operation:
            raise TokenGoneError

    def dh(self, public: bytes) -> bytearray:
        self._fail("dh")
        return super().dh(public)

    def static_static(self, peer_public: bytes) -> bytearray:
        self._fail("static_static")
        return super().static_static(peer_public)

    def preshared_key(self, peer_public: bytes) -> bytearray:
        self._fail("preshared_key")
        return super().preshared_key(peer_public)


def test_a_failing_token_changes_nothing_for_the_responder() -> None:
    pair = Pair()
    good = pair.initiation()
    custody = FailingCustody(v.S_R)
    responder = Responder(custody)
    ephemeral = bytearray(v.E_R)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("dh", lambda: responder.read_static(good.ephemeral, good.static)),
        ("static_static", lambda: responder.read_timestamp(good.timestamp)),
        ("preshared_key", lambda: responder.write_response(ephemeral)),
    ]
    for operation, step in steps:
        custody.failing = operation
        with pytest.raises(TokenGoneError):
            step()
        custody.failing = None
        if operation == "preshared_key":
            assert ephemeral == bytes(32)
            ephemeral[:] = v.E_R
        assert not isinstance(step(), Rejected)


@pytest.mark.parametrize("operation", ["dh", "preshared_key"])
def test_a_failing_token_changes_nothing_for_the_initiator(operation: str) -> None:
    custody = FailingCustody(v.S_I)
    initiator = Initiator(custody, v.PUBLIC_S_R)
    custody.failing = "static_static"
    ephemeral = bytearray(v.E_I)
    with pytest.raises(TokenGoneError):
        initiator.write_initiation(ephemeral, v.TIMESTAMP)
    assert ephemeral == bytes(32)
    custody.failing = None
    assert not isinstance(initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP), Rejected)
    response = Pair().response()
    custody.failing = operation
    with pytest.raises(TokenGoneError):
        initiator.read_response(response.ephemeral, response.empty)
    custody.failing = None
    assert isinstance(initiator.read_response(response.ephemeral, response.empty), SessionKeys)


class ShortCustody(SoftwareCustody):
    """A token that gives 31 bytes."""

    def dh(self, public: bytes) -> bytearray:
        return super().dh(public)[:31]

    def preshared_key(self, peer_public: bytes) -> bytearray:
        return super().preshared_key(peer_public)[:31]


def test_a_custody_that_gives_wrong_lengths_is_a_fault() -> None:
    pair = Pair()
    good = pair.initiation()
    with pytest.raises(ValueError, match="32 bytes"):
        Responder(ShortCustody(v.S_R)).read_static(good.ephemeral, good.static)
    pair.consume(good)
    pair.responder._custody = ShortCustody(v.S_R)
    with pytest.raises(ValueError, match="32 bytes"):
        pair.responder.write_response(bytearray(v.E_R))


class SupersedingCustody(SoftwareCustody):
    """While the token works, somebody wipes the handshake."""

    victim: Initiator | Responder | None = None

    def dh(self, public: bytes) -> bytearray:
        if self.victim is not None:
            self.victim.wipe()
        return super().dh(public)


def test_a_handshake_wiped_while_the_token_works_stays_wiped() -> None:
    custody = SupersedingCustody(v.S_I)
    initiator = Initiator(custody, v.PUBLIC_S_R)
    initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP)
    response = Pair().response()
    custody.victim = initiator
    assert initiator.read_response(response.ephemeral, response.empty) == Rejected(Reason.SUPERSEDED)
    assert_wiped(initiator)

    good = Pair().initiation()
    custody = SupersedingCustody(v.S_R)
    custody.victim = responder = Responder(custody)
    assert responder.read_static(good.ephemeral, good.static) == Rejected(Reason.SUPERSEDED)
    assert_wiped(responder)


def assert_wiped(handshake: Initiator | Responder) -> None:
    assert handshake._stage is Stage.ZEROED
    transcript = handshake._transcript
    assert transcript.chaining_key == transcript.hash == bytes(32)
    assert transcript.key is None
    if isinstance(handshake, Initiator):
        assert not any(handshake._ephemeral_private)


def test_wiping_leaves_zeros() -> None:
    for wipe_after in range(4):
        pair = Pair(psk_i=v.PSK, psk_r=v.PSK)
        e_i, e_r = bytearray(v.E_I), bytearray(v.E_R)
        buffers = [pair.initiator._transcript.chaining_key, pair.responder._transcript.chaining_key]
        fields = pair.initiator.write_initiation(e_i, v.TIMESTAMP)
        assert not isinstance(fields, Rejected)
        assert e_i == v.E_I
        if wipe_after > 0:
            pair.responder.read_static(fields.ephemeral, fields.static)
        if wipe_after > 1:
            pair.responder.read_timestamp(fields.timestamp)
        if wipe_after > 2:
            pair.responder.write_response(e_r)
            assert e_r == bytes(32)
        buffers += [
            e_i,
            pair.initiator._transcript.chaining_key,
            pair.initiator._transcript.hash,
            pair.responder._transcript.chaining_key,
            pair.responder._transcript.hash,
        ]
        pair.initiator.wipe()
        pair.initiator.wipe()
        with pair.responder:
            pass
        assert_wiped(pair.initiator)
        assert_wiped(pair.responder)
        assert not any(any(buffer) for buffer in buffers)


def test_a_finished_handshake_is_wiped_and_its_keys_are_the_callers() -> None:
    pair = Pair()
    response = pair.response()
    secret = pair.responder._transcript.chaining_key
    keys = pair.responder.session_keys()
    assert_wiped(pair.responder)
    assert not any(secret)
    ours = pair.initiator.read_response(response.ephemeral, response.empty)
    assert isinstance(ours, SessionKeys)
    assert_wiped(pair.initiator)
    assert any(keys.send)
    with keys:
        assert keys.send == ours.receive
    assert keys.send == keys.receive == bytes(32)
    ours.wipe()
    assert ours.send == ours.receive == bytes(32)


def test_a_custody_is_wiped() -> None:
    custody = SoftwareCustody(v.S_I, {v.PUBLIC_S_R: v.PSK})
    secrets = [custody._private_key, *custody._psks.values()]
    copy = custody.preshared_key(v.PUBLIC_S_R)
    custody.wipe()
    assert not any(any(secret) for secret in secrets)
    assert copy == v.PSK


def test_secrets_are_in_no_repr() -> None:
    pair = Pair(psk_i=v.PSK, psk_r=v.PSK)
    pair.response()
    keys = pair.responder.session_keys()
    assert repr(keys) == "SessionKeys(redacted)"
    text = repr((pair.initiator, pair.responder, pair.custody_i, pair.initiator._transcript, keys))
    for secret in (v.S_I, v.S_R, v.E_I, v.PSK, keys.send, keys.receive):
        assert secret.hex() not in text
        assert repr(bytes(secret))[2:-1] not in text


def test_methods_out_of_order_are_faults() -> None:
    pair = Pair()
    e = bytearray(v.E_R)
    good = pair.initiation()
    calls: dict[str, Callable[[], object]] = {
        "read_static": lambda: pair.responder.read_static(good.ephemeral, good.static),
        "read_timestamp": lambda: pair.responder.read_timestamp(good.timestamp),
        "write_response": lambda: pair.responder.write_response(e),
        "session_keys": lambda: pair.responder.session_keys(),
    }
    order = list(calls)
    for due in [*order, None]:
        for method, call in calls.items():
            if method != due:
                with pytest.raises(OutOfOrderError, match=method):
                    call()
        if due is not None:
            assert not isinstance(calls[due](), Rejected)
        if due in {"read_static", "read_timestamp"}:
            assert e == v.E_R

    initiator = Initiator(pair.custody_i, pair.public_r)
    with pytest.raises(OutOfOrderError, match="read_response"):
        initiator.read_response(bytes(32), bytes(16))
    initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP)
    with pytest.raises(OutOfOrderError, match="write_initiation"):
        initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP)
    initiator.wipe()
    with pytest.raises(OutOfOrderError, match="read_response"):
        initiator.read_response(bytes(32), bytes(16))


def test_own_values_of_a_wrong_length_are_faults() -> None:
    custody = SoftwareCustody(v.S_I)
    with pytest.raises(ValueError, match="public key"):
        Initiator(custody, bytes(31))
    ephemeral = bytearray(v.E_I)
    with pytest.raises(ValueError, match="timestamp"):
        Initiator(custody, v.PUBLIC_S_R).write_initiation(ephemeral, bytes(11))
    assert ephemeral == bytes(32)
    with pytest.raises(ValueError, match="32 bytes"):
        Initiator(custody, v.PUBLIC_S_R).write_initiation(bytearray(31), v.TIMESTAMP)
