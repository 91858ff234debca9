"""The custodian's rules (SEAMS.md "The custodian's rules"), apart from any cryptography: who, how often, in what order.

    peers          the slots that the supervisor named; nobody else is talked to
    busy           one request to the token in flight for each peer
    may_create     an own initiation at most once in REKEY_TIMEOUT for each peer
    judge          a peer's timestamp must grow, and come no sooner than 20 ms after the last one
    own_timestamp  max(now, last + 2^24 ns), over all peers
    handles        one initiation in progress for each peer, until it is answered, replaced or too old

Called by `core` on the main thread alone. Pure: time is an argument. A refusal is the Counter of its cause, which
the outside never learns; None means yes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wghsm.ipc import Counter
from wghsm.noise import tai64n
from wghsm.noise.constants import (
    INITIATION_FLOOD_GUARD,
    NSEC_PER_MSEC,
    NSEC_PER_SEC,
    REKEY_ATTEMPT_TIME,
    REKEY_TIMEOUT,
    TIMESTAMP_LEN,
)
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wghsm.ipc import messages as m
    from wghsm.noise import Initiator

    from .custody import TokenCustody
    from .epochs import Offer

__all__ = ["Handle", "KnownPeer", "Rules", "Times", "WallClock"]

_NEVER = bytes(TIMESTAMP_LEN)
_COUNTER_BITS = 40


@dataclass(frozen=True, slots=True)
class Times:
    """The custodian's times in nanoseconds; a test may shorten them."""

    rekey_timeout: int = REKEY_TIMEOUT
    jitter: int = 500 * NSEC_PER_MSEC
    """The handshake process keeps REKEY_TIMEOUT itself; its requests may come this much closer together here."""
    flood_guard: int = INITIATION_FLOOD_GUARD
    handle_lifetime: int = REKEY_ATTEMPT_TIME + REKEY_TIMEOUT
    psk_overlap: int = 14 * 86_400 * NSEC_PER_SEC
    """How long the PSK before a new epoch stays usable, by the wall clock."""
    clock_jump: int = 86_400 * NSEC_PER_SEC
    """Steps of the own wall clock that are greater are reported before they are used."""


@dataclass(slots=True, eq=False)
class Handle:
    """An own initiation that waits for its response.

    Binds the peer, its PSKs as they were then, the local index, and by its custody the identity.
    """

    number: int
    peer: KnownPeer
    local_index: int
    created: int
    generation: int
    """Which handshake process asked for it."""
    initiator: Initiator = field(repr=False)
    custody: TokenCustody = field(repr=False)
    choices: tuple[m.PskSource, ...]
    """The PSKs to try on the response, in this order."""
    in_use: bool = False
    """A worker is at it: it is wiped when the worker has done."""

    def drop(self) -> None:
        """Wipe it, now or when the worker that uses it has done."""
        if not self.in_use:
            self.initiator.wipe()
            self.custody.wipe()


@dataclass(slots=True, eq=False)
class KnownPeer:
    """A peer that the custodian may talk to. Its greatest timestamp is kept by Rules, as it outlives the slot."""

    slot: int
    public_key: bytes
    psk: m.PskSource
    migrate_from_none: bool = False
    offer: Offer | None = None
    consumed_at: int | None = None
    created_at: int | None = None
    busy: bool = False
    handle: Handle | None = None
    static_static: dict[bytes, bytearray] = field(default_factory=dict, repr=False)
    """X25519 of the two static keys by own public key, if the configuration lets it be kept; a long-term secret."""

    def drop_handle(self) -> None:
        """Forget the handle."""
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.drop()

    def forget(self) -> None:
        """Drop all that is secret."""
        self.drop_handle()
        for secret in self.static_static.values():
            wipe(secret)
        self.static_static.clear()


