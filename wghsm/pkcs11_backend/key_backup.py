"""Backup of a key under another key of the token, and its restoration: `wghsm key backup` and `wghsm key restore`.

    backup:   C_WrapKey (AES key wrap with padding, RFC 5649) -> C_UnwrapKey into this session -> derive with the base
              point -> the same public key? -> the wrapped key is a backup
    restore:  C_UnwrapKey into the token -> derive with the base point -> the public key of the backup?

The private key is never outside the token in clear. What is wrapped is the token maker's own encoding (PKCS#8 at
best), so a backup is sure to come back only into tokens of the same make that hold the same wrapping key.
"""

from dataclasses import dataclass

from wghsm.pkcs11_backend import _objects
from wghsm.pkcs11_backend._calls import Calls, Template
from wghsm.pkcs11_backend._labels import refuse_taken
from wghsm.pkcs11_backend._made import new_identity
from wghsm.pkcs11_backend._objects import BASE_POINT, CKA, CKO_PRIVATE_KEY, CKO_SECRET_KEY, PrivateKey
from wghsm.pkcs11_backend.dialect import Dialect, dialects_to_try
from wghsm.pkcs11_backend.errors import AmbiguousKey, KeyNotFound, KeyUnfit, PointRefused, TokenError, TokenFault
from wghsm.pkcs11_backend.key_import import expect_key
from wghsm.pkcs11_backend.pool import TokenPool

__all__ = ["MECHANISMS", "Backup", "CannotWrap", "backup_key", "restore_key"]

MECHANISMS = {"CKM_AES_KEY_WRAP_KWP": 0x210B, "CKM_AES_KEY_WRAP_PAD": 0x210A}
"""The mechanisms of RFC 5649 by name, the unmistakable one of PKCS#11 3.0 first."""

_CKK_AES = 0x1F
_CKA_NSS_DB = 0xD5A0DB00
_INSTEAD = (
    "do this instead: bring one key into two tokens in one ceremony (wghsm key import, twice, on a machine without a "
    "network), or copy the whole token by its maker's means (SoftHSM: its token folder, while nothing uses it)"
)
# What tokens answer to the request itself; anything else is a fault of the token.
_CKR_CANNOT = frozenset({0x054, 0x062, 0x063, 0x068, 0x069, 0x06A, 0x070, 0x071, 0x114, 0x115})
_CKR_NOT_OURS = frozenset({0x040, 0x041, 0x0F1, 0x0F2, 0x110, 0x112, 0x005, 0x006, 0x021})


class CannotWrap(TokenError):  # noqa: N818
    """This token, or this key, gives no backup; the message says what to do instead."""


@dataclass(frozen=True)
class Backup:
    """A wrapped key: no secret to anyone without the wrapping key. `public_key` has 32 bytes."""

    label: str
    public_key: bytes
    mechanism: str
    wrap_key: str
    wrapped: bytes


def backup_key(pool: TokenPool, label: str, wrap_label: str) -> Backup:
    """Wrap the private key `label` under the token's AES key `wrap_label`, and prove that it unwraps to the same key.

    The proof needs a pool opened with read_write where the token keeps private session objects from read-only
    sessions. Raises CannotWrap, KeyNotFound, AmbiguousKey, KeyUnfit, TokenFault.
    """
    key = pool.find_key(label)
    mechanism = _mechanism(pool)
    with pool.control() as calls:
        if _objects.flag(calls, key.handle, "EXTRACTABLE") is False:
            raise CannotWrap(
                f"{pool.token_name}: key {label!r} may never leave (CKA_EXTRACTABLE is false), not even wrapped: "
                f"that is its custody, and no backup of it can be made; {_INSTEAD}"
            )
        wrapping = _wrapping_key(pool, calls, wrap_label, "WRAP")
        try:
            wrapped = calls.wrap(MECHANISMS[mechanism], wrapping, key.handle)
        except TokenFault as fault:
            if fault.ckr not in _CKR_CANNOT:
                raise
            raise CannotWrap(f"{pool.token_name} does not wrap X25519 keys ({fault.name}); {_INSTEAD}") from None
        backup = Backup(label, key.public_key, mechanism, wrap_label, wrapped)
        handle = _unwrap(pool, calls, backup, wrapping, key.dialect, _template(key.dialect, None, wrappable=False))
        try:
            if _public(calls, handle, key.dialect) != key.public_key:
                raise KeyUnfit(f"{pool.token_name} unwraps another key than it wrapped; no backup was made")
        finally:
            calls.destroy(handle)
        return backup


