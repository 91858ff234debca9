"""The interface's addresses, MTU and routes, and news about its link. The only module that knows netlink.

    Links       sets them, through pyroute2
    LinkWatch   a plain netlink socket for the loop: something about links has changed, look again

Called by `_run` and `_supervisor`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wghsm.exits import ExitCode

from ._fault import GatewayFault

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Interface, IPv6Interface

    from .model import Prefix

__all__ = ["LinkStatus", "LinkWatch", "Links"]

_log = logging.getLogger(__name__)
# Whole netlink messages at level debug would bury everything else.
for _name in ("pyroute2", "asyncio"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_MAIN_TABLE = 254
_RTMGRP_LINK = 1
_ADDR_GEN_MODE_NONE = 1
_IFF_UP = 1


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """What the kernel says about the interface; `mtu` in bytes."""

    up: bool
    mtu: int


class Links:
    """The interface `name`, which must be there. `table` as in the gateway file: auto, off or a number."""

    def __init__(self, name: str, addresses: Iterable[IPv4Interface | IPv6Interface], table: str | int) -> None:
        self._name = name
        self._addresses = tuple(addresses)
        self._table = table
        self._connected = [address.network for address in self._addresses]
        self._netlink: Any = IPRoute()
        self._index = int(self._netlink.link_lookup(ifname=name)[0])

    def configure(self, mtu: int) -> None:
        """Set MTU and addresses, and the link up. GatewayFault, naming what was refused."""
        self._ask(f"mtu {mtu}", "link", "set", index=self._index, mtu=mtu)
        # Like the kernel's own wireguard interface: no link-local address, so no router solicitations inside.
        with contextlib.suppress(NetlinkError):
            mode = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}]]}
            self._netlink.link("set", index=self._index, IFLA_AF_SPEC=mode)
        for address in self._addresses:
            self._ask(
                f"the address {address}",
                "addr",
                "add",
                index=self._index,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
            )
        self._ask("the link up", "link", "set", index=self._index, state="up")

    def add_routes(self, prefixes: Iterable[Prefix]) -> None:
        """Route these allowed IPs to the interface, as far as `table` says so. GatewayFault at the first refusal."""
        for prefix in sorted(self._routed(prefixes), key=lambda each: -each.prefixlen):
            self._ask(
                f"the route {prefix} in table {self._table_number}",
                "route",
                "add",
                dst=str(prefix),
                oif=self._index,
                table=self._table_number,
                family=_family(prefix),
            )

    def change_routes(self, added: Iterable[Prefix], removed: Iterable[Prefix]) -> None:
        """Follow a change of allowed IPs at run time; what the kernel refuses is logged."""
        for verb, prefixes in (("del", removed), ("add", added)):
            for prefix in self._routed(prefixes):
                try:
                    self._netlink.route(
                        verb, dst=str(prefix), oif=self._index, table=self._table_number, family=_family(prefix)
                    )
                except (NetlinkError, OSError) as error:
                    if not (verb == "del" and _number(error) == errno.ESRCH):
                        _log.warning("route %s %s: %s", verb, prefix, _text(error))

    def status(self) -> LinkStatus | None:
        """The link as it is now; None if the interface is not in this network namespace."""
        try:
            found = self._netlink.get_links(self._index)
        except (NetlinkError, OSError):
            return None
        if not found:
            return None
        return LinkStatus(bool(found[0]["flags"] & _IFF_UP), int(found[0].get_attr("IFLA_MTU")))

    def delete(self) -> None:
        """Remove the interface, if it is still there, and its routes with it."""
        with contextlib.suppress(NetlinkError, OSError):
            self._netlink.link("del", index=self._index)

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    @property
    def _table_number(self) -> int:
        return self._table if isinstance(self._table, int) else _MAIN_TABLE

    def _routed(self, prefixes: Iterable[Prefix]) -> list[Prefix]:
        if self._table == "off":
            return []
        if self._table != "auto":
            return list(prefixes)
        return [each for each in prefixes if each.prefixlen and not self._is_connected(each)]

    def _is_connected(self, prefix: Prefix) -> bool:
        return any(net.version == prefix.version and _covers(net, prefix) for net in self._connected)

    def _ask(self, what: str, command: str, verb: str, **details: object) -> None:
        try:
            getattr(self._netlink, command)(verb, **details)
        except (NetlinkError, OSError) as error:
            text = f"the interface {self._name} cannot be given {what}: {_text(error)}"
            if _number(error) == errno.EEXIST and command == "route":
                text = f"{what} exists already; remove it, or set table: off or a number in the gateway file"
            raise GatewayFault(ExitCode.SYSTEM, text) from None


class LinkWatch:
    """Readable when any link of the network namespace has changed; call `drain`, then look at Links.status."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, _RTMGRP_LINK))

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


def _covers(net: Prefix, prefix: Prefix) -> bool:
    # Same version, checked by the caller; the types do not say so.
    return net.prefixlen <= prefix.prefixlen and prefix.network_address in net


def _family(prefix: Prefix) -> int:
    return socket.AF_INET if prefix.version == 4 else socket.AF_INET6


def _number(error: Exception) -> int | None:
    return error.code if isinstance(error, NetlinkError) else getattr(error, "errno", None)


def _text(error: Exception) -> str:
    return str(error.args[1]) if isinstance(error, NetlinkError) and len(error.args) > 1 else str(error)
