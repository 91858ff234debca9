"""What must be true of a token before a gateway trusts it: a few derives and one HMAC, right after the login.

    key found, one dialect, derive(9) is its public key -> a software peer agrees -> CKA_VALUE refused, or a warning
    -> PSK root found, HMAC works

Called by the custodian at its start, and by `doctor`.
"""

import logging

from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._ckr import ckr_name
from wghsm.pkcs11_backend._doctor_probe import Derive, Problem, agrees, derive_problem
from wghsm.pkcs11_backend._objects import CKA, CKO_PRIVATE_KEY, number
from wghsm.pkcs11_backend.dialect import dialect_of_key
from wghsm.pkcs11_backend.errors import CurveUnsupported, KeyNotFound, KeyUnfit, PointRefused, TokenError, TokenFault
from wghsm.pkcs11_backend.pool import TokenPool

__all__ = ["CHECK_VALUE_LEN", "check_agreement", "essential_checks", "explain_derive", "root_check_value"]

_log = logging.getLogger(__name__)

# Never the beginning of what is signed for a PSK ("wghsm-psk-v1").
_ROOT_MESSAGE = b"wghsm-root-check-v1\x00"
_CKM_SHA256_HMAC = 0x251
CHECK_VALUE_LEN = 8
"""Bytes of a PSK root's check value: the first ones of HMAC-SHA256 over a fixed label."""


def essential_checks(pool: TokenPool, key_label: str, psk_root: str | None) -> TokenError | None:
    """Check the key, and the PSK root where one is needed; return what is wrong, None if all is well.

    The error is one sentence for the operator; a TokenFault with a `level` may pass by itself. A token that would
    give the private key away is only warned of, in the log.
    """
    try:
        key = pool.find_key(key_label)
        with pool.control() as calls:
            check_agreement(pool, calls, key_label)
            if calls.gives_value(key.handle):
                _log.warning(
                    "%s would give the value of key %r to whoever has the PIN; make or import it as sensitive",
                    pool.token_name,
                    key_label,
                )
        if psk_root is not None:
            root_check_value(pool, psk_root)
    except CurveUnsupported as error:
        return explain_derive(pool, key_label) or error
    except TokenError as error:
        return error
    return None


def check_agreement(pool: TokenPool, calls: Calls, label: str) -> None:
    """Let a software peer agree with the key on a secret; raises KeyUnfit where they differ, TokenFault."""
    key = pool.find_key(label)
    try:
        same = agrees(calls, key.handle, key.public_key, key.dialect)
    except PointRefused:
        same = False
    if not same:
        raise KeyUnfit(
            f"{pool.token_name}: key {label!r} and a software peer derive different secrets, so what the token "
            "computes is not X25519; do not use this token"
        )


def root_check_value(pool: TokenPool, label: str) -> bytes:
    """Return the check value of the PSK root `label`, 8 bytes; raises as `TokenPool.find_root`."""
    try:
        root = pool.find_root(label)
    except KeyNotFound:
        if _CKM_SHA256_HMAC in pool.mechanisms:
            raise
        raise KeyUnfit(
            f"{pool.token_name} offers no CKM_SHA256_HMAC, which derived PSKs need, and has no root {label!r}; "
            "give the peers another kind of PSK or none, and take psk_root out of the file"
        ) from None
    try:
        with pool.control() as calls:
            return bytes(calls.hmac_sha256(root.handle, _ROOT_MESSAGE)[:CHECK_VALUE_LEN])
    except TokenFault as fault:
        if fault.level:
            raise
        raise KeyUnfit(
            f"{pool.token_name} computes no HMAC-SHA256 with secret {label!r} ({fault.name}), which derived PSKs need; "
            "use PSKs of another kind, or another token"
        ) from None


def explain_derive(pool: TokenPool, label: str) -> TokenError | None:
    """Say in one sentence why the token gives no X25519 result for the key; None where that is not the trouble."""
    try:
        with pool.control() as calls:
            found = calls.find(((CKA["CLASS"], CKO_PRIVATE_KEY), (CKA["LABEL"], label.encode())))
            if len(found) != 1:
                return None
            dialect = dialect_of_key(number(calls, found[0], "KEY_TYPE"), calls.attribute(found[0], CKA["EC_PARAMS"]))
            if dialect is None or dialect.derive not in pool.mechanisms:
                return None
            outcome = derive_problem(pool.functions, calls.session, found[0], dialect)
    except TokenError:
        return None
    return _sentence(pool.token_name, label, outcome)


def _sentence(token: str, label: str, outcome: Derive) -> TokenError | None:
    ckr = ckr_name(outcome.ckr)
    match outcome.problem:
        case Problem.CURVE:
            return CurveUnsupported(
                f"{token} refuses X25519 with key {label!r} ({ckr}), as tokens in FIPS mode do; "
                "take it out of that mode, or use another token"
            )
        case Problem.KDF_ONLY:
            return CurveUnsupported(
                f"{token} gives X25519 results only through a key derivation function (CKD_NULL: {ckr}), and WireGuard "
                "needs the plain one; have the token allow CKD_NULL, or use another token"
            )
        case Problem.UNREADABLE:
            return CurveUnsupported(
                f"{token} derives but does not give the shared secret out ({ckr}), and WireGuard needs it; "
                "have the token allow readable derived secrets, or use another token"
            )
        case Problem.LENGTH:
            return CurveUnsupported(f"{token}: the shared secret does not have 32 bytes; use another token")
        case Problem.NONE:
            return None
