"""The five timers of a peer against PROTOCOL.md section 8."""

from __future__ import annotations

from wghsm.handshake import Limits, Times
from wghsm.handshake.timers import Action, Activity, PeerTimers, Timer

SECOND = 10**9
JITTER = 200 * 10**6
NOTHING = Activity()


def _timers() -> PeerTimers:
    return PeerTimers(Times(), Limits())


def _expire(timers: PeerTimers, now: int, activity: Activity = NOTHING) -> list[Action]:
    return [action for timer in timers.due(now) for action in timers.expire(timer, now, activity, JITTER)]


def test_a_new_peer_has_no_timer() -> None:
    timers = _timers()
    timers.start(0, 100, NOTHING, JITTER)
    assert timers.next_deadline() is None


def test_retransmit_is_armed_with_jitter_and_repeats() -> None:
    timers = _timers()
    timers.initiation_sent(10 * SECOND, JITTER)
    assert timers.next_deadline() == 15 * SECOND + JITTER
    assert timers.due(15 * SECOND) == []
    assert _expire(timers, 16 * SECOND) == [Action.FORGET_SOURCE, Action.RETRY_INITIATION]
    assert timers.attempts == 1
    assert not timers.pending(Timer.RETRANSMIT_HANDSHAKE)


def test_twenty_initiations_and_then_no_more() -> None:
    timers = _timers()
    now, sent = 0, 0
    while True:
        sent += 1
        timers.initiation_sent(now, 0)
        now += 6 * SECOND
        if _expire(timers, now) == [Action.GIVE_UP]:
            break
    assert sent == 20
    assert timers.next_deadline() == now + 540 * SECOND


def test_giving_up_stops_send_keepalive_and_leaves_zero_key_material() -> None:
    timers = _timers()
    timers.attempts = 19
    timers.session_derived(SECOND)
    timers.data_received(100 * SECOND)
    timers.initiation_sent(99 * SECOND, 0)
    assert _expire(timers, 105 * SECOND) == [Action.GIVE_UP]
    assert not timers.pending(Timer.SEND_KEEPALIVE)
    assert timers.next_deadline() == 541 * SECOND


def test_a_complete_handshake_stops_retransmit_and_clears_attempts() -> None:
    timers = _timers()
    timers.initiation_sent(0, 0)
    timers.attempts = 5
    timers.handshake_complete()
    assert timers.attempts == 0
    assert timers.next_deadline() is None


def test_new_handshake_fires_when_nothing_came_back() -> None:
    timers = _timers()
    timers.data_sent(10 * SECOND, JITTER)
    assert timers.next_deadline() == 25 * SECOND + JITTER
    quiet = Activity(last_received=9 * SECOND, first_data_unanswered=10 * SECOND)
    assert _expire(timers, 26 * SECOND, quiet) == [Action.FORGET_SOURCE, Action.NEW_INITIATION]
    assert timers.next_deadline() is None


def test_new_handshake_is_void_after_anything_was_received() -> None:
    timers = _timers()
    timers.data_sent(10 * SECOND, JITTER)
    answered = Activity(last_received=10 * SECOND, first_data_unanswered=10 * SECOND)
    assert _expire(timers, 26 * SECOND, answered) == []
    assert timers.next_deadline() is None


def test_new_handshake_goes_on_with_data_that_was_sent_after_the_answer() -> None:
    timers = _timers()
    timers.data_sent(10 * SECOND, 0)
    timers.data_sent(20 * SECOND, 0)
    assert timers.next_deadline() == 25 * SECOND
    later = Activity(last_received=15 * SECOND, first_data_unanswered=20 * SECOND)
    assert _expire(timers, 25 * SECOND, later) == []
    assert timers.next_deadline() == 35 * SECOND + JITTER
    assert _expire(timers, 36 * SECOND, later) == [Action.FORGET_SOURCE, Action.NEW_INITIATION]


