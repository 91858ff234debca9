"""Finding keys and secrets by label, and proving that they can do their work.

Used by `pool` and `provision`. Values here are handles and public data only.
"""

from dataclasses import dataclass, field

from wghsm.pkcs11_backend._calls import Calls, Template
from wghsm.pkcs11_backend.dialect import Dialect, dialect_of_key, parse_point
from wghsm.pkcs11_backend.errors import AmbiguousKey, CurveUnsupported, KeyNotFound, KeyUnfit, TokenFault

__all__ = [
    "BASE_POINT",
    "CKA",
    "CKK_GENERIC_SECRET",
    "CKO_PRIVATE_KEY",
    "CKO_PUBLIC_KEY",
    "CKO_SECRET_KEY",
    "SECRET_USES",
    "PrivateKey",
    "RootSecret",
    "StoredPsk",
    "find_private_key",
    "find_psk",
    "find_root",
    "flag",
    "ids_of",
    "is_readable_psk",
    "number",
    "stated_public",
    "text",
]

CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_SECRET_KEY = 2, 3, 4
CKK_GENERIC_SECRET = 0x10
_CKK_SHA256_HMAC = 0x2B
BASE_POINT = b"\x09" + bytes(31)
SECRET_USES = ("ENCRYPT", "DECRYPT", "WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE")

CKA = {
    "CLASS": 0x000,
    "TOKEN": 0x001,
    "PRIVATE": 0x002,
    "LABEL": 0x003,
    "VALUE": 0x011,
    "KEY_TYPE": 0x100,
    "ID": 0x102,
    "SENSITIVE": 0x103,
    "ENCRYPT": 0x104,
    "DECRYPT": 0x105,
    "WRAP": 0x106,
    "UNWRAP": 0x107,
    "SIGN": 0x108,
    "VERIFY": 0x10A,
    "DERIVE": 0x10C,
    "START_DATE": 0x110,
    "VALUE_LEN": 0x161,
    "EXTRACTABLE": 0x162,
    "LOCAL": 0x163,
    "NEVER_EXTRACTABLE": 0x164,
    "ALWAYS_SENSITIVE": 0x165,
    "MODIFIABLE": 0x170,
    "EC_PARAMS": 0x180,
    "EC_POINT": 0x181,
}
"""Attribute types by name without CKA_."""

_SHOWN = 12


@dataclass
class PrivateKey:
    """An X25519 key in the token; `public_key` is 32 bytes. The pool renews `handle` when it recovers."""

    label: str
    handle: int
    public_key: bytes
    dialect: Dialect = field(repr=False)


@dataclass
class RootSecret:
    """The secret that derived PSKs come from; it can sign and cannot be read."""

    label: str
    handle: int


@dataclass
class StoredPsk:
    """A PSK kept as a token object of 32 bytes that whoever has the PIN can read."""

    label: str
    handle: int


def find_private_key(calls: Calls, token: str, mechanisms: frozenset[int], label: str) -> PrivateKey:
    """Find the X25519 key `label` and check it by a derive with the base point u = 9 (PKCS11.md section 4).

    Raises KeyNotFound, AmbiguousKey, CurveUnsupported, KeyUnfit, TokenFault.
    """
    handle = _only(calls, token, CKO_PRIVATE_KEY, label, "private key", "wghsm key generate")
    key_type, params = number(calls, handle, "KEY_TYPE"), calls.attribute(handle, CKA["EC_PARAMS"])
    dialect = dialect_of_key(key_type, params)
    if dialect is None:
        kind = "not stated" if key_type is None else f"{key_type:#x}"
        raise CurveUnsupported(
            f"{token}: private key {label!r} is no X25519 key that wghsm knows "
            f"(CKA_KEY_TYPE {kind}, CKA_EC_PARAMS {params.hex() if params else 'not stated'}); name another key"
        )
    if dialect.derive not in mechanisms:
        raise CurveUnsupported(f"{token} does not offer CKM_ECDH1_DERIVE, which X25519 needs; use another token")
    if flag(calls, handle, "DERIVE") is False:
        raise KeyUnfit(f"{token}: private key {label!r} may not derive (CKA_DERIVE is false); make a key for WireGuard")
    dialect, public = _prove(calls, token, label, handle, dialect)
    stated = stated_public(calls, handle, label)
    if stated is not None and stated != public:
        raise KeyUnfit(
            f"{token}: the public key object {label!r} does not belong to the private key; destroy the wrong one"
        )
    return PrivateKey(label=label, handle=handle, public_key=public, dialect=dialect)


def _prove(calls: Calls, token: str, label: str, handle: int, dialect: Dialect) -> tuple[Dialect, bytes]:
    """Derive with the base point; return the dialect with the template that the token took, and the public key.

    Only an answer about the request itself leads to the next template: a fault of the token is raised at once.
    """
    refused = ""
    for variant in dialect.variants():
        try:
            return variant, bytes(calls.derive(handle, BASE_POINT, variant))
        except TokenFault as fault:
            if fault.level:
                raise
            refused = refused or fault.name
        except KeyUnfit:
            refused = refused or "the result does not have 32 bytes"
    raise CurveUnsupported(
        f"{token} refuses to derive with key {label!r} ({refused}); wghsm needs CKM_ECDH1_DERIVE with CKD_NULL "
        "and a readable 32-byte result"
    )


