"""What is cut and merged against the kernel's own sockets.

Two hosts with the same addresses write the same into sockets: one over a TUN with offloads, of which we cut what we
read, one over a TUN without. Both have to give the same packets. The other way, sockets receive what we have merged.

    socket -> TUN with offloads -> cut -> packets  ==  packets <- TUN without <- socket
    packets -> merged -> TUN with offloads -> socket

Sequence numbers, timestamps and IDs begin anywhere; here they are counted from the first packet's.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from tests.network.fixed_key_gateway import inside
from tests.network.support import Lab
from tests.network.support.tun import ALL_OFFLOADS, LIMIT, TSO_ECN, Tun
from tests.unit.tunnel.inner import ACK, CWR, ECE, FIN, PSH, SYN, TCP, Flow
from wghsm.tunnel.checksum import add
from wghsm.tunnel.coalesce import Coalescer
from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import PLAIN, SIZE, VnetHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# We are .1 with port 1000, the hosts .2 with port 2000.
OUR_PORT: Final = 1000
PORT: Final = 2000
US: Final = {4: "10.0.0.1", 6: "fd00::1"}
HOST: Final = {4: "10.0.0.2", 6: "fd00::2"}
FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
FLOW: Final = {4: Flow(4), 6: Flow(6)}

FRAGMENT: Final = 44
UDP_SEGMENT: Final = 103
NO_CHECKSUM: Final = {4: (socket.SOL_SOCKET, 11), 6: (socket.IPPROTO_UDP, 101)}
MTU_DISCOVER: Final = 10
NEVER_DF: Final = 0
ALWAYS_DF: Final = 2

# What is random or changes with time is taken out: flow labels, retransmissions, writes that wait for each other.
SETTINGS: Final = (
    "net.ipv6.auto_flowlabels=0",
    "net.ipv4.tcp_early_retrans=0",
    "net.ipv4.tcp_autocorking=0",
    "net.ipv4.tcp_slow_start_after_idle=0",
    "net.ipv4.tcp_ecn=1",
)
OUR_OPTIONS: Final = b"\x02\x04" + (1333).to_bytes(2, "big") + b"\x04\x02\x08\x0a%s%s\x01\x03\x03\x07"


class Host:
    """A namespace whose only network is a TUN, of which we hold the other end."""

    def __init__(self, lab: Lab, offloads: int | None) -> None:
        self.namespace = lab.namespace("host")
        self.namespace.run("sysctl", "-qw", *SETTINGS)
        self.tun = lab.add(Tun(self.namespace, "tun", offloads, [f"{HOST[4]}/32", f"{HOST[6]}/128"]))
        for address in US.values():
            self.namespace.run("ip", "route", "add", address, "dev", "tun", "rto_min", "60s")
        self.offloads = offloads
        self.reads = 0

    def socket(self, version: int, kind: socket.SocketKind) -> socket.socket:
        """A socket of this host on PORT, not blocking."""
        with inside(self.namespace):
            made = socket.socket(FAMILY[version], kind)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((HOST[version], PORT))
        return made

    def read_until(self, done: Callable[[bytes], bool]) -> None:
        """Show each packet to `done`, cut if it has to be; all of the last read, of which the last is done or none."""

        def enough(read: bytes) -> bool:
            packets: list[bytes] | None = [read]
            if self.offloads is not None:
                packets = cut(VnetHeader.decode(read), read[SIZE:])
            assert packets is not None
            # The kernel's own multicasts of IPv6 come here too.
            ours = [packet for packet in packets if packet[0] >> 4 == 4 or packet[24] != 0xFF]
            self.reads += bool(ours)
            ended = False
            for packet in ours:
                ended = done(packet)
            return ended

        self.tun.read_until(enough)

    def write(self, packet: bytes) -> None:
        """Hand one whole packet to the host."""
        self.tun.write(packet if self.offloads is None else PLAIN + packet)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """One with offloads, one without."""
    with Lab() as lab:
        yield Host(lab, ALL_OFFLOADS), Host(lab, None)


def counted(packets: list[bytes]) -> list[bytes]:
    """The packets with what begins anywhere counted from the first; checksums as what is wrong with them.

    IDs of TCP with DF count; others jump in the kernel, and the router's tests hold them.
    """
    first = packets[0]
    at = 20 if first[0] >> 4 == 4 else 40
    shown = []
    for packet in packets:
        new = bytearray(packet)
        protocol = packet[9] if at == 20 else packet[6]
        if at == 20:
            counts = protocol == TCP and packet[6] & 0x40
            new[4:6] = _less(packet[4:6], first[4:6]) if counts else bytes(2)
            new[10:12] = add(packet[:20]).to_bytes(2, "big")
        elif protocol == FRAGMENT:
            new[44:48] = bytes(4)
        if protocol == TCP:
            pseudo = add(packet[12:20] if at == 20 else packet[8:40]) + TCP + len(packet) - at
            new[at + 16 : at + 18] = ((add(packet[at:]) + pseudo) % 65535).to_bytes(2, "big")
            new[at + 4 : at + 8] = _less(packet[at + 4 : at + 8], first[at + 4 : at + 8])
            assert packet[at + 20 : at + 24] == b"\x01\x01\x08\x0a"
            new[at + 24 : at + 28] = bytes(4)
        shown.append(bytes(new))
    return shown


def _less(one: bytes, other: bytes) -> bytes:
    bits = len(one) * 8
    return ((int.from_bytes(one, "big") - int.from_bytes(other, "big")) % (1 << bits)).to_bytes(len(one), "big")


# UDP.


def send_datagrams(host: Host, sender: socket.socket, data: bytes, size: int) -> None:
    """Many datagrams in one write where the device has offloads, one by one where it has not."""
    if host.offloads is not None:
        sender.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))])
        return
    for start in range(0, len(data), size):
        sender.send(data[start : start + size])


def datagrams(host: Host, version: int, df: bool) -> list[bytes]:
    """What leaves the host for a number of writes of all kinds."""
    sender = host.socket(version, socket.SOCK_DGRAM)
    with sender:
        if version == 4:
            # The kernel's default is DF on what fits the MTU, so on none of what it will cut.
            sender.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, ALWAYS_DF if df else NEVER_DF)
        sender.connect((US[version], OUR_PORT))
        numbers = bytes(range(256)) * 80
        for data, size in ((numbers[:5001], 701), (numbers[:4000], 1000), (numbers[:64], 1), (numbers[:17000], 1372)):
            send_datagrams(host, sender, data, size)
        for size in (0, 1, 64, 999, 1000):
            sender.send(numbers[:size])
        # The two bytes whose checksum comes out as zero, which is written as 65535.
        back = replace(FLOW[version], source_port=PORT, destination_port=OUR_PORT)
        at = back.transport + 6
        sender.send(back.udp(bytes(2))[at : at + 2])
        if version == 6 or not df:
            # The host makes fragments of these.
            sender.send(numbers[:4001])
        sender.setsockopt(*NO_CHECKSUM[version], 1)
        sender.send(b"no checksum at all")
        sender.setsockopt(*NO_CHECKSUM[version], 0)
        sender.send(b"the end")
        found: list[bytes] = []

        def last(packet: bytes) -> bool:
            found.append(packet)
            return packet.endswith(b"the end")

        host.read_until(last)
        return found


@pytest.mark.parametrize(("version", "df"), [(4, True), (4, False), (6, True)])
def test_datagrams_of_sockets_leave_alike(hosts: tuple[Host, Host], version: int, df: bool) -> None:
    cuts, whole = (datagrams(host, version, df) for host in hosts)
    assert counted(cuts) == counted(whole)
    assert hosts[0].reads < len(cuts) - 80
    no_checksum = next(packet for packet in cuts if packet.endswith(b"at all"))
    at = 26 if version == 4 else 46
    assert no_checksum[at : at + 2] == bytes(2)


@pytest.mark.parametrize("version", [4, 6])
def test_a_socket_receives_merged_datagrams_as_they_were(hosts: tuple[Host, Host], version: int) -> None:
    host = hosts[0]
    flow = FLOW[version]
    payloads = [os.urandom(size) for size in [*[1372] * 50, 3, *[64] * 70, 63, 64, 1, *[100] * 3]]
    coalescer = Coalescer()
    with host.socket(version, socket.SOCK_DGRAM) as receiver:
        for number, payload in enumerate(payloads):
            coalescer.add(flow.udp(payload, identity=number))
        writes = coalescer.take()
        assert len(writes) < 10
        for write in writes:
            host.tun.write(write)
        receiver.settimeout(LIMIT)
        assert [receiver.recv(2000) for _ in payloads] == payloads


# TCP.


class Connection:
    """A connection that the host opens to us; we keep just enough of TCP for that."""

    def __init__(self, host: Host, version: int, df: bool) -> None:
        self.host = host
        self.version = version
        self.flow = FLOW[version]
        self.transport = self.flow.transport
        self.sent = 7
        self.socket = host.socket(version, socket.SOCK_STREAM)
        if not df:
            self.socket.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, NEVER_DF)
        self.socket.connect_ex((US[version], OUR_PORT))
        self.answered = bytes(4)
        self.received = 0
        syn = self._await(lambda packet: bool(packet[self.transport + 13] & SYN))
        self.received = (self._sequence(syn) + 1) & 0xFFFFFFFF
        at = self.transport + 28 if syn[self.transport + 24] == 4 else self.transport + 24
        self.answered = syn[at : at + 4]
        options = OUR_OPTIONS % (bytes(4), self.answered)
        host.write(self.flow.tcp(b"", self.sent, SYN | ACK | ECE, ack=self.received, window=65535, options=options))
        self.sent += 1
        self._await(lambda packet: packet[self.transport + 13] == ACK)

    def packet(self, payload: bytes = b"", *, ahead: int = 0, flags: int = ACK, window: int = 65000) -> bytes:
        """One of ours, `ahead` bytes after what the host expects."""
        options = b"\x01\x01\x08\x0a" + bytes(4) + self.answered
        return self.flow.tcp(
            payload, self.sent + ahead, flags, ack=self.received, window=window, options=options, identity=ahead
        )

    def acknowledge(self, flags: int = ACK, window: int = 65000) -> None:
        """Acknowledge all that came."""
        self.host.write(self.packet(flags=flags, window=window))

    def take(self, size: int, fin: bool = False) -> list[bytes]:
        """The packets with the next `size` bytes, and with FIN; such as come again are not shown again."""
        end = (self.received + size + fin) & 0xFFFFFFFF
        found: list[bytes] = []

        def last(packet: bytes) -> bool:
            new = len(packet) - self._data(packet) + (packet[self.transport + 13] & FIN)
            if new and self._sequence(packet) == self.received:
                found.append(packet)
                self.received = (self.received + new) & 0xFFFFFFFF
            return self.received == end

        self.host.read_until(last)
        return found

    def _await(self, wanted: Callable[[bytes], bool]) -> bytes:
        found: list[bytes] = []

        def last(packet: bytes) -> bool:
            if wanted(packet):
                found.append(packet)
            return bool(found)

        self.host.read_until(last)
        return found[0]

    def _sequence(self, packet: bytes) -> int:
        return int.from_bytes(packet[self.transport + 4 : self.transport + 8], "big")

    def _data(self, packet: bytes) -> int:
        return self.transport + (packet[self.transport + 12] >> 4) * 4


def exchange(connection: Connection) -> list[bytes]:
    """What leaves the host in a conversation with all flags and options that a connection has."""
    data = os.urandom(1) * 20000
    sender = connection.socket
    with sender:
        # A full window and an odd rest, with PSH at its end.
        sender.send(data[:9999])
        found = connection.take(9999)
        # Congestion: the next carries CWR.
        connection.acknowledge(ACK | ECE)
        sender.send(data[:5001])
        found += connection.take(5001)
        connection.acknowledge()
        # Something is missing on our way: the next carry a block of SACK.
        connection.host.write(connection.packet(b"later", ahead=100))
        sender.send(data[:6000])
        found += connection.take(6000)
        # The window is shut until all is written: FIN goes with the last.
        connection.acknowledge(window=0)
        sender.send(data[:7777])
        sender.shutdown(socket.SHUT_WR)
        connection.acknowledge(window=500)
        found += connection.take(7777, fin=True)
        connection.acknowledge()
    return found


@pytest.mark.parametrize("ecn_offload", [0, TSO_ECN])
@pytest.mark.parametrize(("version", "df"), [(4, True), (4, False), (6, True)])
def test_streams_of_sockets_leave_alike(version: int, df: bool, ecn_offload: int) -> None:
    with Lab() as lab:
        offloading, plain = Host(lab, ALL_OFFLOADS | ecn_offload), Host(lab, None)
        cuts, whole = (exchange(Connection(host, version, df)) for host in (offloading, plain))
        at = FLOW[version].transport
        assert [len(packet) for packet in cuts] == [len(packet) for packet in whole]
        assert [packet[: at + 32] for packet in counted(cuts)] == [packet[: at + 32] for packet in counted(whole)]
        assert offloading.reads < len(cuts)
        flags = [packet[at + 13] for packet in cuts]
        assert all(any(one & bit for one in flags) for bit in (PSH, CWR, FIN))
        assert any(packet[at + 12] >> 4 == 11 for packet in cuts)


@pytest.mark.parametrize("version", [4, 6])
def test_a_socket_receives_a_merged_stream_as_it_was(hosts: tuple[Host, Host], version: int) -> None:
    host = hosts[0]
    connection = Connection(host, version, df=True)
    stream = os.urandom(60000)
    sizes = [*[1320] * 40, 77, *[50] * 20]
    coalescer = Coalescer()
    ahead = 0
    for number, size in enumerate(sizes):
        flags = ACK | PSH if number == len(sizes) - 1 else ACK
        coalescer.add(connection.packet(stream[ahead : ahead + size], ahead=ahead, flags=flags))
        ahead += size
    writes = coalescer.take()
    assert len(writes) < 4
    with connection.socket:
        received = b""
        for write in writes:
            host.tun.write(write)
        connection.socket.settimeout(LIMIT)
        while len(received) < ahead:
            received += connection.socket.recv(ahead)
        assert received == stream[:ahead]
