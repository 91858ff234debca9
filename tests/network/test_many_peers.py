"""A gateway of 3,000 peers: loaded, listed and reloaded while its first and its last peer have traffic."""

import base64
import os
import signal
from dataclasses import replace

from tests.network.support import Lab, ping_until, until
from tests.network.support.gateway import Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Site

CROWD = 3_000


def stranger(number: int) -> Peer:
    """A peer that never says a word; its first prefix needs a route of its own."""
    public = base64.b64encode(number.to_bytes(4, "big") * 8).decode()
    return Peer(f"peer-{number}", public, [f"10.{64 + (number >> 8)}.{number & 255}.0/24", f"fd77::{number:x}/128"])


def test_three_thousand_peers(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    gateway = site.gateway
    first = site.client("first", "derived")
    gateway.peers = [*gateway.peers, *map(stranger, range(1, CROWD + 1))]
    last = site.client("last", family=6, dials=False)
    site.start()
    for client in (first, last):
        client.start()
    ping_until(first.namespace, site.inner4)
    ping_until(site.namespace, last.ipv6)

    def agrees() -> None:
        """The file, `wg show`, `wghsm status` and the kernel's routes have the same peers and prefixes."""
        wanted = {peer.public_key: tuple(peer.allowed_ips) for peer in gateway.peers}
        shown = gateway.show()
        assert {key: state.allowed_ips for key, state in shown.items()} == wanted
        told = gateway.status().peers
        assert {peer.public_key: tuple(peer.allowed_ips) for peer in told} == wanted
        assert {peer.name for peer in told} == {peer.name for peer in gateway.peers}
        routes = gateway.namespace.run("ip", "-4", "route", "show", "dev", gateway.name).stdout.split("\n")
        expected = {each for prefixes in wanted.values() for each in prefixes if each.endswith("/24")}
        assert expected == {line.split()[0] for line in routes if line.startswith("10.") and "proto kernel" not in line}

    agrees()
    streams = [stream for client in (first, last) for stream in site.streams(client)]
    pids = gateway.pids()
    gone, moved = gateway.peers[7], gateway.peers[1_500]
    gateway.peers = [
        replace(peer, allowed_ips=["10.200.0.0/24"]) if peer is moved else peer
        for peer in gateway.peers
        if peer is not gone
    ]
    gateway.peers.append(stranger(CROWD + 1))
    gateway.write()
    done = gateway.command("reload", gateway.name)
    assert done.stdout == f"{gateway.name}: 1 peer added, 1 peer removed, 1 peer changed\n"
    agrees()
    for stream in streams:
        stream.wait_for(20)
    assert [stream.finish().lost for stream in streams] == [()] * 4
    assert gateway.pids() == pids

    # Processes that are started again are told of all peers.
    for role in ("handshake", "ingress"):
        os.kill(gateway.pids()[role], signal.SIGKILL)
        until(lambda: gateway.restarts(role) == 1 and gateway.serves(), f"{role} serves again", 60)  # noqa: B023
    ping_until(site.namespace, last.ipv6)
    ping_until(first.namespace, site.inner4)
    agrees()
