"""The packet path on every kind of TUN that a kernel may give, in both implementations, with real traffic.

none   plain packets          tso   virtio_net_hdr without USO, as before Linux 6.2          uso   everything
"""

import itertools
import socket
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.network.fixed_key_gateway import Gateway, Offload, inside, install
from tests.network.support import FileCopy, Lab, Link, Namespace, ping, ping_until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Site
from wghsm.ipc import Role

Implementation = Literal["PURE", "COMPILED"]

MEGABYTE = 1 << 20
_IPV6_RECVTCLASS = 66
_IPV6_TCLASS = 67
_IP_RECVTOS = 13
_UDP_SEGMENT = 103
_CE = 3


@dataclass
class Pair:
    link: Link
    left: Gateway
    right: Gateway


def _pair(lab: Lab, left: tuple[Offload, Implementation], right: tuple[Offload, Implementation]) -> Pair:
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    gateways = []
    for space, number, other, (offload, engine) in ((near, 1, 2, left), (far, 2, 1, right)):
        addresses, allowed = [f"10.8.0.{number}/24", f"fd08::{number}/64"], [f"10.8.0.{other}/32", f"fd08::{other}/128"]
        gateways.append(lab.add(Gateway(space, lab.scratch, addresses, allowed, offload=offload, engine=engine)))
    pair = Pair(link, *gateways)
    pair.left.endpoint(link.right.ipv4, pair.right.port)
    install(pair.left, pair.right, 1, 100)
    ping_until(near, "10.8.0.2")
    return pair


OFFLOADS: tuple[Offload, ...] = ("none", "tso", "uso")
ENGINES: tuple[Implementation, ...] = ("PURE", "COMPILED")


@pytest.mark.parametrize(("offload", "engine"), list(itertools.product(OFFLOADS, ENGINES)))
def test_traffic_both_ways(lab: Lab, offload: Offload, engine: Implementation) -> None:
    pair = _pair(lab, (offload, engine), ("uso", "COMPILED" if engine == "PURE" else "PURE"))
    for sender, receiver, address in (
        (pair.left.namespace, pair.right.namespace, "10.8.0.2"),
        (pair.right.namespace, pair.left.namespace, "10.8.0.1"),
        (pair.left.namespace, pair.right.namespace, "fd08::2"),
        (pair.right.namespace, pair.left.namespace, "fd08::1"),
    ):
        copy = lab.add(FileCopy(sender, receiver, address, lab.scratch, 4 * MEGABYTE))
        assert copy.wait().intact
        assert ping(sender, address, count=20, interval=0.01, size=1300).lost == 0
    for gateway in (pair.left, pair.right):
        assert gateway.counters(Role.EGRESS).keys() <= {"no-peer"}
        assert gateway.counters(Role.INGRESS) == {}


@pytest.mark.parametrize("engine", ENGINES)
def test_many_datagrams_at_once_arrive_whole_and_in_order(lab: Lab, engine: Implementation) -> None:
    pair = _pair(lab, ("uso", engine), ("uso", engine))
    for family, target in ((socket.AF_INET, "10.8.0.2"), (socket.AF_INET6, "fd08::2")):
        with inside(pair.right.namespace):
            receiver = socket.socket(family, socket.SOCK_DGRAM)
        with inside(pair.left.namespace):
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((target, 0))
            receiver.settimeout(20)
            sender.connect(receiver.getsockname())
            for size in (1, 31, 100, 1000, 1372):
                sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, size)
                datagrams = [bytes([number]) * size for number in range(40)] + [b"the last one"[:size]]
                sender.send(b"".join(datagrams))
                assert [receiver.recv(2000) for _ in datagrams] == datagrams


def _sender_of(space: Namespace, family: socket.AddressFamily, ecn: int) -> socket.socket:
    with inside(space):
        sock = socket.socket(family, socket.SOCK_DGRAM)
    # With a DSCP, which must not be seen outside.
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x88 | ecn)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TCLASS, 0x88 | ecn)
    return sock


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("outside", [4, 6])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_ecn_goes_out_and_congestion_comes_in(
    lab: Lab, family: socket.AddressFamily, outside: int, engine: Implementation
) -> None:
    """The router that is congested on the way is nftables in the sender's namespace."""
    pair = _pair(lab, ("uso", engine), ("uso", engine))
    pair.left.endpoint(pair.link.right.address(outside), pair.right.port)
    target = "10.8.0.2" if family == socket.AF_INET else "fd08::2"
    ping_until(pair.left.namespace, target)
    protocol = "ip" if outside == 4 else "ip6"
    out = f"add rule inet marks out udp dport {pair.right.port} {protocol}"

    def nft(line: str) -> None:
        pair.left.namespace.run("nft", line)

    nft("add table inet marks")
    nft("add chain inet marks out { type filter hook output priority 0; }")
    nft(f"add counter inet marks dscp; {out} dscp != cs0 counter name dscp")
    for name in ("not-ect", "ect1", "ect0", "ce"):
        nft(f"add counter inet marks {name}; {out} ecn {name} counter name {name}")
    with inside(pair.right.namespace):
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    receiver.bind((target, 0))
    receiver.settimeout(20)
    if family == socket.AF_INET:
        receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
    else:
        receiver.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)

    def arrives_as(ecn: int) -> int:
        with _sender_of(pair.left.namespace, family, ecn) as sender:
            sender.sendto(b"x" * 100, receiver.getsockname())
            _, control, _, _ = receiver.recvmsg(200, 100)
        ((_, _, data),) = control
        return data[0]

    with receiver:
        assert [arrives_as(ecn) for ecn in range(4)] == [0x88 | ecn for ecn in range(4)]
        # CE inside is ECT(0) outside; the DSCP of the packet inside is not seen.
        seen = {name: _counted(pair.left.namespace, name) for name in ("not-ect", "ect1", "ect0", "ce", "dscp")}
        assert seen == {"not-ect": 1, "ect1": 1, "ect0": 2, "ce": 0, "dscp": 0}
        nft(f"{out} ecn {{ ect0, ect1 }} {protocol} ecn set ce")
        assert [arrives_as(ecn) for ecn in range(4)] == [0x88, 0x88 | _CE, 0x88 | _CE, 0x88 | _CE]
        # Marked although the packet inside is not ECN-capable: delivered all the same.
        nft(f"{out} ecn set ce")
        assert arrives_as(0) == 0x88
    assert pair.right.counters(Role.INGRESS) == {}


def _counted(space: Namespace, name: str) -> int:
    words = space.run("nft", "list", "counter", "inet", "marks", name).stdout.split()
    return int(words[words.index("packets") + 1])


@pytest.mark.parametrize("implementation", ["compiled", "pure"])
def test_status_says_which_implementation_runs(
    lab: Lab, token: GatewayToken, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if implementation == "pure":
        monkeypatch.setenv("WGHSM_PURE", "1")
    site = Site(lab, token)
    client = site.client("client")
    site.start()
    client.start()
    ping_until(client.namespace, site.inner4)
    engines = {each.role: each.engine for each in site.gateway.status().processes}
    assert engines["egress"] == engines["ingress"] == implementation
    assert not engines["handshake"]
    shown = site.gateway.command("status", site.gateway.name).stdout
    assert shown.count(f"ready, {implementation}, pid") == 2
