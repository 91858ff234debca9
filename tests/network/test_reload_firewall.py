"""Reloads that change peers, addresses, routes and the firewall in turn: an unchanged peer loses no packet."""

import base64
import json
import time
from dataclasses import replace

from tests.network.support import Lab, Pinger, UdpStream, ping, ping_until
from tests.network.support.gateway import Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site

RATE = 100


class _Scene:
    """A gateway that forwards and masquerades, a server behind it; `stays` may go there, `other` is what changes."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.lab = lab
        self.site = Site(lab, token)
        self.gateway = self.site.gateway
        space = self.site.namespace
        server = lab.namespace("server")
        self.link = lab.connect(space, server)
        space.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.stays, self.other = self.site.client("stays"), self.site.client("other")
        self.server4, self.server6 = self.link.right.ipv4, self.link.right.ipv6
        # Everything that the table can hold against a peer, and nothing of it in the way.
        # It may only answer the gateway's fd08::1.
        allow = [self.server4, self.server6, "10.8.0.1", self.other.ipv4]
        self.set(self.stays, allow=allow, quota="1G", rate_limit="100Mbit")

    def set(self, client: Client, **settings: object) -> None:
        self.gateway.peers = [
            replace(each, settings=settings) if each.name == client.name else each for each in self.gateway.peers
        ]

    def firewall(self, *more: str, isolate: bool = False) -> None:
        masquerade = [self.link.left.interface, *more]
        self.gateway.sections = {"firewall": {"masquerade": masquerade, "isolate_clients": isolate}}

    def start(self) -> None:
        self.firewall()
        self.gateway.write()
        self.site.start()
        for client in (self.stays, self.other):
            stock = client.start()
            stock.set_peer(self.site.gateway_key, ["0.0.0.0/0", "::/0"], client.gateway_endpoint)
            for address in (f"{self.server4}/32", f"{self.server6}/128"):
                client.namespace.run("ip", "route", "add", address, "dev", stock.name)
            ping_until(client.namespace, self.site.inner4)
        ping_until(self.stays.namespace, self.server4)
        ping_until(self.stays.namespace, self.server6)
        stays, gateway, server = self.stays.namespace, self.site.namespace, self.link.right.namespace
        ways = (
            (stays, gateway, self.site.inner4),
            (gateway, stays, self.stays.ipv6),
            (stays, server, self.server4),
            (stays, server, self.server6),
        )
        self.streams = [self.lab.add(UdpStream(*way, self.lab.scratch, rate=RATE)) for way in ways]

    def reload(self) -> None:
        """Reload, with packets of each stream before and after."""
        self.gateway.write()
        for stream in self.streams:
            stream.wait_for(RATE // 5)
        self.gateway.command("reload", self.gateway.name)

    def used(self, client: Client) -> int:
        """Bytes that the table has counted of the client's quota."""
        table = f"wghsm-{self.gateway.name}"
        shown = json.loads(self.site.namespace.run("nft", "-j", "list", "table", "inet", table).stdout)["nftables"]
        name = base64.b64decode(client.public_key).hex()
        return next(int(each["quota"]["used"]) for each in shown if each.get("quota", {}).get("name") == name)


def test_an_unchanged_peer_loses_nothing(lab: Lab, token: GatewayToken) -> None:
    scene = _Scene(lab, token)
    site, gateway, other = scene.site, scene.gateway, scene.other
    scene.start()
    began, pids = time.monotonic(), gateway.pids()
    answers = lab.add(Pinger(site.namespace, scene.stays.ipv6, lab.scratch, interval=0.05))
    addresses = list(gateway.addresses)
    guest = Peer("guest", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAs=", ["10.8.0.77/32", "10.77.0.0/16"])
    used = [scene.used(scene.stays)]

    def changed() -> None:
        scene.reload()
        used.append(scene.used(scene.stays))

    # What another peer may, how fast and how much; with prefixes inside and around the unchanged peer's.
    scene.set(other, allow=[scene.server4], rate_limit="1Mbit", quota="10M")
    changed()
    assert ping(other.namespace, site.inner4, count=1, wait=1).lost == 1
    # Isolation, one more interface to masquerade, another address, a peer with routes of its own.
    scene.firewall("eth77", isolate=True)
    gateway.addresses = [*addresses, "10.9.0.1/24"]
    gateway.peers = [*gateway.peers, replace(guest, settings={"allow": [], "quota": "1M"})]
    changed()
    assert ping(scene.stays.namespace, other.ipv4, count=1, wait=1).lost == 1
    # All of it taken back, the other peer's limits last; and prefixes move to a peer that has none.
    scene.firewall()
    gateway.addresses = addresses
    gateway.peers = [
        replace(guest, allowed_ips=["10.8.0.0/25"]) if each.name == "guest" else each for each in gateway.peers
    ]
    changed()
    scene.set(other)
    gateway.peers = [each for each in gateway.peers if each.name != "guest"]
    changed()
    ping_until(other.namespace, site.inner4)
    # A peer that is disabled, and comes back with other limits.
    for settings in ({"disabled": True}, {"rate_limit": "2Mbit"}, {}):
        scene.set(other, **settings)
        changed()

    for stream in scene.streams:
        stream.wait_for(RATE // 5)
    reports = [stream.finish() for stream in scene.streams]
    assert [report.lost for report in reports] == [()] * len(reports)
    assert [report.duplicates for report in reports] == [0] * len(reports)
    # What it has used of its quota went on growing, by more than nothing and never from nothing.
    assert used == sorted(set(used))
    answers.answer_after(time.time())
    assert answers.stop().missing == ()
    assert gateway.pids() == pids
    assert scene.stays.handshakes() <= 1 + (time.monotonic() - began) // 110
