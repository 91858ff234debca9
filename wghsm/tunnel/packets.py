"""Inner packets: what is read of an IPv4 or IPv6 header, and the padding.

Called for each packet by the Sender (destination), seal (padding, ECN) and open (source, length without padding, ECN).
Source: PROTOCOL.md sections 9 to 11.
"""

from struct import Struct

from wghsm.noise.constants import MESSAGE_PADDING_MULTIPLE
from wghsm.tunnel.checksum import finish

__all__ = ["congested", "destination", "outer_ecn", "padding", "unpadded"]

_IPV4_HEADER = 20
_IPV6_HEADER = 40
_LENGTH_V4 = Struct(">2xH").unpack_from
_LENGTH_V6 = Struct(">4xH").unpack_from
_CE = 3
_ECT_0 = 2
_ROUND = MESSAGE_PADDING_MULTIPLE - 1


def destination(packet: bytes, at: int = 0) -> bytes | None:
    """The packed destination address, 4 or 16 bytes, of the packet from `at` on; None if it is no whole IP header."""
    size = len(packet) - at
    version = packet[at] >> 4 if size > 0 else 0
    if version == 4 and size >= _IPV4_HEADER:
        return packet[at + 16 : at + 20]
    if version == 6 and size >= _IPV6_HEADER:
        return packet[at + 24 : at + 40]
    return None


def outer_ecn(packet: bytes) -> int:
    """The ECN bits of the datagram that carries a packet: the packet's own, but ECT(0) for CE."""
    ecn = (packet[1] >> (0 if packet[0] >> 4 == 4 else 4)) & _CE
    return _ECT_0 if ecn == _CE else ecn


def congested(packet: bytes) -> bytes:
    """The packet as it is delivered after its datagram has come with CE: CE if it is ECN-capable, else unchanged."""
    if packet[0] >> 4 == 6:
        marked = packet[1] & 0x30 and packet[1] | 0x30
        return packet[:1] + bytes([marked]) + packet[2:] if marked else packet
    if packet[1] & _CE in (0, _CE):
        return packet
    # RFC 1624: the new checksum from the old one.
    old = int.from_bytes(packet[10:12], "big")
    change = (packet[1] | _CE) - packet[1]
    checksum = finish((0xFFFF - old) + change)
    return packet[:1] + bytes([packet[1] | _CE]) + packet[2:10] + checksum.to_bytes(2, "big") + packet[12:]


def padding(size: int, mtu: int) -> int:
    """Zero bytes to add to a packet of `size` bytes: up to a multiple of 16, but never past the MTU.

    `mtu` 0: unknown. A packet larger than the MTU is padded as its last piece would be.
    """
    if not mtu:
        return -size & _ROUND
    last = size % mtu if size > mtu else size
    padded = (last + _ROUND) & ~_ROUND
    return (padded if padded < mtu else mtu) - last


def unpadded(plaintext: bytes) -> tuple[bytes, bytes] | None:
    """The packed source address of a received packet and the packet without its padding; None if it is malformed.

    The header's total length must hold the header and fit the plaintext.
    """
    size = len(plaintext)
    version = plaintext[0] >> 4 if size else 0
    if version == 4 and size >= _IPV4_HEADER:
        total: int = _LENGTH_V4(plaintext)[0]
        if not _IPV4_HEADER <= total <= size:
            return None
        source = plaintext[12:16]
    elif version == 6 and size >= _IPV6_HEADER:
        total = _LENGTH_V6(plaintext)[0] + _IPV6_HEADER
        if total > size:
            return None
        source = plaintext[8:24]
    else:
        return None
    return source, plaintext if total == size else plaintext[:total]
