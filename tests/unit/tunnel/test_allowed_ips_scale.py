"""A hundred thousand prefixes: moves, removals and replacement, against a table made in another way."""

import random
from bisect import bisect_right

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from wghsm.ipc.messages import Route
from wghsm.tunnel.allowed_ips import AllowedIPs, RouteChanges

PREFIXES, PEERS, ASKED = 100_000, 1_000, 2_000


class Pieces:
    """The address space cut where its owner changes, from a sweep over the prefixes: another way to the same answer."""

    def __init__(self, owners: dict[tuple[bytes, int], int], bits: int) -> None:
        self.starts: list[int] = [0]
        self.peers: list[int | None] = [None]
        around: list[tuple[int, int]] = []
        ranges = [
            (int.from_bytes(address, "big"), length, peer)
            for (address, length), peer in sorted(owners.items(), key=lambda item: (item[0][0], item[0][1]))
        ]
        for start, length, peer in ranges:
            self._close(around, start)
            self._cut(start, peer)
            around.append((start + (1 << bits - length), peer))
        self._close(around, 1 << bits)

    def _close(self, around: list[tuple[int, int]], until: int) -> None:
        """Leave the prefixes that end before `until`, each for the one around it."""
        while around and around[-1][0] <= until:
            end, _ = around.pop()
            self._cut(end, around[-1][1] if around else None)

    def _cut(self, start: int, peer: int | None) -> None:
        if self.starts[-1] == start:
            self.peers[-1] = peer
        else:
            self.starts.append(start)
            self.peers.append(peer)

    def lookup(self, address: bytes) -> int | None:
        return self.peers[bisect_right(self.starts, int.from_bytes(address, "big")) - 1]


class World:
    """The table, and who should own each prefix."""

    def __init__(self, family_bytes: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.size = family_bytes
        self.table = AllowedIPs()
        self.owners: dict[tuple[bytes, int], int] = {}

    def address(self) -> bytes:
        """One of a part of the space, so that prefixes lie in each other."""
        return bytes([10, self.random.randrange(64)]) + self.random.randbytes(self.size - 2)

    def prefix(self) -> tuple[bytes, int]:
        length = self.random.choice(range(8, 8 * self.size + 1))
        number = int.from_bytes(self.address(), "big")
        cut = 8 * self.size - length
        return (number >> cut << cut).to_bytes(self.size, "big"), length

    def fresh(self, count: int) -> list[tuple[bytes, int]]:
        found: set[tuple[bytes, int]] = set()
        while len(found) < count:
            found.add(self.prefix())
        return sorted(found)

    def give(self, prefixes: list[tuple[bytes, int]]) -> list[Route]:
        routes = []
        for address, length in prefixes:
            peer = self.random.randrange(PEERS)
            self.owners[address, length] = peer
            routes.append(Route(address, length, peer))
        return routes

    def check(self) -> None:
        known, pieces = list(self.owners), Pieces(self.owners, 8 * self.size)
        for _ in range(ASKED):
            address = self.address()
            assert self.table.lookup(address) == pieces.lookup(address)
            inside, length = self.random.choice(known)
            low = self.random.getrandbits(8 * self.size - length)
            near = (int.from_bytes(inside, "big") | low).to_bytes(self.size, "big")
            assert self.table.lookup(near) == pieces.lookup(near)
        for peer in self.random.sample(range(PEERS), 20):
            assert set(self.table.of(peer)) == {prefix for prefix, owner in self.owners.items() if owner == peer}


@pytest.mark.parametrize("size", [4, 16])
@settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_agrees_with_pieces_of_the_address_space(size: int, seed: int) -> None:
    world = World(size, seed)
    changes = RouteChanges(world.table)

    def commit(number: int, routes: list[Route]) -> None:
        for start in range(0, len(routes), 2000):
            changes.prepare(number, routes[start : start + 2000])
        changes.commit(number)

    commit(1, world.give(world.fresh(PREFIXES)))
    world.check()
    # A fifth of them moves to other peers, and a fifth goes.
    chosen = world.random.sample(sorted(world.owners), 2 * PREFIXES // 5)
    commit(2, world.give(chosen[: PREFIXES // 5]))
    world.check()
    for prefix in chosen[PREFIXES // 5 :]:
        stranger = (world.owners[prefix] + 1) % PEERS
        assert not world.table.remove(*prefix, stranger)
        assert world.table.remove(*prefix, world.owners[prefix])
        del world.owners[prefix]
    world.check()
    # Some peers lose all, and get others in one change.
    for peer in world.random.sample(range(PEERS), 50):
        world.table.remove_peer(peer)
        for prefix in [prefix for prefix, owner in world.owners.items() if owner == peer]:
            del world.owners[prefix]
    commit(3, world.give(world.fresh(PREFIXES // 10)))
    world.check()
    for prefix in list(world.owners):
        assert world.table.remove(*prefix)
    assert all(world.table.of(peer) == [] for peer in range(PEERS))
    assert world.table.lookup(world.address()) is None
