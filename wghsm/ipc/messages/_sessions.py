"""Between ingress, egress and the handshake process: datagrams, what sessions live through, endpoints, gates."""

from __future__ import annotations

from typing import Literal

from ._base import Endpoint, Message

__all__ = [
    "Activate",
    "AwaitSessions",
    "DataReceived",
    "DataSent",
    "Datagram",
    "EndpointMoved",
    "ForgetSessions",
    "ForgetSource",
    "Gate",
    "Gates",
    "HandshakeWanted",
    "Installed",
    "PurgeStaged",
    "SendKeepalive",
    "SessionConfirmed",
    "SessionInfo",
    "SessionSnapshot",
]


# Ingress to handshake.


class Datagram(Message, frozen=True, array_like=True, tag=60):
    """A UDP datagram of type 1 to 3, unchecked, with where it came from and when.

    `crowded`: more came of late than are passed on.
    """

    source: Endpoint
    at: int
    data: bytes
    crowded: bool = False


class Installed(Message, frozen=True, array_like=True, tag=61):
    """Ingress receives on this session from now on. `accepted` false: it would not take it."""

    session: int
    accepted: bool = True


class SessionConfirmed(Message, frozen=True, array_like=True, tag=62):
    """First authenticated data on NEXT: the responder's handshake is complete (PROTOCOL.md section 5)."""

    session: int
    peer: int
    at: int


class DataReceived(Message, frozen=True, array_like=True, tag=63):
    """First data (not a keepalive) received since the peer was last sent anything authenticated."""

    peer: int
    at: int


# Egress to handshake.


class DataSent(Message, frozen=True, array_like=True, tag=64):
    """First data (not a keepalive) sent since anything authenticated was last received from the peer."""

    peer: int
    at: int


# Egress and ingress to handshake.


class HandshakeWanted(Message, frozen=True, array_like=True, tag=65):
    """A new handshake is due: no usable session for a staged packet, or the current one is old (PROTOCOL.md 8.4)."""

    peer: int
    reason: Literal["no-session", "rekey-after-time", "rekey-after-messages", "last-minute"]


class SessionInfo(Message, frozen=True, array_like=True):
    """One session in a snapshot, without its key. `index` is the local one from ingress, the remote one from egress.

    `identity` is InstallReceive's, from ingress; 0 from egress.
    """

    session: int
    peer: int
    index: int
    initiator: bool
    created: int
    slot: Literal["previous", "current", "next", "pending"]
    identity: int


class SessionSnapshot(Message, frozen=True, array_like=True, tag=66):
    """What a worker holds, in parts, sent when it is attached to a new handshake process."""

    sessions: list[SessionInfo]
    endpoints: list[EndpointMoved]
    last: bool


# Handshake and ingress to egress.


class Activate(Message, frozen=True, array_like=True, tag=70):
    """Send on this session from now on: staged packets first. `confirm`: a keepalive if nothing is staged."""

    session: int
    peer: int
    confirm: bool = False


class EndpointMoved(Message, frozen=True, array_like=True, tag=71):
    """A peer's endpoint and when it was seen there; the newest wins, wherever it came from."""

    peer: int
    endpoint: Endpoint
    at: int


# Handshake to egress (and ingress where said).


class SendKeepalive(Message, frozen=True, array_like=True, tag=72):
    """Send an empty packet if nothing is staged, else send what is staged."""

    peer: int


class PurgeStaged(Message, frozen=True, array_like=True, tag=73):
    """Drop the peer's staged packets: the handshake was given up."""

    peer: int


class ForgetSessions(Message, frozen=True, array_like=True, tag=74):
    """Destroy the peer's sessions (zero_key_material, rekey from scratch) but those numbered in `keep`.

    To egress and ingress.
    """

    peer: int
    keep: tuple[int, ...] = ()


class ForgetSource(Message, frozen=True, array_like=True, tag=75):
    """Drop the peer's cached source address, keep its endpoint."""

    peer: int


class AwaitSessions(Message, frozen=True, array_like=True, tag=76):
    """Asks a worker for a SessionSnapshot; sent by a handshake process when the worker is attached."""


class Gate(Message, frozen=True, array_like=True):
    """An identity that handshakes may be for, and the secret (32 bytes) of its cookies, good until `until`.

    `until` is CLOCK_BOOTTIME in nanoseconds, 0 while no cookie was given: the secret is empty then.
    """

    identity: bytes
    secret: bytes = b""
    until: int = 0


class Gates(Message, frozen=True, array_like=True, tag=77):
    """All of them, the current identity first; to ingress, which then drops what would not pass."""

    gates: tuple[Gate, ...]
