"""What a tunnel carries, and the CPU time it takes for it: wghsm at both ends against wireguard-go at both ends.

    namespace "near"                       namespace "far"
    wghsm, compiled -------- cable -------- wghsm, compiled           10.8.0.0/24  fd08::/64
    wghsm, pure Python ----- cable -------- wghsm, pure Python        10.9.0.0/24  fd09::/64
    wireguard-go ----------- cable -------- wireguard-go              10.10.0.0/24 fd0a::/64

All pairs stand all the time; one of them carries at a time. Both ends and the load share the cores, as they would in
every comparison of tunnels on one machine. Called by __main__.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import Peer, Wghsm, WireguardGo, cpu_between, cpu_times
from benchmarks.ratios import Ratio, interleave, ratio_of
from tests.network.support import Lab, Link, Namespace, iperf3, ping_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.contenders import Contender
    from wghsm.softhsm_setup import SoftHsmToken

__all__ = ["SMALL_PACKETS", "Case", "Pair", "cases", "measure_throughput", "stock_pair", "wghsm_pair"]

_PORT = 51820
SMALL_PACKETS = f"--udp --bandwidth 0 --length {64 - 28}"
"""iperf3's options for IPv4 packets of 64 bytes, as fast as it sends."""


@dataclass(frozen=True)
class Case:
    """One comparison: `family` inside the tunnel, `options` of iperf3, `values` that come out with their units."""

    name: str
    family: int
    options: str
    pure: bool = False

    @property
    def values(self) -> dict[str, str]:
        """Name of each ratio to its unit."""
        if self.name.endswith("ping"):
            return {"time": "us"}
        if self.name.endswith("udp64"):
            return {"rate": "packets/s", "cpu_per_packet": "CPU us/packet"}
        return {"rate": "Gbit/s", "cpu_per_gbit": "CPU s/Gbit"}


def cases(*, quick: bool) -> list[Case]:
    """All comparisons, or those of a quick run."""
    ways = {"out": "", "back": "--reverse"}
    tcp = [
        Case(f"tcp{family}.{streams}.{way}", family, f"--parallel {streams} {option}")
        for family in (4, 6)
        for streams in (1, 4)
        for way, option in ways.items()
    ]
    pure = [Case(f"pure.tcp4.1.{way}", 4, option, pure=True) for way, option in ways.items()]
    small = [
        Case("udp64", 4, SMALL_PACKETS),
        Case("ping", 4, ""),
        Case("pure.ping", 4, "", pure=True),
    ]
    return [tcp[0], pure[0], *small[:2]] if quick else tcp + pure + small


def measure_throughput(
    lab: Lab, rounds: int, seconds: int, say: Callable[[str], None], *, quick: bool
) -> dict[str, Ratio]:
    """Ratios by name; a sample takes `seconds`. Less is better for times and CPU, more for rates."""
    compiled = wghsm_pair(lab, 8, pure=False)
    pure = wghsm_pair(lab, 9, pure=True)
    stock = stock_pair(lab, 10)
    for pair in (compiled, pure, stock):
        for family in (4, 6):
            ping_until(pair.near, pair.address(family))
    found: dict[str, Ratio] = {}
    for case in cases(quick=quick):
        say(f"{case.name}, wghsm / wireguard-go")
        ours, theirs = (_Sample(lab, pair, case, seconds) for pair in (pure if case.pure else compiled, stock))
        samples = interleave(ours.measure, theirs.measure, rounds, say)
        found |= {f"{case.name}.{value}": ratio_of(samples, unit, unit) for value, unit in case.values.items()}
    for name, pair in (("memory", compiled), ("pure.memory", pure)):
        samples = interleave(pair.memory, stock.memory, 1, say)
        found[f"{name}.pss"] = ratio_of(samples, "MiB", "MiB")
    return found


