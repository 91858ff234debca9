"""The token as the handshakes see it (wghsm.noise.Custody), one object for each handshake.

`TokenCustody` is what binds a handshake to a peer and its PSK; `Vault` is what it asks, implemented over the token
by `vault`. Its methods run on worker threads; between two steps of a handshake the main thread may bind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from wghsm.ipc import messages as m
from wghsm.noise.constants import SYMMETRIC_KEY_LEN
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from .rules import KnownPeer

__all__ = ["TokenCustody", "Vault"]


class Vault(Protocol):
    """The gateway's keys and PSKs. Each bytearray is the caller's to wipe; `identity` is one of `identities`.

    Raises wghsm.pkcs11_backend.TokenError (PointRefused where the peer is to blame).
    """

    @property
    def identities(self) -> tuple[bytes, ...]:
        """The public keys that are served, 32 bytes each, the current one first; none before a token was open."""

    def derive(self, identity: bytes, public: bytes) -> bytearray:
        """X25519 of that one of the gateway's keys with 32 bytes `public`: 32 bytes."""

    def psk(self, identity: bytes, source: m.PskDerived | m.PskObject | m.PskWrapped, peer_public: bytes) -> bytearray:
        """The pre-shared key of a peer for handshakes with that one of the gateway's keys, 32 bytes."""


class TokenCustody:
    """The custody of one handshake, made with one identity; `bind` it as soon as the peer is known."""

    def __init__(self, vault: Vault, identity: bytes) -> None:
        self._vault = vault
        self._identity = identity
        self._psk: m.PskSource = m.PskNone()
        self._static_static: bytearray | None = None
        self._kept: tuple[bytes, bytearray] | None = None
        self._keeps = False
        self.asked = False
        """Whether the static-static secret was computed, not taken from the cache."""

    def bind(self, peer: KnownPeer) -> None:
        """Take a copy of the static-static secret with the peer if there is one. The PSK is given by `use`."""
        if (kept := peer.static_static.get(self._identity)) is not None:
            self._static_static = bytearray(kept)

    def use(self, source: m.PskSource) -> None:
        """Take the pre-shared key from `source` from now on."""
        self._psk = source

    @property
    def public_key(self) -> bytes:
        """The static public key of this handshake's identity, 32 bytes."""
        return self._identity

    @property
    def psk_source(self) -> m.PskSource:
        """Where the pre-shared key comes from."""
        return self._psk

    @property
    def has_static_static(self) -> bool:
        """Whether the static-static secret is here, so that no token is needed for it."""
        return self._static_static is not None

    def dh(self, public: bytes) -> bytearray:
        """X25519 with 32 bytes `public`, by the token, or kept since `keep_dh`."""
        if not self._keeps:
            return self._vault.derive(self._identity, public)
        if self._kept is None or self._kept[0] != public:
            self._kept = public, self._vault.derive(self._identity, public)
        return bytearray(self._kept[1])

    def keep_dh(self) -> None:
        """Keep the result of the next `dh` until `forget_dh`: a response tried with several PSKs costs one derive."""
        self._keeps = True

    def forget_dh(self) -> None:
        """Wipe what `dh` has kept."""
        self._keeps = False
        kept, self._kept = self._kept, None
        if kept is not None:
            wipe(kept[1])

    def static_static(self, peer_public: bytes) -> bytearray:
        """X25519 with the peer's static key, by the token unless it is here."""
        if self._static_static is None:
            self._static_static = self._vault.derive(self._identity, peer_public)
            self.asked = True
        return bytearray(self._static_static)

    def preshared_key(self, peer_public: bytes) -> bytearray:
        """The peer's pre-shared key, or zeros."""
        if isinstance(self._psk, m.PskNone):
            return bytearray(SYMMETRIC_KEY_LEN)
        return self._vault.psk(self._identity, self._psk, peer_public)

    def take_static_static(self) -> bytearray | None:
        """Give the static-static secret away, to be kept or wiped by the caller."""
        taken, self._static_static = self._static_static, None
        return taken

    def wipe(self) -> None:
        """Overwrite what is secret here."""
        wipe(self._static_static)
        self._static_static = None
        self.forget_dh()
