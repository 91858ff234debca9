"""Inner packets: what is read of an IPv4 or IPv6 header, and the padding.

Called for each packet by seal (destination, padding) and open (source, length without padding).
Source: PROTOCOL.md sections 9 and 10.
"""

from struct import Struct

from wghsm.noise.constants import MESSAGE_PADDING_MULTIPLE

__all__ = ["destination", "padding", "unpadded"]

_IPV4_HEADER = 20
_IPV6_HEADER = 40
_LENGTH_V4 = Struct(">2xH").unpack_from
_LENGTH_V6 = Struct(">4xH").unpack_from
_ROUND = MESSAGE_PADDING_MULTIPLE - 1


def destination(packet: bytes) -> bytes | None:
    """The packed destination address of a packet, 4 or 16 bytes; None if it is no whole IP header."""
    size = len(packet)
    if size >= _IPV4_HEADER and packet[0] >> 4 == 4:
        return packet[16:20]
    if size >= _IPV6_HEADER and packet[0] >> 4 == 6:
        return packet[24:40]
    return None


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