@dataclass(frozen=True)
class Pair:
    """A tunnel from `near` to `far`, and the contender at each end; `net` is its second byte."""

    near: Namespace
    far: Namespace
    net: int
    ends: Sequence[Contender]

    @property
    def gateways(self) -> list[Wghsm]:
        """The ends that are wghsm."""
        return [end for end in self.ends if isinstance(end, Wghsm)]

    def address(self, family: int) -> str:
        """The far end's inner address."""
        return f"10.{self.net}.0.2" if family == 4 else f"fd{self.net:02x}::2"

    def cpu(self) -> dict[int, float]:
        """CPU seconds so far of all processes of both ends."""
        return {pid: used for end in self.ends for pid, used in cpu_times(end.pid).items()}

    def memory(self) -> Mapping[str, float]:
        """Proportional set size of one end, all its processes together."""
        pids = cpu_times(self.ends[0].pid)
        found = [re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M) for pid in pids]
        return {"MiB": sum(int(one[1]) for one in found if one) / 1024}


class _Sample:
    def __init__(self, lab: Lab, pair: Pair, case: Case, seconds: int) -> None:
        self._lab = lab
        self._pair = pair
        self._case = case
        self._seconds = seconds

    def measure(self) -> Mapping[str, float]:
        if "time" in self._case.values:
            return self._flood()
        pair, case = self._pair, self._case
        before = pair.cpu()
        report = iperf3(pair.far, pair.near, pair.address(case.family), self._lab.scratch, self._seconds, case.options)
        used = cpu_between(before, pair.cpu())
        end = report["end"]
        if case.name.endswith("udp64"):
            # The receiver's view; what iperf3 counts as lost has not come through the tunnel or the sockets.
            total = end["sum_received"]
            packets = total["packets"] - total["lost_packets"]
            self._must_be_some(packets)
            return {"packets/s": packets / total["seconds"], "CPU us/packet": used / packets * 1e6}
        gbits = end["sum_received"]["bytes"] * 8 / 1e9
        self._must_be_some(gbits)
        return {"Gbit/s": gbits / end["sum_received"]["seconds"], "CPU s/Gbit": used / gbits}

    def _must_be_some(self, arrived: float) -> None:
        if not arrived:
            raise RuntimeError(f"{self._pair.ends[0].name}: nothing arrived")

    def _flood(self) -> Mapping[str, float]:
        """`ping -f`: the next request leaves when the answer has come."""
        command = ["ping", "-n", "-q", "-f", "-w", str(self._seconds), self._pair.address(4)]
        done = self._pair.near.run(*command, check=False, limit=self._seconds + 60)
        found = re.search(r"= [\d.]+/([\d.]+)/", done.stdout)
        if found is None:
            raise RuntimeError(f"ping: {done.stderr or done.stdout}")
        return {"us": float(found[1]) * 1000}


def _link(lab: Lab, hint: str) -> Link:
    return lab.connect(lab.namespace(f"{hint}-near"), lab.namespace(f"{hint}-far"))


def _inner(net: int, end: int, bits: tuple[int, int]) -> list[str]:
    return [f"10.{net}.0.{end}/{bits[0]}", f"fd{net:02x}::{end}/{bits[1]}"]


def wghsm_pair(
    lab: Lab, net: int, *, pure: bool, token: SoftHsmToken | None = None, peers: Sequence[Peer] = ()
) -> Pair:
    """Two gateways that serve, each the other's peer; the far one with `token`, and with these `peers` besides."""
    link = _link(lab, "pure" if pure else "wghsm")
    environment = {"WGHSM_PURE": "1"} if pure else {}
    near, far = (
        Wghsm(lab, end.namespace, _inner(net, number, (24, 64)), _PORT, environment=environment, token=own)
        for number, end, own in ((1, link.left, None), (2, link.right, token))
    )
    far.start([Peer(near.public_key, tuple(_inner(net, 1, (32, 128)))), *peers])
    near.start([Peer(far.public_key, tuple(_inner(net, 2, (32, 128))), link.right.endpoint(4, _PORT))])
    return Pair(link.left.namespace, link.right.namespace, net, (near, far))


def stock_pair(lab: Lab, net: int) -> Pair:
    """Two wireguard-go, each the other's peer."""
    link = _link(lab, "go")
    near = WireguardGo(lab, link.left.namespace, _inner(net, 1, (24, 64)), _PORT)
    far = WireguardGo(lab, link.right.namespace, _inner(net, 2, (24, 64)), _PORT)
    far.add_peers([Peer(near.public_key, tuple(_inner(net, 1, (32, 128))))])
    near.stock.set_peer(far.public_key, _inner(net, 2, (32, 128)), link.right.endpoint(4, _PORT))
    return Pair(link.left.namespace, link.right.namespace, net, (near, far))
