"""Prefixes that lie inside each other as stretches of addresses that do not. Pure.

    10.0.0.0/8 of a, 10.1.0.0/16 of b   ->   a: 10.0.0.0 - 10.0.255.255, b: 10.1.0.0 - 10.1.255.255, a: the rest

The kernel's interval maps refuse overlaps, where allowed IPs have the longest prefix win. Called by `ruleset`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .model import Prefix

__all__ = ["Stretch", "stretches"]

Stretch = tuple[str, str, str]
"""First and last address, and whose they are."""


def stretches(owned: Iterable[tuple[Prefix, str]], version: int) -> Iterator[Stretch]:
    """The stretches of one IP version, in order; neighbours of one owner are one stretch. Each prefix has one owner."""
    make = IPv4Address if version == 4 else IPv6Address
    spans = sorted(
        (int(prefix.network_address), -int(prefix.broadcast_address), owner)
        for prefix, owner in owned
        if prefix.version == version
    )
    pending: tuple[int, int, str] | None = None
    for first, last, owner in _flat([(first, -last, owner) for first, last, owner in spans]):
        if pending is not None and pending[1] + 1 == first and pending[2] == owner:
            pending = pending[0], last, owner
            continue
        if pending is not None:
            yield str(make(pending[0])), str(make(pending[1])), pending[2]
        pending = first, last, owner
    if pending is not None:
        yield str(make(pending[0])), str(make(pending[1])), pending[2]


def _flat(spans: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """Nested spans, outer before inner, cut into pieces of the innermost."""
    open_spans: list[tuple[int, str]] = []
    place = 0

    def close(until: int) -> Iterator[tuple[int, int, str]]:
        nonlocal place
        while open_spans and open_spans[-1][0] < until:
            last, owner = open_spans.pop()
            if place <= last:
                yield place, last, owner
                place = last + 1

    for first, last, owner in spans:
        yield from close(first)
        if open_spans and place < first:
            yield place, first - 1, open_spans[-1][1]
        place = first
        open_spans.append((last, owner))
    yield from close(1 << 129)
