"""Supervisor to custodian, and back: token, pre-shared keys, peers, identities."""

from __future__ import annotations

from typing import Literal

from ._base import Message

__all__ = [
    "CustodianPeer",
    "CustodianPeers",
    "Identity",
    "PskDerived",
    "PskNone",
    "PskObject",
    "PskSource",
    "PskWrapped",
    "SealedPsk",
    "TokenSettings",
    "TokenStatus",
]


class SealedPsk(Message, frozen=True, array_like=True):
    """One line of a file of wrapped PSKs, for the peer of this public key; `where` is FILE:LINE, for the operator."""

    public_key: bytes
    epoch: int
    sealed: bytes
    where: str


class TokenSettings(Message, frozen=True, array_like=True, tag=10):
    """Where the keys are. One descriptor, a terminal, comes with it where `prompt` is true."""

    uri: str
    key: str
    psk_root: str | None
    sessions: int
    cache_static_static: bool
    runtime_psks: bool
    state_directory: str
    prompt: bool = False
    twins: list[str] = []
    """URIs of further tokens with the same key, in order of preference after `uri`."""
    at_start: Literal["wait", "fail"] = "fail"
    """What to do when no token can be opened."""
    psk_wrap_key: str | None = None
    psk_overlap: int = 14 * 86_400
    """Seconds for which the PSK before a new epoch stays usable."""
    previous_key: str | None = None
    """Label of the key before `key`, whose identity is answered as well until the operator retires it."""
    audited: bool = False
    """Whether there is an auditor to tell of each use of a key."""
    audit_key: str | None = None
    """Label of the key that signs checkpoints of the audit log."""
    audit_required: bool = False
    """Whether handshakes are refused while the audit log cannot be written."""
    sealed: list[SealedPsk] = []
    """What must open with `psk_wrap_key`, or the custodian does not begin."""


class PskNone(Message, frozen=True, array_like=True, tag=11):
    """No pre-shared key: 32 zero bytes are mixed in."""


class PskDerived(Message, frozen=True, array_like=True, tag=12):
    """Derived in the token from the PSK root, for this epoch (u32)."""

    epoch: int = 0


class PskObject(Message, frozen=True, array_like=True, tag=13):
    """A secret of its own in the token, by label."""

    label: str


class PskWrapped(Message, frozen=True, array_like=True, tag=17):
    """Sealed under a key in the token, as ciphertext: initial vector (12 bytes), PSK, tag (16 bytes); 60 bytes.

    `epoch` is a u32 and part of what is authenticated; `previous` is the one before it, empty if there is none.
    """

    epoch: int
    sealed: bytes
    previous_epoch: int = 0
    previous: bytes = b""


PskSource = PskNone | PskDerived | PskObject | PskWrapped


class CustodianPeer(Message, frozen=True, array_like=True):
    """A peer that the custodian may talk to."""

    peer: int
    public_key: bytes
    psk: PskSource
    migrate_from_none: bool = False


class CustodianPeers(Message, frozen=True, array_like=True, tag=14):
    """Peers to add or change, and slots to forget. Answered with Applied."""

    change: int
    upsert: list[CustodianPeer]
    remove: list[int]


class Identity(Message, frozen=True, array_like=True, tag=15):
    """The gateway's static public key, 32 bytes: custodian to supervisor and handshake, supervisor to control.

    `previous` is that of the identity before it, which is served beside it while peers move; empty if there is none.
    """

    public_key: bytes
    previous: bytes = b""


class TokenStatus(Message, frozen=True, array_like=True, tag=16):
    """The token's state for status and log: ready, or away with the reason."""

    state: Literal["ready", "away"]
    since_unix: int
    detail: str = ""
    accepted: int = 0
    created: int = 0
    refused: int = 0
    token: str = ""
    """Which token is in use, as messages name it; empty while none is."""
