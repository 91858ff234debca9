"""Traffic of several flows for the tests of merging: mostly in sequence, some of it odd or harmed.

Also used with the kernel as the judge, in the tests of the network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from hypothesis import strategies as st

from tests.unit.tunnel.inner import ACK, FIN, PSH, TCP, UDP, Flow
from wghsm.tunnel.checksum import add, finish
from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import PLAIN, SIZE, VnetHeader

OPTIONS = b"\x01\x01\x08\x0a" + bytes(8)
FLOWS = (
    Flow(4),
    Flow(6),
    Flow(4, df=False),
    Flow(4, source_port=1),
    Flow(6, destination_port=1),
)

Change: TypeAlias = Callable[[bytes, int], bytes]
Step: TypeAlias = tuple[int, bool, int, int, Change, int, bytes]
"""Number of the flow, whether TCP, size of the payload, what is odd about it, harm, a number for both, payload."""


def unharmed(packet: bytes, _number: int) -> bytes:
    return packet


def cut_short(packet: bytes, number: int) -> bytes:
    return packet[: number % (len(packet) + 1)]


def other_byte(packet: bytes, number: int) -> bytes:
    at = number % len(packet)
    return packet[:at] + bytes([number >> 8 & 255]) + packet[at + 1 :]


def other_last_byte(packet: bytes, number: int) -> bytes:
    return packet[:-1] + bytes([number & 255])


def fragment(packet: bytes, number: int) -> bytes:
    """A first, middle or last fragment, if the packet is of IPv4."""
    if packet[0] != 0x45:
        return packet
    new = bytearray(packet)
    new[6:8] = (0x2000, 0x2010, 0x0010)[number % 3].to_bytes(2, "big")
    new[10:12] = bytes(2)
    new[10:12] = finish(add(new[:20])).to_bytes(2, "big")
    return bytes(new)


def longer(packet: bytes, number: int) -> bytes:
    return packet + bytes(number % 16)


def steps(*harms: Change) -> st.SearchStrategy[list[Step]]:
    """What happens one after the other; one packet in four at most is harmed by one of `harms`."""
    return st.lists(
        st.tuples(
            st.integers(0, len(FLOWS) - 1),
            st.booleans(),
            st.sampled_from([8, 8, 8, 8, 8, 7, 1, 9, 0]),
            st.sampled_from([*[0] * 12, 1, 2, 3]),
            st.sampled_from([*[unharmed] * 3 * len(harms), *harms]),
            st.integers(0, 2**16 - 1),
            st.binary(min_size=9, max_size=9),
        ),
        max_size=60,
    )


def traffic(taken: Iterable[Step]) -> list[bytes]:
    """The packets of these steps. Odd are: 1 a header unlike the others', 2 flags or no checksum, 3 a gap."""
    sequences: dict[int, int] = defaultdict(lambda: 2**32 - 20)
    identities: dict[int, int] = defaultdict(lambda: 2**16 - 3)
    packets = []
    for number, is_tcp, size, odd, harm, seed, data in taken:
        flow, payload = FLOWS[number], data[:size]
        identity = identities[number] = (identities[number] + 1 + (odd == 3)) & 0xFFFF
        if odd == 1:
            flow = (
                replace(flow, tos=seed % 4),
                replace(flow, extension=bytes(8)),
                replace(flow, ip_options=b"\x01" * 4),
            )[seed % 3]
        if not is_tcp:
            packets.append(harm(flow.udp(payload, identity=identity, checksum=0 if odd == 2 else None), seed))
            continue
        sequence = sequences[number] + (odd == 3)
        sequences[number] = sequence + size
        flags = (PSH | ACK, FIN | ACK, seed & 255, ACK)[seed % 4] if odd == 2 else ACK
        options = (b"", OPTIONS)[seed % 2] if odd == 1 else b""
        packets.append(harm(flow.tcp(payload, sequence, flags, options=options, identity=identity), seed))
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


def flows_in_order(packets: list[bytes]) -> dict[bytes | None, list[bytes]]:
    """For each flow its packets in order, among those that have to keep their order with all."""
    flows = {flow_of(packet) for packet in packets}
    return {flow: [normal(one) for one in packets if flow_of(one) in (flow, None)] for flow in flows}


def again(writes: list[bytes]) -> list[bytes]:
    """The packets that TUN writes stand for, cut again."""
    packets: list[bytes] = []
    for write in writes:
        if write.startswith(PLAIN):
            packets.append(write[SIZE:])
            continue
        found = cut(VnetHeader.decode(write), write[SIZE:])
        assert found is not None
        packets += found
    return packets
