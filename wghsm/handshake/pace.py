"""How many re-keys are under way at once: as many as the token answers in good time.

    begun             -> takes a place, until its handshake is complete or has taken `rekey_patience`
    own requests open -> as many places are taken at least
    a response is proven: in time, with all places taken -> one more, `rekeys_most` at most;  late -> half of them

So a fast token is kept at work, a slow one never has more to do than it answers before its requests are given up, and
the handshakes of others wait behind few. Called by `core` and `exchange`. Pure: times are CLOCK_BOOTTIME in
nanoseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .requests import Requests
    from .times import Limits, Times

__all__ = ["Pace"]

_LEAST = 2


class Pace:
    """The places, from what is open in `requests` and how soon it is answered."""

    def __init__(self, requests: Requests, times: Times, limits: Limits) -> None:
        self._requests = requests
        self._times = times
        self._limits = limits
        self._places = limits.rekeys_first
        self._begun: OrderedDict[int, int] = OrderedDict()
        self._halved = 0
        self._forgotten = 0

    @property
    def places(self) -> int:
        """How many may be under way."""
        return self._places

    @property
    def crowded(self) -> bool:
        """Whether the custodian has enough to do with our own handshakes."""
        return self._requests.own >= self._places

    def free_at(self) -> int | None:
        """When a place is free: 0 for now; None if that takes an answer of the custodian."""
        if self.crowded:
            return None
        return next(iter(self._begun.values())) if len(self._begun) >= self._places else 0

    def has_place(self, now: int) -> bool:
        """Whether a re-key may begin."""
        while self._begun and next(iter(self._begun.values())) <= now:
            self._begun.popitem(last=False)
        return len(self._begun) < self._places and not self.crowded

    def begin(self, peer: int, now: int) -> None:
        """A re-key of the peer begins."""
        if not self._begun and now >= self._forgotten:
            # The first of many, after a while: the token may be another one by now.
            self._places = min(self._places, self._limits.rekeys_first)
        self._forgotten = now + self._times.rekey_patience
        self._begun.pop(peer, None)
        self._begun[peer] = now + self._times.rekey_patience

    def over(self, peer: int) -> None:
        """A handshake with the peer is complete."""
        self._begun.pop(peer, None)

    def answered(self, asked: int, now: int) -> None:
        """The custodian has answered at `now` what it was asked at `asked` about a response, whatever the answer is."""
        if now - asked <= self._times.rekey_latency:
            # Of places that were not all taken nothing is learned.
            if max(len(self._begun), self._requests.own + 1) >= self._places:
                self._places = min(self._places + 1, self._limits.rekeys_most)
        elif asked >= self._halved:
            # Once for all that was asked before: it stood in the same queue.
            self._places = max(self._places // 2, _LEAST)
            self._halved = now
