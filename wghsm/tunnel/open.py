"""Open UDP reads into TUN writes: one of the two functions of the packet path, in Python.

    UDP read (datagrams of one source, one outer ECN) -> authenticate -> window -> inner length -> source -> ECN
        -> merge -> TUN writes (virtio_net_hdr, packet up to 64 KiB)

`compiled` has the same in C; this one is always there, and what the other is tested against. Called by the Receiver,
which has found the session. The order of the steps is that of PROTOCOL.md section 10.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wghsm.noise import ReplayWindow
from wghsm.tunnel.coalesce import Coalescer
from wghsm.tunnel.packets import congested, unpadded
from wghsm.tunnel.virtio import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MERGE_ALL", "MERGE_NOTHING", "MERGE_TCP", "MOST_DATAGRAMS", "Opened", "Opener"]

MERGE_NOTHING: Final = 0
MERGE_TCP: Final = 1
MERGE_ALL: Final = 2

MOST_DATAGRAMS: Final = 128
"""Datagrams that one call opens at most."""

_HEADER_SIZE: Final = 16
_MINIMUM: Final = 32
_TRANSPORT: Final = 4
_CE: Final = 3
_header = Struct("<IIQ").unpack_from
_nonce = Struct("<4xQ").pack


class Opened:
    """What became of a run of datagrams of one session.

    `end`: where in the read the first one begins that is not of the run. `authenticated`: those that passed key and
    window, and of these `data` with a packet in them. `packets` and `size`: keepalives and what may be delivered, in
    bytes of UDP payload. `writes`: valid until the next call.
    """

    __slots__ = (
        "authenticated",
        "data",
        "end",
        "expired",
        "forged",
        "malformed",
        "packets",
        "refused",
        "replayed",
        "size",
        "writes",
    )

    def __init__(self) -> None:
        self.end = self.authenticated = self.data = self.packets = self.size = 0
        self.expired = self.forged = self.replayed = self.malformed = self.refused = 0
        self.writes: Sequence[bytes | memoryview] = ()


class Opener:
    """A session's receive key and its one replay window. `close` drops both."""

    __slots__ = ("_cipher", "_index", "_limit", "_window")

    def __init__(self, key: bytes, index: int, limit: int) -> None:
        """`key`: 32 bytes, which stay the caller's. `index`: our own. Counters from `limit` on are refused."""
        self._cipher: ChaCha20Poly1305 | None = ChaCha20Poly1305(key)
        self._window: ReplayWindow | None = ReplayWindow()
        self._index = index
        self._limit = limit

    @property
    def closed(self) -> bool:
        """Whether the key is gone."""
        return self._cipher is None

    def close(self) -> None:
        """Drop the key and the window, a kilobyte. Nothing can be opened afterwards."""
        self._cipher = self._window = None

    def open(
        self, read: bytes, at: int, segment: int, ecn: int, merge: int, allowed: Callable[[bytes], bool]
    ) -> Opened:
        """Open the datagrams from `at` on that are transport messages for this session, each of `segment` bytes.

        `ecn`: the outer ECN bits. `merge`: MERGE_NOTHING, MERGE_TCP or MERGE_ALL. `allowed` says whether a packed
        inner source may send in this session.
        """
        if self._cipher is None or self._window is None:
            raise ValueError("the key is gone")
        opened = Opened()
        writes: list[bytes] = []
        coalescer = Coalescer(uso=merge == MERGE_ALL)
        for _ in range(MOST_DATAGRAMS):
            datagram = read[at : at + segment]
            size = len(datagram)
            if size < _MINIMUM:
                break
            kind, index, counter = _header(datagram)
            if kind != _TRANSPORT or index != self._index:
                break
            at += size
            if counter >= self._limit:
                opened.expired += 1
                continue
            try:
                plaintext = self._cipher.decrypt(_nonce(counter), datagram[_HEADER_SIZE:], None)
            except InvalidTag:
                opened.forged += 1
                continue
            if not self._window.accept(counter):
                opened.replayed += 1
                continue
            opened.authenticated += 1
            if plaintext:
                opened.data += 1
                inner = unpadded(plaintext)
                if inner is None:
                    opened.malformed += 1
                    continue
                source, packet = inner
                if not allowed(source):
                    opened.refused += 1
                    continue
                if ecn == _CE:
                    packet = congested(packet)
                if merge:
                    coalescer.add(packet)
                else:
                    writes.append(PLAIN + packet)
            opened.packets += 1
            opened.size += size
        opened.end = at
        opened.writes = coalescer.take() if merge else writes
        return opened
