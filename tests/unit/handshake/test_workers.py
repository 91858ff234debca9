"""A gateway with several workers in the simulated network: each peer's sessions are one worker's, whatever dies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.ipc import TUNNEL, Counter, Role, seat_of, worker_of_peer

from .sim import Traffic, star
from .trouble import LOSSLESS, RECOVERY, SEEDS, examples
from .world import MILLISECOND, SECOND, Conditions

SPOKES = 5


@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize("role", TUNNEL)
def test_a_worker_dies_and_only_its_peers_are_rekeyed(workers: int, role: Role) -> None:
    with star(1, SPOKES, workers=workers) as (world, hub, spokes):
        there = [Traffic(hub, spoke, 100 * MILLISECOND, slot=slot) for slot, spoke in enumerate(spokes)]
        back = [
            Traffic(spoke, hub, 100 * MILLISECOND, first=1_000_000 * (1 + slot)) for slot, spoke in enumerate(spokes)
        ]
        for traffic in (*there, *back):
            traffic.start()
        world.run_until(lambda: all(traffic.flows() for traffic in (*there, *back)), RECOVERY)
        world.run(6 * SECOND)
        before = [hub.handshake.core.indices.sessions(slot) for slot in range(SPOKES)]
        marks = [len(traffic.sent) for traffic in there]
        hub.kill(seat_of(role, 1))
        world.run_until(lambda: all(t.flows(mark) for t, mark in zip(there, marks, strict=True)), RECOVERY)
        world.run(2 * SECOND)
        for slot, was in enumerate(before):
            now = hub.handshake.core.indices.sessions(slot)
            # The others have what they had, the very same sessions.
            assert (now == was) is (worker_of_peer(slot, workers) != 1)


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_nothing_is_lost_over_rekeys_and_a_new_handshake_process(workers: int) -> None:
    with star(2, SPOKES, Conditions(repeated_installs=0.5), workers=workers) as (world, hub, spokes):
        streams = [Traffic(hub, spoke, SECOND, slot=slot) for slot, spoke in enumerate(spokes)]
        streams += [Traffic(spoke, hub, SECOND, first=1_000_000 * (1 + slot)) for slot, spoke in enumerate(spokes)]
        for traffic in streams:
            traffic.start()
        world.run(60 * SECOND)
        hub.kill(Role.HANDSHAKE)
        world.run(300 * SECOND)
        for traffic in streams:
            traffic.stop()
        world.run(2 * SECOND)
        assert [traffic.missing() for traffic in streams] == [set()] * len(streams)
        indices = [one.index for slot in range(SPOKES) for one in hub.handshake.core.indices.sessions(slot)]
        assert len({index >> 2 for index in indices}) == len(indices)


@examples(15)
@given(seed=SEEDS, workers=st.integers(2, 4), conditions=LOSSLESS, data=st.data())
def test_whatever_dies_packets_flow_again(seed: int, workers: int, conditions: Conditions, data: st.DataObject) -> None:
    roles = st.sampled_from([Role.HANDSHAKE, Role.CUSTODIAN, *TUNNEL])
    deaths = data.draw(st.lists(st.tuples(roles, st.integers(0, workers - 1), st.integers(0, 3000)), max_size=5))
    with star(seed, 3, conditions, workers=workers) as (world, hub, spokes):
        streams = [Traffic(hub, spoke, 200 * MILLISECOND, slot=slot) for slot, spoke in enumerate(spokes)]
        for slot, spoke in enumerate(spokes):
            streams.append(Traffic(spoke, hub, 200 * MILLISECOND, first=10_000 * (1 + slot)))
        for traffic in streams:
            traffic.start()
        for role, worker, wait in deaths:
            world.run(wait * MILLISECOND)
            hub.kill(seat_of(role, worker) if role in TUNNEL else role)
        world.run(SECOND)
        marks = [len(traffic.sent) for traffic in streams]
        world.run_until(
            lambda: all(t.flows(mark) for t, mark in zip(streams, marks, strict=True)), RECOVERY + 30 * SECOND
        )


def test_a_worker_that_is_away_holds_up_its_own_peers_only() -> None:
    with star(3, 4, workers=2) as (world, hub, spokes):
        hub.kill(seat_of(Role.EGRESS, 1), away=60 * SECOND)
        streams = [Traffic(hub, spoke, 100 * MILLISECOND, slot=slot).start() for slot, spoke in enumerate(spokes)]
        world.run(20 * SECOND)
        assert [traffic.flows() for traffic in streams] == [True, False, True, False]
        world.run(60 * SECOND)
        assert all(traffic.flows(len(traffic.sent) - 20) for traffic in streams)


@pytest.mark.parametrize(("token_delay", "sessions"), [(2 * MILLISECOND, 4), (200 * MILLISECOND, 2)])
def test_many_peers_are_rekeyed_as_fast_as_the_token_bears(token_delay: int, sessions: int) -> None:
    """A hundred busy peers lose their sessions at once: none of their handshakes is given up for its age."""
    spokes = 100
    with star(4, spokes) as (world, hub, around):
        streams = [Traffic(hub, spoke, SECOND, slot=slot).start() for slot, spoke in enumerate(around)]
        world.run_until(lambda: all(traffic.flows() for traffic in streams), RECOVERY)
        world.run(6 * SECOND)
        world.conditions.token_delay, hub.token_sessions = token_delay, sessions
        before = hub.counters()
        marks = [len(traffic.sent) for traffic in streams]
        hub.kill(Role.EGRESS)
        took = world.run_until(
            lambda: all(traffic.flows(mark) for traffic, mark in zip(streams, marks, strict=True)), 60 * SECOND
        )
        # One operation for each, as the static-static results are known.
        least = spokes * token_delay // sessions
        assert took < 2 * least + 3 * SECOND
        assert hub.token_backlog < 2 * SECOND
        after = hub.counters()
        for given_up in (Counter.CUSTODIAN_BUSY, Counter.HANDSHAKE_GIVEN_UP):
            assert after.get(given_up, 0) == before.get(given_up, 0)
