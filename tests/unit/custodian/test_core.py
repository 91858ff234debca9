"""The three operations against software peers: what is accepted, what is refused and why, what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.custodian.support import SECOND, START_UNIX, Disk, Driver, SoftwarePeer, SoftwareVault, token_fault
from wghsm.custodian.core import MAX_PENDING
from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.constants import REKEY_ATTEMPT_TIME, REKEY_TIMEOUT
from wghsm.noise.curve import LOW_ORDER_POINTS
from wghsm.pkcs11_backend import TokenFault

if TYPE_CHECKING:
    from collections.abc import Callable

_PRIVATE = bytes(range(1, 33))
_PSK = bytes(range(100, 132))
_SOURCES: list[m.PskSource] = [m.PskNone(), m.PskDerived(3), m.PskObject("wghsm-psk-a")]


@pytest.fixture
def vault() -> SoftwareVault:
    return SoftwareVault(_PRIVATE)


def _peer(vault: SoftwareVault, slot: int = 7, source: m.PskSource | None = None) -> SoftwarePeer:
    peer = SoftwarePeer(slot, vault.public_key, source, _PSK if source and not isinstance(source, m.PskNone) else b"")
    if source is not None and not isinstance(source, m.PskNone):
        vault.psks[peer.public, source] = _PSK
    return peer


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("source", _SOURCES, ids=str)
def test_an_initiation_is_accepted(vault: SoftwareVault, source: m.PskSource, cache: bool) -> None:
    driver, peer = Driver(vault, cache=cache), _peer(vault, source=source)
    driver.add(peer)
    for number in range(3):
        driver.advance(SECOND)
        answer = driver.ask(peer.initiation(number, driver.unix))
        assert isinstance(answer, m.InitiationAccepted)
        install = driver.installs[-1]
        theirs = peer.finish(answer)
        assert not isinstance(theirs, Rejected)
        assert (install.keys.send, install.keys.receive) == (theirs.receive, theirs.send)
        assert (install.peer, install.initiator, install.created) == (7, False, driver.now)
        assert (install.local_index, install.remote_index) == (1000 + number, 2000 + number)
        assert answer.session == install.session
        driver.confirm(install)
    # One live derive for each, and static-static once if it may be kept.
    assert vault.points.count(peer.public) == (1 if cache else 3)
    assert len(vault.points) == 3 + vault.points.count(peer.public)
    assert len({install.session for install in driver.installs}) == 3
    assert (driver.core.accepted, driver.core.refused) == (3, 0)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("source", _SOURCES, ids=str)
def test_an_own_initiation_is_made_and_answered(vault: SoftwareVault, source: m.PskSource, cache: bool) -> None:
    driver, peer = Driver(vault, cache=cache), _peer(vault, source=source)
    driver.add(peer)
    stamps = []
    for number in range(3):
        created = driver.ask(m.CreateInitiation(number, 7, 50 + number, 0))
        assert isinstance(created, m.InitiationCreated)
        response, theirs, timestamp = peer.respond(number + 10, created)
        stamps.append(timestamp)
        accepted = driver.ask(response)
        assert isinstance(accepted, m.ResponseAccepted)
        install = driver.installs[-1]
        assert (install.keys.send, install.keys.receive) == (theirs.receive, theirs.send)
        assert (install.peer, install.initiator) == (7, True)
        assert (install.local_index, install.remote_index) == (50 + number, response.remote_index)
        driver.advance(REKEY_TIMEOUT)
    assert stamps == sorted(set(stamps))
    confirmed = {kind_key: record.confirmed for kind_key, record in driver.disk.psks.items()}
    expected = {m.PskDerived: {(peer.public, "derived"): 3}, m.PskObject: {(peer.public, "object"): 0}}
    assert confirmed == expected.get(type(peer.source), {})
    assert vault.points.count(peer.public) == (1 if cache else 3)


def test_timestamps_are_remembered_before_an_answer(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    driver.ask(peer.initiation(1, driver.unix))
    assert driver.order.index("Remember") < driver.order.index("Install")
    driver.order.clear()
    driver.ask(m.CreateInitiation(2, 7, 1, 0))
    assert driver.order.index("RememberOwn") < driver.order.index("Answer")


def test_a_replay_is_refused_also_by_the_next_custodian(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    message = peer.initiation(1, driver.unix)
    assert isinstance(driver.ask(message), m.InitiationAccepted)
    driver.advance(SECOND)
    assert driver.ask(message) == m.Refused(1)
    again = Driver(vault, driver.disk, incarnation=2)
    again.add(peer)
    assert again.ask(message) == m.Refused(1)
    assert again.counts[Counter.OLD_TIMESTAMP] == driver.counts[Counter.OLD_TIMESTAMP] == 1
    assert isinstance(again.ask(peer.initiation(2, driver.unix)), m.InitiationAccepted)


def test_two_initiations_within_20_ms_are_one(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    driver.ask(peer.initiation(1, driver.unix))
    driver.now += 19_999_999
    assert driver.ask(peer.initiation(2, driver.unix + SECOND)) == m.Refused(2)
    assert driver.counts[Counter.FLOOD] == 1
    driver.now += 1
    answer = driver.ask(peer.initiation(3, driver.unix + SECOND))
    assert isinstance(answer, m.InitiationAccepted)


@pytest.mark.parametrize("point", sorted(LOW_ORDER_POINTS), ids=lambda point: point.hex()[:8])
def test_low_order_points_never_reach_the_token(vault: SoftwareVault, point: bytes) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    created = driver.ask(m.CreateInitiation(1, 7, 1, 0))
    assert isinstance(created, m.InitiationCreated)
    vault.points.clear()
    for shown in (point, point[:-1] + bytes((point[-1] | 0x80,))):
        initiation = m.AcceptInitiation(2, shown, bytes(48), bytes(28), 1, 2, vault.public_key)
        assert driver.ask(initiation) == m.Refused(2)
        response = m.AcceptResponse(3, created.handle, shown, bytes(16), 1)
        assert driver.ask(response) == m.Refused(3)
    assert driver.counts[Counter.LOW_ORDER_POINT] == 4
    assert not vault.points
    assert not driver.suspects


@pytest.mark.parametrize(
    ("ephemeral", "static", "timestamp"), [(31, 48, 28), (33, 48, 28), (32, 47, 28), (32, 48, 29), (0, 0, 0)]
)
def test_fields_of_a_wrong_length(vault: SoftwareVault, ephemeral: int, static: int, timestamp: int) -> None:
    driver = Driver(vault)
    message = m.AcceptInitiation(5, b"x" * ephemeral, b"x" * static, b"x" * timestamp, 1, 2, vault.public_key)
    assert driver.ask(message) == m.Refused(5)
    assert driver.counts[Counter.MALFORMED] == 1
    assert not vault.points


def test_whoever_is_not_a_peer_is_refused(vault: SoftwareVault) -> None:
    driver, stranger, forger = Driver(vault), _peer(vault, 9), _peer(vault, 7)
    assert driver.ask(stranger.initiation(1, driver.unix)) == m.Refused(1)
    assert driver.counts[Counter.UNKNOWN_PEER] == 1
    assert driver.ask(m.CreateInitiation(2, 9, 1, 0)) == m.Refused(2)
    assert driver.counts[Counter.UNKNOWN_PEER] == 2
    driver.add(forger)
    good = forger.initiation(3, driver.unix)
    bad_static = m.AcceptInitiation(3, good.ephemeral, bytes(48), good.timestamp, 1, 2, good.identity)
    assert driver.ask(bad_static) == m.Refused(3)
    assert driver.counts[Counter.BAD_STATIC] == 1
    bad_time = m.AcceptInitiation(4, good.ephemeral, good.static, bytes(28), 1, 2, good.identity)
    assert driver.ask(bad_time) == m.Refused(4)
    assert driver.counts[Counter.BAD_TIMESTAMP] == 1
    assert not driver.installs
    assert not driver.disk.greatest
    assert isinstance(driver.ask(good), m.InitiationAccepted)


def test_the_gateway_is_no_peer_of_itself(vault: SoftwareVault) -> None:
    driver = Driver(vault)
    driver.tell(m.CustodianPeers(1, [m.CustodianPeer(1, vault.public_key, m.PskNone())], []))
    assert driver.ask(m.CreateInitiation(1, 1, 1, 0)) == m.Refused(1)


def test_own_initiations_keep_their_distance(vault: SoftwareVault) -> None:
    driver, peer, other = Driver(vault), _peer(vault), _peer(vault, 8)
    driver.add(peer, other)
    assert isinstance(driver.ask(m.CreateInitiation(1, 7, 1, 0)), m.InitiationCreated)
    driver.advance(REKEY_TIMEOUT - driver.core.rules.times.jitter - 1)
    assert driver.ask(m.CreateInitiation(2, 7, 1, 0)) == m.Refused(2)
    assert driver.counts[Counter.TOO_SOON] == 1
    assert isinstance(driver.ask(m.CreateInitiation(3, 8, 1, 0)), m.InitiationCreated)
    driver.advance(1)
    assert isinstance(driver.ask(m.CreateInitiation(4, 7, 1, 0)), m.InitiationCreated)


def _created(driver: Driver, request: int = 1) -> m.InitiationCreated:
    created = driver.ask(m.CreateInitiation(request, 7, 1, 0))
    assert isinstance(created, m.InitiationCreated)
    return created


def _replace_by_creation(driver: Driver, _peer: SoftwarePeer) -> None:
    driver.advance(REKEY_TIMEOUT)
    _created(driver, 90)


def _replace_by_initiation(driver: Driver, peer: SoftwarePeer) -> None:
    assert isinstance(driver.ask(peer.initiation(91, driver.unix)), m.InitiationAccepted)


def _grow_old(driver: Driver, _peer: SoftwarePeer) -> None:
    driver.advance(REKEY_ATTEMPT_TIME + REKEY_TIMEOUT + 1)


def _sweep(driver: Driver, _peer: SoftwarePeer) -> None:
    driver.advance(REKEY_ATTEMPT_TIME + REKEY_TIMEOUT + 1)
    driver.core.rules.expire(driver.now)


def _remove(driver: Driver, _peer: SoftwarePeer) -> None:
    driver.tell(m.CustodianPeers(0, [], [7]))


def _change_psk(driver: Driver, peer: SoftwarePeer) -> None:
    driver.tell(m.CustodianPeers(0, [m.CustodianPeer(7, peer.public, m.PskDerived(9))], []))


def _restart_handshake_process(driver: Driver, _peer: SoftwarePeer) -> None:
    driver.core.new_handshake_process()


@pytest.mark.parametrize(
    "ending",
    [
        _replace_by_creation,
        _replace_by_initiation,
        _grow_old,
        _sweep,
        _remove,
        _change_psk,
        _restart_handshake_process,
    ],
)
def test_a_handle_ends(vault: SoftwareVault, ending: Callable[[Driver, SoftwarePeer], None]) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    created = _created(driver)
    response, _, _ = peer.respond(5, created)
    known = driver.core.rules.by_slot(7)
    assert known is not None
    assert known.handle is not None
    handle = known.handle
    ending(driver, peer)
    installed = len(driver.installs)
    assert driver.ask(response) == m.Refused(5)
    assert driver.counts[Counter.UNKNOWN_HANDLE] == 1
    assert len(driver.installs) == installed
    assert not any(handle.initiator._ephemeral_private)


@pytest.mark.parametrize("ending", [_remove, _change_psk, _restart_handshake_process])
def test_a_handle_ends_while_its_response_is_at_the_token(
    vault: SoftwareVault, ending: Callable[[Driver, SoftwarePeer], None]
) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    response, _, _ = peer.respond(5, _created(driver))
    known = driver.core.rules.by_slot(7)
    assert known is not None
    handle = known.handle
    assert handle is not None
    driver.send(response)
    driver.work()
    ending(driver, peer)
    driver.land()
    assert not driver.installs
    assert not any(handle.initiator._ephemeral_private)
    assert not known.busy
    refused = [] if ending is _restart_handshake_process else [m.Refused(5)]
    assert driver.answers[1:] == refused


def test_a_bad_response_changes_nothing(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    response, _, _ = peer.respond(5, _created(driver))
    forged = m.AcceptResponse(4, response.handle, response.ephemeral, bytes(16), 1)
    assert driver.ask(forged) == m.Refused(4)
    assert driver.counts[Counter.BAD_RESPONSE] == 1
    assert isinstance(driver.ask(response), m.ResponseAccepted)
    assert driver.ask(response) == m.Refused(5)
    assert len(driver.installs) == 1


def test_one_request_at_the_token_for_each_peer(vault: SoftwareVault) -> None:
    driver, peer, other = Driver(vault), _peer(vault), _peer(vault, 8)
    driver.add(peer, other)
    driver.send(m.CreateInitiation(1, 7, 1, 0))
    driver.send(m.CreateInitiation(2, 8, 1, 0))
    assert len(driver.jobs) == 2
    driver.send(peer.initiation(3, driver.unix))
    driver.work(2)
    driver.land()
    assert driver.answers == [m.Refused(3)]
    assert driver.counts[Counter.PEER_BUSY] == 1
    driver.settle()
    assert {type(answer) for answer in driver.answers[1:]} == {m.InitiationCreated}


def test_naming_a_peer_does_not_keep_it_out(vault: SoftwareVault) -> None:
    """With its static-static secret cached, a peer's place at the token needs more than its public key."""
    source = m.PskDerived(1)
    driver, peer = Driver(vault), _peer(vault, source=source)
    driver.add(peer)
    driver.ask(peer.initiation(1, driver.unix))
    driver.advance(SECOND)
    good = peer.initiation(2, driver.unix)
    forged = m.AcceptInitiation(3, good.ephemeral, good.static, bytes(28), 1, 2, good.identity)
    driver.send(forged)
    driver.send(good)
    driver.work(0)
    driver.work(0)
    driver.land(0)
    assert driver.answers[-1] == m.Refused(3)
    driver.settle()
    assert isinstance(driver.answers[-1], m.InitiationAccepted)


