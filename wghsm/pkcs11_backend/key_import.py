"""Bringing a private key that exists outside into the token: what `wghsm key import` does.

    private key (32 bytes, the caller's) -> C_CreateObject in the token's dialect -> derive with the base point
    -> compared with the public key that software computes -> kept, or destroyed again

The token then says LOCAL, ALWAYS_SENSITIVE and NEVER_EXTRACTABLE false (PKCS11.md section 4), and says so for good.
"""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wghsm.pkcs11_backend._labels import refuse_taken
from wghsm.pkcs11_backend._made import new_identity
from wghsm.pkcs11_backend._objects import CKA, CKO_PRIVATE_KEY, PrivateKey
from wghsm.pkcs11_backend.dialect import CKR_SPELLING, dialects_to_try
from wghsm.pkcs11_backend.errors import CurveUnsupported, KeyUnfit, TokenFault
from wghsm.pkcs11_backend.pool import TokenPool

__all__ = ["expect_key", "import_key"]


def import_key(pool: TokenPool, label: str, private: bytearray, *, wrappable: bool = False) -> PrivateKey:
    """Store the X25519 private key `private` (32 bytes, clamped or not) as `label`: derive-only, never readable.

    With `wrappable` it may leave again under a wrapping key (CKA_EXTRACTABLE), which a backup needs. `private` stays
    the caller's to wipe. Nothing stays in the token when this raises LabelTaken, CurveUnsupported, KeyUnfit,
    ValueError or TokenFault.
    """
    if len(private) != 32:
        raise ValueError("a private key has 32 bytes")
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    refused = ""
    with pool.control() as calls:
        refuse_taken(calls, pool.token_name, label)
        for dialect, ec_params in [
            (one, spelling) for one in dialects_to_try(pool.mechanisms) for spelling in one.ec_params
        ]:
            try:
                handle = calls.create(
                    (
                        (CKA["CLASS"], CKO_PRIVATE_KEY),
                        (CKA["KEY_TYPE"], dialect.key_type),
                        (CKA["EC_PARAMS"], ec_params),
                        (CKA["VALUE"], private),
                        *((CKA[name], True) for name in ("TOKEN", "PRIVATE", "SENSITIVE", "DERIVE")),
                        (CKA["EXTRACTABLE"], wrappable),
                        *((CKA[name], False) for name in ("SIGN", "DECRYPT", "UNWRAP")),
                        (CKA["LABEL"], label.encode()),
                        (CKA["ID"], new_identity()),
                    )
                )
            except TokenFault as fault:
                if fault.ckr not in CKR_SPELLING:
                    raise
                refused = refused or fault.name
                continue
            try:
                return expect_key(pool, label, public)
            except CurveUnsupported as fault:
                # Taken for another curve (NSS does that): the next spelling may be the right one.
                calls.destroy(handle)
                refused = refused or str(fault)
            except BaseException:
                calls.destroy(handle)
                raise
    raise CurveUnsupported(
        f"{pool.token_name} takes no X25519 key from outside"
        + (f" ({refused})" if refused else "")
        + "; use the token's own tools for it, or make a key in the token: wghsm key generate"
    )


def expect_key(pool: TokenPool, label: str, public: bytes) -> PrivateKey:
    """Find the key `label` by a derive; it must have this public key (32 bytes). Raises KeyUnfit and as `find_key`."""
    key = pool.find_key(label)
    if key.public_key != public:
        raise KeyUnfit(f"{pool.token_name} made another key of what it was given; nothing was kept")
    return key
