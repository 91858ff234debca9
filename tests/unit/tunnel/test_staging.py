"""Packets that wait: the oldest go first, of one peer and together."""

from tests.unit.tunnel.support import key
from wghsm.tunnel.staging import Staging


def _take_all(staging: Staging, peer: int) -> list[bytes]:
    taken = []
    while (packet := staging.take(peer)) is not None:
        taken.append(packet)
    return taken


def test_order_and_emptiness() -> None:
    staging = Staging()
    for number in range(5):
        assert staging.add(1, key(number)) == 0
    assert 1 in staging
    assert 2 not in staging
    assert _take_all(staging, 1) == [key(number) for number in range(5)]
    assert 1 not in staging
    assert len(staging) == 0


def test_the_129th_packet_drops_the_oldest() -> None:
    staging = Staging()
    dropped = [staging.add(1, key(number)) for number in range(130)]
    assert dropped == [0] * 128 + [1, 1]
    assert _take_all(staging, 1) == [key(number) for number in range(2, 130)]


def test_all_together() -> None:
    staging = Staging(each=4, together=6)
    assert [staging.add(1, key(number)) for number in range(4)] == [0] * 4
    assert [staging.add(2, key(number)) for number in range(3)] == [0, 0, 1]
    assert staging.add(3, key(9)) == 1
    assert 3 not in staging
    assert len(staging) == 6
    assert _take_all(staging, 2) == [key(1), key(2)]
    assert staging.add(3, key(9)) == 0


def test_purge() -> None:
    staging = Staging(each=4, together=4)
    for number in range(3):
        staging.add(1, key(number))
    assert staging.purge(1) == 3
    assert staging.purge(1) == 0
    assert [staging.add(2, key(number)) for number in range(4)] == [0] * 4
    assert list(staging.peers) == [2]
