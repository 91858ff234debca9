"""Cutting against packets that are built whole: what a network would have delivered, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.inner import ACK, CWR, ECE, FIN, PSH, TCP, UDP, Flow
from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import (
    DATA_VALID,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    PLAIN,
    VnetHeader,
)

V4 = Flow(4)
V6 = Flow(6)
EXTENDED = Flow(6, extension=bytes([0, 1]) + bytes(14))
OPTIONS = Flow(4, ip_options=bytes([1, 1, 1, 0]))
FLOWS = st.builds(
    Flow,
    version=st.just(4),
    tos=st.integers(0, 255),
    ttl=st.integers(1, 255),
    df=st.booleans(),
    ip_options=st.sampled_from([b"", b"\x01\x01\x01\x00"]),
) | st.builds(
    Flow,
    version=st.just(6),
    tos=st.integers(0, 255),
    label=st.integers(0, 0xFFFFF),
    extension=st.sampled_from([b"", bytes(8), bytes([0, 1]) + bytes(14)]),
)
TCP_OPTIONS = st.sampled_from([b"", b"\x01\x01\x08\x0a" + bytes(8), b"\x01" * 40])


def tcp_header(flow: Flow, size: int, head: int = 20, ecn: int = 0) -> VnetHeader:
    kind = GSO_TCPV4 if flow.version == 4 else GSO_TCPV6
    return VnetHeader(NEEDS_CSUM, kind | ecn, flow.transport + head, size, flow.transport, 16)


def udp_header(flow: Flow, size: int) -> VnetHeader:
    return VnetHeader(NEEDS_CSUM, GSO_UDP_L4, flow.transport + 8, size, flow.transport, 6)


def pieces(payload: bytes, size: int) -> list[bytes]:
    return [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]


@given(
    flow=FLOWS,
    payload=st.binary(max_size=5000),
    size=st.integers(1, 1500),
    flags=st.integers(0, 255),
    sequence=st.integers(0, 2**32 - 1),
    identity=st.integers(0, 65535),
    options=TCP_OPTIONS,
    ecn=st.sampled_from([0, GSO_ECN]),
)
def test_tcp_is_cut_into_whole_segments(
    flow: Flow, payload: bytes, size: int, flags: int, sequence: int, identity: int, options: bytes, ecn: int
) -> None:
    packet = flow.tcp(payload, sequence, flags, options=options, identity=identity, partial=True)
    cuts = pieces(payload, size)
    expected = []
    for number, piece in enumerate(cuts):
        kept = flags & (0xFF if number == 0 else ~CWR) & (0xFF if number == len(cuts) - 1 else ~(FIN | PSH))
        at = sequence + number * size
        expected.append(flow.tcp(piece, at, kept, options=options, identity=(identity + number) & 0xFFFF))
    assert cut(tcp_header(flow, size, 20 + len(options), ecn), packet) == expected


@given(flow=FLOWS, payload=st.binary(max_size=5000), size=st.integers(1, 1500), identity=st.integers(0, 65535))
def test_udp_is_cut_into_whole_datagrams(flow: Flow, payload: bytes, size: int, identity: int) -> None:
    packet = flow.udp(payload, identity=identity, partial=True)
    expected = [
        flow.udp(piece, identity=(identity + number) & 0xFFFF) for number, piece in enumerate(pieces(payload, size))
    ]
    assert cut(udp_header(flow, size), packet) == expected


@given(flow=FLOWS, payload=st.binary(max_size=1500))
def test_a_partial_checksum_is_finished(flow: Flow, payload: bytes) -> None:
    tcp, udp = flow.tcp(payload, partial=True), flow.udp(payload, partial=True)
    whole = flow.tcp(payload)
    if whole[flow.transport + 16 : flow.transport + 18] == b"\0\0":
        whole = whole[: flow.transport + 16] + b"\xff\xff" + whole[flow.transport + 18 :]
    assert cut(VnetHeader(NEEDS_CSUM, csum_start=flow.transport, csum_offset=16), tcp) == [whole]
    assert cut(VnetHeader(NEEDS_CSUM, csum_start=flow.transport, csum_offset=6), udp) == [flow.udp(payload)]


def with_sum(flow: Flow, protocol: int, wanted: int) -> bytes:
    """A payload of two bytes with which the checksum of a packet comes out as `wanted`, 0 or 65535."""
    packet = flow.udp(bytes(2)) if protocol == UDP else flow.tcp(bytes(2))
    at = flow.transport + (6 if protocol == UDP else 16)
    found = int.from_bytes(packet[at : at + 2], "big")
    assert wanted in (0, 0xFFFF)
    return found.to_bytes(2, "big")


@pytest.mark.parametrize("flow", [V4, V6])
def test_a_checksum_of_zero_is_65535_for_udp_and_for_finished_ones_and_zero_in_a_tcp_segment(flow: Flow) -> None:
    at = flow.transport
    payload = with_sum(flow, UDP, 0xFFFF)
    for header in (udp_header(flow, 2), VnetHeader(NEEDS_CSUM, csum_start=at, csum_offset=6)):
        [packet] = cut(header, flow.udp(payload, partial=True)) or []
        assert packet[at + 6 : at + 8] == b"\xff\xff"
    payload = with_sum(flow, TCP, 0)
    [packet] = cut(tcp_header(flow, 2), flow.tcp(payload, partial=True)) or []
    assert packet[at + 16 : at + 18] == b"\0\0"
    [packet] = cut(VnetHeader(NEEDS_CSUM, csum_start=at, csum_offset=16), flow.tcp(payload, partial=True)) or []
    assert packet[at + 16 : at + 18] == b"\xff\xff"


@pytest.mark.parametrize("header", [VnetHeader(), VnetHeader(DATA_VALID), VnetHeader.decode(PLAIN)])
@pytest.mark.parametrize("packet", [V4.udp(b"data", checksum=0), V6.udp(b"data", checksum=1), b"\x4f" + bytes(19)])
def test_a_whole_packet_stays_as_it_is_with_whatever_checksum(header: VnetHeader, packet: bytes) -> None:
    assert cut(header, packet) == [packet]


@pytest.mark.parametrize("flow", [V4, V6, OPTIONS])
def test_a_super_packet_whose_checksum_was_verified_is_cut_too(flow: Flow) -> None:
    payload = bytes(range(100))
    header = tcp_header(flow, 30)._replace(flags=DATA_VALID, csum_start=0, csum_offset=0)
    assert cut(header, flow.tcp(payload)) == cut(tcp_header(flow, 30), flow.tcp(payload, partial=True))
    header = udp_header(flow, 30)._replace(flags=DATA_VALID, csum_start=0, csum_offset=0)
    assert cut(header, flow.udp(payload)) == cut(udp_header(flow, 30), flow.udp(payload, partial=True))


def test_the_kernels_hint_of_the_headers_length_is_not_trusted() -> None:
    packet = V4.tcp(bytes(100), partial=True)
    expected = cut(tcp_header(V4, 30), packet)
    assert expected is not None
    for hint in (0, 40, 99, 65535):
        assert cut(tcp_header(V4, 30)._replace(hdr_len=hint), packet) == expected


def test_ece_stays_on_all_and_cwr_on_the_first() -> None:
    packet = V4.tcp(bytes(90), 0, ACK | ECE | CWR | PSH | FIN, partial=True)
    segments = cut(tcp_header(V4, 30, ecn=GSO_ECN), packet) or []
    assert [segment[33] for segment in segments] == [ACK | ECE | CWR, ACK | ECE, ACK | ECE | PSH | FIN]


FRAGMENT = bytearray(V4.tcp(bytes(100), partial=True))
FRAGMENT[6] = 0x20
MALFORMED = {
    "empty": (VnetHeader(), b""),
    "half an IPv4 header": (VnetHeader(), V4.tcp(b"")[:19]),
    "half an IPv6 header": (VnetHeader(), V6.tcp(b"")[:39]),
    "no IP": (VnetHeader(), bytes(99)),
    "more than a packet has": (VnetHeader(), b"\x45" + bytes(65535)),
    "no size": (tcp_header(V4, 0), V4.tcp(bytes(100), partial=True)),
    "another version": (tcp_header(V6, 30), V4.tcp(bytes(100), partial=True)),
    "version 6 for version 4": (tcp_header(V4, 30), V6.tcp(bytes(100), partial=True)),
    "UDP said to be TCP": (tcp_header(V4, 30), V4.udp(bytes(100), partial=True)),
    "TCP said to be UDP": (udp_header(V4, 30), V4.tcp(bytes(100), partial=True)),
    "the wrong field": (tcp_header(V4, 30)._replace(csum_offset=6), V4.tcp(bytes(100), partial=True)),
    "the wrong start": (tcp_header(V4, 30)._replace(csum_start=24), V4.tcp(bytes(100), partial=True)),
    "a start past the end": (tcp_header(EXTENDED, 30)._replace(csum_start=500), EXTENDED.tcp(b"1", partial=True)),
    "a start in the IPv6 header": (tcp_header(V6, 30)._replace(csum_start=24), V6.tcp(bytes(100), partial=True)),
    "extension headers of unknown end": (tcp_header(EXTENDED, 30)._replace(flags=0), EXTENDED.tcp(bytes(100))),
    "a fragment": (tcp_header(V4, 30), bytes(FRAGMENT)),
    "UFO": (udp_header(V4, 30)._replace(gso_type=3), V4.udp(bytes(100), partial=True)),
    "a tunnel": (udp_header(V4, 30)._replace(gso_type=0x20 | GSO_UDP_L4), V4.udp(bytes(100), partial=True)),
    "half a TCP header": (tcp_header(V4, 30), V4.tcp(b"", partial=True)[:39]),
    "half a UDP header": (udp_header(V4, 30), V4.udp(b"", partial=True)[:27]),
    "half the TCP options": (tcp_header(V4, 30), V4.tcp(b"", options=bytes(40), partial=True)[:70]),
    "a partial checksum of the IP header": (VnetHeader(NEEDS_CSUM, csum_start=39, csum_offset=6), V6.udp(b"12")),
    "a partial checksum past the end": (VnetHeader(NEEDS_CSUM, csum_start=20, csum_offset=7), V4.udp(b"")),
}


@pytest.mark.parametrize(("header", "packet"), MALFORMED.values(), ids=MALFORMED)
def test_what_does_not_fit_is_none(header: VnetHeader, packet: bytes) -> None:
    assert cut(header, packet) is None


@given(
    header=st.builds(
        VnetHeader,
        flags=st.integers(0, 3),
        gso_type=st.sampled_from([0, 1, 3, 4, 5, 0x81, 0x84]),
        gso_size=st.integers(0, 100),
        csum_start=st.sampled_from([0, 20, 40]) | st.integers(0, 100),
        csum_offset=st.sampled_from([6, 16]) | st.integers(0, 20),
    ),
    packet=st.binary(max_size=120) | st.binary(max_size=120).map(lambda data: bytes([0x45]) + data[1:]),
)
def test_nothing_is_raised_for_whatever_bytes(header: VnetHeader, packet: bytes) -> None:
    cuts = cut(header, packet)
    assert cuts is None or cuts


def test_a_header_is_ten_bytes_and_comes_back() -> None:
    header = VnetHeader(1, 2, 3, 4, 5, 6)
    assert len(header.encode()) == 10
    assert VnetHeader.decode(header.encode() + b"packet") == header
    assert VnetHeader().encode() == PLAIN
