"""What is cut and merged against the kernel's own segmentation, byte by byte.

A router in a namespace is the judge: what is written into a TUN with offloads leaves it through one without, cut by
the kernel. Only the TTL and the header checksum change on the way.

    super-packet -> TUN with offloads -> [ kernel forwards, cuts ] -> TUN without -> packets, compared with ours

Then the kernel's own sockets: the same writes over a TUN with offloads and over one without, and what they receive.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.network.support import Lab
from tests.network.support.tun import ALL_OFFLOADS, TSO_ECN, Tun
from tests.unit.tunnel.inner import ACK, CWR, ECE, FIN, PSH, Flow
from tests.unit.tunnel.inner_traffic import flows_in_order, other_last_byte, steps, traffic
from wghsm.tunnel.checksum import add, finish
from wghsm.tunnel.coalesce import Coalescer
from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PLAIN, SIZE, VnetHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.tunnel.inner_traffic import Step


class Router:
    """Forwards from `inlet`, with offloads, to `outlet`, without."""

    def __init__(self, lab: Lab) -> None:
        namespace = lab.namespace("router")
        for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            namespace.run("sysctl", "-qw", f"net.{name}=1")
        self.inlet = lab.add(Tun(namespace, "inlet", ALL_OFFLOADS | TSO_ECN, mtu=1500))
        self.outlet = lab.add(Tun(namespace, "outlet", None, mtu=1500))
        for host, interface in ((1, "inlet"), (2, "outlet")):
            namespace.run("ip", "route", "add", f"10.0.0.{host}", "dev", interface)
            namespace.run("ip", "route", "add", f"fd00::{host}", "dev", interface)

    def forward(self, writes: list[bytes]) -> list[bytes]:
        """What comes out for `writes`. A packet of our own that follows them tells the end."""
        end = os.urandom(16)
        found: list[bytes] = []

        def last(packet: bytes) -> bool:
            # The kernel's own multicasts of IPv6 come here too.
            if packet[0] >> 4 == 4 or packet[24] != 0xFF:
                found.append(packet)
            return packet.endswith(end)

        for write in [*writes, PLAIN + Flow(4).udp(end)]:
            self.inlet.write(write)
        self.outlet.read_until(last)
        return found[:-1]


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with Lab() as lab:
        yield Router(lab)


def forwarded(packet: bytes) -> bytes:
    """The packet one hop later."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] - 1]) + packet[8:]
    size = (packet[0] & 15) * 4
    head = packet[:8] + bytes([packet[8] - 1, packet[9], 0, 0]) + packet[12:size]
    return head[:10] + finish(add(head)).to_bytes(2, "big") + head[12:] + packet[size:]


IPV4 = st.builds(
    Flow,
    version=st.just(4),
    tos=st.integers(0, 255),
    ttl=st.integers(2, 255),
    df=st.booleans(),
    ip_options=st.sampled_from([b"", b"", b"\x01\x01\x01\x00"]),
)
# Destination options, hop-by-hop options with PadN, a routing header that has been followed to its end.
EXTENSIONS = {60: bytes(8), 0: bytes([0, 0, 1, 4]) + bytes(4), 43: bytes([0, 0, 253, 0]) + bytes(4)}
IPV6 = st.builds(
    lambda kind, tos, ttl, label: Flow(
        6, tos=tos, ttl=ttl, label=label, extension=EXTENSIONS.get(kind, b""), extension_kind=kind
    ),
    st.sampled_from([-1, -1, *EXTENSIONS]),
    st.integers(0, 255),
    st.integers(2, 255),
    st.integers(0, 0xFFFFF),
)
# Nothing, timestamps, timestamps and two blocks of SACK, all that has room.
TIMES = b"\x01\x01\x08\x0a" + bytes(range(8))
TCP_OPTIONS = st.sampled_from([b"", TIMES, TIMES + b"\x01\x01\x05\x12" + bytes(range(16)), b"\x01" * 40])
WITH_KERNEL = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def tcp_write(flow: Flow, packet: bytes, size: int, ecn: int = 0) -> bytes:
    kind = GSO_TCPV4 if flow.version == 4 else GSO_TCPV6
    head = flow.transport + (packet[flow.transport + 12] >> 4) * 4
    return VnetHeader(NEEDS_CSUM, kind | ecn, head, size, flow.transport, 16).encode() + packet


def udp_write(flow: Flow, packet: bytes, size: int) -> bytes:
    return VnetHeader(NEEDS_CSUM, GSO_UDP_L4, flow.transport + 8, size, flow.transport, 6).encode() + packet


def judge(router: Router, write: bytes) -> list[bytes]:
    """Cut a write here and by the kernel; gives the packets after a comparison."""
    cuts = cut(VnetHeader.decode(write), write[SIZE:])
    assert cuts is not None
    assert router.forward([write]) == [forwarded(packet) for packet in cuts]
    return cuts


