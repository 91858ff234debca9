"""What a handshake asks of the object that holds the static private key and the pre-shared keys.

The custodian implements `Custody` over a token; `SoftwareCustody` is for tests and tools.
"""

from collections.abc import Mapping
from typing import Protocol

from wghsm.noise.constants import SYMMETRIC_KEY_LEN
from wghsm.noise.curve import exchange, public_key
from wghsm.wipe import wipe

__all__ = ["Custody", "SoftwareCustody"]


class Custody(Protocol):
    """Holder of one identity. Every bytearray that it returns is the caller's own copy; the caller wipes it.

    A token that fails raises its own exception, which passes through the handshake and leaves it as it was.
    """

    @property
    def public_key(self) -> bytes:
        """The static public key, 32 bytes."""

    def dh(self, public: bytes) -> bytearray:
        """X25519 of the static private key with 32 bytes `public`, 32 bytes; zeros are for the caller to refuse."""

    def static_static(self, peer_public: bytes) -> bytearray:
        """X25519 of the static private key with a peer's static public key, 32 bytes; may come from a cache."""

    def preshared_key(self, peer_public: bytes) -> bytearray:
        """The pre-shared key of the peer, 32 bytes, zeros when it has none."""


class SoftwareCustody:
    """A `Custody` with its keys in plain memory. For tests and tools only: a gateway uses a token.

    `private_key` has 32 bytes; `psks` maps a peer's public key to its pre-shared key, 32 bytes each.
    """

    def __init__(self, private_key: bytes | bytearray, psks: Mapping[bytes, bytes] | None = None) -> None:
        self._private_key = bytearray(private_key)
        self._public_key = public_key(self._private_key)
        self._psks = {peer: bytearray(psk) for peer, psk in (psks or {}).items()}

    @property
    def public_key(self) -> bytes:
        """The static public key, 32 bytes."""
        return self._public_key

    def dh(self, public: bytes) -> bytearray:
        """X25519 with 32 bytes `public`, 32 bytes."""
        return exchange(self._private_key, public)

    def static_static(self, peer_public: bytes) -> bytearray:
        """X25519 with a peer's static public key, 32 bytes, computed each time."""
        return exchange(self._private_key, peer_public)

    def preshared_key(self, peer_public: bytes) -> bytearray:
        """Copy of the peer's pre-shared key, 32 bytes, or zeros."""
        return bytearray(self._psks.get(peer_public, bytes(SYMMETRIC_KEY_LEN)))

    def wipe(self) -> None:
        """Overwrite the private key and every pre-shared key with zeros."""
        for secret in (self._private_key, *self._psks.values()):
            wipe(secret)
