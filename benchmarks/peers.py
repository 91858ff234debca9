"""What many peers cost: start, memory, listings, a reload, and a packet, a timer or a lookup among so many.

    gateway of 10 peers, gateway of 10,000    started in turn      -> seconds until they serve, PSS of each process
    wg show, wghsm status, wghsm reload       on both              -> seconds
    a generator in another namespace          1,000 of the 10,000  -> handshakes, an echo each second, PSS and CPU time
    the cores in this process (tests.unit.crowd), no gateway       -> nanoseconds of CPU time for each operation

Memory is much the same on every machine, and the limits of memory and start-up are absolute, so these numbers are kept
as they are; what an operation costs is kept as a multiple of what it costs with few peers. Called by __main__.
"""

import base64
import itertools
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.contenders import cpu_between, cpu_times
from benchmarks.report import versions
from tests.network.support import Lab, Namespace, Process, until
from tests.network.support.gateway import Gateway, Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.software_peer import echo_request
from tests.unit.crowd import address, egress, handshake, ingress
from tests.unit.tunnel.support import START, Chosen, datagram, ip_packet, key, packed
from wghsm.tunnel.engine import COMPILED, PURE

__all__ = [
    "PEERS_BEGIN",
    "PEERS_END",
    "Crowd",
    "Figure",
    "figures_of",
    "measure_peers",
    "names",
    "page",
    "peers_results",
]

PEERS_BEGIN, PEERS_END = "<!-- peers: begin -->", "<!-- peers: end -->"

_SOURCES = "10.66.0.0/16"
_INNER = "10.8.0.1"
_ROLES = ("supervisor", "custodian", "handshake", "egress", "ingress", "control")
_OPERATIONS = 2_000
_REPEATS = 7
_MIB = 1024.0


@dataclass(frozen=True)
class Crowd:
    """How many peers: few, many, and how many of the many are active."""

    few: int = 10
    many: int = 10_000
    active: int = 1_000


@dataclass(frozen=True)
class Figure:
    """One number with its unit, and the limit it is to stay under."""

    value: float
    unit: str
    limit: float | None = None


def names() -> set[str]:
    """Every figure's name."""
    both = [f"{what}.{size}" for what in ("start", "memory", "show", "status") for size in ("few", "many")]
    each = [f"memory.peer.{role}" for role in _ROLES]
    more = ["reload.many", "memory.reloaded", "memory.active", "cpu.active"]
    return {*both, *each, *more, *(f"operation.{name}" for name in _OPERATION)}


def measure_peers(lab: Lab, rounds: int, seconds: float, crowd: Crowd, say: Callable[[str], None]) -> dict[str, Figure]:
    """All figures; `seconds` is how long the CPU time of the active peers is watched."""
    near, far = lab.namespace("gateway"), lab.namespace("peers")
    link = lab.connect(near, far)
    far.run("ip", "route", "add", "local", _SOURCES, "dev", "lo")
    near.run("ip", "route", "add", _SOURCES, "via", link.right.ipv4)
    script = Path(__file__).with_name("_generator.py")
    generator = lab.add(far.start_python(script, "0", str(crowd.active), folder=lab.scratch, label="generator"))
    keys: list[str] = json.loads(generator.next_line(120))
    token = lab.add(GatewayToken())
    token.generate("gateway")
    few = _Subject(lab, near, token, crowd.few, keys)
    many = _Subject(lab, near, token, crowd.many, keys)
    for number in range(rounds):
        for subject in (few, many) if number % 2 == 0 else (many, few):
            # One at a time: what two gateways share would count half for each.
            subject.start()
            subject.gateway.stop()
        say(f"start {number + 1} of {rounds}: {few.starts[-1]:.2f} s / {many.starts[-1]:.2f} s")
    found = {
        "start.few": Figure(median(few.starts), "s", 2),
        "start.many": Figure(median(many.starts), "s", 10),
        "memory.few": Figure(sum(few.memory.values()), "MiB", 200),
        "memory.many": Figure(sum(many.memory.values()), "MiB", 400),
    }
    for role in _ROLES:
        more = (many.memory[role] - few.memory[role]) * _MIB
        found[f"memory.peer.{role}"] = Figure(max(0.0, more) / (crowd.many - crowd.few), "KiB")
    for name, subject in (("few", few), ("many", many)):
        subject.start()
        show, status = subject.listings(rounds)
        if subject is few:
            few.gateway.stop()
        found |= {f"show.{name}": Figure(show, "s"), f"status.{name}": Figure(status, "s")}
        say(f"{name} peers: wg show {show:.2f} s, wghsm status --json {status:.2f} s")
    found["reload.many"] = Figure(many.reload(rounds), "s")
    found["memory.reloaded"] = Figure(sum(many.pss().values()), "MiB", 400)
    say(f"reload {found['reload.many'].value:.2f} s, {found['memory.reloaded'].value:.0f} MiB afterwards")
    many.shake_hands(generator, link.left.ipv4, crowd.active)
    used = many.traffic(generator, link.left.ipv4, crowd.active, seconds)
    found["memory.active"] = Figure(sum(many.pss().values()), "MiB", 400)
    found["cpu.active"] = Figure(used * 100, "% of a core")
    say(f"{crowd.active} active: {found['memory.active'].value:.0f} MiB, {used * 100:.1f} % of a core")
    many.gateway.stop()
    return found | {f"operation.{name}": figure for name, figure in _operations(crowd).items()}