def find_root(calls: Calls, token: str, label: str) -> RootSecret:
    """Find the root of derived PSKs; it must sign and must not be readable. Raises as `find_private_key`."""
    handle = _only(calls, token, CKO_SECRET_KEY, label, "secret", "wghsm psk derive-root")
    if number(calls, handle, "KEY_TYPE") not in (CKK_GENERIC_SECRET, _CKK_SHA256_HMAC):
        raise KeyUnfit(f"{token}: secret {label!r} is no generic secret; make a root with wghsm psk derive-root")
    if flag(calls, handle, "SIGN") is not True:
        raise KeyUnfit(f"{token}: secret {label!r} may not sign; make a root with wghsm psk derive-root")
    if flag(calls, handle, "EXTRACTABLE") is not False or flag(calls, handle, "SENSITIVE") is not True:
        raise KeyUnfit(f"{token}: secret {label!r} can be read, so it is no root; make one with wghsm psk derive-root")
    return RootSecret(label=label, handle=handle)


def find_psk(calls: Calls, token: str, label: str) -> StoredPsk:
    """Find the PSK object `label`; it must be readable and have 32 bytes. Raises as `find_private_key`."""
    handle = _only(calls, token, CKO_SECRET_KEY, label, "secret", "wghsm psk put")
    if not is_readable_psk(calls, handle):
        raise KeyUnfit(
            f"{token}: secret {label!r} cannot be read, so it is no PSK object; store one with wghsm psk put"
        )
    length = number(calls, handle, "VALUE_LEN")
    if length not in (None, 32):
        raise KeyUnfit(f"{token}: secret {label!r} has {length} bytes, a PSK has 32; store it again with wghsm psk put")
    return StoredPsk(label=label, handle=handle)


def is_readable_psk(calls: Calls, handle: int) -> bool:
    """Say whether a secret object may be read out, as a PSK object must and a root must not."""
    return flag(calls, handle, "EXTRACTABLE") is True and flag(calls, handle, "SENSITIVE") is False


def flag(calls: Calls, handle: int, name: str) -> bool | None:
    """Read a CK_BBOOL attribute; None when the token does not state it."""
    value = calls.attribute(handle, CKA[name])
    return None if value is None or len(value) != 1 else value != b"\x00"


def number(calls: Calls, handle: int, name: str) -> int | None:
    """Read a CK_ULONG attribute; None when the token does not state it."""
    value = calls.attribute(handle, CKA[name])
    return None if value is None or len(value) != 8 else int.from_bytes(value, "little")


def text(calls: Calls, handle: int, name: str) -> str | None:
    """Read a text attribute; None when the token does not state it."""
    value = calls.attribute(handle, CKA[name])
    return None if value is None else value.decode("utf-8", "replace")


def ids_of(calls: Calls, handles: list[int]) -> str:
    """Name the CKA_ID of each object in hex, as --id takes it."""
    return ", ".join((calls.attribute(handle, CKA["ID"]) or b"").hex() or "''" for handle in handles[:_SHOWN])


def _only(calls: Calls, token: str, kind: int, label: str, noun: str, make: str) -> int:
    wanted: Template = ((CKA["CLASS"], kind), (CKA["LABEL"], label.encode()))
    found = calls.find(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        command = "key" if kind == CKO_PRIVATE_KEY else "psk"
        raise AmbiguousKey(
            f"{token}: {len(found)} objects of kind {noun} have the label {label!r} (ids: {ids_of(calls, found)}); "
            f"keep one: wghsm {command} destroy {label} --id ID"
        )
    others = sorted({text(calls, handle, "LABEL") or "" for handle in calls.find(((CKA["CLASS"], kind),))})
    there = ", ".join(repr(other) for other in others[:_SHOWN]) + (" ..." if len(others) > _SHOWN else "")
    raise KeyNotFound(
        f"{token}: no {noun} with the label {label!r}; there is: {there or 'none'}; "
        f"correct the label, or make it: {make} {label}"
    )


def stated_public(calls: Calls, handle: int, label: str) -> bytes | None:
    """Read the token's public object for a private key: of the same label, and the same id when both have one."""
    identity = calls.attribute(handle, CKA["ID"])
    points = []
    for public in calls.find(((CKA["CLASS"], CKO_PUBLIC_KEY), (CKA["LABEL"], label.encode()))):
        other = calls.attribute(public, CKA["ID"])
        value = calls.attribute(public, CKA["EC_POINT"])
        if value is not None and (not identity or not other or identity == other):
            points.append(parse_point(value))
    return points[0] if len(points) == 1 else None
