"""The ingress program: UDP to TUN, with the receive keys; it alone reads the UDP sockets. Started by the supervisor.

    python -I -m wghsm.tunnel.ingress --channel FD

It wires the Receiver to the UDP sockets, the TUN and the channels, and drops its privileges before it reads a packet.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from wghsm.ipc import ChannelKind, Counter, Role
from wghsm.ipc import messages as m
from wghsm.process import Child, boottime, run_child
from wghsm.process.endpoints import CONTROL_SPACE, received
from wghsm.tunnel.deliver import Delivery
from wghsm.tunnel.engine import Engine, chosen
from wghsm.tunnel.open import MERGE_ALL, MERGE_NOTHING, MERGE_TCP
from wghsm.tunnel.receiver import Receiver
from wghsm.tunnel.times import PROTOCOL_TIMES, Times
from wghsm.tunnel.transmit import prepare
from wghsm.tunnel.worker import BURST, LARGEST, Worker, take_stats

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from wghsm.ipc import StatsFile

__all__ = ["main"]

_TO_HANDSHAKE = ChannelKind.HANDSHAKE_INGRESS
_TO_EGRESS = ChannelKind.INGRESS_EGRESS


class _Ingress(Worker):
    def __init__(self, child: Child, stats: StatsFile, times: Times, engine: Engine) -> None:
        self._stats = stats
        self._deliver: Callable[[bytes | memoryview], object] = self._lose
        self.receiver = Receiver(
            self._stats,
            tell=lambda message: child.send(_TO_HANDSHAKE, message),
            tell_egress=lambda message: child.send(_TO_EGRESS, message),
            hand_over=lambda message: child.try_send(_TO_HANDSHAKE, message),
            times=times,
            engine=engine,
            workers=child.start.workers,
        )
        super().__init__(child, self.receiver)
        child.on(ChannelKind.CUSTODIAN_INGRESS, m.InstallReceive, self._install)
        child.on(_TO_HANDSHAKE, m.ForgetSessions, lambda message, _fds: self.receiver.forget_sessions(message))
        child.on(_TO_HANDSHAKE, m.AwaitSessions, self._answer_snapshot)
        child.on(_TO_HANDSHAKE, m.Gates, lambda message, _fds: self.receiver.serve(message))
        child.on_attach(_TO_EGRESS, lambda _incarnation: self.receiver.tell_all_again())

    def watch(self) -> None:
        for sock in self.sockets.values():
            self.child.loop.add_reader(sock, partial(self._read_udp, sock))

    def unwatch(self) -> None:
        for sock in self.sockets.values():
            self.child.loop.remove_reader(sock)

    def _take_tun(self, message: m.TunDevice, fds: list[int]) -> None:
        super()._take_tun(message, fds)
        if self.tun is not None:
            lost = partial(self._stats.count, Counter.TUN_WRITE_FAILED)
            self._deliver = Delivery(self.tun.write, lost, vnet=self.vnet).deliver
        self.receiver.merge = MERGE_ALL if self.uso else MERGE_TCP if self.vnet else MERGE_NOTHING

    def _take_sockets(self, message: m.UdpSockets, fds: list[int]) -> None:
        super()._take_sockets(message, fds)
        for sock in self.sockets.values():
            prepare(sock)

    def _read_udp(self, sock: socket.socket) -> None:
        receiver, receive, write = self.receiver, sock.recvmsg, self._deliver
        take = receiver.read
        for _ in range(BURST):
            now = boottime()
            if receiver.besieged(now):
                swept = receiver.sweep(sock.fileno(), now)
                if swept is None:
                    return
                data, segment, source, ecn = swept
                take(data, segment or len(data), source, ecn, now, write)
                continue
            try:
                data, control, _, address = receive(LARGEST, CONTROL_SPACE)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error of something that was sent before; reading it clears it.
                continue
            info, ecn, segment = received(control)
            take(data, segment or len(data), (address, info), ecn, now, write)
            if not segment:
                # It came alone, so likely nothing waits: asking the loop for more costs less than a read that fails.
                return

    def _lose(self, _write: bytes | memoryview) -> None:
        """There is no TUN yet."""
        self._stats.count(Counter.TUN_WRITE_FAILED)

    def _install(self, message: m.InstallReceive, _fds: list[int]) -> None:
        self.receiver.install(message, boottime())
        self.expire_later()

    def _answer_snapshot(self, _message: m.AwaitSessions, _fds: list[int]) -> None:
        for part in self.receiver.snapshot():
            self.child.send(_TO_HANDSHAKE, part)


def main(child: Child, times: Times = PROTOCOL_TIMES, engine: Engine | None = None) -> None:
    """Serve until the supervisor ends this process; `times` other than the protocol's, and `engine`, are for tests."""
    engine = engine or chosen()
    _Ingress(child, take_stats(child), times, engine)
    child.drop(keep_memory_lock=True)
    child.report(m.Ready(engine.name))
    child.serve()


if __name__ == "__main__":
    sys.exit(run_child(Role.INGRESS, main))
