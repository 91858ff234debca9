"""Ingress: the order of PROTOCOL.md section 10, rotation, last minute, handshake messages, refusals."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.inner import Flow
from tests.unit.tunnel.support import (
    PEER,
    PLACE,
    SECOND,
    START,
    Chosen,
    Ingress,
    datagram,
    install_receive,
    ip_packet,
    key,
    packed,
)
from wghsm.ipc import Counter, PeerField, Role
from wghsm.ipc import messages as m
from wghsm.process.endpoints import Source
from wghsm.tunnel import Times
from wghsm.tunnel.open import MERGE_NOTHING
from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import PLAIN, SIZE, VnetHeader

pytestmark = pytest.mark.usefixtures("engine")

_PACKET = ip_packet("10.0.0.2", "10.0.0.1")
_PACKET_V6 = ip_packet("fd00::2", "fd00::1")
_ELSEWHERE: Source = (("198.51.100.3", 1234), b"")


def _counters(ingress: Ingress) -> dict[Counter, int]:
    return ingress.stats.counters(Role.INGRESS)


def _sealed(session: int, counter: int, plaintext: bytes = _PACKET) -> bytes:
    return datagram(key(session), 1000 + session, counter, plaintext)


@pytest.mark.parametrize("packet", [_PACKET, _PACKET_V6])
def test_data_is_delivered_without_its_padding(packet: bytes) -> None:
    ingress = Ingress()
    ingress.install(1)
    assert ingress.open(_sealed(1, 0, packet + bytes(9))) == [packet]
    stats = ingress.stats
    assert stats.get(PEER, PeerField.RX_BYTES) == 16 + len(packet) + 9 + 16
    assert stats.get(PEER, PeerField.RX_PACKETS) == 1
    assert stats.get(PEER, PeerField.LAST_RECEIVED) == START
    assert stats.get(PEER, PeerField.LAST_DATA_RECEIVED) == START


def test_keepalive_is_counted_and_ends() -> None:
    ingress = Ingress()
    ingress.install(1)
    assert ingress.open(_sealed(1, 0, b"")) == []
    assert ingress.stats.get(PEER, PeerField.RX_BYTES) == 32
    assert ingress.stats.get(PEER, PeerField.LAST_RECEIVED) == START
    assert ingress.stats.get(PEER, PeerField.LAST_DATA_RECEIVED) == 0
    assert _counters(ingress) == {}


def test_nothing_unauthenticated_moves_anything() -> None:
    ingress = Ingress()
    ingress.install(1, initiator=False)
    ingress.take_told()
    forged = bytearray(_sealed(1, 2**40))
    forged[-1] ^= 1
    assert ingress.open(bytes(forged), source=_ELSEWHERE) == []
    assert ingress.told == ingress.told_egress == []
    assert ingress.stats.get(PEER, PeerField.LAST_RECEIVED) == 0
    assert _counters(ingress) == {Counter.AUTHENTICATION_FAILED: 1}
    assert ingress.open(_sealed(1, 0)) == [_PACKET]


def test_a_replay_moves_nothing() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.open(_sealed(1, 5))
    ingress.told_egress.clear()
    assert ingress.open(_sealed(1, 5), START + SECOND, _ELSEWHERE) == []
    assert ingress.told_egress == []
    assert ingress.stats.get(PEER, PeerField.LAST_RECEIVED) == START
    assert _counters(ingress) == {Counter.REPLAYED: 1}


def test_dropped_by_reason() -> None:
    ingress = Ingress(Times(reject_after_messages=100))
    ingress.install(1)
    for data in (b"", b"\x04" + bytes(30), b"\x01\x00\x00\x00" + bytes(143), b"\x04\x01\x00\x00" + bytes(28)):
        assert ingress.open(data) == []
    assert ingress.open(b"\x05\x00\x00\x00" + bytes(60)) == []
    assert ingress.open(datagram(key(1), 7, 0, b"")) == []
    assert ingress.open(_sealed(1, 100)) == []
    assert ingress.open(_sealed(1, 0), START + 180 * SECOND) == []
    assert ingress.open(_sealed(1, 1, b"\x45" + bytes(40))) == []
    assert ingress.open(_sealed(1, 2, ip_packet("192.0.2.1", "10.0.0.1"))) == []
    assert ingress.handed == []
    assert _counters(ingress) == {
        Counter.MALFORMED: 3,
        Counter.UNKNOWN_TYPE: 2,
        Counter.UNKNOWN_INDEX: 1,
        Counter.EXPIRED_SESSION: 2,
        Counter.INNER_MALFORMED: 1,
        Counter.SOURCE_NOT_ALLOWED: 1,
    }


@given(st.binary(max_size=200))
def test_any_datagram(data: bytes) -> None:
    ingress = Ingress()
    ingress.install(1)
    assert ingress.open(data) == []
    assert ingress.open(b"\x04\x00\x00\x00" + (1001).to_bytes(4, "little") + data) == []


@given(st.binary(min_size=1, max_size=100))
def test_any_inner_packet_of_a_peer(plaintext: bytes) -> None:
    ingress = Ingress()
    ingress.install(1)
    for packet in ingress.open(_sealed(1, 0, plaintext)):
        assert plaintext.startswith(packet)
        assert packet[0] >> 4 in (4, 6)


def test_the_source_must_belong_to_this_very_peer() -> None:
    ingress = Ingress()
    ingress.receiver.change_peers([4], [])
    ingress.receiver.routes.insert(packed("10.0.0.2"), 32, 4)
    ingress.install(1)
    assert ingress.open(_sealed(1, 0), source=_ELSEWHERE) == []
    assert _counters(ingress) == {Counter.SOURCE_NOT_ALLOWED: 1}
    assert ingress.stats.get(PEER, PeerField.RX_BYTES) == 0
    assert [type(message) for message in ingress.told_egress] == [m.EndpointMoved]


def test_first_data_on_next_completes_the_responders_handshake() -> None:
    ingress = Ingress()
    ingress.install(1, initiator=False)
    assert ingress.take_told() == [m.Installed(1)]
    ingress.open(_sealed(1, 0, b""))
    moved = m.EndpointMoved(PEER, m.Endpoint("192.0.2.7", 51820), START)
    assert ingress.told_egress == [moved, m.Activate(1, PEER)]
    assert ingress.take_told() == [moved, m.SessionConfirmed(1, PEER, START)]
    ingress.open(_sealed(1, 1, b""))
    assert ingress.told == []


def test_older_sessions_are_received_as_long_as_they_have_a_slot() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.install(2)
    assert ingress.open(_sealed(1, 0)) == [_PACKET]
    ingress.install(3, initiator=False)
    assert ingress.open(_sealed(1, 1)) == []
    assert ingress.open(_sealed(2, 0)) == [_PACKET]
    assert ingress.open(_sealed(3, 0)) == [_PACKET]
    assert ingress.open(_sealed(2, 1)) == [_PACKET]
    ingress.install(4)
    assert ingress.open(_sealed(2, 2)) == []
    assert _counters(ingress) == {Counter.UNKNOWN_INDEX: 2}


def test_endpoint_is_told_when_it_changes_and_again_after_a_while() -> None:
    ingress = Ingress()
    ingress.install(1)
    times = [START, START + 1, START + 2, START + 3, START + 2 + 10 * SECOND]
    sources = [PLACE, PLACE, _ELSEWHERE, _ELSEWHERE, _ELSEWHERE]
    for counter, (now, source) in enumerate(zip(times, sources, strict=True)):
        ingress.open(_sealed(1, counter, b""), now, source)
    there = m.Endpoint("198.51.100.3", 1234)
    assert ingress.told_egress == [
        m.EndpointMoved(PEER, m.Endpoint("192.0.2.7", 51820), START),
        m.EndpointMoved(PEER, there, START + 2),
        m.EndpointMoved(PEER, there, START + 2 + 10 * SECOND),
    ]
    ingress.receiver.tell_all_again()
    ingress.open(_sealed(1, 9, b""), START + 3 + 10 * SECOND, _ELSEWHERE)
    assert len(ingress.told_egress) == 4


@pytest.mark.parametrize(("initiator", "times"), [(True, 1), (False, 0)])
def test_last_minute_once_a_session(initiator: bool, times: int) -> None:
    ingress = Ingress()
    ingress.install(1, initiator=initiator)
    wanted = m.HandshakeWanted(PEER, "last-minute")
    ingress.open(_sealed(1, 0), START + 165 * SECOND - 1)
    assert wanted not in ingress.told
    for counter in (1, 2):
        ingress.open(_sealed(1, counter), START + 165 * SECOND)
    assert ingress.told.count(wanted) == times


def test_news_for_the_timers() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.open(_sealed(1, 0, b""))
    ingress.take_told()
    ingress.open(_sealed(1, 1), START + 1)
    ingress.open(_sealed(1, 2), START + 2)
    assert ingress.take_told() == [m.DataReceived(PEER, START + 1)]
    ingress.stats.set(PEER, PeerField.LAST_HANDSHAKE_SENT, START + 3)
    ingress.open(_sealed(1, 3), START + 4)
    assert ingress.take_told() == []
    assert ingress.stats.get(PEER, PeerField.FIRST_DATA_UNACKNOWLEDGED) == START + 4
    ingress.stats.set(PEER, PeerField.LAST_SENT, START + 5)
    ingress.open(_sealed(1, 4), START + 1 + SECOND)
    assert ingress.take_told() == [m.DataReceived(PEER, START + 1 + SECOND)]
    list(ingress.receiver.snapshot())
    ingress.stats.set(PEER, PeerField.LAST_SENT, START + 2 + SECOND)
    ingress.open(_sealed(1, 5), START + 3 + SECOND)
    assert ingress.take_told() == [m.DataReceived(PEER, START + 3 + SECOND)]


@pytest.mark.parametrize(("kind", "size"), [(1, 148), (2, 92), (3, 64)])
def test_handshake_messages_are_passed_on(kind: int, size: int) -> None:
    ingress = Ingress()
    data = bytes([kind, 0, 0, 0]) + bytes(size - 4)
    assert ingress.open(data) == []
    assert ingress.handed == [m.Datagram(m.Endpoint("192.0.2.7", 51820), START, data)]
    ingress.room = False
    ingress.open(data)
    ingress.open(data + b"\x00")
    assert _counters(ingress) == {Counter.HANDSHAKE_QUEUE_FULL: 1, Counter.MALFORMED: 1}


def test_egress_is_told_of_a_move_before_the_packet_is_delivered() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.open(_sealed(1, 0))
    seen: list[tuple[int, m.Message]] = []

    def deliver(_write: bytes | memoryview) -> None:
        seen.append((ingress.stats.get(PEER, PeerField.ENDPOINT_TOLD), ingress.told_egress[-1]))

    data = _sealed(1, 1)
    ingress.receiver.read(data, len(data), _ELSEWHERE, 0, START + 9, deliver)
    ((told, message),) = seen
    assert told == START + 9
    assert isinstance(message, m.EndpointMoved)
    assert message.endpoint.host == "198.51.100.3"


def test_a_full_queue_is_left_to_what_is_no_blind_flood() -> None:
    """Responses and cookie replies find room that initiations without a cookie leave, whatever mac2 says."""
    ingress = Ingress()
    bare = b"\1\0\0\0" + bytes([7] * 128) + bytes(16)
    junk = bare[:-16] + b"\1" + bytes(15)
    others = [b"\2\0\0\0" + bytes(88), b"\3\0\0\0" + bytes(60)]
    ingress.room = False
    ingress.open(bare)
    ingress.room = True
    ingress.handed.clear()
    for data in (bare, junk, *others):
        ingress.open(data, now=START + SECOND // 200)
    assert [handed.data for handed in ingress.handed] == others
    ingress.open(bare, now=START + SECOND // 100)
    assert [handed.data for handed in ingress.handed] == [*others, bare]
    assert _counters(ingress) == {Counter.HANDSHAKE_QUEUE_FULL: 3}


def test_a_crowd_is_told() -> None:
    """More than the first room takes: the handshake process hears of it with what still passes."""
    ingress = Ingress()
    elsewhere: Source = (("198.51.100.9", 1234), b"")
    response = b"\2\0\0\0" + bytes(88)
    for _ in range(1000):
        ingress.open(response)
    assert not ingress.handed[0].crowded
    number = len(ingress.handed)
    ingress.open(response, source=elsewhere)
    assert ingress.handed[number].crowded
    assert _counters(ingress) == {Counter.HANDSHAKE_QUEUE_FULL: 1001 - len(ingress.handed)}


def test_what_is_dropped_unread_makes_the_sieve_read_first() -> None:
    ingress = Ingress()
    ingress.install(1)
    assert not ingress.receiver.besieged(START)
    ingress.open(_sealed(1, 0))
    ingress.open(b"\2\0\0\0" + bytes(88))
    assert not ingress.receiver.besieged(START)
    for data in (b"", bytes(40), b"\4\0\0\0" + bytes(40)):
        ingress.open(data)
        sweeps = Chosen.engine.name == "compiled"
        assert ingress.receiver.besieged(START + SECOND // 100) == sweeps
        assert not ingress.receiver.besieged(START + SECOND // 2)


def test_mac1_is_looked_at_once_the_identities_are_known() -> None:
    ingress = Ingress()
    response = b"\2\0\0\0" + bytes(88)
    ingress.open(response)
    ingress.receiver.serve(m.Gates((m.Gate(key(1)),)))
    ingress.open(response)
    assert len(ingress.handed) == 1
    assert _counters(ingress) == {Counter.BAD_MAC1: 1}


def test_the_same_installation_again_keeps_the_window() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.open(_sealed(1, 0))
    ingress.take_told()
    again = install_receive(1)
    ingress.receiver.install(again, START)
    assert ingress.take_told() == [m.Installed(1)]
    assert not any(again.key)
    assert ingress.open(_sealed(1, 0)) == []
    assert _counters(ingress) == {Counter.KEY_REPEATED: 1, Counter.REPLAYED: 1}


def test_refused_installations() -> None:
    ingress = Ingress()
    ingress.install(1)
    refused = [
        install_receive(2, index=1001),
        install_receive(3, peer=77),
        install_receive(4, created=START - 180 * SECOND),
        m.InstallReceive(5, PEER, 9, True, START, key(1), 0),
        m.InstallReceive(6, PEER, 9, True, START, bytes(31), 0),
    ]
    for message in refused:
        ingress.receiver.install(message, START)
        assert not any(message.key)
    assert ingress.told[1:] == [m.Installed(number, accepted=False) for number in range(2, 7)]
    assert _counters(ingress) == {Counter.KEY_REFUSED: 4, Counter.KEY_REPEATED: 1}
    assert ingress.open(_sealed(1, 0)) == [_PACKET]


def test_expired_keys_go_without_a_packet() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.install(2, START + SECOND)
    assert ingress.receiver.expire(START + 180 * SECOND) == START + 181 * SECOND
    assert [info.session for part in ingress.receiver.snapshot() for info in part.sessions] == [2]
    assert list(ingress.receiver.by_index) == [1002]
    assert ingress.receiver.expire(START + 181 * SECOND) is None
    assert not ingress.receiver.by_index


@pytest.mark.parametrize("how", ["forget", "remove", "down"])
def test_forgetting(how: str) -> None:
    ingress = Ingress()
    for session in (1, 2):
        ingress.install(session)
    ingress.install(3, initiator=False)
    if how == "forget":
        ingress.receiver.forget_sessions(m.ForgetSessions(PEER))
    elif how == "remove":
        ingress.receiver.change_peers([], [PEER])
    else:
        ingress.receiver.link_down()
    for session in (1, 2, 3):
        assert ingress.open(_sealed(session, 0)) == []
    assert not ingress.receiver.by_index


@pytest.mark.parametrize("keep", [(1,), (2,), (3,), (1, 2), (2, 3)])
def test_forgetting_all_but_some(keep: tuple[int, ...]) -> None:
    ingress = Ingress()
    for session in (1, 2):
        ingress.install(session)
    ingress.receiver.install(install_receive(3, initiator=False), START)
    held = {one.session for part in ingress.receiver.snapshot() for one in part.sessions}
    ingress.receiver.forget_sessions(m.ForgetSessions(PEER, keep))
    held &= set(keep)
    assert {one.session for part in ingress.receiver.snapshot() for one in part.sessions} == held
    assert set(ingress.receiver.by_index) == {1000 + session for session in held}
    for session in (1, 2, 3):
        assert bool(ingress.open(_sealed(session, 0))) == (session in held)


def test_snapshot() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.receiver.install(m.InstallReceive(2, PEER, 1002, True, START, key(2), 77), START)
    ingress.open(_sealed(2, 0))
    (part,) = ingress.receiver.snapshot()
    assert part.last
    assert part.sessions == [
        m.SessionInfo(1, PEER, 1001, True, START, "previous", 0),
        m.SessionInfo(2, PEER, 1002, True, START, "current", 77),
    ]
    assert part.endpoints == [m.EndpointMoved(PEER, m.Endpoint("192.0.2.7", 51820), START)]


def test_a_read_of_many_datagrams_is_taken_in_order() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.install(2)
    one, two = (_sealed(session, 0, _PACKET + bytes(4)) for session in (1, 2))
    forged = bytearray(_sealed(1, 1, _PACKET + bytes(4)))
    forged[20] ^= 1
    size = len(one)
    strange = b"\x05" + bytes(size - 1)
    initiation = b"\x01\x00\x00\x00" + bytes(size - 4)
    unknown = datagram(key(1), 9, 0, _PACKET + bytes(4))
    read = b"".join((one, bytes(forged), one, two, strange, initiation, unknown, _sealed(1, 2, b"")))
    assert [len(write) for write in ingress.read(read, size)] == [10 + len(_PACKET)] * 2
    assert _counters(ingress) == {
        Counter.AUTHENTICATION_FAILED: 1,
        Counter.REPLAYED: 1,
        Counter.UNKNOWN_TYPE: 1,
        Counter.MALFORMED: 1,
        Counter.UNKNOWN_INDEX: 1,
    }
    assert ingress.stats.get(PEER, PeerField.RX_PACKETS) == 3
    assert ingress.stats.get(PEER, PeerField.RX_BYTES) == 2 * size + 32


def test_handshake_messages_of_one_size_may_come_in_one_read() -> None:
    ingress = Ingress()
    first, second = (b"\x01\x00\x00\x00" + bytes([number]) * 144 for number in (1, 2))
    assert ingress.read(first + second, 148) == []
    assert [message.data for message in ingress.handed] == [first, second]


def test_a_run_on_next_confirms_once_and_takes_previous_away_for_what_follows() -> None:
    ingress = Ingress()
    ingress.install(1)
    ingress.install(2)
    ingress.install(3, initiator=False)
    ingress.take_told()
    runs = [_sealed(3, 0), _sealed(3, 1), _sealed(2, 0), _sealed(1, 0)]
    writes = ingress.read(b"".join(runs), len(runs[0]))
    assert len(writes) == 3
    assert [message for message in ingress.take_told() if isinstance(message, m.SessionConfirmed)] == [
        m.SessionConfirmed(3, PEER, START)
    ]
    assert _counters(ingress) == {Counter.UNKNOWN_INDEX: 1}


def test_packets_are_merged_for_the_tun_and_refused_together() -> None:
    ingress = Ingress()
    ingress.install(1)
    flow = Flow(4)
    packets = [flow.udp(bytes([number]) * 100, identity=number) for number in range(5)]
    sealed = [_sealed(1, number, packet) for number, packet in enumerate(packets)]
    (write,) = ingress.read(b"".join(sealed), len(sealed[0]))
    assert cut(VnetHeader.decode(write), write[SIZE:]) == packets
    ingress.receiver.merge = MERGE_NOTHING
    sealed = [_sealed(1, 5 + number, packet) for number, packet in enumerate(packets)]
    assert ingress.read(b"".join(sealed), len(sealed[0])) == [PLAIN + packet for packet in packets]
    ingress.receiver.routes.remove(packed("10.0.0.0"), 8)
    sealed = [_sealed(1, 10 + number, packet) for number, packet in enumerate(packets)]
    assert ingress.read(b"".join(sealed), len(sealed[0])) == []
    assert _counters(ingress) == {Counter.SOURCE_NOT_ALLOWED: 5}
    assert ingress.stats.get(PEER, PeerField.RX_PACKETS) == 10


@pytest.mark.parametrize("version", [4, 6])
def test_congestion_outside_marks_what_can_be_marked(version: Literal[4, 6]) -> None:
    ingress = Ingress()
    ingress.install(1)
    for counter, (inner, outer, expected) in enumerate(
        [(0, 3, 0), (1, 3, 3), (2, 3, 3), (3, 3, 3), (0, 0, 0), (1, 2, 1), (2, 1, 2), (3, 0, 3)]
    ):
        packet = Flow(version, tos=0x88 | inner).udp(b"x" * 20)
        (write,) = ingress.read(_sealed(1, counter, packet), 2000, ecn=outer)
        assert write[SIZE:] == Flow(version, tos=0x88 | expected).udp(b"x" * 20)
