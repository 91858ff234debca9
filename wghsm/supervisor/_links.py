"""The interface's addresses, MTU and routes, and news about its link.

    Links       sets them, through pyroute2; routes, which may be many, by `_routes`, rules for default routes by
                `_policy`, the MTU that fits by `_path_mtu`. Netlink is known to these only
    LinkWatch   a plain netlink socket for the loop: something about links has changed, look again

An interface that was moved to another network namespace is only looked at there: its addresses and routes are the
business of who moved it. Called by `_run`, `_supervisor`, `_applying` and `_relink`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wghsm.config import kernel_routes
from wghsm.exits import ExitCode

from ._fault import GatewayFault
from ._path_mtu import path_mtu
from ._policy import PolicyRules
from ._routes import Verb, change

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from ipaddress import IPv4Interface, IPv6Interface

    from wghsm.config import KernelRoute
    from wghsm.ipc.messages import Endpoint

    from ._policy import Way
    from .model import Prefix

__all__ = ["LinkStatus", "LinkWatch", "Links", "Place"]

_log = logging.getLogger(__name__)
# Whole netlink messages at level debug would bury everything else.
for _name in ("pyroute2", "asyncio"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_RTMGRP_LINK = 1
_ADDR_GEN_MODE_NONE = 1
_IFF_UP = 1
# What one send with UDP_SEGMENT takes, and what a transport message adds to a packet.
_SEND_BYTES = 65507
_SEND_DATAGRAMS = 64
_OVERHEAD = 32
_NO_NUMBER = 2**31
_SOL_NETLINK = 270
_NETLINK_LISTEN_ALL_NSID = 8
_NLMSG = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_RTM_NEWLINK = 16
_NSID = struct.Struct("=i")

Place = tuple[int | None, int]
"""The number of a network namespace, None for the own one, and an interface's number in it."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """What the kernel says about the interface; `mtu` in bytes."""

    up: bool
    mtu: int


