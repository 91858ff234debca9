"""The tokens of a module: described without a login, and made in an empty slot.

Called by `wghsm token list` and `init`, by key ceremonies and by softhsm_setup. What is in a token is `provision`'s.
"""

import ctypes
from dataclasses import dataclass

from wghsm.pkcs11_backend._ckr import CKR_OK
from wghsm.pkcs11_backend._cryptoki import UNAVAILABLE, TokenInfo
from wghsm.pkcs11_backend._login import CKU_SO, log_in, open_session
from wghsm.pkcs11_backend.dialect import CKM_ECDH1_DERIVE, dialect_of_token
from wghsm.pkcs11_backend.errors import LabelTaken, TokenFault, TokenNotFound, UriError
from wghsm.pkcs11_backend.module import Module, fits, load
from wghsm.pkcs11_backend.uri import TokenUri

__all__ = ["TokenReport", "init_token", "list_tokens"]

_CKF_TOKEN_INITIALIZED = 0x400


@dataclass(frozen=True)
class TokenReport:
    """One token as the module describes it; `flags` are the CKF_ names that matter to an operator.

    `pin_lengths` are the least and the greatest length of a PIN in bytes, None where the token does not say.
    """

    slot_id: int
    label: str
    serial: str
    manufacturer: str
    model: str
    initialised: bool
    flags: tuple[str, ...]
    x25519: str | None
    uri: str
    hardware: str = ""
    firmware: str = ""
    pin_lengths: tuple[int, int] | None = None


def list_tokens(uri: TokenUri, module_arguments: str | None = None) -> list[TokenReport]:
    """Describe every token of the URI's module, without a login. Raises UriError, ModuleMissing, TokenFault."""
    module = load(uri, module_arguments)
    module.acquire()
    try:
        reports = []
        for token in module.tokens():
            serial = token.serial.decode("utf-8", "replace")
            mechanisms = frozenset(int(mechanism) for mechanism in token.slot.get_mechanisms())
            named = TokenUri(
                module_path=uri.module_path,
                token=token.label or None,
                serial=serial or None,
                # The PIN is that of the token that is named: whoever copies another's line must not send it there.
                pin_source=uri.pin_source if fits(token, uri) else None,
                init_args=uri.init_args,
            )
            info = _info(module, int(token.slot.slot_id))
            reports.append(
                TokenReport(
                    slot_id=int(token.slot.slot_id),
                    label=token.label,
                    serial=serial,
                    manufacturer=token.manufacturer_id or "",
                    model=token.model or "",
                    initialised=bool(token.flags & _CKF_TOKEN_INITIALIZED),
                    flags=tuple(sorted(str(flag.name) for flag in type(token.flags) if flag in token.flags)),
                    x25519=_offered(mechanisms),
                    uri=str(named),
                    hardware="{}.{:02}".format(*info.hardware),
                    firmware="{}.{:02}".format(*info.firmware),
                    pin_lengths=_pin_lengths(info),
                )
            )
        return reports
    finally:
        module.release()


def _info(module: Module, slot: int) -> TokenInfo:
    info = TokenInfo()
    ckr = module.functions.get_token_info(slot, ctypes.byref(info))
    if ckr != CKR_OK:
        raise TokenFault(ckr, "C_GetTokenInfo")
    return info


def _pin_lengths(info: TokenInfo) -> tuple[int, int] | None:
    least, most = int(info.min_pin_length), int(info.max_pin_length)
    return (least, most) if least <= most and 0 < most < UNAVAILABLE else None


def _offered(mechanisms: frozenset[int]) -> str | None:
    dialect = dialect_of_token(mechanisms)
    if dialect is not None:
        return dialect.name
    return "perhaps: a key in it shows it" if CKM_ECDH1_DERIVE in mechanisms else None


def init_token(uri: TokenUri, so_pin: bytearray, pin: bytearray, module_arguments: str | None = None) -> None:
    """Initialise an empty slot as the token `uri.token` (slot-id chooses among several) and set its user PIN.

    A slot that holds a token already is never touched: C_InitToken would destroy its keys. Raises UriError,
    LabelTaken, TokenNotFound, TokenFault.
    """
    if uri.token is None or len(uri.token.encode()) > 32:
        raise UriError("token URI: name the new token with token=LABEL, at most 32 bytes")
    module = load(uri, module_arguments)
    module.acquire()
    try:
        tokens = module.tokens()
        if any(token.label == uri.token and token.flags & _CKF_TOKEN_INITIALIZED for token in tokens):
            raise LabelTaken(f"token {uri.token!r} exists already; nothing was changed: choose another label")
        empty = [int(token.slot.slot_id) for token in tokens if not token.flags & _CKF_TOKEN_INITIALIZED]
        slots = [slot for slot in empty if uri.slot_id in (None, slot)]
        if not slots:
            raise TokenNotFound(
                f"no empty slot for a new token in {uri.module_path} (asked for: slot {uri.slot_id or 'any'}); "
                f"empty slots: {', '.join(map(str, empty)) or 'none'}"
            )
        label = uri.token.encode().ljust(32)
        memory = (ctypes.c_ubyte * len(so_pin)).from_buffer(so_pin)
        ckr = module.functions.init_token(slots[0], memory, len(so_pin), label)
        if ckr != CKR_OK:
            raise TokenFault(ckr, "C_InitToken", "check the length of the SO PIN (often 4 to 255)")
        module.reinitialize()
        token = module.find_token(TokenUri(module_path=uri.module_path, token=uri.token))
        session = open_session(module.functions, token, read_write=True, which="a session for the security officer")
        try:
            log_in(module.functions, token, session, so_pin, CKU_SO)
            user = (ctypes.c_ubyte * len(pin)).from_buffer(pin)
            ckr = module.functions.init_pin(session, user, len(pin))
            if ckr != CKR_OK:
                raise TokenFault(ckr, "C_InitPIN", "check the length of the PIN (often 4 to 255)")
        finally:
            module.functions.logout(session)
            module.functions.close_session(session)
    finally:
        module.release()
