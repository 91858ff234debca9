"""The audit key: a key of the token that signs checkpoints of the audit log, and does nothing else.

    generate_audit_key    Ed25519 (CKM_EDDSA) where the token has it, else ECDSA over P-256 and SHA-256 (CKM_ECDSA)
    find_audit_key        finds it by its label, and proves by a signature that it belongs to its public key
    sign                  bytes -> 64 bytes: RFC 8032's signature, or r and s of 32 bytes each
    AuditKey.pem          its public key for whoever verifies (SubjectPublicKeyInfo)

Called by the custodian and by the commands; writing needs a pool opened with read_write=True.
"""

import hashlib
import os
import threading
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wghsm.pkcs11_backend import _objects
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._labels import refuse_taken
from wghsm.pkcs11_backend._made import new_identity
from wghsm.pkcs11_backend._objects import CKA, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY
from wghsm.pkcs11_backend.dialect import CKR_SPELLING, parse_point
from wghsm.pkcs11_backend.errors import AmbiguousKey, KeyNotFound, KeyUnfit, TokenFault
from wghsm.pkcs11_backend.pool import TokenPool

__all__ = ["SIGNATURE_LENGTH", "AuditKey", "find_audit_key", "generate_audit_key", "is_signature", "sign"]

SIGNATURE_LENGTH = 64
_PROOF = b"wghsm audit key proof v1\x00"


@dataclass(frozen=True)
class Scheme:
    """One way to sign: `ec_params` are the CKA_EC_PARAMS accepted, in the order tried when a key is made."""

    name: str
    key_type: int
    ec_params: tuple[bytes, ...]
    generate: int
    sign: int


# id-Ed25519 of RFC 8410, and PrintableString "edwards25519"; the curve P-256 by its OID.
_ED25519 = Scheme(
    "ed25519", 0x40, (bytes.fromhex("06032b6570"), bytes.fromhex("130c656477617264733235353139")), 0x1055, 0x1057
)
_P256 = Scheme("ecdsa-p256", 0x03, (bytes.fromhex("06082a8648ce3d030107"),), 0x1040, 0x1041)
_SCHEMES = (_ED25519, _P256)


