"""The threads that derive without the interpreter, and the sessions that they share with Python. Needs no token."""

import gc
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, cast

import pytest

from tests.network.support.process import until
from tests.token.three_calls import KEY, PUBLIC, SECRET, SESSION, Holding, Leaving, Module
from wghsm.pkcs11_backend import Derivers, KeyUnfit, PointRefused, PrivateKey, TokenError, TokenFault
from wghsm.pkcs11_backend.dialect import DIALECTS

if TYPE_CHECKING:
    from wghsm.pkcs11_backend._cryptoki import FunctionList

PATIENCE = 60.0
OWN = bytes(range(100, 132))


class Bench:
    """Derivers over a module of the test, started, with `sessions` sessions that nobody has borrowed."""

    def __init__(self, module: Module, sessions: int = 1, *, leaves: bool = False) -> None:
        self.module = module
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.derivers = Derivers(cast("FunctionList", module), sessions, leaves_secrets=leaves)
        self.key = PrivateKey("gateway", KEY, OWN, DIALECTS[0])
        self.derivers.know(self.key)
        for place in range(sessions):
            self.derivers.set_session(place, SESSION + place)
            self.derivers.give_back(place)
        self.derivers.start(self.event)

    def wait(self, count: int) -> dict[int, bytes | TokenError]:
        """The next results, by number."""
        found: dict[int, bytes | TokenError] = {}
        while len(found) < count:
            assert select([self.event], [], [], PATIENCE)[0], "no result"
            os.eventfd_read(self.event)
            for number, result in self.derivers.take():
                found[number] = result if isinstance(result, TokenError) else bytes(result)
        return found

    def derive(self) -> bytes | TokenError:
        self.derivers.put(1, self.key, PUBLIC)
        return self.wait(1)[1]


@pytest.fixture
def holding() -> Iterator[Holding]:
    module = Holding()
    yield module
    module.let_go.release(1000)


def test_a_secret_comes_in_three_calls() -> None:
    bench = Bench(Module())
    assert [bench.derive() for _ in range(3)] == [SECRET] * 3
    assert bench.module.asked == ["derive", "value", "destroy"] * 3
    assert bench.module.point == PUBLIC
    assert list(bench.derivers.take()) == []


@pytest.mark.parametrize("ckr", [0x30, 0x150])
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("derive", "C_DeriveKey"),
        ("value", "C_GetAttributeValue of the derived secret"),
        ("destroy", "C_DestroyObject"),
    ],
)
def test_a_fault_names_its_call(call: str, said: str, ckr: int) -> None:
    module = Module()
    module.answers[call] = ckr
    fault = Bench(module).derive()
    if (call, ckr) == ("value", 0x150):
        assert isinstance(fault, KeyUnfit)
    else:
        assert isinstance(fault, TokenFault)
        assert fault.ckr == ckr
        assert said in str(fault)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    module = Module()
    module.length = length
    assert isinstance(Bench(module).derive(), KeyUnfit)


def test_a_secret_of_zeros_is_the_peers_fault() -> None:
    module = Module()
    module.secret = bytes(32)
    assert isinstance(Bench(module).derive(), PointRefused)


def test_a_point_of_low_order_never_reaches_the_module() -> None:
    bench = Bench(Module())
    with pytest.raises(PointRefused):
        bench.derivers.put(1, bench.key, bytes(32))
    assert bench.module.asked == []


@pytest.mark.parametrize(("leaves", "own", "swept"), [(True, OWN, True), (False, OWN, False), (True, SECRET, False)])
def test_what_a_module_leaves_is_overwritten(leaves: bool, own: bytes, swept: bool) -> None:
    module = Leaving()
    bench = Bench(module, leaves=leaves)
    bench.key.public_key = own
    bench.derivers.know(bench.key)
    ours = bytearray(SECRET)
    assert [bench.derive() for _ in range(20)] == [SECRET] * 20
    assert ours == SECRET
    assert module.copies() == [bytes(32) if swept else SECRET] * 40


def test_sessions_work_side_by_side(holding: Holding) -> None:
    bench = Bench(holding, 3)
    for number in range(1, 8):
        bench.derivers.put(number, bench.key, PUBLIC)
        if number <= 3:
            assert holding.begun.acquire(timeout=PATIENCE)
            assert bench.derivers.longest() > 0
    assert sorted(holding.sessions) == [SESSION, SESSION + 1, SESSION + 2]
    assert not holding.begun.acquire(blocking=False)
    holding.let_go.release(7)
    assert sorted(bench.wait(7)) == list(range(1, 8))
    assert bench.derivers.longest() == 0


def test_whoever_borrows_goes_before_the_derives_that_wait(holding: Holding) -> None:
    bench = Bench(holding)
    for number in range(200):
        bench.derivers.put(number, bench.key, PUBLIC)
    assert holding.begun.acquire(timeout=PATIENCE)
    assert bench.derivers.borrow(0.01) is None
    holding.let_go.release()
    borrowed: list[int | None] = []
    borrower = threading.Thread(target=lambda: borrowed.append(bench.derivers.borrow(PATIENCE)))
    borrower.start()
    while borrower.is_alive():
        if holding.begun.acquire(timeout=0.05):
            holding.let_go.release()
    assert borrowed == [0]
    assert 0 < len(holding.sessions) < 200
    assert bench.derivers.longest() == 0
    bench.derivers.give_back(0)
    holding.let_go.release(200)
    assert sorted(bench.wait(200)) == list(range(200))


