"""The rules under any sequence of events: hypothesis drives the machine, software peers and a simulated clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.custodian.support import SECOND, Disk, Driver, SoftwarePeer, SoftwareVault
from wghsm.custodian.rules import Rules, WallClock
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.constants import REKEY_TIMEOUT

_PEERS = 3
_indexes = st.integers(0, 1000)


class Life(RuleBasedStateMachine):
    """Custodians one after the other over one disk; jobs and landings run in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.vault = SoftwareVault(bytes(range(1, 33)))
        sources: list[m.PskSource] = [m.PskNone(), m.PskDerived(2), m.PskObject("o")]
        self.peers = []
        for slot, source in enumerate(sources):
            secret = b"" if isinstance(source, m.PskNone) else bytes([slot]) * 32
            peer = SoftwarePeer(slot, self.vault.public_key, source, secret)
            self.vault.psks[peer.public, source] = secret
            self.peers.append(peer)
        self.request = 0
        self.incarnation = 0
        self.asked: set[int] = set()
        self.sent: list[m.AcceptInitiation] = []
        self.responses: list[m.AcceptResponse] = []
        self.accepted: set[bytes] = set()
        self.numbers: set[int] = set()
        self.own: list[bytes] = []
        self.expected: dict[int, tuple[bytes, bytes]] = {}
        self.last_created: dict[int, int] = {}
        self.seen = self.seen_installs = 0
        self.driver = Driver(self.vault, Disk())
        self._start()

    def _start(self) -> None:
        before, self.incarnation = self.driver, self.incarnation + 1
        self.driver = Driver(self.vault, before.disk, self.incarnation, cache=self.incarnation % 2 == 0)
        self.driver.now, self.driver.unix = before.now, before.unix
        self.driver.add(*self.peers)
        self.seen = self.seen_installs = 0
        self.asked.clear()
        self.last_created.clear()

    def _ask(self) -> int:
        self.request += 1
        self.asked.add(self.request)
        return self.request

    @rule(slot=st.integers(0, _PEERS - 1), skew=st.integers(-SECOND, SECOND))
    def a_peer_initiates(self, slot: int, skew: int) -> None:
        message = self.peers[slot].initiation(self._ask(), self.driver.unix + skew)
        self.sent.append(message)
        self.driver.send(message)

    @precondition(lambda self: self.sent)
    @rule(place=_indexes)
    def somebody_replays(self, place: int) -> None:
        old = self.sent[place % len(self.sent)]
        again = m.AcceptInitiation(self._ask(), old.ephemeral, old.static, old.timestamp, 1, 2, old.identity)
        self.sent.append(again)
        self.driver.send(again)

    @rule(slot=st.integers(0, _PEERS - 1))
    def we_initiate(self, slot: int) -> None:
        self.driver.send(m.CreateInitiation(self._ask(), slot, 9, 0))

    @precondition(lambda self: self.responses)
    @rule(place=_indexes, forged=st.booleans())
    def a_response_comes(self, place: int, forged: bool) -> None:
        old = self.responses[place % len(self.responses)]
        empty = bytes(16) if forged else old.empty
        self.driver.send(m.AcceptResponse(self._ask(), old.handle, old.ephemeral, empty, old.remote_index))

    @precondition(lambda self: self.driver.jobs)
    @rule(place=_indexes)
    def a_worker_works(self, place: int) -> None:
        self.driver.work(place % len(self.driver.jobs))

    @precondition(lambda self: self.driver.landings)
    @rule(place=_indexes)
    def a_result_lands(self, place: int) -> None:
        self.driver.land(place % len(self.driver.landings))

    @rule()
    def all_comes_to_rest(self) -> None:
        self.driver.settle()

    @rule(nanoseconds=st.sampled_from([10**6, 25 * 10**6, SECOND, 5 * SECOND, 100 * SECOND]))
    def time_goes_by(self, nanoseconds: int) -> None:
        self.driver.advance(nanoseconds)

    @rule(seconds=st.integers(-100_000, 100_000))
    def somebody_sets_the_wall_clock(self, seconds: int) -> None:
        self.driver.unix += seconds * SECOND

    @rule(slot=st.integers(0, _PEERS - 1), back=st.booleans())
    def a_peer_is_removed(self, slot: int, back: bool) -> None:
        self.driver.tell(m.CustodianPeers(0, [self.peers[slot].told] if back else [], [slot]))
        # A slot that was given anew has no memory of own initiations.
        self.last_created.pop(slot, None)

    @rule(slot=st.integers(0, _PEERS - 1))
    def a_peer_is_added(self, slot: int) -> None:
        self.driver.add(self.peers[slot])

    @rule()
    def the_handshake_process_dies(self) -> None:
        self.driver.core.new_handshake_process()
        self.asked.clear()

    @rule()
    def the_custodian_dies(self) -> None:
        self._start()

    @invariant()
    def what_came_out_is_right(self) -> None:
        driver = self.driver
        for install in driver.installs[self.seen_installs :]:
            assert install.session >> 40 == self.incarnation
            assert install.session not in self.numbers
            self.numbers.add(install.session)
            if install.initiator:
                assert self.expected[install.remote_index] == (bytes(install.keys.send), bytes(install.keys.receive))
        self.seen_installs = len(driver.installs)
        for answer in driver.answers[self.seen :]:
            self._check(answer)
        self.seen = len(driver.answers)
        if not driver.jobs and not driver.landings:
            assert not self.asked

    def _check(self, answer: Any) -> None:
        # One answer for each request, and none that was not asked by this handshake process.
        assert answer.request in self.asked
        self.asked.remove(answer.request)
        if isinstance(answer, m.InitiationAccepted):
            message = next(sent for sent in self.sent if sent.request == answer.request)
            assert message.ephemeral not in self.accepted
            self.accepted.add(message.ephemeral)
        elif isinstance(answer, m.InitiationCreated):
            assert answer.handle not in self.numbers
            self.numbers.add(answer.handle)
            before = self.last_created.get(answer.peer)
            assert before is None or answer.handle > before
            self.last_created[answer.peer] = answer.handle
            self._answer(answer)

    def _answer(self, created: m.InitiationCreated) -> None:
        response, keys, timestamp = self.peers[created.peer].respond(len(self.responses), created)
        self.responses.append(response)
        self.expected[response.remote_index] = (bytes(keys.receive), bytes(keys.send))
        self.own.append(timestamp)
        assert len(set(self.own)) == len(self.own)

    @invariant()
    def one_handle_for_each_peer(self) -> None:
        rules = self.driver.core.rules
        handles = list(rules._handles.values())
        assert len({handle.peer.slot for handle in handles}) == len(handles)
        assert all(handle.peer.handle is handle and rules.is_current(handle.peer) for handle in handles)

    @invariant()
    def at_rest_nobody_is_busy(self) -> None:
        if not self.driver.jobs and not self.driver.landings:
            known = (self.driver.core.rules.by_slot(slot) for slot in range(_PEERS))
            assert not any(peer.busy for peer in known if peer)

    @invariant()
    def the_disk_knows_the_last_own_timestamp(self) -> None:
        assert not self.own or self.driver.disk.own is not None


