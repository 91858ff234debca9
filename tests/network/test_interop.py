"""The gateway and other WireGuards than Debian's wireguard-go: sing-box's, boringtun, and a scripted Noise peer."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.network.support import FileCopy, Lab, Namespace, ping, ping_until, until
from tests.network.support.boringtun import BoringTun
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.noise_peer import NoisePeer
from tests.network.support.sing_box import SingBox
from tests.network.support.site import Client, Site

FILE = 1 << 20

Psk = Literal["none", "derived"]


@dataclass(frozen=True)
class Case:
    """One client: who makes the handshake, its PSK, the outer family."""

    dials: bool
    psk: Psk
    family: int

    def __str__(self) -> str:
        return f"{'initiator' if self.dials else 'responder'}-{self.psk}-outer{self.family}"


PSKS: tuple[Psk, ...] = ("none", "derived")
CASES = [Case(*each) for each in itertools.product((True, False), PSKS, (4, 6))]


@pytest.fixture(scope="module")
def clients(token: GatewayToken) -> Iterator[dict[tuple[str, Case], Client]]:
    """One gateway with the place of a client for each implementation and case."""
    with Lab() as lab:
        site = Site(lab, token)
        made = {
            (kind, case): site.client(f"{kind}-{case}", case.psk, case.family, case.dials)
            for kind in ("sing-box", "noise")
            for case in CASES
        }
        for family in (4, 6):
            case = Case(dials=False, psk="none", family=family)
            made["boringtun", case] = site.client(f"boringtun-{case}", case.psk, case.family, case.dials)
        site.start()
        yield made


def copy_intact(lab: Lab, sender: Namespace, receiver: Namespace, address: str) -> None:
    with FileCopy(sender, receiver, address, lab.scratch, FILE) as copy:
        result = copy.wait()
    assert (result.intact, result.bytes) == (True, FILE)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sing_box_pings_and_copies_both_ways(clients: dict[tuple[str, Case], Client], case: Case) -> None:
    client = clients["sing-box", case]
    site = client.site
    peer = site.lab.add(SingBox(client))
    first, address = (client.namespace, site.inner4) if case.dials else (site.namespace, client.ipv4)
    ping_until(first, address)
    for there, back in ((site.inner4, client.ipv4), (site.inner6, client.ipv6)):
        assert ping(client.namespace, there, count=3).lost == 0
        copy_intact(site.lab, client.namespace, site.namespace, there)
        copy_intact(site.lab, site.namespace, client.namespace, back)
    assert ("sending handshake initiation" in peer.log()) is case.dials
    peer.close()


@pytest.mark.parametrize("family", [4, 6])
def test_boringtun_answers_handshakes_and_echoes(clients: dict[tuple[str, Case], Client], family: int) -> None:
    client = clients["boringtun", Case(dials=False, psk="none", family=family)]
    peer = client.site.lab.add(BoringTun(client))
    assert peer.echo(client.ipv4) == (1, 1)
    assert peer.echo(client.ipv6) == (1, 1)
    client.wait_until_known()
    peer.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scripted_noise_peer_makes_a_session(clients: dict[tuple[str, Case], Client], case: Case) -> None:
    client = clients["noise", case]
    site = client.site
    peer = site.lab.add(NoisePeer(client))
    if case.dials:
        peer.initiate()
        peer.echo()
    else:
        asking = site.lab.add(
            site.namespace.start(
                "ping", "-n", "-c", "1", "-W", "60", client.ipv4, folder=site.lab.scratch, label=f"ping-{case}"
            )
        )
        peer.respond()
        peer.answer_echo()
        assert asking.wait() == 0
    until(lambda: client.latest_handshake() > 0, "the handshake is shown")
    assert site.gateway.peer(client.public_key).rx_bytes > 0
    peer.close()
