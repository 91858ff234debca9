"""Endpoints between their three forms: a message's text, what recvmsg gives, and what sendmsg takes.

    recvmsg -> (address, packet info) -> Endpoint message -> Destination -> sendmsg

The packet info (IP_PKTINFO, IPV6_PKTINFO) names the own address that a datagram came to; a datagram to the same peer
leaves from it ("sticky socket", PROTOCOL.md section 11). The interface is named only for link-local addresses:
elsewhere the route decides, as with the kernel. Called by all who touch the UDP sockets: ingress, egress, handshake.
"""

from __future__ import annotations

import socket
from struct import Struct
from typing import Literal

from wghsm.ipc.messages import Endpoint

__all__ = [
    "CONTROL_SPACE",
    "Control",
    "Destination",
    "Received",
    "Source",
    "destination_of",
    "endpoint_of",
    "packet_info",
    "received",
]

IP_PKTINFO = 8
IPV6_PKTINFO = 50
UDP_GRO = 104
# Plain numbers: comparing with members of an enum takes much longer.
_IP, _UDP = int(socket.IPPROTO_IP), int(socket.IPPROTO_UDP)
_IP_TOS, _IPV6_TCLASS = int(socket.IP_TOS), int(socket.IPV6_TCLASS)
_int = Struct("@i").unpack
_INFO_V4 = Struct("@i4s4s")
_INFO_V6 = Struct("@16sI")

CONTROL_SPACE = socket.CMSG_SPACE(_INFO_V6.size) + 2 * socket.CMSG_SPACE(4)
"""Bytes for the control messages of a read: packet info, the outer TOS or traffic class, the segment size."""

Source = tuple[tuple[str, int] | tuple[str, int, int, int], bytes]
"""Where a datagram came from: recvmsg's address, and the data of its packet info or nothing."""

Control = list[tuple[int, int, bytes]]
"""Control messages as recvmsg gives and sendmsg takes them: level, type, data."""

Received = tuple[bytes, int, int]
"""What a read's control messages say: packet info or nothing, outer ECN bits, bytes of a datagram (0: one only)."""


class Destination:
    """An endpoint made ready for sendmsg.

    `segments`: whether many datagrams may be sent to it at once. `prepared`: the control messages of the last send
    with what they were made for, segment size and outer ECN bits.
    """

    __slots__ = ("address", "control", "endpoint", "family", "prepared", "segments")

    def __init__(
        self, endpoint: Endpoint, family: Literal["4", "6"], address: tuple[str | int, ...], control: Control
    ) -> None:
        self.segments = True
        self.prepared: tuple[int, int, Control] = (0, 0, control)
        self.endpoint = endpoint
        self.family = family
        self.address = address
        self.control = control

    def without_source(self) -> Destination:
        """The same destination, and the kernel chooses the source."""
        end = self.endpoint
        return Destination(Endpoint(end.host, end.port, end.scope), self.family, self.address, [])


def destination_of(endpoint: Endpoint) -> Destination | None:
    """Make an endpoint ready for sendmsg; None if its text is no address or its port no port.

    A cached source of another family is left out.
    """
    host, local = _packed(endpoint.host), _packed(endpoint.local)
    if host is None or (local is None and endpoint.local):
        return None
    if not 0 < endpoint.port < 65536 or not 0 <= endpoint.scope < 2**32 or not 0 <= endpoint.interface < 2**31:
        return None
    control: Control = []
    if len(host) == 4:
        if local is not None and len(local) == 4:
            control.append((_IP, IP_PKTINFO, _INFO_V4.pack(0, local, bytes(4))))
        return Destination(endpoint, "4", (endpoint.host, endpoint.port), control)
    if local is not None and len(local) == 16:
        is_link_local = local[0] == 0xFE and local[1] & 0xC0 == 0x80
        interface = endpoint.interface if is_link_local else 0
        control.append((socket.IPPROTO_IPV6, IPV6_PKTINFO, _INFO_V6.pack(local, interface)))
    return Destination(endpoint, "6", (endpoint.host, endpoint.port, 0, endpoint.scope), control)


def _packed(address: str) -> bytes | None:
    """4 or 16 bytes; None if the text is no address."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return None


def packet_info(control: Control) -> bytes:
    """The data of the packet info among control messages, or nothing."""
    return received(control)[0]


def received(control: Control) -> Received:
    """What the control messages of a read say."""
    info, ecn, segment = b"", 0, 0
    for level, kind, data in control:
        if level == _IP:
            if kind == IP_PKTINFO:
                info = data
            elif kind == _IP_TOS:
                ecn = data[0] & 3
        elif level == _UDP:
            if kind == UDP_GRO:
                segment = _int(data)[0]
        elif kind == IPV6_PKTINFO:
            info = data
        elif kind == _IPV6_TCLASS:
            ecn = _int(data)[0] & 3
    return info, ecn, segment


def endpoint_of(source: Source) -> Endpoint:
    """The message's form of where a datagram came from."""
    address, info = source
    if len(info) == _INFO_V4.size:
        interface, local, _ = _INFO_V4.unpack(info)
        return Endpoint(address[0], address[1], 0, socket.inet_ntop(socket.AF_INET, local), interface)
    scope = address[3] if len(address) == 4 else 0
    if len(info) == _INFO_V6.size:
        local, interface = _INFO_V6.unpack(info)
        return Endpoint(address[0], address[1], scope, socket.inet_ntop(socket.AF_INET6, local), interface)
    return Endpoint(address[0], address[1], scope)
