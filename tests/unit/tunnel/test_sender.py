"""Egress: staging, sealing, limits, timers' news, endpoints, snapshots."""

import dataclasses
import socket

import msgspec
import pytest

from tests.unit.tunnel.inner import Flow
from tests.unit.tunnel.support import (
    PEER,
    SECOND,
    START,
    Egress,
    counter_of,
    install_send,
    ip_packet,
    key,
    make_stats,
    packed,
)
from wghsm.ipc import Counter, PeerField, Role
from wghsm.ipc import messages as m
from wghsm.tunnel import Times
from wghsm.tunnel.sender import REMEMBERED_ACTIVATIONS, Sender
from wghsm.tunnel.staging import Staging
from wghsm.tunnel.virtio import GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, PLAIN, SIZE, VnetHeader

pytestmark = pytest.mark.usefixtures("engine")

_PACKET = ip_packet("10.0.0.1", "10.0.0.2")
_WANTED = m.HandshakeWanted(PEER, "no-session")


def _counters(egress: Egress) -> dict[Counter, int]:
    return egress.stats.counters(Role.EGRESS)


def test_staged_until_a_session_is_active_then_sent_in_order() -> None:
    egress = Egress()
    packets = [ip_packet("10.0.0.1", "10.0.0.2", bytes([number])) for number in range(3)]
    for packet in packets:
        egress.sender.read(packet, START)
    assert egress.take_told() == [_WANTED]
    egress.sender.install(install_send(1), START)
    egress.sender.read(packets[0], START)
    assert egress.sent == []
    egress.sender.activate(m.Activate(1, PEER, confirm=True), START)
    assert [counter_of(sealed) for sealed in egress.take()] == [(1001, number) for number in range(4)]
    egress.sender.read(packets[0], START)
    assert counter_of(egress.take()[0]) == (1001, 4)


