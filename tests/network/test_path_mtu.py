"""`mtu: auto`: the interface's MTU is what routes and links leave for it, from the start and while they change."""

import json

import pytest

from tests.network.support import KeyPair, Lab, until
from tests.network.support.gateway import Gateway, Peer
from tests.network.support.gateway_token import GatewayToken
from wghsm.exits import ExitCode

ANYWHERE = "203.0.113.9"


class _Scene:
    """A gateway with a cable of 1400 bytes and one of 1500; nobody answers."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.space = lab.namespace("gw")
        self.small = lab.connect(self.space, lab.namespace("small"), mtu=1400)
        self.large = lab.connect(self.space, lab.namespace("large"))
        self.gateway = lab.add(Gateway(self.space, lab.scratch, token))
        self.keys = [KeyPair.make().public for _ in range(2)]

    def write(self, *endpoints: str, **interface: object) -> None:
        """Write the file, with a peer for each endpoint."""
        self.gateway.peers = [
            Peer(f"peer{number}", self.keys[number], [f"10.8.0.{number + 2}/32"], endpoint=endpoint)
            for number, endpoint in enumerate(endpoints)
        ]
        self.gateway.interface = interface
        self.gateway.write()

    def reload(self) -> None:
        self.gateway.command("reload", self.gateway.name)

    def mtu(self) -> int:
        (link,) = json.loads(self.space.run("ip", "-json", "link", "show", self.gateway.name).stdout)
        return int(link["mtu"])

    def follows(self, mtu: int) -> None:
        until(lambda: self.mtu() == mtu, f"the MTU is {mtu}")
        until(lambda: self.said() == (mtu, "path"), f"status says so of {mtu}")

    def said(self) -> tuple[int, str]:
        status = self.gateway.status()
        return status.mtu, status.mtu_from


@pytest.fixture
def scene(lab: Lab, token: GatewayToken) -> _Scene:
    return _Scene(lab, token)


def test_the_way_to_the_endpoints(scene: _Scene) -> None:
    # A link's MTU, an endpoint that no route leads to, and one on the machine itself.
    scene.write(scene.small.right.endpoint(4, 1), f"{ANYWHERE}:1")
    scene.gateway.start()
    assert (scene.mtu(), scene.said()) == (1320, (1320, "path"))
    assert "mtu: 1320 (by the way to the endpoints)" in scene.gateway.command("status", scene.gateway.name).stdout
    assert scene.gateway.command("plan", scene.gateway.file).stdout.endswith(
        f"nothing would change ({scene.gateway.file})\n"
    )

    # The smallest of all counts, and a route may have one of its own, of either family.
    scene.space.run("ip", "route", "add", f"{ANYWHERE}/32", "via", scene.large.right.ipv4, "mtu", "1380")
    scene.follows(1300)
    scene.space.run("ip", "route", "change", f"{ANYWHERE}/32", "via", scene.large.right.ipv4, "mtu", "lock", "1500")
    scene.follows(1320)
    scene.space.run("ip", "link", "set", scene.small.left.interface, "mtu", "1390")
    scene.follows(1310)
    scene.write(scene.large.right.endpoint(6, 1))
    scene.reload()
    scene.follows(1420)
    scene.space.run(
        "ip", "-6", "route", "add", f"{scene.large.right.ipv6}/128", "dev", scene.large.left.interface, "mtu", "1410"
    )
    scene.follows(1330)
    # IPv6 would stop below.
    scene.space.run("ip", "link", "set", scene.large.left.interface, "mtu", "1300")
    scene.follows(1280)


def test_no_endpoint_is_known(scene: _Scene) -> None:
    scene.gateway.start()
    assert scene.said() == (1420, "path")
    scene.space.run("ip", "link", "set", scene.large.left.interface, "mtu", "9000")
    scene.space.run("ip", "route", "add", "default", "via", scene.large.right.ipv4, "metric", "7")
    scene.space.run("ip", "route", "add", "default", "via", scene.small.right.ipv4, "metric", "5")
    scene.follows(1320)
    # The best one counts, and peers are not behind jumbo frames because the first link has them.
    scene.space.run("ip", "route", "del", "default", "metric", "5")
    scene.follows(1420)
    hops = [word for link in (scene.large, scene.small) for word in ("nexthop", "via", link.right.ipv4)]
    scene.space.run("ip", "route", "add", "default", "metric", "4", *hops)
    scene.follows(1320)
    scene.space.run("ip", "route", "del", "default", "metric", "4")
    scene.follows(1420)
    scene.space.run("ip", "-6", "route", "add", "default", "via", scene.small.right.ipv6)
    scene.follows(1320)


def test_a_default_route_into_the_tunnel_is_no_way_to_an_endpoint(scene: _Scene) -> None:
    scene.space.run("ip", "route", "add", "default", "via", scene.small.right.ipv4)
    scene.write(f"{ANYWHERE}:1")
    scene.gateway.peers = [Peer("all", scene.keys[0], ["0.0.0.0/0", "::/0"], endpoint=f"{ANYWHERE}:1")]
    scene.gateway.write()
    scene.gateway.start()
    assert scene.said() == (1320, "path")
    # Without a mark an endpoint may be inside, and says nothing.
    scene.gateway.peers = [
        Peer("all", scene.keys[0], [f"{ANYWHERE}/32"], endpoint=scene.large.right.endpoint(4, 1)),
        Peer("inside", scene.keys[1], ["10.8.0.9/32"], endpoint=f"{ANYWHERE}:1"),
    ]
    scene.gateway.write()
    scene.reload()
    scene.follows(1420)


def test_another_hand_and_a_number_in_the_file(scene: _Scene) -> None:
    scene.write(scene.small.right.endpoint(4, 1))
    scene.gateway.start()
    scene.space.run("ip", "link", "set", scene.gateway.name, "mtu", "1350")
    until(lambda: scene.said() == (1350, "runtime"), "status says who has set it")
    planned = scene.gateway.command("plan", scene.gateway.file, check=False)
    assert planned.returncode == ExitCode.WOULD_CHANGE
    assert "~ interface.mtu: 1350 -> auto (1320 now)  (drift: changed at run time)" in planned.stdout
    # Left alone while routes change, and put right by a reload.
    scene.space.run("ip", "link", "set", scene.small.left.interface, "mtu", "1390")
    until(lambda: "set by hand" in scene.gateway.log(), "the news is heard")
    assert scene.said() == (1350, "runtime")
    scene.reload()
    scene.follows(1310)

    scene.write(scene.small.right.endpoint(4, 1), mtu=1360)
    planned = scene.gateway.command("plan", scene.gateway.file, "--json", check=False)
    assert json.loads(planned.stdout)["path_mtu"] == 1310
    scene.reload()
    until(lambda: scene.said() == (1360, "file"), "the number of the file")
    scene.write(scene.small.right.endpoint(4, 1), mtu="auto")
    scene.reload()
    scene.follows(1310)
