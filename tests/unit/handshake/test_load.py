"""When strangers must show a cookie: the token's pending work and its latency, and the queue."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from wghsm.handshake.load import Load
from wghsm.handshake.requests import Accepting, Requests
from wghsm.handshake.times import Limits, Times
from wghsm.ipc import Role
from wghsm.ipc import messages as m

from .bench import ELSEWHERE, MILLISECOND, OURS, SECOND, Bench

TIMES = Times()


def _load(requests: Requests | None = None) -> Load:
    return Load(Requests(10 * SECOND) if requests is None else requests, TIMES, Limits())


def _loaded(load: Load, now: int) -> bool:
    return load.arrived(now, now)


def test_nothing_to_do_is_no_load() -> None:
    assert not _loaded(_load(), SECOND)


def test_pending_work_is_load_for_a_second() -> None:
    requests = Requests(10 * SECOND)
    load = _load(requests)
    numbers = [requests.add(Accepting(OURS, 1, 2, ELSEWHERE, 0, 148, 0), 0) for _ in range(Limits().load_mark)]
    assert _loaded(load, 1)
    for number in numbers:
        requests.pop(number)
    assert _loaded(load, SECOND)
    assert not _loaded(load, SECOND + 1)


def test_an_old_request_is_load() -> None:
    requests = Requests(10 * SECOND)
    load = _load(requests)
    requests.add(Accepting(OURS, 1, 2, ELSEWHERE, 0, 148, 0), 0)
    assert not _loaded(load, SECOND - 1)
    assert _loaded(load, SECOND)


@given(took=st.lists(st.integers(0, 900), min_size=1, max_size=120))
def test_latency_is_load_when_the_95th_percentile_is_slow(took: list[int]) -> None:
    """Of the last 40 answers more than 2 were slow; fewer than 40 are filled up with quick ones."""
    load = _load()
    for number, milliseconds in enumerate(took):
        now = SECOND + number * MILLISECOND
        load.answered(now - milliseconds * MILLISECOND, now)
    window = sorted([0] * 40 + took[-40:])[-40:]
    percentile = window[math.ceil(0.95 * 40) - 1]
    # An answer that is quick ends nothing: a load that was seen lasts its second.
    if percentile >= 500 and took[-1] >= 500:
        assert _loaded(load, now)
    if max(took) < 500:
        assert not _loaded(load, now)


def test_a_slow_answer_now_and_then_is_no_load() -> None:
    load = _load()
    now = 100 * SECOND
    for _ in range(50):
        for _ in range(19):
            load.answered(now, now)
        now += SECOND
        load.answered(now - SECOND, now)
        assert not _loaded(load, now)


def test_slow_answers_that_are_long_ago_do_not_count() -> None:
    load = _load()
    for number in range(20):
        now = 100 * SECOND + number * 3 * SECOND
        load.answered(now - SECOND, now)
        assert not _loaded(load, now)


def test_one_datagram_that_waited_is_load_only_after_a_second() -> None:
    load = _load()
    assert not load.arrived(100 * SECOND - 500 * MILLISECOND, 100 * SECOND)
    assert load.arrived(99 * SECOND, 100 * SECOND)


def test_a_long_queue_is_load() -> None:
    load = _load()
    mark = Limits().load_mark
    now = 100 * SECOND
    for _ in range(mark - 1):
        assert not load.arrived(now - 20 * MILLISECOND, now)
    assert not load.arrived(now, now), "one that did not wait ends the row"
    for _ in range(mark - 1):
        assert not load.arrived(now - 20 * MILLISECOND, now)
    assert load.arrived(now - 20 * MILLISECOND, now)


def test_a_crowd_is_load_for_a_second() -> None:
    bench = Bench()
    bench.says(Role.INGRESS, m.Datagram(ELSEWHERE, bench.now, bench.initiation(), crowded=True))
    assert len(bench.sent()) == 1, "a cookie"
    bench.wait(SECOND // 2)
    bench.datagram(bench.initiation())
    assert len(bench.sent()) == 1
    bench.wait(SECOND)
    bench.datagram(bench.initiation())
    assert not bench.sent()


def test_the_custodians_latency_is_seen() -> None:
    """Few requests at a time, none of them old when a message comes: the answers alone tell that the token is slow."""
    bench = Bench()
    for _ in range(3):
        bench.datagram(bench.initiation())
        (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
        bench.wait(600 * MILLISECOND)
        bench.says(Role.CUSTODIAN, m.Refused(request.request))
    assert not bench.sent()
    bench.datagram(bench.initiation())
    assert len(bench.sent()) == 1
    assert not bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    bench.wait(SECOND)
    bench.datagram(bench.initiation())
    assert bench.told(Role.CUSTODIAN, m.AcceptInitiation)
