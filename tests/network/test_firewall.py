"""The gateway's own nftables table: who gets where, how fast, how much; and no other table is touched."""

import itertools
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.network.support import End, Lab, Namespace, ping, ping_until, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site

OTHER = "table inet other {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n"


class _Scene:
    """A gateway that forwards, with a server behind it that knows no way back into the tunnel."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.site = Site(lab, token)
        self.gateway = self.site.namespace
        server = lab.namespace("server")
        self.link = lab.connect(self.gateway, server)
        self.server: End = self.link.right
        self.gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.gateway.run("nft", "-f", "-", stdin=OTHER)
        for way, port in itertools.product(("-4", "-6"), (80, 81)):
            lab.add(server.start("nc", way, "-lk", str(port), folder=lab.scratch, label=f"server{way}-{port}"))

    def start(self, **firewall: object) -> None:
        self.site.gateway.sections = {"firewall": firewall}
        self.site.gateway.write()
        self.site.start()
        for client in self.site.clients:
            stock = client.start()
            stock.set_peer(
                self.site.gateway_key,
                ["0.0.0.0/0", "::/0"],
                client.gateway_endpoint,
                self.site.secret_of(client),
            )
            client.namespace.run("ip", "route", "add", f"{self.server.ipv4}/32", "dev", stock.name)
            client.namespace.run("ip", "route", "add", f"{self.server.ipv6}/128", "dev", stock.name)

    def settings(self, client: Client, **settings: object) -> None:
        """Change a client's entry in the file."""
        gateway = self.site.gateway
        gateway.peers = [
            replace(each, settings=settings) if each.name == client.name else each for each in gateway.peers
        ]
        gateway.write()

    def table(self) -> str:
        return self.gateway.run("nft", "list", "table", "inet", f"wghsm-{self.site.gateway.name}").stdout


@pytest.fixture
def scene(lab: Lab, token: GatewayToken) -> _Scene:
    return _Scene(lab, token)


def _opens(namespace: Namespace, address: str, port: int) -> bool:
    return namespace.run("nc", "-z", "-w", "3", address, str(port), check=False).returncode == 0


def _gets_through(client: Client, address: str, port: int) -> None:
    until(lambda: _opens(client.namespace, address, port), f"{client.name} gets to {address} port {port}", 60.0)


def test_who_gets_where(scene: _Scene) -> None:
    free, held = scene.site.client("free"), scene.site.client("held")
    scene.settings(held, allow=[f"{scene.server.ipv4} tcp/80", f"{scene.server.ipv6} tcp/80", "10.8.0.1 icmp"])
    scene.start(masquerade=[scene.link.left.interface], isolate_clients=True)
    for address in (scene.server.ipv4, scene.server.ipv6):
        _gets_through(free, address, 80)
        _gets_through(free, address, 81)
        _gets_through(held, address, 80)
        assert not _opens(held.namespace, address, 81)
    ping_until(held.namespace, "10.8.0.1")
    ping_until(free.namespace, "fd08::1")
    assert ping(held.namespace, scene.site.inner6, count=1, wait=1.0).lost == 1
    assert ping(free.namespace, held.ipv4, count=1, wait=1.0).lost == 1
    # What the gateway begins is answered.
    ping_until(scene.gateway, held.ipv4)

    scene.settings(held)
    scene.site.gateway.sections = {"firewall": {"masquerade": ["*"]}}
    scene.site.gateway.write()
    scene.site.gateway.command("reload", scene.site.gateway.name)
    _gets_through(held, scene.server.ipv4, 81)
    ping_until(free.namespace, held.ipv4)

    scene.site.gateway.sections = {}
    scene.site.gateway.write()
    scene.site.gateway.command("reload", scene.site.gateway.name)
    assert scene.gateway.run("nft", "list", "ruleset").stdout == OTHER


def test_how_fast_and_how_much(scene: _Scene) -> None:
    slow, little = scene.site.client("slow"), scene.site.client("little")
    scene.settings(slow, rate_limit="64kbit")
    scene.settings(little, quota="1M")
    scene.start()
    for client in (slow, little):
        ping_until(client.namespace, scene.site.inner4)
    # 256 KiB may come at once, the rest at 8000 bytes a second: most of a thousand pings of 1000 bytes is too much.
    result = ping(slow.namespace, scene.site.inner4, count=1000, interval=0.001, size=1000, wait=1.0)
    assert 0 < result.lost < 1000
    ping_until(slow.namespace, scene.site.inner4, limit=120.0)

    ping(little.namespace, scene.site.inner4, count=1000, interval=0.001, size=1000, wait=1.0)
    assert ping(little.namespace, scene.site.inner4, count=1, wait=1.0).lost == 1
    scene.settings(slow)
    scene.site.gateway.command("reload", scene.site.gateway.name)
    assert ping(little.namespace, scene.site.inner4, count=1, wait=1.0).lost == 1
    scene.settings(little, quota="100M")
    scene.site.gateway.command("reload", scene.site.gateway.name)
    ping_until(little.namespace, scene.site.inner4)
    assert "used" in scene.table()


def test_the_table_goes_with_the_gateway_and_a_stale_one_before_it(scene: _Scene) -> None:
    scene.site.client("one")
    scene.start(isolate_clients=True)
    assert "forward" in scene.table()
    gateway = scene.site.gateway
    children = gateway.pids().values()
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the children have ended")
    assert "forward" in scene.table()
    gateway.sections = {}
    gateway.write()
    gateway.start()
    assert scene.gateway.run("nft", "list", "ruleset").stdout == OTHER
