"""The table as commands of libnftables-json(5). Pure.

    input     from the tunnel to the gateway           -> the sender's chain
    forward   from the tunnel: the sender's chain; to the tunnel: the receiver's; tunnel to tunnel if isolated: drop
    output    from the gateway into the tunnel         -> the receiver's chain
    NAT       of peers' addresses leaving by an interface of `masquerade`; a peer with a default route has no address
    outer     packets as they come in get the mark, before any check of where they come from

Peers are found through maps of prefixes, so a packet costs the same with ten peers as with ten thousand. Each limited
peer has two chains, `from-KEY` and `to-KEY`, and one quota for both. Called by `table`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .stretches import stretches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wghsm.config import Allow

    from .model import PeerRules, Prefix, Rules

__all__ = ["Json", "commands", "removal", "table_name"]

Json = Mapping[str, object]

FAMILY = "inet"
_WAYS = (("from", "saddr"), ("to", "daddr"))
_VERSIONS = ((4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr"))
# By number: the names stand in a file that not every machine has.
_PROTOCOLS: dict[str, object] = {"tcp": 6, "udp": 17, "icmp": [1, 58]}
# Offloads make packets of 64 KiB: a smaller bucket would never let one through.
_LEAST_BURST = 256 * 1024


def table_name(interface: str) -> str:
    """The table of the gateway with this interface."""
    return "wghsm-" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", interface)


def removal(interface: str) -> list[Json]:
    """Take the table away; it need not be there."""
    table = {"family": FAMILY, "name": table_name(interface)}
    return [{"add": {"table": table}}, {"delete": {"table": table}}]


def commands(rules: Rules, used: Mapping[str, int]) -> list[Json]:
    """Replace the table as a whole. `used`: what peers have used of their quotas, bytes by PeerRules.key."""
    if rules.empty:
        return removal(rules.interface)
    name = table_name(rules.interface)
    limited = [peer for peer in rules.peers if peer.limited]
    # A peer without limits has none inside another's prefix either.
    owned = [(prefix, peer.key if peer.limited else "") for peer in rules.peers for prefix in peer.prefixes]
    made = _Maker(name)
    for peer in limited:
        if peer.quota:
            made.add("quota", name=peer.key, bytes=peer.quota, used=used.get(peer.key, 0), inv=True)
        for way, _ in _WAYS:
            made.add("chain", name=f"{way}-{peer.key}")
            for expressions in _limits(peer, way):
                made.rule(f"{way}-{peer.key}", *expressions)
    for way, _ in _WAYS:
        for version, _, kind in _VERSIONS:
            made.add("map", name=f"{way}{version}", type=kind, map="verdict", flags=["interval"])
            elements = [
                [_range(first, last), {"jump": {"target": f"{way}-{key}"}}]
                for first, last, key in stretches(owned, version)
                if key
            ]
            if elements:
                made.add("element", name=f"{way}{version}", elem=elements)
    tunnel = rules.interface
    for hook in ("input", "forward", "output"):
        made.add("chain", name=hook, type="filter", hook=hook, prio=0, policy="accept")
        if hook != "output":
            made.look_up(hook, "iifname", tunnel, "from")
        if hook == "forward" and rules.isolate_clients:
            made.rule(hook, _is("iifname", tunnel), _is("oifname", tunnel), {"counter": None}, {"drop": None})
        if hook != "input":
            made.look_up(hook, "oifname", tunnel, "to")
    if rules.masquerade:
        made.masquerade(rules)
    if rules.mark:
        made.mark(rules)
    return [*removal(tunnel), {"add": {"table": {"family": FAMILY, "name": name}}}, *made.made]


class _Maker:
    """Collects the commands of one table."""

    def __init__(self, table: str) -> None:
        self._table = table
        self.made: list[Json] = []

    def add(self, kind: str, **fields: object) -> None:
        self.made.append({"add": {kind: {"family": FAMILY, "table": self._table, **fields}}})

    def rule(self, chain: str, *expressions: Json) -> None:
        self.add("rule", chain=chain, expr=list(expressions))

    def look_up(self, chain: str, side: str, tunnel: str, way: str) -> None:
        """Send what crosses the tunnel to the chain of its peer."""
        field = dict(_WAYS)[way]
        for version, protocol, _ in _VERSIONS:
            key = {"payload": {"protocol": protocol, "field": field}}
            self.rule(chain, _is(side, tunnel), {"vmap": {"key": key, "data": f"@{way}{version}"}})

    def mark(self, rules: Rules) -> None:
        """Give outer packets that come in the mark of those that leave; what is forwarded is not for this machine.

        The chain is not called after the mark: in nft's own language that is a word, which its lists could not be
        loaded with again.
        """
        self.add("chain", name="outer", type="filter", hook="prerouting", prio=-150, policy="accept")
        own = {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}
        port = {"payload": {"protocol": "udp", "field": "dport"}}
        given = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": rules.mark}}
        for each in rules.ports:
            self.rule("outer", {"match": {"op": "==", "left": port, "right": each}}, own, given)

    def masquerade(self, rules: Rules) -> None:
        """Give what comes from inside the address of the interface that it leaves by."""
        self.add("chain", name="postrouting", type="nat", hook="postrouting", prio=100, policy="accept")
        leaves = _is("oifname", rules.interface, "!=")
        if "*" not in rules.masquerade:
            leaves = _is("oifname", {"set": sorted(rules.masquerade)})
        for version, protocol, kind in _VERSIONS:
            own = [(prefix, "") for peer in rules.peers for prefix in peer.prefixes if prefix.prefixlen]
            inside = [_range(first, last) for first, last, _ in stretches(own, version)]
            if inside:
                self.add("set", name=f"inside{version}", type=kind, flags=["interval"], elem=inside)
                left = {"payload": {"protocol": protocol, "field": "saddr"}}
                match = {"match": {"op": "==", "left": left, "right": f"@inside{version}"}}
                self.rule("postrouting", match, leaves, {"masquerade": None})


def _limits(peer: PeerRules, way: str) -> Iterator[list[Json]]:
    """The rules of one of a peer's chains, in order: quota, rate, where it may go."""
    stop: list[Json] = [{"counter": None}, {"drop": None}]
    if peer.quota:
        yield [{"quota": peer.key}, *stop]
    if peer.rate:
        burst = max(peer.rate // 4, _LEAST_BURST)
        limit = {"rate": peer.rate, "rate_unit": "bytes", "per": "second", "inv": True}
        yield [{"limit": {**limit, "burst": burst, "burst_unit": "bytes"}}, *stop]
    if peer.allow is None or way == "to":
        return
    state = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
    yield [state, {"return": None}]
    for allowed in peer.allow:
        yield [*_matches(allowed), {"return": None}]
    yield stop


def _matches(allowed: Allow) -> Iterable[Json]:
    if allowed.prefix is not None:
        field = {"protocol": "ip" if allowed.prefix.version == 4 else "ip6", "field": "daddr"}
        yield {"match": {"op": "==", "left": {"payload": field}, "right": _prefix(allowed.prefix)}}
    if allowed.protocol == "icmp":
        yield _is("l4proto", {"set": _PROTOCOLS["icmp"]})
    elif allowed.protocol:
        yield _is("l4proto", _PROTOCOLS[allowed.protocol])
    if allowed.ports is not None:
        field = {"protocol": allowed.protocol, "field": "dport"}
        yield {"match": {"op": "==", "left": {"payload": field}, "right": {"range": list(allowed.ports)}}}


def _is(key: str, value: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


def _range(first: str, last: str) -> object:
    return first if first == last else {"range": [first, last]}


def _prefix(prefix: Prefix) -> Json:
    return {"prefix": {"addr": str(prefix.network_address), "len": prefix.prefixlen}}
