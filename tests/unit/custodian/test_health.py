"""The token's health: one peer's bad data, a fault that heals, a token that goes away and comes back."""

from wghsm.custodian.health import Action, Event, Health, State


def test_bad_data_of_a_peer_does_not_climb_the_ladder() -> None:
    health = Health()
    assert health.on(Event.SUSPECT) is Action.CHECK
    assert health.available
    assert health.on(Event.SUSPECT) is Action.NOTHING
    assert health.on(Event.GOOD) is Action.NOTHING
    assert health.state is State.READY


def test_a_fault_that_the_ladder_mends() -> None:
    health = Health()
    health.on(Event.SUSPECT)
    assert health.on(Event.BAD) is Action.REPAIR
    assert not health.available
    assert health.on(Event.SUSPECT) is Action.NOTHING
    assert health.on(Event.GOOD) is Action.TELL_BACK
    assert health.available


def test_a_token_that_stays_away_is_tried_ever_more_rarely() -> None:
    health = Health()
    pauses = []
    for _ in range(2):
        health.on(Event.SUSPECT)
        health.on(Event.BAD)
        assert health.on(Event.BAD) is Action.TELL_AWAY
        for _ in range(7):
            pauses.append(health.pause // 10**9)
            assert health.on(Event.DUE) is Action.REPAIR_AGAIN
            assert not health.available
            assert health.on(Event.BAD) is Action.WAIT
        health.on(Event.DUE)
        assert health.on(Event.GOOD) is Action.TELL_BACK
    assert pauses == 2 * [1, 2, 4, 8, 16, 30, 30]
