"""Making and inspecting keys and PSKs in a token: what the `wghsm key|psk` commands do; `tokens` has whole tokens.

Keys are generated inside the token, may only derive and can never be read; what `show` reports is read back from
the token, and an attribute that the token will not give is None, never a guess. Writing needs a pool opened with
read_write=True.
"""

from dataclasses import dataclass

from wghsm.pkcs11_backend import _objects
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._ckr import CKR_READ_ONLY
from wghsm.pkcs11_backend._labels import refuse_taken
from wghsm.pkcs11_backend._made import Made, made, new_identity
from wghsm.pkcs11_backend._objects import (
    CKA,
    CKK_GENERIC_SECRET,
    CKO_PRIVATE_KEY,
    CKO_PUBLIC_KEY,
    CKO_SECRET_KEY,
    SECRET_USES,
    PrivateKey,
    StoredPsk,
)
from wghsm.pkcs11_backend.dialect import (
    CKR_SPELLING,
    Dialect,
    dialect_of_key,
    dialects_to_try,
)
from wghsm.pkcs11_backend.errors import (
    AmbiguousKey,
    CurveUnsupported,
    KeyNotFound,
    KeyUnfit,
    TokenFault,
)
from wghsm.pkcs11_backend.pool import TokenPool

__all__ = [
    "KeyReport",
    "SecretReport",
    "derive_root",
    "destroy_key",
    "destroy_secret",
    "generate_key",
    "list_keys",
    "list_secrets",
    "new_identity",
    "put_psk",
    "show_key",
]

