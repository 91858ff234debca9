"""The handshake program as it is started: channels, dropped privileges, and what its datagrams look like outside."""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from wghsm.exits import ExitCode
from wghsm.ipc import (
    Channel,
    ChannelClosed,
    ChannelKind,
    Counter,
    PeerField,
    Role,
    Seat,
    StatsFile,
    create_stats,
    seat_of,
    socket_pair,
)
from wghsm.ipc import messages as m
from wghsm.noise import CookieMaker, Initiation, MessageType, message_type

if TYPE_CHECKING:
    from collections.abc import Iterator

UID = 61101
LONGEST = 30.0
OURS = bytes(range(32))
THEIRS = bytes(range(1, 33))
_CMSG_SPACE = 256

_M = TypeVar("_M", bound=m.Message)


class Program:
    """One handshake process; this test is its supervisor and all its neighbours."""

    def __init__(self, workers: int = 1) -> None:
        ours, theirs = socket_pair()
        self.home = Channel(ours, ChannelKind.SUPERVISOR_HANDSHAKE, Role.SUPERVISOR)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", "wghsm.handshake", "--channel", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.channels: dict[Seat, Channel] = {Role.SUPERVISOR: self.home}
        self.kept: dict[Seat, list[m.Message]] = {}
        fd = create_stats()
        self.stats = StatsFile(fd, Role.SUPERVISOR)
        self.home.send(m.Start("wg-test", 1, UID, UID, os.getpid(), workers=workers))
        self.home.send(m.StatsTable(1), [fd])
        os.close(fd)

    def attach(self, other: Role, worker: int = 0) -> None:
        kind = {
            Role.CUSTODIAN: ChannelKind.HANDSHAKE_CUSTODIAN,
            Role.EGRESS: ChannelKind.HANDSHAKE_EGRESS,
            Role.INGRESS: ChannelKind.HANDSHAKE_INGRESS,
        }[other]
        ours, theirs = socket_pair()
        self.home.send(m.Attach(kind, 1, worker), [theirs.fileno()])
        theirs.close()
        if old := self.channels.pop(seat_of(other, worker), None):
            old.close()
        self.channels[seat_of(other, worker)] = Channel(ours, kind, other)

    def bind(self, *, change: int = 7) -> int:
        """Give it fresh sockets of both families on one port of loopback; the port."""
        four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        four.bind(("127.0.0.1", 0))
        six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::1", 0))
        any_four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        any_four.bind(("0.0.0.0", 0))  # noqa: S104 - the source is to be chosen for each datagram
        self.home.send(m.UdpSockets(change, four.getsockname()[1], ["4", "6"]), [any_four.fileno(), six.fileno()])
        assert self.expect(Role.SUPERVISOR, m.Applied) == m.Applied(change)
        port: int = any_four.getsockname()[1]
        for one in (four, six, any_four):
            one.close()
        return port

    def expect(self, sender: Seat, kind: type[_M]) -> _M:
        """The next message of this kind; others of the same sender are kept."""
        channel, kept = self.channels[sender], self.kept.setdefault(sender, [])
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            for position, message in enumerate(kept):
                if isinstance(message, kind):
                    del kept[position]
                    return message
            item = channel.receive()
            if item is None:
                select.select([channel], [], [], 1)
            else:
                kept.append(item[0])
        raise AssertionError(f"no {kind.__name__} of {sender}")

    def serve(self) -> None:
        """Bring it to where it makes handshakes."""
        self.home.send(m.LinkState(True))
        for role in (Role.CUSTODIAN, Role.EGRESS, Role.INGRESS):
            self.attach(role)
        self.channels[Role.CUSTODIAN].send(m.Identity(OURS))
        self.expect(Role.SUPERVISOR, m.Ready)
        self.expect(Role.EGRESS, m.AwaitSessions)
        self.expect(Role.INGRESS, m.AwaitSessions)

    def peer(self, endpoint: m.Endpoint) -> None:
        self.home.send(m.HandshakePeers(3, [m.HandshakePeer(0, THEIRS, endpoint, 0)], []))
        assert self.expect(Role.SUPERVISOR, m.Applied) == m.Applied(3)

    def initiate(self) -> m.CreateInitiation:
        self.channels[Role.EGRESS].send(m.HandshakeWanted(0, "no-session"))
        request = self.expect(Role.CUSTODIAN, m.CreateInitiation)
        self.channels[Role.CUSTODIAN].send(
            m.InitiationCreated(request.request, 0, 5, os.urandom(32), os.urandom(48), os.urandom(28), OURS)
        )
        return request

    def wait_for(self, counter: Counter) -> None:
        end = time.monotonic() + LONGEST
        while not self.stats.counters(Role.HANDSHAKE).get(counter):
            assert time.monotonic() < end, f"{counter} was never counted"
            time.sleep(0.01)

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()
        try:
            self.process.wait(LONGEST)
        finally:
            self.process.kill()
            self.process.wait()
        self.stats.close()


@pytest.fixture
def program() -> Iterator[Program]:
    one = Program()
    try:
        yield one
    finally:
        one.close()


