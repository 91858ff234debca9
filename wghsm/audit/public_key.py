"""An audit key's public half, in software: is the signature of a checkpoint good? Called by verify, and nobody else."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from .statement import Statement

__all__ = ["PublicKey"]


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
