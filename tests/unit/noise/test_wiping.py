"""Every buffer that held a secret during a handshake holds zeros when it is over, whatever way it ended.

The memory search of test_memory cannot show this: a freed block is soon written over by chance. So the room's
modules are given a bytearray, a hash and a curve that remember everything they made. The steps in C keep less in
objects of Python; what they have on the stack they clear themselves.
"""

import hashlib
from types import SimpleNamespace
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tests.unit.noise import vectors as v
from wghsm.noise import (
    Initiator,
    Rejected,
    Responder,
    SessionKeys,
    SoftwareCustody,
    _chosen,
    _kdf,
    _native,
    _steps,
    _transcript,
    curve,
    custody,
)

made: list[bytes | bytearray] = []


class Recorded(bytearray):
    """A bytearray that is remembered, and so are its translations."""

    def __new__(cls, *_: Any) -> Self:
        new = super().__new__(cls)
        made.append(new)
        return new

    def translate(self, table: Any, /, delete: Any = b"") -> "Recorded":
        return Recorded(super().translate(table, delete))


class RecordedHash:
    """BLAKE2s whose digests are remembered."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._state = hashlib.blake2s(*args, **options)
        self.update = self._state.update

    def digest(self) -> bytes:
        digest = self._state.digest()
        made.append(digest)
        return digest


class RecordedCurve:
    """An X25519 private key whose results are remembered."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key

    @classmethod
    def from_private_bytes(cls, data: bytes | bytearray) -> Self:
        return cls(X25519PrivateKey.from_private_bytes(data))

    def exchange(self, peer: X25519PublicKey) -> bytes:
        result = self._key.exchange(peer)
        made.append(result)
        return result


@pytest.fixture(autouse=True, params=["c", "python"])
def least(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Record what is made from now on; gives how many buffers even half a handshake makes."""
    in_c = request.param == "c"
    made.clear()
    monkeypatch.setattr(_chosen, "steps", _native if in_c else _steps)
    for module in (_kdf, _transcript, curve, custody):
        monkeypatch.setattr(module, "bytearray", Recorded, raising=False)
    monkeypatch.setattr(_kdf, "hashlib", SimpleNamespace(blake2s=RecordedHash))
    monkeypatch.setattr(curve, "X25519PrivateKey", RecordedCurve)
    return 25 if in_c else 150


def remaining() -> int:
    """How many remembered buffers are not all zeros."""
    return sum(any(buffer) for buffer in made)


def pair() -> tuple[SoftwareCustody, SoftwareCustody]:
    return SoftwareCustody(v.S_I, {v.PUBLIC_S_R: v.PSK}), SoftwareCustody(v.S_R, {v.PUBLIC_S_I: v.PSK})


def test_a_whole_handshake_leaves_zeros(least: int) -> None:
    ours, theirs = pair()
    initiator, responder = Initiator(ours, v.PUBLIC_S_R), Responder(theirs)
    fields = initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP)
    assert not isinstance(fields, Rejected)
    responder.read_static(fields.ephemeral, fields.static)
    responder.read_timestamp(fields.timestamp)
    response = responder.write_response(bytearray(v.E_R))
    assert not isinstance(response, Rejected)
    their_keys = responder.session_keys()
    our_keys = initiator.read_response(response.ephemeral, response.empty)
    assert isinstance(our_keys, SessionKeys)
    ours.wipe()
    theirs.wipe()
    assert len(made) > least
    # The session keys, where Python made them.
    assert remaining() in {0, 4}
    our_keys.wipe()
    their_keys.wipe()
    assert remaining() == 0


def test_refusals_leave_zeros(least: int) -> None:
    ours, theirs = pair()
    with Initiator(ours, v.PUBLIC_S_R) as initiator, Responder(theirs) as responder:
        fields = initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP)
        assert not isinstance(fields, Rejected)
        assert isinstance(responder.read_static(bytes(32), fields.static), Rejected)
        assert isinstance(responder.read_static(fields.ephemeral, bytes(48)), Rejected)
        responder.read_static(fields.ephemeral, fields.static)
        assert isinstance(responder.read_timestamp(bytes(28)), Rejected)
        assert isinstance(initiator.read_response(v.PUBLIC_E_R, bytes(16)), Rejected)
        assert isinstance(initiator.read_response(bytes(32), bytes(16)), Rejected)
    ours.wipe()
    theirs.wipe()
    assert len(made) > least
    assert remaining() == 0


def test_a_failing_token_leaves_zeros(least: int) -> None:
    class Failing(SoftwareCustody):
        def preshared_key(self, peer_public: bytes) -> bytearray:
            raise RuntimeError(peer_public.hex())

    ours, theirs = Failing(v.S_I), Failing(v.S_R)
    with Initiator(ours, v.PUBLIC_S_R) as initiator, Responder(theirs) as responder:
        fields = initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP)
        assert not isinstance(fields, Rejected)
        responder.read_static(fields.ephemeral, fields.static)
        responder.read_timestamp(fields.timestamp)
        with pytest.raises(RuntimeError):
            responder.write_response(bytearray(v.E_R))
        with pytest.raises(RuntimeError):
            initiator.read_response(v.PUBLIC_E_R, bytes(16))
    ours.wipe()
    theirs.wipe()
    assert len(made) > least
    assert remaining() == 0
