"""Longest prefix, moves, removals, numbered changes: against the vectors and against the ipaddress module."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.support import packed, vectors
from wghsm.ipc.messages import Route
from wghsm.tunnel.allowed_ips import AllowedIPs, RouteChanges

_SCRIPT = vectors("allowedips.json")
_NOBODY = 999


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_vectors(family: str) -> None:
    table = AllowedIPs()
    for step in _SCRIPT[family]:
        _play(table, step)


def _play(table: AllowedIPs, step: dict[str, Any]) -> None:
    peer = _NOBODY if step["peer"] is None else ord(step["peer"])
    match step["op"]:
        case "insert":
            table.insert(packed(step["addr"]), step["cidr"], peer)
        case "remove":
            table.remove(packed(step["addr"]), step["cidr"], peer)
        case "remove_by_peer":
            table.remove_peer(peer)
        case "lookup_is":
            assert table.lookup(packed(step["addr"])) == peer, step
        case "lookup_is_not":
            assert table.lookup(packed(step["addr"])) != peer, step
        case other:
            raise AssertionError(other)


_ADDRESSES = st.one_of(
    st.integers(0, 255).map(lambda low: (10 << 24 | low).to_bytes(4, "big")),
    st.integers(0, 255).map(lambda low: (0xFD << 120 | low).to_bytes(16, "big")),
)


@st.composite
def _prefixes(draw: st.DrawFn) -> tuple[bytes, int]:
    address = draw(_ADDRESSES)
    bits = 8 * len(address)
    return address, draw(st.sampled_from([0, 1, bits - 8, bits - 4, bits - 3, bits - 1, bits]))


_PEERS = st.integers(0, 3)
_OPERATIONS = st.one_of(
    st.tuples(st.just("insert"), _prefixes(), _PEERS),
    st.tuples(st.just("remove"), _prefixes(), st.one_of(_PEERS, st.none())),
    st.tuples(st.just("remove_peer"), st.none(), _PEERS),
)


def _network(prefix: tuple[bytes, int]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((prefix[0], prefix[1]), strict=False)


@given(st.lists(_OPERATIONS, max_size=40), st.lists(_ADDRESSES, min_size=1, max_size=20))
def test_agrees_with_ipaddress(operations: list[tuple[str, Any, Any]], asked: list[bytes]) -> None:
    table = AllowedIPs()
    model: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, int] = {}
    for name, prefix, peer in operations:
        if name == "insert":
            table.insert(prefix[0], prefix[1], peer)
            model[_network(prefix)] = peer
        elif name == "remove":
            there = model.get(_network(prefix))
            removed = table.remove(prefix[0], prefix[1], peer)
            assert removed == (there is not None and peer in (None, there))
            if removed:
                del model[_network(prefix)]
        else:
            table.remove_peer(peer)
            model = {network: owner for network, owner in model.items() if owner != peer}
    for address in asked:
        where = ipaddress.ip_address(address)
        fitting = [network for network in model if where in network]
        expected = model[max(fitting, key=lambda network: network.prefixlen)] if fitting else None
        assert table.lookup(address) == expected
    for peer in range(4):
        listed = {_network(prefix) for prefix in table.of(peer)}
        assert listed == {network for network, owner in model.items() if owner == peer}


def test_listing_keeps_the_order_of_insertion_and_masks_host_bits() -> None:
    table = AllowedIPs()
    table.insert(packed("10.2.3.4"), 16, 1)
    table.insert(packed("fd00::1"), 64, 1)
    table.insert(packed("10.1.0.0"), 16, 1)
    assert table.of(1) == [(packed("10.2.0.0"), 16), (packed("fd00::"), 64), (packed("10.1.0.0"), 16)]
    table.insert(packed("10.2.0.0"), 16, 2)
    assert table.of(1) == [(packed("fd00::"), 64), (packed("10.1.0.0"), 16)]
    assert table.of(2) == [(packed("10.2.0.0"), 16)]


def test_families_are_apart() -> None:
    table = AllowedIPs()
    table.insert(bytes(4), 0, 1)
    assert table.lookup(packed("192.0.2.1")) == 1
    assert table.lookup(packed("2001:db8::1")) is None


@pytest.mark.parametrize(("address", "length"), [(b"", 0), (bytes(4), 33), (bytes(16), 129), (bytes(4), -1)])
def test_no_prefix(address: bytes, length: int) -> None:
    with pytest.raises(ValueError, match="no prefix"):
        AllowedIPs().insert(address, length, 1)
    with pytest.raises(ValueError, match="no prefix"):
        RouteChanges(AllowedIPs()).prepare(1, [Route(address, length, 1)])


def test_a_change_is_in_force_only_when_committed() -> None:
    table = AllowedIPs()
    table.insert(packed("10.0.0.0"), 8, 1)
    changes = RouteChanges(table)
    changes.prepare(5, [Route(packed("10.0.0.0"), 8, 2)])
    changes.prepare(5, [Route(packed("10.1.0.0"), 16, 1), Route(packed("10.1.0.0"), 16, None)])
    assert table.lookup(packed("10.0.0.1")) == 1
    changes.commit(5)
    assert table.lookup(packed("10.0.0.1")) == 2
    assert table.lookup(packed("10.1.0.1")) == 2


def test_a_newer_change_replaces_one_that_was_never_committed() -> None:
    table = AllowedIPs()
    changes = RouteChanges(table)
    changes.prepare(5, [Route(bytes(4), 0, 1)])
    changes.prepare(6, [Route(packed("10.0.0.0"), 8, 2)])
    with pytest.raises(ValueError, match="change 5"):
        changes.commit(5)
    changes.commit(6)
    assert table.lookup(packed("10.0.0.1")) == 2
    assert table.lookup(packed("192.0.2.1")) is None


def test_an_empty_change_has_nothing_to_do() -> None:
    RouteChanges(AllowedIPs()).commit(1)