Life.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestLife = Life.TestCase


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=50))
def test_own_timestamps_grow_whatever_the_clock_does(steps: list[int]) -> None:
    rules = Rules(1, {}, None)
    unix = 1_760_000_000 * SECOND
    stamps = []
    for step in steps:
        unix += step
        stamps.append(rules.own_timestamp(unix))
        # A custodian that starts anew goes on where the last one was.
        rules = Rules(1, {}, rules.last_own)
    assert all(earlier < later for earlier, later in pairwise(stamps))


@given(st.integers(1, 2**23), st.integers(1, 50))
def test_numbers_never_repeat(incarnation: int, count: int) -> None:
    first, second = Rules(incarnation, {}, None), Rules(incarnation + 1, {}, None)
    numbers = [rules.next_number() for rules in (first, second) for _ in range(count)]
    assert len(set(numbers)) == 2 * count
    assert all(number < 2**64 for number in numbers)


@given(st.lists(st.integers(0, 10 * SECOND), max_size=40))
def test_own_initiations_are_never_too_close(steps: list[int]) -> None:
    vault = SoftwareVault(bytes(range(1, 33)))
    driver, peer = Driver(vault), SoftwarePeer(0, vault.public_key)
    driver.add(peer)
    made = []
    for request, step in enumerate(steps):
        driver.advance(step)
        if isinstance(driver.ask(m.CreateInitiation(request, 0, 1, 0)), m.InitiationCreated):
            made.append(driver.now)
    pause = REKEY_TIMEOUT - driver.core.rules.times.jitter
    assert all(later - earlier >= pause for earlier, later in pairwise(made))


def test_a_key_has_one_slot_and_a_slot_one_key() -> None:
    rules = Rules(1, {}, None)
    alice, bob = b"a" * 32, b"b" * 32
    rules.update([m.CustodianPeer(1, alice, m.PskNone())], [])
    rules.update([m.CustodianPeer(2, alice, m.PskNone())], [])
    assert rules.by_slot(1) is None
    assert rules.by_key(alice) is rules.by_slot(2)
    rules.update([m.CustodianPeer(2, bob, m.PskNone())], [])
    assert rules.by_key(alice) is None
    known = rules.by_key(bob)
    rules.update([m.CustodianPeer(2, bob, m.PskDerived(1))], [])
    assert rules.by_slot(2) is known
    assert known is not None
    assert known.psk == m.PskDerived(1)
    rules.update([], [2, 3])
    assert rules.by_key(bob) is None
    assert not rules.is_current(known)


def test_a_removed_peer_keeps_its_greatest_timestamp() -> None:
    rules = Rules(1, {}, None)
    told = m.CustodianPeer(1, b"a" * 32, m.PskNone())
    rules.update([told], [])
    peer = rules.by_slot(1)
    assert peer is not None
    rules.consume(peer, b"\x40" + bytes(11), 5)
    rules.update([told], [1])
    again = rules.by_slot(1)
    assert again is not None
    assert again is not peer
    assert rules.judge(again, b"\x40" + bytes(11), 10**12) is not None
    assert rules.judge(again, b"\x40" + bytes(10) + b"\x01", 10**12) is None


def test_the_wall_clock_may_drift_but_not_jump() -> None:
    clock = WallClock(100)
    assert clock.jump(1000, 0) is None
    assert clock.jump(2100, 1000) is None
    assert clock.jump(3000, 1799) == 101
    assert clock.jump(4000, 2799) is None


def test_peers_answer_is_the_same_for_every_cause() -> None:
    assert m.Refused(1) == m.Refused(1)
    assert m.Refused.__struct_fields__ == ("request",)
    assert not isinstance(m.Refused(1), Rejected)
