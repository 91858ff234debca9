"""The doctor on what a token says of itself: its flags and its mechanisms. No login, no PIN."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pkcs11 import PKCS11Error

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend._ckr import ckr_from_exception
from wghsm.pkcs11_backend._doctor_report import Finding, Found, Level, green, red, yellow
from wghsm.pkcs11_backend.dialect import CKM_ECDH1_DERIVE, DIALECTS
from wghsm.pkcs11_backend.errors import TokenFault

if TYPE_CHECKING:
    from pkcs11.types import Token

__all__ = ["examine_flags", "examine_mechanisms"]

_WRITE_PROTECTED, _LOGIN_REQUIRED, _PIN_INITIALIZED = 0x2, 0x4, 0x8
_PINPAD = 0x100
_COUNT_LOW, _FINAL_TRY, _LOCKED, _TO_BE_CHANGED = 0x10000, 0x20000, 0x40000, 0x80000
_ERROR_STATE = 0x1000000
_SET_PIN = "let the security officer set a new PIN"
_KNOWN = {
    CKM_ECDH1_DERIVE: "CKM_ECDH1_DERIVE",
    0x1040: "CKM_EC_KEY_PAIR_GEN",
    0x1055: "CKM_EC_EDWARDS_KEY_PAIR_GEN",
    0x1056: "CKM_EC_MONTGOMERY_KEY_PAIR_GEN",
    0x0251: "CKM_SHA256_HMAC",
    0x1087: "CKM_AES_GCM",
    0x0350: "CKM_GENERIC_SECRET_KEY_GEN",
    0x1080: "CKM_AES_KEY_GEN",
    0x2109: "CKM_AES_KEY_WRAP",
    0x210A: "CKM_AES_KEY_WRAP_PAD",
}


def may_log_in(token: "Token", *, at_final_try: bool) -> bool:
    """Whether a PIN may be sent: it is set, not locked, and not at its last try unless that is wanted."""
    flags = int(token.flags)
    return bool(flags & _PIN_INITIALIZED) and not flags & _LOCKED and (at_final_try or not flags & _FINAL_TRY)


def examine_flags(token: "Token", *, at_final_try: bool) -> Iterator[Found]:
    """The flags that matter to a gateway; the state of the PIN above all."""
    flags = int(token.flags)
    names = sorted(str(flag.name) for flag in type(token.flags) if flag in token.flags)
    yield {"flags": names}
    findings = list(_flag_findings(flags, at_final_try=at_final_try))
    yield from findings
    if not findings:
        yield green("flags", ("a pinpad; " if flags & _PINPAD else "") + "nothing is wrong with the PIN")


def _flag_findings(flags: int, *, at_final_try: bool) -> Iterator[Finding]:
    if flags & _ERROR_STATE:
        yield red("flags", "the token says that it is in its error state (CKF_ERROR_STATE)", "reset or replace it")
    if not flags & _LOGIN_REQUIRED:
        yield yellow(
            "flags",
            "the token wants no login (CKF_LOGIN_REQUIRED is not set): whoever reaches the module has the key",
            "set a PIN, or guard the module and its files well",
        )
    if not flags & _PIN_INITIALIZED:
        yield _pin("no PIN is set (CKF_USER_PIN_INITIALIZED is not set)", _SET_PIN)
    elif flags & _LOCKED:
        yield _pin("the PIN is locked (CKF_USER_PIN_LOCKED)", _SET_PIN)
    elif flags & _FINAL_TRY and not at_final_try:
        yield _pin(
            "one more wrong PIN locks the token (CKF_USER_PIN_FINAL_TRY), so none was sent",
            "make sure that the PIN is right, then log in once with --yes",
        )
    elif flags & _FINAL_TRY:
        yield yellow("flags", "this was the last try (CKF_USER_PIN_FINAL_TRY)", "a login that works clears it")
    elif flags & _COUNT_LOW:
        yield yellow(
            "flags",
            "a wrong PIN was sent since the last right one (CKF_USER_PIN_COUNT_LOW)",
            "find out who sent it; a login that works clears it",
        )
    if flags & _TO_BE_CHANGED:
        yield yellow(
            "flags", "the PIN has to be changed (CKF_USER_PIN_TO_BE_CHANGED)", "change it with a vendor's tool"
        )


def _pin(text: str, remedy: str) -> Finding:
    return Finding("flags", Level.RED, text, remedy, ExitCode.PIN_REFUSED)


def examine_mechanisms(token: "Token") -> Iterator[Found]:
    """The mechanism list. Raises TokenFault."""
    try:
        listed = frozenset(int(mechanism) for mechanism in token.slot.get_mechanisms())
    except PKCS11Error as fault:
        raise TokenFault(ckr_from_exception(fault), "listing mechanisms") from None
    yield {"mechanisms": sorted(name for number, name in _KNOWN.items() if number in listed)}
    if CKM_ECDH1_DERIVE not in listed:
        yield red(
            "mechanisms",
            f"none of the {len(listed)} mechanisms is CKM_ECDH1_DERIVE, which X25519 needs",
            "enable it on the token, leave FIPS mode, or use another token",
        )
        return
    generates = sorted({_KNOWN[dialect.generate] for dialect in DIALECTS if dialect.generate in listed})
    made = f"keys are made with {' or '.join(generates)}" if generates else "keys are made with the vendor's tools only"
    yield green("mechanisms", f"CKM_ECDH1_DERIVE is one of {len(listed)}; {made}")
