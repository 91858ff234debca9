"""HASH, MAC, HMAC, KDF1 to KDF3 and the AEAD, written so that no intermediate secret outlives its use.

Called by the transcript and the cookies. Every result is a new bytearray that the caller wipes. The `hmac`
module is avoided: it keeps a copy of the key in immutable bytes.
Source: PROTOCOL.md section 2.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wghsm.noise.constants import AUTHTAG_LEN, MAC_LEN
from wghsm.wipe import wipe

__all__ = ["Buffer", "aead_open", "aead_seal", "blake2s", "hmac_blake2s", "kdf1", "kdf2", "kdf3", "mac"]

Buffer = bytes | bytearray | memoryview

_BLOCK = 64
_INNER_PAD = bytes(value ^ 0x36 for value in range(256))
_OUTER_PAD = bytes(value ^ 0x5C for value in range(256))
# Each AEAD key of the handshake seals one message only, so the counter in the nonce is always 0.
_NONCE_ZERO = bytes(12)


def blake2s(*parts: Buffer) -> bytearray:
    """HASH: unkeyed BLAKE2s-256 of the concatenated `parts`, 32 bytes."""
    state = hashlib.blake2s()
    for part in parts:
        state.update(part)
    digest = state.digest()
    taken = bytearray(digest)
    wipe(digest)
    return taken


def mac(key: Buffer, *parts: Buffer) -> bytes:
    """MAC: keyed BLAKE2s, 16 bytes; `key` of 16 bytes (a cookie) or 32."""
    state = hashlib.blake2s(key=key, digest_size=MAC_LEN)
    for part in parts:
        state.update(part)
    return state.digest()


def hmac_blake2s(key: bytearray, *parts: Buffer) -> bytearray:
    """HMAC over BLAKE2s-256, 32 bytes; `key` of 64 bytes at most.

    Raises ValueError for a longer key: WireGuard never has one.
    """
    if len(key) > _BLOCK:
        raise ValueError(f"an HMAC key has at most {_BLOCK} bytes, not {len(key)}")
    block = bytearray(_BLOCK)
    block[: len(key)] = key
    inner_block = block.translate(_INNER_PAD)
    outer_block = block.translate(_OUTER_PAD)
    inner_digest = blake2s(inner_block, *parts)
    result = blake2s(outer_block, inner_digest)
    for secret in (block, inner_block, outer_block, inner_digest):
        wipe(secret)
    return result


def kdf1(chaining_key: bytearray, data: Buffer) -> bytearray:
    """KDF1: one output of 32 bytes from a chaining key of 32 bytes."""
    (first,) = _expand(chaining_key, data, 1)
    return first


def kdf2(chaining_key: bytearray, data: Buffer) -> tuple[bytearray, bytearray]:
    """KDF2: two outputs of 32 bytes from a chaining key of 32 bytes."""
    first, second = _expand(chaining_key, data, 2)
    return first, second


def kdf3(chaining_key: bytearray, data: Buffer) -> tuple[bytearray, bytearray, bytearray]:
    """KDF3: three outputs of 32 bytes from a chaining key of 32 bytes."""
    first, second, third = _expand(chaining_key, data, 3)
    return first, second, third


def aead_seal(key: bytearray, plaintext: Buffer, associated: Buffer) -> bytes:
    """ChaCha20-Poly1305 under counter 0: ciphertext and 16 bytes of tag. `key` of 32 bytes, for this call only."""
    return ChaCha20Poly1305(key).encrypt(_NONCE_ZERO, plaintext, associated)


def aead_open(key: bytearray, ciphertext: Buffer, associated: Buffer) -> bytes | None:
    """Plaintext of what `aead_seal` made, or None if it does not authenticate."""
    if len(ciphertext) < AUTHTAG_LEN:
        return None
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE_ZERO, ciphertext, associated)
    except InvalidTag:
        return None


def _expand(chaining_key: bytearray, data: Buffer, count: int) -> list[bytearray]:
    secret = hmac_blake2s(chaining_key, data)
    outputs: list[bytearray] = []
    previous = bytearray()
    for number in range(1, count + 1):
        previous = hmac_blake2s(secret, previous, bytes((number,)))
        outputs.append(previous)
    wipe(secret)
    return outputs
