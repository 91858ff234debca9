"""The handshake program around its core: channels, send-only UDP sockets, the clock and the loop.

    channel -> core.handle -> effects -> channels, sendmsg
    loop's timer -> core.expire -> effects

Called by `python -m wghsm.handshake`; a test program may call `main` with other times. The sockets are handed over
by the supervisor and never read here: ingress does that. Handshake messages go out with DSCP AF41, cookie replies
without, and from the own address that the peer last spoke to (PROTOCOL.md sections 1 and 11).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final

from wghsm.ipc import ChannelKind, Counter, ProtocolError, Role, StatsFile, all_seats, worker_of
from wghsm.ipc import messages as m
from wghsm.ipc.table import ACCEPTS
from wghsm.process import Child, boottime, settle
from wghsm.process.endpoints import destination_of

from .core import HandshakeCore
from .effects import Effect, SendDatagram, Tell

if TYPE_CHECKING:
    from wghsm.ipc import Seat
    from wghsm.process import Timer

    from .times import Limits, Times

__all__ = ["Shell", "main"]

_KINDS: Final = {
    Role.CUSTODIAN: ChannelKind.HANDSHAKE_CUSTODIAN,
    Role.EGRESS: ChannelKind.HANDSHAKE_EGRESS,
    Role.INGRESS: ChannelKind.HANDSHAKE_INGRESS,
    Role.SUPERVISOR: ChannelKind.SUPERVISOR_HANDSHAKE,
}
_OWN = (m.Start, m.Attach, m.StatsTable, m.Shutdown, m.UdpSockets)
_TOS = Struct("@i")
_IPV6_TCLASS: Final = 67
# What sendmsg says when the cached source, or the way out with it, is not ours any more.
_SOURCE_LOST: Final = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV}
)


class Shell:
    """One handshake process: its child, its core and its sockets."""

    def __init__(
        self, child: Child, stats: StatsFile, times: Times | None = None, limits: Limits | None = None
    ) -> None:
        """Register everything that the table of channels gives this process with `child`."""
        workers = child.start.workers
        self.core = HandshakeCore(stats, os.urandom, time.time_ns, times, limits, workers=workers)
        self.sockets: dict[str, socket.socket] = {}
        self._child = child
        self._stats = stats
        self._timer: Timer | None = None
        self._stale = False
        self._channels = {
            seat: (kind, worker_of(seat)) for role, kind in _KINDS.items() for seat in all_seats(role, workers)
        }
        for sender, (kind, worker) in self._channels.items():
            for message in ACCEPTS[kind, Role.HANDSHAKE]:
                if message not in _OWN:
                    child.on(kind, message, partial(self._handle, sender), worker)
            if kind is not child.home:
                child.on_attach(kind, partial(self._attached, sender), worker)
                child.on_detach(kind, partial(self._detached, sender), worker)
        child.on(child.home, m.UdpSockets, self._take_sockets)

    def run(self, effects: list[Effect]) -> None:
        """Carry out what the core asks for, and look again when its next deadline has come."""
        for effect in effects:
            if isinstance(effect, Tell):
                kind, worker = self._channels[effect.to]
                self._child.send(kind, effect.message, worker=worker)
            else:
                self._send(effect)
        if not self._stale:
            # Once for all messages of a wake-up: under a flood they are many, and none of them sets a timer.
            self._stale = True
            self._child.loop.call_at(0, self._set_timer)

    def _handle(self, sender: Seat, message: m.Message, _fds: list[int]) -> None:
        self.run(self.core.handle(sender, message, boottime()))
        if isinstance(message, m.HandshakePeers):
            settle(len(message.upsert))

    def _attached(self, other: Seat, _incarnation: int) -> None:
        self.run(self.core.attached(other, boottime()))

    def _detached(self, other: Seat) -> None:
        self.run(self.core.detached(other, boottime()))

    def _expire(self) -> None:
        self._timer = None
        self.run(self.core.expire(boottime()))

    def _set_timer(self) -> None:
        self._stale = False
        due = self.core.next_deadline()
        if self._timer is not None:
            # A timer that is early finds nothing to do; most deadlines move away before they come.
            if due is None or due >= self._timer.when:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._child.loop.call_at(due, self._expire)

    def _take_sockets(self, message: m.UdpSockets, fds: list[int]) -> None:
        if len(fds) != len(message.families):
            raise ProtocolError("UdpSockets comes with one descriptor for each family")
        for old in self.sockets.values():
            old.close()
        self.sockets = {}
        for family, fd in zip(message.families, fds, strict=True):
            self.sockets[family] = socket.socket(fileno=fd)
        self.core.sockets_changed()
        self._child.report(m.Applied(message.change))

    def _send(self, effect: SendDatagram) -> None:
        destination = destination_of(effect.endpoint)
        sock = None if destination is None else self.sockets.get(destination.family)
        if destination is None or sock is None:
            self._stats.count(Counter.SEND_FAILED)
            return
        tos = (
            (socket.IPPROTO_IP, socket.IP_TOS, _TOS.pack(effect.tos))
            if destination.family == "4"
            else (socket.IPPROTO_IPV6, _IPV6_TCLASS, _TOS.pack(effect.tos))
        )
        try:
            sock.sendmsg((effect.data,), (tos, *destination.control), socket.MSG_DONTWAIT, destination.address)
        except OSError as error:
            if destination.control and error.errno in _SOURCE_LOST:
                if effect.peer is not None:
                    self.run(self.core.source_failed(effect.peer))
                try:
                    sock.sendmsg((effect.data,), (tos,), socket.MSG_DONTWAIT, destination.address)
                except OSError:
                    pass
                else:
                    return
            # A full queue, no route, a closed port told by ICMP: the timers will try again.
            self._stats.count(Counter.SEND_FAILED)


def main(child: Child, times: Times | None = None, limits: Limits | None = None) -> None:
    """Serve until the supervisor ends this process; `times` and `limits` other than the defaults are for tests."""
    _, fds = child.await_message(m.StatsTable)
    if len(fds) != 1:
        raise ProtocolError("StatsTable comes with one descriptor")
    stats = StatsFile(fds[0], child.role)
    os.close(fds[0])
    Shell(child, stats, times, limits)
    child.drop(behind=True)
    child.report(m.Ready())
    child.serve()
