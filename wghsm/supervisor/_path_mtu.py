"""The MTU that the ways to the endpoints leave for the interface, asked of the kernel's routes.

    known endpoints -> the route to each, found with the mark of the outer packets -> its `mtu`, else that of its link
    none known      -> the best default route of each family -> the same, 1500 at most: peers come from anywhere
    none of these   -> 1500
    the smallest of them, less 80 (IPv6 40, UDP 8, WireGuard 32), but 1280 at least, which IPv6 needs

Rtnetlink messages packed here, as in `_routes`: 10,000 endpoints are asked for in a hundred sends. Called by `_links`.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from wghsm.config import MAIN_TABLE

from ._endpoints import literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from wghsm.ipc.messages import Endpoint

    from .model import Model

__all__ = ["RouteWatch", "known_endpoints", "path_mtu"]

_OUTSIDE = 80
_ETHERNET = 1500
_LEAST, _MOST = 1280, 65455

_ERROR, _DONE, _NEWROUTE, _GETROUTE = 2, 3, 24, 26
_REQUEST, _DUMP = 0x1, 0x300
_SOL_NETLINK, _STRICT = 270, 12
_DST, _OIF, _METRICS, _MULTIPATH, _TABLE, _MARK = 1, 4, 8, 9, 15, 16
_METRIC_MTU = 2
_TYPE_OF_ATTRIBUTE = 0x3FFF
_UNICAST = 1
_SIOCGIFMTU = 0x8921
# RTMGRP_LINK, routes and rules of IPv4, routes and rules of IPv6.
_NEWS = 0x1 | 0x40 | 0x80 | 0x400 | 0x40000

_HEADER = Struct("=IHHII")
_ROUTE = Struct("=BBBBBBBBI")
_ATTRIBUTE = Struct("=HH")
_NUMBER = Struct("=HHI")
_WORD = Struct("=I")
_HOP = Struct("=HBBi")
_LINK_MTU = Struct("=16si20x")

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class _Way:
    """A route: the links that it leaves by, and its own MTU, 0 for none."""

    links: tuple[int, ...]
    mtu: int


def known_endpoints(model: Model) -> frozenset[Endpoint]:
    """The addresses that file and changes at run time give for peers; not what was learned from packets."""
    found = set()
    for peer in model.peers.values():
        endpoint = peer.endpoint or (literal(peer.host) if peer.host is not None else None)
        if endpoint is not None:
            found.add(endpoint)
    return frozenset(found)


def path_mtu(endpoints: Collection[Endpoint], mark: int, own: int) -> int:
    """The interface's MTU, in bytes. `own`: its index; ways through it, and to the machine itself, say nothing."""
    found: list[int] = []
    # Without netlink, what the kernel's own wireguard interface has by default.
    with suppress(OSError):
        found = _sizes(_ways_to(endpoints, mark), own)
        if not found:
            defaults = (_sizes(_default_ways(family), own)[:1] for family in (socket.AF_INET, socket.AF_INET6))
            found = [min(size, _ETHERNET) for sizes in defaults for size in sizes]
    return min(max(min(found, default=_ETHERNET) - _OUTSIDE, _LEAST), _MOST)


class RouteWatch:
    """Readable when links, routes or rules of this network namespace have changed; call `drain`, then look again."""

    def __init__(self) -> None:
        self._socket = _netlink()
        self._socket.setblocking(False)
        self._socket.bind((0, _NEWS))

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Read away what is there; an overrun is news like any other."""
        while True:
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _ways_to(endpoints: Collection[Endpoint], mark: int) -> Iterator[_Way]:
    wanted = sorted({(each.host, each.scope) for each in endpoints})
    with _netlink() as sock:
        sock.bind((0, 0))
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            sock.send(b"".join(_question(host, scope, mark) for host, scope in part))
            answered = 0
            while answered < len(part):
                for kind, body in _messages(sock.recv(65536)):
                    answered += 1
                    if kind == _NEWROUTE:
                        yield from _way(body)


def _question(host: str, scope: int, mark: int) -> bytes:
    address = ipaddress.ip_address(host)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _DST) + address.packed
    body += _NUMBER.pack(_NUMBER.size, _MARK, mark)
    body += _NUMBER.pack(_NUMBER.size, _OIF, scope) if scope else b""
    return _HEADER.pack(_HEADER.size + len(body), _GETROUTE, _REQUEST, 0, 0) + body


def _default_ways(family: int) -> Iterator[_Way]:
    """The default routes of the main table, best first: they come first of all, so of a million routes few are read."""
    body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + _NUMBER.pack(_NUMBER.size, _TABLE, MAIN_TABLE)
    with _netlink() as sock:
        sock.setsockopt(_SOL_NETLINK, _STRICT, 1)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GETROUTE, _REQUEST | _DUMP, 0, 0) + body)
        for kind, message in _messages(sock.recv(65536)):
            if kind == _NEWROUTE and not message[1]:
                yield from _way(message)


def _way(body: bytes) -> Iterator[_Way]:
    if _ROUTE.unpack_from(body)[7] != _UNICAST:
        return
    said = dict(_attributes(body[_ROUTE.size :]))
    mtu = dict(_attributes(said.get(_METRICS, b""))).get(_METRIC_MTU)
    links = (_WORD.unpack(said[_OIF])[0],) if _OIF in said else tuple(_hops(said.get(_MULTIPATH, b"")))
    yield _Way(links, _WORD.unpack(mtu)[0] if mtu else 0)


def _hops(data: bytes) -> Iterator[int]:
    """The links of a route that has several."""
    while len(data) >= _HOP.size:
        length, _, _, link = _HOP.unpack_from(data)
        yield link
        data = data[max((length + 3) & ~3, _HOP.size) :]


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each message but the end of a list."""
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, place)
        if kind != _DONE:
            yield kind, data[place + _HEADER.size : place + length]
        place += max((length + 3) & ~3, _HEADER.size)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        yield kind & _TYPE_OF_ATTRIBUTE, data[place + _ATTRIBUTE.size : place + length]
        place += max((length + 3) & ~3, _ATTRIBUTE.size)


def _sizes(ways: Iterator[_Way], own: int) -> list[int]:
    """What fits through each way, in bytes."""
    links: dict[int, int] = {}
    found = []
    for way in ways:
        if not way.links or own in way.links:
            continue
        for link in way.links:
            if link not in links:
                links[link] = _link_mtu(link)
        found.append(way.mtu or min(links[link] for link in way.links))
    return [size for size in found if size]


def _link_mtu(index: int) -> int:
    """The MTU of a link, 0 if it is gone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            request = _LINK_MTU.pack(socket.if_indextoname(index).encode(), 0)
            return int(_LINK_MTU.unpack(fcntl.ioctl(sock, _SIOCGIFMTU, request))[1])
        except OSError:
            return 0
