"""Supervisor to handshake process, egress and ingress, and back: peers, allowed IPs, sockets, the TUN."""

from __future__ import annotations

from typing import Literal

from ._base import Endpoint, Message

__all__ = [
    "HandshakePeer",
    "HandshakePeers",
    "Inbox",
    "LinkState",
    "Mtu",
    "Prepared",
    "Rekey",
    "Route",
    "Routes",
    "RoutesCommit",
    "TunDevice",
    "TunnelPeers",
    "UdpSockets",
]


# Supervisor to handshake, and back.


class HandshakePeer(Message, frozen=True, array_like=True):
    """A peer as the handshake process knows it. `endpoint` None leaves the known one as it is."""

    peer: int
    public_key: bytes
    endpoint: Endpoint | None
    persistent_keepalive: int


class HandshakePeers(Message, frozen=True, array_like=True, tag=20):
    """Peers to add or change, and slots to forget. Answered with Applied."""

    change: int
    upsert: list[HandshakePeer]
    remove: list[int]


class UdpSockets(Message, frozen=True, array_like=True, tag=21):
    """The gateway's UDP sockets, one descriptor for each of `families` ("4", "6"). Answered with Applied.

    Ingress reads them; egress and handshake only send.
    """

    change: int
    port: int
    families: list[Literal["4", "6"]]


class LinkState(Message, frozen=True, array_like=True, tag=22):
    """The interface went up or down. Timers run, and handshakes are made, only while it is up."""

    up: bool


class Rekey(Message, frozen=True, array_like=True, tag=23):
    """Start a handshake with each of these peers now, as far as REKEY_TIMEOUT lets it."""

    peers: list[int]


# Supervisor to egress and ingress, and back.


class TunnelPeers(Message, frozen=True, array_like=True, tag=30):
    """Slots whose sessions may be installed, and slots to forget with all their sessions. Answered with Applied."""

    change: int
    add: list[int]
    remove: list[int]


class Route(Message, frozen=True, array_like=True):
    """One allowed prefix: `address` is 4 or 16 bytes, `length` in bits; `peer` None removes it."""

    address: bytes
    length: int
    peer: int | None


class Routes(Message, frozen=True, array_like=True, tag=31):
    """Changes to the allowed IPs, in order, prepared but not in force. The `last` part is answered with Prepared."""

    change: int
    routes: list[Route]
    last: bool


class Prepared(Message, frozen=True, array_like=True, tag=32):
    """The numbered change of allowed IPs is ready to be committed."""

    change: int


class RoutesCommit(Message, frozen=True, array_like=True, tag=33):
    """Put the prepared change in force: ingress first, then egress. Answered with Applied."""

    change: int


class TunDevice(Message, frozen=True, array_like=True, tag=34):
    """The TUN device, as the message's only descriptor, and its MTU in bytes.

    `vnet`: reads and writes begin with a virtio_net_hdr (10 bytes), so they may be super-packets of TCP;
    `uso`: of UDP too.
    """

    mtu: int
    vnet: bool = False
    uso: bool = False


class Inbox(Message, frozen=True, array_like=True, tag=36):
    """Where packets for a worker's peers go that another worker's egress has read, as the message's only descriptor.

    The end to read for that worker itself, the end to write for all others: a TUN read each, as it is.
    """

    worker: int


class Mtu(Message, frozen=True, array_like=True, tag=35):
    """The TUN's MTU changed (bytes)."""

    mtu: int
