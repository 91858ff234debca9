"""Two identities at once in the handshake process: gates, own initiations, and what ends with a retired one."""

from __future__ import annotations

import os

import pytest

from wghsm.handshake import Limits
from wghsm.handshake.gate import CookieAnswer, Dropped, Gates
from wghsm.ipc import Counter, PeerField, Role, identity_number
from wghsm.ipc import messages as m
from wghsm.noise import CookieMaker, CookieReply, Initiation, Response
from wghsm.tunnel.sieve import Sieve, Verdict

from .bench import ELSEWHERE, MILLISECOND, OURS, SECOND, Bench, gates, public

OLD = bytes(range(100, 132))
NEW_NUMBER, OLD_NUMBER = identity_number(OURS), identity_number(OLD)
BOTH = m.Identity(OURS, OLD)


def _bench(peers: int = 1, limits: Limits | None = None) -> Bench:
    bench = Bench(peers, limits=limits)
    bench.says(Role.CUSTODIAN, BOTH)
    return bench


def _initiation(identity: bytes, index: int = 4242) -> bytes:
    return CookieMaker(identity).authenticate(Initiation(index, os.urandom(32), os.urandom(48), os.urandom(28)), 0)


def _response(identity: bytes, receiver: int) -> bytes:
    return CookieMaker(identity).authenticate(Response(4343, receiver, os.urandom(32), os.urandom(16)), 0)