class Rules:
    """The peers and what is allowed with each. Numbers of sessions and handles are (incarnation << 40) | counter."""

    def __init__(
        self, incarnation: int, greatest: Mapping[bytes, bytes], last_own: int | None, times: Times | None = None
    ) -> None:
        """Take up where the last custodian was.

        `greatest`: timestamp of 12 bytes by public key, for all peers ever known; `last_own`: the last own timestamp
        in Unix nanoseconds.
        """
        self.times = times or Times()
        self._last_own = last_own
        self._greatest = dict(greatest)
        self._number = incarnation << _COUNTER_BITS
        self._slots: dict[int, KnownPeer] = {}
        self._keys: dict[bytes, KnownPeer] = {}
        self._handles: dict[int, Handle] = {}

    @property
    def last_own(self) -> int | None:
        """The last own timestamp in Unix nanoseconds, None before the first."""
        return self._last_own

    def update(self, upsert: Iterable[m.CustodianPeer], remove: Iterable[int]) -> None:
        """Forget the slots in `remove`, then add or change peers.

        A slot with another key is another peer; a key in a new slot leaves its old one. A changed PSK drops the
        handle, which was bound to the old one.
        """
        for slot in remove:
            self._forget(self._slots.get(slot))
        for told in upsert:
            peer = self._slots.get(told.peer)
            if peer is None or peer.public_key != told.public_key:
                self._forget(peer)
                self._forget(self._keys.get(told.public_key))
                peer = KnownPeer(told.peer, told.public_key, told.psk, told.migrate_from_none)
                self._slots[peer.slot] = self._keys[peer.public_key] = peer
            elif (peer.psk, peer.migrate_from_none) != (told.psk, told.migrate_from_none):
                peer.psk, peer.migrate_from_none = told.psk, told.migrate_from_none
                peer.offer = None
                self.close_handle(peer)

    def by_slot(self, slot: int) -> KnownPeer | None:
        """The peer in a slot."""
        return self._slots.get(slot)

    def by_key(self, public_key: bytes) -> KnownPeer | None:
        """The peer with a public key of 32 bytes."""
        return self._keys.get(public_key)

    def is_current(self, peer: KnownPeer) -> bool:
        """Whether `peer` was neither removed nor replaced while a worker was busy with it."""
        return self._slots.get(peer.slot) is peer

    def begin(self, peer: KnownPeer) -> Counter | None:
        """Take the peer's one place at the token."""
        if peer.busy:
            return Counter.PEER_BUSY
        peer.busy = True
        return None

    def end(self, peer: KnownPeer) -> None:
        """Give the place at the token back."""
        peer.busy = False

    def may_create(self, peer: KnownPeer, now: int) -> Counter | None:
        """Whether an own initiation may be made for the peer at `now` (CLOCK_BOOTTIME ns)."""
        pause = self.times.rekey_timeout - self.times.jitter
        if peer.created_at is not None and now - peer.created_at < pause:
            return Counter.TOO_SOON
        return None

    def judge(self, peer: KnownPeer, timestamp: bytes, now: int) -> Counter | None:
        """Whether a proven `timestamp` of 12 bytes is new, and not within the flood guard (PROTOCOL.md 4.2, step 8)."""
        if not tai64n.is_later(timestamp, self._greatest.get(peer.public_key, _NEVER)):
            return Counter.OLD_TIMESTAMP
        if peer.consumed_at is not None and now - peer.consumed_at < self.times.flood_guard:
            return Counter.FLOOD
        return None

    def consume(self, peer: KnownPeer, timestamp: bytes, now: int) -> None:
        """Remember a timestamp that was judged good."""
        self._greatest[peer.public_key] = timestamp
        peer.consumed_at = now

    def forget_timestamp(self, public_key: bytes) -> None:
        """Take any timestamp of this peer as new; the flood guard stays."""
        self._greatest.pop(public_key, None)

    def own_timestamp(self, unix_ns: int) -> bytes:
        """The timestamp, 12 bytes, of an own initiation at the wall clock's `unix_ns`: later than any before."""
        timestamp = tai64n.next_timestamp(unix_ns, self._last_own)
        self._last_own = tai64n.to_unix_ns(timestamp)
        return timestamp

    def next_number(self) -> int:
        """A fresh number for a session or a handle; never used before, also over restarts."""
        self._number += 1
        return self._number

    def open_handle(self, handle: Handle) -> None:
        """Make `handle` its peer's only one."""
        self.close_handle(handle.peer)
        handle.peer.handle = handle
        self._handles[handle.number] = handle

    def find_handle(self, number: int, now: int) -> Handle | None:
        """The handle with that number, unless it is too old."""
        handle = self._handles.get(number)
        if handle is not None and self._is_expired(handle, now):
            self.close_handle(handle.peer)
            return None
        return handle

    def is_open(self, handle: Handle) -> bool:
        """Whether `handle` is still its peer's."""
        return handle.peer.handle is handle

    def close_handle(self, peer: KnownPeer) -> None:
        """Forget the peer's handle, if it has one."""
        if peer.handle is not None:
            del self._handles[peer.handle.number]
            peer.drop_handle()

    def close_handles(self) -> None:
        """Forget every handle: the handshake process that knew them is gone."""
        for handle in list(self._handles.values()):
            self.close_handle(handle.peer)

    def expire(self, now: int) -> None:
        """Forget handles that are too old."""
        for handle in list(self._handles.values()):
            if self._is_expired(handle, now):
                self.close_handle(handle.peer)

    def forget_all(self) -> None:
        """Drop every peer with its secrets."""
        for peer in list(self._slots.values()):
            self._forget(peer)

    def _is_expired(self, handle: Handle, now: int) -> bool:
        return now - handle.created > self.times.handle_lifetime

    def _forget(self, peer: KnownPeer | None) -> None:
        if peer is None:
            return
        self.close_handle(peer)
        peer.forget()
        del self._slots[peer.slot]
        del self._keys[peer.public_key]


class WallClock:
    """Compares the wall clock with CLOCK_BOOTTIME, so that a jump is known before a timestamp is made of it."""

    def __init__(self, tolerance: int) -> None:
        """Steps of up to `tolerance` nanoseconds are nobody's business."""
        self._tolerance = tolerance
        self._offset: int | None = None

    def jump(self, unix_ns: int, now: int) -> int | None:
        """Nanoseconds that the wall clock was moved by since the last call, if that is too much; told once a jump."""
        offset = unix_ns - now
        before, self._offset = self._offset, offset
        if before is None or abs(offset - before) <= self._tolerance:
            return None
        return offset - before
