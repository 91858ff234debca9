"""What the two tunnel programs share: the supervisor's messages and the descriptors that come with them.

    TunnelPeers, Routes, RoutesCommit  -> the core (Sender or Receiver)
    TunDevice, Mtu, UdpSockets         -> descriptors, replaced and closed here
    LinkState                          -> reading begins and ends

Of the peers a worker takes those that are its own (wghsm.ipc.worker_of_peer), of the allowed IPs all of them: the
longest prefix decides among the peers of all workers. A subclass says what is read while the link is up.
"""

from __future__ import annotations

import errno
import io
import os
import socket
from typing import TYPE_CHECKING, Protocol

from wghsm.exits import ExitCode
from wghsm.ipc import ProtocolError, StatsFile, worker_of_peer
from wghsm.ipc import messages as m
from wghsm.process import ChildFault, boottime, settle
from wghsm.tunnel.allowed_ips import RouteChanges
from wghsm.tunnel.virtio import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wghsm.process import Child
    from wghsm.tunnel.allowed_ips import AllowedIPs

__all__ = ["BURST", "LARGEST", "Worker", "take_stats", "tun_gone"]

BURST = 64
"""Reads from one descriptor before the channels have their turn."""

EAGER = 5
"""Looks for more before a program sleeps, some 10 microseconds together: many answers in a tunnel come by then."""

LARGEST = 65536 + SIZE
"""Bytes of one read: more than any IP packet with its virtio_net_hdr, or UDP payload, has."""


class _Core(Protocol):
    routes: AllowedIPs

    def change_peers(self, add: Iterable[int], remove: Iterable[int]) -> None: ...
    def link_down(self) -> None: ...
    def expire(self, now: int) -> int | None: ...


class Worker:
    """One tunnel program: its child, its core, its TUN and its sockets."""

    def __init__(self, child: Child, core: _Core) -> None:
        """Register the supervisor's messages with `child`."""
        self.child = child
        child.loop.eager = EAGER
        self.tun: io.FileIO | None = None
        self.vnet = False
        self.uso = False
        self.mtu = 0
        self.sockets: dict[str, socket.socket] = {}
        self.up = False
        self._core = core
        self._changes = RouteChanges(core.routes)
        self._expiring = False
        self._added = 0
        home = child.home
        child.on(home, m.TunnelPeers, self._take_peers)
        child.on(home, m.Routes, self._take_routes)
        child.on(home, m.RoutesCommit, self._commit_routes)
        child.on(home, m.TunDevice, self._take_tun)
        child.on(home, m.Mtu, lambda message, _fds: self._set_mtu(message.mtu))
        child.on(home, m.UdpSockets, self._take_sockets)
        child.on(home, m.LinkState, self._set_link)

    def watch(self) -> None:
        """The link is up or a descriptor has changed: read what this program reads."""
        raise NotImplementedError

    def unwatch(self) -> None:
        """The link is down or a descriptor is about to be closed: stop reading. May be called twice."""
        raise NotImplementedError

    def expire_later(self) -> None:
        """A key was installed: see to it that it is dropped in time."""
        if not self._expiring:
            self._expire()

    def _expire(self) -> None:
        due = self._core.expire(boottime())
        self._expiring = due is not None
        if due is not None:
            self.child.loop.call_at(due, self._expire)

    def _take_peers(self, message: m.TunnelPeers, _fds: list[int]) -> None:
        start = self.child.start
        own = [peer for peer in message.add if worker_of_peer(peer, start.workers) == start.worker]
        self._core.change_peers(own, message.remove)
        self.child.report(m.Applied(message.change))

    def _take_routes(self, message: m.Routes, _fds: list[int]) -> None:
        try:
            self._changes.prepare(message.change, message.routes)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        self._added += len(message.routes)
        if message.last:
            self.child.report(m.Prepared(message.change))

    def _commit_routes(self, message: m.RoutesCommit, _fds: list[int]) -> None:
        try:
            self._changes.commit(message.change)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        settle(self._added)
        self._added = 0
        self.child.report(m.Applied(message.change))

    def _take_tun(self, message: m.TunDevice, fds: list[int]) -> None:
        if len(fds) != 1:
            raise ProtocolError("TunDevice comes with one descriptor")
        self.unwatch()
        if self.tun is not None:
            self.tun.close()
        os.set_blocking(fds[0], False)
        self.tun = io.FileIO(fds[0], "r+b")
        self.vnet, self.uso = message.vnet, message.vnet and message.uso
        self._set_mtu(message.mtu)
        self._watch_if_up()

    def _set_mtu(self, mtu: int) -> None:
        self.mtu = mtu

    def _take_sockets(self, message: m.UdpSockets, fds: list[int]) -> None:
        if len(fds) != len(message.families):
            raise ProtocolError("UdpSockets comes with one descriptor for each family")
        self.unwatch()
        for old in self.sockets.values():
            old.close()
        self.sockets = {}
        for family, fd in zip(message.families, fds, strict=True):
            new = self.sockets[family] = socket.socket(fileno=fd)
            new.setblocking(False)
        self._watch_if_up()
        self.child.report(m.Applied(message.change))

    def _set_link(self, message: m.LinkState, _fds: list[int]) -> None:
        self.up = message.up
        if not message.up:
            self.unwatch()
            self._core.link_down()
        self._watch_if_up()

    def _watch_if_up(self) -> None:
        if self.up:
            self.watch()


def take_stats(child: Child) -> StatsFile:
    """The statistics table, which the supervisor sends first of all; ProtocolError if something else comes."""
    _, fds = child.await_message(m.StatsTable)
    if len(fds) != 1:
        raise ProtocolError("StatsTable comes with one descriptor")
    stats = StatsFile(fds[0], child.role, child.start.worker)
    os.close(fds[0])
    return stats


def tun_gone(error: OSError) -> ChildFault | None:
    """The fault for an error of the TUN that means its end; None for one that a later packet may not meet."""
    if error.errno in (errno.EBADFD, errno.EBADF, errno.ENODEV):
        return ChildFault(ExitCode.SYSTEM, f"the TUN device is gone: {error.strerror}")
    return None
