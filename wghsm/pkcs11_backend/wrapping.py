"""Wrapped PSKs: AES-256-GCM under a key that never leaves the token, with the ciphertext outside of it.

    make_wrap_key, find_wrap_key        a non-extractable AES key that may only encrypt and decrypt
    wrap_psk      32 bytes -> 60 bytes  initial vector, ciphertext, tag
    unwrap_psk    60 bytes -> 32 bytes  for the caller to wipe
    seal_sample, opens_sample           whether the key works, and is the one that a twin of the token has

What is authenticated with each: a version, the gateway's and the peer's public key, and the epoch. So a ciphertext
cannot be given to another peer, to another gateway or out as another epoch. Called by the custodian and by the
commands; writing needs a pool opened with read_write=True.
"""

import os
import threading
from dataclasses import dataclass, field

from wghsm.pkcs11_backend import _objects
from wghsm.pkcs11_backend._gcm import CKM_AES_GCM, IV_LENGTH, gcm_open, gcm_seal
from wghsm.pkcs11_backend._labels import refuse_taken
from wghsm.pkcs11_backend._made import new_identity
from wghsm.pkcs11_backend._objects import CKA, CKO_SECRET_KEY
from wghsm.pkcs11_backend._worker_session import WorkerSession
from wghsm.pkcs11_backend.errors import AmbiguousKey, KeyNotFound, KeyUnfit, TokenFault
from wghsm.pkcs11_backend.pool import TokenPool
from wghsm.wipe import wipe

__all__ = [
    "WrapKey",
    "find_wrap_key",
    "make_wrap_key",
    "opens_sample",
    "seal_sample",
    "unwrap_psk",
    "wrap_message",
    "wrap_psk",
]

_CONTEXT = b"wghsm-psk-wrap-v1\x00"
_CKM_AES_KEY_GEN = 0x1080
_CKK_AES = 0x1F
# A point of low order: no gateway and no peer has it, so a sample is never anybody's PSK.
_NOBODY = bytes(32)
_VAGUE = frozenset({0x005, 0x006})  # CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED


@dataclass(eq=False)
class WrapKey:
    """The key with the label `label`; its handle is found anew after the pool has recovered."""

    label: str
    handle: int
    pool: TokenPool = field(repr=False)
    generation: int
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


def wrap_message(gateway_public: bytes, peer_public: bytes, epoch: int) -> bytes:
    """What is authenticated with a wrapped PSK; keys of 32 bytes, epoch as u32. Raises ValueError."""
    if len(gateway_public) != 32 or len(peer_public) != 32:
        raise ValueError("a public key has 32 bytes")
    if not 0 <= epoch < 2**32:
        raise ValueError("a PSK epoch is a u32")
    return _CONTEXT + gateway_public + peer_public + epoch.to_bytes(4, "big")


def make_wrap_key(pool: TokenPool, label: str) -> WrapKey:
    """Generate the wrapping key in the token. Raises LabelTaken, UriError, KeyUnfit (no AES-GCM), TokenFault."""
    if not {CKM_AES_GCM, _CKM_AES_KEY_GEN} <= pool.mechanisms:
        raise KeyUnfit(f"{pool.token_name} offers no CKM_AES_GCM, which wrapped PSKs need; use derived PSKs")
    with pool.control() as calls:
        refuse_taken(calls, pool.token_name, label)
        calls.generate_key(
            _CKM_AES_KEY_GEN,
            (
                (CKA["CLASS"], CKO_SECRET_KEY),
                (CKA["KEY_TYPE"], _CKK_AES),
                (CKA["VALUE_LEN"], 32),
                (CKA["TOKEN"], True),
                (CKA["PRIVATE"], True),
                (CKA["SENSITIVE"], True),
                (CKA["EXTRACTABLE"], False),
                *((CKA[use], use in ("ENCRYPT", "DECRYPT")) for use in _objects.SECRET_USES),
                (CKA["MODIFIABLE"], False),
                (CKA["LABEL"], label.encode()),
                (CKA["ID"], new_identity()),
            ),
        )
        return find_wrap_key(pool, label)


