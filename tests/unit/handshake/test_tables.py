"""Deadlines, paced re-keys, open requests, joined installs and compared snapshots."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from wghsm.handshake import Limits, Times
from wghsm.handshake.indices import Session
from wghsm.handshake.pace import Pace
from wghsm.handshake.peers import Installation, Peer
from wghsm.handshake.requests import Accepting, Creating, Installs, Requests
from wghsm.handshake.schedule import Rekeys, Schedule
from wghsm.handshake.snapshots import Halves, Snapshots
from wghsm.handshake.timers import PeerTimers
from wghsm.ipc import Role
from wghsm.ipc import messages as m
from wghsm.noise import CookieMaker

_TIMERS = PeerTimers(Times(), Limits())
_PEER = Peer(1, bytes(32), CookieMaker(bytes(32)), _TIMERS)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 50))),
            st.tuples(st.just("pop"), st.just(0), st.integers(0, 60)),
        ),
        max_size=400,
    )
)
def test_a_schedule_is_a_sorted_dictionary(steps: list[tuple[str, int, int | None]]) -> None:
    schedule: Schedule[int] = Schedule()
    model: dict[int, int] = {}
    for step, key, when in steps:
        if step == "set":
            schedule.set(key, when)
            model.pop(key, None) if when is None else model.update({key: when})
        elif when is not None:
            popped = schedule.pop(when)
            due = {key: at for key, at in model.items() if at <= when}
            assert (popped is None) == (not due)
            if popped is not None:
                assert model.pop(popped) == min(due.values())
        assert schedule.next() == min(model.values(), default=None)
        assert len(schedule) == len(model)


def test_a_schedule_does_not_grow_with_changes() -> None:
    schedule: Schedule[str] = Schedule()
    for when in range(100_000):
        schedule.set("one", when)
    assert len(schedule._heap) < 200


def _pace(first: int, most: int = 64) -> tuple[Pace, Requests]:
    requests = Requests(10)
    times = Times(rekey_patience=100, rekey_latency=10)
    return Pace(requests, times, Limits(rekeys_first=first, rekeys_most=most)), requests


def test_rekeys_are_paced_and_in_order() -> None:
    pace, _ = _pace(first=1)
    rekeys = Rekeys(pace)
    for peer in (3, 1, 2):
        rekeys.add(peer, 100, 100)
    assert rekeys.next() == 100
    assert rekeys.pop(99) is None
    assert rekeys.pop(100) == (3, 100)
    pace.begin(3, 100)
    assert rekeys.pop(100) is None
    assert rekeys.next() == 200
    # Complete, or too slow to be waited for.
    pace.over(3)
    assert rekeys.next() == 100
    assert rekeys.pop(120) == (1, 100)
    pace.begin(1, 120)
    assert rekeys.next() == 220
    assert rekeys.pop(220) == (2, 100)
    assert rekeys.next() is None


def test_a_queued_rekey_keeps_its_place_and_takes_the_newer_wish() -> None:
    rekeys = Rekeys(_pace(first=1)[0])
    rekeys.add(1, 100, 100)
    rekeys.add(1, 150, 150)
    assert rekeys.pop(100) == (1, 150)
    assert rekeys.pop(1000) is None


def test_rekeys_wait_for_the_custodian() -> None:
    pace, requests = _pace(first=2)
    rekeys = Rekeys(pace)
    rekeys.add(1, 0, 0)
    stranger = requests.add(Accepting(b"", 1, 1, m.Endpoint("::", 1), 0, 0, 0), 0)
    numbers = [requests.add(Creating(_PEER, index, 0), 0) for index in (2, 3)]
    # What strangers ask is none of our own.
    assert requests.own == 2
    assert (pace.crowded, rekeys.next(), rekeys.pop(5)) == (True, None, None)
    requests.pop(numbers[0])
    assert (pace.crowded, rekeys.next()) == (False, 0)
    requests.pop(stranger)
    assert requests.own == 1
    requests.expire(10)
    assert requests.own == 0


def test_places_follow_the_answers() -> None:
    pace, _ = _pace(first=8, most=12)
    pace.answered(0, 10)
    assert pace.places == 8
    for peer in range(12):
        pace.begin(peer, 10)
        pace.answered(0, 10)
    assert pace.places == 12
    # Late ones of one queue count once.
    for moment in range(100, 110):
        pace.answered(moment - 50, moment)
    assert pace.places == 6
    pace.answered(120, 140)
    pace.answered(150, 170)
    pace.answered(180, 200)
    assert pace.places == 2
    pace.answered(200, 205)
    assert pace.places == 3


def test_requests_expire_in_order_and_numbers_are_never_used_again() -> None:
    requests = Requests(10)
    first = requests.add(Creating(_PEER, 1, 0), 0)
    second = requests.add(Creating(_PEER, 2, 5), 5)
    assert (requests.oldest(), requests.next_deadline(), len(requests)) == (0, 10, 2)
    assert requests.expire(9) == []
    assert [one.index for one in requests.expire(10) if isinstance(one, Creating)] == [1]
    assert requests.pop(first) is None
    assert requests.pop(second) is not None
    assert requests.pop(second) is None
    assert requests.add(Creating(_PEER, 3, 6), 6) > second
    assert len(requests.clear()) == 1
    assert requests.next_deadline() is None


def _installation(number: int) -> Installation:
    return Installation(_PEER, Session(number, 1, number, False, 0, 1), None)


def test_installs_join_in_either_order() -> None:
    installs = Installs(10, 4)
    one, two, three = map(_installation, (1, 2, 3))
    assert installs.derived(1, one, 0) is None
    assert installs.installed(1, True, 1) is one
    assert installs.installed(2, True, 2) is None
    assert installs.derived(2, two, 3) is True
    assert installs.installed(3, False, 2) is None
    assert installs.derived(3, three, 3) is False
    assert installs.next_deadline() is None


def test_installs_expire_and_are_bounded() -> None:
    installs = Installs(10, 4)
    one = _installation(1)
    installs.derived(1, one, 5)
    for session in range(100, 110):
        installs.installed(session, True, 6)
    assert installs.derived(100, _installation(100), 6) is None
    assert installs.derived(109, _installation(109), 6) is True
    assert installs.expire(15) == [one]
    assert len(installs.expire(16)) == 1
    assert installs.next_deadline() is None


def test_a_dead_ingress_acknowledged_nothing() -> None:
    installs = Installs(10, 4)
    installs.installed(1, True, 0)
    installs.derived(2, _installation(2), 0)
    installs.forget_early()
    assert installs.derived(1, _installation(1), 1) is None
    assert installs.installed(2, True, 1) is not None


def _part(
    sessions: list[tuple[int, int]], *, last: bool = True, slot: Literal["current", "next"] = "current"
) -> m.SessionSnapshot:
    return m.SessionSnapshot(
        [m.SessionInfo(session, peer, session, True, 0, slot, 0) for peer, session in sessions], [], last
    )


def test_snapshots_name_peers_without_a_whole_session() -> None:
    snapshots = Snapshots()
    assert snapshots.add(Role.EGRESS, _part([(1, 10), (2, 20)], last=False)) == Halves()
    assert snapshots.add(Role.INGRESS, _part([(1, 10), (1, 11), (3, 30), (4, 41)])) == Halves()
    assert snapshots.add(Role.EGRESS, _part([(4, 40)])) == Halves(frozenset({2, 3, 4}), frozenset({2, 4}))
    assert snapshots.add(Role.EGRESS, _part([(5, 50)])) == Halves()


def test_snapshots_name_peers_that_are_sent_to_on_a_session_of_no_known_identity() -> None:
    snapshots = Snapshots()
    snapshots.add(Role.EGRESS, _part([(1, 10), (2, 20)], last=False))
    # What only waits to be activated may belong to a session that ingress has dropped since.
    snapshots.add(Role.EGRESS, _part([(1, 9)], slot="next"))
    assert snapshots.add(Role.INGRESS, _part([(1, 10), (2, 21)])) == Halves(frozenset({2}), frozenset({2}))
