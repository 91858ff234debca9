"""Whole gateways on a simulated network: what must hold whatever the order of messages and whoever dies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.ipc import Counter, Role

from .sim import CHILDREN, PEER, Gateway, Traffic, two_gateways
from .trouble import BAD, LOSSLESS, RECOVERY, SEEDS, examples
from .world import MILLISECOND, SECOND, Conditions, World


def _both_ways(first: Gateway, second: Gateway, interval: int = SECOND) -> tuple[Traffic, Traffic]:
    return Traffic(first, second, interval).start(), Traffic(second, first, interval * 13 // 10).start()


def _settle(world: World, traffic: tuple[Traffic, Traffic], longest: int = RECOVERY) -> int:
    """The world is good from now on: packets flow both ways again, soon."""
    world.conditions = Conditions()
    one, other = traffic
    marks = (len(one.source.sent), len(other.source.sent))

    def flows() -> bool:
        return all(
            any(number >= mark for number in each.target.received[-20:])
            for each, mark in zip(traffic, marks, strict=True)
        )

    return world.run_until(flows, longest)


@given(seed=SEEDS, conditions=LOSSLESS)
@examples(20)
def test_a_lossless_link_loses_nothing_for_hours(seed: int, conditions: Conditions) -> None:
    with two_gateways(seed, conditions) as (world, first, second):
        one, other = _both_ways(first, second, 3 * SECOND)
        world.run(2 * 3600 * SECOND)
        one.stop()
        other.stop()
        world.run(5 * SECOND)
        assert not one.missing()
        assert not other.missing()
        # A session lasts its 120 s: neither more handshakes nor fewer.
        complete = first.counters()[Counter.HANDSHAKE_COMPLETE]
        assert 55 <= complete <= 65


def test_a_tunnel_stays_up_for_days() -> None:
    with two_gateways(7) as (world, first, second):
        one, other = _both_ways(first, second, 20 * SECOND)
        world.run(4 * 86_400 * SECOND)
        one.stop()
        other.stop()
        world.run(5 * SECOND)
        assert not one.missing()
        assert not other.missing()
        for gateway in (first, second):
            assert len(gateway.handshake.core.indices) <= 4


@given(seed=SEEDS, conditions=BAD)
@examples(60)
def test_it_settles_after_any_trouble(seed: int, conditions: Conditions) -> None:
    with two_gateways(seed, conditions) as (world, first, second):
        traffic = _both_ways(first, second, 700 * MILLISECOND)
        world.run(400 * SECOND)
        _settle(world, traffic)


@given(
    seed=SEEDS,
    conditions=LOSSLESS,
    deaths=st.lists(
        st.tuples(st.booleans(), st.sampled_from(CHILDREN), st.integers(0, 8 * SECOND), st.integers(0, 900)),
        min_size=1,
        max_size=6,
    ),
)
@examples(80)
def test_whoever_dies_it_settles(seed: int, conditions: Conditions, deaths: list[tuple[bool, Role, int, int]]) -> None:
    with two_gateways(seed, conditions) as (world, first, second):
        traffic = _both_ways(first, second, 200 * MILLISECOND)
        for side, role, pause, away in deaths:
            world.run(pause)
            (first if side else second).kill(role, away * MILLISECOND)
        world.run(SECOND)
        _settle(world, traffic)


@given(seed=SEEDS, conditions=BAD, role=st.sampled_from(CHILDREN), moment=st.integers(0, 200))
@examples(60)
def test_a_death_in_mid_handshake_with_loss(seed: int, conditions: Conditions, role: Role, moment: int) -> None:
    with two_gateways(seed, conditions) as (world, first, second):
        traffic = _both_ways(first, second, 200 * MILLISECOND)
        world.run(moment * 10 * MILLISECOND)
        first.kill(role)
        world.run(SECOND)
        _settle(world, traffic)


@pytest.mark.parametrize("role", [Role.CUSTODIAN, Role.HANDSHAKE])
@pytest.mark.parametrize("seed", range(8))
def test_custodian_and_handshake_die_without_a_lost_packet(role: Role, seed: int) -> None:
    with two_gateways(seed) as (world, first, second):
        # One after the other: initiations that cross have a price of their own, at the next handshake.
        one = Traffic(first, second, 100 * MILLISECOND).start()
        world.run(SECOND)
        other = Traffic(second, first, 130 * MILLISECOND).start()
        world.run((95 + 5 * seed) * SECOND)
        for gateway in (first, second):
            gateway.kill(role)
        world.run(150 * SECOND)
        one.stop()
        other.stop()
        world.run(5 * SECOND)
        assert not one.missing()
        assert not other.missing()


@pytest.mark.parametrize("role", [Role.EGRESS, Role.INGRESS])
@pytest.mark.parametrize("one_sided", [True, False])
@pytest.mark.parametrize("side", [0, 1])
def test_a_worker_dies_in_a_settled_tunnel(role: Role, one_sided: bool, side: int) -> None:
    with two_gateways(3, one_sided=one_sided) as (world, first, second):
        traffic = _both_ways(first, second, 100 * MILLISECOND)
        world.run(60 * SECOND)
        (first, second)[side].kill(role)
        world.run(400 * MILLISECOND)
        # Re-keyed at once, not only when a timer has seen that nothing comes.
        assert _settle(world, traffic) < 2 * SECOND


@given(seed=SEEDS, conditions=LOSSLESS)
@examples(60)
def test_simultaneous_initiations_settle(seed: int, conditions: Conditions) -> None:
    with two_gateways(seed, conditions) as (world, first, second):
        first.ping(1)
        second.ping(1)
        world.run(20 * SECOND)
        assert 1 in first.received
        assert 1 in second.received
        quiet = first.watch.sent[1] + second.watch.sent[1]
        world.run(60 * SECOND)
        assert first.watch.sent[1] + second.watch.sent[1] == quiet


def test_a_peer_that_is_away_gets_twenty_initiations() -> None:
    with two_gateways(1, Conditions(loss=1.0)) as (world, first, _):
        first.ping(1)
        world.run(300 * SECOND)
        assert first.watch.sent[1] == 20
        assert first.counters()[Counter.HANDSHAKE_GIVEN_UP] == 1
        world.conditions = Conditions()
        first.ping(2)
        world.run(SECOND)
        assert len(first.handshake.core.indices) == 1


def test_persistent_keepalives_alone_keep_a_tunnel() -> None:
    with two_gateways(1, keepalive=25, one_sided=True) as (world, first, second):
        world.run(1000 * SECOND)
        assert first.watch.sent[4] >= 35
        # The one behind can be spoken to at any time, though it was never told where the other is.
        second.ping(5)
        world.run(SECOND)
        assert 5 in first.received


def test_a_silent_tunnel_is_forgotten_after_540_s() -> None:
    with two_gateways(1) as (world, first, second):
        first.ping(1)
        world.run(530 * SECOND)
        assert len(first.handshake.core.indices) >= 1
        world.run(20 * SECOND)
        assert len(first.handshake.core.indices) == 0
        assert len(second.handshake.core.indices) == 0
        assert first.watch.sent[1] + second.watch.sent[1] <= 2


def test_the_index_table_knows_what_ingress_holds() -> None:
    with two_gateways(5) as (world, first, second):
        _both_ways(first, second)
        for _ in range(20):
            world.run(37 * SECOND)
            first.kill(Role.HANDSHAKE)
            world.run(2 * SECOND)
            held = set(first.ingress.receiver.by_index)
            known = {session.index for session in first.handshake.core.indices.sessions(PEER)}
            assert held <= known
