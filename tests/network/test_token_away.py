"""A whole gateway under traffic while its token fails: no packet is lost, and handshakes go on by themselves."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import Lab, UdpStream, ping_until, until
from tests.network.support.gateway import CHILDREN
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site
from tests.token.rig import Rig, _built
from wghsm.exits import ExitCode
from wghsm.softhsm_setup import find_module

DEVICE_ERROR = 0x30


class FaultySite:
    """A gateway whose token is reached through the rig, and a client that talks to it."""

    def __init__(self, lab: Lab, token: GatewayToken, rig: Rig, uri: str, at_start: str) -> None:
        self.rig = rig
        self.site = Site(lab, token)
        self.client: Client = self.site.client("client", psk="derived")
        self.gateway = self.site.gateway
        self.gateway.token_section = {"uri": uri, "at_start": at_start}
        self.gateway.write()

    def connect(self) -> None:
        """Let the client dial, until an echo comes back."""
        self.client.start()
        ping_until(self.client.namespace, self.site.inner4)

    def streams(self) -> list[UdpStream]:
        """Numbered packets both ways."""
        lab, client, space = self.site.lab, self.client, self.site.namespace
        ways = ((client.namespace, space, self.site.inner6), (space, client.namespace, client.ipv4))
        made = [lab.add(UdpStream(*way, lab.scratch, rate=50)) for way in ways]
        for stream in made:
            stream.wait_for(50, limit=60.0)
        return made

    def rekey(self) -> float:
        """Ask for a handshake now; the time of the latest one before."""
        known = self.client.wait_for_age()
        self.gateway.command("rekey", self.gateway.name, self.client.name)
        return known

    def token_is(self, state: str) -> bool:
        status = self.gateway.status().token
        return status is not None and status.state == state


def _finish(streams: list[UdpStream]) -> list[int]:
    for stream in streams:
        stream.wait_for(50, limit=60.0)
    return [len(stream.finish().lost) for stream in streams]


@pytest.fixture
def make(lab: Lab, token: GatewayToken, request: pytest.FixtureRequest) -> Iterator[FaultySite]:
    """A faulty site, not started; `at_start` as the test's mark says."""
    module = token.folder / f"rig-{os.getpid()}-libsofthsm2.so"
    shutil.copyfile(_built(), module)
    module.chmod(0o755)
    rig = Rig(Path(f"{module}.rig"), find_module())
    try:
        yield FaultySite(lab, token, rig, token.uri_with(module=str(module)), getattr(request, "param", "fail"))
    finally:
        rig.clear()
        rig.close()
        module.unlink()


def test_no_packet_is_lost_while_the_token_is_away(make: FaultySite) -> None:
    make.site.start()
    make.connect()
    streams = make.streams()
    make.rig.fail("*", DEVICE_ERROR)
    known = make.rekey()
    until(lambda: make.token_is("away"), "the token is away")
    shown = make.gateway.command("status", make.gateway.name).stdout
    assert "away since 20" in next(line for line in shown.splitlines() if "token:" in line)
    for stream in streams:
        stream.wait_for(100, limit=60.0)
    assert make.client.latest_handshake() == known
    make.rig.clear()
    until(lambda: make.token_is("ready"), "the token is back", 60.0)
    # Nobody asks again: the attempt that is under way succeeds by itself.
    make.client.wait_for_handshake(known)
    assert _finish(streams) == [0, 0]
    assert {each: make.gateway.restarts(each) for each in CHILDREN} == dict.fromkeys(CHILDREN, 0)
    assert make.gateway.counter("token-away") == 1
    assert [line.count("away since 20") for line in make.gateway.log().splitlines() if " away" in line] == [1]


def test_a_crash_of_the_module_takes_the_custodian_alone(make: FaultySite) -> None:
    make.site.start()
    make.connect()
    streams = make.streams()
    make.rig.crash("C_DeriveKey", times=1)
    known = make.rekey()
    until(lambda: make.gateway.restarts("custodian") == 1 and make.gateway.serves(), "another custodian")
    make.client.wait_for_handshake(known)
    assert _finish(streams) == [0, 0]
    assert {each: make.gateway.restarts(each) for each in CHILDREN} == {
        each: int(each == "custodian") for each in CHILDREN
    }
    assert make.gateway.log().count("SIGSEGV") == 1


def test_a_gateway_that_has_served_waits_for_its_token(make: FaultySite) -> None:
    make.site.start()
    make.connect()
    streams = make.streams()
    make.rig.fail("*", DEVICE_ERROR)
    os.kill(make.gateway.pids()["custodian"], signal.SIGKILL)
    until(lambda: make.gateway.restarts("custodian") == 1, "another custodian")
    until(lambda: make.token_is("away"), "the token is away")
    make.rig.clear()
    until(make.gateway.serves, "the token is back", 60.0)
    known = make.rekey()
    make.client.wait_for_handshake(known)
    assert _finish(streams) == [0, 0]


@pytest.mark.parametrize("make", ["wait"], indirect=True)
def test_a_gateway_comes_up_without_its_token(make: FaultySite) -> None:
    # The token that is to fail is asked for the client's secret first.
    make.site.secret_of(make.client)
    make.rig.fail("*", DEVICE_ERROR)
    make.gateway.begin()

    def up() -> bool:
        try:
            return make.token_is("away") and make.gateway.name in make.site.namespace.interfaces()
        except (OSError, ValueError):
            return False

    until(up, "the gateway is up", 60.0)
    assert make.gateway.status().public_key is None
    make.client.start()
    make.rig.clear()
    ping_until(make.client.namespace, make.site.inner4)
    assert make.gateway.serves()
    make.gateway.stop()


def test_a_gateway_fails_without_its_token(make: FaultySite) -> None:
    make.rig.fail("*", DEVICE_ERROR)
    code, said = make.gateway.fails()
    assert code == ExitCode.TOKEN_UNUSABLE
    lines = [line for line in said.splitlines() if line.startswith("wghsm: ")]
    assert len(lines) == 1
    assert "CKR_DEVICE_ERROR" in lines[0]
