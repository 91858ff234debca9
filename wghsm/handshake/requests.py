"""What was asked of the custodian and not yet answered, and sessions that wait for ingress's acknowledgement.

    Requests   request number -> what to do with the answer; bounded, each with a deadline
    Installs   the custodian's "derived" and ingress's "installed", in either order -> both

Called by the core. Pure; times are CLOCK_BOOTTIME in nanoseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.ipc.messages import Endpoint

    from .peers import Candidate, Installation, OwnInitiation, Peer

__all__ = ["Accepting", "Creating", "Finishing", "Installs", "Request", "Requests"]


@dataclass(frozen=True, slots=True)
class Accepting:
    """An initiation of a stranger is being proven, made for our key `identity` (32 bytes).

    `incarnation` counts the egress processes that were lost before, for the session's send key.
    """

    identity: bytes
    index: int
    remote_index: int
    source: Endpoint
    at: int
    size: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Creating:
    """An initiation of ours is being made, asked for at `at`."""

    peer: Peer
    index: int
    at: int


@dataclass(frozen=True, slots=True)
class Finishing:
    """A response to an initiation of ours is being proven."""

    peer: Peer
    initiation: OwnInitiation
    candidate: Candidate
    incarnation: int


Request = Accepting | Creating | Finishing


class Requests:
    """Open requests, each dropped after `lifetime` nanoseconds."""

    def __init__(self, lifetime: int) -> None:
        self._lifetime = lifetime
        self._last = 0
        self._open: OrderedDict[int, tuple[int, Request]] = OrderedDict()
        self._of_strangers = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def own(self) -> int:
        """How many are of our own handshakes."""
        return len(self._open) - self._of_strangers

    def add(self, request: Request, now: int) -> int:
        """Remember a request; its number, which is never used again."""
        self._last += 1
        self._open[self._last] = (now, request)
        self._of_strangers += isinstance(request, Accepting)
        return self._last

    def pop(self, number: int) -> Request | None:
        """The request that is answered; None if it is not open (any more)."""
        entry = self._open.pop(number, None)
        return None if entry is None else self._closed(entry[1])

    def asked(self, number: int) -> int | None:
        """When an open request was made; None if it is not open (any more)."""
        entry = self._open.get(number)
        return None if entry is None else entry[0]

    def oldest(self) -> int | None:
        """When the oldest open request was made."""
        return next(iter(self._open.values()))[0] if self._open else None

    def next_deadline(self) -> int | None:
        """When the oldest one is given up."""
        oldest = self.oldest()
        return None if oldest is None else oldest + self._lifetime

    def expire(self, now: int) -> list[Request]:
        """Give up those that are too old."""
        expired = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            expired.append(self._closed(self._open.popitem(last=False)[1][1]))
        return expired

    def clear(self) -> list[Request]:
        """Give up all: the custodian is gone."""
        given_up = [request for _, request in self._open.values()]
        self._open.clear()
        self._of_strangers = 0
        return given_up

    def _closed(self, request: Request) -> Request:
        self._of_strangers -= isinstance(request, Accepting)
        return request


class Installs:
    """Joins a derived session with the acknowledgement of ingress; at most `early` of these may come first."""

    def __init__(self, lifetime: int, early: int) -> None:
        self._lifetime = lifetime
        self._limit = early
        self._derived: OrderedDict[int, tuple[int, Installation]] = OrderedDict()
        self._early: OrderedDict[int, tuple[int, bool, int]] = OrderedDict()

    def derived(self, session: int, installation: Installation, now: int) -> bool | None:
        """The custodian has derived a session: ingress's word on it if that came first, else None: wait for it."""
        if (early := self._early.pop(session, None)) is not None:
            return early[1]
        self._derived[session] = (now, installation)
        return None

    def installed(self, session: int, accepted: bool, now: int, worker: int = 0) -> Installation | None:
        """A worker's ingress has spoken: the session that waited for it, or None while the custodian has not."""
        if (entry := self._derived.pop(session, None)) is not None:
            return entry[1]
        self._early[session] = (now, accepted, worker)
        if len(self._early) > self._limit:
            self._early.popitem(last=False)
        return None

    def next_deadline(self) -> int | None:
        """When the oldest entry is given up."""
        firsts = [next(iter(self._derived.values()))[0]] if self._derived else []
        firsts += [next(iter(self._early.values()))[0]] if self._early else []
        return min(firsts) + self._lifetime if firsts else None

    def expire(self, now: int) -> list[Installation]:
        """Give up what is too old; the sessions among it."""
        while self._early and next(iter(self._early.values()))[0] + self._lifetime <= now:
            self._early.popitem(last=False)
        expired = []
        while self._derived and next(iter(self._derived.values()))[0] + self._lifetime <= now:
            expired.append(self._derived.popitem(last=False)[1][1])
        return expired

    def forget_early(self, worker: int = 0) -> None:
        """A worker's ingress died: what it acknowledged is gone. Sessions wait on: they may go to its successor."""
        for session in [number for number, entry in self._early.items() if entry[2] == worker]:
            del self._early[session]

    def clear(self, owns: Callable[[Peer], bool], worker: int = 0) -> list[Installation]:
        """Forget all of a worker, which `owns` these peers, acknowledgements too; the sessions among it."""
        given_up = [installation for _, installation in self._derived.values() if owns(installation.peer)]
        for installation in given_up:
            del self._derived[installation.session.number]
        self.forget_early(worker)
        return given_up