def test_a_token_fault_refuses_and_is_suspected(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault, source=m.PskObject("x"))
    driver.add(peer)
    vault.fault = token_fault()
    assert driver.ask(peer.initiation(1, driver.unix)) == m.Refused(1)
    assert driver.ask(m.CreateInitiation(2, 7, 1, 0)) == m.Refused(2)
    vault.fault = None
    driver.advance(REKEY_TIMEOUT)
    response, _, _ = peer.respond(3, _created(driver))
    vault.fault = token_fault()
    assert driver.ask(response) == m.Refused(3)
    assert len(driver.suspects) == driver.counts[Counter.TOKEN_FAULT] == 3
    assert all(isinstance(suspect, TokenFault) for suspect in driver.suspects)
    # The handle outlived the fault.
    vault.fault = None
    assert isinstance(driver.ask(response), m.ResponseAccepted)
    driver.core.available = False
    assert driver.ask(peer.initiation(4, driver.unix)) == m.Refused(4)
    assert not driver.jobs


def test_only_so_many_requests_wait(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    message = peer.initiation(1, driver.unix)
    for _ in range(MAX_PENDING + 3):
        driver.send(message)
    assert len(driver.jobs) == MAX_PENDING
    assert driver.counts[Counter.CUSTODIAN_BUSY] == 3
    driver.settle()
    assert len(driver.answers) == MAX_PENDING + 3
    assert len(driver.installs) == 1


def test_a_new_handshake_process_gets_no_old_answers(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    driver.send(peer.initiation(1, driver.unix))
    driver.core.new_handshake_process()
    driver.settle()
    driver.send(m.CreateInitiation(2, 7, 1, 0))
    driver.core.new_handshake_process()
    driver.settle()
    assert not driver.answers
    assert not driver.installs
    driver.advance(REKEY_TIMEOUT)
    assert isinstance(driver.ask(peer.initiation(3, driver.unix)), m.InitiationAccepted)


def test_the_static_static_cache_is_wiped_with_the_peer(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    driver.ask(peer.initiation(1, driver.unix))
    known = driver.core.rules.by_slot(7)
    assert known is not None
    (kept,) = known.static_static.values()
    assert any(kept)
    driver.tell(m.CustodianPeers(0, [], [7]))
    assert not any(kept)
    assert not known.static_static


def test_a_jump_of_the_wall_clock_is_told_before_it_is_used(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    _created(driver)
    driver.advance(REKEY_TIMEOUT)
    driver.unix += 3 * 86_400 * SECOND
    driver.order.clear()
    _created(driver, 2)
    assert driver.order == ["Report", "RememberOwn", "Answer", "Used"]
    assert "forwards by 3.0 days" in driver.reports[0]
    driver.advance(REKEY_TIMEOUT)
    driver.unix = START_UNIX
    _created(driver, 3)
    assert "backwards" in driver.reports[1]
    assert len(driver.reports) == 2


def test_a_wall_clock_far_behind_the_last_own_timestamp_is_told(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault, Disk(own=START_UNIX + 2 * 86_400 * SECOND)), _peer(vault)
    driver.add(peer)
    _created(driver)
    assert "2.0 days behind" in driver.reports[0]
    assert driver.disk.own is not None
    assert driver.disk.own > START_UNIX + 2 * 86_400 * SECOND
    driver.advance(REKEY_TIMEOUT)
    _created(driver, 2)
    assert len(driver.reports) == 1


def test_each_authenticated_use_of_a_key_is_told_for_the_audit_log(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    accepted = driver.ask(peer.initiation(1, driver.unix))
    assert isinstance(accepted, m.InitiationAccepted)
    driver.advance(REKEY_TIMEOUT)
    _created(driver, 2)
    (accept, create) = driver.used
    assert (accept.operation, accept.peer, accept.identity) == ("accept", peer.public, vault.public_key)
    assert (accept.session, accept.psk) == (accepted.session, peer.source)
    assert (create.operation, create.peer, create.session) == ("create", peer.public, 0)
    # A stranger, a replay and a peer that is not known any more leave no record: they are counted.
    driver.ask(peer.initiation(3, driver.unix - 100 * SECOND))
    driver.tell(m.CustodianPeers(0, [], [7]))
    driver.advance(REKEY_TIMEOUT)
    driver.ask(peer.initiation(4, driver.unix))
    assert len(driver.used) == 2


def test_no_handshake_is_made_while_the_log_that_is_required_cannot_be_kept(vault: SoftwareVault) -> None:
    driver, peer = Driver(vault), _peer(vault)
    driver.add(peer)
    driver.core.stop_handshakes(True)
    asked = len(vault.points)
    assert isinstance(driver.ask(peer.initiation(1, driver.unix)), m.Refused)
    assert isinstance(driver.ask(m.CreateInitiation(2, 7, 1, 0)), m.Refused)
    assert driver.counts[Counter.AUDIT_STOPPED] == 2
    assert len(vault.points) == asked
    driver.core.stop_handshakes(False)
    assert isinstance(driver.ask(peer.initiation(3, driver.unix)), m.InitiationAccepted)
