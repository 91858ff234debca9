"""Cut what a TUN with offloads reads into the packets that a network would have delivered.

Called by egress for each read whose header is not PLAIN:

    partial checksum                  -> the packet with its checksum
    TSO: TCP with up to 64 KiB data   -> segments of gso_size: seq, IPv4 ID, FIN, PSH, CWR, lengths, checksums
    USO: UDP with many datagrams      -> datagrams of gso_size: IPv4 ID, lengths, checksums

It does what the kernel does for a device without offloads. Source: DATAPLANE.md section 2.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from wghsm.tunnel.checksum import add, finish
from wghsm.tunnel.virtio import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM

if TYPE_CHECKING:
    from wghsm.tunnel.virtio import VnetHeader

__all__ = ["cut"]

_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_LARGEST: Final = 65535
_TCP: Final = 6
_UDP: Final = 17
_TCP_CHECKSUM: Final = 16
_UDP_CHECKSUM: Final = 6
_FIN_PSH: Final = 0x09
_CWR: Final = 0x80
_FRAGMENT: Final = 0x3FFF

_u16 = Struct(">H")
_u32 = Struct(">I")
_two_u16 = Struct(">HH")


def cut(header: VnetHeader, packet: bytes) -> list[bytes] | None:
    """The packets, in order, that `packet`, read with `header`, stands for.

    None if the two do not fit together, or there is no whole IP header or more than 65535 bytes.
    """
    size = len(packet)
    version = packet[0] >> 4 if _IPV4_HEADER <= size <= _LARGEST else 0
    if version != 4 and (version != 6 or size < _IPV6_HEADER):
        return None
    kind = header.gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        return [packet] if not header.flags & NEEDS_CSUM else _finish_partial(header, packet)
    if kind == GSO_UDP_L4:
        protocol, field, smallest = _UDP, _UDP_CHECKSUM, 8
    elif (kind == GSO_TCPV4 and version == 4) or (kind == GSO_TCPV6 and version == 6):
        protocol, field, smallest = _TCP, _TCP_CHECKSUM, 20
    else:
        return None
    start = _transport(header, packet, version, protocol)
    if start is None or not header.gso_size or size < start + smallest:
        return None
    if header.flags & NEEDS_CSUM:
        if header.csum_offset != field:
            return None
        # The field holds the pseudo-header's sum for the whole length: what is left without it is the addresses'.
        addresses = _u16.unpack_from(packet, start + field)[0] - (size - start)
    else:
        addresses = add(packet[12:20] if version == 4 else packet[8:40]) + protocol
    if protocol == _UDP:
        return _cut_udp(packet, version, start, header.gso_size, addresses)
    return _cut_tcp(packet, version, start, header.gso_size, addresses)


def _finish_partial(header: VnetHeader, packet: bytes) -> list[bytes] | None:
    start = header.csum_start
    field = start + header.csum_offset
    if start < (_IPV4_HEADER if packet[0] >> 4 == 4 else _IPV6_HEADER) or field + 2 > len(packet):
        return None
    # As the kernel has it, for every protocol: a checksum of 0 is written as 65535.
    checksum = finish(add(packet[start:])) or 0xFFFF
    return [b"".join((packet[:field], _u16.pack(checksum), packet[field + 2 :]))]


def _transport(header: VnetHeader, packet: bytes, version: int, protocol: int) -> int | None:
    """Where the transport header of a super-packet begins; None if that cannot be."""
    start = header.csum_start if header.flags & NEEDS_CSUM else 0
    if version == 4:
        size = (packet[0] & 15) * 4
        fragment: int = _u16.unpack_from(packet, 6)[0] & _FRAGMENT
        whole = size >= _IPV4_HEADER and packet[9] == protocol and not fragment
        return size if whole and start in (0, size) else None
    # Extension headers are not walked: with some, the kernel has to say where they end.
    if packet[6] == protocol:
        return _IPV6_HEADER if start in (0, _IPV6_HEADER) else None
    return start if start > _IPV6_HEADER else None


def _cut_tcp(packet: bytes, version: int, start: int, size: int, addresses: int) -> list[bytes] | None:
    data = start + (packet[start + 12] >> 4) * 4
    if data < start + 20 or data > len(packet):
        return None
    head = bytearray(packet[:data])
    sequence: int = _u32.unpack_from(head, start + 4)[0]
    flags = head[start + 13]
    head[start + 4 : start + 8] = bytes(4)
    head[start + 13] = 0
    head[start + 16 : start + 18] = bytes(2)
    base = addresses + add(head[start:]) + data - start
    network = _network_sum(packet, version, start)
    identity: int = _u16.unpack_from(packet, 4)[0]

    segments = []
    for offset in range(data, len(packet), size) or (data,):
        payload = packet[offset : offset + size]
        kept = flags
        if offset > data:
            kept &= ~_CWR
        if offset + size < len(packet):
            kept &= ~_FIN_PSH
        head[start + 13] = kept
        _u32.pack_into(head, start + 4, sequence)
        _u16.pack_into(head, start + 16, finish(base + len(payload) + sequence + kept + add(payload)))
        _write_length(head, version, data + len(payload), network, identity)
        segments.append(b"".join((head, payload)))
        sequence = (sequence + size) & 0xFFFFFFFF
        identity = (identity + 1) & 0xFFFF
    return segments


def _cut_udp(packet: bytes, version: int, start: int, size: int, addresses: int) -> list[bytes]:
    data = start + 8
    head = bytearray(packet[:data])
    base = addresses + add(packet[start : start + 4])
    network = _network_sum(packet, version, start)
    identity: int = _u16.unpack_from(packet, 4)[0]

    datagrams = []
    for offset in range(data, len(packet), size) or (data,):
        payload = packet[offset : offset + size]
        length = 8 + len(payload)
        # The length counts twice: in the pseudo-header and in the header.
        checksum = finish(base + 2 * length + add(payload)) or 0xFFFF
        _two_u16.pack_into(head, start + 4, length, checksum)
        _write_length(head, version, start + length, network, identity)
        datagrams.append(b"".join((head, payload)))
        identity = (identity + 1) & 0xFFFF
    return datagrams


def _network_sum(packet: bytes, version: int, start: int) -> int:
    """The sum of an IPv4 header without length, identity and checksum."""
    if version == 6:
        return 0
    return add(packet[:2]) + add(packet[6:10]) + add(packet[12:start])


def _write_length(head: bytearray, version: int, length: int, network: int, identity: int) -> None:
    """Fit the IP header to a packet of `length` bytes. The kernel counts the identity up with and without DF."""
    if version == 4:
        _two_u16.pack_into(head, 2, length, identity)
        _u16.pack_into(head, 10, finish(network + length + identity))
    else:
        _u16.pack_into(head, 4, length - 40)
