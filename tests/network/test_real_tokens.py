"""A whole gateway over the modules of others, against stock clients: NSS softokn, and a card through OpenSC and pcscd.

Both roles, every kind of PSK that the token can do, traffic over a re-key, and the token gone and back under it.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.network.support import FileCopy, Lab, UdpStream, ping, ping_until, until
from tests.network.support.gateway import CHILDREN
from tests.network.support.gateway_token import FoundToken
from tests.network.support.site import Client, PskKind, Site
from tests.token.real_token import REAL, RealToken
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = 1 << 19


class RealSite:
    """A gateway with a real token; clients are added, then `start`."""

    def __init__(self, lab: Lab, real: RealToken) -> None:
        self.real = real
        made, keys = real.made, {real.key: real.public_key}
        token = FoundToken(made.uri, made.environment, made.pin_file, real.label, keys)
        self.site = Site(lab, token, key=real.key)
        self.gateway = self.site.gateway
        self.gateway.psk_root = real.root
        self.gateway.token_section = {"environment": real.environment_names}
        self.gateway.write()

    def client(self, name: str, kind: str, *, dials: bool = True) -> Client:
        """A client with a PSK of the kind none, derived or wrapped."""
        known: PskKind = "derived" if kind == "derived" else "none"
        client = self.site.client(name, known, dials=dials)
        if kind == "wrapped":
            self.wrap(client)
        return client

    def wrap(self, client: Client) -> None:
        """Give the client a wrapped PSK with the operator's commands."""
        gateway = self.gateway
        first = "psk_wrap_key" not in gateway.token_section
        gateway.token_section = {**gateway.token_section, "psk_wrap_key": "wghsm-psk-wrap"}
        gateway.peers = [
            replace(peer, preshared_key=f"wrapped:{client.name}.psk") if peer.name == client.name else peer
            for peer in gateway.peers
        ]
        gateway.write()
        if first:
            gateway.command("psk", "wrap", "--make-key", "-c", gateway.file)
        gateway.command("psk", "wrap", client.name, "--generate", "-c", gateway.file)
        words = ("psk", "export", client.name, "-c", gateway.file, "--out", "-")
        client.secret = gateway.command(*words).stdout.strip()

    def token_is(self, state: str) -> bool:
        status = self.gateway.status().token
        return status is not None and status.state == state

    def rekey(self, client: Client) -> float:
        """Ask the gateway to make a handshake as initiator; the time of the latest one before."""
        known = client.wait_for_age()
        self.gateway.command("rekey", self.gateway.name, client.name)
        return known


def _lost(streams: list[UdpStream]) -> list[int]:
    for stream in streams:
        stream.wait_for(30, limit=60.0)
    return [len(stream.finish().lost) for stream in streams]


def _unharmed(gateway_restarts: dict[str, int], custodian: int = 0) -> bool:
    return gateway_restarts == {each: custodian if each == "custodian" else 0 for each in CHILDREN}


@pytest.fixture(scope="module", params=sorted(REAL))
def real(request: pytest.FixtureRequest) -> Iterator[RealToken]:
    with REAL[request.param]() as made:
        yield made


@pytest.fixture
def card() -> Iterator[RealToken]:
    with REAL["card"]() as made:
        yield made


@pytest.fixture
def nss() -> Iterator[RealToken]:
    with REAL["nss"]() as made:
        yield made


def test_stock_clients_in_both_roles_with_every_psk_that_the_token_has(lab: Lab, real: RealToken) -> None:
    here = RealSite(lab, real)
    clients = [
        here.client(f"{kind}-{'dials' if dials else 'waits'}", kind, dials=dials)
        for kind in sorted(real.kinds)
        for dials in (True, False)
    ]
    here.site.start()
    for client in clients:
        client.start()
        # Who has the other's endpoint makes the handshake.
        if client.dials:
            ping_until(client.namespace, here.site.inner4)
        else:
            ping_until(here.site.namespace, client.ipv4)
        assert ping(client.namespace, here.site.inner6, count=3).lost == 0
        with FileCopy(client.namespace, here.site.namespace, here.site.inner4, lab.scratch, FILE) as copy:
            assert copy.wait().intact
        with FileCopy(here.site.namespace, client.namespace, client.ipv6, lab.scratch, FILE) as copy:
            assert copy.wait().intact
    dialling = [client for client in clients if client.dials]
    known = [here.rekey(client) for client in dialling]
    for client, before in zip(dialling, known, strict=True):
        client.wait_for_handshake(before)
        assert ping(client.namespace, here.site.inner4, count=3).lost == 0
    assert here.gateway.status().token is not None
    assert _unharmed({each: here.gateway.restarts(each) for each in CHILDREN})
    doctor = here.gateway.command("token", "doctor", "-c", here.gateway.file, check=False)
    assert doctor.returncode == ExitCode.OK, doctor.stdout
    here.gateway.stop()


