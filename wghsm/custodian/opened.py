"""One token that is logged in to: the gateway's keys found and checked in it, and what handshakes ask of it.

    OpenToken   the pool with the keys, the PSK root and the wrapping key: derivers, psk, put_psk, delete_psk
    Expected    what all tokens of a gateway must hold alike: the first one that is opened says what that is

Made and called by `vault`. What asks the token runs on worker threads; each call borrows one of the pool's sessions.
"""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING, TypeVar

from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import (
    KeyNotFound,
    KeyUnfit,
    TokenFault,
    essential_checks,
    find_audit_key,
    find_wrap_key,
    opens_sample,
    root_check_value,
    seal_sample,
    sign,
    unwrap_psk,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.pkcs11_backend import AuditKey, Derivers, PrivateKey, StoredPsk, TokenPool, WorkerSession

__all__ = ["Expected", "OpenToken", "TokenDiffers"]

_BASE_POINT = b"\x09" + bytes(31)

_T = TypeVar("_T")


class TokenDiffers(KeyUnfit):
    """One of several tokens holds something else than the others."""


class OpenToken:
    """Token number `place` of the gateway's. Raises what wghsm.pkcs11_backend raises."""

    def __init__(self, place: int, pool: TokenPool, settings: m.TokenSettings) -> None:
        """Make the essential checks, and find what `settings` names."""
        self.place = place
        self.pool = pool
        keys = [_checked(pool, settings.key, settings.psk_root)]
        if settings.previous_key is not None:
            keys.append(_previous(pool, settings.previous_key, keys[0]))
        self.keys = {key.public_key: key for key in keys}
        """By public key (32 bytes), the current one first."""
        self.root = None if settings.psk_root is None else pool.find_root(settings.psk_root)
        self.wrap_key = None if settings.psk_wrap_key is None else find_wrap_key(pool, settings.psk_wrap_key)
        self.deriving: Derivers | None = None
        """The threads that derive, once `derivers` was called."""
        self._psks: dict[str, StoredPsk] = {}
        self._sealed_for: dict[tuple[bytes, int], bytes] = {}
        self._audit_key: AuditKey | None = None
        self._lock = threading.Lock()

    @property
    def identities(self) -> tuple[bytes, ...]:
        """The public keys, 32 bytes each, the current one first."""
        return tuple(self.keys)

    def check(self) -> None:
        """Use each key on data known to be good, with results that are no secret."""
        for public, key in self.keys.items():
            if self.derive(public, _BASE_POINT) != public:
                raise KeyUnfit(f"{self.pool.token_name}: key {key.label!r} derives something else than before")

    def derivers(self, event: int) -> Derivers | None:
        """The threads that derive, which ring the eventfd `event`; None where there are none. Raises OSError."""
        if self.deriving is None:
            self.deriving = self.pool.derivers(event)
        return self.deriving

    def derive(self, identity: bytes, public: bytes) -> bytearray:
        """X25519 of one of the keys with 32 bytes `public`: 32 bytes for the caller to wipe."""
        with self.pool.session() as session:
            return session.derive(self.keys[identity], public)

    def psk(self, identity: bytes, source: m.PskDerived | m.PskObject | m.PskWrapped, peer_public: bytes) -> bytearray:
        """The pre-shared key of a peer for handshakes with that one of the keys: 32 bytes for the caller to wipe."""
        if isinstance(source, m.PskWrapped):
            return self._unwrap(source, peer_public)
        if isinstance(source, m.PskObject):
            try:
                return self._read(self._stored(source.label))
            except TokenFault:
                # Perhaps the operator has put another PSK in its place: its handle is a new one.
                return self._read(self._find(source.label))
        root = self.root
        if root is None:
            raise KeyNotFound("a peer has a derived PSK, but the configuration names no psk_root in the token")
        return self._in_session(lambda session: session.derived_psk(root, identity, peer_public, source.epoch))

    def put_psk(self, label: str, psk: bytearray) -> None:
        """Store a PSK of 32 bytes under `label`, in place of an older one."""
        stored = self.pool.put_psk(label, psk)
        with self._lock:
            self._psks[label] = stored

    def delete_psk(self, label: str) -> bool:
        """Remove the PSK under `label`; False if there is none."""
        with self._lock:
            self._psks.pop(label, None)
        return self.pool.delete_psk(label)

    def sign(self, label: str, data: bytes) -> tuple[bytes, str, str]:
        """Sign `data` with the audit key `label`: 64 bytes, the key's fingerprint and algorithm. One call at a time."""
        if self._audit_key is None or self._audit_key.label != label:
            self._audit_key = find_audit_key(self.pool, label)
        key = self._audit_key
        return sign(self.pool, key, data), key.fingerprint, key.algorithm

    def _unwrap(self, source: m.PskWrapped, peer_public: bytes) -> bytearray:
        """Open a file that was sealed for one of the identities: the PSK is the peer's, whichever it uses."""
        wrap_key = self.wrap_key
        if wrap_key is None:
            raise KeyNotFound("a peer has a wrapped PSK, but the configuration names no psk_wrap_key in the token")
        with self._lock:
            last = self._sealed_for.get((peer_public, source.epoch))
        fault: KeyUnfit | None = None
        for identity in sorted(self.keys, key=lambda one: one != last):
            try:
                psk = unwrap_psk(self.pool, wrap_key, identity, peer_public, source.epoch, source.sealed)
            except KeyUnfit as error:
                fault = fault or error
                continue
            with self._lock:
                self._sealed_for[peer_public, source.epoch] = identity
            return psk
        raise fault or KeyNotFound("no key of the gateway is open")

    def _stored(self, label: str) -> StoredPsk:
        with self._lock:
            stored = self._psks.get(label)
        # The pool zeroes the handle of one that is not there any more.
        return stored if stored is not None and stored.handle else self._find(label)

    def _find(self, label: str) -> StoredPsk:
        stored = self.pool.find_psk(label)
        with self._lock:
            self._psks[label] = stored
        return stored

    def _read(self, stored: StoredPsk) -> bytearray:
        return self._in_session(lambda session: session.read_psk(stored))

    def _in_session(self, work: Callable[[WorkerSession], _T]) -> _T:
        with self.pool.session() as session:
            return work(session)


class Expected:
    """What the first token that is opened holds; another one that differs is refused."""

    def __init__(self) -> None:
        self.identities: tuple[bytes, ...] = ()
        self._root_check = b""
        self._wrap_sample = b""
        self._known_by = ""

    def compare(self, opened: OpenToken) -> None:
        """Take the first token's word, or raise TokenDiffers."""
        name = opened.pool.token_name
        for key, public in zip(opened.keys.values(), self.identities, strict=False):
            if key.public_key != public:
                raise TokenDiffers(
                    f"{name} holds another key {key.label!r} than {self._known_by} (public key "
                    f"{_shown(key.public_key)}, not {_shown(public)}); it is refused: clone or import the key into it"
                )
        self.check_secrets(opened)
        if not self.identities:
            self.identities, self._known_by = opened.identities, name

    def check_secrets(self, opened: OpenToken) -> None:
        """Use the PSK root and the wrapping key, where there are any, and compare them. Raises TokenDiffers."""
        self._check_root(opened)
        self._check_wrap_key(opened)

    def _check_root(self, opened: OpenToken) -> None:
        if opened.root is None:
            return
        found = root_check_value(opened.pool, opened.root.label)
        if self._root_check and found != self._root_check:
            raise TokenDiffers(
                f"{opened.pool.token_name} holds another PSK root {opened.root.label!r} than {self._known_by} "
                f"(check value {found.hex()}, not {self._root_check.hex()}); it is refused: copy the root into it"
            )
        self._root_check = found

    def _check_wrap_key(self, opened: OpenToken) -> None:
        # AES-GCM has no check value where the token takes its own initial vector: what one has sealed the others open.
        key = opened.wrap_key
        if key is None:
            return
        if not self._wrap_sample:
            self._wrap_sample = seal_sample(opened.pool, key)
        elif not opens_sample(opened.pool, key, self._wrap_sample):
            raise TokenDiffers(
                f"{opened.pool.token_name} holds another wrapping key {key.label!r} than {self._known_by}, which opens "
                "no wrapped PSK; it is refused: clone the key into it, or restore its backup"
            )


def _checked(pool: TokenPool, label: str, psk_root: str | None) -> PrivateKey:
    wrong = essential_checks(pool, label, psk_root)
    if wrong is not None:
        raise wrong
    return pool.find_key(label)


def _previous(pool: TokenPool, label: str, current: PrivateKey) -> PrivateKey:
    try:
        found = _checked(pool, label, None)
    except KeyNotFound as error:
        raise KeyNotFound(
            f"{pool.token_name}: the previous key {label!r} (interface.previous_key) is not there, so peers that have "
            f"not moved to {current.label!r} would be cut off; bring it back, or take it out of service with "
            "wghsm key retire if it is meant to be gone"
        ) from error
    if found.public_key == current.public_key:
        raise KeyUnfit(
            f"{pool.token_name}: the keys {current.label!r} and {label!r} are one and the same; "
            "take interface.previous_key out of the gateway file"
        )
    return found


def _shown(public_key: bytes) -> str:
    return base64.b64encode(public_key).decode()