class Links:
    """The interface `name`, which must be there. `table` and `fwmark` as in the gateway file."""

    def __init__(
        self, name: str, addresses: Iterable[IPv4Interface | IPv6Interface], table: str | int, fwmark: int = 0
    ) -> None:
        self._name = name
        self._addresses = tuple(addresses)
        self._table = table
        self._fwmark = fwmark
        self._netlink: Any = IPRoute()
        self._rules = PolicyRules(self._netlink)
        self._index = int(self._netlink.link_lookup(ifname=name)[0])
        self._home = Path("/proc/self/ns/net").stat()
        self._elsewhere: int | None = None

    @property
    def place(self) -> Place:
        """Where the interface was found last."""
        return self._elsewhere, self._index

    @property
    def is_elsewhere(self) -> bool:
        """Whether the interface was in another network namespace when it was last looked for."""
        return self._elsewhere is not None

    def look_for(self, name: str, namespace: int) -> None:
        """The interface is now called `name`, in the network namespace of that descriptor. OSError if it is not."""
        there = None if os.path.samestat(os.fstat(namespace), self._home) else self._number_of(namespace)
        where = {} if there is None else {"IFLA_IF_NETNSID": there}
        try:
            found = self._netlink.link("get", ifname=name, **where)
        except NetlinkError as error:
            raise OSError(error.code, _text(error)) from None
        self._elsewhere, self._index = there, int(found[0]["index"])

    def _number_of(self, namespace: int) -> int:
        """The number by which netlink here knows another namespace, given if it has none."""
        for _ in range(2):
            number = int(self._netlink.get_netnsid(fd=namespace)["nsid"])
            if 0 <= number < _NO_NUMBER:
                return number
            self._netlink.set_netnsid(fd=namespace)
        raise OSError(errno.ENOENT, "the network namespace has no number")

    def configure(self, mtu: int) -> None:
        """Set MTU and addresses, and the link up. GatewayFault, naming what was refused."""
        self.set_mtu(mtu)
        # Like the kernel's own wireguard interface: no link-local address, so no router solicitations inside.
        with contextlib.suppress(NetlinkError):
            mode = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}]]}
            self._netlink.link("set", index=self._index, IFLA_AF_SPEC=mode)
        # The kernel keeps IPv4 addresses while a link is down, and drops IPv6 ones unless it is told. Read-only in
        # some containers.
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv6/conf", self._name, "keep_addr_on_down").write_text("1")
        for address in self._addresses:
            self.add_address(address)
        self._ask("the link up", "link", "set", index=self._index, state="up")

    def path_mtu(self, endpoints: Collection[Endpoint], mark: int) -> int:
        """The MTU, in bytes, that the ways of outer packets with this mark to these endpoints leave."""
        return path_mtu(endpoints, mark, self._index)

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU, in bytes. GatewayFault if it was refused."""
        self._ask(f"mtu {mtu}", "link", "set", index=self._index, mtu=mtu)
        self.match_sends(mtu)

    def match_sends(self, mtu: int) -> None:
        """Let the TUN give super-packets of as many packets as one send takes: 45 at an MTU of 1420 (bytes).

        Larger ones would be sent as a full batch and a small one in turn. A kernel that cannot is no worse off.
        """
        packets = min(_SEND_BYTES // (mtu + _OVERHEAD), _SEND_DATAGRAMS)
        if packets and not self.is_elsewhere:
            with contextlib.suppress(NetlinkError):
                self._netlink.link("set", index=self._index, gso_max_segs=packets)

    def add_address(self, address: IPv4Interface | IPv6Interface) -> None:
        """Add an address. GatewayFault if it was refused."""
        self._ask(f"the address {address}", "addr", "add", **self._address(address))

    def remove_address(self, address: IPv4Interface | IPv6Interface) -> None:
        """Remove an address. GatewayFault if it was refused."""
        self._ask(f"without the address {address}", "addr", "del", **self._address(address))

    def has_address(self, address: IPv4Interface | IPv6Interface) -> bool:
        """Whether the address is there, with its prefix length."""
        if self.is_elsewhere:
            return False
        found = self._netlink.get_addr(index=self._index)
        here = {(each.get_attr("IFA_ADDRESS"), each["prefixlen"]) for each in found}
        here |= {(each.get_attr("IFA_LOCAL"), each["prefixlen"]) for each in found}
        return (str(address.ip), address.network.prefixlen) in here

    def settle(self, addresses: Iterable[IPv4Interface | IPv6Interface], table: str | int, fwmark: int = 0) -> None:
        """The interface has other addresses and another table from now on: routes follow them."""
        self._addresses = tuple(addresses)
        self._table = table
        self._fwmark = fwmark

    def clear_stale(self) -> None:
        """Take away the rules of a gateway that could not end in good order."""
        self._rules.clear_stale()

    def add_rules(self, wanted: Iterable[Way]) -> None:
        """Add the rules that default routes need. GatewayFault if one was refused."""
        self._rules.add(wanted)

    def follow_rules(self, wanted: Iterable[Way]) -> None:
        """Have these rules and no others; what the kernel refuses is logged."""
        self._rules.follow(wanted)

    def pass_by(self, mark: int) -> None:
        """Let outer packets with this mark, which is to come, past the rules there are."""
        self._rules.pass_by(mark)

    def end_passing(self) -> None:
        """The rules are those of the mark."""
        self._rules.end_passing()

    def _routes(self, prefixes: Iterable[Prefix]) -> set[KernelRoute]:
        return kernel_routes(prefixes, self._addresses, self._table, self._fwmark)

    def add_routes(self, prefixes: Iterable[Prefix]) -> None:
        """Route these allowed IPs to the interface, as far as `table` says so. GatewayFault at the first refusal."""
        self.put_routes(self._routes(prefixes))

    def put_routes(self, routes: Iterable[KernelRoute]) -> None:
        """Add routes. GatewayFault for one that was refused, with none of them left."""
        wanted = sorted(routes, key=lambda each: -each[0].prefixlen)
        refused = self._change(Verb.ADD, wanted)
        if not refused:
            return
        self._change(Verb.DELETE, set(wanted) - {route for route, _ in refused})
        (prefix, table), number = refused[0]
        what = f"the route {prefix} in table {table}"
        text = f"the interface {self._name} cannot be given {what}: {os.strerror(number)}"
        if number == errno.EEXIST and not prefix.prefixlen:
            text = f"{what} exists already; give this gateway an fwmark of its own in the gateway file"
        elif number == errno.EEXIST:
            text = f"{what} exists already; remove it, or set table: off or a number in the gateway file"
        raise GatewayFault(ExitCode.SYSTEM, text)

    def change_routes(self, added: Iterable[Prefix], removed: Iterable[Prefix]) -> None:
        """Follow a change of allowed IPs at run time; what the kernel refuses is logged."""
        self.drop_routes(self._routes(removed))
        for (prefix, _), number in self._change(Verb.ADD, self._routes(added)):
            # Those of a link that is down are set when it is up.
            if number != errno.ENETDOWN:
                _log.warning("route add %s: %s", prefix, os.strerror(number))

    def restore_routes(self, prefixes: Iterable[Prefix]) -> None:
        """Set the routes of these allowed IPs again, which the kernel drops with the link."""
        self.keep_routes(self._routes(prefixes))
        # Without their routes they look like left-overs to another gateway that starts.
        self._rules.restore()

    def keep_routes(self, routes: Iterable[KernelRoute]) -> None:
        """Add those of the routes that the kernel has dropped; what it refuses is logged."""
        for (prefix, _), number in self._change(Verb.ADD, routes):
            if number != errno.EEXIST:
                _log.warning("route add %s: %s", prefix, os.strerror(number))

    def drop_routes(self, routes: Iterable[KernelRoute]) -> None:
        """Remove routes; one that is gone already does not matter, what the kernel refuses is logged."""
        for (prefix, _), number in self._change(Verb.DELETE, routes):
            if number != errno.ESRCH:
                _log.warning("route del %s: %s", prefix, os.strerror(number))

    def status(self) -> LinkStatus | None:
        """The link as it is now; None if it is not where it was last looked for."""
        where = {} if self._elsewhere is None else {"IFLA_IF_NETNSID": self._elsewhere}
        try:
            found = self._netlink.link("get", index=self._index, **where)
        except (NetlinkError, OSError):
            return None
        if not found:
            return None
        return LinkStatus(bool(found[0]["flags"] & _IFF_UP), int(found[0].get_attr("IFLA_MTU")))

    def delete(self) -> None:
        """Remove the interface, if it is still there, and its rules and routes with it.

        One that is elsewhere goes with its last descriptor.
        """
        self._rules.follow(())
        self._rules.end_passing()
        if self.is_elsewhere:
            return
        with contextlib.suppress(NetlinkError, OSError):
            self._netlink.link("del", index=self._index)

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def _address(self, address: IPv4Interface | IPv6Interface) -> dict[str, object]:
        return {"index": self._index, "address": str(address.ip), "prefixlen": address.network.prefixlen}

    def _change(self, verb: Verb, routes: Iterable[KernelRoute]) -> list[tuple[KernelRoute, int]]:
        wanted = [] if self.is_elsewhere else list(routes)
        try:
            return change(verb, wanted, self._index)
        except OSError as error:
            return [(route, error.errno or errno.EIO) for route in wanted]

    def _ask(self, what: str, command: str, verb: str, **details: object) -> None:
        if self.is_elsewhere:
            text = f"the interface {self._name} is in another network namespace and cannot be given {what} from here"
            raise GatewayFault(ExitCode.SYSTEM, text)
        try:
            getattr(self._netlink, command)(verb, **details)
        except (NetlinkError, OSError) as error:
            text = f"the interface {self._name} cannot be given {what}: {_text(error)}"
            raise GatewayFault(ExitCode.SYSTEM, text) from None


class LinkWatch:
    """Readable when any link of a known network namespace has changed; call `drain`, then look at Links.status."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        # Also of the namespaces that have a number here: the interface may be moved to one.
        # Takes CAP_NET_BROADCAST. Without it, an interface that is moved to another namespace is no longer heard of.
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
        self._socket.bind((0, _RTMGRP_LINK))

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def drain(self) -> set[Place]:
        """Read away what is there; gives the links that were down for however short a time.

        An overrun is news like any other.
        """
        down: set[Place] = set()
        while True:
            try:
                data, control, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(_NSID.size))
            except BlockingIOError:
                return down
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            namespace = next((_NSID.unpack(word)[0] for level, _, word in control if level == _SOL_NETLINK), None)
            down |= {(namespace, index) for index in _down(data)}

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _down(data: bytes) -> Iterator[int]:
    """The numbers of links that these messages of netlink say are down."""
    start = 0
    while len(data) - start >= _NLMSG.size + _IFINFO.size:
        length, kind, *_ = _NLMSG.unpack_from(data, start)
        _, _, index, flags, _ = _IFINFO.unpack_from(data, start + _NLMSG.size)
        if kind == _RTM_NEWLINK and not flags & _IFF_UP:
            yield index
        start += max(length + 3 & ~3, _NLMSG.size)


def _text(error: Exception) -> str:
    return str(error.args[1]) if isinstance(error, NetlinkError) and len(error.args) > 1 else str(error)
