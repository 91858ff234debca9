"""What lies between two settings of a gateway: the plan of a reload. Pure.

    plan(before, after) -> Plan: a Change for each setting that differs, what it takes, the kernel's routes
    Plan.applied(before) == after, but for the order of peers, addresses and prefixes, and for the files that peers
    stand in, which mean nothing

Called by `wghsm plan`, which shows it, and by the supervisor, which must know what a reload cannot do. Every field of
the model but `include` is in one of the tables below; a test holds them to it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any, Literal

from wghsm.config._model import Audit, Clients, Firewall, Gateway, Hooks, Interface, Peer, Policy, Token, Tunnel, Users
from wghsm.config._psk import PskWrapped
from wghsm.config._wrapped import WrappedPsk

__all__ = ["MAIN_TABLE", "Change", "Effect", "KernelRoute", "Plan", "default_table", "kernel_routes", "plan"]

Wrapped = Mapping[Path, list[WrappedPsk]]
KernelRoute = tuple[IPv4Network | IPv6Network, int]
"""A prefix that is routed to the interface, and the number of the routing table."""

MAIN_TABLE = 254
_DEFAULT_TABLE = 51820
# default, main and local.
_KERNEL_TABLES = range(253, 256)


class Effect(StrEnum):
    """What it takes to bring a change into force."""

    LIVE = "live"
    """Nothing else is touched."""
    CUSTODIAN = "custodian"
    """The custodian is started again; sessions go on, handshakes wait for it."""
    RESTART = "restart"
    """The whole gateway must be started again; a reload refuses it."""


LIVE = frozenset(
    {
        "interface.listen_port",
        "interface.addresses",
        "interface.mtu",
        "interface.table",
        "interface.fwmark",
        "psk",
        # Used when a gateway starts, and not before.
        "token.at_start",
    }
    # For the files of clients; nothing of the gateway changes.
    | {f"clients.{field}" for field in Clients.model_fields}
    | {f"firewall.{field}" for field in Firewall.model_fields}
    # Used at the next start, and at the end.
    | {f"hooks.{field}" for field in Hooks.model_fields}
    # For the inventory.
    | {f"policy.{field}" for field in Policy.model_fields}
    # The auditor is started again with them, which nobody else notices.
    | {f"audit.{field}" for field in Audit.model_fields} - {"audit.enabled", "audit.key", "audit.on_failure"}
)
CUSTODIAN = frozenset(
    {
        "interface.key",
        "interface.previous_key",
        "token.uri",
        "token.uris",
        "token.psk_root",
        "token.psk_wrap_key",
        "token.psk_overlap",
        "token.environment",
        "token.sessions",
        "token.cache_static_static",
        "audit.key",
        "audit.on_failure",
    }
)
RESTART = frozenset(
    {
        "version",
        "interface.name",
        "interface.authority",
        "state_directory",
        "log_level",
        "audit.enabled",
        "tunnel.workers",
    }
    | {f"users.{room}" for room in Users.model_fields}
)
PEER = frozenset(Peer.model_fields)
"""Fields of a peer, all of them live."""

_UNORDERED = frozenset({"addresses", "allowed_ips"})
_SECTIONS = {
    "token": Token,
    "interface": Interface,
    "audit": Audit,
    "clients": Clients,
    "firewall": Firewall,
    "hooks": Hooks,
    "policy": Policy,
    "tunnel": Tunnel,
    "users": Users,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that differs.

    `field`: its name in the file, with its section (`interface.mtu`); of a peer the name alone, empty for the whole
    peer, which has come (`before` None) or goes (`after` None). `peer`: the peer's public key, 32 bytes, empty for
    what is no peer's. `name`: the peer's, for people. `wrapped` is no field of a peer: its file has other epochs.
    """

    field: str
    before: Any
    after: Any
    peer: bytes = b""
    name: str = ""

    @property
    def effect(self) -> Effect:
        """What it takes."""
        if self.peer or self.field in LIVE:
            return Effect.LIVE
        return Effect.CUSTODIAN if self.field in CUSTODIAN else Effect.RESTART


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from one setting of a gateway to the next."""

    changes: tuple[Change, ...]
    routes_added: tuple[KernelRoute, ...]
    routes_removed: tuple[KernelRoute, ...]

    def needing(self, effect: Effect) -> tuple[Change, ...]:
        """The changes that take this."""
        return tuple(change for change in self.changes if change.effect is effect)

    def peers(self, kind: Literal["added", "removed", "changed"]) -> tuple[bytes, ...]:
        """The public keys of the peers that come, go or stay with other settings."""
        found = dict.fromkeys(
            change.peer
            for change in self.changes
            if change.peer and kind == ("changed" if change.field else "added" if change.before is None else "removed")
        )
        return tuple(found)

    def applied(self, gateway: Gateway) -> Gateway:
        """The gateway with every change made."""
        top: dict[str, Any] = {}
        sections: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
        peers = {peer.public_key: peer for peer in gateway.peers}
        for change in self.changes:
            section, dot, field = change.field.partition(".")
            if change.peer:
                _change_peer(peers, change)
            elif change.field == "token.uris":
                uris = change.after
                sections["token"] |= {"uri": uris[0], "uris": uris if len(uris) > 1 else ()}
            elif dot:
                sections[section][field] = change.after
            else:
                top[section] = change.after
        for name, fields in sections.items():
            top[name] = getattr(gateway, name).model_copy(update=fields)
        return gateway.model_copy(update={**top, "peers": tuple(peers.values())})


def plan(
    before: Gateway,
    after: Gateway,
    wrapped_before: Wrapped | None = None,
    wrapped_after: Wrapped | None = None,
    now: float | None = None,
) -> Plan:
    """What differs. `wrapped_...`: what stood in the files of wrapped PSKs, as far as it is known.

    `now`: Unix time; peers that have expired by then, and disabled ones, have no routes.
    """
    routes_before, routes_after = _routes(before, now), _routes(after, now)
    return Plan(
        (
            *_fields("interface.", before.interface, after.interface, frozenset()),
            *_token(before.token, after.token),
            *_fields("", before, after, frozenset({*_SECTIONS, "peers", "include"})),
            *_fields("clients.", before.clients, after.clients, frozenset()),
            *_fields("firewall.", before.firewall, after.firewall, frozenset()),
            *_fields("hooks.", before.hooks, after.hooks, frozenset()),
            *_fields("policy.", before.policy, after.policy, frozenset()),
            *_fields("audit.", before.audit, after.audit, frozenset()),
            *_fields("tunnel.", before.tunnel, after.tunnel, frozenset()),
            *_fields("users.", before.users, after.users, frozenset()),
            *_peers(before, after, wrapped_before or {}, wrapped_after or {}),
        ),
        tuple(sorted(routes_after - routes_before, key=_by_prefix)),
        tuple(sorted(routes_before - routes_after, key=_by_prefix)),
    )


def kernel_routes(
    prefixes: Iterable[IPv4Network | IPv6Network],
    addresses: Iterable[IPv4Interface | IPv6Interface],
    table: str | int,
    fwmark: int = 0,
) -> set[KernelRoute]:
    """The routes that allowed IPs need in the kernel, as `interface.table` and `interface.fwmark` say.

    With `auto` a default route is in a table of its own, and there is none for a prefix inside an address's network,
    which has its route already.
    """
    if table == "off":
        return set()
    if isinstance(table, int):
        return {(prefix, table) for prefix in prefixes}
    connected = [address.network for address in addresses]
    return {
        (prefix, MAIN_TABLE if prefix.prefixlen else default_table(fwmark))
        for prefix in prefixes
        if not any(_covers(network, prefix) for network in connected)
    }


def default_table(fwmark: int) -> int:
    """The table of default routes under `table: auto`: the number of `interface.fwmark`, as with wg-quick."""
    return fwmark if fwmark and fwmark not in _KERNEL_TABLES else _DEFAULT_TABLE


def _covers(network: IPv4Network | IPv6Network, prefix: IPv4Network | IPv6Network) -> bool:
    return (
        network.version == prefix.version
        and network.prefixlen <= prefix.prefixlen
        and prefix.network_address in network
    )


def _routes(gateway: Gateway, now: float | None) -> set[KernelRoute]:
    prefixes = [prefix for peer in gateway.peers if peer.active_at(now) for prefix in peer.allowed_ips]
    interface = gateway.interface
    return kernel_routes(prefixes, interface.addresses, interface.table, interface.fwmark)


def _by_prefix(route: KernelRoute) -> tuple[int, bytes, int, int]:
    prefix, table = route
    return prefix.version, prefix.network_address.packed, prefix.prefixlen, table


def _token(before: Token, after: Token) -> Iterator[Change]:
    # One URI is the same whether it stands under uri or uris.
    if before.in_order != after.in_order:
        yield Change("token.uris", before.in_order, after.in_order)
    yield from _fields("token.", before, after, frozenset({"uri", "uris"}))


def _fields(
    prefix: str, before: Any, after: Any, without: frozenset[str], peer: bytes = b"", name: str = ""
) -> Iterator[Change]:
    for field in type(before).model_fields:
        if field in without:
            continue
        was, will_be = getattr(before, field), getattr(after, field)
        if was == will_be or (field in _UNORDERED and set(was) == set(will_be)):
            continue
        yield Change(prefix + field, was, will_be, peer, name)


def _peers(before: Gateway, after: Gateway, wrapped_before: Wrapped, wrapped_after: Wrapped) -> Iterator[Change]:
    old = {peer.public_key: peer for peer in before.peers}
    new = {peer.public_key: peer for peer in after.peers}
    for key, peer in old.items():
        if key not in new:
            yield Change("", peer, None, key, peer.name)
    for key, peer in new.items():
        was = old.get(key)
        if was is None:
            yield Change("", None, peer, key, peer.name)
            continue
        yield from _fields("", was, peer, frozenset({"public_key"}), key, peer.name)
        psk = peer.preshared_key
        if isinstance(psk, PskWrapped) and psk == was.preshared_key:
            entries = wrapped_before.get(psk.file), wrapped_after.get(psk.file)
            if None not in entries and entries[0] != entries[1]:
                yield Change("wrapped", *entries, key, peer.name)


def _change_peer(peers: dict[bytes, Peer], change: Change) -> None:
    if change.field == "wrapped":
        return
    if change.field:
        peers[change.peer] = peers[change.peer].model_copy(update={change.field: change.after})
    elif change.after is None:
        del peers[change.peer]
    else:
        peers[change.peer] = change.after
