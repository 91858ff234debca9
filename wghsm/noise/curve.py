"""X25519 in software for ephemeral keys, and the points that no key of ours may ever meet.

Called by the handshakes for their ephemerals and by the custodian, which asks `is_low_order` before the token
sees a point that a stranger sent (PROTOCOL.md sections 2 and 4).
"""

import hmac
from typing import Final

# Loaded now: a process that has given up root may not be able to read the code any more, and `from_private_bytes`
# imports this on first use.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from wghsm.noise.constants import PUBLIC_KEY_LEN
from wghsm.wipe import wipe

__all__ = ["LOW_ORDER_POINTS", "Ephemeral", "exchange", "is_low_order", "is_zero", "public_key"]

_ZERO: Final = bytes(PUBLIC_KEY_LEN)

LOW_ORDER_POINTS: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""u-coordinates that give an all-zero result with every key; the top bit, which X25519 ignores, is clear."""


def is_low_order(public: bytes) -> bool:
    """Whether every X25519 with the 32 bytes `public` gives zeros. A public value: not constant time."""
    return public[:-1] + bytes((public[-1] & 0x7F,)) in LOW_ORDER_POINTS


def is_zero(shared: bytearray) -> bool:
    """Whether the 32 bytes of a DH result are all zeros, in constant time."""
    return hmac.compare_digest(shared, _ZERO)


def public_key(private: bytes | bytearray) -> bytes:
    """Public key, 32 bytes, of the 32 bytes `private` (clamped on use)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def exchange(private: bytes | bytearray, public: bytes) -> bytearray:
    """X25519 result, 32 bytes, for the caller to wipe; all zeros for a point of low order.

    `private` has 32 bytes and is clamped on use; `public` has 32 bytes. Raises ValueError for another length.
    """
    return Ephemeral(private).exchange(public)


class Ephemeral:
    """A private key loaded for more than one use: loading costs as much as a DH. OpenSSL clears its copy at the end."""

    __slots__ = ("_key",)

    def __init__(self, private: bytes | bytearray) -> None:
        """Load 32 bytes, which stay the caller's. Raises ValueError for another length."""
        self._key = X25519PrivateKey.from_private_bytes(private)

    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytearray:
        """As the function `exchange`."""
        theirs = X25519PublicKey.from_public_bytes(public)
        if is_low_order(public):
            return bytearray(PUBLIC_KEY_LEN)
        result = self._key.exchange(theirs)
        shared = bytearray(result)
        wipe(result)
        return shared
