"""What a token does when it is asked in other ways than `_calls` asks: why a derive fails, and what it does with zeros.

Used by `doctor`. Only session objects are made, and they are destroyed again; nothing secret is read into Python but
results of throw-away keys.
"""

import ctypes
import hashlib
import hmac
import os
from ctypes import byref, c_ubyte, c_ulong
from dataclasses import dataclass
from enum import Enum, auto

# Loaded now: a process that has given up root may not be able to read the code any more.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from wghsm.pkcs11_backend._calls import Calls, Packed, Template
from wghsm.pkcs11_backend._ckr import CKR_OK
from wghsm.pkcs11_backend._cryptoki import UNAVAILABLE, Attribute, Ecdh1Params, FunctionList, Mechanism
from wghsm.pkcs11_backend._objects import BASE_POINT, CKA, CKK_GENERIC_SECRET, CKO_SECRET_KEY
from wghsm.pkcs11_backend.dialect import Dialect
from wghsm.wipe import wipe

__all__ = [
    "Derive",
    "LowOrder",
    "Problem",
    "agrees",
    "answer_to_low_order",
    "derive_problem",
    "hmac_works",
    "psk_object_works",
]

_CKD_NULL = 1
# CKD_SHA1_KDF, CKD_SHA256_KDF.
_KDFS = (2, 6)
_ZERO = bytes(32)
_CKR_ATTRIBUTE_SENSITIVE = 0x011
_CKR_BUFFER_TOO_SMALL = 0x150


class Problem(Enum):
    """Why a token gives no X25519 result that can be used."""

    NONE = auto()
    CURVE = auto()
    """C_DeriveKey is refused in every spelling."""
    KDF_ONLY = auto()
    """C_DeriveKey works through a key derivation function only."""
    UNREADABLE = auto()
    """C_DeriveKey works, the result cannot be read."""
    LENGTH = auto()
    """The result does not have 32 bytes."""


@dataclass(frozen=True)
class Derive:
    """The outcome of a derive: `ckr` is the return value that says so."""

    problem: Problem
    ckr: int = CKR_OK


class LowOrder(Enum):
    """What a token does with a point of low order."""

    REFUSED = auto()
    ZEROS = auto()
    """It gives zeros, as X25519 says; the check of the result catches them."""
    GARBAGE = auto()
    """It gives something else, which is not X25519."""


def derive_problem(functions: FunctionList, session: int, key: int, dialect: Dialect) -> Derive:
    """Find out why `key` does not derive with the base point, with every template that the dialect has."""
    refused = CKR_OK
    for variant in dialect.variants():
        ckr, secret = _derive(functions, session, key, BASE_POINT, variant)
        if secret is None:
            refused = refused or ckr
            continue
        ckr, length = _length(functions, session, secret)
        functions.destroy_object(session, secret)
        if ckr != CKR_OK:
            return Derive(Problem.UNREADABLE, ckr)
        return Derive(Problem.NONE if length == 32 else Problem.LENGTH)
    for kdf in _KDFS:
        _, secret = _derive(functions, session, key, BASE_POINT, dialect, kdf)
        if secret is not None:
            functions.destroy_object(session, secret)
            return Derive(Problem.KDF_ONLY, refused)
    return Derive(Problem.CURVE, refused)


def agrees(calls: Calls, key: int, public: bytes, dialect: Dialect) -> bool:
    """Whether the token and a software peer with a fresh key get the same secret. Raises as `Calls.derive`."""
    peer = X25519PrivateKey.generate()
    ours = calls.derive(key, peer.public_key().public_bytes_raw(), dialect)
    theirs = peer.exchange(X25519PublicKey.from_public_bytes(public))
    try:
        return hmac.compare_digest(ours, theirs)
    finally:
        wipe(ours)
        wipe(theirs)


def answer_to_low_order(
    functions: FunctionList, session: int, key: int, dialect: Dialect, point: bytes = _ZERO
) -> tuple[LowOrder, int]:
    """Send a point of low order (32 bytes) past wghsm's own check, and see; with it the CKR of a refusal."""
    ckr, secret = _derive(functions, session, key, point, dialect)
    if secret is None:
        return LowOrder.REFUSED, ckr
    buffer = (c_ubyte * 32)()
    wanted = Attribute(type=CKA["VALUE"], value=ctypes.addressof(buffer), length=32)
    ckr = functions.get_attribute_value(session, secret, byref(wanted), 1)
    functions.destroy_object(session, secret)
    if ckr != CKR_OK:
        return LowOrder.REFUSED, ckr
    return (LowOrder.GARBAGE if any(buffer) else LowOrder.ZEROS), CKR_OK


def hmac_works(calls: Calls) -> bool:
    """Whether HMAC-SHA256 with a throw-away key gives what software gives. Raises TokenFault where it is refused."""
    secret = bytearray(os.urandom(32))
    handle = calls.create(
        (
            *_SESSION_SECRET,
            (CKA["SENSITIVE"], False),
            (CKA["EXTRACTABLE"], True),
            (CKA["SIGN"], True),
            (CKA["VALUE"], secret),
        )
    )
    try:
        token = calls.hmac_sha256(handle, b"wghsm token doctor")
    finally:
        calls.destroy(handle)
    return hmac.compare_digest(token, hmac.new(secret, b"wghsm token doctor", hashlib.sha256).digest())


def psk_object_works(calls: Calls) -> bool:
    """Whether a PSK can be kept as an object and read back, tried with a session object. Raises TokenFault."""
    secret = bytearray(os.urandom(32))
    kept = bytes(secret)
    handle = calls.create(
        (*_SESSION_SECRET, (CKA["SENSITIVE"], False), (CKA["EXTRACTABLE"], True), (CKA["VALUE"], secret))
    )
    try:
        return hmac.compare_digest(calls.read_secret(handle), kept)
    finally:
        calls.destroy(handle)


_SESSION_SECRET: Template = (
    (CKA["CLASS"], CKO_SECRET_KEY),
    (CKA["KEY_TYPE"], CKK_GENERIC_SECRET),
    (CKA["TOKEN"], False),
    (CKA["PRIVATE"], True),
)


def _derive(
    functions: FunctionList, session: int, key: int, public: bytes, dialect: Dialect, kdf: int = _CKD_NULL
) -> tuple[int, int | None]:
    """One C_DeriveKey: its return value and the new object, None where it was refused."""
    point = dialect.point_prefix + public
    memory = (c_ubyte * len(point)).from_buffer_copy(point)
    params = Ecdh1Params(
        kdf=kdf, shared_length=0, shared=None, public_length=len(point), public=ctypes.addressof(memory)
    )
    mechanism = Mechanism(mechanism=dialect.derive, parameter=ctypes.addressof(params), length=ctypes.sizeof(params))
    template = Packed(dialect.derived)
    new = c_ulong()
    ckr = functions.derive_key(session, byref(mechanism), key, template.array, template.count, byref(new))
    return ckr, new.value if ckr == CKR_OK else None


def _length(functions: FunctionList, session: int, secret: int) -> tuple[int, int]:
    """Read a derived secret of a key that proves itself with the base point: the return value, the bytes read."""
    buffer = (c_ubyte * 64)()
    wanted = Attribute(type=CKA["VALUE"], value=ctypes.addressof(buffer), length=64)
    ckr = functions.get_attribute_value(session, secret, byref(wanted), 1)
    if ckr == _CKR_BUFFER_TOO_SMALL:
        return CKR_OK, 0
    if ckr == CKR_OK and wanted.length == UNAVAILABLE:
        ckr = _CKR_ATTRIBUTE_SENSITIVE
    return ckr, wanted.length
