"""Each process of a gateway is killed under traffic: what comes back, how soon, and what is not lost at all."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.network.support import Lab, Pinger, UdpStream, ping, ping_until, until
from tests.network.support.gateway import CHILDREN
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site

BACK_WITHIN = 15.0
"""Seconds from a death to the first echo."""


@pytest.fixture
def site(lab: Lab, token: GatewayToken) -> Iterator[Site]:
    """A gateway with two clients, one that dials and one that is dialled, both talking."""
    made = Site(lab, token)
    clients = [made.client("dials", psk="derived"), made.client("dialled", psk="object", family=6, dials=False)]
    made.start()
    for client in clients:
        client.start()
        ping_until(made.namespace if not client.dials else client.namespace, _far(client))
    yield made


def _far(client: Client) -> str:
    return client.ipv4 if not client.dials else client.site.inner4


class Streams:
    """Numbered packets both ways between the gateway and each client."""

    def __init__(self, site: Site) -> None:
        lab = site.lab
        self._streams = [
            lab.add(UdpStream(sender, receiver, address, lab.scratch, rate=50))
            for client in site.clients
            for sender, receiver, address in (
                (client.namespace, site.namespace, site.inner6),
                (site.namespace, client.namespace, client.ipv4),
            )
        ]

    def wait_for(self, packets: int) -> None:
        for stream in self._streams:
            stream.wait_for(packets, limit=60.0)

    def lost(self) -> list[int]:
        """How many packets of each stream never arrived."""
        return [len(stream.finish().lost) for stream in self._streams]


def kill(site: Site, role: str, number: signal.Signals = signal.SIGKILL) -> float:
    """Kill a child and wait until its successor serves; give the time of the death, unix seconds."""
    before = next(each for each in site.gateway.status().processes if each.role == role)
    moment = time.time()
    os.kill(before.pid, number)

    def is_back() -> bool:
        try:
            now = next(each for each in site.gateway.status().processes if each.role == role)
        except (OSError, ValueError):
            # The control process itself is away.
            return False
        return now.pid not in (0, before.pid) and now.state == "ready" and now.restarts == before.restarts + 1

    until(is_back, f"another {role} serves")
    return moment


@pytest.mark.parametrize("role", ["custodian", "handshake", "control"])
def test_a_process_off_the_packets_way_dies_without_a_loss(site: Site, role: str) -> None:
    streams = Streams(site)
    streams.wait_for(50)
    kill(site, role)
    streams.wait_for(50)
    check_renewed(site, lambda client: site.gateway.command("rekey", site.gateway.name, client.name))
    streams.wait_for(50)
    assert streams.lost() == [0] * 4
    check_told(site, role)


def check_renewed(site: Site, ask: Callable[[Client], object]) -> None:
    """New handshakes are made as before: the successor is worth what its predecessor was."""
    for client in site.clients:
        known = client.wait_for_age()
        ask(client)
        client.wait_for_handshake(known)


def check_told(site: Site, role: str) -> None:
    """Log and status say that this process was restarted, and no other."""
    assert {each: site.gateway.restarts(each) for each in CHILDREN} == {each: int(each == role) for each in CHILDREN}
    lines = [line for line in site.gateway.log().splitlines() if "SIGKILL" in line]
    assert len(lines) == 1
    assert role in lines[0]
    assert "restart 1" in lines[0]
    shown = site.gateway.command("status", site.gateway.name).stdout
    assert "restarted 1 time" in next(line for line in shown.splitlines() if f"  {role}:" in line)


@pytest.mark.parametrize("role", ["egress", "ingress"])
def test_a_worker_dies_and_its_sessions_are_made_anew(site: Site, role: str) -> None:
    pingers = [site.lab.add(Pinger(site.namespace, client.ipv4, site.lab.scratch)) for client in site.clients]
    for pinger in pingers:
        pinger.answer_after(0)
    moment = kill(site, role)
    # Echoes that were answered before its death have come in by now.
    served = time.time()
    for pinger in pingers:
        assert pinger.answer_after(served) - moment < BACK_WITHIN
    for client in site.clients:
        assert ping(client.namespace, site.inner6, count=3).lost == 0
        client.wait_for_handshake(moment)
    check_told(site, role)


def test_two_processes_die_at_once(site: Site) -> None:
    pids = site.gateway.pids()
    pinger = site.lab.add(Pinger(site.clients[0].namespace, site.inner4, site.lab.scratch))
    pinger.answer_after(0)
    moment = time.time()
    for role in ("handshake", "ingress"):
        os.kill(pids[role], signal.SIGKILL)
    until(
        lambda: site.gateway.serves() and not {*site.gateway.pids().values()} & {pids["handshake"], pids["ingress"]},
        "both are back",
    )
    assert pinger.answer_after(time.time()) - moment < BACK_WITHIN
    ping_until(site.namespace, site.clients[1].ipv6)


def test_all_ends_with_the_supervisor_and_a_new_one_starts_over_what_is_left(site: Site) -> None:
    gateway = site.gateway
    pids = list(gateway.pids().values())
    assert len(pids) == len(CHILDREN)
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    until(lambda: not [pid for pid in pids if Path("/proc", str(pid)).exists()], "the children's end")
    until(lambda: gateway.name not in site.namespace.interfaces(), "the interface is gone")
    gateway.start()
    for client in site.clients:
        # The clients hold dead sessions: the gateway's own traffic makes new ones at once.
        if client.dials:
            continue
        ping_until(site.namespace, client.ipv4)
    assert gateway.leftovers() != []
    gateway.stop()
    assert gateway.leftovers(pids) == []
