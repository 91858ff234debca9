"""Allowed IPs: which peer owns an address, by longest prefix; and changes prepared before they come into force.

    insert, remove  ->  AllowedIPs  <-  lookup: egress asks by destination, ingress by source
    Routes parts    ->  RouteChanges.prepare ... commit  ->  AllowedIPs

One table for each prefix length in use, tried from the longest: a lookup costs a dictionary access for each length.
Source: PROTOCOL.md section 12; SEAMS.md "Endpoints, allowed IPs, staging".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wghsm.ipc.messages import Route

__all__ = ["AllowedIPs", "RouteChanges"]


class _Family:
    """The prefixes of one family; addresses as numbers of `bits` bits."""

    __slots__ = ("bits", "by_length", "search")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.by_length: dict[int, dict[int, int]] = {}
        self.search: list[tuple[int, dict[int, int]]] = []

    def table(self, length: int) -> dict[int, int]:
        """The table of one prefix length, made if needed."""
        table = self.by_length.get(length)
        if table is None:
            table = self.by_length[length] = {}
            self._order()
        return table

    def drop_if_empty(self, length: int) -> None:
        """Search no table that holds nothing."""
        if not self.by_length[length]:
            del self.by_length[length]
            self._order()

    def mask(self, length: int) -> int:
        """The mask of a prefix length as a number."""
        return ((1 << length) - 1) << (self.bits - length)

    def _order(self) -> None:
        self.search = [(self.mask(length), self.by_length[length]) for length in sorted(self.by_length, reverse=True)]


class AllowedIPs:
    """Prefixes of both families, each with the one peer that owns it. Addresses are packed, 4 or 16 bytes."""

    def __init__(self) -> None:
        self._families = {4: _Family(32), 16: _Family(128)}
        self._by_peer: dict[int, dict[tuple[bytes, int], None]] = {}
        # Packets come in runs: what the last lookup has found.
        self._last: bytes | None = None
        self._last_peer: int | None = None

    def insert(self, address: bytes, length: int, peer: int) -> None:
        """Give a prefix of `length` bits to `peer`, also if another owned it. Bits beyond the prefix are ignored.

        ValueError for an address that is not 4 or 16 bytes, or a length beyond its bits.
        """
        family, network = self._prefix(address, length)
        self._last = None
        table = family.table(length)
        key = (network.to_bytes(family.bits // 8, "big"), length)
        owner = table.get(network)
        if owner is not None and owner != peer:
            self._disown(owner, key)
        table[network] = peer
        self._by_peer.setdefault(peer, {})[key] = None

    def remove(self, address: bytes, length: int, peer: int | None = None) -> bool:
        """Remove exactly this prefix: if `peer` owns it, or whoever owns it (None). False if nothing was removed."""
        family, network = self._prefix(address, length)
        table = family.by_length.get(length, {})
        owner = table.get(network)
        if owner is None or (peer is not None and owner != peer):
            return False
        self._last = None
        del table[network]
        family.drop_if_empty(length)
        self._disown(owner, (network.to_bytes(family.bits // 8, "big"), length))
        return True

    def remove_peer(self, peer: int) -> None:
        """Remove all prefixes of a peer."""
        for address, length in self.of(peer):
            self.remove(address, length)

    def lookup(self, address: bytes) -> int | None:
        """The peer that owns a packed address, or None. ValueError if it is not 4 or 16 bytes."""
        if address == self._last:
            return self._last_peer
        family = self._families.get(len(address))
        if family is None:
            raise ValueError("an address has 4 or 16 bytes")
        number = int.from_bytes(address, "big")
        found = None
        for mask, table in family.search:
            found = table.get(number & mask)
            if found is not None:
                break
        self._last, self._last_peer = address, found
        return found

    def of(self, peer: int) -> list[tuple[bytes, int]]:
        """The prefixes of a peer in the order they came: packed network and length in bits."""
        return list(self._by_peer.get(peer, ()))

    def _prefix(self, address: bytes, length: int) -> tuple[_Family, int]:
        family = self._families.get(len(address))
        if family is None or not 0 <= length <= family.bits:
            raise ValueError(f"no prefix: {len(address)} bytes, length {length}")
        return family, int.from_bytes(address, "big") & family.mask(length)

    def _disown(self, peer: int, key: tuple[bytes, int]) -> None:
        prefixes = self._by_peer[peer]
        del prefixes[key]
        if not prefixes:
            del self._by_peer[peer]


class RouteChanges:
    """Numbered changes of the allowed IPs: prepared in parts, then committed whole."""

    def __init__(self, routes: AllowedIPs) -> None:
        self._routes = routes
        self._change: int | None = None
        self._pending: list[Route] = []

    def prepare(self, change: int, routes: Iterable[Route]) -> None:
        """Add a part to `change`. Another number drops what was prepared before. ValueError for a bad prefix."""
        routes = list(routes)
        for route in routes:
            bits = 8 * len(route.address)
            if bits not in (32, 128) or not 0 <= route.length <= bits:
                raise ValueError(f"no prefix: {len(route.address)} bytes, length {route.length}")
        if change != self._change:
            self._change, self._pending = change, []
        self._pending += routes

    def commit(self, change: int) -> None:
        """Put `change` in force, in its order; a change of which no part came has nothing to do.

        ValueError if another one is prepared.
        """
        if self._change is not None and change != self._change:
            raise ValueError(f"change {change} of the allowed IPs was not prepared, {self._change} was")
        for route in self._pending:
            if route.peer is None:
                self._routes.remove(route.address, route.length)
            else:
                self._routes.insert(route.address, route.length, route.peer)
        self._change, self._pending = None, []
