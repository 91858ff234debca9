"""A gateway with several workers: each peer's packets go through one of them, and the death of one is no other's."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.network.support import Lab, UdpStream, ping, ping_until, unsteered, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site
from wghsm.exits import ExitCode

FAR = "10.55.0.1"


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers(lab: Lab, token: GatewayToken, workers: int) -> None:
    """Four clients, so that with two and with four workers each has one: of both families, dialling and dialled."""
    site = Site(lab, token, workers=workers)
    for number in range(4):
        site.client(f"peer{number}", "derived" if number % 2 else "none", (4, 6)[number // 2], dials=number != 1)
    gateway = site.start()
    for client in site.clients:
        client.start()
        ping_until(client.namespace if client.dials else site.namespace, site.inner4 if client.dials else client.ipv4)
    numbers = ["", *(f"-{number}" for number in range(1, workers))]
    tunnel = {f"{role}{number}" for role in ("egress", "ingress") for number in numbers}
    assert {role for role in gateway.pids() if role.startswith(("egress", "ingress"))} == tunnel
    shown = gateway.command("status", gateway.name).stdout
    assert all(f"  {seat}: ready" in shown for seat in tunnel)
    pings_all(site)
    # The kernel has brought every packet to the worker that it is for.
    for nothing in ("unknown-index", "handed-over", "other-worker-busy"):
        assert gateway.counter(nothing) == 0

    # A peer that moves is followed.
    roams = site.clients[3]
    assert roams.stock is not None
    roams.stock.set("listen-port 51999")
    assert ping(roams.namespace, site.inner4, count=2).lost == 0
    until(lambda: gateway.peer(roams.public_key).endpoint == roams.link.right.endpoint(6, 51999), "it has roamed")
    assert ping(site.namespace, roams.ipv4, count=2).lost == 0

    # One worker's process dies: its peers get new sessions, the others lose nothing.
    spared, struck = site.clients[0], site.clients[1]
    streams = [*both_ways(site, spared), *both_ways(site, struck)]
    for role in ("egress-1", "ingress-1"):
        before = struck.wait_for_age()
        os.kill(gateway.pids()[role], signal.SIGKILL)
        struck.wait_for_handshake(before)
        until(gateway.serves, "all serve again")
        for stream in streams:
            stream.wait_for(25)
        assert gateway.restarts(role) == 1
    reports = [stream.finish() for stream in streams]
    assert [len(report.lost) for report in reports[:2]] == [0, 0]
    assert spared.handshakes() == 1
    assert [gateway.restarts(seat) for seat in sorted(tunnel - {"egress-1", "ingress-1"})] == [0] * (2 * workers - 2)

    # A prefix moves from one worker's peer to another's.
    for client, prefixes in ((spared, [FAR]), (struck, [])):
        client.namespace.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
        change(site, client, prefixes)
    gateway.command("reload", gateway.name)
    for owner, other in ((spared, struck), (struck, spared)):
        received = gateway.peer(other.public_key).rx_bytes
        assert ping(site.namespace, FAR, count=2).lost == 0
        assert gateway.peer(other.public_key).rx_bytes == received
        change(site, owner, [])
        change(site, other, [FAR])
        gateway.command("reload", gateway.name)
    assert gateway.counter("no-peer") == 0
    # The supervisor may change what it has given up the right to make.
    assert "does not steer" not in gateway.log()

    # Another number of workers is for the next start.
    gateway.workers = 3
    gateway.write()
    refused = gateway.command("reload", gateway.name, check=False)
    assert refused.returncode != ExitCode.OK
    assert "tunnel.workers" in refused.stderr

    # Down and up, and another port.
    for state in ("down", "up"):
        site.namespace.run("ip", "link", "set", gateway.name, state)
        until(lambda state=state: gateway.status().up is (state == "up"), state)  # type: ignore[misc]
    site.namespace.run("wg", "set", gateway.name, "listen-port", "51777")
    for client in site.clients:
        assert client.stock is not None
        client.stock.set(f"peer {site.gateway_key} endpoint {client.link.left.endpoint(client.family, 51777)}")
    for client in site.clients:
        # Initiations may cross, so the first packets may get lost.
        ping_until(client.namespace, site.inner6)
        ping_until(site.namespace, client.ipv4)
    pids = list(gateway.pids().values())
    gateway.stop()
    assert gateway.leftovers(pids) == []


def test_without_steering_packets_are_handed_over(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token, workers=4)
    site.gateway.program = [sys.executable, str(Path(unsteered.__file__))]
    clients = [site.client(f"peer{number}", family=(4, 6)[number % 2]) for number in range(3)]
    gateway = site.start()
    assert "the kernel does not steer packets to their workers" in gateway.log()
    for client in clients:
        client.start()
        ping_until(client.namespace, site.inner4)
    pings_all(site)
    streams = [stream for client in clients for stream in both_ways(site, client)]
    for stream in streams:
        stream.wait_for(25)
    reports = [stream.finish() for stream in streams]
    assert [(len(report.lost), report.reordered) for report in reports] == [(0, 0)] * len(streams)
    # Of three peers one at least has a queue of another worker's, be it by the kernel's hash of a flow.
    assert gateway.counter("handed-over") > 0
    assert gateway.counter("other-worker-busy") == 0


def pings_all(site: Site) -> None:
    for client in site.clients:
        assert ping(client.namespace, site.inner4, count=2).lost == 0
        assert ping(client.namespace, site.inner6, count=2).lost == 0
        assert ping(site.namespace, client.ipv4, count=2).lost == 0
        assert ping(site.namespace, client.ipv6, count=2).lost == 0


def both_ways(site: Site, client: Client) -> list[UdpStream]:
    ways = ((client.namespace, site.namespace, site.inner6), (site.namespace, client.namespace, client.ipv4))
    return [site.lab.add(UdpStream(*way, site.lab.scratch, rate=50)) for way in ways]


def change(site: Site, client: Client, more: list[str]) -> None:
    """Give a client these addresses beside its own."""
    prefixes = [f"{each}/32" for each in (client.ipv4, *more)] + [f"{client.ipv6}/128"]
    site.gateway.peers = [
        replace(peer, allowed_ips=prefixes) if peer.name == client.name else peer for peer in site.gateway.peers
    ]
    site.gateway.write()
