"""Stretches hold what longest-prefix lookup says, for every address, and never overlap."""

import itertools
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from wghsm.firewall.stretches import stretches

Prefix = IPv4Network | IPv6Network
# Few addresses, so that prefixes lie inside each other.
PREFIXES = st.builds(
    lambda host, length: IPv4Network((host << (32 - length) & 0xFFFFFFFF, length)),
    st.integers(0, 255),
    st.integers(0, 32),
) | st.builds(
    lambda host, length: IPv4Network((host >> (32 - length) << (32 - length), length)),
    st.integers(0, 255),
    st.integers(24, 32),
)
TABLES = st.dictionaries(PREFIXES, st.sampled_from("abc"), max_size=8)


def longest(table: dict[IPv4Network, str], address: IPv4Address) -> str:
    fitting = [prefix for prefix in table if address in prefix]
    return table[max(fitting, key=lambda prefix: prefix.prefixlen)] if fitting else ""


@given(TABLES)
def test_as_the_longest_prefix_says(table: dict[IPv4Network, str]) -> None:
    found = [(int(IPv4Address(a)), int(IPv4Address(b)), owner) for a, b, owner in stretches(table.items(), 4)]
    edges = {edge for prefix in table for edge in (int(prefix[0]), int(prefix[-1]))}
    for place in {near for edge in edges | {0, 2**32 - 1} for near in (edge - 1, edge, edge + 1) if 0 <= near < 2**32}:
        owners = [owner for first, last, owner in found if first <= place <= last]
        assert owners == ([longest(table, IPv4Address(place))] if longest(table, IPv4Address(place)) else [])
    for (_, last, owner), (first, _, following) in itertools.pairwise(found):
        assert last < first
        assert last + 1 < first or owner != following


def test_families_are_apart() -> None:
    table: list[tuple[Prefix, str]] = [(ip_network("::/0"), "a"), (ip_network("10.0.0.0/31"), "b")]
    assert list(stretches(table, 4)) == [("10.0.0.0", "10.0.0.1", "b")]
    assert list(stretches(table, 6)) == [("::", str(ip_address(2**128 - 1)), "a")]
