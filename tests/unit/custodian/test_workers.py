"""The worker threads: jobs run side by side, results come back to the main thread, a bug is not lost."""

import queue
import select
import threading
from collections.abc import Callable

import pytest

from wghsm.custodian.effects import Effect, Landing, Report
from wghsm.custodian.workers import Workers


def _wait(workers: Workers, count: int) -> list[Landing]:
    landings: list[Landing] = []
    while len(landings) < count:
        assert select.select([workers], [], [], 60)[0], "no result within a minute"
        landings += workers.landings()
    return landings


def _say(text: str) -> Callable[[], Landing]:
    def land(_now: int) -> list[Effect]:
        return [Report(text)]

    return lambda: land


def test_results_come_back() -> None:
    workers = Workers(3, 100)
    for number in range(100):
        workers.submit(_say(str(number)))
    said = [effect for landing in _wait(workers, 100) for effect in landing(0)]
    assert sorted(said, key=str) == sorted([Report(str(number)) for number in range(100)], key=str)
    assert workers.landings() == []
    assert workers.longest_running() == 0
    assert workers.stop(60)


def test_one_slow_answer_holds_up_nobody() -> None:
    workers = Workers(2, 10)
    release, running = threading.Event(), threading.Event()

    def slow() -> Landing:
        running.set()
        assert release.wait(60)
        return _say("slow")()

    workers.submit(slow)
    assert running.wait(60)
    workers.submit(_say("quick"))
    assert [landing(0) for landing in _wait(workers, 1)] == [[Report("quick")]]
    assert workers.longest_running() > 0
    assert not workers.stop(0.05)
    release.set()
    assert [landing(0) for landing in _wait(workers, 1)] == [[Report("slow")]]
    assert workers.stop(60)


def test_the_queue_is_bounded() -> None:
    workers = Workers(1, 2)
    release, running = threading.Event(), threading.Event()

    def slow() -> Landing:
        running.set()
        assert release.wait(60)
        return _say("")()

    workers.submit(slow)
    assert running.wait(60)
    workers.submit(_say("a"))
    workers.submit(_say("b"))
    with pytest.raises(queue.Full):
        workers.submit(_say("c"))
    release.set()
    assert len(_wait(workers, 3)) == 3
    assert workers.stop(60)


def test_a_fault_of_ours_reaches_the_main_thread() -> None:
    workers = Workers(1, 2)

    def broken() -> Landing:
        raise RuntimeError("a bug")

    workers.submit(broken)
    (landing,) = _wait(workers, 1)
    with pytest.raises(RuntimeError, match="a bug"):
        landing(0)
    workers.submit(_say("still here"))
    assert [landing(0) for landing in _wait(workers, 1)] == [[Report("still here")]]
    assert workers.stop(60)


def test_what_is_beside_holds_up_no_handshake() -> None:
    workers = Workers(1, 10)
    release, running = threading.Event(), threading.Event()

    def repair() -> Landing:
        running.set()
        assert release.wait(60)
        return _say("repaired")()

    workers.submit_aside(repair)
    workers.submit_aside(_say("looked"))
    assert running.wait(60)
    workers.submit(_say("quick"))
    assert [landing(0) for landing in _wait(workers, 1)] == [[Report("quick")]]
    assert workers.running_aside() > 0
    assert workers.longest_running() == 0
    release.set()
    assert [landing(0) for landing in _wait(workers, 2)] == [[Report("repaired")], [Report("looked")]]
    assert workers.running_aside() == 0
    assert workers.stop(60)
