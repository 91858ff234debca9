"""What a checkpoint's signature is made over, and whether it is good.

The statement is text, so that it can be checked without wghsm too (docs/audit.md has the openssl command):

    wghsm audit checkpoint v1
    stream wg0/gateway/6f1e...
    seq 4711
    hash 09af...
    time 2026-01-01T10:00:00.000000Z

Pure. Called by the chain, by the custodian (which builds the statement itself from its fields, so that it signs
nothing else) and by verify.
"""

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

__all__ = ["PublicKey", "Statement"]

_STREAM = re.compile(r"[A-Za-z0-9_=+.@-]{1,64}/[a-z]{1,16}/[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@dataclass(frozen=True)
class Statement:
    """Record `seq` of `stream` has the hash `hash` (64 hex digits), said at `time`.

    Raises ValueError for fields of another form, so that nothing else can be put into what is signed.
    """

    stream: str
    seq: int
    hash: str
    time: str

    def __post_init__(self) -> None:
        if not (
            _STREAM.fullmatch(self.stream)
            and _HASH.fullmatch(self.hash)
            and _TIME.fullmatch(self.time)
            and 0 <= self.seq < 2**63
        ):
            raise ValueError("no statement of a checkpoint")

    def to_bytes(self) -> bytes:
        """The bytes to sign."""
        return (
            f"wghsm audit checkpoint v1\nstream {self.stream}\nseq {self.seq}\nhash {self.hash}\ntime {self.time}\n"
        ).encode("ascii")


class PublicKey:
    """An audit key's public half: Ed25519, or ECDSA over P-256 with SHA-256."""

    def __init__(self, pem: bytes) -> None:
        """Take `pem`, a SubjectPublicKeyInfo. Raises ValueError."""
        try:
            key = load_pem_public_key(pem)
        except Exception as fault:
            raise ValueError("no public key in PEM (BEGIN PUBLIC KEY)") from fault
        if not isinstance(key, Ed25519PublicKey) and not (
            isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
        ):
            raise ValueError("an audit key is Ed25519 or ECDSA P-256, and this is neither")  # noqa: TRY004  (a value)
        self._key: Ed25519PublicKey | EllipticCurvePublicKey = key
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint = hashlib.sha256(spki).hexdigest()
        """SHA-256 of the SubjectPublicKeyInfo in DER, in hex."""

    def signed(self, statement: Statement, signature: bytes) -> bool:
        """Whether `signature` (64 bytes: RFC 8032's, or r and s) is this key's over `statement`."""
        if len(signature) != 64:
            return False
        data = statement.to_bytes()
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, data)
            else:
                r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                self._key.verify(encode_dss_signature(r, s), data, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True
