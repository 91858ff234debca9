"""Opening sessions and logging in: a PIN goes from its bytearray straight into C_Login, a refused one only once."""

import ctypes
import hashlib
import os
from typing import TYPE_CHECKING

from wghsm.pkcs11_backend._ckr import (
    CKR_OK,
    CKR_PIN_EXPIRED,
    CKR_PIN_INCORRECT,
    CKR_PIN_INVALID,
    CKR_PIN_LEN_RANGE,
    CKR_PIN_LOCKED,
    CKR_SESSION_COUNT,
    CKR_USER_ALREADY_LOGGED_IN,
    CKR_USER_PIN_NOT_INITIALIZED,
    ckr_name,
)
from wghsm.pkcs11_backend.errors import PinFinalTry, PinLocked, PinRefused, PinUnavailable, TokenFault

if TYPE_CHECKING:
    from pkcs11.types import Token

    from wghsm.pkcs11_backend._cryptoki import FunctionList

__all__ = [
    "CKU_SO",
    "CKU_USER",
    "PIN_FINAL_TRY_FLAG",
    "PIN_LOCKED_FLAG",
    "PROTECTED_PATH_FLAG",
    "log_in",
    "open_session",
]

CKU_SO = 0
CKU_USER = 1
PIN_FINAL_TRY_FLAG = 0x20000  # CKF_USER_PIN_FINAL_TRY
PIN_LOCKED_FLAG = 0x40000  # CKF_USER_PIN_LOCKED
PROTECTED_PATH_FLAG = 0x100  # CKF_PROTECTED_AUTHENTICATION_PATH

_REFUSED = frozenset({CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE})
_LOCKED = frozenset({CKR_PIN_LOCKED, CKR_PIN_EXPIRED, CKR_USER_PIN_NOT_INITIALIZED})

# Keyed with a secret of this process, so that the set says nothing about a PIN.
_latch_key = os.urandom(32)
_latched: set[bytes] = set()


def open_session(functions: "FunctionList", token: "Token", *, read_write: bool, which: str) -> int:
    """Open a session without a PIN and return its CK_SESSION_HANDLE; raises TokenFault. `which` names it in errors."""
    # CKF_SERIAL_SESSION, CKF_RW_SESSION.
    flags = 0x4 | (0x2 if read_write else 0)
    handle = ctypes.c_ulong()
    ckr = functions.open_session(token.slot.slot_id, flags, None, None, ctypes.byref(handle))
    if ckr != CKR_OK:
        remedy = "ask for fewer worker sessions" if ckr == CKR_SESSION_COUNT else ""
        raise TokenFault(ckr, f"opening {which}", remedy)
    return handle.value


def log_in(
    functions: "FunctionList",
    token: "Token",
    session: int,
    pin: bytearray | None,
    user: int = CKU_USER,
    *,
    at_final_try: bool = False,
) -> None:
    """Log in with `pin`, at most once in this process's life if the token refuses it.

    Without a PIN the token asks for it itself, if it has a protected authentication path; that takes as long as the
    person at it. The last try before the token locks is not spent unless `at_final_try`. Raises PinRefused, PinLocked
    or PinUnavailable (all final) and TokenFault.
    """
    name = f"token {token.label!r}"
    whose = "PIN" if user == CKU_USER else "SO PIN"
    latch = _latch(token, pin, user)
    if latch in _latched:
        raise PinRefused(f"{name} has refused this {whose} before; it is not sent again: correct it and start afresh")
    if user == CKU_USER and token.flags & PIN_LOCKED_FLAG:
        raise PinLocked(f"{name}: its PIN is locked; the security officer must set a new one")
    if user == CKU_USER and token.flags & PIN_FINAL_TRY_FLAG and not at_final_try:
        raise PinFinalTry(
            f"{name}: one more wrong PIN locks it (CKF_USER_PIN_FINAL_TRY), so no PIN was sent; "
            "make sure that the PIN is right, then log in once with wghsm token doctor --yes"
        )
    if pin is None:
        if not token.flags & PROTECTED_PATH_FLAG:
            raise PinUnavailable(
                f"{name} has no pinpad (CKF_PROTECTED_AUTHENTICATION_PATH is not set), so its PIN must come from "
                "elsewhere; write pin-source=file:/path, credential:NAME, command:/path or prompt in the token URI"
            )
        ckr = functions.login(session, user, None, 0)
    elif not pin:
        raise PinRefused(f"{name}: the {whose} is empty; it was not sent")
    else:
        memory = (ctypes.c_ubyte * len(pin)).from_buffer(pin)
        ckr = functions.login(session, user, memory, len(pin))
    if ckr == CKR_OK:
        return
    if ckr in _REFUSED:
        _latched.add(latch)
        if pin is None:
            raise PinRefused(
                f"{name} refused what was typed at its pinpad ({ckr_name(ckr)}); "
                "it is not asked for again: start afresh and type the right PIN"
            )
        raise PinRefused(
            f"{name} refused the {whose} ({ckr_name(ckr)}); it was sent once and is not sent again: correct it "
            "where it comes from (the pin-source of the URI)"
        )
    if ckr in _LOCKED:
        _latched.add(latch)
        raise PinLocked(f"{name}: no login is possible ({ckr_name(ckr)}); the security officer must set a new PIN")
    if ckr == CKR_USER_ALREADY_LOGGED_IN:
        raise TokenFault(ckr, f"logging in to {name}", "it is open in this process already")
    raise TokenFault(ckr, f"logging in to {name}", "type the PIN at its pinpad" if pin is None else "")


def _latch(token: "Token", pin: bytearray | None, user: int) -> bytes:
    digest = hashlib.blake2b(key=_latch_key, digest_size=16)
    for part in (token.serial, token.label.encode(), bytes((user,))):
        digest.update(len(part).to_bytes(2, "big") + part)
    digest.update(b"" if pin is None else pin)
    return digest.digest()
