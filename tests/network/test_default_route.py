"""Default routes under `table: auto`: packets go into the tunnel, the outer ones do not, and nothing is left behind."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.network.support import KeyPair, Lab, UdpStream, ping, ping_until, until
from tests.network.support.gateway import Gateway, Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.netns import add_address

FAR4, FAR6 = "198.51.100.1", "2001:db8::1"
OUTER4, OUTER6 = "203.0.113.9", "2001:db8:9::9"
PROTOCOL = "proto 87"


class _Scene:
    """A gateway whose own default route leads to its only peer's side; behind the tunnel, the peer has addresses."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.space, self.outside = lab.namespace("gw"), lab.namespace("out")
        self.token = token
        self.link = link = lab.connect(self.space, self.outside)
        # The peer's endpoint is behind the default route, so that only the mark leads there.
        for address in (OUTER4, OUTER6):
            add_address(self.outside, "lo", f"{address}/{32 if address == OUTER4 else 128}")
        # It speaks from there, too; only a neighbour's questions come from the network that both are in.
        self.outside.run("sysctl", "-qw", "net.ipv4.conf.all.arp_announce=2")
        self.outside.run("ip", "route", "replace", f"{link.left.ipv4}/32", "dev", link.right.interface, "src", OUTER4)
        self.outside.run("ip", "route", "replace", f"{link.left.ipv6}/128", "dev", link.right.interface, "src", OUTER6)
        self.space.run("ip", "route", "add", "default", "via", link.right.ipv4)
        self.space.run("ip", "-6", "route", "add", "default", "via", link.right.ipv6)
        self.space.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.all.src_valid_mark=0")
        keys = KeyPair.make()
        self.stock = lab.stock_peer(self.outside, ["10.8.0.2/24", "fd08::2/64"], 51821, keys)
        for address in (f"{FAR4}/32", f"{FAR6}/128"):
            add_address(self.outside, self.stock.name, address)
        self.stock.set_peer(token.public_key("gateway"), ["10.8.0.0/24", "fd08::/64"], None)
        self.every = Peer("all", keys.public, ["0.0.0.0/0", "::/0"], endpoint=f"{OUTER4}:51821")
        self.some = Peer("all", keys.public, ["10.8.0.2/32"], endpoint=f"{OUTER4}:51821")
        self.gateway = lab.add(Gateway(self.space, lab.scratch, token, [self.every]))

    def outer(self, family: int) -> str:
        return OUTER4 if family == 4 else f"[{OUTER6}]"

    def rules(self, family: str) -> list[str]:
        """The rules of wghsm, in order."""
        shown = self.space.run("ip", family, "rule", "show").stdout.splitlines()
        return [line.partition(":")[2].strip() for line in shown if PROTOCOL in line]

    def reload(self, peer: Peer, **interface: object) -> None:
        self.gateway.peers = [peer]
        self.gateway.interface = interface
        self.gateway.write()
        self.gateway.command("reload", self.gateway.name)

    def mark(self) -> str:
        return self.space.run("wg", "show", self.gateway.name, "fwmark").stdout.strip()


def _pair(mark: int) -> list[str]:
    start = f"not from all fwmark {mark:#x} lookup"
    return [f"{start} main suppress_prefixlength 0 {PROTOCOL}", f"{start} {mark} {PROTOCOL}"]


@pytest.fixture
def scene(lab: Lab, token: GatewayToken) -> _Scene:
    return _Scene(lab, token)


def test_everything_goes_into_the_tunnel_but_the_tunnel_itself(scene: _Scene) -> None:
    scene.gateway.start()
    for family, far, near in (("-4", FAR4, "10.8.0.1"), ("-6", FAR6, "fd08::1")):
        assert scene.rules(family) == _pair(51820)
        route = scene.space.run("ip", family, "route", "get", far).stdout
        assert f"dev {scene.gateway.name} " in route
        assert near in route
        ping_until(scene.space, far)
    assert scene.space.run("sysctl", "-n", "net.ipv4.conf.all.src_valid_mark").stdout.strip() == "1"
    assert scene.mark() == "0xca6c"
    # Whoever keeps the machine's rules as `nft list ruleset` shows them can load them again.
    scene.space.run("nft", "-c", "-f", "-", stdin=scene.space.run("nft", "list", "ruleset").stdout)

    # Another mark, its rules before the old ones go; then none, and back again.
    scene.reload(scene.every, fwmark=7)
    assert (scene.rules("-4"), scene.rules("-6"), scene.mark()) == (_pair(7), _pair(7), "0x7")
    assert ping(scene.space, FAR4, count=3).lost == 0
    scene.reload(scene.some)
    assert (scene.rules("-4"), scene.rules("-6"), scene.mark()) == ([], [], "off")
    ping_until(scene.space, "10.8.0.2")
    scene.space.run("wg", "set", scene.gateway.name, "peer", scene.every.public_key, "allowed-ips", "0.0.0.0/0")
    until(lambda: scene.rules("-4") == _pair(51820), "the rules")
    assert scene.rules("-6") == []
    ping_until(scene.space, FAR4)

    scene.gateway.stop()
    assert scene.rules("-4") == scene.rules("-6") == []
    assert scene.gateway.leftovers() == []


