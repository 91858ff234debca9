"""What a tunnel still carries while strangers or peers flood one end of it, as a share of what it carries otherwise.

    namespace "near"                     namespace "far"                     namespace "outside"
    wghsm ------------ cable ------------ wghsm, slow token ----- cable ----- 2,000 addresses    10.11.0.0/24
    wireguard-go ----- cable ------------ wireguard-go ---------- cable -----       "            10.12.0.0/24

One stream of TCP goes from near to far. In every other sample the same flood goes to a port of the far end that nobody
reads, so that what it costs to send, and the kernel to deliver, is in both. And without any stream: the CPU time that
the far end takes for the same flood, wghsm against wireguard-go. Called by __main__.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import CUSTODIAN_UID, Peer, cpu_between, cpu_times
from benchmarks.ratios import Ratio, interleave, ratio_of
from benchmarks.throughput import stock_pair, wghsm_pair
from tests.network.support import Lab, iperf3, ping_until
from tests.network.support.software_peer import udp_socket
from tests.token.rig import rig_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.throughput import Pair
    from tests.network.support import Namespace, Process
    from tests.token.rig import Rig

__all__ = ["Case", "cases", "flood_ratios", "measure_flood"]

_PORT = 51820
_SOURCES = "10.66.0.0/16"
_PEERS = 200
_TOKEN_DELAY = 0.1
_FLOOD, _STORM, _CALM = 25_000, 1_000, 50
"""Messages a second: of strangers; of peers, more than SoftHSM can take; of peers, as a slow token can take them."""


@dataclass(frozen=True)
class Case:
    """`kind` of message (see _flood.py) at `rate` a second; `slow`: each derive of the token takes 100 ms longer."""

    contender: str
    name: str
    kind: str
    rate: int = _FLOOD
    slow: bool = False

    @property
    def ratio(self) -> str:
        """As the documents name it."""
        return f"{self.contender}.{self.name}.rate"


def cases(*, quick: bool) -> list[Case]:
    """All comparisons, or those of a quick run."""
    peers = [
        Case("wghsm", "storm", "handshakes", _STORM),
        Case("wghsm", "slow-token", "handshakes", _CALM, slow=True),
        Case("wghsm", "slow-storm", "handshakes", _STORM, slow=True),
    ]
    kinds = ("initiations", "junk-mac2", "garbage")
    ours, theirs = ([Case(contender, kind, kind) for kind in kinds] for contender in ("wghsm", "wireguard-go"))
    return [ours[0], peers[2]] if quick else ours + peers + theirs


def flood_ratios(*, quick: bool) -> list[str]:
    """The names of all ratios."""
    wanted = cases(quick=quick)
    return [case.ratio for case in wanted] + [f"{case.name}.cpu" for case in wanted if case.contender == "wireguard-go"]


def measure_flood(lab: Lab, rounds: int, seconds: int, say: Callable[[str], None], *, quick: bool) -> dict[str, Ratio]:
    """Ratios `CONTENDER.CASE.rate`: the stream with the flood, divided by that without; `CASE.cpu`: ours by theirs."""
    outside = lab.namespace("outside")
    # Every address of the net is the flood's own, without a thousand entries on an interface.
    outside.run("ip", "route", "add", "local", _SOURCES, "dev", "lo")
    script = Path(__file__).with_name("_flood.py")
    flood = lab.add(outside.start_python(script, str(_PEERS), folder=lab.scratch, label="flood"))
    keys = json.loads(flood.next_line(120))
    rig = lab.add(contextlib.ExitStack()).enter_context(rig_token(uid=CUSTODIAN_UID))
    peers = [Peer(key, (f"10.67.{number >> 8}.{number & 255}/32",)) for number, key in enumerate(keys)]
    wanted = cases(quick=quick)
    pairs = {"wghsm": wghsm_pair(lab, 11, pure=False, token=rig.made, peers=peers)}
    if any(case.contender == "wireguard-go" for case in wanted):
        pairs["wireguard-go"] = stock_pair(lab, 12)
    ends = {name: _End(lab, pair, outside) for name, pair in pairs.items()}
    found: dict[str, Ratio] = {}
    for case in wanted:
        say(f"{case.ratio}: with / without")
        sample = _Sample(lab, ends[case.contender], flood, case, seconds, rig.rig)
        samples = interleave(sample.flooded, sample.quiet, rounds, say)
        found[case.ratio] = ratio_of(samples, "Gbit/s", "Gbit/s")
    for case in wanted:
        if case.contender == "wireguard-go":
            say(f"{case.name}.cpu: wghsm / wireguard-go")
            ours, theirs = (_Sample(lab, ends[name], flood, case, seconds, rig.rig) for name in pairs)
            samples = interleave(ours.idle, theirs.idle, rounds, say)
            found[f"{case.name}.cpu"] = ratio_of(samples, "CPU us/message", "CPU us/message")
    return found


class _End:
    """A pair, and where its far end is flooded."""

    def __init__(self, lab: Lab, pair: Pair, outside: Namespace) -> None:
        self.pair = pair
        link = lab.connect(pair.far, outside)
        self.address = link.left.ipv4
        pair.far.run("ip", "route", "add", _SOURCES, "via", link.right.ipv4)
        self.nobody = lab.add(udp_socket(pair.far, 4, self.address))
        ping_until(pair.near, pair.address(4))


class _Sample:
    """A stream through one pair, while something is flooded."""

    def __init__(self, lab: Lab, end: _End, flood: Process, case: Case, seconds: int, rig: Rig) -> None:
        self._lab = lab
        self._end = end
        self._flood = flood
        self._case = case
        self._seconds = seconds
        self._rig = rig

    def flooded(self) -> Mapping[str, float]:
        """The far end is."""
        if self._case.slow:
            self._rig.slow(_TOKEN_DELAY, "C_DeriveKey")
        try:
            return self._measure(_PORT)
        finally:
            self._rig.clear()

    def quiet(self) -> Mapping[str, float]:
        """A port that nobody reads is."""
        return self._measure(self._end.nobody.getsockname()[1])

    def idle(self) -> Mapping[str, float]:
        """The far end is, and nothing else happens."""
        end = self._end.pair.ends[1]
        self._begin(_PORT)
        before = cpu_times(end.pid)
        time.sleep(self._seconds)
        used = cpu_between(before, cpu_times(end.pid))
        return {"CPU us/message": used * 1e6 / self._stop()}

    def _measure(self, port: int) -> Mapping[str, float]:
        pair = self._end.pair
        self._begin(port)
        report = iperf3(pair.far, pair.near, pair.address(4), self._lab.scratch, self._seconds)
        sent = self._stop()
        received = report["end"]["sum_received"]
        return {"Gbit/s": received["bytes"] * 8 / 1e9 / received["seconds"], "messages": sent}

    def _begin(self, port: int) -> None:
        pair, case = self._end.pair, self._case
        order = {
            "kind": case.kind,
            "gateway": pair.ends[1].public_key,
            "address": self._end.address,
            "port": port,
            "rate": case.rate,
            "seconds": self._seconds + 2,
        }
        self._flood.tell(json.dumps(order))
        self._flood.next_line(120)
        self._flood.tell("go")

    def _stop(self) -> int:
        """How many messages were sent."""
        self._flood.tell("stop")
        return int(self._flood.next_line(60))
