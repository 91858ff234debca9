"""XChaCha20-Poly1305 out of the ChaCha20 that `cryptography` has; for cookie replies only (PROTOCOL.md section 2)."""

from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from wghsm.noise.constants import COOKIE_NONCE_LEN

__all__ = ["hchacha20", "xchacha_open", "xchacha_seal"]

_WORDS = Struct("<16I")
_FOUR_WORDS = Struct("<4I")
_EIGHT_WORDS = Struct("<8I")
_SIGMA = _FOUR_WORDS.unpack(b"expand 32-byte k")


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20: 32 bytes from a key of 32 and a nonce of 16.

    One ChaCha20 block is its last state plus its first; HChaCha20 is words 0-3 and 12-15 of the last state alone.
    """
    block = Cipher(ChaCha20(key, nonce), None).encryptor().update(bytes(64))
    a, b, c, d, *_, e, f, g, h = _WORDS.unpack(block)
    n, o, p, q = _FOUR_WORDS.unpack(nonce)
    s, t, u, v = _SIGMA
    words = (a - s, b - t, c - u, d - v, e - n, f - o, g - p, h - q)
    return _EIGHT_WORDS.pack(*[word & 0xFFFFFFFF for word in words])


def xchacha_seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Ciphertext and 16 bytes of tag; `key` of 32 bytes, `nonce` of 24. Raises ValueError for another nonce length."""
    return _cipher(key, nonce).encrypt(_inner_nonce(nonce), plaintext, associated)


def xchacha_open(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
    """Plaintext of what `xchacha_seal` made, or None. Raises ValueError for another nonce length."""
    try:
        return _cipher(key, nonce).decrypt(_inner_nonce(nonce), ciphertext, associated)
    except InvalidTag:
        return None


def _cipher(key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    if len(nonce) != COOKIE_NONCE_LEN:
        raise ValueError(f"an XChaCha20 nonce has {COOKIE_NONCE_LEN} bytes, not {len(nonce)}")
    return ChaCha20Poly1305(hchacha20(key, nonce[:16]))


def _inner_nonce(nonce: bytes) -> bytes:
    return bytes(4) + nonce[16:]
