"""Handshake process to custodian, and back: whole handshakes, no DH oracle. And what carries session keys."""

from __future__ import annotations

from ._base import Message

__all__ = [
    "AcceptInitiation",
    "AcceptResponse",
    "ConfirmSession",
    "CreateInitiation",
    "InitiationAccepted",
    "InitiationCreated",
    "InstallReceive",
    "InstallSend",
    "Refused",
    "ResponseAccepted",
]


# Handshake to custodian, and back (the handshake-level operations; no DH oracle).


class AcceptInitiation(Message, frozen=True, array_like=True, tag=40):
    """Message 1 of a stranger: prove it, answer it, derive its session (PROTOCOL.md 4.2, 4.3).

    `identity` is the public key (32 bytes) that its mac1 was made for: a hint, which the transcript proves.
    """

    request: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    local_index: int
    remote_index: int
    identity: bytes


class InitiationAccepted(Message, frozen=True, array_like=True, tag=41):
    """The fields of message 2; it may leave once ingress has acknowledged `session`."""

    request: int
    peer: int
    session: int
    ephemeral: bytes
    empty: bytes


class CreateInitiation(Message, frozen=True, array_like=True, tag=42):
    """Make message 1 for a peer (PROTOCOL.md 4.1). Replaces the peer's earlier handle.

    `attempt` counts from 0 the initiations that the peer has left without an answer: the custodian picks the
    identity by it.
    """

    request: int
    peer: int
    local_index: int
    attempt: int


class InitiationCreated(Message, frozen=True, array_like=True, tag=43):
    """The fields of message 1. `handle` stands for the handshake state kept in the custodian.

    `identity` is the own public key (32 bytes) it was made with: the response's mac1 must be for it.
    """

    request: int
    peer: int
    handle: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    identity: bytes


class AcceptResponse(Message, frozen=True, array_like=True, tag=44):
    """Message 2 for a handle (PROTOCOL.md 4.4)."""

    request: int
    handle: int
    ephemeral: bytes
    empty: bytes
    remote_index: int


class ResponseAccepted(Message, frozen=True, array_like=True, tag=45):
    """The session is derived and its keys are on their way to ingress and egress."""

    request: int
    peer: int
    session: int


class Refused(Message, frozen=True, array_like=True, tag=46):
    """No, whatever the cause; the custodian counts causes inside."""

    request: int


class ConfirmSession(Message, frozen=True, array_like=True, tag=47):
    """The peer has sent data on a session that we responded with: so it has the PSK that was mixed into it."""

    session: int
    peer: int


# Custodian to egress and ingress: the only messages that carry session keys.


class InstallSend(Message, frozen=True, array_like=True, tag=50):
    """A send key for egress. Not for sending before Activate has come for its session."""

    session: int
    peer: int
    remote_index: int
    initiator: bool
    created: int
    key: bytes

    def __repr__(self) -> str:
        return f"InstallSend(session={self.session}, peer={self.peer}, key=redacted)"


class InstallReceive(Message, frozen=True, array_like=True, tag=51):
    """A receive key for ingress, which answers to the handshake process with Installed.

    `identity` is the first 8 bytes of the own public key that the session was made with, as a little-endian number.
    """

    session: int
    peer: int
    local_index: int
    initiator: bool
    created: int
    key: bytes
    identity: int

    def __repr__(self) -> str:
        return f"InstallReceive(session={self.session}, peer={self.peer}, key=redacted)"