def find_wrap_key(pool: TokenPool, label: str) -> WrapKey:
    """Find the wrapping key; it must not be readable. Raises KeyNotFound, AmbiguousKey, KeyUnfit, TokenFault."""
    with pool.control() as calls:
        found = calls.find(((CKA["CLASS"], CKO_SECRET_KEY), (CKA["LABEL"], label.encode())))
        if not found and CKM_AES_GCM not in pool.mechanisms:
            raise KeyUnfit(
                f"{pool.token_name} offers no CKM_AES_GCM, which wrapped PSKs need, and has no key {label!r}; "
                "give the peers another kind of PSK or none, and take psk_wrap_key out of the file"
            )
        if not found:
            raise KeyNotFound(
                f"{pool.token_name}: no secret with the label {label!r}, which token.psk_wrap_key names; "
                "correct it, or make the key: wghsm psk wrap --make-key -c GATEWAY.yaml"
            )
        if len(found) > 1:
            raise AmbiguousKey(
                f"{pool.token_name}: {len(found)} secrets have the label {label!r} (ids: "
                f"{_objects.ids_of(calls, found)}); keep one: wghsm psk destroy {label} --id ID"
            )
        handle = found[0]
        if _objects.number(calls, handle, "KEY_TYPE") != _CKK_AES or _objects.flag(calls, handle, "DECRYPT") is False:
            raise KeyUnfit(f"{pool.token_name}: secret {label!r} is no AES key that may decrypt")
        if (
            _objects.flag(calls, handle, "EXTRACTABLE") is not False
            or _objects.flag(calls, handle, "SENSITIVE") is not True
        ):
            raise KeyUnfit(f"{pool.token_name}: secret {label!r} can be read out, so it protects nothing; make another")
        return WrapKey(label, handle, pool, pool.generation)


def wrap_psk(
    pool: TokenPool, key: WrapKey, gateway_public: bytes, peer_public: bytes, epoch: int, psk: bytearray
) -> bytes:
    """Seal 32 bytes `psk` for the peer and epoch: 60 bytes, opened once as a proof. Raises KeyUnfit, TokenFault."""
    aad = wrap_message(gateway_public, peer_public, epoch)
    with pool.session() as session:
        sealed = gcm_seal(pool.functions, session.handle, _handle(pool, key), psk, aad, os.urandom(IV_LENGTH))
    opened = unwrap_psk(pool, key, gateway_public, peer_public, epoch, sealed)
    wipe(opened)
    return sealed


def unwrap_psk(
    pool: TokenPool, key: WrapKey, gateway_public: bytes, peer_public: bytes, epoch: int, sealed: bytes
) -> bytearray:
    """Open a wrapped PSK of 60 bytes: 32 bytes, which the caller wipes. Raises KeyUnfit, TokenFault."""
    aad = wrap_message(gateway_public, peer_public, epoch)
    with pool.session() as session:
        handle = _handle(pool, key)
        try:
            opened = gcm_open(pool.functions, session.handle, handle, sealed, aad)
        except TokenFault as fault:
            # SoftHSM has no better word for a wrong tag: what it sealed itself tells who is to blame.
            if fault.ckr not in _VAGUE or not _opens_its_own(pool, session, handle):
                raise
            opened = None
    if opened is None:
        raise KeyUnfit(
            f"{pool.token_name}: a wrapped PSK of epoch {epoch} does not open with {key.label!r}: it was made with "
            "another key, for another peer or gateway, or was changed; wrap it again: wghsm psk wrap"
        )
    return opened


def seal_sample(pool: TokenPool, key: WrapKey) -> bytes:
    """Seal 32 bytes that are no secret, and open them again as a proof: 60 bytes for `opens_sample`.

    Raises KeyUnfit where the token does no AES-GCM with the key, and TokenFault, which may pass by itself.
    """
    try:
        return wrap_psk(pool, key, _NOBODY, _NOBODY, 0, bytearray(32))
    except TokenFault as fault:
        if fault.level:
            raise
        raise KeyUnfit(
            f"{pool.token_name} computes no AES-GCM with secret {key.label!r} ({fault.name}), which wrapped PSKs need; "
            "use PSKs of another kind, or another token"
        ) from None


def opens_sample(pool: TokenPool, key: WrapKey, sealed: bytes) -> bool:
    """Whether `key` is the one that `sealed` was made with by `seal_sample`, here or in a twin. Raises TokenFault."""
    try:
        wipe(unwrap_psk(pool, key, _NOBODY, _NOBODY, 0, sealed))
    except KeyUnfit:
        return False
    return True


def _opens_its_own(pool: TokenPool, session: WorkerSession, handle: int) -> bool:
    sealed = gcm_seal(pool.functions, session.handle, handle, bytearray(32), b"", os.urandom(IV_LENGTH))
    opened = gcm_open(pool.functions, session.handle, handle, sealed, b"")
    return opened is not None and not any(opened)


def _handle(pool: TokenPool, key: WrapKey) -> int:
    with key.lock:
        if key.pool is not pool or key.generation != pool.generation:
            found = find_wrap_key(pool, key.label)
            key.handle, key.pool, key.generation = found.handle, pool, found.generation
        return key.handle
