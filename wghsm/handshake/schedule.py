"""One deadline for each key, and which comes next: a heap whose outdated entries are skipped.

Used by the core for the timers of many peers, for reports and for paced re-keys. Pure; times are nanoseconds.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from .pace import Pace

__all__ = ["Rekeys", "Schedule"]

_K = TypeVar("_K")

_SLACK = 64


class Schedule(Generic[_K]):
    """Deadlines of keys; of equal ones the first that was set comes first."""

    def __init__(self) -> None:
        self._when: dict[_K, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, _K]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._when)

    def __contains__(self, key: _K) -> bool:
        return key in self._when

    def set(self, key: _K, when: int | None) -> None:
        """The key's only deadline is `when` now; None removes it."""
        known = self._when.get(key)
        if when is None:
            self._when.pop(key, None)
        elif known is None or known[0] != when:
            order = next(self._order)
            self._when[key] = (when, order)
            heapq.heappush(self._heap, (when, order, key))
            if len(self._heap) > 2 * len(self._when) + _SLACK:
                self._heap = [(*entry, kept) for kept, entry in self._when.items()]
                heapq.heapify(self._heap)

    def next(self) -> int | None:
        """The earliest deadline, or None."""
        while self._heap and self._when.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: int) -> _K | None:
        """The key that is due first, without its deadline from now on; None if none is due."""
        when = self.next()
        if when is None or when > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._when[key]
        return key


class Rekeys:
    """Peers that are to be re-keyed: one leaves when it is due and has a place.

    With each stands since when: a handshake that was complete after that will do.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._queue: Schedule[int] = Schedule()
        self._since: dict[int, int] = {}

    def __contains__(self, peer: int) -> bool:
        return peer in self._queue

    def add(self, peer: int, since: int, due: int) -> None:
        """Queue a peer; one that is queued keeps its place."""
        self._since[peer] = since
        if peer not in self._queue:
            self._queue.set(peer, due)

    def discard(self, peer: int) -> None:
        """Forget a peer."""
        self._queue.set(peer, None)
        self._since.pop(peer, None)

    def next(self) -> int | None:
        """When the next peer may leave; None if there is none, or it waits for an answer of the custodian."""
        due, free = self._queue.next(), self._pace.free_at()
        return None if due is None or free is None else max(due, free)

    def pop(self, now: int) -> tuple[int, int] | None:
        """The next peer whose time has come, and since when it is to be re-keyed; or None."""
        if not self._pace.has_place(now) or (peer := self._queue.pop(now)) is None:
            return None
        return peer, self._since.pop(peer)
