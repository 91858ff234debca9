"""Everything that must be dropped, sent by strangers and by peers that misbehave, while an honest client pings.

Each message of PROTOCOL.md sections 3 to 10 in its malformed, forged, replayed, oversized and untimely forms is counted
under its reason and under no other, gets no answer, and costs the honest client no packet.
"""

import base64
import contextlib
import ipaddress
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.network import support
from tests.network.support import Lab, Pinger, ping_until, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.netns import add_address
from tests.network.support.siege import Siege
from tests.network.support.site import CLIENT_PORT, Site
from tests.network.support.software_peer import KnownSession, SoftwarePeer, echo_request, udp_socket
from wghsm.noise import CookieMaker, Initiation, Rejected, Responder, Response, SoftwareCustody
from wghsm.noise.constants import REJECT_AFTER_MESSAGES
from wghsm.noise.tai64n import next_timestamp

LARGEST = 65507
"""Bytes of the largest UDP payload over IPv4."""

WINDOW = 8128

MANY = 5000


@pytest.fixture
def siege(lab: Lab, token: GatewayToken) -> Siege:
    made = Siege(lab, token)
    made.start()
    return made


def test_malformed_and_unknown_packets_get_no_answer(siege: Siege) -> None:
    sizes = {1: (147, 149, 4, LARGEST), 2: (91, 93, LARGEST), 3: (63, 65, LARGEST), 4: (4, 16, 31)}
    wrong = [bytes([kind]) + bytes(3) + os.urandom(size - 4) for kind, each in sizes.items() for size in each]
    siege.expect([*wrong, b"", b"\1", b"\4\0\0"], "malformed")
    types = [bytes([kind, 0, 0, 0]) + os.urandom(150) for kind in (0, 5, 77, 255)]
    reserved = [bytes([kind, *each]) + os.urandom(144) for kind in (1, 2, 3, 4) for each in ((0, 0, 1), (1, 0, 0))]
    siege.expect([*types, *reserved], "unknown-type")
    siege.expect([b"\4\0\0\0" + os.urandom(size - 4) for size in (32, 64, 1452, LARGEST)], "unknown-index")
    siege.expect([b"\1\0\0\0" + os.urandom(144), b"\2\0\0\0" + os.urandom(88)], "bad-mac1")
    siege.expect([b"\3\0\0\0" + os.urandom(60)], "unknown-handshake")
    siege.check_unharmed()


