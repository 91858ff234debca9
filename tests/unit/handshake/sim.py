"""A simulated network: whole gateways in one thread on a virtual clock, with the real machines of every process.

    Gateway A: custodian, handshake, egress, ingress <-- Pipe: in order, each with its own delays --> each other
        |  datagrams: lost, repeated, delayed, so reordered
    Gateway B

The machines (`processes`) are HandshakeCore, the custodian's Core over a key in memory, Sender and Receiver; only
sockets, loop and token are simulated (`world`). Every gateway watches its own promises (`Watch`) while it runs. All
chance comes from one seed.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections import Counter as Tally
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from wghsm.ipc import (
    Counter,
    Role,
    StatsFile,
    all_seats,
    create_stats,
    role_of,
    seat_of,
    worker_bits,
    worker_of,
    worker_of_peer,
)
from wghsm.ipc import messages as m
from wghsm.noise import SoftwareCustody

from .processes import CustodianProcess, EgressProcess, HandshakeProcess, IngressProcess
from .world import MILLISECOND, SECOND, Conditions, Pipe, Process, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wghsm.handshake import Limits, SendDatagram, Times
    from wghsm.ipc import Seat
    from wghsm.tunnel.sender import SendPeer

EPOCH = 1_760_000_000 * SECOND
RETIRED_WITHIN = 5 * SECOND
"""How long sessions of a retired key may be seen at most: the custodian starts anew first, others may, too."""
PEER = 0
"""Slot of the only peer of each gateway, unless a test adds more."""

CHILDREN = (Role.CUSTODIAN, Role.HANDSHAKE, Role.EGRESS, Role.INGRESS)
PAIRS = (
    (Role.HANDSHAKE, Role.CUSTODIAN),
    (Role.CUSTODIAN, Role.EGRESS),
    (Role.CUSTODIAN, Role.INGRESS),
    (Role.HANDSHAKE, Role.EGRESS),
    (Role.HANDSHAKE, Role.INGRESS),
    (Role.INGRESS, Role.EGRESS),
)

_PROCESSES: dict[Role, type[CustodianProcess | HandshakeProcess | EgressProcess | IngressProcess]] = {
    Role.CUSTODIAN: CustodianProcess,
    Role.HANDSHAKE: HandshakeProcess,
    Role.EGRESS: EgressProcess,
    Role.INGRESS: IngressProcess,
}


@dataclass
class Remote:
    """A peer as a gateway is configured with it."""

    public: bytes
    inner: str
    endpoint: m.Endpoint | None
    keepalive: int = 0


@dataclass
class Watch:
    """What must hold at every moment."""

    gateway: Gateway
    nonces: set[tuple[bytes, bytes]] = field(default_factory=set)
    activations: dict[int, set[Seat]] = field(default_factory=dict)
    current: dict[tuple[int, int], int] = field(default_factory=dict)
    senders: dict[int, SendPeer] = field(default_factory=dict)
    """What egress knows of each peer that it has sent to."""
    sent: Tally[int] = field(default_factory=Tally)
    last_sent: dict[int, int] = field(default_factory=dict)
    made_with: dict[int, bytes] = field(default_factory=dict)
    retired: dict[bytes, int] = field(default_factory=dict)

    def handshake_leaves(self, process: HandshakeProcess, effect: SendDatagram) -> None:
        kind = effect.data[0]
        self.sent[kind] += 1
        now = self.gateway.world.now
        if kind == 1 and effect.peer is not None:
            last = self.last_sent.get(effect.peer)
            assert last is None or now - last >= 5 * SECOND, "two handshake messages within REKEY_TIMEOUT"
        if kind in (1, 2) and effect.peer is not None:
            self.last_sent[effect.peer] = now
        if kind == 2:
            worker = worker_of_peer(effect.peer or 0, self.gateway.workers)
            ingress = self.gateway.by_pipe(process.pipes[seat_of(Role.INGRESS, worker)], Role.INGRESS)
            assert isinstance(ingress, IngressProcess)
            index = int.from_bytes(effect.data[4:8], "little")
            assert index in ingress.installed, "message 2 before ingress had the session"

    def is_served(self, session: int) -> None:
        """A session is in use: its identity was not retired long ago."""
        retired = self.retired.get(self.made_with[session])
        assert retired is None or self.gateway.world.now - retired < RETIRED_WITHIN, "a retired key is still in use"

    def activated(self, sender: Seat, message: m.Activate) -> None:
        self.activations.setdefault(message.session, set()).add(sender)

    def data_leaves(self, egress: EgressProcess, peer: SendPeer, datagrams: list[bytes]) -> None:
        session = peer.slots.current
        assert session is not None
        self.is_served(session.number)
        # The responder sends only after its ingress has received on the session; the initiator after its order.
        assert egress.owns(peer.number), "another worker's peer"
        by = Role.HANDSHAKE if session.initiator else seat_of(Role.INGRESS, egress.worker)
        assert by in self.activations[session.number], "data on an unconfirmed session"
        self.senders[peer.number] = peer
        key = (id(egress), peer.number)
        assert session.number >= self.current.get(key, 0), "an older session took over again"
        self.current[key] = session.number
        for datagram in datagrams:
            nonce = (datagram[4:8], datagram[8:16])
            assert nonce not in self.nonces, "a counter was used twice"
            self.nonces.add(nonce)
            self.sent[4] += 1


class Gateway:
    """One gateway with its four children, as its supervisor sees it."""

    def __init__(
        self,
        world: World,
        name: str,
        host: str,
        inner: str,
        times: Times | None = None,
        limits: Limits | None = None,
        workers: int = 1,
    ) -> None:
        self.world = world
        self.workers = workers
        self.name = name
        self.address = (host, 51820)
        self.inner = inner
        self.privates = [world.random.randbytes(32)]
        """The keys in the token that are served, the current one first."""
        self.times = times
        self.limits = limits
        self.token_sessions: int | None = None
        """How many operations the token does at once, each as long as the conditions say; None: any number."""
        self.token_backlog = 0
        """How long an operation had to wait and take at most."""
        self.peers: dict[int, Remote] = {}
        self.known_endpoints: dict[int, m.Endpoint] = {}
        self.greatest: dict[bytes, bytes] = {}
        self.confirmed: dict[bytes, bytes] = {}
        self.last_own: int | None = None
        self.custodian_counts: list[Counter] = []
        self.received: list[int] = []
        self.sent: list[int] = []
        self.watch = Watch(self)
        fd = create_stats()
        self.stats = StatsFile(fd, Role.HANDSHAKE)
        os.close(fd)
        self._incarnations = itertools.count(1)
        self._processes: dict[Seat, Process] = {}
        self._told: dict[Seat, int] = {}
        world.gateways[name] = self

    @property
    def public(self) -> bytes:
        """The current public key."""
        return self.publics[0]

    @property
    def publics(self) -> tuple[bytes, ...]:
        """All public keys that are served, the current one first."""
        return tuple(SoftwareCustody(private).public_key for private in self.privates)

    def rotate(self, away: int = 300 * MILLISECOND) -> None:
        """Make a new key, and go on serving the one before it: the custodian starts with other settings."""
        self.privates = [self.world.random.randbytes(32), self.privates[0]]
        self.kill(Role.CUSTODIAN, away)

    def retire(self, away: int = 300 * MILLISECOND) -> None:
        """Serve the current key only from now on."""
        for gone in self.publics[1:]:
            self.watch.retired[gone] = self.world.now
        del self.privates[1:]
        self.kill(Role.CUSTODIAN, away)

    def learn(self, public: bytes, number: int = PEER) -> None:
        """The operator gives a peer another public key: to all processes that is another peer in its slot."""
        self.peers[number].public = public
        for role in (Role.EGRESS, Role.INGRESS, Role.CUSTODIAN, Role.HANDSHAKE):
            for seat in all_seats(role, self.workers):
                if self._processes[seat].alive:
                    self._processes[seat].replace(number)

    def unix(self) -> int:
        return EPOCH + self.world.now

    def add_peer(self, other: Gateway, *, endpoint: bool = True, keepalive: int = 0) -> None:
        where = m.Endpoint(other.address[0], other.address[1]) if endpoint else None
        self.peers[len(self.peers)] = Remote(other.public, other.inner, where, keepalive)

    def start(self) -> None:
        for role in CHILDREN:
            for seat in all_seats(role, self.workers):
                self._spawn(seat)
        for pair in self._pairs():
            self._connect(pair)

    def kill(self, seat: Seat, away: int = 300 * MILLISECOND) -> None:
        """A child dies; its successor is there `away` later, at most one second more."""
        if self._processes[seat].alive:
            self._processes[seat].die()
            self.world.after(away, lambda: self._restart(seat))

    def process(self, seat: Seat) -> Process:
        return self._processes[seat]

    @property
    def handshake(self) -> HandshakeProcess:
        process = self._processes[Role.HANDSHAKE]
        assert isinstance(process, HandshakeProcess)
        return process

    def ingress_of(self, worker: int) -> IngressProcess:
        process = self._processes[seat_of(Role.INGRESS, worker)]
        assert isinstance(process, IngressProcess)
        return process

    def egress_of(self, peer: int) -> EgressProcess:
        """The egress of the worker that owns a peer."""
        process = self._processes[seat_of(Role.EGRESS, worker_of_peer(peer, self.workers))]
        assert isinstance(process, EgressProcess)
        return process

    @property
    def ingress(self) -> IngressProcess:
        return self.ingress_of(0)

    @property
    def egress(self) -> EgressProcess:
        return self.egress_of(0)

    def by_pipe(self, pipe: Pipe, role: Role) -> Process:
        """The process of `role` at an end of `pipe`, dead or alive."""
        first, second = pipe.ends
        return first if first.role is role else second

    def arrive(self, source: tuple[str, int], data: bytes) -> None:
        """What the kernel does for the sockets of several workers: types 2 to 4 go by their receiver index."""
        worker = self.world.random.randrange(self.workers) if self.workers > 1 else 0
        if data[0] != 1 and self.workers > 1:
            worker = data[8 if data[0] == 2 else 4] & worker_bits(self.workers)
        self.ingress_of(worker).arrive(source, data)

    def ping(self, number: int, peer: int = PEER) -> None:
        """Send a numbered packet to the peer."""
        self.sent.append(number)
        target = self.peers[peer].inner
        packet = struct.pack(
            ">BBHHHBBH4s4sQ", 0x45, 0, 28, 0, 0, 64, 17, 0, IPv4Address(self.inner).packed,
            IPv4Address(target).packed, number,
        )  # fmt: skip
        # Most often steered to its worker, and now and then not.
        stray = self.workers > 1 and self.world.random.random() < 0.1
        self.egress_of(self.world.random.randrange(self.workers) if stray else peer).read(packet)

    def tun(self, packet: bytes) -> None:
        self.received.append(int.from_bytes(packet[20:28], "big"))

    def counters(self) -> dict[Counter, int]:
        return self.stats.counters(Role.HANDSHAKE)

    def close(self) -> None:
        self.stats.close()

    def _pairs(self) -> list[tuple[Seat, Seat]]:
        return [
            (first, second)
            for one, other in PAIRS
            for first in all_seats(one, self.workers)
            for second in all_seats(other, self.workers)
            if (one, other) != (Role.INGRESS, Role.EGRESS) or worker_of(first) == worker_of(second)
        ]

    def _spawn(self, seat: Seat) -> None:
        process = _PROCESSES[role_of(seat)](self, next(self._incarnations), worker_of(seat))
        self._processes[seat] = process
        process.configure()

    def _connect(self, pair: tuple[Seat, Seat]) -> None:
        ends = (self._processes[pair[0]], self._processes[pair[1]])
        if not ends[0].alive or not ends[1].alive:
            return
        pipe = Pipe(self.world, ends)
        for end, other in ((ends[0], ends[1].seat), (ends[1], ends[0].seat)):
            self._hand_over(end, other, pipe)

    def _hand_over(self, end: Process, other: Seat, pipe: Pipe) -> None:
        # The supervisor's own channel to each child is in order, too.
        delay = self.world.upto(self.world.conditions.channel_delay)
        when = self._told[end.seat] = max(self._told.get(end.seat, 0), self.world.now + delay)
        self.world.at(when, lambda: end.attach(other, pipe))

    def _restart(self, seat: Seat) -> None:
        self._spawn(seat)
        for pair in self._pairs():
            if seat in pair:
                self._connect(pair)


class Traffic:
    """Numbered packets from one gateway to another, one in each `interval`, from when on it is started.

    `slot` is the target's at the source; numbers begin with `first`, so that those of several do not mix.
    """

    def __init__(self, source: Gateway, target: Gateway, interval: int, *, slot: int = PEER, first: int = 0) -> None:
        self.source = source
        self.target = target
        self.sent: list[int] = []
        self._interval = interval
        self._slot = slot
        self._next = itertools.count(first)
        self._running = False

    def start(self) -> Traffic:
        self._running = True
        self._tick()
        return self

    def stop(self) -> None:
        self._running = False

    def missing(self) -> set[int]:
        """Numbers that were sent and never came."""
        return set(self.sent) - set(self.target.received)

    def flows(self, mark: int = 0) -> bool:
        """Whether one of the packets from the one with index `mark` on has come."""
        return not set(self.sent[mark:]).isdisjoint(self.target.received[-1000:])

    def _tick(self) -> None:
        if self._running:
            number = next(self._next)
            self.sent.append(number)
            self.source.ping(number, self._slot)
            self.source.world.after(self._interval, self._tick)


@contextmanager
def two_gateways(
    seed: int,
    conditions: Conditions | None = None,
    *,
    times: Times | None = None,
    limits: Limits | None = None,
    keepalive: int = 0,
    one_sided: bool = False,
) -> Iterator[tuple[World, Gateway, Gateway]]:
    """Two gateways that are each other's peer, started; with `one_sided` only the first knows where the other is."""
    world = World(seed, conditions)
    first = Gateway(world, "first", "192.0.2.1", "10.0.0.1", times, limits)
    second = Gateway(world, "second", "192.0.2.2", "10.0.0.2", times, limits)
    first.add_peer(second, keepalive=keepalive)
    second.add_peer(first, endpoint=not one_sided)
    try:
        first.start()
        second.start()
        world.run(SECOND)
        yield world, first, second
    finally:
        first.close()
        second.close()


@contextmanager
def star(
    seed: int,
    spokes: int,
    conditions: Conditions | None = None,
    *,
    workers: int = 1,
    limits: Limits | None = None,
    times: Times | None = None,
) -> Iterator[tuple[World, Gateway, list[Gateway]]]:
    """A gateway in the middle, whose slot N is the spoke number N, started; every one has it as its only peer."""
    world = World(seed, conditions)
    hub = Gateway(world, "hub", "192.0.2.1", "10.0.0.1", times, limits, workers)
    around = [
        Gateway(world, f"spoke {number}", f"192.0.2.{2 + number}", f"10.0.0.{2 + number}") for number in range(spokes)
    ]
    for spoke in around:
        hub.add_peer(spoke)
        spoke.add_peer(hub)
    try:
        for gateway in (hub, *around):
            gateway.start()
        world.run(SECOND)
        yield world, hub, around
    finally:
        for gateway in (hub, *around):
            gateway.close()
