"""The token as the handshakes see it (wghsm.noise.Custody), one object for each handshake.

`TokenCustody` is what binds a handshake to a peer and its PSK; `Vault` is what it asks, implemented over the token
by `vault`. What the token derives is given to it before the step that needs it; a step with a pre-shared key runs on a
worker thread, and between two steps the main thread may bind it.
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
    """The gateway's keys and PSKs; `identity` is one of `identities`. Raises wghsm.pkcs11_backend.TokenError."""

    @property
    def identities(self) -> tuple[bytes, ...]:
        """The public keys that are served, 32 bytes each, the current one first; none before a token was open."""

    def psk(self, identity: bytes, source: m.PskDerived | m.PskObject | m.PskWrapped, peer_public: bytes) -> bytearray:
        """The pre-shared key of a peer for handshakes with that one of the gateway's keys, 32 bytes for the caller to
        wipe."""


class TokenCustody:
    """The custody of one handshake, made with one identity; `bind` it as soon as the peer is known."""

    def __init__(self, vault: Vault, identity: bytes) -> None:
        self._vault = vault
        self._identity = identity
        self._psk: m.PskSource = m.PskNone()
        self._static_static: bytearray | None = None
        self._derived: tuple[bytes, bytearray] | None = None
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

    def give_dh(self, public: bytes, secret: bytearray) -> None:
        """Take what the token has derived with 32 bytes `public`; `dh` gives copies of it until `forget_dh`."""
        self.forget_dh()
        self._derived = public, secret

    def dh(self, public: bytes) -> bytearray:
        """X25519 with 32 bytes `public`, which was given."""
        if self._derived is None or self._derived[0] != public:
            raise LookupError("nothing was derived with this public key")
        return bytearray(self._derived[1])

    def forget_dh(self) -> None:
        """Wipe what `give_dh` took."""
        derived, self._derived = self._derived, None
        if derived is not None:
            wipe(derived[1])

    def give_static_static(self, secret: bytearray) -> None:
        """Take what the token has derived with the peer's static key."""
        self._static_static = secret
        self.asked = True

    def static_static(self, peer_public: bytes) -> bytearray:  # noqa: ARG002
        """X25519 with the peer's static key, which was given or known."""
        if self._static_static is None:
            raise LookupError("nothing was derived with the peer's static key")
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