def _accept(bench: Bench, identity: bytes, session: int, peer: int = 0) -> None:
    """The peer's handshake with one of our keys, up to message 2."""
    bench.datagram(_initiation(identity))
    (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    bench.says(Role.CUSTODIAN, m.InitiationAccepted(request.request, peer, session, os.urandom(32), os.urandom(16)))
    bench.says(Role.INGRESS, m.Installed(session))
    assert [one.data[0] for one in bench.sent()] == [2]
    bench.table.fields[peer, PeerField.LAST_RECEIVED] = bench.now


def _restart_custodian(bench: Bench, identity: m.Identity) -> None:
    bench.detach(Role.CUSTODIAN)
    bench.attach(Role.CUSTODIAN)
    bench.effects.clear()
    bench.says(Role.CUSTODIAN, identity)


def _forgotten(bench: Bench) -> list[int]:
    """Peers whose sessions both workers were told to destroy."""
    ends = [[one.peer for one in bench.told(role, m.ForgetSessions)] for role in (Role.EGRESS, Role.INGRESS)]
    assert ends[0] == ends[1]
    return ends[0]


def _created_for(bench: Bench) -> list[int]:
    return [request.peer for request in bench.told(Role.CUSTODIAN, m.CreateInitiation)]


# The gates.


def test_mac1_says_which_identity_is_meant() -> None:
    both, now = gates(OURS, OLD), 0
    for identity in (OURS, OLD):
        message = Initiation(7, bytes(32), bytes(48), bytes(28))
        data = CookieMaker(identity).authenticate(message, now)
        assert both.judge(message, data, ELSEWHERE, now, os.urandom, under_load=False) == identity
    stranger = CookieMaker(public(5)).authenticate(message, now)
    assert both.judge(message, stranger, ELSEWHERE, now, os.urandom, under_load=False) == Dropped(Counter.BAD_MAC1)


@pytest.mark.parametrize("identity", [OURS, OLD])
def test_a_cookie_reply_is_sealed_for_the_identity_that_was_meant(identity: bytes) -> None:
    bench = _bench(limits=Limits(load_mark=0))
    maker = CookieMaker(identity)
    message = Initiation(7, bytes(32), bytes(48), bytes(28))
    bench.datagram(maker.authenticate(message, 0))
    (sent,) = bench.sent()
    reply = CookieReply.decode(sent.data)
    assert isinstance(reply, CookieReply)
    assert maker.consume_reply(reply, 0) is None
    bench.datagram(maker.authenticate(message, 1))
    (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    assert request.identity == identity


def _under_load(judges: Gates, maker: CookieMaker) -> Dropped | CookieAnswer | bytes:
    """An initiation with the macs of `maker` comes under load; a cookie reply is taken in."""
    data = maker.authenticate(Initiation(7, bytes(32), bytes(48), bytes(28)), 0)
    message = Initiation.decode(data)
    assert isinstance(message, Initiation)
    verdict = judges.judge(message, data, ELSEWHERE, 0, os.urandom, under_load=True)
    if isinstance(verdict, CookieAnswer):
        reply = CookieReply.decode(verdict.data)
        assert isinstance(reply, CookieReply)
        assert maker.consume_reply(reply, 0) is None
    return verdict


def test_cookies_of_an_identity_that_stays_hold_on() -> None:
    both, maker = gates(OURS, OLD), CookieMaker(OURS)
    assert isinstance(_under_load(both, maker), CookieAnswer)
    both.serve((public(9), OURS))
    assert _under_load(both, maker) == OURS


def test_a_source_is_limited_over_both() -> None:
    both, makers = gates(OURS, OLD), [CookieMaker(OURS), CookieMaker(OLD)]
    for maker in makers:
        assert isinstance(_under_load(both, maker), CookieAnswer)
    verdicts = [_under_load(both, makers[turn % 2]) for turn in range(8)]
    assert verdicts == [OURS, OLD, OURS, OLD, OURS] + [Dropped(Counter.RATE_LIMITED)] * 3


# From message 1 to the session.


def test_the_custodian_is_told_which_identity_a_peer_means() -> None:
    bench = _bench()
    for identity in (OURS, OLD):
        bench.datagram(_initiation(identity))
    assert [one.identity for one in bench.told(Role.CUSTODIAN, m.AcceptInitiation)] == [OURS, OLD]


def test_a_response_must_be_for_the_identity_of_the_initiation() -> None:
    bench = _bench()
    bench.want()
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.made(request, identity=OLD)
    bench.datagram(_response(OURS, request.local_index))
    assert bench.table.counts[Counter.UNKNOWN_HANDSHAKE] == 1
    bench.datagram(_response(public(9), request.local_index))
    assert bench.table.counts[Counter.BAD_MAC1] == 1
    assert not bench.told(Role.CUSTODIAN, m.AcceptResponse)
    bench.datagram(_response(OLD, request.local_index))
    (finish,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
    bench.says(Role.CUSTODIAN, m.ResponseAccepted(finish.request, 0, 5))
    bench.says(Role.INGRESS, m.Installed(5))
    assert [one.identity for one in bench.core.indices.sessions(0)] == [OLD_NUMBER]
    assert bench.told(Role.EGRESS, m.Activate)


def test_an_initiation_of_no_served_identity_is_not_sent() -> None:
    bench = _bench()
    bench.want()
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.made(request, identity=public(9))
    assert not bench.sent()
    assert len(bench.core.indices) == 0


def test_initiations_that_were_not_answered_are_counted_over_all_wishes() -> None:
    bench = _bench()
    attempts = []
    for _ in range(8):
        # What is to be sent asks again and again, which starts the count of the timers anew.
        bench.want()
        for request in bench.told(Role.CUSTODIAN, m.CreateInitiation):
            attempts.append(request.attempt)
            bench.made(request)
        bench.wait(5400 * MILLISECOND)
    assert attempts == list(range(len(attempts)))
    assert len(attempts) >= 7
    bench.effects.clear()
    _accept(bench, OLD, 1)
    bench.wait(10 * SECOND)
    bench.want()
    assert [one.attempt for one in bench.told(Role.CUSTODIAN, m.CreateInitiation)] == [0]


def test_a_peer_that_answers_is_not_silent() -> None:
    bench = _bench()
    bench.establish()
    bench.wait(6 * SECOND)
    bench.want()
    assert [one.attempt for one in bench.told(Role.CUSTODIAN, m.CreateInitiation)] == [0]


# What ends with a retired identity.


def test_sessions_of_a_retired_identity_end_and_others_stay() -> None:
    bench = _bench(peers=3)
    _accept(bench, OLD, 1, peer=0)
    _accept(bench, OURS, 2, peer=1)
    _accept(bench, OLD, 3, peer=2)
    bench.wait(20 * SECOND)
    bench.table.fields[2, PeerField.LAST_RECEIVED] = bench.table.fields[2, PeerField.LAST_HANDSHAKE_RECEIVED] = 0
    bench.table.fields[2, PeerField.LAST_HANDSHAKE_SENT] = 0
    _restart_custodian(bench, m.Identity(OURS))
    assert _forgotten(bench) == [0, 2]
    assert [len(bench.core.indices.sessions(peer)) for peer in range(3)] == [0, 1, 0]
    bench.wait(SECOND)
    # With whom nothing went to and fro of late, nothing is begun.
    assert _created_for(bench) == [0]


def test_a_peer_keeps_its_sessions_under_the_identity_that_stays() -> None:
    bench = _bench(peers=2)
    for peer in (0, 1):
        _accept(bench, OLD, 1 + 10 * peer, peer=peer)
        bench.says(Role.INGRESS, m.SessionConfirmed(1 + 10 * peer, peer, bench.now))
        _accept(bench, OURS, 2 + 10 * peer, peer=peer)
    # The second has moved as far as message 2, and has not sent on its new session.
    bench.says(Role.INGRESS, m.SessionConfirmed(2, 0, bench.now))
    bench.wait(20 * SECOND)
    _restart_custodian(bench, m.Identity(OURS))
    for role in (Role.EGRESS, Role.INGRESS):
        assert bench.told(role, m.ForgetSessions) == [m.ForgetSessions(0, (2,)), m.ForgetSessions(1, (12,))]
    assert [[one.number for one in bench.core.indices.sessions(peer)] for peer in (0, 1)] == [[2], [12]]
    bench.wait(SECOND)
    # The first goes on as it is.
    assert _created_for(bench) == [1]
    assert not bench.core.indices.sessions(0)[0].initiator


@pytest.mark.parametrize("identity", [m.Identity(OURS, OLD), m.Identity(OLD, OURS), m.Identity(public(9), OLD)])
def test_a_restart_of_the_custodian_ends_nothing_that_stays(identity: m.Identity) -> None:
    bench = _bench()
    _accept(bench, OLD, 1)
    _restart_custodian(bench, identity)
    bench.wait(SECOND)
    assert _forgotten(bench) == []
    assert len(bench.core.indices.sessions(0)) == 1
    assert not _created_for(bench)


def test_who_has_moved_long_ago_keeps_its_session() -> None:
    bench = _bench()
    _accept(bench, OLD, 1)
    bench.wait(100 * SECOND)
    _accept(bench, OURS, 2)
    bench.wait(81 * SECOND)
    _restart_custodian(bench, m.Identity(OURS))
    assert _forgotten(bench) == []


def test_who_has_moved_just_now_begins_anew() -> None:
    bench = _bench()
    _accept(bench, OLD, 1)
    bench.wait(10 * SECOND)
    _accept(bench, OURS, 2)
    bench.wait(10 * SECOND)
    _restart_custodian(bench, m.Identity(OURS))
    assert _forgotten(bench) == [0]
    bench.wait(0)
    assert _created_for(bench) == [0]


def test_sessions_that_a_dead_ingress_took_along_may_live_on_in_egress() -> None:
    bench = _bench()
    _accept(bench, OLD, 1)
    bench.detach(Role.INGRESS)
    bench.attach(Role.INGRESS)
    assert not bench.core.indices.sessions(0)
    _restart_custodian(bench, m.Identity(OURS))
    assert _forgotten(bench) == [0]


def test_an_own_initiation_ends_with_its_identity() -> None:
    bench = _bench(peers=2)
    requests = []
    for peer, identity in ((0, OLD), (1, OURS)):
        bench.want(peer)
        (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
        bench.made(request, identity=identity)
        requests.append(request)
    bench.says(Role.CUSTODIAN, m.Identity(OURS))
    bench.datagram(_response(OLD, requests[0].local_index))
    bench.datagram(_response(OURS, requests[0].local_index))
    assert not bench.told(Role.CUSTODIAN, m.AcceptResponse)
    assert len(bench.core.indices) == 1
    bench.datagram(_response(OURS, requests[1].local_index))
    assert bench.told(Role.CUSTODIAN, m.AcceptResponse)


@pytest.mark.parametrize("installed", [True, False])
def test_a_session_whose_identity_is_retired_while_it_is_made(installed: bool) -> None:
    bench = _bench()
    bench.datagram(_initiation(OLD))
    (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    if installed:
        bench.says(Role.INGRESS, m.Installed(1))
    bench.says(Role.CUSTODIAN, m.Identity(OURS))
    bench.says(Role.CUSTODIAN, m.InitiationAccepted(request.request, 0, 1, os.urandom(32), os.urandom(16)))
    bench.says(Role.INGRESS, m.Installed(1))
    assert not bench.sent()
    assert set(_forgotten(bench)) == {0}
    assert len(bench.core.indices) == 0


def test_a_session_whose_identity_is_retired_before_ingress_has_it() -> None:
    bench = _bench()
    bench.want()
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.made(request, identity=OLD)
    bench.datagram(_response(OLD, request.local_index))
    (finish,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
    bench.says(Role.CUSTODIAN, m.ResponseAccepted(finish.request, 0, 5))
    _restart_custodian(bench, m.Identity(OURS))
    assert _forgotten(bench) == [0]
    bench.says(Role.INGRESS, m.Installed(5))
    assert not bench.told(Role.EGRESS, m.Activate)
    # Ingress has it only now.
    assert _forgotten(bench) == [0]
    assert len(bench.core.indices) == 0


# A handshake process that begins anew.


def _fresh(bench: Bench, sessions: list[tuple[int, int, int]], *, identity_first: bool) -> None:
    """A new core takes over sessions: (number, peer, identity's number)."""
    for role in (Role.CUSTODIAN, Role.EGRESS, Role.INGRESS):
        bench.attach(role)
    bench.effects.clear()
    if identity_first:
        bench.says(Role.CUSTODIAN, m.Identity(OURS))
    for sender in (Role.EGRESS, Role.INGRESS):
        told = [
            m.SessionInfo(number, peer, 10 + number, True, bench.now, "current", made if sender is Role.INGRESS else 0)
            for number, peer, made in sessions
        ]
        bench.says(sender, m.SessionSnapshot(told, [], True))
    if not identity_first:
        bench.says(Role.CUSTODIAN, m.Identity(OURS))


@pytest.mark.parametrize("identity_first", [True, False])
def test_a_new_process_ends_what_it_takes_over_of_another_identity(identity_first: bool) -> None:
    bench = Bench(peers=4, ready=False)
    for peer in range(4):
        bench.table.fields[peer, PeerField.LAST_RECEIVED] = bench.now
    sessions = [(1, 0, NEW_NUMBER), (2, 1, OLD_NUMBER), (3, 2, 0), (4, 3, NEW_NUMBER), (5, 3, OLD_NUMBER)]
    _fresh(bench, sessions, identity_first=identity_first)
    assert sorted(_forgotten(bench)) == [1, 2, 3]
    bench.wait(SECOND)
    assert sorted(_created_for(bench)) == [1, 2, 3]
    assert len(bench.core.indices.sessions(0)) == 1


@pytest.mark.parametrize("identity_first", [True, False])
def test_a_send_key_of_no_known_identity_ends(identity_first: bool) -> None:
    bench = Bench(peers=2, ready=False)
    for role in (Role.CUSTODIAN, Role.EGRESS, Role.INGRESS):
        bench.attach(role)
    if identity_first:
        bench.says(Role.CUSTODIAN, m.Identity(OURS))
    # Peer 0: ingress holds a newer one, which is not in use yet.
    new = m.SessionInfo(2, 0, 22, False, bench.now, "next", NEW_NUMBER)
    sends = [
        m.SessionInfo(1, 0, 99, False, bench.now, "current", 0),
        m.SessionInfo(2, 0, 98, False, bench.now, "next", 0),
    ]
    whole = m.SessionInfo(3, 1, 33, True, bench.now, "current", NEW_NUMBER)
    bench.says(Role.INGRESS, m.SessionSnapshot([new, whole], [], True))
    bench.says(Role.EGRESS, m.SessionSnapshot([*sends, whole], [], True))
    if not identity_first:
        bench.says(Role.CUSTODIAN, m.Identity(OURS))
    assert _forgotten(bench) == [0]


# What ingress is told, so that it drops early what would be dropped here.


def test_ingress_is_told_the_identities_and_each_new_cookie_secret() -> None:
    bench = Bench(limits=Limits(load_mark=0), ready=False)
    bench.says(Role.CUSTODIAN, BOTH)
    bench.attach(Role.INGRESS)
    assert bench.told(Role.INGRESS, m.Gates)[-1] == m.Gates((m.Gate(OURS), m.Gate(OLD)))
    for role in (Role.CUSTODIAN, Role.EGRESS):
        bench.attach(role)
    bench.says(Role.CUSTODIAN, BOTH)
    bench.told(Role.INGRESS, m.Gates)
    first = bench.now
    bench.datagram(_initiation(OLD))
    (told,) = bench.told(Role.INGRESS, m.Gates)
    ours, old = told.gates
    assert ours == m.Gate(OURS)
    assert (old.identity, len(old.secret), old.until) == (OLD, 32, first + 120 * SECOND)
    bench.wait(60 * SECOND)
    bench.datagram(_initiation(OLD))
    assert bench.told(Role.INGRESS, m.Gates) == []
    # It hears of the same one when it comes back, and of the next one when that is made.
    bench.attach(Role.INGRESS)
    assert bench.told(Role.INGRESS, m.Gates) == [told]
    bench.wait(61 * SECOND)
    bench.datagram(_initiation(OLD))
    (later,) = bench.told(Role.INGRESS, m.Gates)
    assert later.gates[1].secret != old.secret
    bench.says(Role.CUSTODIAN, m.Identity(OURS))
    assert bench.told(Role.INGRESS, m.Gates) == [m.Gates((m.Gate(OURS),))]


def test_what_ingress_is_told_judges_alike() -> None:
    """A cookie of the gate is one for the sieve, and no other."""
    bench = Bench(limits=Limits(load_mark=0))
    maker = CookieMaker(OURS)
    bench.datagram(maker.authenticate(Initiation(7, bytes(32), bytes(48), bytes(28)), 0))
    (told,) = bench.told(Role.INGRESS, m.Gates)
    reply = CookieReply.decode(bench.sent()[0].data)
    assert isinstance(reply, CookieReply)
    assert maker.consume_reply(reply, bench.now) is None
    shown = maker.authenticate(Initiation(7, bytes(32), bytes(48), bytes(28)), bench.now)
    sieve = Sieve(bytes(32))
    sieve.serve(told.gates)
    sieve.shut(bench.now)
    assert sieve.judge(shown, ((ELSEWHERE.host, ELSEWHERE.port), b""), bench.now) == Verdict.CROWDED
    assert sieve.judge(shown, ((ELSEWHERE.host, ELSEWHERE.port + 1), b""), bench.now) == Verdict.NO_ROOM
    assert sieve.judge(_initiation(OURS), ((ELSEWHERE.host, ELSEWHERE.port), b""), bench.now) == Verdict.NO_ROOM
