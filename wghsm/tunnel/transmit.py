"""Send batches of datagrams over the UDP sockets: many at once with UDP_SEGMENT, one by one where that does not work.

    a batch -> one sendmsg (source, outer ECN, segment size)
        EIO               the device cannot checksum: this socket sends one by one from now on
        EMSGSIZE, EINVAL  a datagram does not fit the way out whole: one by one to this destination, cut by the kernel
        EAGAIN            the socket is full: wait for it, but not for long
        no such source    once more without it

`prepare` makes a socket ready to be read the same way: UDP_GRO, and the outer ECN bits.

Called by the egress and ingress programs. Source: DATAPLANE.md section 2; PROTOCOL.md section 11.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wghsm.process.endpoints import Control, Destination
    from wghsm.tunnel.engine import Outgoing
    from wghsm.tunnel.sender import SendPeer

__all__ = ["Transmitter", "prepare"]

_log = logging.getLogger(__name__)

_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_RECVTOS: Final = 13
_segment = Struct("@H").pack
_ecn = Struct("@i").pack
# What sendmsg says when the cached source, or the way out with it, is not ours any more.
_SOURCE_LOST: Final = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV}
)
_TOO_LARGE: Final = frozenset({errno.EMSGSIZE, errno.EINVAL})
_PATIENCE: Final = 50
"""Milliseconds that a full socket is waited for: what stands in the TUN's queue meanwhile is not lost."""


class _Socket(Protocol):
    def fileno(self) -> int: ...
    def getsockopt(self, level: int, option: int, /) -> int: ...
    def sendmsg(
        self,
        buffers: Iterable[bytes | memoryview],
        ancdata: Iterable[tuple[int, int, bytes]],
        flags: int,
        address: tuple[str | int, ...],
        /,
    ) -> int: ...


class Transmitter:
    """One UDP socket to send with. `failed` is told how many datagrams were lost."""

    def __init__(self, sock: _Socket, failed: Callable[[int], object]) -> None:
        self._sock = sock
        self._failed = failed
        self._segments = True
        try:
            sock.getsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT)
        except OSError:
            self._give_up("the kernel has no UDP_SEGMENT")

    def send(self, peer: SendPeer, destination: Destination, batch: Outgoing) -> int:
        """Send a batch in order; gives the bytes that left. A source that is lost is forgotten with the peer."""
        count = batch.count
        error: OSError | None = None
        if self._segments and destination.segments:
            segment = batch.segment if count > 1 else 0
            if destination.prepared[:2] != (segment, batch.ecn):
                destination.prepared = (segment, batch.ecn, _control(destination, segment, batch.ecn))
            try:
                return self._send(batch.buffers, destination.prepared[2], destination)
            except OSError as caught:
                error = caught
            if error.errno == errno.EAGAIN:
                self._failed(count)
                return 0
            if count > 1 and error.errno == errno.EIO:
                self._give_up("the device cannot checksum segments")
        sent = self._send_each(peer, destination, batch)
        if sent and count > 1 and error is not None and error.errno in _TOO_LARGE and peer.destination is destination:
            destination.segments = False
        return sent

    def _send_each(self, peer: SendPeer, destination: Destination, batch: Outgoing) -> int:
        sent = 0
        control = _control(destination, 0, batch.ecn)
        for datagram in batch.datagrams():
            try:
                sent += self._send((datagram,), control, destination)
            except OSError as error:
                if destination.control and error.errno in _SOURCE_LOST:
                    destination = peer.destination = destination.without_source()
                    control = _control(destination, 0, batch.ecn)
                    try:
                        sent += self._send((datagram,), control, destination)
                        continue
                    except OSError:
                        pass
                # Full queues, no route, a closed port told by ICMP: a datagram may get lost, the loop goes on.
                self._failed(1)
        return sent

    def _send(self, buffers: Sequence[bytes | memoryview], control: Control, destination: Destination) -> int:
        try:
            return self._sock.sendmsg(buffers, control, 0, destination.address)
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(self._sock.fileno(), select.POLLOUT)
            waiting.poll(_PATIENCE)
            return self._sock.sendmsg(buffers, control, 0, destination.address)

    def _give_up(self, why: str) -> None:
        self._segments = False
        _log.warning("datagrams are sent one by one: %s", why)


def prepare(sock: socket.socket) -> None:
    """Let a read give many datagrams of one source, and the outer ECN bits. A kernel that cannot is told in the log."""
    options = [(socket.IPPROTO_UDP, _UDP_GRO)]
    if sock.family == socket.AF_INET:
        options.append((socket.IPPROTO_IP, _IP_RECVTOS))
    else:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS))
    for level, option in options:
        try:
            sock.setsockopt(level, option, 1)
        except OSError as error:
            _log.warning("socket option %d of level %d is not to be had: %s", option, level, error.strerror)


def _control(destination: Destination, segment: int, ecn: int) -> Control:
    """Source, outer ECN bits (DSCP is always 0), and the size of each datagram where there are many."""
    control = list(destination.control)
    if ecn and destination.family == "4":
        control.append((socket.IPPROTO_IP, socket.IP_TOS, _ecn(ecn)))
    elif ecn:
        control.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _ecn(ecn)))
    if segment:
        control.append((socket.IPPROTO_UDP, _UDP_SEGMENT, _segment(segment)))
    return control
