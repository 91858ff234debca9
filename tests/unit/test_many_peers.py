"""Whatever a packet, a handshake message or a timer sets off takes as many steps with 3,000 peers as with ten."""

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest

from tests.unit.crowd import PEER, address, egress, handshake, ingress, steps
from tests.unit.handshake.bench import ELSEWHERE, SECOND, Bench
from tests.unit.tunnel.support import START, Egress, Ingress, datagram, install_receive, install_send, ip_packet, key
from wghsm.custodian.rules import Rules
from wghsm.ipc import Role
from wghsm.ipc import messages as m

_C = TypeVar("_C")

FEW, MANY = 10, 3_000
OWN = "10.0.0.1"
NOW = START + SECOND

OUT = ip_packet(OWN, address(PEER))
OUT6 = ip_packet("fd00::ffff:1", f"fd00::{PEER:x}")
IN = ip_packet(address(PEER), OWN)


def alike(make: Callable[[int], _C], work: Callable[[_C], object]) -> None:
    few, many = (steps(partial(work, make(count))) for count in (FEW, MANY))
    assert few == many


def end_session(one: Egress) -> None:
    one.sender.forget_sessions(m.ForgetSessions(PEER))
    one.sender.read(OUT, NOW)


EGRESS: dict[str, Callable[[Egress], object]] = {
    "a packet": lambda one: one.sender.read(OUT, NOW),
    "a packet over IPv6": lambda one: one.sender.read(OUT6, NOW),
    "a packet for nobody": lambda one: one.sender.read(ip_packet(OWN, "192.0.2.1"), NOW),
    "a packet that waits for a session": end_session,
    "a keepalive": lambda one: one.sender.keepalive(PEER, NOW),
    "a new key": lambda one: one.sender.install(install_send(9_999, peer=PEER), NOW),
    "an activation": lambda one: one.sender.activate(m.Activate(PEER + 1, PEER), NOW),
    "a new place": lambda one: one.move(NOW, "192.0.2.8"),
    "a look at the clock": lambda one: one.sender.expire(NOW),
}


@pytest.mark.parametrize("name", EGRESS)
def test_egress(name: str) -> None:
    alike(egress, EGRESS[name])


def sealed(counter: int, session: int = PEER + 1, packet: bytes = IN) -> bytes:
    return datagram(key(session), 1000 + session, counter, packet)


INGRESS: dict[str, Callable[[Ingress], object]] = {
    "a packet": lambda one: one.open(sealed(0), NOW),
    "a packet with another's source": lambda one: one.open(sealed(0, packet=ip_packet(address(PEER + 1), OWN)), NOW),
    "a packet of no session": lambda one: one.open(sealed(0, 99_999), NOW),
    "a keepalive": lambda one: one.open(sealed(0, packet=b""), NOW),
    "a packet from a new place": lambda one: one.open(sealed(0), NOW, (("198.51.100.3", 99), b"")),
    "a handshake message": lambda one: one.open(b"\1\0\0\0" + os.urandom(144), NOW),
    "a new key": lambda one: one.receiver.install(install_receive(9_999, peer=PEER), NOW),
    "a look at the clock": lambda one: one.receiver.expire(NOW),
}


@pytest.mark.parametrize("name", INGRESS)
def test_ingress(name: str) -> None:
    alike(ingress, INGRESS[name])


def told(peer: int) -> bytes:
    return peer.to_bytes(4, "big") * 8


def one_timer(bench: Bench) -> None:
    """The only timer that is due is that of the peer whose keepalive is turned on last."""
    bench.says(Role.SUPERVISOR, m.HandshakePeers(9_000, [m.HandshakePeer(PEER, told(PEER), None, 5)], []))
    bench.core.expire(bench.now)
    assert bench.core.next_deadline() == bench.now + 5 * SECOND
    bench.core.expire(bench.now + 5 * SECOND)


def respond(bench: Bench) -> None:
    """A whole handshake as far as this process takes part in it."""
    bench.accept(session=77, peer=0)
    bench.says(Role.INGRESS, m.Installed(77))
    bench.says(Role.INGRESS, m.SessionConfirmed(77, 0, bench.now))


HANDSHAKE: dict[str, Callable[[Bench], object]] = {
    "first data sent": lambda bench: bench.says(Role.EGRESS, m.DataSent(PEER, bench.now)),
    "first data received": lambda bench: bench.says(Role.INGRESS, m.DataReceived(PEER, bench.now)),
    "a new place": lambda bench: bench.says(Role.INGRESS, m.EndpointMoved(PEER, ELSEWHERE, bench.now)),
    "the next deadline": lambda bench: bench.core.next_deadline(),
    "nothing is due": lambda bench: bench.core.expire(bench.now),
    "one timer is due": one_timer,
    "a stranger's message": lambda bench: bench.datagram(b"\1\0\0\0" + bytes(144)),
    "a handshake as responder": respond,
    "a handshake as initiator begins": lambda bench: bench.create(),
}


@pytest.mark.parametrize("name", HANDSHAKE)
def test_handshake(name: str) -> None:
    alike(handshake, HANDSHAKE[name])


def rules(peers: int) -> Rules:
    made = Rules(1, {told(peer): bytes(12) for peer in range(peers)}, None)
    made.update([m.CustodianPeer(peer, told(peer), m.PskNone()) for peer in range(peers)], [])
    return made


def whole(made: Rules) -> None:
    peer = made.by_key(told(PEER))
    assert peer is made.by_slot(PEER)
    assert peer is not None
    assert made.begin(peer) is None
    assert made.may_create(peer, NOW) is None
    assert made.judge(peer, bytes([1] * 12), NOW) is None
    made.consume(peer, bytes([1] * 12), NOW)
    made.end(peer)
    made.expire(NOW)


def test_the_custodians_rules() -> None:
    alike(rules, whole)


def loop(count: int) -> None:
    for _ in range(count):
        pass


def test_steps_see_a_loop() -> None:
    few, many = (steps(partial(loop, count)) for count in (FEW, MANY))
    assert many - few == 2 * (MANY - FEW)
