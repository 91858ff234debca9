"""A gateway and stock clients: what they send each other arrives, both roles, with and without PSK, IPv4 and IPv6."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import pytest

from tests.network.support import FileCopy, Lab, Namespace, StockPeer, ping, ping_until, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.netns import add_address
from tests.network.support.site import CLIENT_PORT, Client, PskKind, Site

FILE = 1 << 20
SLACK = 4096
"""Bytes by which two looks may differ: keepalives come and go."""


@dataclass(frozen=True)
class Case:
    """One client: who makes the handshake, its PSK, the outer family."""

    dials: bool
    psk: PskKind
    family: int

    def __str__(self) -> str:
        return f"{'initiator' if self.dials else 'responder'}-{self.psk}-outer{self.family}"


CASES = [Case(*each) for each in itertools.product((True, False), get_args(PskKind), (4, 6))]


@pytest.fixture(scope="module")
def clients(token: GatewayToken) -> Iterator[dict[Case, Client]]:
    """One gateway with a client for each case."""
    with Lab() as lab:
        site = Site(lab, token)
        made = {case: site.client(str(case), case.psk, case.family, case.dials) for case in CASES}
        site.start()
        yield made


def copy_intact(lab: Lab, sender: Namespace, receiver: Namespace, address: str) -> None:
    with FileCopy(sender, receiver, address, lab.scratch, FILE) as copy:
        result = copy.wait()
    assert result.intact
    assert result.bytes == FILE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_stock_peer_pings_and_copies_both_ways(clients: dict[Case, Client], case: Case) -> None:
    client = clients[case]
    site, stock = client.site, client.start()
    first, address = (client.namespace, site.inner4) if case.dials else (site.namespace, client.ipv4)
    ping_until(first, address)
    for there, back in ((site.inner4, client.ipv4), (site.inner6, client.ipv6)):
        assert ping(client.namespace, there, count=3).lost == 0
        assert ping(site.namespace, back, count=3, size=1300).lost == 0
        copy_intact(site.lab, client.namespace, site.namespace, there)
        copy_intact(site.lab, site.namespace, client.namespace, back)
    assert ("Sending handshake initiation" in stock.log()) is case.dials
    check_counters(client, stock)
    stock.stop()


def check_counters(client: Client, stock: StockPeer) -> None:
    """wg(8), `wghsm status` and the stock peer agree on what went over the line."""
    gateway, site = client.site.gateway, client.site

    def agree() -> bool:
        shown = gateway.show()[client.public_key]
        received, sent = stock.transfer(site.gateway_key)
        # A full queue may drop datagrams on their way, on a busy machine many, and the sender's TCP repeats them.
        return sent <= 2 * shown.received and shown.received <= sent and received <= shown.sent <= 2 * received

    until(agree, "the counters of both sides agree")
    shown = gateway.show()[client.public_key]
    reported = json.loads(gateway.command("status", gateway.name, "--json").stdout)[0]
    status = next(peer for peer in reported["peers"] if peer["public_key"] == client.public_key)
    for counted, again in ((shown.received, status["rx_bytes"]), (shown.sent, status["tx_bytes"])):
        # Two copies of a file, with the headers of inner TCP and of the tunnel on top, and not twice as much.
        assert 2 * FILE < counted < 3 * FILE
        assert counted <= again <= counted + SLACK
    assert status["name"] == client.name
    assert status["preshared_key"] == client.psk
    assert status["endpoint"] == shown.endpoint == client.link.right.endpoint(client.family, CLIENT_PORT)
    assert abs(status["latest_handshake"] - stock.latest_handshake(site.gateway_key)) < 5
    assert int(status["latest_handshake"]) == shown.latest_handshake
    assert shown.allowed_ips == (f"{client.ipv4}/32", f"{client.ipv6}/128")


@pytest.mark.parametrize("psk", ["derived", "object"])
def test_a_client_with_the_wrong_psk_gets_no_session(lab: Lab, token: GatewayToken, psk: PskKind) -> None:
    site = Site(lab, token)
    wrong, right = site.client("wrong", psk), site.client("right", psk)
    site.start()
    wrong.secret = site.secret_of(right)
    stock = wrong.start()
    wrong.namespace.run("ping", "-n", "-c", "1", "-W", "1", site.inner4, check=False)
    until(lambda: "Received invalid response message" in stock.log(), "a response that does not open")
    assert stock.latest_handshake(site.gateway_key) == 0
    assert site.gateway.peer(wrong.public_key).latest_handshake is None
    right.start()
    ping_until(right.namespace, site.inner4)


@pytest.mark.parametrize("family", [4, 6])
def test_a_roaming_client_is_followed(lab: Lab, token: GatewayToken, family: int) -> None:
    site = Site(lab, token)
    client = site.client("roamer", family=family)
    site.start()
    stock = client.start()
    ping_until(client.namespace, site.inner4)
    check_followed(site, client, client.link.right.endpoint(family, CLIENT_PORT))
    stock.set("listen-port 51999")
    check_followed(site, client, client.link.right.endpoint(family, 51999))
    prefix, moved = (24, "10.77.1.7") if family == 4 else (64, "fd77:1::7")
    before = client.link.right.address(family)
    client.namespace.run("ip", "address", "del", f"{before}/{prefix}", "dev", client.link.right.interface)
    add_address(client.namespace, client.link.right.interface, f"{moved}/{prefix}")
    # Debian's wireguard-go sticks to a source address that is gone, until it is told the endpoint again.
    stock.set(f"peer {site.gateway_key} endpoint {client.gateway_endpoint}")
    check_followed(site, client, f"{moved}:51999" if family == 4 else f"[{moved}]:51999")
    assert site.gateway.counter("handshake-complete") == 1


def check_followed(site: Site, client: Client, endpoint: str) -> None:
    """The next packet from elsewhere takes the gateway's packets there."""
    assert ping(client.namespace, site.inner4, count=3).lost == 0
    assert ping(site.namespace, client.ipv6, count=3).lost == 0
    until(lambda: site.gateway.show()[client.public_key].endpoint == endpoint, f"the endpoint {endpoint}")
    assert site.gateway.peer(client.public_key).endpoint == endpoint


