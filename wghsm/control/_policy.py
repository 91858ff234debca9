"""What a client of the configuration protocol may do with keys (SEAMS.md "Control protocol").

The private key is in the token: a zero key keeps it, the same key changes nothing, another one is refused.
A PSK in clear is refused, unless `authority: runtime` lets it go into the token; a zero PSK never clears one.
Pure; called by `_service` with each parsed Set.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING

# Loaded now: the code may be unreadable after the drop, and `from_private_bytes` imports this on first use.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from wghsm.ipc import messages as m

    from .uapi import Set

__all__ = ["holders", "names_private_key", "psk_label", "refusal"]

_ZERO = bytes(32)


def names_private_key(operation: Set) -> bool:
    """Whether it sets a private key, be it the gateway's own."""
    return operation.private_key is not None and not hmac.compare_digest(operation.private_key, _ZERO)


def refusal(operation: Set, own_public_key: bytes | None, runtime_psks: bool) -> str | None:
    """Why the keys in `operation` are refused (with EPERM), in one line for the log, or None."""
    private_key = operation.private_key
    if private_key is not None and names_private_key(operation):
        if own_public_key is None:
            return "a private key in clear was refused: the token has not said yet which one is the gateway's"
        # Clamping happens on use, so keys that differ only there have one public key.
        public = X25519PrivateKey.from_private_bytes(private_key).public_key()
        if own_public_key != public.public_bytes(Encoding.Raw, PublicFormat.Raw):
            return "a private key in clear was refused: this gateway's key stays in the token"
    if not runtime_psks and any(not hmac.compare_digest(psk, _ZERO) for psk in operation.preshared_keys.values()):
        return "a preshared key in clear was refused: put it into the token, or set authority: runtime"
    return None


def holders(
    change: m.DeviceChange, peers: AbstractSet[bytes], before: AbstractSet[bytes], given: AbstractSet[bytes]
) -> set[bytes]:
    """The peers (public keys) that have a PSK object in the token after `change`.

    `peers` are all of them before it, `before` those with such an object, `given` those that the operation names a
    PSK for. As the supervisor does it: a peer that `replace_peers` sweeps away and the change names again keeps its
    object, one that is removed by name does not.
    """
    there, having = (set(), set()) if change.replace_peers else (set(peers), set(before))
    removed: set[bytes] = set()
    for peer in change.peers:
        key = peer.public_key
        if peer.remove:
            there.discard(key)
            having.discard(key)
            removed.add(key)
        elif key in there or not peer.update_only:
            if key in given or (key not in there and key in before and key not in removed):
                having.add(key)
            there.add(key)
    return having


def psk_label(public_key: bytes) -> str:
    """Label of the token object that holds the PSK of the peer with this public key (32 bytes)."""
    return "wghsm-psk-" + base64.urlsafe_b64encode(public_key).decode().rstrip("=")
