"""Half a gateway for the tunnel's tests: the real egress and ingress, and the test as everybody else around them.

    test: supervisor, custodian, handshake process  <-- channels -->  egress, ingress  <-- TUN, UDP in a namespace

Keys are given by the test; nothing here makes a handshake.
"""

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast

from tests.network.support import Namespace
from wghsm.ipc import Channel, ChannelClosed, ChannelKind, Role, StatsFile, create_stats, socket_pair
from wghsm.ipc import messages as m
from wghsm.process import boottime

M = TypeVar("M", bound=m.Message)

LIMIT = 30.0
PEER = 7
MTU = 1420
UIDS = {Role.EGRESS: 61102, Role.INGRESS: 61103}

_SHORT = """\
from wghsm.process import run_child
from wghsm.tunnel import {0}, engine, Times
raise SystemExit(run_child("{0}", lambda child: {0}.main(child, Times({1}), engine.{2})))
"""
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN_NO_PI = 0x1001
_IFF_VNET_HDR = 0x4000
_BUFFER = 4 * 1024 * 1024
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49


@contextlib.contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Run the block in a namespace: what is opened there stays there."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
    try:
        _setns(there)
        yield
    finally:
        _setns(home)
        os.close(there)
        os.close(home)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


Offload = Literal["none", "tso", "uso"]


def open_tun(name: str, offload: Offload) -> int:
    """A TUN as an old kernel gives it (plain packets), one before 6.2 (no USO), or a new one."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = _IFF_TUN_NO_PI | (0 if offload == "none" else _IFF_VNET_HDR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    if offload != "none":
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0x67 if offload == "uso" else 0x07)
    return fd


def open_udp(family: str, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    if family == "4":
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind(("0.0.0.0", port))  # noqa: S104
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        sock.bind(("::", port))
    return sock


class End:
    """The test's end of a channel; messages that nobody has asked for yet are kept."""

    def __init__(self, sock: socket.socket, kind: ChannelKind, role: Role) -> None:
        self.channel = Channel(sock, kind, role)
        self._kept: list[m.Message] = []

    def send(self, message: m.Message, fds: Sequence[int] = ()) -> None:
        self.channel.send(message, fds)

    def _receive(self) -> None:
        try:
            for message, _ in self.channel.messages():
                self._kept.append(message)
        except ChannelClosed:
            if not self._kept:
                raise

    def expect(self, kind: type[M], limit: float = LIMIT) -> M:
        """The next message of this type; others are kept."""
        deadline = time.monotonic() + limit
        while True:
            for position, message in enumerate(self._kept):
                if isinstance(message, kind):
                    del self._kept[position]
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.channel], [], [], left)[0]:
                raise TimeoutError(f"no {kind.__name__} on {self.channel}, but {self._kept}")
            self._receive()

    def waiting(self, kind: type[M]) -> list[M]:
        """All messages of this type that have come."""
        self._receive()
        found = [message for message in self._kept if isinstance(message, kind)]
        self._kept = [message for message in self._kept if not isinstance(message, kind)]
        return found


