"""Handshakes a second as responder, under as much load as it takes and no more.

    generator processes (many peers, each at its own address)  --- cable ---  wghsm        port 51820
                                                                              wireguard-go port 51821

The load is a closed loop: a fixed number of initiations is under way, far below the mark at which either would ask
for cookies, so the responder is always busy and never flooded. The generators make their messages before a round,
so that they cost little while it lasts. Called by __main__.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.contenders import Contender, Peer, Wghsm, WireguardGo, cpu_between, cpu_times
from benchmarks.ratios import Ratio, interleave, ratio_of
from tests.network.support import Lab, Process

__all__ = ["GENERATORS", "WINDOW", "measure_handshakes"]

GENERATORS = 2
WINDOW = 24
"""Initiations under way from each generator; both contenders ask for cookies from 128 on."""

_SOURCES = "10.66.0.0/16"
_PORTS = (51820, 51821)


def measure_handshakes(
    lab: Lab, rounds: int, seconds: float, peers: int, say: Callable[[str], None]
) -> dict[str, Ratio]:
    """Ratios `rate` (more is better) and `cpu_per_handshake` (less is better), with `peers` peers in all."""
    near, far = lab.namespace("responder"), lab.namespace("generator")
    link = lab.connect(near, far)
    # Every address of the net is the far side's own, without a thousand entries on an interface.
    far.run("ip", "route", "add", "local", _SOURCES, "dev", "lo")
    near.run("ip", "route", "add", _SOURCES, "via", link.right.ipv4)
    script = Path(__file__).with_name("_generator.py")
    generators = [
        lab.add(
            far.start_python(
                script,
                *[str(number), str(-(-peers // GENERATORS))],
                folder=lab.scratch,
                label=f"generator-{number}",
            )
        )
        for number in range(GENERATORS)
    ]
    keys = [key for generator in generators for key in json.loads(generator.next_line(120))]
    told = [Peer(key, (f"10.67.{number >> 8}.{number & 255}/32",)) for number, key in enumerate(keys)]
    ours = Wghsm(lab, near, [], _PORTS[0], told)
    theirs = WireguardGo(lab, near, [], _PORTS[1])
    theirs.add_peers(told)
    loads = [_Load(contender, link.left.ipv4, generators, seconds) for contender in (ours, theirs)]
    say(f"handshakes with {len(keys)} peers, wghsm / wireguard-go")
    for load in loads:
        load.warm_up()
    samples = interleave(loads[0].measure, loads[1].measure, rounds, say)
    for load in loads:
        say(load.account())
    return {
        "rate": ratio_of(samples, "handshakes/s", "handshakes/s"),
        "cpu_per_handshake": ratio_of(samples, "CPU ms/handshake", "CPU ms/handshake"),
    }


class _Load:
    """The generators, aimed at one contender."""

    def __init__(self, contender: Contender, address: str, generators: list[Process], seconds: float) -> None:
        self._contender = contender
        self._address = address
        self._generators = generators
        self._seconds = seconds
        self._rate = 0.0
        self._sum = dict.fromkeys(("responses", "verified", "lost", "cookies"), 0)

    def warm_up(self) -> None:
        """Find out how many messages a round takes."""
        self._rate = self._run(500, min(1.0, self._seconds))["handshakes/s"]

    def measure(self) -> Mapping[str, float]:
        """One round: handshakes a second, and CPU milliseconds for each."""
        sample = self._run(int(self._rate * self._seconds * 1.5 / len(self._generators)) + 200, self._seconds)
        self._rate = max(self._rate, sample["handshakes/s"])
        return sample

    def account(self) -> str:
        """What came of all messages, in one line."""
        return f"{self._contender.name}: " + ", ".join(f"{count} {name}" for name, count in self._sum.items())

    def _run(self, messages: int, seconds: float) -> dict[str, float]:
        aim = {"gateway": self._contender.public_key, "address": self._address, "port": self._contender.port}
        self._ask({"do": "prepare", "count": messages, **aim})
        before = cpu_times(self._contender.pid)
        answers = self._ask({"do": "run", "seconds": seconds, "window": WINDOW, **aim})
        used = cpu_between(before, cpu_times(self._contender.pid))
        for name in self._sum:
            self._sum[name] += sum(int(answer[name]) for answer in answers)
        responses = sum(answer["responses"] for answer in answers)
        if not responses:
            raise RuntimeError(f"{self._contender.name} answered no initiation")
        return {
            "handshakes/s": sum(answer["responses"] / answer["seconds"] for answer in answers),
            "CPU ms/handshake": used * 1000 / responses,
        }

    def _ask(self, order: Mapping[str, object]) -> list[dict[str, float]]:
        """All generators at once; an answer may take as long as the making of all messages."""
        for generator in self._generators:
            generator.tell(json.dumps(order))
        return [json.loads(generator.next_line(600)) for generator in self._generators]
