"""The token's side of the custodian: the gateway's key, the PSKs, and the way back after a fault.

Implements `custody.Vault` over a TokenPool. All methods but `take_uses` run on worker threads; each call borrows one
of the pool's sessions, of which there are as many as threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import KeyNotFound, KeyUnfit, TokenError, TokenFault
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.pkcs11_backend import PrivateKey, RootSecret, StoredPsk, TokenPool

__all__ = ["TokenVault"]

_BASE_POINT = b"\x09" + bytes(31)
_RECOVERY_STEPS = (1, 2)


class TokenVault:
    """One identity in the token. Errors are those of wghsm.pkcs11_backend."""

    def __init__(self, pool: TokenPool, key: PrivateKey, root: RootSecret | None) -> None:
        self._pool = pool
        self._key = key
        self._root = root
        self._psks: dict[str, StoredPsk] = {}
        self._lock = threading.Lock()
        self._uses = {Counter.DERIVE: 0, Counter.PSK_USE: 0}

    @property
    def public_key(self) -> bytes:
        """The gateway's static public key, 32 bytes."""
        return self._key.public_key

    def derive(self, public: bytes) -> bytearray:
        """X25519 of the gateway's key with 32 bytes `public`: 32 bytes for the caller to wipe."""
        self._count(Counter.DERIVE)
        with self._pool.session() as session:
            return session.derive(self._key, public)

    def psk(self, source: m.PskDerived | m.PskObject, peer_public: bytes) -> bytearray:
        """The pre-shared key of a peer, 32 bytes for the caller to wipe."""
        self._count(Counter.PSK_USE)
        if isinstance(source, m.PskObject):
            try:
                return self._read(self._stored(source.label))
            except TokenFault:
                # Perhaps the operator has put another PSK in its place: its handle is a new one.
                return self._read(self._find(source.label))
        if self._root is None:
            raise KeyNotFound("a peer has a derived PSK, but the configuration names no psk_root in the token")
        with self._pool.session() as session:
            return session.derived_psk(self._root, self.public_key, peer_public, source.epoch)

    def put_psk(self, label: str, psk: bytearray) -> None:
        """Store a PSK of 32 bytes under `label`, in place of an older one; `psk` is wiped."""
        try:
            stored = self._pool.put_psk(label, psk)
        finally:
            wipe(psk)
        with self._lock:
            self._psks[label] = stored

    def delete_psk(self, label: str) -> bool:
        """Remove the PSK under `label`; False if there is none."""
        with self._lock:
            self._psks.pop(label, None)
        return self._pool.delete_psk(label)

    def check(self) -> None:
        """Derive with the base point, whose result is our public key and no secret; raises TokenError if it fails."""
        with self._pool.session() as session:
            result = session.derive(self._key, _BASE_POINT)
        if result != self.public_key:
            raise KeyUnfit(f"{self._pool.token_name}: key {self._key.label!r} derives something else than before")

    def repair(self, *, all_steps: bool) -> None:
        """Climb the recovery ladder (its last step only, unless `all_steps`) and check; raises TokenError."""
        steps = _RECOVERY_STEPS if all_steps else _RECOVERY_STEPS[-1:]
        for step in steps:
            try:
                self._pool.recover(step)
                self.check()
            except TokenError as error:
                if error.final or step == steps[-1]:
                    raise
            else:
                return

    def take_uses(self) -> dict[Counter, int]:
        """How often the key and PSKs were used since the last call; for the main thread, which counts."""
        with self._lock:
            taken, self._uses = self._uses, dict.fromkeys(self._uses, 0)
        return taken

    def close(self) -> None:
        """Log out."""
        self._pool.close()

    def _count(self, use: Counter) -> None:
        with self._lock:
            self._uses[use] += 1

    def _read(self, stored: StoredPsk) -> bytearray:
        with self._pool.session() as session:
            return session.read_psk(stored)

    def _stored(self, label: str) -> StoredPsk:
        with self._lock:
            stored = self._psks.get(label)
        # The pool zeroes the handle of one that is not there any more.
        return stored if stored is not None and stored.handle else self._find(label)

    def _find(self, label: str) -> StoredPsk:
        stored = self._pool.find_psk(label)
        with self._lock:
            self._psks[label] = stored
        return stored
