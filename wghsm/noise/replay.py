"""The replay window of one receiving session: RFC 6479's ring of blocks, 8128 counters behind the greatest.

Called by ingress for each packet, after the packet has authenticated: a forged counter must never move the window.
Source: PROTOCOL.md section 10.
"""

from typing import Final

from wghsm.noise.constants import COUNTER_BITS_TOTAL, COUNTER_WINDOW_SIZE, REJECT_AFTER_MESSAGES

__all__ = ["ReplayWindow"]

_BLOCKS: Final = COUNTER_BITS_TOTAL // 64
_BLOCK_MASK: Final = _BLOCKS - 1
_EMPTY: Final = [0] * _BLOCKS


class ReplayWindow:
    """Counters already received. `greatest` is the greatest one accepted, 0 before the first."""

    __slots__ = ("_ring", "greatest")

    def __init__(self) -> None:
        self.greatest = 0
        self._ring = _EMPTY.copy()

    def accept(self, counter: int) -> bool:
        """Whether the unsigned 64-bit `counter` is new; it is then remembered.

        False for one seen before, one more than 8128 behind the greatest, and one not below REJECT_AFTER_MESSAGES.
        """
        block = counter >> 6
        behind = self.greatest - counter
        if behind < 0:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            passed = block - (self.greatest >> 6)
            if passed >= _BLOCKS:
                self._ring[:] = _EMPTY
            elif passed:
                for stale in range(block - passed + 1, block + 1):
                    self._ring[stale & _BLOCK_MASK] = 0
            self.greatest = counter
        elif behind > COUNTER_WINDOW_SIZE:
            return False
        slot = block & _BLOCK_MASK
        bit = 1 << (counter & 63)
        seen = self._ring[slot]
        if seen & bit:
            return False
        self._ring[slot] = seen | bit
        return True
