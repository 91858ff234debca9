"""A soak: traffic for as long as one likes, with re-keys, roaming, loss and reordering, and an account at the end.

    clients   one dials, one is dialled; each behind a relay that loses, doubles and reorders packets
    streams   numbered packets both ways with each client, at an even rate
    roaming   every few seconds a relay moves to another port
    account   each stream has lost no more than its relay has dropped; memory and descriptors have not grown

`script/soak` runs it by the clock; a short one is among the tests. With `real_times` the protocol's own constants
hold, else those of support/short_times.py, which re-key every eight seconds where the gateway is the initiator. A stock
client that dials does not know them, and makes no new session before the gateway lets the old one go. What it sends on
that is counted as given up, and so is what the gateway cannot let wait for it where the new handshake is lost.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.network.support import Lab, Relay, Rules, UdpStream, exit_on_signals, ping_until
from tests.network.support.gateway import Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.memory import pss_of
from tests.network.support.site import CLIENT_PORT, PSK_ROOT, Client, Site

__all__ = ["Account", "Sample", "soak"]

RULES = Rules(loss=0.01, duplicate=0.005, reorder=0.01, hold=0.05, delay=0.005, jitter=0.005)
RATE = 100
"""Packets a second of each stream."""

ROAM_EVERY = 5.0
SAMPLE_EVERY = 5.0

_TOO_LATE = ("expired-session", "unknown-index")
_TOO_MANY = ("staged-overflow",)
"""What the gateway counts of a stream when a session is over: from the client, and to it."""

LEAK = 6 << 20
"""Bytes that a process may take on after its first third: SoftHSM loses some 370 with each derive."""


@dataclass(frozen=True)
class Sample:
    """One look at the gateway's processes, by role: memory in bytes (PSS), open descriptors."""

    memory: dict[str, int]
    descriptors: dict[str, int]


@dataclass(frozen=True)
class Stream:
    """One stream at its end: packets that came, packets that are missing, and those that its relay dropped.

    `given_up` is what the gateway counted as refused or as dropped, because a session was over and a new one not there.
    """

    name: str
    received: int
    lost: int
    dropped: int
    given_up: int


