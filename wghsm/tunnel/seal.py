"""Seal TUN reads into datagrams: one of the two functions of the packet path, in Python.

    TUN read (virtio_net_hdr, packet up to 64 KiB) -> cut -> pad -> encrypt -> Outgoing -> one send with UDP_SEGMENT

`compiled` has the same in C; this one is always there, and what the other is tested against. Called by the Sender,
which has found the session. Source: PROTOCOL.md sections 3, 9 and 11; DATAPLANE.md section 2.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wghsm.tunnel.packets import outer_ecn, padding
from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import SIZE, VnetHeader

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MALFORMED", "MOST_BYTES", "MOST_DATAGRAMS", "Outgoing", "Sealer"]

MOST_BYTES: Final = 65507
"""Bytes of one send with UDP_SEGMENT, those of one UDP payload."""

MOST_DATAGRAMS: Final = 64
"""Datagrams of one send with UDP_SEGMENT that every kernel takes."""

MALFORMED: Final = -1
"""What `seal` gives for a read that is no packet, or whose header does not fit it."""

_TRANSPORT: Final = 4
_OVERHEAD: Final = 32
_header = Struct("<IIQ").pack
_nonce = Struct("<4xQ").pack
_ZEROS: Final = tuple(bytes(count) for count in range(16))


class Outgoing:
    """Datagrams for one send: all of `segment` bytes but the last, which may be shorter; one outer ECN for all.

    `flush` sends them and calls `clear`; it is called when the next datagram does not fit behind them.
    """

    __slots__ = ("_closed", "_datagrams", "_flush", "ecn", "segment", "size")

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self.clear()

    def clear(self) -> None:
        """Hold nothing."""
        self._datagrams: list[bytes] = []
        self._closed = False
        self.segment = self.size = self.ecn = 0

    @property
    def count(self) -> int:
        """How many datagrams there are."""
        return len(self._datagrams)

    @property
    def buffers(self) -> list[bytes]:
        """What sendmsg takes for all of them."""
        return self._datagrams

    def datagrams(self) -> list[bytes]:
        """Each by itself."""
        return list(self._datagrams)

    def make_room(self, size: int, ecn: int) -> None:
        """Flush if a datagram of `size` bytes cannot follow."""
        count = len(self._datagrams)
        if count and (
            self._closed
            or ecn != self.ecn
            or size > self.segment
            or count == MOST_DATAGRAMS
            or self.size + size > MOST_BYTES
        ):
            self._flush()

    def add(self, datagram: bytes, ecn: int) -> None:
        """Take a datagram for which there is room."""
        if not self._datagrams:
            self.segment = len(datagram)
            self.ecn = ecn
        self._closed = len(datagram) < self.segment
        self.size += len(datagram)
        self._datagrams.append(datagram)


class Sealer:
    """A session's send key and its one counter, that of the next datagram. `close` drops the key."""

    __slots__ = ("_cipher", "_index", "_limit", "counter")

    def __init__(self, key: bytes, index: int, limit: int) -> None:
        """`key`: 32 bytes, which stay the caller's. `index`: the receiver's. No counter reaches `limit`."""
        self._cipher: ChaCha20Poly1305 | None = ChaCha20Poly1305(key)
        self._index = index
        self._limit = limit
        self.counter = 0

    @property
    def closed(self) -> bool:
        """Whether the key is gone."""
        return self._cipher is None

    def close(self) -> None:
        """Drop the key. Nothing can be sealed afterwards."""
        self._cipher = None

    def seal(self, read: bytes, mtu: int, out: Outgoing) -> int:
        """Seal the packets of a TUN read, nothing for a keepalive, into `out`, which flushes itself.

        Gives how many of the read's last packets the limit of the counter has left unsealed, or MALFORMED.
        """
        if self._cipher is None:
            raise ValueError("the key is gone")
        packets = [read] if not read else _cut(read)
        if packets is None:
            return MALFORMED
        ecn = 0
        if read:
            if _OVERHEAD + len(packets[0]) + padding(len(packets[0]), mtu) > MOST_BYTES:
                return MALFORMED
            ecn = outer_ecn(packets[0])
        for position, packet in enumerate(packets):
            plaintext = packet + _ZEROS[padding(len(packet), mtu)] if packet else packet
            out.make_room(_OVERHEAD + len(plaintext), ecn)
            counter = self.counter
            if counter >= self._limit:
                return len(packets) - position
            # The counter goes first: whatever happens now, no nonce is used twice.
            self.counter = counter + 1
            sealed = self._cipher.encrypt(_nonce(counter), plaintext, None)
            out.add(_header(_TRANSPORT, self._index, counter) + sealed, ecn)
        return 0

    def seal_waiting(self, _fd: int, _last: bytes, _mtu: int, _most: int, _out: Outgoing) -> tuple[int, bytes | None]:
        """Read on from a TUN, and seal reads of one packet that go where the one in `last` goes and fit into `out`.

        Gives how many were sealed, and the read that is not such: nothing if none waits or `most` were sealed, None if
        this implementation, as the one here, leaves all reads to the caller.
        """
        return 0, None


def _cut(read: bytes) -> list[bytes] | None:
    return cut(VnetHeader.decode(read), read[SIZE:]) if len(read) > SIZE else None
