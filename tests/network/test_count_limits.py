"""Limits by count in whole gateways: messages of a session, and packets that wait for one."""

import struct

import pytest

from tests.network.support import Lab, UdpStream, ping_until, until
from tests.network.support.few_messages import FEW, program
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Site
from tests.network.support.software_peer import udp_socket

RATE = 5
"""Packets a second: a session lasts a little longer than the five seconds that lie between two handshakes."""

STAGED = 128


def counters(captured: list[bytes]) -> dict[int, list[int]]:
    """Of the transport messages: their counters by receiver index."""
    found: dict[int, list[int]] = {}
    for packet in captured:
        kind, index, counter = struct.unpack_from("<IIQ", packet) if len(packet) >= 32 else (0, 0, 0)
        if kind == 4:
            found.setdefault(index, []).append(counter)
    return found


@pytest.mark.parametrize("limit", ["rekey", "reject"])
def test_a_session_that_has_carried_its_messages_is_renewed_without_a_loss(
    lab: Lab, token: GatewayToken, limit: str
) -> None:
    site = Site(lab, token)
    site.gateway.program = program(limit)
    client = site.client("client")
    middle = lab.namespace("middle")
    inner, outer = lab.connect(client.namespace, middle), lab.connect(middle, site.namespace)
    relay = lab.relay(inner.right, outer.left, outer.right.endpoint(4, site.gateway.listen_port))
    site.start()
    client.start(endpoint=relay.left_endpoint)
    ping_until(client.namespace, site.inner4)
    stream = lab.add(UdpStream(site.namespace, client.namespace, client.ipv4, lab.scratch, rate=RATE))
    until(lambda: site.gateway.counter("handshake-complete") >= 3, "two renewals", 90)
    stream.wait_for(5)
    # What was sent last may wait for the next session.
    report = stream.finish(quiet=20)
    assert report.lost == ()
    assert report.reordered == report.duplicates == 0
    sent = counters(relay.captured("to_left"))
    assert len(sent) >= 3
    for numbers in sent.values():
        assert numbers == list(range(len(numbers)))
    if limit == "reject":
        assert max(map(max, sent.values())) == FEW - 1, "not one message beyond the limit"
    else:
        assert max(map(max, sent.values())) >= FEW, "a session goes on until the next one is there"


def test_of_packets_that_wait_the_oldest_are_dropped(lab: Lab, token: GatewayToken) -> None:
    """Two hundred packets for a peer that does not answer yet: the last 128 reach it, in order."""
    site = Site(lab, token)
    client = site.client("late", dials=False)
    gateway = site.start()
    sender = lab.add(udp_socket(site.namespace, 4, site.inner4))
    for number in range(200):
        sender.sendto(number.to_bytes(8, "big"), (client.ipv4, 4000))
    until(lambda: gateway.counter("staged-overflow") >= 200 - STAGED, "what is too much is dropped")
    assert gateway.counter("staged-overflow") == 200 - STAGED
    receiver = lab.add(udp_socket(client.namespace, 4, "0.0.0.0", 4000))  # noqa: S104
    receiver.settimeout(60)
    client.start()
    arrived = [int.from_bytes(receiver.recv(100), "big") for _ in range(STAGED)]
    assert arrived == list(range(200 - STAGED, 200))
