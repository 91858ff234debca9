"""The ICMP answer to a packet that no peer can take: host (IPv4) or address (IPv6) unreachable.

Called by egress, which writes the answer into the TUN. Its source is the unreachable destination: the kernel
drops packets from the TUN that claim to come from its own addresses (SEAMS.md "Details found by trial").
Source: RFC 1122 section 3.2.2 and RFC 4443 section 2.4 for what is never answered; PROTOCOL.md section 9.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from wghsm.tunnel.packets import destination

__all__ = ["unreachable"]

_ICMP: Final = 1
_ICMPV6: Final = 58
_TTL: Final = 64
_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_QUOTED_V4: Final = 576 - _IPV4_HEADER - 8
_QUOTED_V6: Final = 1280 - _IPV6_HEADER - 8
# ICMP errors must not be answered by errors; questions, such as echo requests, may.
_ICMP_QUESTIONS: Final = frozenset({0, 8, 13, 14})

_icmp = Struct(">BBHI").pack
_ipv4 = Struct(">BBHHHBBH4s4s").pack
_ipv6 = Struct(">IHBB16s16s").pack
_pseudo = Struct(">16s16sI3xB").pack


def unreachable(packet: bytes) -> bytes | None:
    """The IP packet that tells the sender of `packet`, or None where RFC 1122 and RFC 4443 forbid an answer."""
    target = destination(packet)
    if target is None:
        return None
    return _unreachable_v4(packet, target) if len(target) == 4 else _unreachable_v6(packet, target)


def _unreachable_v4(packet: bytes, target: bytes) -> bytes | None:
    source = packet[12:16]
    header = (packet[0] & 15) * 4
    fragment = int.from_bytes(packet[6:8], "big") & 0x1FFF
    if fragment or not _is_host_v4(source) or not _is_host_v4(target):
        return None
    if packet[9] == _ICMP and (len(packet) <= header or packet[header] not in _ICMP_QUESTIONS):
        return None
    quoted = packet[:_QUOTED_V4]
    body = _icmp(3, 1, 0, 0) + quoted
    body = _icmp(3, 1, _checksum(body), 0) + quoted
    size = _IPV4_HEADER + len(body)
    head = _ipv4(0x45, 0xC0, size, 0, 0, _TTL, _ICMP, 0, target, source)
    return _ipv4(0x45, 0xC0, size, 0, 0, _TTL, _ICMP, _checksum(head), target, source) + body


def _unreachable_v6(packet: bytes, target: bytes) -> bytes | None:
    source = packet[8:24]
    # Extension headers are not followed: what hides behind one is answered too seldom rather than too often.
    if not any(source) or source[0] == 0xFF or target[0] == 0xFF:
        return None
    if packet[6] not in (6, 17, _ICMPV6):
        return None
    if packet[6] == _ICMPV6 and (len(packet) <= _IPV6_HEADER or packet[_IPV6_HEADER] < 128):
        return None
    quoted = packet[:_QUOTED_V6]
    size = 8 + len(quoted)
    checksum = _checksum(_pseudo(target, source, size, _ICMPV6) + _icmp(1, 3, 0, 0) + quoted)
    return _ipv6(6 << 28, size, _ICMPV6, _TTL, target, source) + _icmp(1, 3, checksum, 0) + quoted


def _is_host_v4(address: bytes) -> bool:
    return 0 < address[0] < 224 and address[0] != 127


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): the one's complement sum of 16-bit words is the number modulo 65535."""
    number = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    rest = number % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if number else 0))
