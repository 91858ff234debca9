"""Whether the gateway is under load: the token is what is scarce, so its work and its latency count beside the queue.

    pending    many requests at the custodian, or one that is old
    latency    the custodian's last answers, at their 95th percentile, were slow
    queue      a datagram that has waited for long, or many in a row that have waited
    crowd      more handshake messages came than ingress passes on

Each holds for UNDER_LOAD_TIME. Called by `intake` for each message with a good shape, and by `exchange` for each answer
of the custodian. Pure: times are CLOCK_BOOTTIME in nanoseconds. Source: PROTOCOL.md section 7, "HSM twist".
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .requests import Requests
    from .times import Limits, Times

__all__ = ["Load"]

_ANSWERS = 40
_SLOW = _ANSWERS // 20
"""More than this many slow ones of the last 40 answers, and the 95th percentile is slow."""


class Load:
    """The gateway's load, from what is open in `requests`, the answers and the arriving datagrams."""

    def __init__(self, requests: Requests, times: Times, limits: Limits) -> None:
        self._requests = requests
        self._times = times
        self._limits = limits
        self._until = 0
        self._in_a_row = 0
        # When the custodian gave its last answers that were slow, and how many it has given: a window of 40.
        self._slow: deque[tuple[int, int]] = deque(maxlen=_SLOW + 1)
        self._answers = 0

    def answered(self, asked: int, now: int) -> None:
        """The custodian has answered at `now` what it was asked at `asked`, whatever the answer is."""
        self._answers += 1
        if now - asked < self._times.slow_percentile:
            return
        self._slow.append((self._answers, now))
        number, when = self._slow[0]
        if len(self._slow) > _SLOW and self._answers - number < _ANSWERS and now - when < self._times.latency_window:
            self._until = now + self._times.under_load_time

    def arrived(self, at: int, now: int, *, crowded: bool = False) -> bool:
        """A datagram that ingress has read at `at` is looked at: whether we are under load."""
        waited = now - at
        self._in_a_row = self._in_a_row + 1 if waited >= self._times.queue_wait else 0
        oldest = self._requests.oldest()
        if (
            crowded
            or len(self._requests) >= self._limits.load_mark
            or self._in_a_row >= self._limits.load_mark
            or waited >= self._times.slow_answer
            or (oldest is not None and now - oldest >= self._times.slow_answer)
        ):
            self._until = now + self._times.under_load_time
        return now < self._until
