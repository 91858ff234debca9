"""Two identities at once: each handshake is bound to one, and what belongs to the peer is shared by both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.custodian.support import SECOND, Disk, Driver, SoftwarePeer, SoftwareVault
from wghsm.custodian.identities import Identities, choose
from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.constants import REKEY_TIMEOUT
from wghsm.noise.curve import public_key

_CURRENT, _PREVIOUS, _ABSENT = bytes(range(1, 33)), bytes(range(41, 73)), bytes(range(81, 113))
_OURS = (public_key(_CURRENT), public_key(_PREVIOUS))
_PSK = bytes(range(100, 132))


@pytest.fixture
def vault() -> SoftwareVault:
    return SoftwareVault(_CURRENT, previous=_PREVIOUS)


def _peer(identity: bytes, source: m.PskSource | None = None, slot: int = 7) -> SoftwarePeer:
    """A peer that is configured with one of our keys."""
    return SoftwarePeer(slot, identity, source, _PSK if source is not None else b"")


def _same(peer: SoftwarePeer, identity: bytes) -> SoftwarePeer:
    """The same peer, configured with another of our keys."""
    return SoftwarePeer(peer.slot, identity, peer.source, peer.secret)


def _created(driver: Driver, attempt: int = 0, request: int = 900) -> m.InitiationCreated:
    driver.advance(REKEY_TIMEOUT)
    created = driver.ask(m.CreateInitiation(request, 7, 1, attempt))
    assert isinstance(created, m.InitiationCreated)
    return created


def _accepted(driver: Driver, peer: SoftwarePeer, request: int = 1) -> None:
    driver.advance(SECOND)
    answer = driver.ask(peer.initiation(request, driver.unix))
    assert isinstance(answer, m.InitiationAccepted)
    theirs = peer.finish(answer)
    assert not isinstance(theirs, Rejected)
    assert (driver.installs[-1].keys.send, driver.installs[-1].keys.receive) == (theirs.receive, theirs.send)


class TestChoice:
    @given(attempt=st.integers(0, 1000), confirmed=st.sampled_from([None, *_OURS, public_key(_ABSENT)]))
    def test_three_and_three(self, attempt: int, confirmed: bytes | None) -> None:
        first = choose(_OURS, confirmed, 0)
        assert first == (confirmed if confirmed in _OURS else _OURS[0])
        other = next(one for one in _OURS if one != first)
        assert choose(_OURS, confirmed, attempt) == (first, other)[attempt // 3 % 2]

    @given(attempt=st.integers(0, 1000), confirmed=st.sampled_from([None, *_OURS]))
    def test_one_is_one(self, attempt: int, confirmed: bytes | None) -> None:
        assert choose(_OURS[:1], confirmed, attempt) == _OURS[0]

    def test_only_news_is_to_be_remembered(self) -> None:
        identities = Identities({b"a": _OURS[1]})
        assert not identities.confirm(b"a", _OURS[1])
        assert identities.confirm(b"a", _OURS[0])
        assert identities.confirm(b"b", _OURS[0])
        assert [identities.of(peer) for peer in (b"a", b"b", b"c")] == [_OURS[0], _OURS[0], None]


class TestResponder:
    @pytest.mark.parametrize("identity", _OURS)
    @pytest.mark.parametrize("cache", [True, False])
    def test_both_are_answered(self, vault: SoftwareVault, identity: bytes, cache: bool) -> None:
        driver, peer = Driver(vault, cache=cache), _peer(identity)
        driver.add(peer)
        for number in range(3):
            _accepted(driver, peer, number)
            assert driver.installs[-1].identity == identity
        assert vault.points.count(peer.public) == (1 if cache else 3)

    def test_a_message_counts_for_the_named_identity_only(self, vault: SoftwareVault) -> None:
        driver, peer = Driver(vault), _peer(_OURS[1])
        driver.add(peer)
        made = peer.initiation(1, driver.unix)
        fields = (made.ephemeral, made.static, made.timestamp, made.local_index, made.remote_index)
        assert driver.ask(m.AcceptInitiation(1, *fields, _OURS[0])) == m.Refused(1)
        assert driver.counts[Counter.BAD_STATIC] == 1
        assert isinstance(driver.ask(m.AcceptInitiation(2, *fields, _OURS[1])), m.InitiationAccepted)

    @pytest.mark.parametrize("identity", [public_key(_ABSENT), b"", bytes(32), _OURS[0][:8]])
    def test_an_identity_that_is_not_served_costs_nothing(self, vault: SoftwareVault, identity: bytes) -> None:
        driver, peer = Driver(vault), _peer(public_key(_ABSENT))
        driver.add(peer)
        made = peer.initiation(1, driver.unix)
        fields = (made.ephemeral, made.static, made.timestamp, made.local_index, made.remote_index)
        assert driver.ask(m.AcceptInitiation(1, *fields, identity)) == m.Refused(1)
        assert driver.counts == {Counter.UNKNOWN_IDENTITY: 1}
        assert not vault.points

    def test_timestamps_rise_over_both(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1])
        new = _same(old, _OURS[0])
        driver.add(old)
        _accepted(driver, old)
        driver.advance(SECOND)
        assert driver.ask(new.initiation(2, driver.unix - 2 * SECOND)) == m.Refused(2)
        assert driver.counts[Counter.OLD_TIMESTAMP] == 1
        _accepted(driver, new, 3)

    def test_an_own_initiation_under_the_other_is_void(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1])
        new = _same(old, _OURS[0])
        driver.add(old)
        response, _, _ = new.respond(901, _created(driver))
        _accepted(driver, old)
        assert driver.ask(response) == m.Refused(901)
        assert driver.counts[Counter.UNKNOWN_HANDLE] == 1

    def test_one_request_for_each_peer_whatever_the_identity(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1])
        driver.add(old)
        driver.send(m.CreateInitiation(1, 7, 1, 0))
        driver.send(old.initiation(2, driver.unix))
        driver.work(1)
        driver.land()
        assert driver.answers == [m.Refused(2)]
        assert driver.counts[Counter.PEER_BUSY] == 1

    @pytest.mark.parametrize("source", [m.PskDerived(3), m.PskObject("o"), m.PskWrapped(2, bytes(60))], ids=str)
    def test_psks_are_asked_for_with_the_handshakes_identity(self, vault: SoftwareVault, source: m.PskSource) -> None:
        driver, old = Driver(vault), _peer(_OURS[1], source)
        vault.psks[old.public, source] = _PSK
        driver.add(old)
        _accepted(driver, old)
        driver.confirm(driver.installs[-1])
        _accepted(driver, _same(old, _OURS[0]), 2)
        created = _created(driver)
        assert driver.ask(_same(old, _OURS[0]).respond(901, created)[0]) == m.ResponseAccepted(901, 7, (1 << 40) + 4)
        assert vault.asked_for == [_OURS[1], _OURS[0], _OURS[0]]

    def test_a_proven_epoch_holds_under_both(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1], m.PskDerived(3))
        vault.psks[old.public, m.PskDerived(3)] = _PSK
        driver.add(old)
        _accepted(driver, old)
        driver.confirm(driver.installs[-1])
        back = SoftwarePeer(7, _OURS[0], m.PskDerived(2), _PSK)
        driver.tell(m.CustodianPeers(0, [back.told], []))
        assert driver.ask(back.initiation(2, driver.unix + SECOND)) == m.Refused(2)
        assert driver.counts[Counter.PSK_OUTDATED] == 1


class TestInitiator:
    def test_who_was_never_seen_gets_the_current_one_first(self, vault: SoftwareVault) -> None:
        driver = Driver(vault)
        driver.add(_peer(_OURS[1]))
        made = [_created(driver, attempt).identity for attempt in range(9)]
        assert made == [_OURS[0]] * 3 + [_OURS[1]] * 3 + [_OURS[0]] * 3

    def test_a_response_confirms_the_identity(self, vault: SoftwareVault) -> None:
        driver, peer = Driver(vault), _peer(_OURS[1])
        driver.add(peer)
        created = _created(driver, 3)
        assert not driver.disk.identities
        assert isinstance(driver.ask(peer.respond(901, created)[0]), m.ResponseAccepted)
        assert driver.installs[-1].identity == _OURS[1]
        assert driver.disk.identities == {peer.public: _OURS[1]}
        assert driver.identities == {7: _OURS[1]}
        assert _created(driver).identity == _OURS[1]

    def test_a_proven_initiation_confirms_it_before_the_answer(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1])
        driver.add(old)
        _accepted(driver, old)
        assert driver.order.index("RememberIdentity") < driver.order.index("Install")
        assert _created(driver).identity == _OURS[1]
        driver.order.clear()
        _accepted(driver, old, 2)
        assert "RememberIdentity" not in driver.order
        _accepted(driver, _same(old, _OURS[0]), 3)
        assert _created(driver).identity == _OURS[0]
        assert driver.identities == {7: _OURS[0]}

    def test_a_replay_confirms_nothing(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1])
        driver.add(old)
        first = old.initiation(1, driver.unix)
        assert isinstance(driver.ask(first), m.InitiationAccepted)
        _accepted(driver, _same(old, _OURS[0]), 2)
        driver.advance(SECOND)
        assert isinstance(driver.ask(first), m.Refused)
        assert driver.disk.identities == {old.public: _OURS[0]}

    def test_it_is_known_after_a_restart_and_shown(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1])
        driver.add(old)
        _accepted(driver, old)
        again = Driver(vault, driver.disk, incarnation=2)
        again.add(old)
        assert again.identities == {7: _OURS[1]}
        assert _created(again).identity == _OURS[1]

    def test_own_timestamps_rise_over_both(self, vault: SoftwareVault) -> None:
        driver = Driver(vault)
        driver.add(_peer(_OURS[1]))
        stamps = []
        for attempt in range(9):
            created = _created(driver, attempt)
            driver.unix -= 10 * SECOND
            stamps.append(_same(_peer(_OURS[1]), created.identity).respond(901, created)[2])
        assert stamps == sorted(set(stamps))


class TestRetired:
    def test_it_is_refused_and_the_current_one_is_used(self) -> None:
        driver, old = Driver(SoftwareVault(_CURRENT, previous=_PREVIOUS)), _peer(_OURS[1])
        driver.add(old)
        _accepted(driver, old)
        later = Driver(SoftwareVault(_CURRENT), driver.disk, incarnation=2)
        later.add(old)
        later.advance(60 * SECOND)
        assert later.ask(old.initiation(2, later.unix)) == m.Refused(2)
        assert later.counts[Counter.UNKNOWN_IDENTITY] == 1
        assert _created(later).identity == _OURS[0]
        # Who used it last stays known until the peer has moved.
        assert later.identities == {7: _OURS[1]}
        _accepted(later, _same(old, _OURS[0]), 3)
        assert later.disk.identities == {old.public: _OURS[0]}

    def test_the_caches_of_both_are_apart_and_wiped(self, vault: SoftwareVault) -> None:
        driver, old = Driver(vault), _peer(_OURS[1])
        driver.add(old)
        _accepted(driver, old)
        _accepted(driver, _same(old, _OURS[0]), 2)
        known = driver.core.rules.by_slot(7)
        assert known is not None
        kept = dict(known.static_static)
        assert set(kept) == set(_OURS)
        assert len({bytes(secret) for secret in kept.values()}) == 2
        driver.core.rules.forget_all()
        assert not known.static_static
        assert not any(any(secret) for secret in kept.values())


@pytest.mark.parametrize("identity", _OURS)
def test_we_are_no_peer_of_ourselves(vault: SoftwareVault, identity: bytes) -> None:
    driver = Driver(vault, Disk())
    driver.tell(m.CustodianPeers(1, [m.CustodianPeer(7, identity, m.PskNone())], []))
    assert driver.ask(m.CreateInitiation(1, 7, 1, 0)) == m.Refused(1)
    assert driver.core.rules.by_slot(7) is None
