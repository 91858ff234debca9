"""What every message is, and the records that many of them hold."""

from __future__ import annotations

import msgspec

__all__ = ["Asker", "Endpoint", "Message"]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of every message and of the records inside them."""


class Endpoint(Message, frozen=True, array_like=True):
    """A UDP address of a peer, and the own address that it was last reached from.

    `host` is an IPv4 or IPv6 address as text, `scope` the interface index of a link-local one (else 0).
    `local` and `interface` are the cached source (sticky socket, PROTOCOL.md section 11); empty and 0 if none.
    """

    host: str
    port: int
    scope: int = 0
    local: str = ""
    interface: int = 0


class Asker(Message, frozen=True, array_like=True):
    """Who is at the other end of a UNIX socket, as the kernel says."""

    uid: int
    gid: int
    pid: int
