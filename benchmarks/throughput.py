"""One TCP stream through a tunnel, and the CPU time that the gateway's processes took for it.

    far namespace                              near namespace
    wireguard-go (client) ------ cable ------ wghsm            10.8.0.0/24
    far namespace                              near namespace
    wireguard-go (client) ------ cable ------ wireguard-go     10.9.0.0/24

Both pairs stand all the time; one of them carries at a time. Both ends and iperf3 share the cores, as they would
in every comparison of tunnels on one machine. Called by __main__.
"""

from collections.abc import Callable, Mapping

from benchmarks.contenders import Contender, Peer, Wghsm, WireguardGo, cpu_between, cpu_times
from benchmarks.ratios import Ratio, interleave, ratio_of
from tests.network.support import KeyPair, Lab, Link, Namespace, StockPeer, iperf3, ping_until

__all__ = ["DIRECTIONS", "measure_throughput"]

DIRECTIONS = {"to_gateway": "", "from_gateway": "--reverse"}
"""Name of a direction to iperf3's option; the client of the tunnel is iperf3's client."""

_PORT = 51820


def measure_throughput(lab: Lab, rounds: int, seconds: int, say: Callable[[str], None]) -> dict[str, dict[str, Ratio]]:
    """Ratios by direction: `rate` (more is better) and `cpu_per_gbit` (less is better); a stream takes `seconds`."""
    pairs = [_wghsm_pair(lab), _stock_pair(lab)]
    for pair in pairs:
        ping_until(pair.client, pair.inner)
    found = {}
    for direction, option in DIRECTIONS.items():
        say(f"one TCP stream {direction.replace('_', ' the ')}, wghsm / wireguard-go")
        ours, theirs = (_Stream(lab, pair, option, seconds) for pair in pairs)
        samples = interleave(ours.measure, theirs.measure, rounds, say)
        found[direction] = {
            "rate": ratio_of(samples, "Gbit/s", "Gbit/s"),
            "cpu_per_gbit": ratio_of(samples, "CPU s/Gbit", "CPU s/Gbit"),
        }
    return found


class _Pair:
    """A tunnel: the gateway's namespace and inner address, the client's namespace, the contender."""

    def __init__(self, gateway: Namespace, client: Namespace, inner: str, contender: Contender) -> None:
        self.gateway = gateway
        self.client = client
        self.inner = inner
        self.contender = contender


class _Stream:
    def __init__(self, lab: Lab, pair: _Pair, option: str, seconds: int) -> None:
        self._lab = lab
        self._pair = pair
        self._option = option
        self._seconds = seconds

    def measure(self) -> Mapping[str, float]:
        """One stream: Gbit a second as the receiver counts them, and CPU seconds for each Gbit."""
        pair = self._pair
        before = cpu_times(pair.contender.pid)
        report = iperf3(pair.gateway, pair.client, pair.inner, self._lab.scratch, self._seconds, self._option)
        used = cpu_between(before, cpu_times(pair.contender.pid))
        received = report["end"]["sum_received"]
        gbits = received["bytes"] * 8 / 1e9
        if gbits == 0:
            raise RuntimeError(f"{pair.contender.name}: nothing arrived")
        return {"Gbit/s": gbits / received["seconds"], "CPU s/Gbit": used / gbits}


def _namespaces(lab: Lab, hint: str) -> Link:
    return lab.connect(lab.namespace(f"{hint}-near"), lab.namespace(f"{hint}-far"))


def _client(lab: Lab, link: Link, net: str, keys: KeyPair, gateway_public: str) -> StockPeer:
    client = lab.stock_peer(link.right.namespace, [f"{net}.2/24"], keys=keys)
    client.set_peer(gateway_public, [f"{net}.0/24"], link.left.endpoint(4, _PORT))
    return client


def _wghsm_pair(lab: Lab) -> _Pair:
    link, keys = _namespaces(lab, "wghsm"), KeyPair.make()
    near = link.left.namespace
    gateway = Wghsm(lab, near, ["10.8.0.1/24"], _PORT, [Peer(keys.public, ("10.8.0.2/32",))])
    _client(lab, link, "10.8.0", keys, gateway.public_key)
    return _Pair(near, link.right.namespace, "10.8.0.1", gateway)


def _stock_pair(lab: Lab) -> _Pair:
    link, keys = _namespaces(lab, "go"), KeyPair.make()
    near = link.left.namespace
    gateway = WireguardGo(lab, near, ["10.9.0.1/24"], _PORT)
    gateway.add_peers([Peer(keys.public, ("10.9.0.2/32",))])
    _client(lab, link, "10.9.0", keys, gateway.public_key)
    return _Pair(near, link.right.namespace, "10.9.0.1", gateway)
