"""Free addresses for a new client, from the networks of the gateway's interface. Pure.

    interface.addresses -> their networks, in order -> the lowest address of each family that nobody has

Taken is what the gateway has itself, and what lies in a peer's allowed IPs; a prefix that holds the whole network, such
as a default route, takes nothing of it.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

__all__ = ["free_addresses", "own_addresses"]

_Interface = IPv4Interface | IPv6Interface
_Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address


def free_addresses(interfaces: Sequence[_Interface], taken: Iterable[_Network]) -> list[_Address]:
    """One free address of each IP version that `interfaces` have a network with room for."""
    taken = list(taken)
    found: dict[int, _Address] = {}
    for interface in interfaces:
        if interface.version in found:
            continue
        free = _lowest_free(interface.network, [each.ip for each in interfaces], taken)
        if free is not None:
            found[interface.version] = free
    return list(found.values())


def own_addresses(interfaces: Iterable[_Interface], allowed: Iterable[_Network]) -> list[_Network]:
    """The allowed IPs of a peer that are addresses of its own: single ones, within the gateway's networks."""
    networks = [each.network for each in interfaces]
    return [
        prefix
        for prefix in allowed
        if prefix.prefixlen == prefix.max_prefixlen
        and any(net.version == prefix.version and prefix.network_address in net for net in networks)
    ]


def _lowest_free(network: _Network, own: Iterable[_Address], taken: Iterable[_Network]) -> _Address | None:
    first, last = int(network.network_address), int(network.broadcast_address)
    # The network's own address, which routers answer to in IPv6 as well, and IPv4's broadcast address.
    if network.prefixlen < network.max_prefixlen - 1:
        first += 1
        last -= network.version == 4
    spans = [(int(address), int(address)) for address in own if address.version == network.version]
    spans += [
        (int(prefix.network_address), int(prefix.broadcast_address))
        for prefix in taken
        if prefix.version == network.version and not _covers(prefix, network)
    ]
    for low, high in sorted(spans):
        if low > first:
            break
        first = max(first, high + 1)
    if first > last:
        return None
    return IPv4Address(first) if network.version == 4 else IPv6Address(first)


def _covers(prefix: _Network, network: _Network) -> bool:
    return prefix.prefixlen <= network.prefixlen and network.network_address in prefix