class Gateway:
    """Egress and ingress in `namespace`, with one peer, PEER; `times` are the arguments of a Times, as text."""

    def __init__(
        self,
        namespace: Namespace,
        scratch: Path,
        addresses: Sequence[str],
        allowed: Sequence[str],
        times: str = "",
        offload: Offload = "uso",
        engine: Literal["PURE", "COMPILED"] = "COMPILED",
    ) -> None:
        self.namespace = namespace
        self.tun = "wg0"
        self.children: dict[Role, subprocess.Popen[bytes]] = {}
        self.supervisor: dict[Role, End] = {}
        self.port = 0
        self._changes = 0
        self._scratch = scratch
        self._times = times
        self._offload: Offload = offload
        self._engine = engine
        self._stats_fd = create_stats()
        self.stats = StatsFile(self._stats_fd, Role.SUPERVISOR)
        self._fds: list[int] = [self._stats_fd]
        with inside(namespace):
            self._tun_fd = open_tun(self.tun, offload)
        self._fds.append(self._tun_fd)
        namespace.run("ip", "link", "set", self.tun, "mtu", str(MTU), "up")
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            namespace.run("ip", "address", "add", address, "dev", self.tun, *nodad)
        for role in UIDS:
            self._start(role)
        self.handshake = {
            Role.EGRESS: self._attach(ChannelKind.HANDSHAKE_EGRESS, Role.HANDSHAKE, Role.EGRESS),
            Role.INGRESS: self._attach(ChannelKind.HANDSHAKE_INGRESS, Role.HANDSHAKE, Role.INGRESS),
        }
        self.custodian = {
            Role.EGRESS: self._attach(ChannelKind.CUSTODIAN_EGRESS, Role.CUSTODIAN, Role.EGRESS),
            Role.INGRESS: self._attach(ChannelKind.CUSTODIAN_INGRESS, Role.CUSTODIAN, Role.INGRESS),
        }
        first, second = socket_pair()
        for role, end in ((Role.INGRESS, first), (Role.EGRESS, second)):
            self.supervisor[role].send(m.Attach(ChannelKind.INGRESS_EGRESS, 1), [end.fileno()])
            end.close()
        self.configure(allowed)
        self.bind()
        for role in UIDS:
            self.supervisor[role].expect(m.Ready)
        self.link(up=True)

    def _start(self, role: Role) -> None:
        near, far = socket_pair()
        program = ["-c", _SHORT.format(role, self._times, self._engine)]
        argv = [sys.executable, "-I", *program, "--channel", str(far.fileno())]
        log = (self._scratch / f"{self.namespace.name}-{role}.log").open("wb")
        with log:
            self.children[role] = subprocess.Popen(argv, pass_fds=[far.fileno()], stderr=log)
        far.close()
        end = self.supervisor[role] = End(near, ChannelKind(f"supervisor-{role}"), Role.SUPERVISOR)
        end.send(m.Start("test", 1, UIDS[role], UIDS[role], os.getpid()))
        end.send(m.StatsTable(8), [self._stats_fd])
        end.send(m.TunnelPeers(self._change(), [PEER], []))
        end.send(m.TunDevice(MTU, self._offload != "none", self._offload == "uso"), [self._tun_fd])

    def _attach(self, kind: ChannelKind, ours: Role, theirs: Role) -> End:
        near, far = socket_pair()
        self.supervisor[theirs].send(m.Attach(kind, 1), [far.fileno()])
        far.close()
        return End(near, kind, ours)

    def reattach(self, kind: ChannelKind, theirs: Role) -> End:
        """A new handshake process: a fresh channel in place of the old one."""
        self.handshake[theirs] = self._attach(kind, Role.HANDSHAKE, theirs)
        return self.handshake[theirs]

    def _change(self) -> int:
        self._changes += 1
        return self._changes

    def configure(self, allowed: Sequence[str]) -> None:
        """Give PEER these allowed IPs: prepared at both, committed at ingress first."""
        change = self._change()
        networks = [ipaddress.ip_network(text) for text in allowed]
        routes = [m.Route(network.network_address.packed, network.prefixlen, PEER) for network in networks]
        for role in UIDS:
            self.supervisor[role].send(m.Routes(change, routes, last=True))
        for role in UIDS:
            self.supervisor[role].expect(m.Prepared)
        for role in (Role.INGRESS, Role.EGRESS):
            self.supervisor[role].send(m.RoutesCommit(change))
            self._applied(role, change)

    def _applied(self, role: Role, change: int) -> None:
        while self.supervisor[role].expect(m.Applied).change != change:
            pass

    def bind(self) -> None:
        """Open UDP sockets of both families on a new port, and hand them to both processes."""
        with inside(self.namespace):
            first = open_udp("4")
            self.port = cast("int", first.getsockname()[1])
            second = open_udp("6", self.port)
        change = self._change()
        for role in UIDS:
            message = m.UdpSockets(change, self.port, ["4", "6"])
            self.supervisor[role].send(message, [first.fileno(), second.fileno()])
            self._applied(role, change)
        first.close()
        second.close()

    def link(self, *, up: bool) -> None:
        """Say that the link is up or down."""
        for role in UIDS:
            self.supervisor[role].send(m.LinkState(up))

    def endpoint(self, host: str, port: int) -> None:
        """Configure PEER's endpoint."""
        self.handshake[Role.EGRESS].send(m.EndpointMoved(PEER, m.Endpoint(host, port), boottime()))

    def counters(self, role: Role) -> dict[str, int]:
        """What a process has counted."""
        return {str(counter): value for counter, value in self.stats.counters(role).items()}

    def close(self) -> None:
        """End both processes and the device."""
        for end in (*self.supervisor.values(), *self.handshake.values(), *self.custodian.values()):
            end.channel.close()
        for child in self.children.values():
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for fd in self._fds:
            os.close(fd)


def install(initiator: Gateway, responder: Gateway, session: int, index: int) -> dict[str, bytes]:
    """One session between two gateways with fresh random keys, in the order of a real handshake; gives the keys."""
    there, back = os.urandom(32), os.urandom(32)
    for gateway, is_initiator, send, receive in ((responder, False, back, there), (initiator, True, there, back)):
        now = boottime()
        ours, theirs = (index, index + 1) if is_initiator else (index + 1, index)
        to_receive = m.InstallReceive(session, PEER, ours, is_initiator, now, bytes(bytearray(receive)), 0)
        gateway.custodian[Role.INGRESS].send(to_receive)
        to_send = m.InstallSend(session, PEER, theirs, is_initiator, now, bytes(bytearray(send)))
        gateway.custodian[Role.EGRESS].send(to_send)
        installed = gateway.handshake[Role.INGRESS].expect(m.Installed)
        if installed != m.Installed(session):
            raise RuntimeError(f"not installed: {installed}")
    initiator.handshake[Role.EGRESS].send(m.Activate(session, PEER, confirm=True))
    responder.handshake[Role.INGRESS].expect(m.SessionConfirmed)
    return {"initiator's": there, "responder's": back}
