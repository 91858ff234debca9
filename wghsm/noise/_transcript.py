"""The running state of one handshake: chaining key C, hash H and the AEAD key between them.

Both roles walk it through the same steps (PROTOCOL.md section 4):

    mix_hash(responder static) - mix_ephemeral - mix_dh - seal/open - mix_dh - seal/open        message 1
    mix_ephemeral - mix_dh - mix_dh - mix_psk - seal/open - split                               message 2
"""

from typing import Self

from wghsm.noise._kdf import Buffer, aead_open, aead_seal, blake2s, kdf1, kdf2, kdf3
from wghsm.noise.constants import CONSTRUCTION, IDENTIFIER, SYMMETRIC_KEY_LEN
from wghsm.noise.curve import is_zero
from wghsm.wipe import wipe

__all__ = ["Transcript"]

_C0 = bytes(blake2s(CONSTRUCTION))
_H0 = bytes(blake2s(_C0, IDENTIFIER))
_ZEROS = bytearray(SYMMETRIC_KEY_LEN)


class Transcript:
    """C, H and a key that is used at most once. Secret; wiped by its owner.

    A secret argument is a bytearray and is taken over: it holds zeros afterwards.
    """

    __slots__ = ("chaining_key", "hash", "key")

    def __init__(self, prologue: bytes = IDENTIFIER) -> None:
        self.chaining_key = bytearray(_C0)
        self.hash = bytearray(_H0) if prologue is IDENTIFIER else blake2s(_C0, prologue)
        self.key: bytearray | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def copy(self) -> Self:
        """A second transcript in the same state, with buffers of its own."""
        twin = type(self).__new__(type(self))
        twin.chaining_key = bytearray(self.chaining_key)
        twin.hash = bytearray(self.hash)
        twin.key = None if self.key is None else bytearray(self.key)
        return twin

    def swap(self, other: "Transcript") -> None:
        """Exchange states with `other`."""
        self.chaining_key, other.chaining_key = other.chaining_key, self.chaining_key
        self.hash, other.hash = other.hash, self.hash
        self.key, other.key = other.key, self.key

    def mix_hash(self, data: Buffer) -> None:
        """H = HASH(H || data)."""
        self._replace_hash(blake2s(self.hash, data))

    def mix_ephemeral(self, public: bytes) -> None:
        """C = KDF1(C, E); H = HASH(H || E), with an ephemeral public key of 32 bytes."""
        self._replace_chaining_key(kdf1(self.chaining_key, public))
        self.mix_hash(public)

    def mix_dh(self, shared: bytearray) -> bool:
        """(C, k) = KDF2(C, shared); False, and nothing mixed, if the 32 bytes are zeros. Takes `shared` over.

        Raises ValueError for another length. Where the protocol says KDF1 the second output simply goes unused.
        """
        try:
            _require_32(shared, "a DH result")
            if is_zero(shared):
                return False
            chaining_key, key = kdf2(self.chaining_key, shared)
        finally:
            wipe(shared)
        self._replace_chaining_key(chaining_key)
        self._replace_key(key)
        return True

    def mix_psk(self, psk: bytearray) -> None:
        """(C, tau, k) = KDF3(C, psk); H = HASH(H || tau). Takes `psk` of 32 bytes over.

        Raises ValueError for another length.
        """
        try:
            _require_32(psk, "a pre-shared key")
            chaining_key, tau, key = kdf3(self.chaining_key, psk)
        finally:
            wipe(psk)
        self._replace_chaining_key(chaining_key)
        self.mix_hash(tau)
        wipe(tau)
        self._replace_key(key)

    def seal(self, plaintext: Buffer) -> bytes:
        """Encrypt under the present key, which is gone then, and mix the ciphertext into H."""
        key = self._take_key()
        try:
            ciphertext = aead_seal(key, plaintext, self.hash)
        finally:
            wipe(key)
        self.mix_hash(ciphertext)
        return ciphertext

    def open(self, ciphertext: bytes) -> bytes | None:
        """Decrypt under the present key, which is gone then, and mix the ciphertext into H; None if it fails."""
        key = self._take_key()
        try:
            plaintext = aead_open(key, ciphertext, self.hash)
        finally:
            wipe(key)
        if plaintext is not None:
            self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytearray, bytearray]:
        """(T1, T2) = KDF2(C, empty), 32 bytes each: initiator to responder, responder to initiator."""
        return kdf2(self.chaining_key, b"")

    def wipe(self) -> None:
        """Overwrite everything with zeros."""
        # Without a call for each: five of these to a handshake.
        self.chaining_key[:] = self.hash[:] = _ZEROS
        if self.key is not None:
            wipe(self.key)
            self.key = None

    def _take_key(self) -> bytearray:
        key, self.key = self.key, None
        if key is None:
            raise RuntimeError("a handshake key is used once")
        return key

    def _replace_chaining_key(self, chaining_key: bytearray) -> None:
        wipe(self.chaining_key)
        self.chaining_key = chaining_key

    def _replace_hash(self, digest: bytearray) -> None:
        wipe(self.hash)
        self.hash = digest

    def _replace_key(self, key: bytearray) -> None:
        wipe(self.key)
        self.key = key


def _require_32(secret: bytearray, what: str) -> None:
    if len(secret) != SYMMETRIC_KEY_LEN:
        raise ValueError(f"{what} has {SYMMETRIC_KEY_LEN} bytes, not {len(secret)}")
