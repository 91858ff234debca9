"""The egress program: TUN to UDP, with the send keys. Started by the supervisor.

    python -I -m wghsm.tunnel.egress --channel FD

It wires the Sender to the TUN, the UDP sockets and the channels, and drops its privileges before it reads a packet.
Where there are several workers, a packet may come from a queue of the TUN that is not its peer's worker's: it goes to
that worker's inbox, as read, and only that worker ever counts for the peer's sessions.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

from wghsm.ipc import ChannelKind, Counter, ProtocolError, Role, worker_of_peer
from wghsm.ipc import messages as m
from wghsm.process import Child, boottime, run_child
from wghsm.tunnel.engine import Engine, Outgoing, chosen
from wghsm.tunnel.sender import Sender, SendPeer
from wghsm.tunnel.times import PROTOCOL_TIMES, Times
from wghsm.tunnel.transmit import Transmitter
from wghsm.tunnel.virtio import PLAIN
from wghsm.tunnel.worker import BURST, LARGEST, Worker, take_stats, tun_gone

if TYPE_CHECKING:
    from wghsm.ipc import StatsFile
    from wghsm.process.endpoints import Destination

__all__ = ["main"]

_SMALL = 2048
"""Where a read is below this size, others that are alike may wait behind it, and copying one costs little."""

_TO_HANDSHAKE = ChannelKind.HANDSHAKE_EGRESS
_FROM_INGRESS = ChannelKind.INGRESS_EGRESS


class _Egress(Worker):
    def __init__(self, child: Child, stats: StatsFile, times: Times, engine: Engine) -> None:
        self._stats = stats
        self._transmitters: dict[str, Transmitter] = {}
        self._inboxes: dict[int, socket.socket] = {}
        self.sender = Sender(
            self._stats,
            self._transmit,
            self._tell,
            times,
            answer=self._write_tun,
            engine=engine,
            catch_up=lambda: child.catch_up(_FROM_INGRESS),
            hand_over=self._hand_over,
        )
        super().__init__(child, self.sender)
        child.on(child.home, m.Inbox, self._take_inbox)
        sender = self.sender
        child.on(ChannelKind.CUSTODIAN_EGRESS, m.InstallSend, self._install)
        for kind in (_TO_HANDSHAKE, _FROM_INGRESS):
            child.on(kind, m.Activate, lambda message, _fds: sender.activate(message, boottime()))
            child.on(kind, m.EndpointMoved, lambda message, _fds: sender.move_endpoint(message, boottime()))
        child.on(_TO_HANDSHAKE, m.SendKeepalive, lambda message, _fds: sender.keepalive(message.peer, boottime()))
        child.on(_TO_HANDSHAKE, m.PurgeStaged, lambda message, _fds: sender.purge_staged(message.peer))
        child.on(_TO_HANDSHAKE, m.ForgetSessions, lambda message, _fds: sender.forget_sessions(message))
        child.on(_TO_HANDSHAKE, m.ForgetSource, lambda message, _fds: sender.forget_source(message.peer))
        child.on(_TO_HANDSHAKE, m.AwaitSessions, self._answer_snapshot)

    def watch(self) -> None:
        if self.tun is not None:
            self.child.loop.add_reader(self.tun, self._read_tun)

    def unwatch(self) -> None:
        if self.tun is not None:
            self.child.loop.remove_reader(self.tun)

    def _set_mtu(self, mtu: int) -> None:
        super()._set_mtu(mtu)
        self.sender.mtu = mtu

    def _take_sockets(self, message: m.UdpSockets, fds: list[int]) -> None:
        self.sender.forget_sources()
        super()._take_sockets(message, fds)
        failed = partial(self._stats.count, Counter.SEND_FAILED)
        self._transmitters = {family: Transmitter(sock, failed) for family, sock in self.sockets.items()}

    def _read_tun(self) -> None:
        if self.tun is None:
            return
        read, take, wait = self.tun.read, self.sender.take, self.sender.take_waiting
        head = b"" if self.vnet else PLAIN
        fd = self.tun.fileno()
        left = BURST
        packet: bytes | None = None
        while left > 0:
            if packet is None:
                try:
                    packet = read(LARGEST)
                except OSError as error:
                    if fault := tun_gone(error):
                        raise fault from None
                    break
            if not packet:
                break
            left -= 1
            if take(head + packet, boottime()) and self.vnet and len(packet) < _SMALL:
                sealed, packet = wait(fd, packet, left)
                left -= sealed
            else:
                packet = None
        self.sender.flush()

    def _take_inbox(self, message: m.Inbox, fds: list[int]) -> None:
        if len(fds) != 1 or message.worker in self._inboxes:
            raise ProtocolError("Inbox comes once for each worker, with one descriptor")
        inbox = self._inboxes[message.worker] = socket.socket(fileno=fds[0])
        inbox.setblocking(False)
        if message.worker == self.child.start.worker:
            self.child.loop.add_reader(inbox, partial(self._read_inbox, inbox))

    def _read_inbox(self, inbox: socket.socket) -> None:
        for _ in range(BURST):
            try:
                packet = inbox.recv(LARGEST)
            except BlockingIOError:
                break
            # What waited while the link was down is not sent when it is up again.
            if self.up:
                self.sender.take(packet, boottime(), handed=True)
        self.sender.flush()

    def _hand_over(self, peer: int, packet: bytes) -> bool:
        start = self.child.start
        owner = worker_of_peer(peer, start.workers)
        if owner == start.worker:
            return False
        try:
            self._inboxes[owner].send(packet)
        except (OSError, KeyError):
            self._stats.count(Counter.OTHER_WORKER_BUSY)
        else:
            self._stats.count(Counter.HANDED_OVER)
        return True

    def _transmit(self, peer: SendPeer, destination: Destination, batch: Outgoing) -> int:
        transmitter = self._transmitters.get(destination.family)
        if transmitter is None:
            self._stats.count(Counter.SEND_FAILED, batch.count)
            return 0
        return transmitter.send(peer, destination, batch)

    def _write_tun(self, packet: bytes) -> None:
        # An ICMP error that the kernel will not take is no loss; a TUN that is gone is found by the next read.
        with contextlib.suppress(OSError):
            if self.tun is not None:
                self.tun.write(PLAIN + packet if self.vnet else packet)

    def _tell(self, message: m.Message) -> bool:
        return self.child.send(_TO_HANDSHAKE, message)

    def _install(self, message: m.InstallSend, _fds: list[int]) -> None:
        self.sender.install(message, boottime())
        self.expire_later()

    def _answer_snapshot(self, _message: m.AwaitSessions, _fds: list[int]) -> None:
        for part in self.sender.snapshot():
            self._tell(part)
        self.sender.ask_again(boottime())


def main(child: Child, times: Times = PROTOCOL_TIMES, engine: Engine | None = None) -> None:
    """Serve until the supervisor ends this process; `times` other than the protocol's, and `engine`, are for tests."""
    engine = engine or chosen()
    _Egress(child, take_stats(child), times, engine)
    child.drop(keep_memory_lock=True)
    child.report(m.Ready(engine.name))
    child.serve()


if __name__ == "__main__":
    sys.exit(run_child(Role.EGRESS, main))