@dataclass(frozen=True)
class Account:
    """The whole run."""

    seconds: float
    handshakes: int
    moves: int
    streams: tuple[Stream, ...]
    samples: tuple[Sample, ...]
    restarts: int

    def faults(self) -> list[str]:
        """What does not hold, in words."""
        found = [
            f"{one.name} lost {one.lost}, its relay {one.dropped}"
            for one in self.streams
            if one.lost > one.dropped + one.given_up
        ]
        found += [f"{role} has grown by {size >> 10} KiB" for role, size in self.growth().items() if size > LEAK]
        first, last = self.samples[len(self.samples) // 3], self.samples[-1]
        found += [
            f"{role} has {last.descriptors[role]} descriptors after {count}"
            for role, count in first.descriptors.items()
            if last.descriptors[role] > count
        ]
        return found + ([f"{self.restarts} restarts"] if self.restarts else [])

    def growth(self) -> dict[str, int]:
        """Bytes that each process has taken on from the first third of the run to its last look."""
        first, last = self.samples[len(self.samples) // 3], self.samples[-1]
        return {role: last.memory[role] - memory for role, memory in first.memory.items()}


@dataclass
class _Way:
    """One client with its relay and its streams."""

    client: Client
    relay: Relay
    up: UdpStream
    down: UdpStream


def soak(
    lab: Lab,
    token: GatewayToken,
    seconds: float,
    *,
    real_times: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Account:
    """Run for `seconds` and give the account."""
    site = Site(lab, token, short_times=not real_times)
    ways = _start(lab, site)
    started = roamed = sampled = time.monotonic()
    samples = [_sample(site)]
    moves = 0
    while (now := time.monotonic()) < started + seconds:
        if now >= roamed + ROAM_EVERY:
            ways[moves % len(ways)].relay.roam()
            moves, roamed = moves + 1, now
        if now >= sampled + SAMPLE_EVERY:
            samples.append(_sample(site))
            sampled = now
            total = sum(samples[-1].memory.values()) >> 20
            say(f"{now - started:5.0f} s: {_handshakes(site)} handshakes, {moves} moves, {total} MiB")
        time.sleep(0.2)
    samples.append(_sample(site))
    streams = [stream for way in ways for stream in _finish(site, way, real_times=real_times)]
    restarts = sum(process.restarts for process in site.gateway.status().processes)
    return Account(time.monotonic() - started, _handshakes(site), moves, tuple(streams), tuple(samples), restarts)


def _start(lab: Lab, site: Site) -> list[_Way]:
    ways: list[tuple[Client, Relay]] = []
    for name, dials in (("dials", True), ("dialled", False)):
        middle, outside = lab.namespace("middle"), site.client(name, "derived", dials=dials)
        inner = lab.connect(outside.namespace, middle)
        outer = lab.connect(middle, site.namespace)
        near, far, target = (inner.right, outer.left, outer.right.endpoint(4, site.gateway.listen_port))
        if not dials:
            near, far, target = (outer.left, inner.right, inner.left.endpoint(4, CLIENT_PORT))
        ways.append((outside, lab.relay(near, far, target)))
    site.gateway.peers = [
        client.entry() if client.dials else _at(client, relay.left_endpoint) for client, relay in ways
    ]
    site.gateway.write()
    site.start()
    made = []
    for client, relay in ways:
        client.start(relay.left_endpoint if client.dials else None)
        first, address = (client.namespace, site.inner4) if client.dials else (site.namespace, client.ipv4)
        ping_until(first, address)
        relay.rule(rules=RULES)
        up = lab.add(UdpStream(client.namespace, site.namespace, site.inner4, lab.scratch, RATE))
        down = lab.add(UdpStream(site.namespace, client.namespace, client.ipv6, lab.scratch, RATE))
        made.append(_Way(client, relay, up, down))
    return made


def _at(client: Client, endpoint: str) -> Peer:
    return dataclasses.replace(client.entry(), endpoint=endpoint)


def _sample(site: Site) -> Sample:
    pids = site.gateway.pids()
    return Sample(
        {role: pss_of(pid) for role, pid in pids.items()},
        {role: len(list(Path(f"/proc/{pid}/fd").iterdir())) for role, pid in pids.items()},
    )


def _handshakes(site: Site) -> int:
    return site.gateway.counter("handshake-complete")


def _finish(site: Site, way: _Way, *, real_times: bool) -> Iterator[Stream]:
    # The network is good again before the end, so that the last packets need no later one to be missed.
    way.relay.rule()
    right, left = (way.up, way.down) if way.client.dials else (way.down, way.up)
    for stream in (right, left):
        report = stream.finish()
        dropped = way.relay.counts("to_right" if stream is right else "to_left").dropped
        reasons = _TOO_LATE if stream is way.up else _TOO_MANY
        given_up = sum(map(site.gateway.counter, reasons)) if way.client.dials and not real_times else 0
        name = f"{way.client.name}, {'from' if stream is way.up else 'to'} it"
        yield Stream(name, report.received, len(report.lost), dropped, given_up)


def main() -> int:
    """Run by the clock and print the account; 0 if it holds."""
    parser = argparse.ArgumentParser(prog="script/soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--real-times", action="store_true", help="the protocol's own constants, not short ones")
    options = parser.parse_args()
    with exit_on_signals(), GatewayToken() as token, Lab() as lab:
        token.generate("gateway")
        token.derive_root(PSK_ROOT)
        account = soak(lab, token, options.minutes * 60, real_times=options.real_times, say=print)
    for stream in account.streams:
        print(
            f"{stream.name}: {stream.received} came, {stream.lost} missing, "
            f"{stream.dropped} dropped by the relay, {stream.given_up} given up by the gateway"
        )
    for role, growth in account.growth().items():
        print(f"{role}: {growth / 1024:+.0f} KiB, {account.samples[-1].descriptors[role]} descriptors")
    faults = account.faults()
    print(f"{account.seconds:.0f} s, {account.handshakes} handshakes, {account.moves} moves: {faults or 'all holds'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