def test_the_gateway_answers_from_the_address_it_was_spoken_to(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    client = site.client("picky")
    add_address(site.namespace, client.link.left.interface, "10.77.1.9/24")
    site.start()
    stock = client.start(endpoint="10.77.1.9:51820")
    ping_until(client.namespace, site.inner4)
    assert ping(site.namespace, client.ipv4, count=3).lost == 0
    assert stock.peers()[site.gateway_key].endpoint == "10.77.1.9:51820"


def test_persistent_keepalives_open_a_session_and_keep_coming(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    client = site.client("behind-nat", dials=False, keepalive=1)
    stock = client.start()
    site.start()
    until(lambda: stock.latest_handshake(site.gateway_key), "a handshake that nobody's packet asked for")
    received = stock.transfer(site.gateway_key)[0]
    until(lambda: stock.transfer(site.gateway_key)[0] >= received + 3 * 32, "three keepalives")
    assert site.gateway.show()[client.public_key].keepalive == 1
    assert (stock.transfer(site.gateway_key)[0] - received) % 32 == 0


def test_a_source_that_is_not_allowed_is_dropped_and_counted(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    honest, liar = site.client("honest"), site.client("liar")
    site.start()
    stock = liar.start()
    honest.start()
    ping_until(liar.namespace, site.inner4)
    ping_until(honest.namespace, site.inner4)
    for source in (honest.ipv4, "10.8.0.77"):
        before = site.gateway.counter("source-not-allowed")
        add_address(liar.namespace, stock.name, f"{source}/32")
        command = ["ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", "-I", source, site.inner4]
        assert " 0 received" in liar.namespace.run(*command, check=False).stdout
        assert site.gateway.counter("source-not-allowed") == before + 3
    assert ping(honest.namespace, site.inner4, count=3).lost == 0
    assert ping(site.namespace, honest.ipv4, count=3).lost == 0


def test_a_packet_for_nobody_is_answered_as_unreachable(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    site.start()
    for address in ("10.8.0.99", "fd08::99"):
        before = site.gateway.counter("no-peer")
        said = site.namespace.run("ping", "-n", "-c", "1", "-W", "5", address, check=False).stdout
        assert "nreachable" in said
        assert site.gateway.counter("no-peer") > before