def _listener(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET:
        sock.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        sock.bind(("::1", 0))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    sock.settimeout(LONGEST)
    return sock


def _receive(sock: socket.socket) -> tuple[bytes, int, str]:
    """One datagram: payload, TOS byte, source address."""
    data, ancillary, _, address = sock.recvmsg(2048, _CMSG_SPACE)
    tos = next(
        array.array("B", value)[0]
        for level, kind, value in ancillary
        if (level, kind) in ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
    )
    return data, tos, address[0]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_an_initiation_leaves_with_af41(program: Program, family: socket.AddressFamily, host: str) -> None:
    with _listener(family) as listener:
        program.bind()
        program.peer(m.Endpoint(host, listener.getsockname()[1]))
        program.serve()
        program.initiate()
        data, tos, _ = _receive(listener)
        assert message_type(data) is MessageType.INITIATION
        assert tos == 0x88
        assert program.stats.get(0, PeerField.HANDSHAKE_TX_BYTES) == 148


@pytest.mark.parametrize(("local", "seen"), [("127.0.0.9", "127.0.0.9"), ("192.0.2.77", "127.0.0.1")])
def test_it_leaves_from_the_cached_source_while_that_is_ours(program: Program, local: str, seen: str) -> None:
    with _listener(socket.AF_INET) as listener:
        program.bind()
        program.peer(m.Endpoint("127.0.0.1", listener.getsockname()[1]))
        program.serve()
        moved = m.Endpoint("127.0.0.1", listener.getsockname()[1], 0, local, 1)
        program.channels[Role.INGRESS].send(m.EndpointMoved(0, moved, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
        program.expect(Role.SUPERVISOR, m.EndpointMoved)
        program.initiate()
        assert _receive(listener)[2] == seen
        if local != seen:
            program.expect(Role.EGRESS, m.ForgetSource)


def test_a_cookie_reply_leaves_with_tos_0(program: Program) -> None:
    with _listener(socket.AF_INET) as listener:
        program.bind()
        program.peer(m.Endpoint("192.0.2.1", 1))
        program.serve()
        here = m.Endpoint("127.0.0.1", listener.getsockname()[1])
        message = CookieMaker(OURS).authenticate(Initiation(5, bytes(32), bytes(48), bytes(28)), 0)
        # A datagram that waited for long in the queue: the gateway is under load.
        program.channels[Role.INGRESS].send(m.Datagram(here, 0, message))
        data, tos, _ = _receive(listener)
        assert message_type(data) is MessageType.COOKIE_REPLY
        assert tos == 0


def test_a_socket_that_is_missing_is_counted(program: Program) -> None:
    program.peer(m.Endpoint("192.0.2.1", 1))
    program.serve()
    program.initiate()
    program.wait_for(Counter.SEND_FAILED)


def test_new_sockets_replace_the_old_ones(program: Program) -> None:
    program.serve()
    descriptors = Path(f"/proc/{program.process.pid}/fd")
    program.bind(change=1)
    before = len(list(descriptors.iterdir()))
    for change in range(2, 6):
        program.bind(change=change)
    assert len(list(descriptors.iterdir())) == before


def test_timers_run_on_the_loop(program: Program) -> None:
    program.bind()
    program.peer(m.Endpoint("127.0.0.1", 9))
    program.serve()
    program.initiate()
    first = time.monotonic()
    # The retransmit timer asks again, no sooner than REKEY_TIMEOUT.
    program.expect(Role.CUSTODIAN, m.CreateInitiation)
    assert time.monotonic() - first > 4.5


def test_each_worker_has_channels_of_its_own() -> None:
    program = Program(workers=2)
    try:
        program.bind()
        here = m.Endpoint("127.0.0.1", 9)
        told = [m.HandshakePeer(slot, bytes([slot + 1] * 32), here, 0) for slot in (2, 3)]
        program.home.send(m.HandshakePeers(3, told, []))
        program.serve()
        assert program.expect(Role.EGRESS, m.EndpointMoved) == m.EndpointMoved(2, here, 0)
        # The peer in slot 3 is the second worker's, which is not there yet.
        program.channels[Role.EGRESS].send(m.HandshakeWanted(3, "no-session"))
        program.wait_for(Counter.NO_WORKER)
        for role in (Role.INGRESS, Role.EGRESS):
            program.attach(role, 1)
        assert program.expect("egress-1", m.EndpointMoved) == m.EndpointMoved(3, here, 0)
        request = program.expect(Role.CUSTODIAN, m.CreateInitiation)
        assert (request.peer, request.local_index & 1) == (3, 1)
    finally:
        program.close()


def test_it_gives_up_root_and_ends_with_its_supervisor(program: Program) -> None:
    program.serve()
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == [str(UID)] * 4
    assert lines["Gid"].split() == [str(UID)] * 4
    assert int(lines["CapEff"], 16) == int(lines["CapPrm"], 16) == 0
    assert lines["NoNewPrivs"].strip() == "1"
    program.home.close()
    assert program.process.wait(LONGEST) == ExitCode.OK


def test_a_message_that_the_table_does_not_allow_ends_it(program: Program) -> None:
    program.serve()
    program.channels[Role.EGRESS].close()
    ours, theirs = socket_pair()
    program.home.send(m.Attach(ChannelKind.HANDSHAKE_EGRESS, 2), [theirs.fileno()])
    theirs.close()
    program.channels[Role.EGRESS] = Channel(ours, ChannelKind.HANDSHAKE_EGRESS, Role.EGRESS)
    program.channels[Role.EGRESS].send(m.Identity(OURS))
    assert program.expect(Role.SUPERVISOR, m.Fault).exit_code == ExitCode.PROTOCOL
    assert program.process.wait(LONGEST) == ExitCode.PROTOCOL
    with pytest.raises(ChannelClosed):
        while True:
            program.home.receive()
