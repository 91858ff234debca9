"""The 32-bit indices by which a peer's messages name our handshakes and sessions (PROTOCOL.md section 5).

    index -> handshake entry (no session yet)    reserve - install: the index names the session from then on
             its low bits name the peer's worker (wghsm.ipc.index_of), of a stranger's when it is known whose it is
    index -> session, in a slot of its peer      PREVIOUS, CURRENT, NEXT as ingress holds them

The slots are a copy of what ingress does, so that an index is free again when ingress has dropped its session.
Called by the core, in the order of ingress's messages. Pure: random numbers come from the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import index_of, worker_bits, worker_of_peer

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

__all__ = ["HandshakeEntry", "IndexTable", "Session"]

_TRIES = 4096


@dataclass(frozen=True, slots=True)
class HandshakeEntry:
    """An index in use by a handshake; `peer` is None as long as the custodian has not said whose it is."""

    peer: int | None


@dataclass(frozen=True, slots=True)
class Session:
    """A session by number, with its local index, our role in it and when it was made (CLOCK_BOOTTIME ns).

    `identity` is the number of the own key that it was made with (`wghsm.ipc.identity_number`).
    """

    number: int
    peer: int
    index: int
    initiator: bool
    created: int
    identity: int


@dataclass(slots=True)
class _Slots:
    previous: Session | None = None
    current: Session | None = None
    next: Session | None = None

    def __iter__(self) -> Iterator[Session]:
        return (session for session in (self.previous, self.current, self.next) if session is not None)

    def install(self, session: Session) -> None:
        if not session.initiator:
            self.previous, self.next = None, session
        elif self.next is not None:
            self.previous, self.current, self.next = self.next, session, None
        else:
            self.previous, self.current = self.current, session

    def clear(self, keep: Container[int]) -> None:
        for slot in self.__slots__:
            if (session := getattr(self, slot)) is not None and session.number not in keep:
                setattr(self, slot, None)

    def confirm(self, number: int) -> None:
        if self.next is not None and self.next.number == number:
            self.previous, self.current, self.next = self.current, self.next, None


class IndexTable:
    """Indices in use: at most three sessions a peer and its handshakes.

    `entropy` gives a random u32. No two indices in use differ in the low bits alone, which the peer decides: so each
    can be chosen before the peer is known.
    """

    def __init__(self, entropy: Callable[[], int], workers: int = 1) -> None:
        self._entropy = entropy
        self._workers = workers
        self._shared = ~worker_bits(workers)
        # By index without the bits of the worker.
        self._entries: dict[int, HandshakeEntry | Session] = {}
        self._slots: dict[int, _Slots] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, index: int) -> HandshakeEntry | Session | None:
        """Whose index this is."""
        entry = self.holder(index)
        if entry is None or entry.peer is None or index == index_of(index, entry.peer, self._workers):
            return entry
        return None

    def holder(self, index: int) -> HandshakeEntry | Session | None:
        """What keeps this index from being chosen, be it the same or one that differs in the worker's bits."""
        return self._entries.get(index & self._shared)

    def sessions(self, peer: int) -> list[Session]:
        """The peer's sessions as ingress holds them, PREVIOUS first."""
        return list(self._slots.get(peer, ()))

    def sent_on(self, peer: int) -> Session | None:
        """The peer's CURRENT session."""
        return self._slots[peer].current if peer in self._slots else None

    def reserve(self, peer: int | None) -> int:
        """A free index for a handshake; of a peer that is not known yet, without the bits of its worker.

        Raises RuntimeError when the entropy gives only taken ones.
        """
        for _ in range(_TRIES):
            index = self._entropy() & self._shared
            if index not in self._entries:
                self._entries[index] = HandshakeEntry(peer)
                return index if peer is None else index_of(index, peer, self._workers)
        raise RuntimeError("no free index: the source of random numbers repeats itself")

    def assign(self, index: int, peer: int) -> int:
        """The handshake with `index` is this peer's; the whole index."""
        self._entries[index & self._shared] = HandshakeEntry(peer)
        return index_of(index, peer, self._workers)

    def release(self, index: int) -> None:
        """The handshake with `index` is over; an index that names a session stays."""
        if isinstance(self.holder(index), HandshakeEntry):
            del self._entries[index & self._shared]

    def install(self, session: Session) -> None:
        """Ingress has taken `session`: its index names it, and the sessions that it displaced are gone."""
        self._entries[session.index & self._shared] = session
        self._change(session.peer, lambda slots: slots.install(session))

    def confirm(self, peer: int, number: int) -> None:
        """First data came on the peer's NEXT session."""
        self._change(peer, lambda slots: slots.confirm(number))

    def take_over(self, session: Session, slot: str) -> None:
        """A session that ingress held before this process began, in "previous", "current" or "next"."""
        self._entries[session.index & self._shared] = session
        self._change(session.peer, lambda slots: setattr(slots, slot, session))

    def forget_sessions(self, peer: int, keep: Container[int] = ()) -> None:
        """The peer's sessions are gone, but those with these numbers."""
        if peer in self._slots:
            self._change(peer, lambda slots: slots.clear(keep))

    def forget_all_sessions(self, worker: int = 0) -> None:
        """A worker's ingress died, and every session with it."""
        for peer in [each for each in self._slots if worker_of_peer(each, self._workers) == worker]:
            self.forget_sessions(peer)

    def _change(self, peer: int, change: Callable[[_Slots], None]) -> None:
        slots = self._slots.setdefault(peer, _Slots())
        before = list(slots)
        change(slots)
        after = list(slots)
        for session in before:
            if session not in after:
                self._drop(session)

    def _drop(self, session: Session) -> None:
        if self.holder(session.index) == session:
            del self._entries[session.index & self._shared]
