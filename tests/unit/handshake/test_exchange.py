"""Handshakes under way: what must have happened before what may leave, in both roles."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.handshake import Limits
from wghsm.ipc import Counter, PeerField, Role
from wghsm.ipc import messages as m
from wghsm.noise import CookieMaker, CookieReply, Initiation, Rejected, Response

from .bench import ELSEWHERE, OURS, SECOND, Bench, endpoint, gates, public


def test_message_1_carries_what_the_custodian_made() -> None:
    bench = Bench()
    bench.want()
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    assert not bench.sent()
    ephemeral, static, timestamp = os.urandom(32), os.urandom(48), os.urandom(28)
    bench.says(Role.CUSTODIAN, m.InitiationCreated(request.request, 0, 5, ephemeral, static, timestamp, OURS))
    (sent,) = bench.sent()
    assert (sent.endpoint, sent.tos, sent.peer) == (endpoint(0), 0x88, 0)
    message = Initiation.decode(sent.data)
    assert isinstance(message, Initiation)
    assert (message.sender, message.ephemeral, message.static, message.timestamp) == (
        request.local_index,
        ephemeral,
        static,
        timestamp,
    )
    # Its mac1 is the one that the peer checks.
    assert gates(public(0)).judge(message, sent.data, ELSEWHERE, 0, os.urandom, under_load=False) == public(0)
    assert bench.table.fields[0, PeerField.HANDSHAKE_TX_BYTES] == 148
    assert bench.table.fields[0, PeerField.LAST_HANDSHAKE_SENT] == bench.now
    assert bench.table.counts == {Counter.INITIATION_SENT: 1}


def test_a_response_activates_only_when_ingress_has_it_too() -> None:
    bench = Bench()
    request = bench.create(handle=77)
    bench.datagram(bench.response(request.local_index, index=99))
    (finish,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
    assert (finish.handle, finish.remote_index) == (77, 99)
    bench.says(Role.CUSTODIAN, m.ResponseAccepted(finish.request, 0, 5))
    assert not bench.told(Role.EGRESS, m.Activate)
    bench.says(Role.INGRESS, m.Installed(5))
    assert bench.told(Role.EGRESS, m.Activate) == [m.Activate(5, 0, True)]
    assert bench.table.fields[0, PeerField.HANDSHAKE_RX_BYTES] == 92
    assert bench.table.fields[0, PeerField.LAST_HANDSHAKE_UNIX] == 1_760_000_000 * SECOND + bench.now
    assert bench.table.counts[Counter.HANDSHAKE_COMPLETE] == 1


@pytest.mark.parametrize("early", [False, True])
def test_message_2_leaves_after_both(early: bool) -> None:
    bench = Bench()
    bench.datagram(bench.initiation(index=4711))
    (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    assert request.remote_index == 4711
    answers: list[tuple[Role, m.Message]] = [
        (Role.CUSTODIAN, m.InitiationAccepted(request.request, 0, 8, bytes(32), bytes(16))),
        (Role.INGRESS, m.Installed(8)),
    ]
    for sender, message in reversed(answers) if early else answers:
        assert not bench.sent()
        bench.says(sender, message)
    (sent,) = bench.sent()
    response = Response.decode(sent.data)
    assert isinstance(response, Response)
    assert (response.sender, response.receiver) == (request.local_index, 4711)
    # It goes to where the initiation came from, and egress knows.
    assert (sent.endpoint, sent.tos) == (ELSEWHERE, 0x88)
    assert bench.told(Role.EGRESS, m.EndpointMoved) == [m.EndpointMoved(0, ELSEWHERE, bench.now)]
    assert not bench.told(Role.EGRESS, m.Activate)
    assert bench.table.fields[0, PeerField.HANDSHAKE_RX_BYTES] == 148
    assert bench.table.fields[0, PeerField.HANDSHAKE_TX_BYTES] == 92


def test_complete_as_responder_with_the_first_data() -> None:
    bench = Bench()
    bench.accept(session=3)
    bench.says(Role.INGRESS, m.Installed(3))
    assert bench.table.counts[Counter.HANDSHAKE_COMPLETE] == 0
    bench.says(Role.INGRESS, m.SessionConfirmed(3, 0, bench.now))
    assert bench.table.counts[Counter.HANDSHAKE_COMPLETE] == 1


def test_a_session_that_ingress_would_not_take_is_not_used() -> None:
    bench = Bench()
    request = bench.accept(session=3)
    bench.says(Role.INGRESS, m.Installed(3, accepted=False))
    assert not bench.sent()
    assert bench.core.indices.lookup(request.local_index) is None
    created = bench.create()
    bench.datagram(bench.response(created.local_index))
    (finish,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
    bench.says(Role.INGRESS, m.Installed(4, accepted=False))
    bench.says(Role.CUSTODIAN, m.ResponseAccepted(finish.request, 0, 4))
    assert not bench.told(Role.EGRESS, m.Activate)
    # The retransmit timer goes on.
    bench.wait(6 * SECOND)
    assert bench.told(Role.CUSTODIAN, m.CreateInitiation)


def test_only_the_newest_initiation_is_answered() -> None:
    bench = Bench()
    bench.accept(session=1)
    newer = bench.accept(session=2)
    bench.says(Role.INGRESS, m.Installed(1))
    assert not bench.sent()
    bench.says(Role.INGRESS, m.Installed(2))
    (sent,) = bench.sent()
    assert int.from_bytes(sent.data[4:8], "little") == newer.local_index


def test_bad_mac1_costs_nothing() -> None:
    bench = Bench()
    bench.datagram(CookieMaker(public(5)).authenticate(Initiation(1, bytes(32), bytes(48), bytes(28)), 0))
    request = bench.create()
    bench.datagram(CookieMaker(public(5)).authenticate(Response(1, request.local_index, bytes(32), bytes(16)), 0))
    assert not bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    assert not bench.told(Role.CUSTODIAN, m.AcceptResponse)
    assert bench.table.counts[Counter.BAD_MAC1] == 2


def test_an_unproven_message_moves_nothing() -> None:
    bench = Bench()
    bench.datagram(bench.initiation())
    (request,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    bench.says(Role.CUSTODIAN, m.Refused(request.request))
    bench.wait(2 * SECOND)
    assert not bench.effects
    assert len(bench.core.indices) == 0
    assert not any(bench.table.fields.values())
    assert bench.table.counts == {Counter.CUSTODIAN_REFUSED: 1}


def test_a_response_needs_an_initiation_of_ours() -> None:
    bench = Bench(peers=2)
    bench.accept(session=6)
    bench.says(Role.INGRESS, m.Installed(6))
    (sent,) = bench.sent()
    session_index = int.from_bytes(sent.data[4:8], "little")
    for receiver in (1, session_index):
        bench.datagram(bench.response(receiver))
    bench.establish(session=7, peer=1)
    used = bench.core.indices.sessions(1)[0].index
    bench.datagram(bench.response(used, peer=1))
    assert not bench.told(Role.CUSTODIAN, m.AcceptResponse)
    assert bench.table.counts[Counter.UNKNOWN_HANDSHAKE] == 3


def test_a_forged_response_does_not_keep_the_true_one_out() -> None:
    bench = Bench()
    request = bench.create()
    forged, true = bench.response(request.local_index), bench.response(request.local_index)
    for data in (forged, true, forged, true):
        bench.datagram(data)
    (first,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
    bench.says(Role.CUSTODIAN, m.Refused(first.request))
    (second,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
    assert (first.ephemeral, second.ephemeral) == (forged[12:44], true[12:44])
    bench.says(Role.CUSTODIAN, m.ResponseAccepted(second.request, 0, 5))
    bench.says(Role.INGRESS, m.Installed(5))
    assert bench.told(Role.EGRESS, m.Activate)


def test_responses_that_wait_are_few() -> None:
    bench = Bench()
    request = bench.create()
    for _ in range(20):
        bench.datagram(bench.response(request.local_index))
    assert len(bench.told(Role.CUSTODIAN, m.AcceptResponse)) == 1
    assert bench.table.counts[Counter.CUSTODIAN_BUSY] == 20 - 1 - Limits().responses_waiting


def test_five_seconds_between_initiations() -> None:
    bench = Bench()
    bench.create()
    for _ in range(4):
        bench.wait(SECOND)
        bench.want()
    assert not bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.wait(SECOND * 4 // 3)
    assert len(bench.told(Role.CUSTODIAN, m.CreateInitiation)) == 1


def test_five_seconds_after_a_response() -> None:
    bench = Bench()
    bench.accept(session=1)
    bench.says(Role.INGRESS, m.Installed(1))
    bench.wait(SECOND)
    bench.want()
    assert not bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.wait(4 * SECOND)
    bench.want()
    assert bench.told(Role.CUSTODIAN, m.CreateInitiation)


def test_an_accepted_initiation_ends_our_own() -> None:
    bench = Bench()
    own = bench.create()
    bench.accept(session=1)
    bench.datagram(bench.response(own.local_index))
    assert not bench.told(Role.CUSTODIAN, m.AcceptResponse)
    assert bench.core.indices.lookup(own.local_index) is None


def test_a_response_in_proof_survives_an_accepted_initiation() -> None:
    bench = Bench()
    own = bench.create()
    bench.datagram(bench.response(own.local_index))
    (finish,) = bench.told(Role.CUSTODIAN, m.AcceptResponse)
    bench.accept(session=1)
    bench.says(Role.CUSTODIAN, m.ResponseAccepted(finish.request, 0, 2))
    bench.says(Role.INGRESS, m.Installed(2))
    assert bench.told(Role.EGRESS, m.Activate) == [m.Activate(2, 0, True)]


def test_an_initiation_that_comes_out_after_a_response_is_not_sent() -> None:
    bench = Bench()
    bench.want()
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.accept(session=1)
    bench.says(Role.INGRESS, m.Installed(1))
    assert len(bench.sent()) == 1
    bench.made(request)
    assert not bench.sent()
    assert bench.core.indices.lookup(request.local_index) is None


def test_no_endpoint_costs_no_token_operation_and_the_timer_runs() -> None:
    bench = Bench(peers=0)
    bench.configure(range(1), where=False)
    bench.want()
    assert not bench.told(Role.CUSTODIAN, m.CreateInitiation)
    assert bench.table.counts[Counter.NO_ENDPOINT] == 1
    bench.configure(range(1))
    bench.wait(6 * SECOND)
    assert bench.told(Role.CUSTODIAN, m.CreateInitiation)


def test_a_refused_creation_is_tried_again_by_the_timer() -> None:
    bench = Bench()
    bench.want()
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.says(Role.CUSTODIAN, m.Refused(request.request))
    assert len(bench.core.indices) == 0
    bench.wait(6 * SECOND)
    (again,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    assert again.request != request.request


def test_a_custodian_that_never_answers_leaks_nothing() -> None:
    bench = Bench()
    for _ in range(50):
        bench.datagram(bench.initiation())
    bench.want()
    assert len(bench.core.indices) == 51
    first, *_ = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    (created,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.wait(11 * SECOND)
    # By then the timer has asked for another initiation.
    assert len(bench.core.indices) == 1
    assert bench.table.counts[Counter.CUSTODIAN_BUSY] == 51
    bench.sent()
    bench.says(Role.CUSTODIAN, m.InitiationAccepted(first.request, 0, 1, bytes(32), bytes(16)))
    bench.made(created)
    assert not bench.sent()


def test_an_ingress_that_never_answers_leaks_nothing() -> None:
    bench = Bench()
    bench.accept(session=1)
    bench.wait(11 * SECOND)
    assert len(bench.core.indices) == 0
    bench.says(Role.INGRESS, m.Installed(1))
    assert not bench.sent()


def test_requests_are_bounded_and_some_are_kept_for_us() -> None:
    bench = Bench(limits=Limits(requests=20, own_requests=5, load_mark=1000))
    for _ in range(30):
        bench.datagram(bench.initiation())
    assert len(bench.told(Role.CUSTODIAN, m.AcceptInitiation)) == 15
    assert bench.table.counts[Counter.CUSTODIAN_BUSY] == 15
    bench.want()
    assert bench.told(Role.CUSTODIAN, m.CreateInitiation)


def test_under_load_strangers_must_show_a_cookie() -> None:
    bench = Bench(limits=Limits(load_mark=3))
    for _ in range(3):
        bench.datagram(bench.initiation())
    assert len(bench.told(Role.CUSTODIAN, m.AcceptInitiation)) == 3
    bench.datagram(bench.initiation(index=31337))
    assert not bench.told(Role.CUSTODIAN, m.AcceptInitiation)
    (sent,) = bench.sent()
    assert (sent.peer, sent.endpoint, sent.tos) == (None, ELSEWHERE, 0)
    reply = CookieReply.decode(sent.data)
    assert not isinstance(reply, Rejected)
    assert reply.receiver == 31337
    assert bench.strangers[0].consume_reply(reply, bench.now) is None
    bench.datagram(bench.initiation())
    assert len(bench.told(Role.CUSTODIAN, m.AcceptInitiation)) == 1
    for _ in range(10):
        bench.datagram(bench.initiation())
    assert bench.table.counts[Counter.RATE_LIMITED] == 6
    assert bench.table.counts[Counter.COOKIE_SENT] == 1


@pytest.mark.parametrize("late", ["token", "queue"])
def test_slowness_is_load_too_and_lasts_a_second(late: str) -> None:
    bench = Bench()
    if late == "token":
        bench.datagram(bench.initiation())
        bench.wait(SECOND)
        bench.datagram(bench.initiation())
        (first,) = bench.told(Role.CUSTODIAN, m.AcceptInitiation)
        bench.says(Role.CUSTODIAN, m.Refused(first.request))
    else:
        bench.datagram(bench.initiation(), at=bench.now - SECOND)
    assert len(bench.sent()) == 1
    bench.wait(SECOND // 2)
    bench.datagram(bench.initiation())
    assert len(bench.sent()) == 1
    bench.wait(SECOND)
    bench.datagram(bench.initiation())
    assert not bench.sent()


def test_a_cookie_of_the_peer_is_shown_with_the_next_initiation() -> None:
    bench = Bench()
    gate = gates(public(0))
    bench.create()
    (sent,) = bench.sent()
    message = Initiation.decode(sent.data)
    assert isinstance(message, Initiation)
    answer = gate.judge(message, sent.data, endpoint(7), 0, os.urandom, under_load=True)
    assert answer is not None
    reply = getattr(answer, "data", b"")
    bench.datagram(reply)
    bench.datagram(reply)
    assert bench.table.counts[Counter.COOKIE_RECEIVED] == 1
    assert bench.table.counts[Counter.COOKIE_REFUSED] == 1
    # Not at once: the timer sends it.
    assert not bench.sent()
    assert not bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.wait(6 * SECOND)
    (request,) = bench.told(Role.CUSTODIAN, m.CreateInitiation)
    bench.made(request)
    (sent,) = bench.sent()
    again = Initiation.decode(sent.data)
    assert isinstance(again, Initiation)
    assert gate.judge(again, sent.data, endpoint(7), 1, os.urandom, under_load=True) == public(0)


def test_a_cookie_for_nobody_is_dropped() -> None:
    bench = Bench()
    bench.datagram(CookieReply(5, bytes(24), bytes(32)).encode())
    assert bench.table.counts == {Counter.UNKNOWN_HANDSHAKE: 1}


@given(st.binary(max_size=200), st.sampled_from([0, 1, 2, 3, 4]), st.sampled_from([0, 64, 92, 148]))
def test_hostile_bytes_change_nothing(data: bytes, kind: int, size: int) -> None:
    bench = Bench()
    whole = (bytes([kind, 0, 0, 0]) + data)[:size].ljust(size, b"\0") if size else data
    bench.datagram(whole)
    assert not bench.effects
    assert len(bench.core.indices) == 0
    assert sum(bench.table.counts.values()) == 1


def test_another_identity_voids_what_was_begun_under_the_old_one() -> None:
    bench = Bench()
    request = bench.create()
    bench.says(Role.CUSTODIAN, m.Identity(public(9)))
    bench.datagram(CookieMaker(public(9)).authenticate(Response(1, request.local_index, bytes(32), bytes(16)), 0))
    bench.datagram(CookieMaker(OURS).authenticate(Response(1, request.local_index, bytes(32), bytes(16)), 0))
    assert not bench.told(Role.CUSTODIAN, m.AcceptResponse)
    assert bench.table.counts[Counter.UNKNOWN_HANDSHAKE] == 1
    assert bench.table.counts[Counter.BAD_MAC1] == 1