def test_send_keepalive_without_jitter_and_void_after_a_send() -> None:
    timers = _timers()
    timers.data_received(10 * SECOND)
    assert timers.next_deadline() == 20 * SECOND
    assert _expire(timers, 20 * SECOND, Activity(last_sent=12 * SECOND)) == []
    timers.data_received(30 * SECOND)
    silent = Activity(last_sent=12 * SECOND, last_data_received=30 * SECOND)
    assert _expire(timers, 40 * SECOND, silent) == [Action.SEND_KEEPALIVE]
    assert timers.next_deadline() is None


def test_another_keepalive_when_more_data_came() -> None:
    timers = _timers()
    timers.data_received(10 * SECOND)
    more = Activity(last_data_received=13 * SECOND, first_data_unacknowledged=10 * SECOND)
    assert _expire(timers, 20 * SECOND, more) == [Action.SEND_KEEPALIVE]
    assert timers.next_deadline() == 30 * SECOND
    # The first keepalive went out: the second is void.
    assert _expire(timers, 30 * SECOND, Activity(last_sent=20 * SECOND, last_data_received=13 * SECOND)) == []


def test_send_keepalive_goes_on_with_data_that_came_after_the_send() -> None:
    timers = _timers()
    timers.data_received(10 * SECOND)
    later = Activity(last_sent=12 * SECOND, last_data_received=18 * SECOND, first_data_unacknowledged=15 * SECOND)
    assert _expire(timers, 20 * SECOND, later) == []
    assert timers.next_deadline() == 25 * SECOND


def test_zero_key_material_counts_from_the_youngest_session() -> None:
    timers = _timers()
    timers.session_derived(100 * SECOND)
    timers.session_derived(220 * SECOND)
    timers.session_derived(150 * SECOND)
    assert timers.next_deadline() == 760 * SECOND
    assert _expire(timers, 760 * SECOND) == [Action.ZERO_KEY_MATERIAL]


def test_persistent_keepalive_at_once_for_a_peer_that_was_never_spoken_to() -> None:
    timers = _timers()
    timers.start(25, 1000 * SECOND, NOTHING, JITTER)
    assert timers.next_deadline() == 1000 * SECOND
    assert _expire(timers, 1000 * SECOND) == [Action.SEND_KEEPALIVE]
    assert timers.next_deadline() == 1025 * SECOND


def test_persistent_keepalive_waits_as_long_as_packets_go_either_way() -> None:
    timers = _timers()
    timers.start(25, 0, Activity(last_sent=1), JITTER)
    assert _expire(timers, 26 * SECOND, Activity(last_sent=20 * SECOND)) == []
    assert timers.next_deadline() == 45 * SECOND
    assert _expire(timers, 45 * SECOND, Activity(last_sent=20 * SECOND, last_received=30 * SECOND)) == []
    assert timers.next_deadline() == 55 * SECOND
    assert _expire(timers, 55 * SECOND, Activity(last_received=30 * SECOND)) == [Action.SEND_KEEPALIVE]


def test_persistent_keepalive_turned_off() -> None:
    timers = _timers()
    timers.start(25, 0, NOTHING, JITTER)
    timers.set_interval(0, 10, NOTHING)
    assert timers.next_deadline() is None


def test_a_restart_takes_up_what_the_table_says() -> None:
    timers = _timers()
    now = 100 * SECOND
    activity = Activity(
        last_sent=97 * SECOND,
        last_received=90 * SECOND,
        first_data_unanswered=95 * SECOND,
        first_data_unacknowledged=98 * SECOND,
    )
    timers.start(0, now, activity, 0)
    assert timers.pending(Timer.NEW_HANDSHAKE)
    assert timers.pending(Timer.SEND_KEEPALIVE)
    assert timers.next_deadline() == 108 * SECOND
    timers.start(0, now + 1000 * SECOND, activity, 0)
    assert timers.next_deadline() is None


def test_stopping_disarms_everything() -> None:
    timers = _timers()
    timers.start(25, 0, NOTHING, 0)
    timers.initiation_sent(0, 0)
    timers.attempts = 3
    timers.stop()
    assert timers.next_deadline() is None
    assert timers.attempts == 0