_CKM_GENERIC_SECRET_KEY_GEN = 0x350
_CKM_SHA256_HMAC = 0x251
_PROOF = (
    "SENSITIVE",
    "ALWAYS_SENSITIVE",
    "EXTRACTABLE",
    "NEVER_EXTRACTABLE",
    "LOCAL",
    "PRIVATE",
    "DERIVE",
    "SIGN",
    "DECRYPT",
    "UNWRAP",
    "MODIFIABLE",
)
_SECRET_PROOF = ("SENSITIVE", "ALWAYS_SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "LOCAL", "PRIVATE", *SECRET_USES)


@dataclass(frozen=True)
class KeyReport:
    """A private key as the token describes it; None means that the token does not state it.

    `public_key` is 32 bytes; `value_readable` is the outcome of asking for CKA_VALUE's length.
    """

    label: str
    id: str
    key_type: int | None
    dialect: str | None
    public_key: bytes | None
    public_key_checked: bool
    attributes: dict[str, bool | None]
    value_readable: bool
    made: Made | None = None


@dataclass(frozen=True)
class SecretReport:
    """A secret object: `kind` is psk-root, psk or other, by what the token lets it do."""

    label: str
    id: str
    kind: str
    length: int | None
    attributes: dict[str, bool | None]
    made: Made | None = None


def generate_key(pool: TokenPool, label: str, *, wrappable: bool = False, identity: bytes | None = None) -> PrivateKey:
    """Generate an X25519 key pair in the token: non-extractable, derive-only; proved by a derive.

    With `wrappable` it may leave under a wrapping key (CKA_EXTRACTABLE), which a backup needs; it stays sensitive.
    `identity` is its CKA_ID, a `new_identity` if left out.
    Raises LabelTaken, CurveUnsupported, TokenFault.
    """
    candidates = dialects_to_try(pool.mechanisms)
    if not candidates:
        raise CurveUnsupported(
            f"{pool.token_name} offers no X25519 key generation that wghsm knows; make the key with the token's own "
            "tools, or use another token (SoftHSM 2 works, see the list of tokens in the documentation)"
        )
    with pool.control() as calls:
        refuse_taken(calls, pool.token_name, label)
        refused = ""
        for dialect, ec_params in [(one, params) for one in candidates for params in one.ec_params]:
            try:
                handles = _generate_pair(
                    calls, dialect, ec_params, label, identity or new_identity(), wrappable=wrappable
                )
            except TokenFault as fault:
                if fault.ckr not in CKR_SPELLING:
                    raise
                refused = refused or fault.name
                continue
            try:
                return pool.find_key(label)
            except CurveUnsupported as fault:
                # A token may take the spelling for another curve: what it made is no use and must not stay.
                for handle in handles:
                    calls.destroy(handle)
                refused = refused or str(fault)
    raise CurveUnsupported(
        f"{pool.token_name} refuses to make an X25519 key ({refused}; a FIPS mode does that); use another token "
        "(SoftHSM 2 works, see the list of tokens in the documentation)"
    )


def _generate_pair(
    calls: Calls, dialect: Dialect, ec_params: bytes, label: str, identity: bytes, *, wrappable: bool
) -> tuple[int, int]:
    common = ((CKA["TOKEN"], True), (CKA["LABEL"], label.encode()), (CKA["ID"], identity))
    return calls.generate_pair(
        dialect.generate,
        public=(
            (CKA["CLASS"], CKO_PUBLIC_KEY),
            (CKA["KEY_TYPE"], dialect.key_type),
            (CKA["EC_PARAMS"], ec_params),
            *common,
            *((CKA[name], False) for name in ("PRIVATE", "VERIFY", "ENCRYPT", "WRAP")),
        ),
        private=(
            (CKA["CLASS"], CKO_PRIVATE_KEY),
            (CKA["KEY_TYPE"], dialect.key_type),
            *common,
            *((CKA[name], True) for name in ("PRIVATE", "SENSITIVE", "DERIVE")),
            (CKA["EXTRACTABLE"], wrappable),
            *((CKA[name], False) for name in ("SIGN", "DECRYPT", "UNWRAP", "MODIFIABLE")),
        ),
    )


def list_keys(pool: TokenPool) -> list[KeyReport]:
    """Describe every private key of the token. Raises TokenFault."""
    with pool.control() as calls:
        return [_describe_key(calls, handle) for handle in calls.find(((CKA["CLASS"], CKO_PRIVATE_KEY),))]


def show_key(pool: TokenPool, label: str) -> KeyReport:
    """Describe the key `label` and prove its public key by a derive; raises as `TokenPool.find_key`."""
    key = pool.find_key(label)
    with pool.control() as calls:
        return _describe_key(calls, key.handle, proved=key.public_key)


def destroy_key(pool: TokenPool, label: str, identity: bytes | None = None) -> int:
    """Destroy the key pair `label` (with CKA_ID `identity` where several share it); return the objects destroyed.

    Raises KeyNotFound, AmbiguousKey, TokenFault.
    """
    with pool.control() as calls:
        private = _labelled(calls, CKO_PRIVATE_KEY, label, identity)
        public = _labelled(calls, CKO_PUBLIC_KEY, label, identity)
        if not private and not public:
            there = ", ".join(sorted({repr(report.label) for report in list_keys(pool)})) or "none"
            raise KeyNotFound(f"{pool.token_name}: no key with the label {label!r}; there is: {there}")
        if len(private) > 1:
            ids = _objects.ids_of(calls, private)
            raise AmbiguousKey(
                f"{pool.token_name}: {len(private)} keys have the label {label!r}; add --id, one of {ids}"
            )
        for handle in private + public:
            try:
                calls.destroy(handle)
            except TokenFault as fault:
                if fault.level or fault.ckr in CKR_READ_ONLY:
                    raise
                remedy = "it does not let its user destroy the key; use the token's own tools, with its administrator"
                raise TokenFault(fault.ckr, f"destroying key {label!r}", remedy) from None
        return len(private) + len(public)


def list_secrets(pool: TokenPool) -> list[SecretReport]:
    """Describe every secret object of the token (roots of derived PSKs, PSK objects). Raises TokenFault."""
    with pool.control() as calls:
        return [_describe_secret(calls, handle) for handle in calls.find(((CKA["CLASS"], CKO_SECRET_KEY),))]


def derive_root(pool: TokenPool, label: str) -> SecretReport:
    """Generate the root of derived PSKs in the token: 32 bytes, non-extractable, may only sign.

    Raises LabelTaken, KeyUnfit (no HMAC), TokenFault.
    """
    if not {_CKM_GENERIC_SECRET_KEY_GEN, _CKM_SHA256_HMAC} <= pool.mechanisms:
        raise KeyUnfit(
            f"{pool.token_name} offers no CKM_SHA256_HMAC with keys of its own, which derived PSKs need; "
            "use PSK objects where it holds them, or another token"
        )
    with pool.control() as calls:
        refuse_taken(calls, pool.token_name, label)
        handle = calls.generate_key(
            _CKM_GENERIC_SECRET_KEY_GEN,
            (
                (CKA["CLASS"], CKO_SECRET_KEY),
                (CKA["KEY_TYPE"], CKK_GENERIC_SECRET),
                (CKA["VALUE_LEN"], 32),
                (CKA["TOKEN"], True),
                (CKA["PRIVATE"], True),
                (CKA["SENSITIVE"], True),
                (CKA["EXTRACTABLE"], False),
                *((CKA[use], use == "SIGN") for use in SECRET_USES),
                (CKA["MODIFIABLE"], False),
                (CKA["LABEL"], label.encode()),
                (CKA["ID"], new_identity()),
            ),
        )
        pool.find_root(label)
        return _describe_secret(calls, handle)


def put_psk(pool: TokenPool, label: str, psk: bytearray, *, replace: bool = False) -> StoredPsk:
    """Store 32 bytes as a PSK object; an object of that label is replaced only with `replace`.

    Raises LabelTaken, ValueError, TokenFault.
    """
    with pool.control() as calls:
        if not replace:
            refuse_taken(calls, pool.token_name, label)
        return pool.put_psk(label, psk)


def destroy_secret(pool: TokenPool, label: str, identity: bytes | None = None) -> None:
    """Destroy the one secret object `label`, root or PSK (with CKA_ID `identity` where several share the label).

    Raises KeyNotFound, AmbiguousKey, TokenFault.
    """
    with pool.control() as calls:
        found = _labelled(calls, CKO_SECRET_KEY, label, identity)
        if not found:
            there = ", ".join(sorted({repr(report.label) for report in list_secrets(pool)})) or "none"
            raise KeyNotFound(f"{pool.token_name}: no secret with the label {label!r}; there is: {there}")
        if len(found) > 1:
            ids = _objects.ids_of(calls, found)
            raise AmbiguousKey(
                f"{pool.token_name}: {len(found)} secrets have the label {label!r}; add --id, one of {ids}"
            )
        calls.destroy(found[0])


def _labelled(calls: Calls, kind: int, label: str, identity: bytes | None) -> list[int]:
    wanted: list[tuple[int, bool | int | bytes | bytearray]] = [(CKA["CLASS"], kind), (CKA["LABEL"], label.encode())]
    if identity is not None:
        wanted.append((CKA["ID"], identity))
    return calls.find(wanted)


def _describe_key(calls: Calls, handle: int, proved: bytes | None = None) -> KeyReport:
    key_type = _objects.number(calls, handle, "KEY_TYPE")
    dialect = dialect_of_key(key_type, calls.attribute(handle, CKA["EC_PARAMS"]))
    label = _objects.text(calls, handle, "LABEL") or ""
    public = proved if proved is not None or dialect is None else _objects.stated_public(calls, handle, label)
    return KeyReport(
        label=label,
        id=(calls.attribute(handle, CKA["ID"]) or b"").hex(),
        key_type=key_type,
        dialect=None if dialect is None else dialect.name,
        public_key=public,
        public_key_checked=proved is not None,
        attributes={name: _objects.flag(calls, handle, name) for name in _PROOF},
        value_readable=calls.gives_value(handle),
        made=made(calls, handle),
    )


def _describe_secret(calls: Calls, handle: int) -> SecretReport:
    attributes = {name: _objects.flag(calls, handle, name) for name in _SECRET_PROOF}
    if attributes["SIGN"] is True and attributes["EXTRACTABLE"] is False and attributes["SENSITIVE"] is True:
        kind = "psk-root"
    else:
        kind = "psk" if _objects.is_readable_psk(calls, handle) else "other"
    return SecretReport(
        label=_objects.text(calls, handle, "LABEL") or "",
        id=(calls.attribute(handle, CKA["ID"]) or b"").hex(),
        kind=kind,
        length=_objects.number(calls, handle, "VALUE_LEN"),
        attributes=attributes,
        made=made(calls, handle),
    )
