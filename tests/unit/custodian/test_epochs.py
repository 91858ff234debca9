"""Which PSK is tried with whom: rotation with an overlap, migration from none, and no way back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.custodian.support import SECOND, Disk, Driver, SoftwarePeer, SoftwareVault, other_psk
from wghsm.custodian.epochs import Epochs, Offer, Record, next_offer
from wghsm.custodian.rules import Times
from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.constants import REKEY_TIMEOUT

_PRIVATE = bytes(range(1, 33))
_DAY = 86_400 * SECOND
_OVERLAP = 14 * _DAY
_KEY = b"k" * 32
_NONE = m.PskNone()


def _derived(epoch: int) -> m.PskDerived:
    return m.PskDerived(epoch)


def _wrapped(epoch: int, previous: int | None = None) -> m.PskWrapped:
    if previous is None:
        return m.PskWrapped(epoch, b"%060d" % epoch)
    return m.PskWrapped(epoch, b"%060d" % epoch, previous, b"%060d" % previous)


class TestChoices:
    def test_none_stays_none(self) -> None:
        epochs = Epochs({}, _OVERLAP)
        assert epochs.told(_KEY, _NONE, 0) is None
        assert epochs.choices(_KEY, _NONE, 0, migrate=True) == (_NONE,)
        assert epochs.confirm(_KEY, _NONE) is None

    def test_the_first_epoch_has_none_before_it(self) -> None:
        epochs = Epochs({}, _OVERLAP)
        assert epochs.told(_KEY, _derived(0), 5) == Record(None, 0, 5)
        assert epochs.choices(_KEY, _derived(0), 5) == (_derived(0),)

    def test_the_epoch_before_it_is_usable_for_the_overlap(self) -> None:
        epochs = Epochs({}, _OVERLAP)
        epochs.told(_KEY, _derived(0), 0)
        assert epochs.told(_KEY, _derived(1), _DAY) == Record(None, 1, _DAY)
        assert epochs.told(_KEY, _derived(1), 2 * _DAY) is None
        assert epochs.choices(_KEY, _derived(1), _DAY + _OVERLAP - 1) == (_derived(1), _derived(0))
        assert epochs.choices(_KEY, _derived(1), _DAY + _OVERLAP) == (_derived(1),)

    def test_a_confirmed_epoch_ends_it_for_good(self) -> None:
        epochs = Epochs({}, _OVERLAP)
        epochs.told(_KEY, _derived(1), 0)
        assert epochs.confirm(_KEY, _derived(0)) == Record(0, 1, 0)
        assert epochs.choices(_KEY, _derived(1), 1) == (_derived(1), _derived(0))
        assert epochs.confirm(_KEY, _derived(1)) == Record(1, 1, 0)
        assert epochs.confirm(_KEY, _derived(0)) is None
        assert epochs.choices(_KEY, _derived(1), 1) == (_derived(1),)
        assert epochs.told(_KEY, _derived(0), 2) is None
        assert epochs.choices(_KEY, _derived(0), 2) == ()
        assert epochs.is_outdated(_KEY, _derived(0))

    def test_the_epoch_that_the_peer_has_proven_is_the_one_before(self) -> None:
        epochs = Epochs({(_KEY, "derived"): Record(2, 2, 0)}, _OVERLAP)
        epochs.told(_KEY, _derived(7), _DAY)
        assert epochs.choices(_KEY, _derived(7), _DAY) == (_derived(7), _derived(2))

    def test_kinds_are_apart(self) -> None:
        epochs = Epochs({(_KEY, "derived"): Record(9, 9, 0)}, _OVERLAP)
        epochs.told(_KEY, _wrapped(0), 0)
        assert epochs.choices(_KEY, _wrapped(0), 0) == (_wrapped(0),)

    def test_a_wrapped_file_brings_its_previous_one(self) -> None:
        epochs = Epochs({}, _OVERLAP)
        epochs.told(_KEY, _wrapped(3, 2), 0)
        assert epochs.choices(_KEY, _wrapped(3, 2), 0) == (_wrapped(3, 2), _wrapped(2))
        epochs.confirm(_KEY, _wrapped(3, 2))
        assert epochs.choices(_KEY, _wrapped(3, 2), 0) == (_wrapped(3, 2),)
        assert epochs.choices(_KEY, _wrapped(4, 2), 0) == (_wrapped(4, 2),)

    @pytest.mark.parametrize("source", [_derived(0), _wrapped(0), m.PskObject("o")], ids=str)
    def test_none_is_tried_only_where_the_file_says_so_and_never_after_a_psk(self, source: m.PskSource) -> None:
        epochs = Epochs({}, _OVERLAP)
        epochs.told(_KEY, source, 0)
        assert epochs.choices(_KEY, source, 0) == (source,)
        assert epochs.choices(_KEY, source, 0, migrate=True) == (source, _NONE)
        assert epochs.choices(_KEY, source, _OVERLAP, migrate=True) == (source,)
        epochs.confirm(_KEY, source)
        assert epochs.choices(_KEY, source, 0, migrate=True) == (source,)


def test_the_next_offer_follows_one_that_came_to_nothing() -> None:
    choices = (_derived(1), _derived(0))
    assert next_offer(choices, None, 5, 90) == _derived(1)
    assert next_offer(choices, Offer(1, _derived(1), 0), 5, 90) == _derived(0)
    assert next_offer(choices, Offer(1, _derived(0), 0), 5, 90) == _derived(1)
    assert next_offer(choices, Offer(1, _derived(1), 0, confirmed=True), 5, 90) == _derived(1)
    assert next_offer(choices, Offer(1, _derived(1), 0), 90, 90) == _derived(1)
    assert next_offer(choices, Offer(1, _derived(5), 0), 5, 90) == _derived(1)
    assert next_offer(choices[:1], Offer(1, _derived(1), 0), 5, 90) == _derived(1)


def _peer(vault: SoftwareVault, source: m.PskSource, mixes: m.PskSource, *, migrate: bool = False) -> SoftwarePeer:
    """A peer that the file gives `source` and that mixes in the PSK of `mixes`."""
    secret = bytes(32) if mixes == _NONE else other_psk(mixes)
    return SoftwarePeer(7, vault.public_key, source, secret, migrate=migrate)


def _dial(driver: Driver, peer: SoftwarePeer, request: int) -> bool:
    """One attempt of the peer as initiator; if it understands our answer, its data confirms the session."""
    driver.advance(REKEY_TIMEOUT)
    answer = driver.ask(peer.initiation(request, driver.unix))
    if not isinstance(answer, m.InitiationAccepted) or isinstance(peer.finish(answer), Rejected):
        return False
    driver.confirm(driver.installs[-1])
    return True


def _called(driver: Driver, peer: SoftwarePeer, request: int) -> bool:
    """One attempt of ours."""
    driver.advance(REKEY_TIMEOUT)
    created = driver.ask(m.CreateInitiation(request, 7, request, 0))
    if not isinstance(created, m.InitiationCreated):
        return False
    response, keys, _ = peer.respond(request + 1, created)
    if not isinstance(driver.ask(response), m.ResponseAccepted):
        return False
    assert driver.installs[-1].keys.send == keys.receive
    return True


@pytest.mark.parametrize("attempt", [_dial, _called])
def test_a_peer_that_has_not_moved_is_served_until_it_moves(attempt: object) -> None:
    assert callable(attempt)
    vault = SoftwareVault(_PRIVATE)
    driver, old = Driver(vault), _peer(vault, _derived(4), _derived(4))
    driver.add(old)
    assert attempt(driver, old, 10)
    assert driver.shown == {7: 6}
    old.source = _derived(5)
    driver.add(old)
    tries = [attempt(driver, old, number) for number in range(20, 28, 2)]
    assert tries == ([True] * 4 if attempt is _called else [False, True, False, True])
    assert driver.shown == {7: 6}
    moved = _peer(vault, _derived(5), _derived(5))
    assert attempt(driver, moved, 30)
    assert driver.shown == {7: 7}
    assert not any(attempt(driver, old, number) for number in range(40, 48, 2))
    assert driver.disk.psks[old.public, "derived"].confirmed == 5


def test_an_older_epoch_is_refused_also_by_the_next_custodian() -> None:
    vault, disk = SoftwareVault(_PRIVATE), Disk()
    driver, peer = Driver(vault, disk), _peer(vault, _derived(5), _derived(5))
    driver.add(peer)
    assert _dial(driver, peer, 1)
    again, old = Driver(vault, disk, incarnation=2), _peer(vault, _derived(4), _derived(4))
    again.advance(_DAY)
    again.add(old)
    assert not _dial(again, old, 1)
    assert not _called(again, old, 2)
    assert again.counts[Counter.PSK_OUTDATED] == 2
    assert again.shown == {7: 7}
    assert "epoch 5" in again.reports[0]
    assert "epoch 5, the gateway file says 4" in again.reports[0]


def test_the_overlap_ends_by_the_wall_clock_also_over_a_restart() -> None:
    vault, disk = SoftwareVault(_PRIVATE), Disk()
    first, peer = Driver(vault, disk), _peer(vault, _derived(1), _derived(0))
    first.add(peer)
    assert _called(first, peer, 1)
    for days, works in ((13, True), (15, False)):
        driver = Driver(vault, disk, incarnation=2)
        driver.unix = first.unix + days * _DAY
        driver.add(peer)
        assert _called(driver, peer, 3) is works


def test_a_peer_without_a_psk_moves_once() -> None:
    vault = SoftwareVault(_PRIVATE)
    driver = Driver(vault)
    bare = _peer(vault, _derived(0), _NONE, migrate=True)
    driver.add(bare)
    assert _called(driver, bare, 1)
    assert driver.shown == {7: 1}
    assert not _dial(driver, bare, 3)
    assert _dial(driver, bare, 4)
    moved = _peer(vault, _derived(0), _derived(0), migrate=True)
    assert _called(driver, moved, 5)
    assert driver.shown == {7: 2}
    assert not any(_called(driver, bare, number) for number in (7, 9))
    assert not any(_dial(driver, bare, number) for number in (11, 12, 13))


def test_without_the_word_of_the_file_none_is_no_psk_at_all() -> None:
    vault = SoftwareVault(_PRIVATE)
    driver, bare = Driver(vault), _peer(vault, _derived(0), _NONE)
    driver.add(bare)
    assert not any(_called(driver, bare, number) for number in (1, 3))
    assert not any(_dial(driver, bare, number) for number in (5, 6, 7))


def test_a_confirmation_counts_once_and_for_the_last_offer_only() -> None:
    vault = SoftwareVault(_PRIVATE)
    driver, peer = Driver(vault), _peer(vault, _derived(1), _derived(1))
    driver.add(peer)
    driver.ask(peer.initiation(1, driver.unix))
    first = driver.installs[-1]
    driver.advance(REKEY_TIMEOUT)
    driver.ask(peer.initiation(2, driver.unix))
    driver.confirm(first)
    assert not driver.shown
    assert driver.core.confirm_session(m.ConfirmSession(driver.installs[-1].session, 8)) == []
    driver.confirm(driver.installs[-1])
    assert driver.shown == {7: 2}
    assert driver.core.confirm_session(m.ConfirmSession(driver.installs[-1].session, 7)) == []


def test_a_wrong_response_leaves_both_epochs_to_the_right_one() -> None:
    vault = SoftwareVault(_PRIVATE)
    driver, peer = Driver(vault), _peer(vault, _derived(1), _derived(0))
    driver.add(peer)
    created = driver.ask(m.CreateInitiation(1, 7, 1, 0))
    assert isinstance(created, m.InitiationCreated)
    forged = m.AcceptResponse(2, created.handle, bytes(range(32)), bytes(16), 1)
    vault.points.clear()
    assert driver.ask(forged) == m.Refused(2)
    assert len(vault.points) == 1, "one derive, however many PSKs are tried"
    response, _, _ = peer.respond(3, created)
    assert isinstance(driver.ask(response), m.ResponseAccepted)
    assert driver.disk.psks[peer.public, "derived"] == Record(0, 1, driver.unix)


def test_an_open_handle_is_no_way_back() -> None:
    vault = SoftwareVault(_PRIVATE)
    driver, old, moved = Driver(vault), _peer(vault, _derived(1), _derived(0)), _peer(vault, _derived(1), _derived(1))
    driver.add(old)
    assert isinstance(driver.ask(moved.initiation(1, driver.unix)), m.InitiationAccepted)
    created = driver.ask(m.CreateInitiation(2, 7, 1, 0))
    assert isinstance(created, m.InitiationCreated)
    response, _, _ = old.respond(3, created)
    driver.confirm(driver.installs[-1])
    assert driver.ask(response) == m.Refused(3)
    assert driver.counts[Counter.BAD_RESPONSE] == 1
    right, _, _ = moved.respond(4, created)
    assert isinstance(driver.ask(right), m.ResponseAccepted)


def test_an_old_response_that_a_worker_has_already_is_refused_in_the_end() -> None:
    vault = SoftwareVault(_PRIVATE)
    driver, old, moved = Driver(vault), _peer(vault, _derived(1), _derived(0)), _peer(vault, _derived(1), _derived(1))
    driver.add(old)
    driver.ask(moved.initiation(1, driver.unix))
    created = driver.ask(m.CreateInitiation(2, 7, 1, 0))
    assert isinstance(created, m.InitiationCreated)
    response, _, _ = old.respond(3, created)
    driver.send(response)
    driver.work()
    driver.confirm(driver.installs[-1])
    driver.settle()
    assert driver.answers[-1] == m.Refused(3)
    assert driver.counts[Counter.PSK_OUTDATED] == 1
    assert len(driver.installs) == 1


def test_what_is_shown_belongs_to_the_files_kind() -> None:
    vault = SoftwareVault(_PRIVATE)
    driver, peer = Driver(vault), _peer(vault, _derived(3), _derived(3))
    driver.add(peer)
    assert _called(driver, peer, 1)
    assert driver.shown == {7: 5}
    driver.add(peer)
    assert driver.shown == {7: 5}
    driver.add(_peer(vault, m.PskObject("o"), _NONE))
    assert driver.shown == {7: 0}
    driver.add(peer)
    assert driver.shown == {7: 5}


@dataclass
class _Site:
    """A peer in the machine below: the epoch it mixes in, and the highest one that it has proven."""

    has: int = 0
    proven: int | None = None
    attempts: list[bool] = field(default_factory=list)


class Rotation(RuleBasedStateMachine):
    """The file's epoch, the peer's epoch, time, restarts and lost messages in any order."""

    @initialize()
    def begin(self) -> None:
        self.vault = SoftwareVault(_PRIVATE)
        self.disk = Disk()
        self.incarnation = 1
        self.request = 0
        self.site = _Site()
        self.epoch = 0
        self.since = 0
        self.driver = Driver(self.vault, self.disk, times=Times(psk_overlap=_OVERLAP))
        self.since = self.driver.unix
        self._tell()

    @rule(epoch=st.integers(0, 4))
    def the_file_changes(self, epoch: int) -> None:
        if epoch != self.epoch:
            outdated = self.site.proven is not None and epoch < self.site.proven
            self.epoch = epoch
            known = self.disk.psks.get((self._peer().public, "derived"))
            if not outdated and (known is None or known.newest != epoch):
                self.since = self.driver.unix
            elif known is not None:
                self.since = known.since
        self._tell()

    @rule(epoch=st.integers(0, 4))
    def the_peer_moves(self, epoch: int) -> None:
        self.site.has = epoch

    @rule(days=st.integers(1, 8))
    def time_passes(self, days: int) -> None:
        self.driver.advance(days * _DAY)

    @rule()
    def the_custodian_is_replaced(self) -> None:
        self.incarnation += 1
        before = self.driver
        self.driver = Driver(self.vault, self.disk, self.incarnation, times=Times(psk_overlap=_OVERLAP))
        self.driver.now, self.driver.unix = before.now, before.unix
        self._tell()

    @rule(lost=st.booleans())
    def the_peer_dials(self, lost: bool) -> None:
        self.request += 2
        peer = self._peer()
        if lost:
            self.driver.advance(REKEY_TIMEOUT)
            self.driver.ask(peer.initiation(self.request, self.driver.unix))
            return
        usable = self._usable()
        tries = [_dial(self.driver, peer, self.request + 100_000 * n) for n in range(2)]
        assert any(tries) is usable, (tries, self.epoch, self.site, self.disk.psks)
        self._took(any(tries))

    @rule()
    def the_peer_is_called(self) -> None:
        self.request += 2
        usable = self._usable()
        assert _called(self.driver, self._peer(), self.request) is usable
        self._took(usable)

    @invariant()
    def what_is_proven_is_on_disk(self) -> None:
        if hasattr(self, "disk") and self.site.proven is not None:
            assert self.disk.psks[self._peer().public, "derived"].confirmed == self.site.proven

    def _usable(self) -> bool:
        proven, has, epoch = self.site.proven, self.site.has, self.epoch
        if proven is not None and (epoch < proven or has < proven):
            return False
        if has == epoch:
            return True
        before = epoch - 1 if proven is None else proven
        # The attempts themselves take a few seconds.
        inside = self.driver.unix + 20 * SECOND - self.since < _OVERLAP
        return has == before and proven != epoch and has < epoch and inside

    def _took(self, usable: bool) -> None:
        if usable:
            self.site.proven = max(self.site.has, self.site.proven or 0)

    def _peer(self) -> SoftwarePeer:
        return _peer(self.vault, _derived(self.epoch), _derived(self.site.has))

    def _tell(self) -> None:
        self.driver.add(self._peer())


Rotation.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestRotation = Rotation.TestCase
