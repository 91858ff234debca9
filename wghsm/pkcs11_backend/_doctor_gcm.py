"""The doctor on AES-GCM: a throw-away key, used by the token and by software, or the wrapping key of a gateway.

Used by `_doctor_psk`.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._cryptoki import FunctionList
from wghsm.pkcs11_backend._gcm import gcm_open, gcm_seal
from wghsm.pkcs11_backend._objects import CKA, CKO_SECRET_KEY
from wghsm.pkcs11_backend.errors import TokenFault
from wghsm.pkcs11_backend.pool import TokenPool
from wghsm.pkcs11_backend.wrapping import find_wrap_key
from wghsm.wipe import wipe

__all__ = ["gcm_works", "wrap_key_works"]

_CKK_AES = 0x1F


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


def wrap_key_works(pool: TokenPool, label: str) -> bool:
    """Whether the wrapping key `label` opens what it seals, and nothing else. Raises as `find_wrap_key`."""
    key = find_wrap_key(pool, label)
    plain = bytearray(os.urandom(32))
    opened: list[bytearray | None] = []
    with pool.control() as calls:
        sealed = gcm_seal(pool.functions, calls.session, key.handle, plain, b"doctor", os.urandom(12))
        opened.append(gcm_open(pool.functions, calls.session, key.handle, sealed, b"doctor"))
        # Last: some tokens have only an error of their own for a wrong tag.
        try:
            opened.append(gcm_open(pool.functions, calls.session, key.handle, sealed, b"other!"))
        except TokenFault:
            opened.append(None)
    works = opened[0] == plain and opened[1] is None
    for value in opened:
        wipe(value)
    return works