class Queue:
    """A session with `count` derives for it, which have waited for a while; each ends when the test lets it go."""

    def __init__(self, holding: Holding, count: int) -> None:
        self.module = holding
        self.bench = Bench(holding)
        began = time.monotonic()
        for number in range(count):
            self.bench.derivers.put(number, self.bench.key, PUBLIC)
        assert holding.begun.acquire(timeout=PATIENCE)
        until(lambda: time.monotonic() > began + 2, "two seconds")

    def end_one(self) -> bool:
        """End the derive under way, wait for the next, and say whether its result has rung; take what has."""
        self.module.let_go.release()
        assert self.module.begun.acquire(timeout=PATIENCE)
        rung = self.rings()
        if rung:
            os.eventfd_read(self.bench.event)
            list(self.bench.derivers.take())
        return rung

    def end_until_held(self) -> None:
        """End derives until a result lies there that has not rung."""
        while self.end_one():
            pass

    def rings(self) -> bool:
        """Whether results have rung."""
        return bool(select([self.bench.event], [], [], 0)[0])


def test_results_are_gathered_while_derives_wait(holding: Holding) -> None:
    waiting = Queue(holding, 200)
    # The first has taken all of its time in the module, as the next would.
    assert waiting.end_one()
    assert sum(waiting.end_one() for _ in range(150)) < 75
    holding.let_go.release(200)
    until(lambda: list(waiting.bench.derivers.take())[-1:] != [], "the last results")


def test_a_fault_is_told_at_once(holding: Holding) -> None:
    waiting = Queue(holding, 200)
    waiting.end_until_held()
    holding.answers["derive"] = 0x30
    # The one under way has its answer already.
    holding.let_go.release(2)
    until(waiting.rings, "the fault")


def test_results_do_not_wait_for_a_derive_that_is_stuck(holding: Holding) -> None:
    waiting = Queue(holding, 200)
    waiting.end_until_held()
    until(lambda: waiting.bench.derivers.longest() > 0 and waiting.rings(), "the result before it")
    assert len(list(waiting.bench.derivers.take())) == 1


def test_results_do_not_wait_for_whoever_borrows(holding: Holding) -> None:
    waiting = Queue(holding, 200)
    waiting.end_until_held()
    borrower = threading.Thread(target=lambda: waiting.bench.derivers.borrow(PATIENCE))
    borrower.start()
    while borrower.is_alive():
        holding.let_go.release()
        holding.begun.acquire(timeout=0.05)
    until(waiting.rings, "the results before it")


def test_a_place_without_a_session_says_so() -> None:
    bench = Bench(Module())
    place = bench.derivers.borrow(PATIENCE)
    assert place == 0
    bench.derivers.put(1, bench.key, PUBLIC)
    bench.derivers.set_session(place, None)
    bench.derivers.give_back(place)
    fault = bench.wait(1)[1]
    assert isinstance(fault, TokenFault)
    assert fault.ckr == 0xB3
    assert bench.module.asked == []


def test_a_derive_that_waits_uses_the_key_as_it_is_then() -> None:
    bench = Bench(Module())
    bench.key.handle = KEY + 1
    bench.derivers.know(bench.key)
    place = bench.derivers.borrow(PATIENCE)
    assert place == 0
    bench.derivers.put(1, bench.key, PUBLIC)
    bench.key.handle = KEY
    bench.derivers.know(bench.key)
    bench.derivers.give_back(place)
    assert bench.wait(1)[1] == SECRET


def test_the_queue_is_bounded(holding: Holding) -> None:
    bench = Bench(holding)
    number = 0
    with pytest.raises(queue.Full):
        for number in range(10_000):
            bench.derivers.put(number, bench.key, PUBLIC)
    assert number >= 1024
    holding.let_go.release(number + 1)
    assert sorted(bench.wait(number)) == list(range(number))
    assert bench.derive() == SECRET


def _threads() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


def test_the_threads_end_with_what_was_asked(holding: Holding) -> None:
    before = _threads()
    bench = Bench(holding, 2)
    mine = _threads() - before
    assert len(mine) == 2
    for number in range(3):
        bench.derivers.put(number, bench.key, PUBLIC)
    bench.derivers.end()
    with pytest.raises(TokenFault, match="closed"):
        bench.derivers.put(9, bench.key, PUBLIC)
    holding.let_go.release(3)
    assert sorted(bench.wait(3)) == [0, 1, 2]
    until(lambda: not mine & _threads(), "the end of the threads")


def test_one_that_is_stuck_outlives_its_pool_and_harms_nobody(holding: Holding) -> None:
    before = _threads()
    bench = Bench(holding, 2)
    mine = _threads() - before
    bench.derivers.put(1, bench.key, PUBLIC)
    assert holding.begun.acquire(timeout=PATIENCE)
    del bench.derivers
    gc.collect()
    until(lambda: len(mine & _threads()) == 1, "the end of the idle thread")
    holding.let_go.release()
    until(lambda: not mine & _threads(), "the end of the other thread")


def test_what_still_waits_goes_with_its_pool(holding: Holding) -> None:
    before = _threads()
    bench = Bench(holding)
    mine = _threads() - before
    for number in range(3):
        bench.derivers.put(number, bench.key, PUBLIC)
    assert holding.begun.acquire(timeout=PATIENCE)
    del bench.derivers
    gc.collect()
    holding.let_go.release(3)
    until(lambda: not mine & _threads(), "the end of the thread")
    assert holding.asked.count("derive") == 1
