"""Many kernel routes in few system calls: rtnetlink messages packed here, hundreds of them in one send.

    change(ADD, routes, index) -> what was refused, with its errno

One call of a netlink library for each route would make the start of a gateway with 10,000 peers wait for seconds.
Called by `_links`.
"""

from __future__ import annotations

import socket
from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wghsm.config import KernelRoute

__all__ = ["Verb", "change"]

_NEWROUTE, _DELROUTE, _ERROR = 24, 25, 2
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_SOL_NETLINK, _CAP_ACK = 270, 10
_DST, _OIF, _TABLE = 1, 4, 15
_UNSPECIFIED_TABLE = 0
_PROTOCOL_STATIC = 4
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_UNICAST = 1

_HEADER = Struct("=IHHII")
_ROUTE = Struct("=BBBBBBBBI")
_ATTRIBUTE = Struct("=HH")
_NUMBER = Struct("=HHI")
_ERRNO = Struct("=i")

# Their answers fit into a socket's buffer as it is by default.
_AT_ONCE = 100


class Verb(Enum):
    """What to do: message type and flags."""

    ADD = (_NEWROUTE, _REQUEST | _ACK | _EXCLUSIVE | _CREATE)
    DELETE = (_DELROUTE, _REQUEST | _ACK)


def change(verb: Verb, routes: Iterable[KernelRoute], index: int) -> list[tuple[KernelRoute, int]]:
    """Add or delete routes to the interface with this index; those that the kernel refused, each with its errno.

    Raises OSError if the kernel cannot be asked at all.
    """
    wanted = list(routes)
    refused: list[tuple[KernelRoute, int]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        # Without it each answer repeats its message.
        sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            sock.send(b"".join(_message(verb, route, index, number) for number, route in enumerate(part)))
            answered = 0
            while answered < len(part):
                for number, error in _answers(sock.recv(65536)):
                    answered += 1
                    if error:
                        refused.append((part[number], error))
    return refused


def _message(verb: Verb, route: KernelRoute, index: int, number: int) -> bytes:
    prefix, table = route
    kind, flags = verb.value
    packed = prefix.network_address.packed
    family, scope = (socket.AF_INET, _SCOPE_LINK) if prefix.version == 4 else (socket.AF_INET6, _SCOPE_UNIVERSE)
    if verb is Verb.DELETE:
        head = _ROUTE.pack(family, prefix.prefixlen, 0, 0, _UNSPECIFIED_TABLE, 0, _SCOPE_NOWHERE, 0, 0)
    else:
        head = _ROUTE.pack(family, prefix.prefixlen, 0, 0, _UNSPECIFIED_TABLE, _PROTOCOL_STATIC, scope, _UNICAST, 0)
    body = b"".join(
        (
            head,
            _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _DST),
            packed,
            _NUMBER.pack(_NUMBER.size, _OIF, index),
            _NUMBER.pack(_NUMBER.size, _TABLE, table),
        )
    )
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def _answers(data: bytes) -> Iterator[tuple[int, int]]:
    """Sequence number and errno (0: done) of each answer."""
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, place)
        if kind == _ERROR:
            yield number, -_ERRNO.unpack_from(data, place + _HEADER.size)[0]
        place += max((length + 3) & ~3, _HEADER.size)
