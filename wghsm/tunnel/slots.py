"""Sessions and their slots, on both sides: which key receives, which key sends, and until when.

    ingress   InstallReceive -> ReceiveSession -> ReceiveSlots   previous, current, next
    egress    InstallSend    -> SendSession    -> SendSlots      current, and those that wait for Activate

A session takes its key into the engine's object and wipes the message's copy; libcrypto wipes its own when the
object goes. A key that was here once is refused by SeenKeys: no counter and no replay window ever starts again.
Pure: time is an argument, CLOCK_BOOTTIME in nanoseconds.
Source: PROTOCOL.md section 5; SEAMS.md "Installing a session".
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Literal, Protocol, TypeVar

from wghsm.tunnel.engine import PURE
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from wghsm.ipc import messages as m
    from wghsm.tunnel.engine import Engine
    from wghsm.tunnel.times import Times

__all__ = ["Expiry", "ReceiveSession", "ReceiveSlots", "SeenKeys", "SendSession", "SendSlots", "Slot"]

WAITING: Final = 3
"""Send sessions of a peer that may wait at once: more than ingress has slots for at any time."""

_NEVER: Final = 2**63

Slot = Literal["previous", "current", "next", "pending"]


class SendSession:
    """A session's send side: its key and the one counter of that key, both in `sealer`."""

    __slots__ = ("created", "expires", "initiator", "limit", "number", "rekey_at", "remote_index", "sealer")

    def __init__(self, message: m.InstallSend, now: int, times: Times, engine: Engine = PURE) -> None:
        """Take the key out of `message`, which holds zeros afterwards. A birthday in the future counts as now."""
        self.number = message.session
        self.remote_index = message.remote_index
        self.initiator = message.initiator
        self.created = min(message.created, now)
        self.expires = self.created + times.reject_after_time
        self.rekey_at = self.created + times.rekey_after_time if message.initiator else _NEVER
        self.limit = times.reject_after_messages
        self.sealer = engine.sealer(message.key, message.remote_index, self.limit)
        wipe(message.key)

    def __repr__(self) -> str:
        return f"SendSession({self.number})"

    def usable(self, now: int) -> bool:
        """Whether it may seal one more packet: younger than REJECT_AFTER_TIME, below REJECT_AFTER_MESSAGES."""
        return now < self.expires and self.sealer.counter < self.limit

    def close(self) -> None:
        """Drop the key. Nothing can be sealed afterwards."""
        self.sealer.close()


class SendSlots:
    """A peer's sessions in egress: `current` sends, up to WAITING others wait to be activated, oldest first."""

    __slots__ = ("_waiting", "current")

    def __init__(self) -> None:
        self.current: SendSession | None = None
        self._waiting: list[SendSession] = []

    def install(self, new: SendSession) -> None:
        """Let `new` wait for its activation.

        An earlier one that waits stays, though ingress may have given its slot away: its activation may be under
        way on another channel.
        """
        self._waiting.append(new)
        if len(self._waiting) > WAITING:
            self._waiting.pop(0).close()

    def activate(self, number: int) -> bool:
        """Send on session `number` from now on; False if it is not here.

        Whatever was installed before it goes: an older session that is activated late, because the channels are not
        ordered against each other, must not take over again.
        """
        if self.current is not None and self.current.number == number:
            return True
        for position, session in enumerate(self._waiting):
            if session.number == number:
                for old in self._waiting[:position]:
                    old.close()
                del self._waiting[: position + 1]
                if self.current is not None:
                    self.current.close()
                self.current = session
                return True
        return False

    def drop(self, session: SendSession) -> None:
        """Forget one session, if it is still here."""
        session.close()
        if self.current is session:
            self.current = None
        elif session in self._waiting:
            self._waiting.remove(session)

    def clear(self, keep: Container[int] = ()) -> None:
        """Forget all sessions but those with these numbers."""
        for session, _ in list(self.sessions()):
            if session.number not in keep:
                self.drop(session)

    def sessions(self) -> Iterator[tuple[SendSession, Slot]]:
        """All sessions with their slots."""
        if self.current is not None:
            yield self.current, "current"
        for session in self._waiting:
            yield session, "pending" if session.initiator else "next"


