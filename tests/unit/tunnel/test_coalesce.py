"""Merging: what is merged comes back byte by byte when it is cut, in its flow's order; nothing else is merged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tunnel.inner import ACK, CWR, ECE, FIN, PSH, RST, SYN, UDP, URG, Flow
from tests.unit.tunnel.inner_traffic import (
    OPTIONS,
    again,
    cut_short,
    flows_in_order,
    fragment,
    longer,
    other_byte,
    steps,
    traffic,
)
from wghsm.tunnel.coalesce import LARGEST, MOST_DATAGRAMS, Coalescer
from wghsm.tunnel.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PLAIN, SIZE, VnetHeader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.unit.tunnel.inner_traffic import Step

V4 = Flow(4)
V6 = Flow(6)


def coalesce(packets: Iterable[bytes], *, uso: bool = True) -> list[bytes]:
    coalescer = Coalescer(uso=uso)
    for packet in packets:
        coalescer.add(packet)
    return coalescer.take()


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


@settings(max_examples=300)
@given(taken=steps(cut_short, fragment, other_byte, longer), uso=st.booleans())
def test_what_was_merged_and_cut_is_what_was_there(taken: list[Step], uso: bool) -> None:
    packets = traffic(taken)
    back = again(coalesce(packets, uso=uso))
    assert len(back) == len(packets)
    assert flows_in_order(back) == flows_in_order(packets)


@given(st.lists(st.binary(max_size=100) | st.binary(max_size=99).map(lambda data: b"\x45" + data)))
def test_whatever_bytes_pass_unchanged_and_raise_nothing(packets: list[bytes]) -> None:
    assert sorted(again(coalesce(packets))) == sorted(packets)