def test_a_handshake_is_wanted_at_most_once_a_second_while_it_is() -> None:
    egress = Egress()
    for step in range(25):
        egress.sender.read(_PACKET, START + step * SECOND // 10)
    assert egress.take_told() == [_WANTED] * 3


def test_activation_before_installation() -> None:
    egress = Egress()
    egress.sender.activate(m.Activate(1, PEER, confirm=True), START)
    egress.sender.install(install_send(1), START)
    assert [counter_of(sealed) for sealed in egress.sent] == [(1001, 0)]
    assert len(egress.sent[0]) == 32


def test_remembered_activations_are_bounded() -> None:
    egress = Egress()
    for session in range(1, REMEMBERED_ACTIVATIONS + 2):
        egress.sender.activate(m.Activate(session, PEER, confirm=True), START)
    egress.sender.install(install_send(1), START)
    assert egress.sent == []
    egress.sender.install(install_send(2), START)
    assert len(egress.sent) == 1


def test_activation_is_held_to_the_peer() -> None:
    egress = Egress()
    egress.sender.change_peers([4], [])
    egress.move(START, peer=4)
    egress.sender.install(install_send(1), START)
    egress.sender.activate(m.Activate(1, 4, confirm=True), START)
    assert egress.sent == []


@pytest.mark.parametrize("session", [1, 2])
def test_a_key_that_was_here_is_refused(session: int) -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.read(_PACKET, START)
    repeated = m.InstallSend(session, PEER, 1001, True, START + SECOND, key(1))
    egress.sender.install(repeated, START + 60 * SECOND)
    egress.sender.activate(m.Activate(session, PEER), START + 60 * SECOND)
    egress.sender.read(_PACKET, START + 60 * SECOND)
    assert [counter_of(sealed)[1] for sealed in egress.sent] == [0, 1]
    assert _counters(egress) == {Counter.KEY_REPEATED: 1}
    assert not any(repeated.key)


def test_the_fingerprint_outlives_the_session_for_540_seconds() -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.expire(START + 200 * SECOND)
    egress.sender.install(install_send(1, created=START + 539 * SECOND), START + 540 * SECOND)
    assert _counters(egress) == {Counter.KEY_REPEATED: 1}


def test_a_key_is_wiped_from_its_message() -> None:
    egress = Egress()
    for message in (install_send(1), install_send(2, peer=77), install_send(3, created=START - 180 * SECOND)):
        egress.sender.install(message, START)
        assert not any(message.key)
    assert _counters(egress) == {Counter.KEY_REFUSED: 2}


def test_reject_after_time() -> None:
    egress = Egress()
    egress.start(1, initiator=False)
    egress.sender.read(_PACKET, START + 180 * SECOND - 1)
    assert len(egress.take()) == 1
    egress.take_told()
    egress.sender.read(_PACKET, START + 180 * SECOND)
    assert egress.take() == []
    assert egress.take_told() == [_WANTED]


def test_a_birthday_in_the_future_counts_as_now() -> None:
    egress = Egress()
    egress.sender.install(install_send(1, created=START + 1000 * SECOND), START)
    egress.sender.activate(m.Activate(1, PEER), START)
    egress.sender.read(_PACKET, START + 180 * SECOND)
    assert egress.sent == []


def test_reject_after_messages() -> None:
    egress = Egress(Times(reject_after_messages=2))
    egress.start(1, initiator=False)
    for _ in range(3):
        egress.sender.read(_PACKET, START)
    assert [counter_of(sealed)[1] for sealed in egress.sent] == [0, 1]
    assert _WANTED in egress.told
    egress.start(2, initiator=False)
    assert counter_of(egress.sent[-1]) == (1002, 0)


@pytest.mark.parametrize(("initiator", "wanted"), [(True, 1), (False, 0)])
def test_rekey_after_time(initiator: bool, wanted: int) -> None:
    egress = Egress()
    egress.start(1, initiator=initiator)
    egress.sender.read(_PACKET, START + 120 * SECOND - 1)
    asked = m.HandshakeWanted(PEER, "rekey-after-time")
    assert asked not in egress.take_told()
    for _ in range(3):
        egress.sender.read(_PACKET, START + 120 * SECOND)
    assert egress.take_told().count(asked) == wanted
    assert len(egress.sent) == 4


def test_rekey_after_messages_in_both_roles() -> None:
    egress = Egress(Times(rekey_after_messages=2))
    egress.start(1, initiator=False)
    for _ in range(2):
        egress.sender.read(_PACKET, START)
    asked = m.HandshakeWanted(PEER, "rekey-after-messages")
    assert asked not in egress.told
    egress.sender.read(_PACKET, START)
    assert asked in egress.told


def test_expired_keys_go_without_a_packet() -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.install(install_send(2, created=START + SECOND), START + SECOND)
    assert egress.sender.expire(START) == START + 180 * SECOND
    assert egress.sender.expire(START + 180 * SECOND) == START + 181 * SECOND
    assert [info.session for part in egress.sender.snapshot() for info in part.sessions] == [2]
    assert egress.sender.expire(START + 181 * SECOND) is None
    assert [info for part in egress.sender.snapshot() for info in part.sessions] == []


def test_routing_to_the_longest_prefix() -> None:
    egress = Egress()
    egress.sender.change_peers([4], [])
    egress.move(START, peer=4)
    egress.sender.routes.insert(packed("10.0.1.0"), 24, 4)
    for peer in (PEER, 4):
        egress.sender.install(install_send(peer, peer=peer), START)
        egress.sender.activate(m.Activate(peer, peer), START)
    for target in ("10.0.0.2", "10.0.1.2", "fd00::2"):
        egress.sender.read(ip_packet("10.0.0.1" if "." in target else "fd00::1", target), START)
    assert [counter_of(sealed)[0] for sealed in egress.sent] == [1003, 1004, 1003]


def test_drops_are_counted() -> None:
    egress = Egress(staging=Staging(each=2))
    egress.sender.read(ip_packet("10.0.0.1", "192.0.2.1"), START)
    egress.sender.read(b"\x00" * 40, START)
    egress.sender.change_peers([5], [])
    egress.sender.routes.insert(packed("11.0.0.0"), 8, 5)
    egress.sender.read(ip_packet("10.0.0.1", "11.0.0.1"), START)
    for _ in range(3):
        egress.sender.read(_PACKET, START)
    egress.sender.purge_staged(PEER)
    egress.sender.keepalive(5, START)
    assert _counters(egress) == {
        Counter.NO_PEER: 1,
        Counter.INNER_MALFORMED: 1,
        Counter.NO_ENDPOINT: 2,
        Counter.STAGED_OVERFLOW: 1,
        Counter.STAGED_PURGED: 2,
    }


def test_statistics_and_news_for_the_timers() -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.keepalive(PEER, START + 1)
    assert egress.take_told() == []
    egress.sender.read(_PACKET, START + 2)
    egress.sender.read(_PACKET, START + 3)
    assert egress.take_told() == [m.DataSent(PEER, START + 2)]
    egress.stats.set(PEER, PeerField.LAST_RECEIVED, START + 4)
    egress.sender.read(_PACKET, START + 5)
    assert egress.take_told() == []
    assert egress.stats.get(PEER, PeerField.FIRST_DATA_UNANSWERED) == START + 5
    egress.sender.keepalive(PEER, START + 6)
    stats = egress.stats
    assert stats.get(PEER, PeerField.TX_PACKETS) == 5
    assert stats.get(PEER, PeerField.TX_BYTES) == sum(map(len, egress.sent)) == 2 * 32 + 3 * 64
    assert stats.get(PEER, PeerField.LAST_SENT) == START + 6
    assert stats.get(PEER, PeerField.LAST_DATA_SENT) == START + 5


def test_news_for_the_timers_at_most_once_a_second_or_to_a_new_handshake_process() -> None:
    egress = Egress()
    egress.start(1)
    for step in range(25):
        egress.stats.set(PEER, PeerField.LAST_RECEIVED, START + step * SECOND // 10)
        egress.sender.read(_PACKET, START + step * SECOND // 10)
    assert egress.take_told() == [m.DataSent(PEER, START + second * SECOND) for second in range(3)]
    egress.sender.ask_again(START + 3 * SECOND)
    egress.stats.set(PEER, PeerField.LAST_RECEIVED, START + 3 * SECOND)
    egress.sender.read(_PACKET, START + 3 * SECOND)
    assert egress.take_told() == [m.DataSent(PEER, START + 3 * SECOND)]


def test_a_failed_send_runs_the_timers_and_counts_no_bytes() -> None:
    egress = Egress()
    egress.start(1)
    egress.works = False
    egress.sender.read(_PACKET, START)
    assert egress.told == [m.DataSent(PEER, START)]
    assert egress.stats.get(PEER, PeerField.TX_BYTES) == 0
    assert egress.stats.get(PEER, PeerField.LAST_SENT) == START


def test_keepalive_without_a_session_asks_for_one_and_waits() -> None:
    egress = Egress()
    egress.sender.keepalive(PEER, START)
    egress.sender.keepalive(PEER, START)
    assert egress.take_told() == [_WANTED]
    egress.start(1)
    assert [len(sealed) for sealed in egress.sent] == [32]


def test_newest_endpoint_wins() -> None:
    egress = Egress()
    egress.move(START + 10, "192.0.2.10")
    egress.move(START + 9, "192.0.2.9")
    assert _endpoints(egress) == [m.EndpointMoved(PEER, m.Endpoint("192.0.2.10", 51820), START + 10)]
    late = m.EndpointMoved(PEER, m.Endpoint("2001:db8::1", 1, local="2001:db8::2"), START + 1000)
    egress.sender.move_endpoint(late, START + 20)
    egress.sender.forget_source(PEER)
    assert _endpoints(egress) == [m.EndpointMoved(PEER, m.Endpoint("2001:db8::1", 1), START + 20)]
    egress.sender.move_endpoint(late, START + 20)
    egress.sender.forget_sources()
    assert _endpoints(egress) == [m.EndpointMoved(PEER, m.Endpoint("2001:db8::1", 1), START + 20)]
    egress.move(START + 21, "no address")
    assert _endpoints(egress)[0].endpoint.host == "2001:db8::1"


def test_an_answer_does_not_overtake_the_news_of_where_the_peer_is() -> None:
    """Ingress notes in the table that it has told; egress reads what it was told before it sends, and else not."""
    egress = Egress()
    egress.start(1)
    elsewhere = m.EndpointMoved(PEER, m.Endpoint("198.51.100.9", 5), START + 5)
    egress.news.append(elsewhere)
    packet = ip_packet("10.0.0.1", "10.0.0.2")
    egress.sender.read(packet, START + 6)
    assert egress.news, "nobody has said that there is any"
    egress.stats.set(PEER, PeerField.ENDPOINT_TOLD, START + 5)
    egress.sender.read(packet, START + 7)
    assert egress.places[-2:] == ["192.0.2.7", "198.51.100.9"]
    egress.news.append(elsewhere)
    egress.sender.read(packet, START + 8)
    assert egress.news, "it has caught up"


def test_news_while_packets_are_read_on_come_before_they_are_sent() -> None:
    egress = Egress()
    egress.start(1)
    read = PLAIN + _PACKET
    tun, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with tun, kernel:
        tun.setblocking(False)
        kernel.send(read)
        assert egress.sender.take(read, START)
        egress.news.append(m.EndpointMoved(PEER, m.Endpoint("192.0.2.8", 51820), START + 1))
        egress.stats.set(PEER, PeerField.ENDPOINT_TOLD, START + 1)
        if egress.sender.take_waiting(tun.fileno(), read, 9)[1] is None:
            egress.sender.take(tun.recv(99), START + 1)
        egress.sender.flush()
    assert (egress.places, len(egress.sent)) == (["192.0.2.8"], 2)
    assert egress.stats.get(PEER, PeerField.TX_PACKETS) == 2


def test_the_session_of_a_batch_may_end_before_it_is_sent() -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.take(PLAIN + _PACKET, START)
    egress.start(2)
    egress.sender.flush()
    assert [counter_of(sealed) for sealed in egress.sent] == [(1001, 0)]


def _endpoints(egress: Egress) -> list[m.EndpointMoved]:
    return [moved for part in egress.sender.snapshot() for moved in part.endpoints]


def test_forgetting() -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.install(install_send(2), START)
    egress.sender.activate(m.Activate(3, PEER), START)
    egress.sender.forget_sessions(m.ForgetSessions(PEER))
    egress.sender.activate(m.Activate(2, PEER), START)
    egress.sender.install(install_send(3), START)
    egress.sender.read(_PACKET, START)
    assert egress.sent == []


def test_forgetting_all_but_some() -> None:
    egress = Egress()
    egress.start(1)
    for session in (2, 3):
        egress.sender.install(install_send(session), START)
    for session in (4, 5):
        # Their keys are still to come.
        egress.sender.activate(m.Activate(session, PEER), START)
    egress.sender.forget_sessions(m.ForgetSessions(PEER, (1, 3, 5)))
    assert [one.session for part in egress.sender.snapshot() for one in part.sessions] == [1, 3]
    egress.sender.read(_PACKET, START)
    assert len(egress.sent) == 1
    for session in (4, 5):
        egress.sender.install(install_send(session), START)
    held = [(one.session, one.slot) for part in egress.sender.snapshot() for one in part.sessions]
    assert held == [(5, "current")]


def test_link_down_and_removal() -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.link_down()
    egress.sender.read(_PACKET, START)
    assert egress.sent == []
    egress.sender.link_down()
    assert _counters(egress) == {Counter.STAGED_PURGED: 1}
    egress.start(2)
    egress.sender.change_peers([], [PEER])
    egress.sender.read(_PACKET, START)
    assert egress.sent == []
    egress.sender.change_peers([PEER], [])
    assert egress.sender.routes.of(PEER) == []
    assert [part.sessions for part in egress.sender.snapshot()] == [[]]


def test_a_new_handshake_process_is_told_who_waits() -> None:
    egress = Egress()
    egress.sender.read(_PACKET, START)
    egress.take_told()
    egress.sender.ask_again(START + 1)
    assert egress.take_told() == [_WANTED]


def test_snapshot_parts_fit_a_message() -> None:
    sender = Sender(make_stats(Role.EGRESS), lambda *_: 0, lambda _: None)
    sender.change_peers(range(2500), [])
    longest = m.Endpoint("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535, 2**31, "2001:db8:ffff:ffff:ffff:ffff:ffff:1")
    for peer in range(2500):
        message = install_send(peer + 1, peer=peer)
        sender.install(_renumbered(message, 2**63 + peer), START)
        sender.move_endpoint(m.EndpointMoved(peer, longest, START), START)
    parts = list(sender.snapshot())
    assert [part.last for part in parts] == [False, False, True]
    assert max(len(msgspec.msgpack.encode(part)) for part in parts) < 200_000
    infos = [info for part in parts for info in part.sessions]
    assert len({info.session for info in infos}) == 2500
    assert {info.slot for info in infos} == {"pending"}


def _renumbered(message: m.InstallSend, session: int) -> m.InstallSend:
    return m.InstallSend(session, message.peer, message.remote_index, message.initiator, message.created, message.key)


def test_times_are_the_protocols() -> None:
    assert dataclasses.asdict(Times()) == {
        "rekey_after_time": 120 * SECOND,
        "rekey_after_time_recv": 165 * SECOND,
        "reject_after_time": 180 * SECOND,
        "zero_key_material": 540 * SECOND,
        "rekey_after_messages": 2**60,
        "reject_after_messages": 2**64 - 2**13 - 1,
        "handshake_wanted_again": SECOND,
        "first_data_told_again": SECOND,
        "endpoint_told_again": 10 * SECOND,
    }


def test_a_packet_that_nobody_takes_is_answered_at_a_bounded_rate() -> None:
    answers: list[bytes] = []
    sender = Sender(make_stats(Role.EGRESS), lambda *_: 0, lambda _message: None, answer=answers.append)
    for _ in range(50):
        sender.read(ip_packet("10.0.0.1", "10.9.9.9"), START)
    assert len(answers) == 5
    assert answers[0][16:20] == packed("10.0.0.1")
    sender.read(ip_packet("10.0.0.2", "10.9.9.9"), START)
    assert len(answers) == 6
    sender.read(ip_packet("10.0.0.1", "10.9.9.9"), START + SECOND)
    assert len(answers) == 7


def test_another_workers_packet_is_handed_over_once() -> None:
    answers: list[bytes] = []
    handed: list[tuple[int, bytes]] = []

    def hand_over(peer: int, read: bytes) -> bool:
        handed.append((peer, read))
        return peer % 2 == 1

    stats = make_stats(Role.EGRESS)
    sender = Sender(stats, lambda *_: 0, lambda _message: None, answer=answers.append, hand_over=hand_over)
    for peer in (2, 3):
        sender.routes.insert(packed(f"10.0.{peer}.0"), 24, peer)
    read = PLAIN + ip_packet("10.0.0.1", "10.0.3.1")
    sender.take(read, START)
    assert handed == [(3, read)]
    assert not answers
    # Its worker has handed it over to us: the allowed IPs are being changed.
    sender.take(read, START, handed=True)
    assert len(handed) == len(answers) == 1
    # Ours, and gone.
    sender.take(PLAIN + ip_packet("10.0.0.1", "10.0.2.1"), START + SECOND)
    assert len(answers) == 2
    assert stats.counters(Role.EGRESS) == {Counter.NO_PEER: 2}


def test_all_prefixes_of_a_peer_go_with_it_whoever_owns_it() -> None:
    sender = Sender(make_stats(Role.EGRESS), lambda *_: 0, lambda _message: None)
    sender.routes.insert(packed("10.0.3.0"), 24, 3)
    sender.change_peers([], [3])
    assert sender.routes.lookup(packed("10.0.3.1")) is None


def _super_packet(packets: int, *, ecn: int = 0) -> bytes:
    """A TUN read that is cut into `packets` of 100 bytes, the last one shorter."""
    flow = Flow(4, tos=ecn)
    packet = flow.udp(bytes(72 * packets - 30), identity=7, partial=True)
    return VnetHeader(NEEDS_CSUM, GSO_UDP_L4, 28, 72, 20, 6).encode() + packet


def test_one_read_is_one_batch_and_equal_reads_are_one_too() -> None:
    egress = Egress()
    egress.start(1)
    egress.sender.take(_super_packet(10), START)
    assert egress.sent == []
    egress.sender.flush()
    assert egress.batches == [(10, 144, 0)]
    assert [counter_of(sealed)[1] for sealed in egress.take()] == list(range(10))
    assert egress.stats.get(PEER, PeerField.TX_PACKETS) == 10
    for _ in range(70):
        egress.sender.take(PLAIN + _PACKET, START)
    egress.sender.flush()
    egress.sender.flush()
    assert egress.batches[1:] == [(64, 64, 0), (6, 64, 0)]
    assert [counter_of(sealed)[1] for sealed in egress.take()] == list(range(10, 80))


def test_what_does_not_fit_into_a_batch_begins_another() -> None:
    egress = Egress()
    egress.start(1)
    for read in (PLAIN + _PACKET, _super_packet(2), PLAIN + _PACKET, _super_packet(2, ecn=1), _super_packet(100)):
        egress.sender.take(read, START)
    egress.sender.flush()
    # Larger than the one before; behind a shorter one; another outer ECN; more than one send takes.
    assert egress.batches == [(1, 64, 0), (2, 144, 0), (1, 64, 0), (2, 144, 1), (64, 144, 0), (36, 144, 0)]
    assert [counter_of(sealed)[1] for sealed in egress.sent] == list(range(106))


def test_batches_are_of_one_session() -> None:
    egress = Egress()
    egress.sender.change_peers([4], [])
    egress.move(START, peer=4)
    egress.sender.routes.insert(packed("10.0.1.0"), 24, 4)
    for peer in (PEER, 4):
        egress.sender.install(install_send(peer, peer=peer), START)
        egress.sender.activate(m.Activate(peer, peer), START)
    for target in ("10.0.0.2", "10.0.0.2", "10.0.1.2", "10.0.0.2"):
        egress.sender.take(PLAIN + ip_packet("10.0.0.1", target), START)
    egress.sender.flush()
    assert [count for count, _, _ in egress.batches] == [2, 1, 1]
    assert [counter_of(sealed) for sealed in egress.sent] == [(1003, 0), (1003, 1), (1004, 0), (1003, 2)]


def test_a_super_packet_meets_the_limit_of_messages() -> None:
    egress = Egress(Times(reject_after_messages=4))
    egress.start(1, initiator=False)
    egress.sender.take(_super_packet(6), START)
    egress.sender.flush()
    assert [counter_of(sealed) for sealed in egress.take()] == [(1001, number) for number in range(4)]
    assert _WANTED in egress.told
    egress.start(2, initiator=False)
    assert [counter_of(sealed) for sealed in egress.take()] == [(1002, 0), (1002, 1)]


def test_a_super_packet_is_staged_as_its_packets() -> None:
    egress = Egress(staging=Staging(each=4))
    egress.sender.take(_super_packet(6), START)
    assert _counters(egress) == {Counter.STAGED_OVERFLOW: 2}
    egress.start(1)
    assert [len(sealed) for sealed in egress.take()] == [144, 144, 144, 112]


def test_a_super_packet_that_nobody_takes_is_counted_and_answered_once() -> None:
    answers: list[bytes] = []
    sender = Sender(make_stats(Role.EGRESS), lambda *_: 0, lambda _message: None, answer=answers.append)
    sender.take(_super_packet(6), START)
    assert len(answers) == 1
    # What is quoted is the first packet, not the super-packet.
    assert answers[0][28 + 2 : 28 + 4] == (100).to_bytes(2, "big")


def test_a_read_whose_header_does_not_fit_is_dropped() -> None:
    egress = Egress()
    broken = VnetHeader(NEEDS_CSUM, GSO_TCPV4, 28, 72, 20, 6).encode() + _super_packet(6)[SIZE:]
    egress.sender.take(broken, START)
    egress.start(1)
    egress.sender.take(broken, START)
    egress.sender.flush()
    assert egress.sent == []
    assert _counters(egress) == {Counter.INNER_MALFORMED: 2}
