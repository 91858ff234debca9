"""How a module spells X25519, as data: every module does it differently (PKCS11.md section 1).

Nothing here asks for the module's name. What decides is tried on the token itself:

    a key that is there     its own CKA_KEY_TYPE and CKA_EC_PARAMS name the record (`dialect_of_key`)
    a key to be made        the records that fit the mechanism list, one after the other (`dialects_to_try`)
    the derived secret      the record's templates, one after the other, until a derive works (`Dialect.templates`)

A new dialect joins by adding a record to DIALECTS.
"""

from dataclasses import dataclass, replace

__all__ = [
    "CKM_ECDH1_DERIVE",
    "CKR_SPELLING",
    "DIALECTS",
    "NSS",
    "SOFTHSM",
    "STANDARD",
    "DerivedTemplate",
    "Dialect",
    "dialect_of_key",
    "dialect_of_token",
    "dialects_to_try",
    "parse_point",
]

CKM_ECDH1_DERIVE = 0x1050
_CKM_EC_KEY_PAIR_GEN = 0x1040
_CKM_EC_EDWARDS_KEY_PAIR_GEN = 0x1055
_CKM_EC_MONTGOMERY_KEY_PAIR_GEN = 0x1056
_CKK_EC, _CKK_EC_EDWARDS, _CKK_EC_MONTGOMERY = 0x03, 0x40, 0x41

# id-X25519 of RFC 8410, PrintableString "curve25519", the OpenPGP cards' OID, and the OID that NSS uses for it.
_OID = bytes.fromhex("06032b656e")
_NAME = bytes.fromhex("130a63757276653235353139")
_OPENPGP_OID = bytes.fromhex("060a2b060104019755010501")
_NSS_OID = bytes.fromhex("06092b06010401da470f01")

DerivedTemplate = tuple[tuple[int, bool | int], ...]
"""The template of a derived secret: attribute types (CKA_) with bools and numbers."""

# CLASS SECRET_KEY, KEY_TYPE GENERIC_SECRET, VALUE_LEN, SENSITIVE, EXTRACTABLE, TOKEN, PRIVATE.
_PLAIN: DerivedTemplate = (
    (0x000, 4),
    (0x100, 0x10),
    (0x161, 32),
    (0x103, False),
    (0x162, True),
    (0x001, False),
    (0x002, False),
)
_NO_PRIVATE = _PLAIN[:-1]
_NO_LENGTH = tuple(pair for pair in _PLAIN if pair[0] != 0x161)
# Some tokens want every use of a readable secret stated: DERIVE true; ENCRYPT, DECRYPT, WRAP, UNWRAP, SIGN, VERIFY not.
_STATED: DerivedTemplate = (
    *_NO_PRIVATE,
    (0x10C, True),
    *((use, False) for use in (0x104, 0x105, 0x106, 0x107, 0x108, 0x10A)),
)
_TEMPLATES = (_PLAIN, _NO_PRIVATE, _NO_LENGTH, _STATED)

CKR_SPELLING = frozenset(
    {0x005, 0x006, 0x007, 0x010, 0x012, 0x013, 0x054, 0x062, 0x063, 0x070, 0x071, 0x0D0, 0x0D1, 0x130, 0x140}
)
"""What tokens answer when a key is made in a spelling that they do not know: ARGUMENTS_BAD, ATTRIBUTE_*, TEMPLATE_*,
MECHANISM_*, CURVE_NOT_SUPPORTED and their like, FUNCTION_* and GENERAL_ERROR. Another spelling may then be tried."""


@dataclass(frozen=True)
class Dialect:
    """One spelling of X25519.

    `key_type` is CKA_KEY_TYPE; `ec_params` the accepted CKA_EC_PARAMS in the order in which they are tried when a key
    is made; `generate` the CKM_ of key generation; `decisive`, whether a token that lists it has the curve for sure;
    `derive` the CKM_ of the derive, with CKD_NULL; `point_prefix` what stands before the 32 raw bytes of a public key
    that is sent (no module measured wants any); `templates` those of the derived secret, tried in this order: 32
    bytes of CKK_GENERIC_SECRET, readable, in the session only.
    """

    name: str
    key_type: int
    ec_params: tuple[bytes, ...]
    generate: int
    decisive: bool = True
    derive: int = CKM_ECDH1_DERIVE
    point_prefix: bytes = b""
    templates: tuple[DerivedTemplate, ...] = _TEMPLATES

    @property
    def derived(self) -> DerivedTemplate:
        """The template in use: the first of `templates`."""
        return self.templates[0]

    def variants(self) -> "tuple[Dialect, ...]":
        """Return this dialect with each of its templates as the only one, in the order in which to try them."""
        return tuple(replace(self, templates=(template,)) for template in self.templates)


STANDARD = Dialect(
    name="CKK_EC_MONTGOMERY",
    key_type=_CKK_EC_MONTGOMERY,
    ec_params=(_OID, _NAME, _OPENPGP_OID),
    generate=_CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
)
SOFTHSM = Dialect(
    name="SoftHSM 2",
    key_type=_CKK_EC_EDWARDS,
    ec_params=(_OID, _NAME),
    generate=_CKM_EC_EDWARDS_KEY_PAIR_GEN,
)
# Every token with elliptic curves lists CKM_EC_KEY_PAIR_GEN: whether it has this curve, only trying tells.
NSS = Dialect(
    name="NSS",
    key_type=_CKK_EC,
    ec_params=(_NSS_OID, _OID),
    generate=_CKM_EC_KEY_PAIR_GEN,
    decisive=False,
)

DIALECTS: tuple[Dialect, ...] = (STANDARD, SOFTHSM, NSS)


def dialect_of_key(key_type: int | None, ec_params: bytes | None) -> Dialect | None:
    """Return the dialect of a key with this CKA_KEY_TYPE and CKA_EC_PARAMS, None when it is no X25519 key we know."""
    for dialect in DIALECTS:
        if key_type == dialect.key_type and ec_params in dialect.ec_params:
            return dialect
    return None


def dialect_of_token(mechanisms: frozenset[int]) -> Dialect | None:
    """Return the dialect that a mechanism list (CKM_ values) proves by itself, None when it proves none.

    None does not mean that the token cannot do X25519: `dialects_to_try` are then worth a try, and a key made by
    other means may be there (an OpenPGP card lists no key generation at all).
    """
    return next((dialect for dialect in dialects_to_try(mechanisms) if dialect.decisive), None)


def dialects_to_try(mechanisms: frozenset[int]) -> tuple[Dialect, ...]:
    """Return the dialects in which a token that lists `mechanisms` (CKM_ values) may make a key, the surest first."""
    return tuple(dialect for dialect in DIALECTS if {dialect.derive, dialect.generate} <= mechanisms)


def parse_point(value: bytes) -> bytes | None:
    """Return the 32 bytes of a CKA_EC_POINT in any form seen: raw, 0420 (octet string) or 40 (prefix); else None."""
    if len(value) == 32:
        return value
    if len(value) == 34 and value[:2] == b"\x04\x20":
        return value[2:]
    if len(value) == 33 and value[0] == 0x40:
        return value[1:]
    return None
