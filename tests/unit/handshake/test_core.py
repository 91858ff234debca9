"""Configuration, timers, endpoints, and processes that come and go."""

from __future__ import annotations

import pytest

from wghsm.handshake import Limits, Times
from wghsm.ipc import Counter, PeerField, Role, identity_number
from wghsm.ipc import messages as m

from .bench import ELSEWHERE, MILLISECOND, OURS, SECOND, Bench, endpoint, public


def _created_for(bench: Bench) -> list[int]:
    return [request.peer for request in bench.told(Role.CUSTODIAN, m.CreateInitiation)]


def test_a_change_of_peers_is_answered() -> None:
    bench = Bench()
    bench.configure(range(2), change=17)
    assert bench.told(Role.SUPERVISOR, m.Applied) == [m.Applied(17)]


def test_a_message_for_somebody_else_is_a_fault() -> None:
    with pytest.raises(TypeError, match="Activate"):
        Bench().says(Role.EGRESS, m.Activate(1, 1))


def test_a_removed_peer_is_gone_with_all_it_had() -> None:
    bench = Bench(peers=2)
    bench.establish(session=1)
    bench.wait(6 * SECOND)
    request = bench.create()
    bench.says(Role.SUPERVISOR, m.HandshakePeers(2, [], [0]))
    bench.effects.clear()
    assert len(bench.core.indices) == 0
    bench.datagram(bench.response(request.local_index))
    bench.want()
    bench.wait(600 * SECOND)
    assert not bench.effects


def test_a_slot_with_another_key_is_another_peer() -> None:
    bench = Bench()
    bench.want()
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.says(Role.SUPERVISOR, m.HandshakePeers(2, [m.HandshakePeer(0, public(8), endpoint(8), 0)], []))
    bench.made(request)
    assert not bench.sent()
    assert len(bench.core.indices) == 0


def test_nothing_happens_while_the_link_is_down() -> None:
    bench = Bench()
    bench.establish(session=1)
    bench.says(Role.SUPERVISOR, m.LinkState(False))
    assert bench.told(Role.EGRESS, m.PurgeStaged) == [m.PurgeStaged(0)]
    assert bench.told(Role.EGRESS, m.ForgetSessions) == [m.ForgetSessions(0)]
    assert bench.told(Role.INGRESS, m.ForgetSessions) == [m.ForgetSessions(0)]
    assert len(bench.core.indices) == 0
    bench.datagram(bench.initiation())
    bench.want()
    bench.says(Role.EGRESS, m.DataSent(0, bench.now))
    bench.says(Role.SUPERVISOR, m.Rekey([0]))
    bench.wait(600 * SECOND)
    bench.told(Role.SUPERVISOR, m.EndpointMoved)
    assert not bench.effects
    bench.says(Role.SUPERVISOR, m.LinkState(True))
    bench.want()
    assert bench.told(Role.CUSTODIAN, m.CreateInitiation)