STRICT6 = """
table inet strict {
    chain prerouting {
        type filter hook prerouting priority mangle + 10; policy accept;
        meta nfproto ipv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
}
"""


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("calls", [False, True])
def test_a_machine_that_is_strict_about_source_addresses(scene: _Scene, family: int, calls: bool) -> None:
    """IPv4 by the kernel's own check, IPv6 as firewalld does it; `calls`: the peer begins, and sends first."""
    gateway = scene.gateway
    for device in ("all", "default", scene.link.left.interface):
        scene.space.run("sysctl", "-qw", f"net.ipv4.conf.{device}.rp_filter=1")
    scene.space.run("nft", "-f", "-", stdin=STRICT6)
    before = scene.space.run("nft", "list", "ruleset").stdout
    # The peer's endpoint is behind the default route: the check asks where an answer to it would go.
    known = None if calls else f"{scene.outer(family)}:51821"
    gateway.peers = [Peer("all", scene.every.public_key, ["0.0.0.0/0", "::/0"], endpoint=known)]
    gateway.write()
    gateway.start()
    if calls:
        scene.stock.set_peer(
            scene.token.public_key("gateway"), ["10.8.0.0/24", "fd08::/64"], scene.link.left.endpoint(family, 51820)
        )
        ping_until(scene.outside, "10.8.0.1")
    for far in (FAR4, FAR6):
        ping_until(scene.space, far)
        assert ping(scene.space, far, count=3).lost == 0

    # Another port and another mark take the rule along.
    gateway.listen_port = 51888
    gateway.interface = {"fwmark": 7}
    gateway.write()
    gateway.command("reload", gateway.name)
    ping_until(scene.space, FAR4)
    assert "udp dport 51888" in scene.space.run("nft", "list", "ruleset").stdout
    gateway.stop()
    assert scene.space.run("nft", "list", "ruleset").stdout == before
    assert gateway.leftovers() == []


def test_what_a_killed_gateway_leaves_goes_with_the_next_start(scene: _Scene) -> None:
    gateway = scene.gateway
    gateway.start()
    children = gateway.pids().values()
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the children have ended")
    until(lambda: gateway.name not in scene.space.interfaces(), "the interface goes")
    # They lead to an empty table: what is outside is reached as before.
    assert scene.rules("-4") == _pair(51820)
    assert "dev veth" in scene.space.run("ip", "route", "get", FAR4).stdout
    gateway.peers = [scene.some]
    gateway.write()
    gateway.start()
    assert scene.rules("-4") == scene.rules("-6") == []


def test_a_link_that_was_down_and_rules_that_went_meanwhile(scene: _Scene) -> None:
    scene.gateway.start()
    ping_until(scene.space, FAR4)
    scene.space.run("ip", "link", "set", scene.gateway.name, "down")
    scene.space.run("ip", "rule", "del", "table", "51820")
    scene.space.run("ip", "link", "set", scene.gateway.name, "up")
    until(lambda: scene.rules("-4") == _pair(51820), "the rules are back")
    ping_until(scene.space, FAR4)


def test_what_is_in_the_tunnel_stays_there_while_marks_and_routes_change(scene: _Scene, lab: Lab) -> None:
    scene.gateway.start()
    ping_until(scene.space, "10.8.0.2")
    streams = [
        lab.add(UdpStream(scene.space, scene.outside, "10.8.0.2", lab.scratch, rate=100)),
        lab.add(UdpStream(scene.outside, scene.space, "fd08::1", lab.scratch, rate=100)),
    ]

    def turn(peer: Peer, **interface: object) -> None:
        for stream in streams:
            stream.wait_for(20)
        scene.reload(peer, **interface)

    wide = replace(scene.every, allowed_ips=["10.8.0.2/32", "fd08::/64", "0.0.0.0/0"])
    narrow = replace(scene.every, allowed_ips=["10.8.0.2/32", "fd08::/64"])
    # Another mark, no default route any more, one again, and both families.
    turn(wide, fwmark=7)
    turn(wide)
    turn(narrow)
    turn(narrow, fwmark=9)
    turn(narrow)
    turn(wide)
    turn(scene.every)
    for stream in streams:
        stream.wait_for(20)
    assert [stream.finish().lost for stream in streams] == [(), ()]
