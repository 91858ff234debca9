"""Whole gateways on a simulated network while the key of one is rotated: peers move one by one, then it is retired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wghsm.ipc import Role

from .sim import CHILDREN, Gateway, Traffic, star, two_gateways
from .trouble import BAD, LOSSLESS, RECOVERY, SEEDS, examples
from .world import MILLISECOND, SECOND, Conditions

if TYPE_CHECKING:
    from .world import World

SPOKES = 3


def _both_ways(hub: Gateway, spokes: list[Gateway], interval: int = 500 * MILLISECOND) -> list[Traffic]:
    """Traffic between the hub and each spoke: first that to the hub, then that from it."""
    return [each.start() for each in _prepared(hub, spokes, interval)]


def _prepared(hub: Gateway, spokes: list[Gateway], interval: int = 500 * MILLISECOND) -> list[Traffic]:
    traffic = []
    for slot, spoke in enumerate(spokes):
        traffic.append(Traffic(spoke, hub, interval, first=slot * 10**6))
        traffic.append(Traffic(hub, spoke, interval * 13 // 10, slot=slot))
    return traffic


def _spokes_first(world: World, hub: Gateway, spokes: list[Gateway]) -> list[Traffic]:
    """The same, flowing; the hub begins to send when every spoke has a session, so that no initiations cross.

    Who counts packets needs that, whether a key is rotated or not: see
    `test_initiations_that_cross_cost_what_is_under_way_at_the_next_handshake`.
    """
    traffic = _prepared(hub, spokes)
    for direction in (traffic[::2], traffic[1::2]):
        _settle(world, [each.start() for each in direction])
    return traffic


def _settle(world: World, traffic: list[Traffic], longest: int = RECOVERY) -> None:
    """All packets flow again, soon."""
    marks = [len(each.sent) for each in traffic]
    world.run_until(lambda: all(each.flows(mark) for each, mark in zip(traffic, marks, strict=True)), longest)


def _silent(world: World, traffic: list[Traffic], duration: int) -> bool:
    """Whether none of the packets of the next `duration` comes."""
    marks = [len(each.sent) for each in traffic]
    world.run(duration)
    return not any(each.flows(mark) for each, mark in zip(traffic, marks, strict=True))


def _end(world: World, traffic: list[Traffic]) -> None:
    for each in traffic:
        each.stop()
    world.run(5 * SECOND)


def _identities(hub: Gateway) -> list[bytes | None]:
    """What each spoke last confirmed."""
    return [hub.confirmed.get(peer.public) for peer in hub.peers.values()]


def test_initiations_that_cross_cost_what_is_under_way_at_the_next_handshake() -> None:
    """They may leave a NEXT that nobody uses; the next own handshake makes it PREVIOUS, and destroys CURRENT for it.

    So says PROTOCOL.md section 5, as the kernel does it; it has nothing to do with a rotation.
    """
    assert any(_left_a_next(seed) for seed in range(300))


def _left_a_next(seed: int) -> bool:
    interval = 50 * MILLISECOND
    conditions = Conditions(channel_delay=0, token_delay=400 * MILLISECOND, link_delay=300 * MILLISECOND)
    with two_gateways(seed, conditions) as (world, first, second):
        traffic = [Traffic(first, second, interval), Traffic(second, first, interval)]
        _settle(world, [each.start() for each in traffic])
        left = [
            {one.slot for part in gateway.ingress.receiver.snapshot() for one in part.sessions}
            for gateway in (first, second)
        ]
        if {"current", "next"} not in left:
            return False
        who = left.index({"current", "next"})
        world.run(160 * SECOND)
        _end(world, traffic)
        missing = sorted(traffic[1 - who].missing())
        assert missing
        # One after the other, and no more than the link holds.
        assert missing[-1] - missing[0] == len(missing) - 1 <= 2 * conditions.link_delay // interval
        assert not traffic[who].missing()
        return True


@given(seed=SEEDS, conditions=LOSSLESS)
@example(
    seed=594,
    conditions=Conditions(channel_delay=0, token_delay=400 * MILLISECOND, link_delay=300 * MILLISECOND),
)
@examples(15)
def test_peers_that_move_one_by_one(seed: int, conditions: Conditions) -> None:
    with star(seed, SPOKES, conditions) as (world, hub, spokes):
        traffic = _spokes_first(world, hub, spokes)
        (old,) = hub.publics
        hub.rotate()
        # Nobody who has not moved notices: not at the restart, not when sessions are renewed.
        world.run(300 * SECOND)
        assert _identities(hub) == [old] * SPOKES
        _end(world, traffic)
        assert not any(each.missing() for each in traffic)
        traffic = [each.start() for each in traffic]
        for slot, spoke in enumerate(spokes):
            spoke.learn(hub.public)
            world.run(SECOND)
            _settle(world, traffic)
            assert _identities(hub) == [hub.public] * (slot + 1) + [old] * (SPOKES - slot - 1)
        # Some of these are only under way.
        missing = [each.missing() for each in traffic]
        hub.retire()
        world.run(200 * SECOND)
        _end(world, traffic)
        assert all(each.missing() <= before for each, before in zip(traffic, missing, strict=True))


@given(seed=SEEDS, conditions=LOSSLESS, moment=st.integers(0, 130))
@examples(20)
def test_retired_in_the_middle(seed: int, conditions: Conditions, moment: int) -> None:
    with star(seed, SPOKES, conditions) as (world, hub, spokes):
        traffic = _spokes_first(world, hub, spokes)
        (old,) = hub.publics
        hub.rotate()
        world.run(SECOND)
        spokes[0].learn(hub.public)
        world.run(moment * SECOND)
        _settle(world, traffic)
        before = traffic[0].missing() | traffic[1].missing()
        hub.retire()
        world.run(6 * SECOND)
        # Who has moved has not lost a packet; who has not is out, whoever begins.
        assert _silent(world, traffic[2:], 200 * SECOND)
        spokes[1].learn(hub.public)
        world.run(SECOND)
        _settle(world, traffic[:4])
        assert _identities(hub) == [hub.public, hub.public, old]
        _end(world, traffic)
        assert traffic[0].missing() | traffic[1].missing() <= before


@given(
    seed=SEEDS,
    conditions=LOSSLESS,
    deaths=st.lists(
        st.tuples(st.integers(0, SPOKES), st.sampled_from(CHILDREN), st.integers(0, 4 * SECOND), st.integers(0, 900)),
        min_size=1,
        max_size=6,
    ),
    retired_after=st.integers(0, 6),
)
@examples(50)
def test_whoever_dies_meanwhile(
    seed: int, conditions: Conditions, deaths: list[tuple[int, Role, int, int]], retired_after: int
) -> None:
    with star(seed, SPOKES, conditions) as (world, hub, spokes):
        traffic = _both_ways(hub, spokes, 200 * MILLISECOND)
        _settle(world, traffic)
        hub.rotate()
        for spoke in spokes[:2]:
            spoke.learn(hub.public)
        for turn, (who, role, pause, away) in enumerate(deaths):
            if turn == retired_after:
                hub.retire()
            world.run(pause)
            (hub, *spokes)[who].kill(role, away * MILLISECOND)
        world.run(SECOND)
        if len(hub.privates) == 2:
            _settle(world, traffic)
            hub.retire()
        world.run(7 * SECOND)
        assert _silent(world, traffic[4:], 20 * SECOND)
        _settle(world, traffic[:4])


@given(seed=SEEDS, conditions=BAD, pauses=st.lists(st.integers(0, 60), min_size=4, max_size=4))
@examples(30)
def test_it_settles_after_any_trouble(seed: int, conditions: Conditions, pauses: list[int]) -> None:
    with star(seed, SPOKES, conditions) as (world, hub, spokes):
        traffic = _both_ways(hub, spokes)
        world.run(pauses[0] * SECOND)
        hub.rotate()
        for spoke, pause in zip(spokes, pauses[1:], strict=True):
            world.run(pause * SECOND)
            spoke.learn(hub.public)
        world.conditions = Conditions()
        world.run(SECOND)
        _settle(world, traffic, 40 * SECOND)
        hub.retire()
        world.run(SECOND)
        _settle(world, traffic)


@pytest.mark.parametrize("seed", range(6))
def test_the_initiator_finds_the_key_that_a_silent_peer_has(seed: int) -> None:
    with two_gateways(seed) as (world, first, second):
        # The peer was never seen and cannot begin: it was configured with the key before.
        first.privates.append(first.privates[0])
        first.privates[0] = world.random.randbytes(32)
        first.kill(Role.CUSTODIAN)
        world.run(SECOND)
        traffic = Traffic(first, second, 700 * MILLISECOND).start()
        took = world.run_until(traffic.flows, 30 * SECOND)
        assert 15 * SECOND <= took <= 22 * SECOND
        assert first.confirmed == {second.public: first.publics[1]}
        sent = first.watch.sent[1]
        # From then on it is the first that is tried, also by the next custodian.
        first.kill(Role.CUSTODIAN)
        world.run(600 * SECOND)
        assert first.watch.sent[1] - sent <= 6
        # The peer gets the new key, and goes on being silent: three tries, and then the other.
        second.learn(first.public)
        mark = len(traffic.sent)
        assert world.run_until(lambda: traffic.flows(mark), 150 * SECOND) < 50 * SECOND
        assert first.confirmed == {second.public: first.public}


def test_nobody_is_begun_with_who_was_silent_when_a_key_is_retired() -> None:
    with two_gateways(3) as (world, first, second):
        first.rotate()
        world.run(SECOND)
        second.ping(1)
        world.run(100 * SECOND)
        assert first.received == [1]
        sent = first.watch.sent[1]
        first.retire()
        world.run(10 * SECOND)
        assert not first.ingress.receiver.by_index
        assert first.watch.sent[1] - sent <= 3
        second.ping(2)
        world.run(10 * SECOND)
        assert first.received == [1]


@given(seed=SEEDS, role=st.sampled_from([Role.HANDSHAKE, Role.INGRESS, Role.EGRESS]), lead=st.integers(-400, 400))
@examples(40)
def test_another_process_dies_with_the_custodian_that_is_to_retire(seed: int, role: Role, lead: int) -> None:
    """The new one must learn of the sessions' identities by itself, and end those of the retired one."""
    with two_gateways(seed, Conditions(channel_delay=50 * MILLISECOND)) as (world, first, second):
        traffic = [
            Traffic(first, second, 200 * MILLISECOND).start(),
            Traffic(second, first, 300 * MILLISECOND).start(),
        ]
        _settle(world, traffic)
        first.rotate()
        world.run(130 * SECOND)
        if lead < 0:
            first.kill(role)
            world.run(-lead * MILLISECOND)
            first.retire()
        else:
            first.retire()
            world.run(lead * MILLISECOND)
            first.kill(role)
        # `Watch` sees to it that nothing is sent with the retired key from then on.
        world.run(6 * SECOND)
        assert _silent(world, traffic, 20 * SECOND)
        second.learn(first.public)
        world.run(SECOND)
        _settle(world, traffic)
