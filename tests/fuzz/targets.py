"""What the fuzzer tries: bytes become reads, and both implementations of the packet path have to do the same with them.

    seal:  mtu (2), packets left (1), then TUN reads: size (2), bytes
    open:  flags (1), then datagrams: how (1), size (2), inner packet

Numbers are little-endian, and what is missing at the end is left out. Called by __main__ and by the test beside it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from tests.unit.tunnel.inner import ACK, TCP, UDP, Flow
from tests.unit.tunnel.twins import INDEX, Opening, Sealing, datagram, opened, sealed, sealed_from_tun
from wghsm.tunnel.checksum import add, finish
from wghsm.tunnel.engine import COMPILED, PURE
from wghsm.tunnel.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PLAIN, VnetHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SEEDS", "TARGETS", "open_both", "seal_both"]

MEND, TAMPER, REPEAT, STRANGE, JUMP = (1 << bit for bit in range(5))
"""How a datagram is made: lengths and checksums put right, a byte changed, the counter of the one before, another
index, a counter far ahead."""


def seal_both(data: bytes) -> None:
    """Raises AssertionError if the two do not seal the same."""
    assert COMPILED is not None
    if len(data) < 3:
        return
    mtu, left = struct.unpack_from("<HB", data)
    sealing = Sealing([read for _, read in _parts(data[3:], 2)], 1, left, mtu % 2001)
    assert sealed(COMPILED, sealing) == sealed(PURE, sealing)
    assert sealed_from_tun(COMPILED, sealing) == sealed_from_tun(PURE, sealing)


def open_both(data: bytes) -> None:
    """Raises AssertionError if the two do not open the same."""
    assert COMPILED is not None
    if not data:
        return
    packets = [(how, _mended(packet) if how & MEND else packet) for how, packet in _parts(data[1:], 3)]
    size = max((len(packet) for _, packet in packets), default=0)
    read = b""
    counter = 0
    for how, packet in packets:
        counter += 9000 if how & JUMP else 0 if how & REPEAT else 1
        index = INDEX + 1 if how & STRANGE else INDEX
        message = datagram(counter, packet + bytes(size - len(packet)), index)
        read += message[:-1] + bytes([message[-1] ^ 1]) if how & TAMPER else message
    if data[0] & 0x80:
        # The last datagram has another size than the others, and its tag is cut off.
        read = read[:-1]
    limit = 9000 if data[0] & 0x40 else 2**64 - 2**13 - 1
    opening = Opening([(read[:65507], size + 32, 0)], data[0] & 3, (data[0] >> 2 & 3) % 3, limit)
    assert opened(COMPILED, opening, lambda _: True) == opened(PURE, opening, lambda _: True)


def _parts(data: bytes, header: int) -> Iterator[tuple[int, bytes]]:
    """What follows: a header of 2 bytes (size) or 3 (a byte before it), and so many bytes."""
    at = 0
    while at + header <= len(data):
        size = struct.unpack_from("<H", data, at + header - 2)[0]
        yield data[at], data[at + header : at + header + size]
        at += header + size


def _mended(packet: bytes) -> bytes:
    """The packet with the lengths and checksums that it should have, as far as its headers reach."""
    new = bytearray(packet)
    size = len(new)
    if size >= 28 and new[0] == 0x45:
        at, protocol, addresses = 20, new[9], slice(12, 20)
        new[2:4] = size.to_bytes(2, "big")
        new[10:12] = bytes(2)
        new[10:12] = finish(add(new[:20])).to_bytes(2, "big")
    elif size >= 48 and new[0] >> 4 == 6 and size - 40 <= 0xFFFF:
        at, protocol, addresses = 40, new[6], slice(8, 40)
        new[4:6] = (size - 40).to_bytes(2, "big")
    else:
        return packet
    check = {TCP: at + 16, UDP: at + 6}.get(protocol, size)
    if check + 2 > size:
        return bytes(new)
    if protocol == UDP:
        new[at + 4 : at + 6] = (size - at).to_bytes(2, "big")
    new[check : check + 2] = bytes(2)
    total = add(new[at:]) + add(new[addresses]) + protocol + size - at
    new[check : check + 2] = (finish(total) or 0xFFFF).to_bytes(2, "big")
    return bytes(new)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"seal": seal_both, "open": open_both}
"""By the name of the function of the packet path."""


def _seal_seeds() -> Iterator[bytes]:
    for flow, kind in ((Flow(4), GSO_TCPV4), (Flow(6), GSO_TCPV6), (Flow(6, extension=bytes(8)), GSO_TCPV6)):
        at = flow.transport
        tcp = VnetHeader(NEEDS_CSUM, kind, at + 20, 50, at, 16).encode() + flow.tcp(bytes(170), 9, partial=True)
        udp = VnetHeader(NEEDS_CSUM, GSO_UDP_L4, at + 8, 50, at, 6).encode() + flow.udp(bytes(170), partial=True)
        one = VnetHeader(NEEDS_CSUM, csum_start=at, csum_offset=6).encode() + flow.udp(b"1", partial=True)
        reads = (tcp, b"", udp, one, PLAIN + flow.udp(b"2"))
        yield b"\x00\x05\x20" + b"".join(struct.pack("<H", len(read)) + read for read in reads)


def _open_seeds() -> Iterator[bytes]:
    for flow in (Flow(4), Flow(6), Flow(4, df=False)):
        streams = [flow.tcp(bytes(40), 40 * number, ACK, identity=number) for number in range(4)]
        streams += [flow.udp(bytes(40), identity=number) for number in range(4)]
        for how in (MEND, MEND | REPEAT, JUMP, TAMPER, STRANGE):
            parts = [struct.pack("<BH", how if number == 5 else MEND, len(one)) for number, one in enumerate(streams)]
            yield b"\x08" + b"".join(part + one for part, one in zip(parts, streams, strict=True))


SEEDS: Final = {"seal": list(_seal_seeds()), "open": list(_open_seeds())}
"""Where the fuzzer begins."""
