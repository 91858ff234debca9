"""Token buckets for sources of handshake messages: 20 a second, 5 at once, per IPv4 /32 or IPv6 /64.

Asked by the handshake process under load only: after mac2 has proven the source, and before a cookie reply is made.
Source: PROTOCOL.md section 7.
"""

from collections import OrderedDict
from typing import Final

from wghsm.noise.constants import NSEC_PER_SEC, PACKETS_BURSTABLE, PACKETS_PER_SECOND

__all__ = ["RateLimiter"]

PACKET_COST: Final = NSEC_PER_SEC // PACKETS_PER_SECOND
TOKEN_MAX: Final = PACKET_COST * PACKETS_BURSTABLE
MAX_ENTRIES: Final = 65536
_IDLE: Final = NSEC_PER_SEC


class RateLimiter:
    """Buckets counted in nanoseconds, at most `max_entries` of them; `when_full` decides on a new source beyond them.

    Idle sources are forgotten after a second, in passing; `collect` does it also when nobody asks.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, *, when_full: bool = False) -> None:
        self._max_entries = max_entries
        self._when_full = when_full
        # Source to (tokens, time), the longest idle first.
        self._buckets: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, address: bytes, now: int) -> bool:
        """Whether a message of the source may pass. `address`: packed, 4 or 16 bytes; `now`: CLOCK_BOOTTIME in ns.

        Raises ValueError for an address of another length.
        """
        if len(address) not in (4, 16):
            raise ValueError(f"a packed address has 4 or 16 bytes, not {len(address)}")
        source = address[:8]
        self.collect(now)
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= self._max_entries:
                return self._when_full
            self._buckets[source] = (TOKEN_MAX - PACKET_COST, now)
            return True
        tokens, since = bucket
        tokens = min(TOKEN_MAX, tokens + max(0, now - since))
        allowed = tokens >= PACKET_COST
        self._buckets[source] = (tokens - PACKET_COST if allowed else tokens, now)
        self._buckets.move_to_end(source)
        return allowed

    def collect(self, now: int) -> None:
        """Forget every source that has been idle for more than a second."""
        while self._buckets:
            source = next(iter(self._buckets))
            if now - self._buckets[source][1] <= _IDLE:
                return
            del self._buckets[source]