class ReceiveSession:
    """A session's receive side: its key and the one replay window of that key, both in `opener`."""

    __slots__ = ("created", "expires", "identity", "index", "initiator", "last_minute", "number", "opener")

    def __init__(self, message: m.InstallReceive, now: int, times: Times, engine: Engine = PURE) -> None:
        """Take the key out of `message`, which holds zeros afterwards. A birthday in the future counts as now.

        `last_minute`: from when on receiving asks for a new handshake, once.
        """
        self.number = message.session
        self.index = message.local_index
        self.identity = message.identity
        self.initiator = message.initiator
        self.created = min(message.created, now)
        self.expires = self.created + times.reject_after_time
        self.last_minute = self.created + times.rekey_after_time_recv if message.initiator else _NEVER
        self.opener = engine.opener(message.key, message.local_index, times.reject_after_messages)
        wipe(message.key)

    def __repr__(self) -> str:
        return f"ReceiveSession({self.number})"

    def close(self) -> None:
        """Drop the key and the window, a kilobyte that must not wait for `Expiry`. Nothing can be opened afterwards."""
        self.opener.close()


class ReceiveSlots:
    """A peer's sessions in ingress. Each method gives the sessions that it destroyed, closed."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: ReceiveSession | None = None
        self.current: ReceiveSession | None = None
        self.next: ReceiveSession | None = None

    def install(self, new: ReceiveSession) -> list[ReceiveSession]:
        """Take a new session, as section 5 has it: as CURRENT for the initiator, as NEXT for the responder."""
        if not new.initiator:
            gone = [self.previous, self.next]
            self.previous, self.next = None, new
        elif self.next is not None:
            gone = [self.previous, self.current]
            self.previous, self.current, self.next = self.next, new, None
        else:
            gone = [self.previous]
            self.previous, self.current = self.current, new
        return _closed(gone)

    def confirm(self) -> list[ReceiveSession]:
        """NEXT has received its first authenticated packet: it becomes CURRENT, and CURRENT becomes PREVIOUS."""
        gone = [self.previous]
        self.previous, self.current, self.next = self.current, self.next, None
        return _closed(gone)

    def drop(self, session: ReceiveSession) -> None:
        """Forget one session, if it is still here."""
        session.close()
        for slot in self.__slots__:
            if getattr(self, slot) is session:
                setattr(self, slot, None)

    def clear(self, keep: Container[int] = ()) -> list[ReceiveSession]:
        """Forget all sessions but those with these numbers."""
        gone = [session for session, _ in self.sessions() if session.number not in keep]
        for session in gone:
            self.drop(session)
        return gone

    def sessions(self) -> Iterator[tuple[ReceiveSession, Slot]]:
        """All sessions with their slots."""
        if self.previous is not None:
            yield self.previous, "previous"
        if self.current is not None:
            yield self.current, "current"
        if self.next is not None:
            yield self.next, "next"


def _closed(sessions: list[ReceiveSession | None]) -> list[ReceiveSession]:
    gone = [session for session in sessions if session is not None]
    for session in gone:
        session.close()
    return gone


class SeenKeys:
    """Fingerprints of the keys of the last `keep` nanoseconds (540 s: longer than a key can live anywhere)."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._seen: dict[bytes, int] = {}

    def add(self, key: bytes, now: int) -> bool:
        """Remember a key; False if it was here before."""
        while self._seen and now - next(iter(self._seen.values())) > self._keep:
            del self._seen[next(iter(self._seen))]
        fingerprint = hashlib.blake2s(key).digest()
        if fingerprint in self._seen:
            return False
        self._seen[fingerprint] = now
        return True


class _Expiring(Protocol):
    @property
    def expires(self) -> int: ...


_S = TypeVar("_S", bound=_Expiring)


class Expiry(Generic[_S]):
    """Sessions in the order they were installed, so that each key is dropped when it may not be used any more.

    Sessions are installed in the order of their birthdays but for moments; one that is late by that waits for
    those before it.
    """

    def __init__(self) -> None:
        self._sessions: deque[tuple[int, _S]] = deque()

    def add(self, peer: int, session: _S) -> None:
        """Watch a session of a peer."""
        self._sessions.append((peer, session))

    def due(self, now: int) -> Iterator[tuple[int, _S]]:
        """Sessions whose time is over, each once, also those dropped already."""
        while self._sessions and self._sessions[0][1].expires <= now:
            yield self._sessions.popleft()

    def next(self) -> int | None:
        """When to look again (CLOCK_BOOTTIME ns), or None."""
        return self._sessions[0][1].expires if self._sessions else None