@dataclass(eq=False)
class AuditKey:
    """The key with the label `label`; its handle is found anew after the pool has recovered."""

    label: str
    handle: int
    scheme: Scheme = field(repr=False)
    public_key: Ed25519PublicKey | EllipticCurvePublicKey = field(repr=False)
    pool: TokenPool = field(repr=False)
    generation: int
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def algorithm(self) -> str:
        """The name of the scheme: ed25519 or ecdsa-p256."""
        return self.scheme.name

    @property
    def spki(self) -> bytes:
        """The public key as SubjectPublicKeyInfo, in DER."""
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def pem(self) -> str:
        """The public key as SubjectPublicKeyInfo, in PEM."""
        return self.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `spki` in hex."""
        return hashlib.sha256(self.spki).hexdigest()


def generate_audit_key(pool: TokenPool, label: str) -> AuditKey:
    """Generate the key in the token: it may only sign, and cannot leave. Raises LabelTaken, KeyUnfit, TokenFault."""
    offered = [scheme for scheme in _SCHEMES if {scheme.generate, scheme.sign} <= pool.mechanisms]
    refused = "it lists neither CKM_EDDSA nor CKM_ECDSA with keys of its own"
    with pool.control() as calls:
        refuse_taken(calls, pool.token_name, label)
        for scheme, ec_params in [(one, params) for one in offered for params in one.ec_params]:
            try:
                handles = _generate(calls, scheme, ec_params, label)
            except TokenFault as fault:
                if fault.ckr not in CKR_SPELLING:
                    raise
                refused = fault.name
                continue
            try:
                return find_audit_key(pool, label)
            except KeyUnfit as fault:
                # What signs otherwise than the standard says is no use and must not stay.
                for handle in handles:
                    calls.destroy(handle)
                refused = str(fault)
    raise KeyUnfit(
        f"{pool.token_name} makes no key to sign checkpoints with ({refused}); leave audit.key out of the gateway "
        "file to keep an unsigned log, or use another token"
    )


def find_audit_key(pool: TokenPool, label: str) -> AuditKey:
    """Find the audit key and prove it by a signature. Raises KeyNotFound, AmbiguousKey, KeyUnfit, TokenFault."""
    with pool.control() as calls:
        found = calls.find(((CKA["CLASS"], CKO_PRIVATE_KEY), (CKA["LABEL"], label.encode())))
        if not found:
            raise KeyNotFound(
                f"{pool.token_name}: no private key with the label {label!r} to sign checkpoints with; "
                f"correct it, or make the key: wghsm audit key generate {label}"
            )
        if len(found) > 1:
            raise AmbiguousKey(
                f"{pool.token_name}: {len(found)} private keys have the label {label!r} "
                f"(ids: {_objects.ids_of(calls, found)}); keep one: wghsm key destroy {label} --id ID"
            )
        handle = found[0]
        scheme = _scheme_of(calls, handle)
        if scheme is None or _objects.flag(calls, handle, "SIGN") is False:
            raise KeyUnfit(
                f"{pool.token_name}: private key {label!r} is no Ed25519 or P-256 key that may sign; "
                "make one: wghsm audit key generate"
            )
        if (
            _objects.flag(calls, handle, "EXTRACTABLE") is True
            or _objects.flag(calls, handle, "SENSITIVE") is False
            or calls.gives_value(handle)
        ):
            raise KeyUnfit(f"{pool.token_name}: private key {label!r} can leave the token, so it proves nothing")
        public = _public(calls, pool.token_name, handle, label, scheme)
        key = AuditKey(label, handle, scheme, public, pool, pool.generation)
        proof = _PROOF + os.urandom(32)
        if not is_signature(key, _sign(calls, key, proof), proof):
            raise KeyUnfit(
                f"{pool.token_name}: what {label!r} signs does not verify with its public key object; destroy the key "
                "and make another"
            )
        return key


def sign(pool: TokenPool, key: AuditKey, data: bytes) -> bytes:
    """Sign `data` with the key: 64 bytes. `pool` may be another than the key was found in, if it holds the same label.

    Then `key` becomes the key of that pool. Raises as `find_audit_key`.
    """
    with key.lock:
        if key.pool is not pool or key.generation != pool.generation:
            found = find_audit_key(pool, key.label)
            key.handle, key.scheme, key.public_key = found.handle, found.scheme, found.public_key
            key.pool, key.generation = pool, found.generation
        with pool.session() as session:
            return _checked(session.sign(key.scheme.sign, key.handle, _input(key, data)))


def is_signature(key: AuditKey, signature: bytes, data: bytes) -> bool:
    """Whether `signature` (64 bytes) is one of `data` by this key, checked in software."""
    if len(signature) != SIGNATURE_LENGTH:
        return False
    try:
        if isinstance(key.public_key, Ed25519PublicKey):
            key.public_key.verify(signature, data)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.public_key.verify(encode_dss_signature(r, s), data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _generate(calls: Calls, scheme: Scheme, ec_params: bytes, label: str) -> tuple[int, int]:
    common = (
        (CKA["KEY_TYPE"], scheme.key_type),
        (CKA["TOKEN"], True),
        (CKA["LABEL"], label.encode()),
        (CKA["ID"], new_identity()),
    )
    return calls.generate_pair(
        scheme.generate,
        public=(
            (CKA["CLASS"], CKO_PUBLIC_KEY),
            (CKA["EC_PARAMS"], ec_params),
            *common,
            (CKA["VERIFY"], True),
            *((CKA[name], False) for name in ("PRIVATE", "ENCRYPT", "WRAP")),
        ),
        private=(
            (CKA["CLASS"], CKO_PRIVATE_KEY),
            *common,
            *((CKA[name], True) for name in ("PRIVATE", "SENSITIVE", "SIGN")),
            *((CKA[name], False) for name in ("EXTRACTABLE", "DERIVE", "DECRYPT", "UNWRAP", "MODIFIABLE")),
        ),
    )


def _scheme_of(calls: Calls, handle: int) -> Scheme | None:
    kind, params = _objects.number(calls, handle, "KEY_TYPE"), calls.attribute(handle, CKA["EC_PARAMS"])
    return next((one for one in _SCHEMES if one.key_type == kind and params in one.ec_params), None)


def _public(
    calls: Calls, token: str, handle: int, label: str, scheme: Scheme
) -> Ed25519PublicKey | EllipticCurvePublicKey:
    identity = calls.attribute(handle, CKA["ID"])
    wanted = ((CKA["CLASS"], CKO_PUBLIC_KEY), (CKA["LABEL"], label.encode()))
    for public in calls.find(wanted):
        other, point = calls.attribute(public, CKA["ID"]), calls.attribute(public, CKA["EC_POINT"])
        if point is None or (identity and other and identity != other):
            continue
        try:
            if scheme is _ED25519:
                return Ed25519PublicKey.from_public_bytes(parse_point(point) or b"")
            # In a DER octet string, as the standard wants it, or bare.
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point[2:] if len(point) == 67 else point)
        except ValueError:
            continue
    raise KeyUnfit(
        f"{token}: no public key object belongs to the private key {label!r}, so nobody could verify what it signs; "
        "make another key: wghsm audit key generate"
    )


def _input(key: AuditKey, data: bytes) -> bytes:
    return data if key.scheme is _ED25519 else hashlib.sha256(data).digest()


def _sign(calls: Calls, key: AuditKey, data: bytes) -> bytes:
    return _checked(calls.sign(key.scheme.sign, key.handle, _input(key, data)))


def _checked(signature: bytes) -> bytes:
    if len(signature) != SIGNATURE_LENGTH:
        raise KeyUnfit(f"token: a signature has {SIGNATURE_LENGTH} bytes, its own {len(signature)}")
    return signature