def test_answers_that_come_after_the_link_went_down_are_dropped() -> None:
    bench = Bench(peers=2)
    bench.datagram(bench.initiation())
    bench.want(1)
    (accept,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    (create,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.says(Role.SUPERVISOR, m.LinkState(False))
    bench.effects.clear()
    bench.says(Role.CUSTODIAN, m.InitiationAccepted(accept.request, 0, 1, bytes(32), bytes(16)))
    bench.says(Role.INGRESS, m.Installed(1))
    bench.made(create)
    assert not bench.effects
    assert len(bench.core.indices) == 0


def test_giving_up_purges_what_is_staged() -> None:
    bench = Bench()
    bench.want()
    for _ in range(30):
        for request in bench.told(Role.CUSTODIAN, m.CreateInitiation):
            bench.made(request)
        bench.wait(5400 * MILLISECOND)
    assert len(bench.sent()) == 20
    assert len(bench.told(Role.EGRESS, m.ForgetSource)) == 19
    assert bench.told(Role.EGRESS, m.PurgeStaged) == [m.PurgeStaged(0)]
    assert bench.table.counts[Counter.HANDSHAKE_GIVEN_UP] == 1
    bench.wait(541 * SECOND)
    assert bench.told(Role.EGRESS, m.ForgetSessions) == [m.ForgetSessions(0)]
    assert len(bench.core.indices) == 0


def test_a_new_wish_begins_to_count_anew() -> None:
    bench = Bench()
    for _ in range(40):
        bench.want()
        for request in bench.told(Role.CUSTODIAN, m.CreateInitiation):
            bench.made(request)
        bench.wait(5400 * MILLISECOND)
    assert bench.table.counts[Counter.HANDSHAKE_GIVEN_UP] == 0


def test_unanswered_data_makes_a_new_handshake_and_forgets_the_source() -> None:
    bench = Bench()
    bench.establish()
    bench.says(Role.INGRESS, m.EndpointMoved(0, ELSEWHERE, bench.now))
    bench.wait(20 * SECOND)
    bench.effects.clear()
    bench.table.fields[0, PeerField.FIRST_DATA_UNANSWERED] = bench.now
    bench.says(Role.EGRESS, m.DataSent(0, bench.now))
    bench.wait(15 * SECOND - 1)
    assert not bench.effects
    bench.wait(SECOND)
    assert bench.told(Role.EGRESS, m.ForgetSource) == [m.ForgetSource(0)]
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.made(request)
    (sent,) = bench.sent()
    assert sent.endpoint == m.Endpoint(ELSEWHERE.host, ELSEWHERE.port)


def test_unacknowledged_data_is_acknowledged_by_a_keepalive() -> None:
    bench = Bench()
    bench.establish()
    bench.table.fields[0, PeerField.LAST_SENT] = bench.now
    bench.wait(SECOND)
    bench.says(Role.INGRESS, m.DataReceived(0, bench.now))
    bench.table.fields[0, PeerField.LAST_DATA_RECEIVED] = bench.now
    bench.wait(10 * SECOND - 1)
    assert not bench.told(Role.EGRESS, m.SendKeepalive)
    bench.wait(1)
    assert bench.told(Role.EGRESS, m.SendKeepalive) == [m.SendKeepalive(0)]


def test_turning_persistent_keepalive_on_sends_one_at_once() -> None:
    bench = Bench()
    bench.configure(range(1), keepalive=25, where=False)
    assert bench.told(Role.EGRESS, m.SendKeepalive) == [m.SendKeepalive(0)]
    bench.table.fields[0, PeerField.LAST_SENT] = bench.now
    bench.wait(26 * SECOND)
    assert bench.told(Role.EGRESS, m.SendKeepalive) == [m.SendKeepalive(0)]
    bench.configure(range(1), keepalive=0, where=False)
    bench.wait(100 * SECOND)
    assert not bench.told(Role.EGRESS, m.SendKeepalive)


def test_a_link_that_comes_up_sends_persistent_keepalives_at_once() -> None:
    """The sessions went with the link: a peer behind could not speak to us until the interval is over."""
    bench = Bench(peers=2)
    bench.configure(range(1), change=2, keepalive=25)
    bench.table.set(0, PeerField.LAST_RECEIVED, bench.now)
    bench.says(Role.SUPERVISOR, m.LinkState(False))
    bench.effects.clear()
    bench.wait(SECOND)
    bench.says(Role.SUPERVISOR, m.LinkState(True))
    assert bench.told(Role.EGRESS, m.SendKeepalive) == [m.SendKeepalive(0)]


def test_persistent_keepalives_begin_when_egress_is_there() -> None:
    bench = Bench(peers=0, ready=False)
    bench.configure(range(1), keepalive=25)
    bench.wait(3 * SECOND)
    bench.attach(Role.EGRESS)
    bench.wait(1)
    assert bench.told(Role.EGRESS, m.SendKeepalive) == [m.SendKeepalive(0)]


# Endpoints.


def test_the_newest_endpoint_wins() -> None:
    bench = Bench()
    newer, older = m.Endpoint("203.0.113.1", 1), m.Endpoint("203.0.113.2", 2)
    bench.says(Role.INGRESS, m.EndpointMoved(0, newer, bench.now))
    bench.says(Role.INGRESS, m.EndpointMoved(0, older, bench.now - 1))
    bench.create()
    assert bench.sent()[0].endpoint == newer
    # Ingress told egress itself.
    assert not bench.told(Role.EGRESS, m.EndpointMoved)
    bench.wait(SECOND)
    bench.configure(range(1))
    assert bench.told(Role.EGRESS, m.EndpointMoved) == [m.EndpointMoved(0, endpoint(0), bench.now)]


def test_the_supervisor_hears_once_a_second_at_most() -> None:
    bench = Bench()
    for port in range(1, 31):
        bench.says(Role.INGRESS, m.EndpointMoved(0, m.Endpoint("203.0.113.1", port), bench.now))
        bench.wait(100 * MILLISECOND)
    bench.wait(2 * SECOND)
    reports = bench.told(Role.SUPERVISOR, m.EndpointMoved)
    assert 3 <= len(reports) <= 4
    assert reports[-1].endpoint.port == 30


def test_what_the_supervisor_said_is_not_reported_back() -> None:
    bench = Bench()
    bench.wait(5 * SECOND)
    assert not bench.told(Role.SUPERVISOR, m.EndpointMoved)


def test_new_sockets_forget_the_sources() -> None:
    bench = Bench()
    bench.says(Role.INGRESS, m.EndpointMoved(0, ELSEWHERE, bench.now))
    bench.core.sockets_changed()
    bench.create()
    assert bench.sent()[0].endpoint.local == ""


def test_a_source_that_fails_is_forgotten_everywhere() -> None:
    bench = Bench()
    bench.says(Role.INGRESS, m.EndpointMoved(0, ELSEWHERE, bench.now))
    bench.effects += bench.core.source_failed(0)
    assert bench.told(Role.EGRESS, m.ForgetSource) == [m.ForgetSource(0)]
    bench.create()
    assert bench.sent()[0].endpoint == m.Endpoint(ELSEWHERE.host, ELSEWHERE.port)


# Processes that come and go.


def test_without_a_custodian_handshakes_wait_and_are_then_paced() -> None:
    bench = Bench(peers=3, ready=False, limits=Limits(rekeys_first=2))
    bench.attach(Role.EGRESS)
    bench.attach(Role.INGRESS)
    bench.datagram(bench.initiation())
    for peer in range(3):
        bench.want(peer)
    assert bench.table.counts == {Counter.NO_CUSTODIAN: 4}
    bench.attach(Role.CUSTODIAN)
    bench.wait(SECOND)
    assert not _created_for(bench)
    bench.says(Role.CUSTODIAN, m.Identity(OURS))
    bench.wait(0)
    assert _created_for(bench) == [0, 1]
    bench.wait(900 * MILLISECOND)
    assert _created_for(bench) == []
    # The custodian has answered, in time or not.
    bench.made(m.CreateInitiation(1, 0, 5, 0))
    bench.wait(200 * MILLISECOND)
    assert _created_for(bench) == [2]


@pytest.mark.parametrize("worker", [Role.EGRESS, Role.INGRESS])
def test_without_a_worker_no_handshake_is_begun(worker: Role) -> None:
    bench = Bench()
    bench.detach(worker)
    bench.want()
    bench.datagram(bench.initiation())
    assert not bench.told(Role.CUSTODIAN, m.Message)
    assert bench.table.counts == {Counter.NO_WORKER: 2}
    bench.attach(worker)
    bench.wait(0)
    assert _created_for(bench) == [0]


def test_a_dead_custodian_takes_requests_and_handles_with_it() -> None:
    bench = Bench(peers=2)
    own = bench.create()
    bench.datagram(bench.initiation())
    bench.want(1)
    (accept,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    assert _created_for(bench) == [1]
    bench.detach(Role.CUSTODIAN)
    assert len(bench.core.indices) == 0
    bench.attach(Role.CUSTODIAN)
    bench.says(Role.CUSTODIAN, m.Identity(OURS))
    bench.datagram(bench.response(own.local_index))
    bench.says(Role.CUSTODIAN, m.InitiationAccepted(accept.request, 0, 1, bytes(32), bytes(16)))
    assert not bench.told(Role.CUSTODIAN, m.AcceptResponse)
    bench.wait(6 * SECOND)
    assert sorted(_created_for(bench)) == [0, 1]


def test_a_dead_custodian_with_a_response_in_proof_leaks_no_index() -> None:
    bench = Bench()
    own = bench.create()
    bench.datagram(bench.response(own.local_index))
    bench.detach(Role.CUSTODIAN)
    assert len(bench.core.indices) == 0


def test_a_new_egress_is_briefed() -> None:
    bench = Bench(peers=2)
    bench.attach(Role.EGRESS)
    assert bench.told(Role.EGRESS, m.AwaitSessions)
    assert [moved.endpoint for moved in bench.told(Role.EGRESS, m.EndpointMoved)] == [endpoint(0), endpoint(1)]


@pytest.mark.parametrize("worker", [Role.EGRESS, Role.INGRESS])
def test_peers_are_rekeyed_by_activity_when_a_worker_was_replaced(worker: Role) -> None:
    bench = Bench(peers=5)
    for peer, age in ((0, 170), (1, 181), (2, 5), (3, 60)):
        bench.table.fields[peer, PeerField.LAST_RECEIVED] = bench.now - age * SECOND
    bench.detach(worker)
    bench.attach(worker)
    bench.wait(0)
    assert _created_for(bench) == [2, 3, 0]


def test_the_busiest_peers_are_rekeyed_first() -> None:
    bench = Bench(peers=4, limits=Limits(rekeys_first=1, rekeys_most=1))
    for peer, before, since in ((0, 10**9, 50), (1, 0, 70_000), (2, 10, 10**6), (3, 5, 0)):
        bench.table.fields[peer, PeerField.RX_BYTES] = before
        bench.establish(session=peer + 1, peer=peer)
        bench.table.fields[peer, PeerField.TX_BYTES] = since
        bench.table.fields[peer, PeerField.LAST_RECEIVED] = bench.now
    bench.wait(6 * SECOND)
    bench.detach(Role.EGRESS)
    bench.attach(Role.EGRESS)
    order = []
    for session in range(10, 14):
        bench.wait(0)
        (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
        order.append(request.peer)
        bench.made(request)
        bench.datagram(bench.response(request.local_index, request.peer))
        (finish,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
        bench.wait(0)
        assert not _created_for(bench)
        bench.says(Role.CUSTODIAN, m.ResponseAccepted(finish.request, request.peer, session))
        bench.says(Role.INGRESS, m.Installed(session))
    assert order == [2, 1, 0, 3]


def test_a_wish_waits_its_turn_when_the_custodian_is_crowded() -> None:
    bench = Bench(peers=3, limits=Limits(rekeys_first=1))
    for peer in range(3):
        bench.want(peer)
    assert _created_for(bench) == [0]
    bench.made(m.CreateInitiation(1, 0, 5, 0))
    bench.wait(0)
    assert _created_for(bench) == [1]
    bench.made(m.CreateInitiation(2, 1, 6, 0))
    # Nobody answers: the next one waits for a while, and no longer.
    bench.wait(900 * MILLISECOND)
    assert _created_for(bench) == []
    bench.wait(200 * MILLISECOND)
    assert _created_for(bench) == [2]


def test_a_rekey_is_spared_if_a_handshake_was_complete_meanwhile() -> None:
    bench = Bench()
    bench.create()
    bench.table.fields[0, PeerField.LAST_SENT] = bench.now
    bench.attach(Role.INGRESS)
    bench.wait(SECOND)
    bench.says(Role.INGRESS, m.SessionConfirmed(1, 0, bench.now))
    bench.effects.clear()
    bench.wait(20 * SECOND)
    assert not _created_for(bench)


def test_the_operator_may_ask_for_a_rekey() -> None:
    bench = Bench(peers=2)
    bench.establish(session=1, peer=1)
    bench.says(Role.SUPERVISOR, m.Rekey([1, 0, 7]))
    bench.wait(100 * MILLISECOND)
    assert _created_for(bench) == [0]
    bench.wait(5 * SECOND)
    assert _created_for(bench)[0] == 1


def test_what_a_dead_ingress_acknowledged_is_not_used() -> None:
    bench = Bench()
    bench.datagram(bench.initiation())
    (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    bench.says(Role.INGRESS, m.Installed(5))
    bench.attach(Role.INGRESS)
    bench.says(Role.CUSTODIAN, m.InitiationAccepted(request.request, 0, 5, bytes(32), bytes(16)))
    assert not bench.sent()
    # Its successor may have got the key all the same.
    bench.says(Role.INGRESS, m.Installed(5))
    assert len(bench.sent()) == 1


@pytest.mark.parametrize("derived_first", [False, True])
def test_what_a_dead_egress_may_have_got_is_not_used(derived_first: bool) -> None:
    bench = Bench()
    bench.datagram(bench.initiation())
    (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    accepted = m.InitiationAccepted(request.request, 0, 5, bytes(32), bytes(16))
    if derived_first:
        bench.says(Role.CUSTODIAN, accepted)
    bench.detach(Role.EGRESS)
    bench.attach(Role.EGRESS)
    if not derived_first:
        bench.says(Role.CUSTODIAN, accepted)
    bench.says(Role.INGRESS, m.Installed(5))
    assert not bench.sent()
    assert bench.core.indices.lookup(request.local_index) is None
    bench.wait(0)
    assert _created_for(bench) == [0]


def test_a_new_handshake_process_takes_over_what_the_workers_hold() -> None:
    bench = Bench(peers=2, ready=False)
    for role in (Role.CUSTODIAN, Role.EGRESS, Role.INGRESS):
        bench.attach(role)
    assert bench.told(Role.EGRESS, m.AwaitSessions)
    assert bench.told(Role.INGRESS, m.AwaitSessions)
    moved = m.EndpointMoved(0, ELSEWHERE, bench.now - 50 * SECOND)
    receives = [
        m.SessionInfo(3, 0, 333, True, bench.now - 100 * SECOND, "current", identity_number(OURS)),
        m.SessionInfo(2, 0, 222, False, bench.now - 200 * SECOND, "previous", identity_number(OURS)),
    ]
    sends = [m.SessionInfo(3, 0, 999, True, bench.now - 100 * SECOND, "current", 0)]
    bench.says(Role.INGRESS, m.SessionSnapshot(receives, [moved], True))
    bench.says(Role.EGRESS, m.SessionSnapshot(sends, [], True))
    assert [one.number for one in bench.core.indices.sessions(0)] == [2, 3]
    # What ingress saw is newer than what the supervisor had.
    bench.says(Role.CUSTODIAN, m.Identity(OURS))
    bench.wait(SECOND)
    assert not _created_for(bench)
    bench.create()
    assert bench.sent()[0].endpoint == ELSEWHERE
    bench.effects.clear()
    bench.says(Role.SUPERVISOR, m.Rekey([]))
    bench.wait(438 * SECOND)
    assert not bench.told(Role.INGRESS, m.ForgetSessions)
    bench.wait(2 * SECOND)
    assert bench.told(Role.INGRESS, m.ForgetSessions) == [m.ForgetSessions(0)]


def test_a_worker_that_died_while_this_process_was_away() -> None:
    bench = Bench(peers=2)
    for peer in range(2):
        bench.table.fields[peer, PeerField.LAST_RECEIVED] = bench.now
    both = [
        m.SessionInfo(peer, peer, 10 + peer, True, bench.now, "current", identity_number(OURS)) for peer in range(2)
    ]
    bench.says(Role.INGRESS, m.SessionSnapshot(both, [], True))
    bench.says(Role.EGRESS, m.SessionSnapshot(both[:1], [], True))
    bench.wait(SECOND)
    assert _created_for(bench) == [1]


def test_five_seconds_hold_over_a_restart() -> None:
    bench = Bench(peers=0)
    bench.table.fields[0, PeerField.LAST_HANDSHAKE_SENT] = bench.now - 2 * SECOND
    bench.configure(range(1))
    bench.want()
    assert not _created_for(bench)
    bench.wait(3 * SECOND)
    bench.want()
    assert _created_for(bench) == [0]


def test_times_are_an_argument() -> None:
    bench = Bench(times=Times(rekey_timeout=500 * MILLISECOND, jitter_max=0))
    bench.want()
    bench.wait(500 * MILLISECOND)
    assert len(_created_for(bench)) == 1
    for _ in range(3):
        bench.wait(500 * MILLISECOND)
    assert bench.core.next_deadline() is not None