@WITH_KERNEL
@given(
    flow=IPV4 | IPV6,
    size=st.integers(1, 1380),
    more=st.integers(1, 4000),
    data=st.binary(min_size=1, max_size=50),
    flags=st.integers(0, 255),
    ecn=st.sampled_from([0, GSO_ECN]),
    sequence=st.integers(0, 2**32 - 1),
    identity=st.integers(0, 65535),
    options=TCP_OPTIONS,
)
def test_the_kernel_cuts_tcp_alike(
    router: Router,
    flow: Flow,
    size: int,
    more: int,
    data: bytes,
    flags: int,
    ecn: int,
    sequence: int,
    identity: int,
    options: bytes,
) -> None:
    payload = (data * 5400)[: size + min(more, 60 * size)]
    packet = flow.tcp(payload, sequence, flags, options=options, identity=identity, partial=True)
    judge(router, tcp_write(flow, packet, size, ecn))


@WITH_KERNEL
@given(
    flow=IPV4 | IPV6,
    size=st.integers(1, 1400),
    more=st.integers(1, 4000),
    data=st.binary(min_size=1, max_size=50),
    identity=st.integers(0, 65535),
)
def test_the_kernel_cuts_udp_alike(
    router: Router, flow: Flow, size: int, more: int, data: bytes, identity: int
) -> None:
    payload = (data * 5400)[: size + min(more, 60 * size)]
    judge(router, udp_write(flow, flow.udp(payload, identity=identity, partial=True), size))


@pytest.mark.parametrize("flow", [Flow(4), Flow(4, df=False), Flow(6)])
def test_the_kernel_cuts_the_largest_alike(router: Router, flow: Flow) -> None:
    payload = os.urandom(65535 - flow.transport - 32)
    flags = ACK | PSH | FIN | ECE | CWR
    packet = flow.tcp(payload, 2**32 - 9, flags, options=TIMES, identity=65530, partial=True)
    assert len(judge(router, tcp_write(flow, packet, 1368, GSO_ECN))) == 48
    packet = flow.udp(payload, identity=65530, partial=True)
    assert len(judge(router, udp_write(flow, packet, 1392))) == 48


@pytest.mark.parametrize("flow", [Flow(4), Flow(6)])
def test_the_kernel_writes_a_checksum_of_zero_alike(router: Router, flow: Flow) -> None:
    # The checksum of a datagram is the payload that makes its place's sum come out as zero.
    at = flow.transport
    zero = flow.udp(bytes(2))[at + 6 : at + 8]
    [packet, _] = judge(router, udp_write(flow, flow.udp(zero + b"\1", partial=True), 2))
    assert packet[at + 6 : at + 8] == b"\xff\xff"
    zero = flow.tcp(bytes(2))[at + 16 : at + 18]
    [packet, _] = judge(router, tcp_write(flow, flow.tcp(zero + b"\1", partial=True), 2))
    assert packet[at + 16 : at + 18] == b"\0\0"
    for whole, offset, packet in (
        (flow.tcp(zero), 16, flow.tcp(zero, partial=True)),
        (flow.udp(zero), 6, flow.udp(zero, partial=True)),
    ):
        header = VnetHeader(NEEDS_CSUM, csum_start=at, csum_offset=offset)
        [found] = judge(router, header.encode() + packet)
        assert len(found) == len(whole)


@WITH_KERNEL
@given(flow=IPV4 | IPV6, payload=st.binary(max_size=1380), options=TCP_OPTIONS, identity=st.integers(0, 65535))
def test_the_kernel_finishes_a_partial_checksum_alike(
    router: Router, flow: Flow, payload: bytes, options: bytes, identity: int
) -> None:
    at = flow.transport
    tcp = flow.tcp(payload, options=options, identity=identity, partial=True)
    judge(router, VnetHeader(NEEDS_CSUM, csum_start=at, csum_offset=16).encode() + tcp)
    udp = flow.udp(payload, identity=identity, partial=True)
    judge(router, VnetHeader(NEEDS_CSUM, csum_start=at, csum_offset=6).encode() + udp)


@WITH_KERNEL
@given(taken=steps(other_last_byte))
def test_the_kernel_cuts_what_was_merged_into_what_was_there(router: Router, taken: list[Step]) -> None:
    packets = traffic(taken)
    coalescer = Coalescer()
    for packet in packets:
        coalescer.add(packet)
    found = router.forward(coalescer.take())
    assert len(found) == len(packets)
    assert flows_in_order(found) == flows_in_order([forwarded(packet) for packet in packets])


@pytest.mark.parametrize("flow", [Flow(4), Flow(4, df=False), Flow(6)])
def test_a_full_batch_is_merged_and_cut_by_the_kernel_into_what_was_there(router: Router, flow: Flow) -> None:
    other = replace(flow, source_port=5)
    packets = []
    for number in range(45):
        flags = ACK | PSH if number == 44 else ACK
        payload = os.urandom(1368 if number < 44 else 77)
        packets.append(flow.tcp(payload, 5 + 1368 * number, flags, options=TIMES, identity=number))
        packets.append(other.udp(payload, identity=number))
    coalescer = Coalescer()
    for packet in packets:
        coalescer.add(packet)
    writes = coalescer.take()
    assert len(writes) == 2
    assert router.forward(writes) == [forwarded(packet) for packet in packets[::2] + packets[1::2]]