def test_handshakes_of_strangers_get_no_answer(siege: Siege) -> None:
    maker = CookieMaker(siege.gateway_key)
    siege.expect([maker.authenticate(Response(7, 8, os.urandom(32), os.urandom(16)), 0)], "unknown-handshake")
    siege.expect([maker.authenticate(Initiation(7, os.urandom(32), os.urandom(48), os.urandom(28)), 0)], "bad-static")
    for point in (bytes(32), b"\1" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")):
        low_order = Initiation(7, point, os.urandom(48), os.urandom(28))
        siege.expect([maker.authenticate(low_order, 0)], "low-order-point")
    stranger = SoftwarePeer(siege.client.namespace, os.urandom(32), siege.gateway_key, siege.client.gateway_endpoint)
    siege.lab.add(stranger)
    siege.expect([stranger.initiation()[2]], "unknown-peer")
    siege.check_unharmed()


def test_replayed_and_forged_packets_are_dropped_whoever_sends_them(siege: Siege) -> None:
    gateway, relay = siege.site.gateway, siege.relay
    until(lambda: len([p for p in relay.captured("to_right") if p[0] == 4]) > 20, "some packets to replay")
    captured = relay.captured("to_right")
    data = [packet for packet in captured if packet[0] == 4]
    initiations = [packet for packet in captured if packet[0] == 1]
    handshakes = gateway.counter("handshake-complete")
    siege.expect(data[:10], "replayed")
    # The counter far ahead, so that the seal alone is what is wrong; it must not move the window either.
    forged = data[-1][:8] + (1 << 20).to_bytes(8, "little") + data[-1][16:]
    siege.expect([forged, data[0][:-1] + bytes([data[0][-1] ^ 1]), data[0][:-1]], "authentication-failed")
    siege.expect(initiations[-1:], "old-timestamp")
    for packet in (*data[:5], *initiations):
        relay.inject("to_right", packet)
    until(lambda: gateway.counter("replayed") >= 15, "the replays through the client's own way")
    assert gateway.counter("handshake-complete") == handshakes
    siege.check_unharmed()


def sealed_at(peer: SoftwarePeer, packet: bytes, counter: int) -> bytes:
    """Seal with a counter of our choice; the session's own goes on from where it was."""
    session = peer.sessions[-1]
    own, session.counter = session.counter, counter
    message = peer.seal(packet, session)
    session.counter = own
    return message


def test_transport_messages_of_a_peer_that_misbehaves(siege: Siege) -> None:
    mallory, peer = siege.mallory, siege.software_peer()
    peer.initiate()
    good = echo_request(mallory.ipv4, siege.site.inner4, b"ordinary")
    peer.ping(mallory.ipv4, siege.site.inner4)
    message = peer.seal(good)
    peer.socket.sendto(message, peer.target)
    siege.expect([message] * 3, "replayed", peer)
    flipped = [message[:at] + bytes([message[at] ^ 0x80]) + message[at + 1 :] for at in (15, 16, len(message) - 1)]
    siege.expect([*flipped, message[:-1], message + b"\0"], "authentication-failed", peer)
    peer.socket.sendto(sealed_at(peer, good, 1 << 20), peer.target)
    behind = [sealed_at(peer, good, (1 << 20) - WINDOW - 1), sealed_at(peer, good, 500)]
    siege.expect(behind, "replayed", peer)
    beyond = [sealed_at(peer, good, counter) for counter in (REJECT_AFTER_MESSAGES, 2**64 - 1)]
    siege.expect(beyond, "expired-session", peer)
    peer.sessions[-1].counter = (1 << 20) + 1
    siege.check_unharmed()


def inner_packets(own4: str, own6: str, gateway4: str) -> dict[str, list[bytes]]:
    """What may be inside, by the reason for which it is dropped."""
    good = echo_request(own4, gateway4, b"payload!")

    def length(value: int) -> bytes:
        return good[:2] + struct.pack(">H", value) + good[4:]

    def ipv6(source: str, payload: int) -> bytes:
        ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address("fd08::1").packed
        return struct.pack(">IHBB", 6 << 28, payload, 59, 64) + ends + bytes(8)

    malformed = [
        *(bytes([version << 4 | 5]) + good[1:] for version in (0, 1, 5, 7, 15)),
        *(good[:size] for size in (1, 16)),
        *(length(value) for value in (0, 19, len(good) + 17, 65535)),
        *(ipv6(own6, value) for value in (25, 65535)),
        ipv6(own6, 0)[:32],
    ]
    others = ("10.8.0.2", gateway4, "0.0.0.0", "127.0.0.1", "255.255.255.255", "8.8.8.8")  # noqa: S104
    foreign = [
        *(echo_request(source, gateway4, b"payload!") for source in others),
        *(ipv6(source, 8) for source in ("fd08::2", "fd08::1", "::", "::1", "fe80::1")),
    ]
    return {"inner-malformed": malformed, "source-not-allowed": foreign}


@pytest.mark.parametrize("reason", ["inner-malformed", "source-not-allowed"])
def test_inner_packets_that_a_peer_may_not_send(siege: Siege, reason: str) -> None:
    mallory, peer = siege.mallory, siege.software_peer()
    peer.initiate()
    packets = inner_packets(mallory.ipv4, mallory.ipv6, siege.site.inner4)[reason]
    siege.expect([peer.seal(packet) for packet in packets], reason, peer)
    peer.ping(mallory.ipv4, siege.site.inner4)
    siege.check_unharmed()


def test_sessions_that_are_over(siege: Siege) -> None:
    """The one before the current one still receives; the one before that is gone, and so is one that was never used."""
    mallory, peer = siege.mallory, siege.software_peer()
    for _ in range(3):
        peer.initiate()
        peer.ping(mallory.ipv4, siege.site.inner4)
    good = echo_request(mallory.ipv4, siege.site.inner4, b"ordinary")
    siege.expect([peer.seal(good, peer.sessions[0])], "unknown-index", peer)
    received = siege.site.gateway.peer(mallory.public_key).rx_bytes
    peer.send(good, peer.sessions[1])
    until(lambda: siege.site.gateway.peer(mallory.public_key).rx_bytes > received, "the session before is still good")
    unused = peer.initiate()
    peer.initiate()
    siege.expect([peer.seal(good, unused)], "unknown-index", peer)
    siege.check_unharmed()


def test_initiations_of_a_peer_that_misbehaves(siege: Siege) -> None:
    peer = siege.software_peer()
    latest = next_timestamp(2_000_000_000 * 10**9, None)
    session = answered(peer, peer.initiation(latest)[2])
    siege.expect([peer.initiation(latest)[2]], "old-timestamp", peer)
    siege.expect([peer.initiation(next_timestamp(1_000_000_000 * 10**9, None))[2]], "old-timestamp", peer)
    later = next_timestamp(2_000_000_001 * 10**9, None)
    for field, reason in (("static", "bad-static"), ("timestamp", "bad-timestamp")):
        siege.expect([forged_initiation(siege, peer, later, field)], reason, peer)
    # Neither can be answered: they name an index that is a session's.
    maker = CookieMaker(siege.gateway_key)
    response = Response(9, session.remote_index, os.urandom(32), os.urandom(16))
    siege.expect([maker.authenticate(response, 0)], "unknown-handshake", peer)
    cookie = b"\3\0\0\0" + session.remote_index.to_bytes(4, "little") + os.urandom(56)
    siege.expect([cookie], "cookie-refused", peer)
    siege.check_unharmed()


def answered(peer: SoftwarePeer, message: bytes) -> KnownSession:
    """Send an initiation and wait for its response; a session without keys, which nothing is to be opened with."""
    peer.socket.sendto(message, peer.target)
    while not isinstance(response := Response.decode(peer.socket.recv(65535)), Response):
        pass
    return KnownSession(b"", b"", response.receiver, response.sender)


def forged_initiation(siege: Siege, peer: SoftwarePeer, timestamp: bytes, field: str) -> bytes:
    """An initiation with one bit of a sealed field changed, and a mac1 that is right again."""
    message = Initiation.decode(peer.initiation(timestamp)[2])
    assert isinstance(message, Initiation)
    fields = {name: getattr(message, name) for name in ("sender", "ephemeral", "static", "timestamp")}
    fields[field] = bytes([fields[field][0] ^ 1]) + fields[field][1:]
    return CookieMaker(siege.gateway_key).authenticate(Initiation(**fields), 0)


def test_two_initiations_within_the_flood_guard(siege: Siege) -> None:
    """Two initiations back to back: the second comes before 20 ms are over, on a machine that is not stuck."""
    peer = siege.software_peer()

    def guarded() -> bool:
        for message in [peer.initiation()[2] for _ in range(2)]:
            peer.socket.sendto(message, peer.target)
        return siege.site.gateway.counter("flood") > 0

    until(guarded, "the second of two initiations is refused", 60, pause=0.1)
    siege.check_unharmed()


def test_responses_of_a_peer_that_misbehaves(siege: Siege) -> None:
    """The gateway's own initiation survives every wrong answer, and takes the right one that comes after them."""
    site, silent = siege.site, siege.silent
    custody = SoftwareCustody(base64.b64decode(silent.keys.private), {})
    link = silent.link.right
    sock = siege.lab.add(udp_socket(silent.namespace, 4, link.ipv4, CLIENT_PORT))
    asking = Pinger(site.namespace, silent.ipv4, siege.lab.scratch)
    siege.lab.add(asking)
    while not isinstance(message := Initiation.decode(sock.recv(65535)), Initiation):
        pass
    responder = Responder(custody)
    responder.read_static(message.ephemeral, message.static)
    responder.read_timestamp(message.timestamp)
    fields = responder.write_response(bytearray(os.urandom(32)))
    assert not isinstance(fields, Rejected)
    good = Response(77, message.sender, fields.ephemeral, fields.empty)
    maker, target = CookieMaker(siege.gateway_key), (silent.link.left.ipv4, site.gateway.listen_port)
    before = {reason: site.gateway.counter(reason) for reason in ("bad-response", "low-order-point", "bad-mac1")}
    wrong = {
        "bad-response": replace(good, empty=bytes(16)),
        "low-order-point": replace(good, ephemeral=bytes(32)),
    }
    for reason, response in wrong.items():
        sock.sendto(maker.authenticate(response, 0), target)
        until(lambda reason=reason: site.gateway.counter(reason) > before[reason], f"a response counted as {reason}")  # type: ignore[misc]
    sock.sendto(CookieMaker(os.urandom(32)).authenticate(good, 0), target)
    until(lambda: site.gateway.counter("bad-mac1") > before["bad-mac1"], "a mac1 for somebody else")
    sock.sendto(maker.authenticate(good, 0), target)
    until(lambda: silent.latest_handshake() > 0, "the right response is taken")
    asking.stop()
    siege.check_unharmed()


def test_memory_is_bounded_whatever_strangers_send(siege: Siege) -> None:
    """What strangers can fill has an end: many sources, many indices, more initiations than the token can take."""
    maker = CookieMaker(siege.gateway_key)
    link = siege.client.link.right
    sockets = [siege.lab.add(udp_socket(siege.client.namespace, 4, link.ipv4)) for _ in range(20)]
    gateway = siege.site.gateway
    before = sum(siege.drops().values())
    for number in range(MANY):
        sock = sockets[number % len(sockets)]
        initiation = Initiation(number, os.urandom(32), os.urandom(48), os.urandom(28))
        sock.sendto(maker.authenticate(initiation, 0), siege.target)
        sock.sendto(b"\4\0\0\0" + os.urandom(28), siege.target)
        sock.sendto(b"\3\0\0\0" + os.urandom(60), siege.target)
        # The link would drop what comes faster than the gateway reads.
        if number % 50 == 49:
            until(lambda: sum(siege.drops().values()) - before > 1.5 * number, "the gateway reads on")  # noqa: B023
    assert gateway.counter("unknown-index") > 0.9 * MANY
    assert gateway.counter("bad-mac2") + gateway.counter("rate-limited") > 0
    for sock in sockets:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while answer := sock.recv(65535):
                assert answer[:4] == b"\3\0\0\0", "nothing but cookies goes to a stranger"
    siege.check_unharmed()


@pytest.mark.parametrize(("family", "claims"), [(4, ()), (6, ("--junk-mac2",))])
def test_handshakes_are_made_while_many_sources_flood(
    lab: Lab, token: GatewayToken, family: int, claims: tuple[str, ...]
) -> None:
    """A session lives on, and new ones need cookies, while initiations with a good mac1 come from all over.

    Whether they claim to have a cookie makes no difference.
    """
    site = Site(lab, token)
    old, new, attacker = (site.client(name, family=family) for name in ("old", "new", "attacker"))
    site.start()
    old.start()
    ping_until(old.namespace, site.inner4)
    link, bits = attacker.link.right, {4: 24, 6: 64}[family]
    sources = [link.address(family)[:-1] + format(number, "x" if family == 6 else "d") for number in range(10, 74)]
    for source in sources:
        add_address(attacker.namespace, link.interface, f"{source}/{bits}")
    words = [base64.b64decode(site.gateway_key).hex(), attacker.link.left.address(family)]
    script = Path(support.__file__).with_name("_flood_process.py")
    words += [str(site.gateway.listen_port), *claims, *sources]
    flood = lab.add(attacker.namespace.start_python(script, *words, folder=lab.scratch, label="flood"))
    until(lambda: site.gateway.counter("cookie-sent") > 100, "the gateway asks for cookies", 60)
    pinger = lab.add(Pinger(old.namespace, site.inner4, lab.scratch))
    until(lambda: len(pinger.answers()) >= 20, "echoes through the session", 60)
    latest = old.latest_handshake()
    site.gateway.command("rekey", site.gateway.name)
    until(lambda: old.latest_handshake() > latest, "a new session with the old client", 120)
    stock = new.start()
    ping_until(new.namespace, site.inner4, 120)
    assert stock.latest_handshake(site.gateway_key) > 0
    sent = int(flood.stdout().split()[-1])
    flood.stop()
    nice = {role: os.getpriority(os.PRIO_PROCESS, pid) for role, pid in site.gateway.pids().items()}
    assert {role for role in nice if nice[role] > nice["ingress"]} == {"custodian", "handshake"}
    # The token is asked for a small part of what came: the rest ended at the cookie, or in a queue that was full.
    assert site.gateway.counter("derive") < sent / 5
    assert site.gateway.counter("handshake-complete") < 10
