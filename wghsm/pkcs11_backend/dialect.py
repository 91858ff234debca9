"""How a module spells X25519, as data: every module does it differently (PKCS11.md section 1).

A key's own CKA_KEY_TYPE and CKA_EC_PARAMS choose the record, a token's mechanism list chooses the one to
generate with; the module's name is never asked. A new dialect joins by adding a record to DIALECTS.
"""

from dataclasses import dataclass

__all__ = ["DIALECTS", "SOFTHSM", "Dialect", "dialect_of_key", "dialect_of_token", "parse_point"]

CKM_ECDH1_DERIVE = 0x1050
_GENERIC_SECRET = 0x10

_BASE = {0x000: 4, 0x100: _GENERIC_SECRET, 0x161: 32, 0x103: False, 0x162: True, 0x001: False, 0x002: False}


@dataclass(frozen=True)
class Dialect:
    """One spelling of X25519.

    `key_type` is CKA_KEY_TYPE; `ec_params` the accepted CKA_EC_PARAMS, the first one is what is written;
    `generate` the CKM_ of key generation; `derived` the template of a derived secret: attribute type to bool
    or number (32 bytes of CKK_GENERIC_SECRET, readable, in the session only).
    """

    name: str
    key_type: int
    ec_params: tuple[bytes, ...]
    generate: int
    derived: tuple[tuple[int, bool | int], ...]


SOFTHSM = Dialect(
    name="SoftHSM 2",
    key_type=0x40,
    ec_params=(bytes.fromhex("06032b656e"), bytes.fromhex("130a63757276653235353139")),
    generate=0x1055,
    # CLASS SECRET_KEY, KEY_TYPE, VALUE_LEN, SENSITIVE, EXTRACTABLE, TOKEN, PRIVATE.
    derived=tuple(_BASE.items()),
)

DIALECTS: tuple[Dialect, ...] = (SOFTHSM,)


def dialect_of_key(key_type: int | None, ec_params: bytes | None) -> Dialect | None:
    """Return the dialect of a key with this CKA_KEY_TYPE and CKA_EC_PARAMS, None when it is no X25519 key we know."""
    for dialect in DIALECTS:
        if key_type == dialect.key_type and ec_params in dialect.ec_params:
            return dialect
    return None


def dialect_of_token(mechanisms: frozenset[int]) -> Dialect | None:
    """Return the dialect to generate a key with on a token that lists `mechanisms` (CKM_ values), None without one."""
    if CKM_ECDH1_DERIVE not in mechanisms:
        return None
    return next((dialect for dialect in DIALECTS if dialect.generate in mechanisms), None)


def parse_point(value: bytes) -> bytes | None:
    """Return the 32 bytes of a CKA_EC_POINT in any form seen: raw, 0420 (octet string) or 40 (prefix); else None."""
    if len(value) == 32:
        return value
    if len(value) == 34 and value[:2] == b"\x04\x20":
        return value[2:]
    if len(value) == 33 and value[0] == 0x40:
        return value[1:]
    return None
