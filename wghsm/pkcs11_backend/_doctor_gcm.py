"""The doctor on AES-GCM: a throw-away key, used by the token and by software, or the wrapping key of a gateway.

Tokens that choose the initial vector themselves give no check value. So what one of them seals the others must open.

Used by `_doctor_psk`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._cryptoki import FunctionList
from wghsm.pkcs11_backend._gcm import gcm_open, gcm_seal
from wghsm.pkcs11_backend._objects import CKA, CKO_SECRET_KEY
from wghsm.pkcs11_backend.errors import TokenFault
from wghsm.pkcs11_backend.pool import TokenPool
from wghsm.pkcs11_backend.wrapping import WrapKey, find_wrap_key, wrap_message
from wghsm.wipe import wipe

__all__ = ["SealedPsk", "gcm_works", "opens_psk", "opens_sample", "seal_sample"]

_CKK_AES = 0x1F
_SAMPLE = b"wghsm compares wrapping keys now"
_CONTEXT = b"doctor"


@dataclass(frozen=True)
class SealedPsk:
    """A wrapped PSK as its file has it: whose, for which public key and epoch, 60 bytes. Empty: not there."""

    peer: str
    public_key: bytes
    epoch: int
    sealed: bytes


def gcm_works(calls: Calls, functions: FunctionList) -> bool:
    """Whether AES-256-GCM with a throw-away key seals what it opens again, and nothing else. Raises TokenFault."""
    secret = bytearray(os.urandom(32))
    kept = bytes(secret)
    handle = calls.create(
        (
            (CKA["CLASS"], CKO_SECRET_KEY),
            (CKA["KEY_TYPE"], _CKK_AES),
            (CKA["TOKEN"], False),
            (CKA["PRIVATE"], True),
            (CKA["ENCRYPT"], True),
            (CKA["DECRYPT"], True),
            (CKA["VALUE"], secret),
        )
    )
    plain = bytearray(os.urandom(32))
    try:
        sealed = gcm_seal(functions, calls.session, handle, plain, b"doctor", os.urandom(12))
        opened = AESGCM(kept).decrypt(sealed[:12], sealed[12:], b"doctor")
        again = gcm_open(functions, calls.session, handle, sealed, b"doctor")
    except InvalidTag:
        return False
    finally:
        calls.destroy(handle)
    return again is not None and opened == plain == again


def seal_sample(pool: TokenPool, label: str) -> bytes | None:
    """A block that is no secret, sealed with the wrapping key `label`, for its twins to open.

    None where the key does not open what it seals, or opens what is not authentic. Raises as `find_wrap_key`.
    """
    key = find_wrap_key(pool, label)
    with pool.control() as calls:
        sealed = gcm_seal(pool.functions, calls.session, key.handle, bytearray(_SAMPLE), _CONTEXT, os.urandom(12))
    works = _opens(pool, key, sealed, _CONTEXT) and not _opens(pool, key, sealed, b"other!")
    return sealed if works else None


def opens_sample(pool: TokenPool, label: str, sealed: bytes) -> bool:
    """Whether the wrapping key `label` is the one that `sealed` was made with by `seal_sample`."""
    return _opens(pool, find_wrap_key(pool, label), sealed, _CONTEXT)


def opens_psk(pool: TokenPool, label: str, gateways: Sequence[bytes], psk: SealedPsk) -> bool:
    """Whether the wrapping key `label` opens `psk`, sealed for one of the public keys `gateways`."""
    key = find_wrap_key(pool, label)
    for gateway in gateways:
        opened = _opened(pool, key, psk.sealed, wrap_message(gateway, psk.public_key, psk.epoch))
        if opened is not None:
            wipe(opened)
            return True
    return False


def _opens(pool: TokenPool, key: WrapKey, sealed: bytes, context: bytes) -> bool:
    return _opened(pool, key, sealed, context) == bytearray(_SAMPLE)


def _opened(pool: TokenPool, key: WrapKey, sealed: bytes, context: bytes) -> bytearray | None:
    with pool.control() as calls:
        try:
            return gcm_open(pool.functions, calls.session, key.handle, sealed, context)
        except TokenFault:
            # Some tokens have only an error of their own for a wrong tag.
            return None
