"""Merging: what is merged comes back byte by byte when it is cut, in its flow's order; nothing else is merged."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tunnel.inner import ACK, CWR, ECE, FIN, PSH, RST, SYN, TCP, UDP, URG, Flow
from wghsm.tunnel.checksum import add
from wghsm.tunnel.coalesce import LARGEST, MOST_DATAGRAMS, Coalescer
from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PLAIN, SIZE, VnetHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

V4 = Flow(4)
V6 = Flow(6)
OPTIONS = b"\x01\x01\x08\x0a" + bytes(8)


def coalesce(packets: Iterable[bytes], *, uso: bool = True) -> list[bytes]:
    coalescer = Coalescer(uso=uso)
    for packet in packets:
        coalescer.add(packet)
    return coalescer.take()


def again(writes: list[bytes]) -> list[bytes]:
    """What the writes stand for, cut again."""
    packets = []
    for write in writes:
        found = cut(VnetHeader.decode(write), write[SIZE:])
        assert found is not None
        packets += found
    return packets


def run(flow: Flow, sizes: list[int], sequence: int = 1000, last: int = ACK) -> list[bytes]:
    """Segments that follow each other, with IDs that count up."""
    packets = []
    for number, size in enumerate(sizes):
        flags = last if number == len(sizes) - 1 else ACK
        payload = bytes([number & 255]) * size
        packets.append(flow.tcp(payload, sequence, flags, options=OPTIONS, identity=7 + number))
        sequence += size
    return packets


@pytest.mark.parametrize("flow", [V4, V6, replace(V4, df=False)])
@pytest.mark.parametrize("last", [ACK, ACK | PSH])
def test_segments_in_sequence_become_one_write(flow: Flow, last: int) -> None:
    packets = run(flow, [100, 100, 100, 41], sequence=2**32 - 150, last=last)
    [write] = coalesce(packets)
    at = flow.transport
    kind = GSO_TCPV4 if flow.version == 4 else GSO_TCPV6
    assert VnetHeader.decode(write) == VnetHeader(NEEDS_CSUM, kind, at + 32, 100, at, 16)
    payload = b"".join(packet[at + 32 :] for packet in packets)
    assert write[SIZE:] == flow.tcp(payload, 2**32 - 150, last, options=OPTIONS, identity=7, partial=True)
    assert again([write]) == packets


@pytest.mark.parametrize("flow", [V4, V6, replace(V4, df=False)])
def test_datagrams_of_one_size_become_one_write(flow: Flow) -> None:
    packets = [flow.udp(bytes([number]) * size, identity=number) for number, size in enumerate([60, 60, 60, 59])]
    [write] = coalesce(packets)
    at = flow.transport
    assert VnetHeader.decode(write) == VnetHeader(NEEDS_CSUM, GSO_UDP_L4, at + 8, 60, at, 6)
    assert write[SIZE:] == flow.udp(b"".join(packet[at + 8 :] for packet in packets), partial=True)
    assert again([write]) == packets


def test_flows_are_merged_beside_each_other() -> None:
    left, right = run(V4, [50] * 4), run(replace(V4, source_port=1), [60] * 4)
    datagrams = [V6.udp(bytes([number])) for number in range(4)]
    mixed = [packet for three in zip(left, right, datagrams, strict=True) for packet in three]
    writes = coalesce(mixed)
    assert len(writes) == 3
    assert again(writes) == left + right + datagrams


def test_the_next_batch_begins_anew() -> None:
    coalescer = Coalescer()
    one, two = run(V4, [50, 50])
    coalescer.add(one)
    assert coalescer.take() == [PLAIN + one]
    coalescer.add(two)
    assert coalescer.take() == [PLAIN + two]
    assert coalescer.take() == []


def test_without_uso_datagrams_stay_alone() -> None:
    packets = [V4.udp(bytes(50))] * 3
    assert coalesce(packets, uso=False) == [PLAIN + packet for packet in packets]


def test_a_super_packet_has_a_largest_size() -> None:
    packets = run(V4, [1000] * 140)
    writes = coalesce(packets)
    assert all(LARGEST - 1000 < len(write) - SIZE <= LARGEST for write in writes[:-1])
    assert len(writes) == 3
    assert again(writes) == packets


def test_a_super_packet_has_a_greatest_number_of_datagrams() -> None:
    packets = [V4.udp(bytes([number]), identity=number) for number in range(MOST_DATAGRAMS + 3)]
    writes = coalesce(packets)
    assert [len(write) - SIZE - 28 for write in writes] == [MOST_DATAGRAMS, 3]
    assert again(writes) == packets


def changed(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + bytes([value]) + packet[at + 1 :]


FIRST = V4.tcp(bytes(50), 0, identity=1)
APART: dict[str, tuple[bytes, bytes]] = {
    "a gap": (FIRST, V4.tcp(bytes(50), 51, identity=2)),
    "an overlap": (FIRST, V4.tcp(bytes(50), 49, identity=2)),
    "the same again": (FIRST, FIRST),
    "a larger one": (FIRST, V4.tcp(bytes(51), 50, identity=2)),
    "one after a shorter one's": (V4.tcp(bytes(50), 0, ACK | PSH), V4.tcp(bytes(50), 50)),
    "another acknowledgment": (FIRST, V4.tcp(bytes(50), 50, identity=2, ack=78)),
    "another window": (FIRST, V4.tcp(bytes(50), 50, identity=2, window=499)),
    "another TOS": (FIRST, replace(V4, tos=1).tcp(bytes(50), 50, identity=2)),
    "another TTL": (FIRST, replace(V4, ttl=63).tcp(bytes(50), 50, identity=2)),
    "DF and none": (FIRST, replace(V4, df=False).tcp(bytes(50), 50, identity=2)),
    "an ID that does not count": (replace(V4, df=False).tcp(bytes(50), 0), replace(V4, df=False).tcp(bytes(50), 50)),
    "options and none": (FIRST, V4.tcp(bytes(50), 50, identity=2, options=OPTIONS)),
    "other options": (
        V4.tcp(bytes(50), 0, options=OPTIONS),
        V4.tcp(bytes(50), 50, options=OPTIONS[:-1] + b"\x01", identity=1),
    ),
    "no payload": (FIRST, V4.tcp(b"", 50, identity=2)),
    "nothing in the first": (V4.tcp(b"", 0), V4.tcp(bytes(50), 0)),
    "IP options": (
        replace(V4, ip_options=b"\x01\x01\x01\x00").tcp(bytes(50), 0),
        replace(V4, ip_options=b"\x01\x01\x01\x00").tcp(bytes(50), 50, identity=1),
    ),
    "extension headers": (
        replace(V6, extension=bytes(8)).tcp(bytes(50), 0),
        replace(V6, extension=bytes(8)).tcp(bytes(50), 50),
    ),
    "another traffic class": (V6.tcp(bytes(50), 0), replace(V6, tos=2).tcp(bytes(50), 50)),
    "another hop limit": (V6.tcp(bytes(50), 0), replace(V6, ttl=2).tcp(bytes(50), 50)),
    "another flow label": (V6.tcp(bytes(50), 0), replace(V6, label=2).tcp(bytes(50), 50)),
    "a bad checksum, first": (changed(FIRST, 60, 1), V4.tcp(bytes(50), 50, identity=2)),
    "a bad checksum, second": (FIRST, changed(V4.tcp(bytes(50), 50, identity=2), 60, 1)),
    "a bad header checksum": (FIRST, changed(V4.tcp(bytes(50), 50, identity=2), 11, 1)),
    "a bad header checksum, first": (changed(FIRST, 11, 1), V4.tcp(bytes(50), 50, identity=2)),
    "a bad checksum of version 6": (V6.tcp(bytes(50), 0), changed(V6.tcp(bytes(50), 50), 70, 1)),
    "a larger datagram": (V4.udp(bytes(50)), V4.udp(bytes(51), identity=1)),
    "a bad checksum of UDP": (V4.udp(bytes(50)), V4.udp(bytes(50), identity=1, checksum=1)),
    "no checksum, first": (V4.udp(bytes(50), checksum=0), V4.udp(bytes(50), identity=1)),
    "no checksum": (V4.udp(bytes(50), checksum=0), V4.udp(bytes(50), identity=1, checksum=0)),
    "no checksum of version 6": (V6.udp(bytes(50)), V6.udp(bytes(50), checksum=0)),
    "empty datagrams": (V4.udp(b""), V4.udp(b"", identity=1)),
    "bytes after a datagram": (
        V4.udp(bytes(50)),
        V4.ip(UDP, V4.udp(bytes(50))[20:] + b"\0", identity=1),
    ),
    "bytes after a packet": (FIRST, V4.tcp(bytes(50), 50, identity=2) + b"\0"),
} | {
    f"flags {flags:#x}": (V4.tcp(bytes(50), 0, flags), V4.tcp(bytes(50), 50, flags, identity=1))
    for flags in (0, PSH, ACK | FIN, ACK | SYN, ACK | RST, ACK | URG, ACK | ECE, ACK | CWR, ACK | PSH | FIN)
}


@pytest.mark.parametrize(("one", "two"), APART.values(), ids=APART)
def test_packets_that_differ_stay_apart(one: bytes, two: bytes) -> None:
    assert coalesce([one, two]) == [PLAIN + one, PLAIN + two]


def test_ids_of_packets_with_df_do_not_matter() -> None:
    [write] = coalesce([V4.tcp(bytes(50), 0), V4.tcp(bytes(50), 50)])
    assert write[SIZE:] == V4.tcp(bytes(100), 0, partial=True)


def test_after_a_shorter_packet_a_new_run_begins() -> None:
    packets = run(V4, [50, 40, 50, 50])
    assert [len(write) for write in coalesce(packets)] == [SIZE + 52 + 90, SIZE + 52 + 100]


def test_what_interrupts_a_flow_is_not_overtaken() -> None:
    one, two, three, four = run(V4, [50] * 4)
    fin = V4.tcp(b"", 5, ACK | FIN)
    assert again(coalesce([one, two, fin, three, four])) == [one, two, fin, three, four]
    bad = changed(two, 60, 9)
    assert coalesce([one, bad, two, three]) == [PLAIN + one, PLAIN + bad, *coalesce([two, three])]


FRAGMENT = changed(replace(V4, df=False).udp(bytes(50)), 6, 0x20)


@pytest.mark.parametrize("between", [b"", b"\x45", FRAGMENT, replace(V6, extension=bytes(8)).udp(b"1"), bytes(99)])
def test_a_packet_of_an_unknown_flow_is_overtaken_by_none(between: bytes) -> None:
    tcp, udp = run(V4, [50] * 4), [V4.udp(bytes([number])) for number in range(4)]
    mixed = [packet for two in zip(tcp[:2], udp[:2], strict=True) for packet in two]
    writes = coalesce([*mixed, between, *tcp[2:], *udp[2:]])
    assert writes == [*coalesce(mixed), PLAIN + between, *coalesce(tcp[2:]), *coalesce(udp[2:])]
    assert len(writes) == 5


# Flows with whatever may happen to them, interleaved.

FLOWS = (V4, V6, replace(V4, df=False), replace(V4, source_port=1), replace(V6, destination_port=1))


def _cut_short(packet: bytes, number: int) -> bytes:
    return packet[: number % (len(packet) + 1)]


def _byte(packet: bytes, number: int) -> bytes:
    return changed(packet, number % len(packet), number >> 8 & 255)


def _trailing(packet: bytes, number: int) -> bytes:
    return packet + bytes(number % 16)


def _none(packet: bytes, _number: int) -> bytes:
    return packet


CHANGES = st.sampled_from([*[_none] * 12, _cut_short, _byte, _trailing])
COMMON = st.sampled_from([*[0] * 12, 1, 2, 3])
STEPS = st.lists(
    st.tuples(
        st.integers(0, len(FLOWS) - 1),
        st.booleans(),
        st.sampled_from([8, 8, 8, 8, 8, 7, 1, 9, 0]),
        COMMON,
        CHANGES,
        st.integers(0, 2**16 - 1),
        st.binary(min_size=9, max_size=9),
    ),
    max_size=60,
)


def traffic(steps: Iterable[tuple[int, bool, int, int, Callable[[bytes, int], bytes], int, bytes]]) -> list[bytes]:
    """Packets of several flows: mostly in sequence, some with another flag, option, tag, or bytes that were harmed."""
    sequences: dict[int, int] = defaultdict(lambda: 2**32 - 20)
    identities: dict[int, int] = defaultdict(lambda: 2**16 - 3)
    packets = []
    for number, is_tcp, size, odd, change, seed, data in steps:
        flow, payload = FLOWS[number], data[:size]
        identity = identities[number] = (identities[number] + 1 + (odd == 3)) & 0xFFFF
        if odd == 1:
            tags = (
                replace(flow, tos=seed % 4),
                replace(flow, extension=bytes(8)),
                replace(flow, ip_options=b"\x01" * 4),
            )
            flow = tags[seed % 3]
        if not is_tcp:
            packets.append(change(flow.udp(payload, identity=identity, checksum=0 if odd == 2 else None), seed))
            continue
        sequence = sequences[number] + (odd == 3)
        sequences[number] = sequence + size
        flags = (PSH | ACK, FIN | ACK, seed & 255, ACK)[seed % 4] if odd == 2 else ACK
        options = (b"", OPTIONS)[seed % 2] if odd == 1 else b""
        packets.append(change(flow.tcp(payload, sequence, flags, options=options, identity=identity), seed))
    return packets


def flow_of(packet: bytes) -> bytes | None:
    """What packets have to keep their order with each other; None: with all."""
    if len(packet) >= 28 and packet[0] == 0x45 and packet[6] in (0, 0x40) and not packet[7]:
        return packet[9:10] + packet[12:24] if packet[9] in (TCP, UDP) else None
    if len(packet) >= 48 and packet[0] >> 4 == 6:
        return packet[6:7] + packet[8:44] if packet[6] in (TCP, UDP) else None
    return None


def normal(packet: bytes) -> bytes:
    """The packet without what may change: an ID with DF, and which of its two zeros a TCP checksum is."""
    flow = flow_of(packet)
    if flow is None:
        return packet
    if packet[0] == 0x45 and packet[6] == 0x40:
        packet = packet[:4] + bytes(2) + packet[6:10] + add(packet[:20]).to_bytes(2, "big") + packet[12:]
    at = (20 if packet[0] == 0x45 else 40) + 16
    if flow[0] == TCP and packet[at : at + 2] == b"\xff\xff":
        packet = packet[:at] + bytes(2) + packet[at + 2 :]
    return packet


@settings(max_examples=300)
@given(steps=STEPS, uso=st.booleans())
def test_what_was_merged_and_cut_is_what_was_there(
    steps: list[tuple[int, bool, int, int, Callable[[bytes, int], bytes], int, bytes]], uso: bool
) -> None:
    packets = traffic(steps)
    back = again(coalesce(packets, uso=uso))
    assert sorted(map(normal, back)) == sorted(map(normal, packets))
    for flow in {flow_of(packet) for packet in packets}:
        kept = [[normal(one) for one in side if flow_of(one) in (flow, None)] for side in (packets, back)]
        assert kept[0] == kept[1]


@given(st.lists(st.binary(max_size=100) | st.binary(max_size=99).map(lambda data: b"\x45" + data)))
def test_whatever_bytes_pass_unchanged_and_raise_nothing(packets: list[bytes]) -> None:
    assert sorted(again(coalesce(packets))) == sorted(packets)
