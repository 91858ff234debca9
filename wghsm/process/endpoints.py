"""Endpoints between their three forms: a message's text, what recvmsg gives, and what sendmsg takes.

    recvmsg -> (address, packet info) -> Endpoint message -> Destination -> sendmsg

The packet info (IP_PKTINFO, IPV6_PKTINFO) names the own address that a datagram came to; a datagram to the same peer
leaves from it ("sticky socket", PROTOCOL.md section 11). The interface is named only for link-local addresses:
elsewhere the route decides, as with the kernel. Called by all who touch the UDP sockets: ingress, egress, handshake.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address
from struct import Struct
from typing import Literal

from wghsm.ipc.messages import Endpoint

__all__ = ["CONTROL_SPACE", "Destination", "Source", "destination_of", "endpoint_of", "packet_info"]

IP_PKTINFO = 8
IPV6_PKTINFO = 50
_INFO_V4 = Struct("@i4s4s")
_INFO_V6 = Struct("@16sI")

CONTROL_SPACE = socket.CMSG_SPACE(_INFO_V6.size) + socket.CMSG_SPACE(4)
"""Bytes for the control messages of a received datagram: packet info and the outer TOS or traffic class."""

Source = tuple[tuple[str, int] | tuple[str, int, int, int], bytes]
"""Where a datagram came from: recvmsg's address, and the data of its packet info or nothing."""

_Control = list[tuple[int, int, bytes]]


class Destination:
    """An endpoint made ready for sendmsg."""

    __slots__ = ("address", "control", "endpoint", "family")

    def __init__(
        self, endpoint: Endpoint, family: Literal["4", "6"], address: tuple[str | int, ...], control: _Control
    ) -> None:
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
    if "%" in endpoint.host + endpoint.local:
        return None
    try:
        host = ip_address(endpoint.host)
        local = ip_address(endpoint.local) if endpoint.local else None
    except ValueError:
        return None
    if not 0 < endpoint.port < 65536 or not 0 <= endpoint.scope < 2**32 or not 0 <= endpoint.interface < 2**31:
        return None
    if isinstance(host, IPv4Address):
        control: _Control = []
        if isinstance(local, IPv4Address):
            control.append((socket.IPPROTO_IP, IP_PKTINFO, _INFO_V4.pack(0, local.packed, bytes(4))))
        return Destination(endpoint, "4", (str(host), endpoint.port), control)
    control = []
    if local is not None and not isinstance(local, IPv4Address):
        interface = endpoint.interface if local.is_link_local else 0
        control.append((socket.IPPROTO_IPV6, IPV6_PKTINFO, _INFO_V6.pack(local.packed, interface)))
    return Destination(endpoint, "6", (str(host), endpoint.port, 0, endpoint.scope), control)


def packet_info(control: _Control) -> bytes:
    """The data of the packet info among control messages, or nothing. (The outer ECN bits stand here too.)"""
    for level, kind, data in control:
        if kind == (IP_PKTINFO if level == socket.IPPROTO_IP else IPV6_PKTINFO):
            return data
    return b""


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