class _Subject:
    """A gateway with so many peers; the first of them are the generator's."""

    def __init__(self, lab: Lab, near: Namespace, token: GatewayToken, count: int, keys: Sequence[str]) -> None:
        self.starts: list[float] = []
        self.memory: Mapping[str, float] = {}
        chance = random.Random(count)
        known = itertools.chain(keys, (base64.b64encode(chance.randbytes(32)).decode() for _ in itertools.count()))
        peers = [
            Peer(f"peer-{number}", public, [f"{address(number)}/32", f"fd08::{number:x}/128"])
            for number, public in enumerate(itertools.islice(known, count))
        ]
        self.gateway = lab.add(Gateway(near, lab.scratch, token, peers, [f"{_INNER}/24"]))
        self._key = token.public_key("gateway")

    def start(self) -> None:
        """Start it, and wait for the line that says that it serves."""
        began = time.monotonic()
        process = self.gateway.begin()
        until(lambda: _said(process), "the gateway serves", limit=120, pause=0.005)
        self.starts.append(time.monotonic() - began)
        until(self.gateway.serves, "the gateway is ready", limit=60)
        self.memory = self.pss()

    def pss(self) -> dict[str, float]:
        """Proportional set size of each process in MiB."""
        pids = {"supervisor": self.gateway.pid, **self.gateway.pids()}
        found = {role: re.search(r"^Pss:\s+(\d+)", _rollup(pid), re.M) for role, pid in pids.items()}
        return {role: int(match[1]) / _MIB for role, match in found.items() if match}

    def listings(self, rounds: int) -> tuple[float, float]:
        """Seconds of `wg show NAME dump` and of `wghsm status NAME --json`."""
        name, space = self.gateway.name, self.gateway.namespace
        show = median(_timed(lambda: space.run("wg", "show", name, "dump")) for _ in range(rounds))
        return show, median(_timed(lambda: self.gateway.command("status", name, "--json")) for _ in range(rounds))

    def reload(self, rounds: int) -> float:
        """Seconds of `wghsm reload` where one peer has changed."""
        took = []
        for number in range(rounds):
            last = self.gateway.peers[-1]
            changed = Peer(last.name, last.public_key, [f"172.16.{number}.0/24"])
            self.gateway.peers = [*self.gateway.peers[:-1], changed]
            self.gateway.write()
            took.append(_timed(lambda: self.gateway.command("reload", self.gateway.name)))
        return median(took)

    def shake_hands(self, generator: Process, host: str, count: int) -> None:
        """A handshake and a keepalive of each of the first `count` peers."""
        aim = {"gateway": self._key, "address": host, "port": self.gateway.listen_port}

        def active() -> bool:
            for order in (
                {"do": "prepare", "count": count, "follow": 1, **aim},
                {"do": "run", "seconds": 120, "window": 24, **aim},
            ):
                generator.tell(json.dumps(order))
                generator.next_line(300)
            return sum(peer.latest_handshake is not None for peer in self.gateway.status().peers) >= count

        # One that is lost comes again with all others.
        until(active, f"{count} peers are active", limit=600)

    def traffic(self, generator: Process, host: str, count: int, seconds: float) -> float:
        """CPU time, in seconds for each, while the first `count` peers ask for an echo once a second."""
        order = {
            "do": "traffic",
            "packets": [echo_request(address(peer), _INNER, bytes(56)).hex() for peer in range(count)],
            "gateway": self._key,
            "address": host,
            "port": self.gateway.listen_port,
            "seconds": seconds,
        }
        before, began = cpu_times(self.gateway.pid), time.monotonic()
        generator.tell(json.dumps(order))
        answer = json.loads(generator.next_line(300))
        used = cpu_between(before, cpu_times(self.gateway.pid)) / (time.monotonic() - began)
        if answer["answered"] < 0.9 * answer["asked"]:
            raise RuntimeError(f"of {answer['asked']} packets only {answer['answered']} were answered")
        return used


def _said(process: Process) -> bool:
    if process.returncode is not None:
        raise RuntimeError(f"the gateway ended: {process.stderr()[-2000:]}")
    return "the gateway serves" in process.stderr()


def _rollup(pid: int) -> str:
    return Path(f"/proc/{pid}/smaps_rollup").read_text()


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


# Single operations, with few and with many peers in turn.


def _some(peers: int) -> list[int]:
    """So many of the peers as there are operations, in an order that no cache likes."""
    return random.Random(peers).choices(range(peers), k=_OPERATIONS)


def _look_up(peers: int) -> Iterator[int]:
    """Lookups in the allowed IPs."""
    routes = egress(peers).sender.routes
    asked = [packed(address(peer)) for peer in _some(peers)]
    while True:
        for each in asked:
            routes.lookup(each)
        yield len(asked)


