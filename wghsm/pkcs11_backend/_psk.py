"""PSKs at the token: what its root signs for a derived one, and PSK objects, written and destroyed.

Called by `pool`. What exists is found by `_objects`, and read by the pool's sessions.
"""

from wghsm.pkcs11_backend._calls import Calls, Template
from wghsm.pkcs11_backend._ckr import CKR_READ_ONLY
from wghsm.pkcs11_backend._made import new_identity
from wghsm.pkcs11_backend._objects import CKA, CKK_GENERIC_SECRET, CKO_SECRET_KEY, SECRET_USES, is_readable_psk
from wghsm.pkcs11_backend.errors import KeyUnfit, LabelTaken, TokenFault

__all__ = ["destroy_object", "psk_message", "put_object"]

_PSK_CONTEXT = b"wghsm-psk-v1\x00"


def psk_message(gateway_public: bytes, peer_public: bytes, epoch: int) -> bytes:
    """Return what the root signs for a derived PSK (SEAMS.md); keys of 32 bytes, epoch as u32. Raises ValueError."""
    if len(gateway_public) != 32 or len(peer_public) != 32:
        raise ValueError("a public key has 32 bytes")
    if not 0 <= epoch < 2**32:
        raise ValueError("a PSK epoch is a u32")
    return _PSK_CONTEXT + gateway_public + peer_public + epoch.to_bytes(4, "big")


def put_object(calls: Calls, token: str, label: str, psk: bytearray) -> None:
    """Store 32 bytes as the PSK object `label`, in place of one that is there; `token` names it in messages.

    Raises as `TokenPool.put_psk`.
    """
    if len(psk) != 32:
        raise ValueError("a PSK has 32 bytes")
    before = _find(calls, token, label)
    template: Template = (
        (CKA["CLASS"], CKO_SECRET_KEY),
        (CKA["KEY_TYPE"], CKK_GENERIC_SECRET),
        (CKA["TOKEN"], True),
        (CKA["PRIVATE"], True),
        (CKA["SENSITIVE"], False),
        (CKA["EXTRACTABLE"], True),
        *((CKA[use], False) for use in SECRET_USES),
        (CKA["MODIFIABLE"], False),
        (CKA["LABEL"], label.encode()),
        (CKA["ID"], new_identity()),
        (CKA["VALUE"], psk),
    )
    try:
        new = calls.create(template)
    except TokenFault as fault:
        if fault.level or fault.ckr in CKR_READ_ONLY:
            raise
        raise KeyUnfit(f"{token} takes no PSK objects ({fault.name}); use derived PSKs, or another token") from None
    # Asked before the old one goes: some tokens (NSS) store any secret as a sensitive one.
    if not is_readable_psk(calls, new):
        calls.destroy(new)
        raise KeyUnfit(
            f"{token} keeps every secret unreadable, so it holds no PSK objects; "
            "use derived PSKs (wghsm psk derive-root)"
        )
    for handle in before:
        calls.destroy(handle)


def destroy_object(calls: Calls, token: str, label: str) -> bool:
    """Destroy the PSK object `label`; False when there is none. Raises LabelTaken, TokenFault."""
    handles = _find(calls, token, label)
    for handle in handles:
        calls.destroy(handle)
    return bool(handles)


def _find(calls: Calls, token: str, label: str) -> list[int]:
    handles = calls.find(((CKA["CLASS"], CKO_SECRET_KEY), (CKA["LABEL"], label.encode())))
    if not all(is_readable_psk(calls, handle) for handle in handles):
        raise LabelTaken(f"{token}: {label!r} is a secret but no PSK object; choose another label")
    return handles