def restore_key(pool: TokenPool, backup: Backup, label: str, wrap_label: str, *, wrappable: bool = False) -> PrivateKey:
    """Unwrap `backup` into the token as `label`, under the AES key `wrap_label`; it must have the same public key.

    With `wrappable` it may leave again under a wrapping key. Nothing stays in the token when this raises LabelTaken,
    CannotWrap, KeyNotFound, AmbiguousKey, KeyUnfit or TokenFault.
    """
    if MECHANISMS.get(backup.mechanism) not in pool.mechanisms:
        raise CannotWrap(f"{pool.token_name} does not offer {backup.mechanism}, with which the backup was made")
    with pool.control() as calls:
        refuse_taken(calls, pool.token_name, label)
        wrapping = _wrapping_key(pool, calls, wrap_label, "UNWRAP")
        refused: TokenError | None = None
        for dialect in dialects_to_try(pool.mechanisms):
            try:
                handle = _unwrap(pool, calls, backup, wrapping, dialect, _template(dialect, label, wrappable=wrappable))
            except CannotWrap as fault:
                refused = refused or fault
                continue
            try:
                return expect_key(pool, label, backup.public_key)
            except BaseException:
                calls.destroy(handle)
                raise
    raise refused or CannotWrap(f"{pool.token_name} offers no X25519 that wghsm knows")


def _mechanism(pool: TokenPool) -> str:
    for name, number in MECHANISMS.items():
        if number in pool.mechanisms:
            return name
    raise CannotWrap(f"{pool.token_name} has no AES key wrap with padding (RFC 5649); {_INSTEAD}")


def _wrapping_key(pool: TokenPool, calls: Calls, label: str, use: str) -> int:
    found = calls.find(((CKA["CLASS"], CKO_SECRET_KEY), (CKA["LABEL"], label.encode())))
    if not found:
        raise KeyNotFound(
            f"{pool.token_name}: no secret key with the label {label!r}; put the AES key there that both tokens are to "
            "share, with the token's own tools (pkcs11-tool --login --keygen --key-type AES:32 --sensitive makes one "
            "for this token alone)"
        )
    if len(found) > 1:
        raise AmbiguousKey(
            f"{pool.token_name}: {len(found)} secret keys have the label {label!r} "
            f"(ids: {_objects.ids_of(calls, found)}); keep one"
        )
    if _objects.number(calls, found[0], "KEY_TYPE") != _CKK_AES or _objects.flag(calls, found[0], use) is False:
        raise KeyUnfit(f"{pool.token_name}: {label!r} is no AES key with CKA_{use}; name another one")
    if _objects.flag(calls, found[0], "SENSITIVE") is False:
        raise KeyUnfit(
            f"{pool.token_name}: {label!r} can be read out of the token (CKA_SENSITIVE is false), and with it every "
            "key that it wraps; name another one"
        )
    return found[0]


def _template(dialect: Dialect, label: str | None, *, wrappable: bool) -> Template:
    """The unwrapped key: a token object `label`, or without one an object of this session only."""
    named: Template = () if label is None else ((CKA["LABEL"], label.encode()), (CKA["ID"], new_identity()))
    return (
        (CKA["CLASS"], CKO_PRIVATE_KEY),
        (CKA["KEY_TYPE"], dialect.key_type),
        (CKA["TOKEN"], label is not None),
        *((CKA[name], True) for name in ("PRIVATE", "SENSITIVE", "DERIVE")),
        (CKA["EXTRACTABLE"], wrappable),
        *((CKA[name], False) for name in ("SIGN", "DECRYPT", "UNWRAP")),
        *named,
    )


def _unwrap(pool: TokenPool, calls: Calls, backup: Backup, wrapping: int, dialect: Dialect, template: Template) -> int:
    mechanism = MECHANISMS[backup.mechanism]
    try:
        try:
            return calls.unwrap(mechanism, wrapping, backup.wrapped, template)
        except TokenFault as fault:
            # NSS wants to be told the public key of what it unwraps, in an attribute of its own.
            if fault.name not in ("CKR_TEMPLATE_INCOMPLETE", "CKR_KEY_TYPE_INCONSISTENT"):
                raise
            return calls.unwrap(mechanism, wrapping, backup.wrapped, (*template, (_CKA_NSS_DB, backup.public_key)))
    except TokenFault as fault:
        if fault.level and fault.ckr not in _CKR_NOT_OURS:
            raise
        raise CannotWrap(
            f"{pool.token_name} does not unwrap this key as {dialect.name} ({fault.name}): another wrapping key, "
            "another make of token, or a damaged backup; nothing was changed"
        ) from None


def _public(calls: Calls, handle: int, dialect: Dialect) -> bytes | None:
    try:
        return bytes(calls.derive(handle, BASE_POINT, dialect))
    except (PointRefused, KeyUnfit):
        return None
