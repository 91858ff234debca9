"""The token's health: one peer's bad data, a fault that heals, a token that goes away and comes back."""

from wghsm.custodian.health import Action, Event, Health, State, TokenTimes

SECOND = 10**9


def test_bad_data_of_a_peer_does_not_climb_the_ladder() -> None:
    health = Health()
    assert health.on(Event.SUSPECT, 0) is Action.CHECK
    assert health.available
    assert health.on(Event.SUSPECT, 0) is Action.NOTHING
    assert health.on(Event.GOOD, 0) is Action.NOTHING
    assert health.state is State.READY


def test_a_fault_that_the_ladder_mends() -> None:
    health = Health()
    health.on(Event.SUSPECT, 0)
    assert health.on(Event.BAD, 0) is Action.REPAIR
    assert not health.available
    assert health.on(Event.SUSPECT, 0) is Action.NOTHING
    assert health.on(Event.GOOD, 0) is Action.TELL_BACK
    assert health.available


def test_a_token_that_stays_away_is_tried_ever_more_rarely() -> None:
    health = Health()
    pauses = []
    for now in (0, 1000 * SECOND):
        health.on(Event.SUSPECT, now)
        health.on(Event.BAD, now)
        assert health.on(Event.BAD, now) is Action.TELL_AWAY
        for _ in range(7):
            pauses.append(health.pause // SECOND)
            assert health.on(Event.DUE, now) is Action.REPAIR_AGAIN
            assert not health.available
            assert health.on(Event.BAD, now) is Action.WAIT
        health.on(Event.DUE, now)
        assert health.on(Event.GOOD, now) is Action.TELL_BACK
    assert pauses == 2 * [1, 2, 4, 8, 16, 30, 30]


def _fails(health: Health, now: int) -> Action:
    assert health.on(Event.SUSPECT, now) is Action.CHECK
    return health.on(Event.BAD, now)


def test_a_token_that_fails_right_after_its_repair_opens_the_breaker() -> None:
    health = Health()
    assert _fails(health, 0) is Action.REPAIR
    health.on(Event.GOOD, 0)
    pauses = []
    for now in (1, 2, 3):
        assert _fails(health, now * SECOND) is Action.TELL_AWAY
        assert not health.available
        pauses.append(health.pause // SECOND)
        assert health.on(Event.DUE, now * SECOND) is Action.REPAIR_AGAIN
        assert health.on(Event.GOOD, now * SECOND) is Action.TELL_BACK
    assert pauses == [2, 4, 8]
    # Good for a while: the next fault is a fresh one.
    assert _fails(health, 3 * SECOND + TokenTimes().settle) is Action.REPAIR
    health.on(Event.BAD, 20 * SECOND)
    assert health.pause == SECOND


def test_another_token_is_tried_once_the_first_retry_has_failed() -> None:
    health = Health()
    _fails(health, 0)
    health.on(Event.BAD, 0)
    elsewhere = []
    for event in (Event.DUE, Event.BAD, Event.DUE, Event.GOOD):
        health.on(event, 0)
        elsewhere.append(health.elsewhere)
    assert elsewhere == [False, True, True, False]


def test_a_token_that_was_not_there_at_the_start() -> None:
    health = Health()
    assert health.begin_away() is Action.TELL_AWAY
    assert not health.available
    assert health.elsewhere
    assert health.on(Event.DUE, 0) is Action.REPAIR_AGAIN
    assert health.on(Event.GOOD, 0) is Action.TELL_BACK
