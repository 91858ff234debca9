"""Packets that wait in egress for a session: 128 for each peer, and a cap for all peers together.

The oldest packet of the same peer makes room. An empty packet in the queue is a keepalive.
Source: PROTOCOL.md sections 1 and 9; SEAMS.md "Endpoints, allowed IPs, staging".
"""

from collections import deque
from collections.abc import KeysView

from wghsm.noise.constants import MAX_STAGED_PACKETS

__all__ = ["MAX_STAGED_TOGETHER", "Staging"]

MAX_STAGED_TOGETHER = 16384
"""Packets of all peers together: about 24 MB at an MTU of 1420."""


class Staging:
    """The waiting packets of all peers, in order for each."""

    def __init__(self, each: int = MAX_STAGED_PACKETS, together: int = MAX_STAGED_TOGETHER) -> None:
        """Keep `each` packets of one peer at most, and `together` of all."""
        self._each = each
        self._together = together
        self._queues: dict[int, deque[bytes]] = {}
        self._total = 0

    def __contains__(self, peer: object) -> bool:
        return peer in self._queues

    def __len__(self) -> int:
        return self._total

    @property
    def peers(self) -> KeysView[int]:
        """Peers with packets waiting."""
        return self._queues.keys()

    def add(self, peer: int, packet: bytes) -> int:
        """Let `packet` wait; gives how many packets were dropped for it: the peer's oldest, or itself."""
        queue = self._queues.get(peer)
        if self._total >= self._together or (queue is not None and len(queue) >= self._each):
            if queue is None:
                return 1
            queue.popleft()
            queue.append(packet)
            return 1
        if queue is None:
            queue = self._queues[peer] = deque()
        queue.append(packet)
        self._total += 1
        return 0

    def take(self, peer: int) -> bytes | None:
        """The peer's oldest packet, or None."""
        queue = self._queues.get(peer)
        if queue is None:
            return None
        packet = queue.popleft()
        self._total -= 1
        if not queue:
            del self._queues[peer]
        return packet

    def purge(self, peer: int) -> int:
        """Drop the peer's packets; gives their number."""
        queue = self._queues.pop(peer, None)
        if queue is None:
            return 0
        self._total -= len(queue)
        return len(queue)