@pytest.mark.parametrize("way", ["away", "fall"])
def test_a_card_goes_and_comes_back_under_traffic(lab: Lab, card: RealToken, way: str) -> None:
    here = RealSite(lab, card)
    client = here.client("client", "none")
    here.site.start()
    client.start()
    ping_until(client.namespace, here.site.inner4)
    streams = here.site.streams(client)
    with getattr(card, way)():
        known = here.rekey(client)
        until(lambda: here.token_is("away"), "the token is away", 60.0)
        for stream in streams:
            stream.wait_for(30, limit=60.0)
        assert client.latest_handshake() == known
    until(lambda: here.token_is("ready"), "the token is back", 60.0)
    # Nobody asks again: the attempt that is under way succeeds by itself.
    client.wait_for_handshake(known)
    assert _lost(streams) == [0, 0]
    assert _unharmed({each: here.gateway.restarts(each) for each in CHILDREN})
    assert [line.count("away since 20") for line in here.gateway.log().splitlines() if " away" in line] == [1]


def test_a_custodian_over_nss_waits_for_its_store(lab: Lab, nss: RealToken) -> None:
    here = RealSite(lab, nss)
    client = here.client("client", "derived")
    here.site.start()
    client.start()
    ping_until(client.namespace, here.site.inner4)
    streams = here.site.streams(client)
    with nss.away():
        os.kill(here.gateway.pids()["custodian"], signal.SIGKILL)
        until(lambda: here.gateway.restarts("custodian") == 1, "another custodian")
        until(lambda: here.token_is("away"), "the token is away", 60.0)
    until(here.gateway.serves, "the token is back", 60.0)
    known = here.rekey(client)
    client.wait_for_handshake(known)
    assert _lost(streams) == [0, 0]


def test_a_gateway_comes_up_before_its_card(lab: Lab, card: RealToken) -> None:
    here = RealSite(lab, card)
    client = here.client("client", "none")
    here.gateway.token_section = {**here.gateway.token_section, "at_start": "wait"}
    here.gateway.write()

    def up() -> bool:
        try:
            return here.token_is("away") and here.gateway.name in here.site.namespace.interfaces()
        except (OSError, ValueError):
            return False

    with card.away():
        here.gateway.begin()
        until(up, "the gateway is up", 60.0)
        client.start()
    ping_until(client.namespace, here.site.inner4, limit=60.0)
    assert here.gateway.serves()


def test_a_module_without_its_environment_is_one_line(lab: Lab, card: RealToken) -> None:
    here = RealSite(lab, card)
    here.gateway.token_section = {}
    here.gateway.write()
    code, said = here.gateway.fails()
    (line,) = [line for line in said.splitlines() if line.startswith("wghsm: ")]
    assert code == ExitCode.TOKEN_UNUSABLE
    assert f"token '{card.label}' is not there" in line
    assert "token.environment" in line


def test_a_psk_that_a_card_cannot_make_is_one_line(lab: Lab, card: RealToken) -> None:
    here = RealSite(lab, card)
    here.client("client", "derived")
    here.gateway.psk_root = "root"
    here.gateway.write()
    code, said = here.gateway.fails()
    (line,) = [line for line in said.splitlines() if line.startswith("wghsm: ")]
    assert code == ExitCode.TOKEN_UNUSABLE
    assert "offers no CKM_SHA256_HMAC, which derived PSKs need" in line


def test_an_init_string_that_leads_nowhere_is_one_line(lab: Lab, nss: RealToken) -> None:
    here = RealSite(lab, nss)
    here.gateway.token_section = {"uri": nss.made.uri.replace("/store", "/nowhere")}
    here.gateway.write()
    code, said = here.gateway.fails()
    (line,) = [line for line in said.splitlines() if line.startswith("wghsm: ")]
    assert code == ExitCode.TOKEN_UNUSABLE
    assert "x-init-args" in line


def test_a_store_of_root_is_one_line(lab: Lab, nss: RealToken) -> None:
    here = RealSite(lab, nss)
    store = nss.made.directory / "store"
    for path in (store, *store.iterdir()):
        os.chown(path, 0, 0)
    code, said = here.gateway.fails()
    (line,) = [line for line in said.splitlines() if line.startswith("wghsm: ")]
    assert code == ExitCode.TOKEN_UNUSABLE, said
    assert "x-init-args" in line
