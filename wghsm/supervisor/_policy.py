"""Default routes of peers under `table: auto`, the way wg-quick makes them: all packets but the gateway's own.

    ways(interface, model) -> for each family with a default route: the table it is in, the mark of the outer packets
    PolicyRules            two rules for each of them:
        not fwmark MARK lookup main suppress_prefixlength 0     what main knows better than by its default route
        not fwmark MARK lookup TABLE                            everything else into the tunnel

Outer packets have the mark, pass both rules by, and leave as if there were no tunnel. The rules have a protocol number
of wghsm's own; one whose table holds no route does nothing, and is taken away at the next start. While the mark
changes, a rule before them sends packets with the new one to the main table, or they would go into the tunnel by the
old rules. Called by `_links` and `_state`.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.exceptions import NetlinkError

from wghsm.config import MAIN_TABLE, default_table
from wghsm.exits import ExitCode

from ._fault import GatewayFault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wghsm.config import Interface

    from .model import Model

__all__ = ["PolicyRules", "Way", "outer_mark", "ways"]

_log = logging.getLogger(__name__)

PROTOCOL = 87
"""Who made a rule; shown by `ip rule` as `proto 87`."""
_PASSING = 88
"""The same of a rule for a mark that is to come."""
_INVERT = 2
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_VALID_MARK = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """Packets of a family (4 or 6) without `mark` are looked up in `table`."""

    family: int
    table: int
    mark: int


def ways(interface: Interface, model: Model) -> frozenset[Way]:
    """The ways that the peers' default routes need. Pure."""
    if interface.table != "auto":
        return frozenset()
    table = default_table(interface.fwmark)
    families = {prefix.version for prefix in model.owners if not prefix.prefixlen}
    return frozenset(Way(family, table, model.fwmark or table) for family in families)


def outer_mark(interface: Interface, model: Model) -> int:
    """The mark of the outer packets: the one that is set, or the one that the ways need. Pure."""
    return model.fwmark or next((way.mark for way in ways(interface, model)), 0)


class PolicyRules:
    """The rules of one gateway. `netlink`: an IPRoute."""

    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink
        self._ways: frozenset[Way] = frozenset()
        self._passing: list[tuple[int, int]] = []

    def clear_stale(self) -> None:
        """Take away what a gateway has left that could not end in good order; errors do not matter."""
        for family in _FAMILIES.values():
            try:
                ours = self._ours(family)
                tables = {table for _, table, _ in ours} - {MAIN_TABLE}
                live = {table for table in tables if any(self._netlink.get_routes(family=family, table=table))}
                marks = {mark for mark, table, _ in ours if table in live}
                for mark, _, priority in ours + self._ours(family, _PASSING):
                    if mark not in marks:
                        self._netlink.rule("del", family=family, priority=priority)
            except (NetlinkError, OSError) as error:
                _log.debug("old routing rules: %s", error)

    def add(self, wanted: Iterable[Way]) -> None:
        """Add the rules of these ways beside those there are. GatewayFault if one was refused."""
        for way in sorted(wanted):
            try:
                self._put(way)
            except (NetlinkError, OSError) as error:
                self._drop(way)
                text = f"the routing rules for a default route are refused by the kernel: {error}"
                raise GatewayFault(ExitCode.SYSTEM, text) from None
            self._ways |= {way}
            if way.family == 4:
                _believe_marks()

    def follow(self, wanted: Iterable[Way]) -> None:
        """Have the rules of these ways and no others; what the kernel refuses is logged."""
        wanted = frozenset(wanted)
        try:
            self.add(wanted)
        except GatewayFault as fault:
            _log.error("%s", fault)
        for way in self._ways - wanted:
            self._drop(way)
        self._ways &= wanted

    def pass_by(self, mark: int) -> None:
        """Let packets with this mark past the rules there are, until `end_passing`; what is refused is logged."""
        for family in sorted({_FAMILIES[way.family] for way in self._ways if way.mark != mark}):
            try:
                priority = self._free(family)
                self._netlink.rule(
                    "add", family=family, priority=priority, table=MAIN_TABLE, fwmark=mark, protocol=_PASSING
                )
            except (NetlinkError, OSError) as error:
                _log.warning("packets may be lost while the mark changes: %s", error)
            else:
                self._passing.append((family, priority))

    def end_passing(self) -> None:
        """The mark is the one that the rules know."""
        while self._passing:
            family, priority = self._passing.pop()
            try:
                self._netlink.rule("del", family=family, priority=priority, protocol=_PASSING)
            except (NetlinkError, OSError) as error:
                _log.warning("the routing rule %d stays: %s", priority, error)

    def restore(self) -> None:
        """Add what another hand has taken away meanwhile; what the kernel refuses is logged."""
        self.follow(self._ways)

    def _put(self, way: Way) -> None:
        family = _FAMILIES[way.family]
        there = {table for mark, table, _ in self._ours(family) if mark == way.mark}
        if {MAIN_TABLE, way.table} <= there:
            return
        # Both or none, one right before the other, and before whatever leads to the main table.
        self._drop(way)
        last = self._free(family)
        same = {"family": family, "fwmark": way.mark, "flags": _INVERT, "protocol": PROTOCOL}
        self._netlink.rule("add", priority=last - 1, table=MAIN_TABLE, FRA_SUPPRESS_PREFIXLEN=0, **same)
        self._netlink.rule("add", priority=last, table=way.table, **same)

    def _drop(self, way: Way) -> None:
        family = _FAMILIES[way.family]
        try:
            for mark, table, priority in reversed(self._ours(family)):
                if mark == way.mark and table in (way.table, MAIN_TABLE):
                    self._netlink.rule("del", family=family, priority=priority)
        except (NetlinkError, OSError) as error:
            _log.warning("a routing rule with the mark %#x stays: %s", way.mark, error)

    def _free(self, family: int) -> int:
        """The last priority before all rules but the first ones of the kernel."""
        used = [rule.get_attr("FRA_PRIORITY") or 0 for rule in self._netlink.get_rules(family=family)]
        return min((each for each in used if each > 2), default=MAIN_TABLE) - 1

    def _ours(self, family: int, protocol: int = PROTOCOL) -> list[tuple[int, int, int]]:
        """Mark, table and priority of each rule that a gateway has made, in the kernel's order."""
        found = [rule for rule in self._netlink.get_rules(family=family) if rule.get_attr("FRA_PROTOCOL") == protocol]
        names = ("FRA_FWMARK", "FRA_TABLE", "FRA_PRIORITY")
        return [(mark, table, priority) for mark, table, priority in ([r.get_attr(n) for n in names] for r in found)]


def _believe_marks() -> None:
    """Let the kernel's check of source addresses look at marks; some containers do not let anybody."""
    try:
        if _VALID_MARK.read_text().strip() != "1":
            _VALID_MARK.write_text("1")
    except OSError as error:
        _log.warning("net.ipv4.conf.all.src_valid_mark cannot be set to 1: %s", error.strerror)
