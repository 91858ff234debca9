"""Whole gateways at the limits of a session, by injected counters, and with several peers for days."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.ipc import Counter
from wghsm.noise.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES

from .sim import PEER, Gateway, Traffic, star, two_gateways
from .trouble import BAD, RECOVERY, SEEDS, examples
from .world import MILLISECOND, SECOND, Conditions

if TYPE_CHECKING:
    from wghsm.tunnel.slots import SendSession


def _inject(gateway: Gateway, counter: int) -> int:
    """The gateway has sent so many packets on its current session; the session's number."""
    session = _current(gateway)
    session.sealer.counter = counter
    return session.number


def _current(gateway: Gateway) -> SendSession:
    session = gateway.watch.senders[PEER].slots.current
    assert session is not None
    return session


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("counter", [REKEY_AFTER_MESSAGES, REJECT_AFTER_MESSAGES - 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_session_that_has_carried_too_much_is_replaced_without_a_loss(side: int, counter: int, seed: int) -> None:
    """In both roles: the first side is the initiator. Beyond REJECT_AFTER_MESSAGES packets are staged."""
    with two_gateways(seed, one_sided=True) as (world, *gateways):
        first, second = gateways
        one = Traffic(first, second, 50 * MILLISECOND).start()
        world.run(SECOND)
        other = Traffic(second, first, 70 * MILLISECOND).start()
        world.run(20 * SECOND)
        gateway = gateways[side]
        assert first.watch.sent[1] + second.watch.sent[1] == 1
        old = _inject(gateway, counter)
        world.run(5 * SECOND)
        session = _current(gateway)
        assert session.number > old
        assert session.sealer.counter < 1000
        assert first.watch.sent[1] + second.watch.sent[1] == 2
        one.stop()
        other.stop()
        world.run(5 * SECOND)
        assert not one.missing()
        assert not other.missing()


@given(seed=SEEDS, spokes=st.integers(3, 5), conditions=BAD)
@examples(12)
def test_many_peers_settle_after_any_trouble(seed: int, spokes: int, conditions: Conditions) -> None:
    with star(seed, spokes, conditions) as (world, hub, around):
        traffics = [
            traffic
            for number, spoke in enumerate(around)
            for traffic in (
                Traffic(spoke, hub, 900 * MILLISECOND, first=number * 10**6).start(),
                Traffic(hub, spoke, 1100 * MILLISECOND, slot=number).start(),
            )
        ]
        world.run(200 * SECOND)
        world.conditions = Conditions()
        marks = [len(traffic.sent) for traffic in traffics]
        world.run_until(
            lambda: all(traffic.flows(mark) for traffic, mark in zip(traffics, marks, strict=True)), RECOVERY
        )
        assert len(hub.handshake.core.indices) <= 4 * spokes


def test_many_peers_for_days() -> None:
    """Four peers for two days, one of them quiet for hours, one that roams: nothing is lost and nothing gathers."""
    with star(11, 4) as (world, hub, around):
        traffics = [
            traffic
            for number, spoke in enumerate(around[:3])
            for traffic in (
                Traffic(spoke, hub, (70 + 30 * number) * SECOND, first=number * 10**6).start(),
                Traffic(hub, spoke, (131 + 40 * number) * SECOND, slot=number).start(),
            )
        ]
        quiet = Traffic(around[3], hub, 5 * 3600 * SECOND, first=9 * 10**6).start()
        for hour in range(48):
            world.run(3600 * SECOND)
            around[0].address = (f"198.51.100.{hour + 1}", 51820)
        for traffic in (*traffics, quiet):
            traffic.stop()
        world.run(5 * SECOND)
        lost = [len(traffic.missing()) for traffic in traffics]
        # What the hub sends before the roamer has spoken goes where it was; every other packet arrives.
        assert lost[0] == 0
        assert lost[1] <= 48
        assert lost[2:] == [0] * 4
        assert not quiet.missing()
        assert len(hub.handshake.core.indices) <= 4 * 4
        assert hub.counters().get(Counter.HANDSHAKE_GIVEN_UP, 0) == 0
        # The last keepalives may make one more session, which lasts its 540 s.
        world.run(700 * SECOND)
        for gateway in (hub, *around):
            assert len(gateway.handshake.core.indices) == 0
            assert not gateway.ingress.receiver.by_index
