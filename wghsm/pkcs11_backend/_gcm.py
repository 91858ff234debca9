"""AES-256-GCM by the token, through the C calls on one session: sealing and opening 32 bytes.

Used by `wrapping`. Two things differ between tokens, and are tried in this order:

- CK_GCM_PARAMS has the field ulIvBits (PKCS#11 2.40 with its errata and 3.0) or not (2.20 drafts, older NSS);
- the initial vector is ours, or the token insists on its own: it writes it over ours, or wants room for it (zeros),
  or puts it behind the tag. What counts is the one that stands there after the call.
"""

import ctypes
from collections.abc import Iterator
from ctypes import Structure, byref, c_ubyte, c_ulong, c_void_p

from wghsm.pkcs11_backend._ckr import CKR_OK
from wghsm.pkcs11_backend._cryptoki import FunctionList, Mechanism
from wghsm.pkcs11_backend.errors import KeyUnfit, TokenFault

__all__ = ["CKM_AES_GCM", "IV_LENGTH", "SEALED_LENGTH", "gcm_open", "gcm_seal"]

CKM_AES_GCM = 0x1087
IV_LENGTH = 12
TAG_LENGTH = 16
SEALED_LENGTH = IV_LENGTH + 32 + TAG_LENGTH
_CKR_ARGUMENTS_BAD = 0x007
_CKR_MECHANISM_PARAM_INVALID = 0x071
_ANOTHER_SPELLING = frozenset({_CKR_ARGUMENTS_BAD, _CKR_MECHANISM_PARAM_INVALID})
_CKR_UNAUTHENTIC = frozenset({0x040, 0x041})  # CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE
_CKR_GENERAL_ERROR = 0x005
_CKR_FUNCTION_FAILED = 0x006


class _GcmParams(Structure):
    _fields_ = [
        ("iv", c_void_p),
        ("iv_length", c_ulong),
        ("iv_bits", c_ulong),
        ("aad", c_void_p),
        ("aad_length", c_ulong),
        ("tag_bits", c_ulong),
    ]


class _OldGcmParams(Structure):
    _fields_ = [
        ("iv", c_void_p),
        ("iv_length", c_ulong),
        ("aad", c_void_p),
        ("aad_length", c_ulong),
        ("tag_bits", c_ulong),
    ]


class _Parameters:
    """One way to say CKM_AES_GCM, with the memory that it points to."""

    def __init__(self, kind: type[_GcmParams] | type[_OldGcmParams], iv: bytes, aad: bytes) -> None:
        self.iv = (c_ubyte * IV_LENGTH)(*iv)
        self._aad = (c_ubyte * max(1, len(aad)))(*aad)
        self._params = kind(
            iv=ctypes.addressof(self.iv),
            iv_length=IV_LENGTH,
            aad=ctypes.addressof(self._aad),
            aad_length=len(aad),
            tag_bits=8 * TAG_LENGTH,
        )
        if isinstance(self._params, _GcmParams):
            self._params.iv_bits = 8 * IV_LENGTH
        self.mechanism = Mechanism(
            mechanism=CKM_AES_GCM, parameter=ctypes.addressof(self._params), length=ctypes.sizeof(self._params)
        )


def gcm_seal(functions: FunctionList, session: int, key: int, plain: bytearray, aad: bytes, iv: bytes) -> bytes:
    """Seal 32 bytes `plain` under the secret key `key` with `aad`: initial vector, ciphertext and tag, 60 bytes.

    `iv`, 12 fresh random bytes, is used unless the token takes its own. Raises KeyUnfit for a token that says neither
    its own initial vector nor takes ours, TokenFault.
    """
    source = (c_ubyte * len(plain)).from_buffer(plain)
    out = (c_ubyte * 128)()
    length = c_ulong()
    refused: TokenFault | None = None
    for parameters in _spellings(iv, aad):
        ckr = functions.encrypt_init(session, byref(parameters.mechanism), key)
        if ckr == CKR_OK:
            length.value = len(out)
            ckr = functions.encrypt(session, source, len(plain), out, byref(length))
        if ckr == CKR_OK:
            return _assemble(bytes(out[: length.value]), bytes(parameters.iv), len(plain))
        refused = refused or TokenFault(ckr, "C_Encrypt with CKM_AES_GCM")
        if ckr not in _ANOTHER_SPELLING:
            break
    raise refused or TokenFault(_CKR_GENERAL_ERROR, "C_Encrypt with CKM_AES_GCM")


def gcm_open(functions: FunctionList, session: int, key: int, sealed: bytes, aad: bytes) -> bytearray | None:
    """Open what `gcm_seal` gave: 32 bytes, which the caller wipes; None where it is not authentic. Raises TokenFault.

    A token that has only CKR_GENERAL_ERROR or CKR_FUNCTION_FAILED for a wrong tag is taken at its word: TokenFault.
    """
    if len(sealed) != SEALED_LENGTH:
        return None
    data = (c_ubyte * (SEALED_LENGTH - IV_LENGTH)).from_buffer_copy(sealed, IV_LENGTH)
    out = (c_ubyte * len(data))()
    length = c_ulong()
    ckr = _CKR_GENERAL_ERROR
    try:
        for parameters in _spellings(sealed[:IV_LENGTH], aad, own_iv=False):
            ckr = functions.decrypt_init(session, byref(parameters.mechanism), key)
            if ckr == CKR_OK:
                length.value = len(out)
                ckr = functions.decrypt(session, data, len(data), out, byref(length))
            if ckr not in _ANOTHER_SPELLING:
                break
        if ckr in _CKR_UNAUTHENTIC:
            return None
        if ckr != CKR_OK:
            raise TokenFault(ckr, "C_Decrypt with CKM_AES_GCM")
        if length.value != 32:
            return None
        return bytearray(memoryview(out).cast("B")[:32])
    finally:
        ctypes.memset(out, 0, len(out))


def _spellings(iv: bytes, aad: bytes, *, own_iv: bool = True) -> Iterator[_Parameters]:
    yield _Parameters(_GcmParams, iv, aad)
    yield _Parameters(_OldGcmParams, iv, aad)
    if own_iv:
        yield _Parameters(_GcmParams, bytes(IV_LENGTH), aad)
        yield _Parameters(_OldGcmParams, bytes(IV_LENGTH), aad)


def _assemble(output: bytes, iv: bytes, length: int) -> bytes:
    if len(output) == length + TAG_LENGTH + IV_LENGTH:
        output, iv = output[:-IV_LENGTH], output[-IV_LENGTH:]
    if len(output) != length + TAG_LENGTH or not any(iv):
        raise KeyUnfit(
            "token: its CKM_AES_GCM takes no initial vector of 12 bytes and does not say its own; "
            "use derived PSKs or PSK objects"
        )
    return iv + output