def _send(peers: int) -> Iterator[int]:
    """Packets from the TUN, each for another peer: looked up, sealed, sent."""
    made = egress(peers)
    packets = [ip_packet("10.0.0.1", address(peer), bytes(100)) for peer in _some(peers)]
    while True:
        for packet in packets:
            made.sender.read(packet, START)
        made.take()
        made.batches.clear()
        made.take_told()
        yield len(packets)


def _receive(peers: int) -> Iterator[int]:
    """Datagrams from the network, each of another peer: found by index, opened, its source looked up."""
    made = ingress(peers)
    for turn in itertools.count():
        datagrams = [
            datagram(key(peer + 1), 1001 + peer, turn * _OPERATIONS + number, ip_packet(address(peer), "10.0.0.1"))
            for number, peer in enumerate(_some(peers))
        ]
        # The making of them is not to be measured.
        yield 0
        for data in datagrams:
            made.open(data, START)
        made.take_told()
        yield len(datagrams)


def _tick(peers: int) -> Iterator[int]:
    """Timers that are due, one after the other, each of another peer."""
    bench = handshake(peers)
    while True:
        done = 0
        while done < _OPERATIONS:
            due = bench.core.next_deadline()
            if due is None:
                raise RuntimeError("no timer is armed")
            bench.now = due
            done += len(bench.core.expire(due))
        yield done


_OPERATION: dict[str, Callable[[int], Iterator[int]]] = {
    "lookup": _look_up,
    "egress": _send,
    "ingress": _receive,
    "timer": _tick,
}


def _operations(crowd: Crowd) -> dict[str, Figure]:
    """CPU time of each operation with many peers as a multiple of that with few."""
    Chosen.engine = COMPILED or PURE
    found = {}
    for name, make in _OPERATION.items():
        pair = [make(crowd.few), make(crowd.many)]
        spent: list[list[float]] = [[], []]
        for _ in range(_REPEATS):
            for work, times in zip(pair, spent, strict=True):
                done = 0
                while not done:
                    began = time.thread_time_ns()
                    done = next(work)
                times.append((time.thread_time_ns() - began) / done)
        found[name] = Figure(min(spent[1]) / min(spent[0]), f"times {min(spent[0]) / 1000:.2f} us")
    return found


# What a run leaves.


def peers_results(found: Mapping[str, Figure], crowd: Crowd, rounds: int) -> dict[str, object]:
    """The part of results.json."""
    return {
        "conditions": {"few": crowd.few, "many": crowd.many, "active": crowd.active, "rounds": rounds},
        "figures": {
            name: {
                "value": round(figure.value, 3),
                "unit": "times" if name.startswith("operation.") else figure.unit,
                **({} if figure.limit is None else {"limit": figure.limit}),
            }
            for name, figure in found.items()
        },
    }


def figures_of(found: Mapping[str, Figure]) -> str:
    """The table for standard output."""
    return "\n".join(
        f"{name:24} {figure.value:10.3g} {figure.unit}" + (f" (limit {figure.limit:g})" if figure.limit else "")
        for name, figure in found.items()
    )


def page(found: Mapping[str, Figure], crowd: Crowd, rounds: int) -> Iterator[str]:
    """The lines of the table in docs/benchmarks.md."""
    known = versions()
    yield (
        f"wghsm {known['wghsm']} on Python {known['python']} with SoftHSM {known['softhsm']}; "
        f"{crowd.few:,} and {crowd.many:,} peers with two prefixes each; {rounds} rounds."
    )
    yield ""
    yield f"| | {crowd.few:,} peers | {crowd.many:,} peers |"
    yield "|---|---|---|"
    yield _row("from the start until it serves", found, "start.few", "start.many")
    yield _row("memory, PSS of all processes", found, "memory.few", "memory.many")
    yield _row("after reloads", found, "", "memory.reloaded")
    yield _row(f"with {crowd.active:,} active peers", found, "", "memory.active")
    yield _row(f"CPU time while {crowd.active:,} peers get an echo each second", found, "", "cpu.active")
    yield _row("`wg show`", found, "show.few", "show.many")
    yield _row("`wghsm status --json`", found, "status.few", "status.many")
    yield _row("`wghsm reload`, one peer changed", found, "", "reload.many")
    for role in _ROLES:
        yield _row(f"memory for a peer, {role}", found, "", f"memory.peer.{role}")
    for name, words in _OPERATION_WORDS.items():
        yield f"| CPU time: {words} | 1 | {found[f'operation.{name}'].value:.2f} |"


_OPERATION_WORDS = {
    "lookup": "a lookup in the allowed IPs",
    "egress": "a packet to a peer",
    "ingress": "a packet from a peer",
    "timer": "a timer that is due",
}


def _row(words: str, found: Mapping[str, Figure], few: str, many: str) -> str:
    cells = []
    for name in (few, many):
        figure = found.get(name)
        if figure is None:
            cells.append("")
            continue
        limit = "" if figure.limit is None else f" (limit {figure.limit:g})"
        cells.append(f"{figure.value:.3g} {figure.unit}{limit}")
    return f"| {words} | {' | '.join(cells)} |"
