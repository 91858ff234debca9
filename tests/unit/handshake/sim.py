"""A simulated network: whole gateways in one thread on a virtual clock, with the real machines of every process.

    Gateway A: custodian, handshake, egress, ingress <-- Pipe: in order, each with its own delays --> each other
        |  datagrams: lost, repeated, delayed, so reordered
    Gateway B

The machines are HandshakeCore, the custodian's Core over a key in memory, Sender and Receiver; only sockets, loop and
token are simulated. Every gateway watches its own promises (`Watch`) while it runs. All chance comes from one seed.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import struct
from collections import Counter as Tally
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from wghsm.custodian.core import Core as CustodianCore
from wghsm.custodian.effects import (
    Answer,
    Effect,
    Install,
    Remember,
    RememberIdentity,
    RememberOwn,
    ShowIdentity,
    ShowPsk,
    Submit,
)
from wghsm.custodian.rules import Rules
from wghsm.handshake import Effect as HandshakeEffect
from wghsm.handshake import HandshakeCore, Limits, SendDatagram, Tell, Times
from wghsm.ipc import Counter, Role, StatsFile, create_stats, identity_number
from wghsm.ipc import messages as m
from wghsm.noise import SoftwareCustody
from wghsm.tunnel.receiver import Receiver
from wghsm.tunnel.sender import Sender, SendPeer
from wghsm.tunnel.virtio import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wghsm.process.endpoints import Destination
    from wghsm.tunnel.engine import Outgoing

MILLISECOND = 10**6
SECOND = 10**9
START = 1000 * SECOND
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


@dataclass
class Conditions:
    """How bad the world is: greatest delays in nanoseconds, chances from 0 to 1."""

    channel_delay: int = MILLISECOND
    token_delay: int = 20 * MILLISECOND
    link_delay: int = 20 * MILLISECOND
    link_jitter: int = 0
    loss: float = 0.0
    duplicates: float = 0.0
    repeated_installs: float = 0.0


class World:
    """The virtual clock, and the one source of chance."""

    def __init__(self, seed: int, conditions: Conditions | None = None) -> None:
        self.now = START
        self.random = random.Random(seed)
        self.conditions = conditions or Conditions()
        self.gateways: dict[str, Gateway] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def upto(self, greatest: int) -> int:
        return self.random.randint(0, greatest)

    def run(self, duration: int) -> None:
        """Let `duration` nanoseconds pass."""
        end = self.now + duration
        while self._events and self._events[0][0] <= end:
            when, _, action = heapq.heappop(self._events)
            self.now = when
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], longest: int) -> int:
        """Let time pass until `condition` holds, `longest` at most; how long it took."""
        start = self.now
        while not condition():
            assert self.now - start < longest, "it did not happen in time"
            self.run(10 * MILLISECOND)
        return self.now - start

    def transmit(self, source: tuple[str, int], target: tuple[str, int], data: bytes) -> None:
        """One datagram on the network."""
        now = self.conditions
        if self.random.random() < now.loss:
            return
        for _ in range(2 if self.random.random() < now.duplicates else 1):
            delay = now.link_delay + self.upto(now.link_jitter)
            self.after(delay, lambda: self._arrive(source, target, data))

    def _arrive(self, source: tuple[str, int], target: tuple[str, int], data: bytes) -> None:
        for gateway in self.gateways.values():
            if gateway.address == target:
                gateway.arrive(source, data)


class Pipe:
    """One channel between two processes: in order each way, any delay; what was sent before an end is there waits."""

    def __init__(self, world: World, ends: tuple[Process, Process]) -> None:
        self._world = world
        self.ends = ends
        self._last = {ends[0]: 0, ends[1]: 0}
        self._held: dict[Process, list[Callable[[], None]]] = {ends[0]: [], ends[1]: []}
        self._open: set[Process] = set()

    def send(self, sender: Process, message: m.Message) -> None:
        receiver = self.ends[1] if sender is self.ends[0] else self.ends[0]
        self._push(receiver, lambda: receiver.receive(sender.role, self, message))

    def opened(self, end: Process) -> None:
        self._open.add(end)
        held, self._held[end] = self._held[end], []
        for action in held:
            self._later(end, action)

    def close(self, end: Process) -> None:
        """`end` died: the other one sees it after what was sent before."""
        other = self.ends[1] if end is self.ends[0] else self.ends[0]
        self._push(other, lambda: other.hang_up(end.role, self))

    def _push(self, receiver: Process, action: Callable[[], None]) -> None:
        if receiver in self._open:
            self._later(receiver, action)
        else:
            self._held[receiver].append(action)

    def _later(self, receiver: Process, action: Callable[[], None]) -> None:
        when = max(self._last[receiver], self._world.now + self._world.upto(self._world.conditions.channel_delay))
        self._last[receiver] = when
        self._world.at(when, action)


class Process:
    """One process of a gateway: its channels, and whether it lives."""

    role: Role

    def __init__(self, gateway: Gateway, incarnation: int) -> None:
        self.gateway = gateway
        self.incarnation = incarnation
        self.world = gateway.world
        self.alive = True
        self.pipes: dict[Role, Pipe] = {}

    def attach(self, other: Role, pipe: Pipe) -> None:
        if self.alive:
            if other in self.pipes:
                self.lost(other)
            self.pipes[other] = pipe
            self.attached(other)
            pipe.opened(self)

    def receive(self, sender: Role, pipe: Pipe, message: m.Message) -> None:
        if self.alive and self.pipes.get(sender) is pipe:
            self.handle(sender, message)

    def hang_up(self, other: Role, pipe: Pipe) -> None:
        if self.alive and self.pipes.get(other) is pipe:
            del self.pipes[other]
            self.lost(other)

    def send(self, to: Role, message: m.Message) -> bool:
        pipe = self.pipes.get(to)
        if pipe is None:
            return False
        pipe.send(self, message)
        return True

    def die(self) -> None:
        self.alive = False
        for pipe in self.pipes.values():
            pipe.close(self)

    def replace(self, number: int, /) -> None:
        """Another peer is in this slot."""
        raise NotImplementedError

    def attached(self, other: Role) -> None:
        """A fresh channel is there."""

    def lost(self, other: Role) -> None:
        """A channel is gone."""

    def handle(self, sender: Role, message: m.Message, /) -> None:
        raise NotImplementedError


class _Vault:
    """The token: keys in memory."""

    def __init__(self, *privates: bytes) -> None:
        """The private keys that are served, the current one first."""
        self._custodies = {one.public_key: one for one in map(SoftwareCustody, privates)}

    @property
    def identities(self) -> tuple[bytes, ...]:
        return tuple(self._custodies)

    def derive(self, identity: bytes, public: bytes) -> bytearray:
        return self._custodies[identity].dh(public)

    def psk(self, identity: bytes, source: m.PskDerived | m.PskObject | m.PskWrapped, peer_public: bytes) -> bytearray:
        raise NotImplementedError


class CustodianProcess(Process):
    role = Role.CUSTODIAN

    def __init__(self, gateway: Gateway, incarnation: int) -> None:
        super().__init__(gateway, incarnation)
        rules = Rules(incarnation, gateway.greatest, gateway.last_own)
        self._vault = _Vault(*gateway.privates)
        self._core = CustodianCore(
            self._vault,
            rules,
            self._entropy,
            gateway.custodian_counts.append,
            cache_static_static=True,
            identities=gateway.confirmed,
        )

    def configure(self) -> None:
        for number in self.gateway.peers:
            self.replace(number)

    def replace(self, number: int, /) -> None:
        told = m.CustodianPeer(number, self.gateway.peers[number].public, m.PskNone())
        self._perform(self._core.update_peers(m.CustodianPeers(0, [told], []), self.world.now, self.gateway.unix()))

    def attached(self, other: Role) -> None:
        if other is Role.HANDSHAKE:
            self._core.new_handshake_process()
            self.send(Role.HANDSHAKE, m.Identity(*self._vault.identities))

    def handle(self, _sender: Role, message: m.Message, /) -> None:
        now, unix = self.world.now, self.gateway.unix()
        match message:
            case m.AcceptInitiation():
                self._perform(self._core.accept_initiation(message, now))
            case m.CreateInitiation():
                self._perform(self._core.create_initiation(message, now, unix))
            case m.ConfirmSession():
                self._perform(self._core.confirm_session(message))
            case m.AcceptResponse():
                self._perform(self._core.accept_response(message, now))

    def _entropy(self, size: int) -> bytearray:
        return bytearray(self.world.random.randbytes(size))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Submit(job):
                    landing = job()

                    def land(landing: Callable[[int], list[Effect]] = landing) -> None:
                        if self.alive:
                            self._perform(landing(self.world.now))

                    self.world.after(self.world.upto(self.world.conditions.token_delay), land)
                case Answer(message):
                    self.send(Role.HANDSHAKE, message)
                case Install():
                    self._install(effect)
                case Remember(public_key, timestamp):
                    self.gateway.greatest[public_key] = timestamp
                case RememberOwn(unix_ns):
                    self.gateway.last_own = unix_ns
                case RememberIdentity(public_key, identity):
                    self.gateway.confirmed[public_key] = identity
                case ShowIdentity() | ShowPsk():
                    pass
                case _:
                    raise AssertionError(effect)

    def _install(self, install: Install) -> None:
        self.gateway.watch.made_with[install.session] = install.identity
        again = self.world.random.random() < self.world.conditions.repeated_installs
        ready = Role.INGRESS in self.pipes and Role.EGRESS in self.pipes
        with install.keys as keys:
            for repeat in range(2 if again else 1):
                receive = m.InstallReceive(
                    install.session,
                    install.peer,
                    install.local_index,
                    install.initiator,
                    install.created,
                    bytes(keys.receive),
                    identity_number(install.identity),
                )
                send = m.InstallSend(
                    install.session,
                    install.peer,
                    install.remote_index,
                    install.initiator,
                    install.created,
                    bytes(keys.send),
                )
                if ready:
                    self._deliver(receive, send, repeat * self.world.upto(200 * MILLISECOND))
        self.send(Role.HANDSHAKE, install.answer if ready else self._core.refuse(install.request).message)

    def _deliver(self, receive: m.InstallReceive, send: m.InstallSend, wait: int) -> None:
        def deliver() -> None:
            self.send(Role.INGRESS, receive)
            self.send(Role.EGRESS, send)

        if wait:
            self.world.after(wait, deliver)
        else:
            deliver()


class HandshakeProcess(Process):
    role = Role.HANDSHAKE

    def __init__(self, gateway: Gateway, incarnation: int) -> None:
        super().__init__(gateway, incarnation)
        self.core = HandshakeCore(
            gateway.stats, self.world.random.randbytes, gateway.unix, gateway.times, gateway.limits
        )
        self._wake: int | None = None

    def configure(self) -> None:
        for number in self.gateway.peers:
            self.replace(number)
        self.perform(self.core.handle(Role.SUPERVISOR, m.LinkState(True), self.world.now))

    def replace(self, number: int, /) -> None:
        peer = self.gateway.peers[number]
        where = self.gateway.known_endpoints.get(number, peer.endpoint)
        self.order(m.HandshakePeers(1, [m.HandshakePeer(number, peer.public, where, peer.keepalive)], []))

    def attached(self, other: Role) -> None:
        self.perform(self.core.attached(other, self.world.now))

    def lost(self, other: Role) -> None:
        self.perform(self.core.detached(other, self.world.now))

    def handle(self, sender: Role, message: m.Message, /) -> None:
        self.perform(self.core.handle(sender, message, self.world.now))

    def order(self, message: m.Message) -> None:
        """The supervisor says something."""
        self.handle(Role.SUPERVISOR, message)

    def perform(self, effects: list[HandshakeEffect]) -> None:
        for effect in effects:
            match effect:
                case SendDatagram():
                    self.gateway.watch.handshake_leaves(self, effect)
                    target = (effect.endpoint.host, effect.endpoint.port)
                    self.world.transmit(self.gateway.address, target, effect.data)
                case Tell(Role.SUPERVISOR, m.EndpointMoved() as moved):
                    self.gateway.known_endpoints[moved.peer] = moved.endpoint
                case Tell(Role.SUPERVISOR, _):
                    pass
                case Tell(to, message):
                    self.send(to, message)
        self._schedule()

    def _schedule(self) -> None:
        due = self.core.next_deadline()
        if due is None or (self._wake is not None and self._wake <= due):
            return
        self._wake = due

        def wake() -> None:
            if self._wake == due and self.alive:
                self._wake = None
                self.perform(self.core.expire(self.world.now))

        self.world.at(due, wake)


class EgressProcess(Process):
    role = Role.EGRESS

    def __init__(self, gateway: Gateway, incarnation: int) -> None:
        super().__init__(gateway, incarnation)
        self.sender = Sender(gateway.stats, self._transmit, lambda message: self.send(Role.HANDSHAKE, message))
        self.sender.mtu = 1420

    def configure(self) -> None:
        for number in self.gateway.peers:
            self.replace(number)

    def replace(self, number: int, /) -> None:
        self.sender.change_peers([number], [number])
        self.sender.routes.insert(IPv4Address(self.gateway.peers[number].inner).packed, 32, number)

    def read(self, packet: bytes) -> None:
        """A packet from the TUN."""
        if self.alive:
            self.sender.read(packet, self.world.now)

    def handle(self, sender: Role, message: m.Message, /) -> None:
        now = self.world.now
        match message:
            case m.InstallSend():
                self.sender.install(message, now)
                self.world.at(message.created + 180 * SECOND, self._expire)
            case m.Activate():
                self.gateway.watch.activated(sender, message)
                self.sender.activate(message, now)
            case m.EndpointMoved():
                self.sender.move_endpoint(message, now)
            case m.SendKeepalive():
                self.sender.keepalive(message.peer, now)
            case m.PurgeStaged():
                self.sender.purge_staged(message.peer)
            case m.ForgetSessions():
                self.sender.forget_sessions(message.peer)
            case m.ForgetSource():
                self.sender.forget_source(message.peer)
            case m.AwaitSessions():
                for part in self.sender.snapshot():
                    self.send(Role.HANDSHAKE, part)
                self.sender.ask_again(now)

    def _expire(self) -> None:
        if self.alive:
            self.sender.expire(self.world.now)

    def _transmit(self, peer: SendPeer, destination: Destination, batch: Outgoing) -> int:
        datagrams = batch.datagrams()
        self.gateway.watch.data_leaves(self, peer, datagrams)
        for datagram in datagrams:
            target = (destination.endpoint.host, destination.endpoint.port)
            self.world.transmit(self.gateway.address, target, datagram)
        return sum(map(len, datagrams))


class IngressProcess(Process):
    role = Role.INGRESS

    def __init__(self, gateway: Gateway, incarnation: int) -> None:
        super().__init__(gateway, incarnation)
        self.receiver = Receiver(
            gateway.stats,
            lambda message: self.send(Role.HANDSHAKE, message),
            lambda message: self.send(Role.EGRESS, message),
            lambda message: self.send(Role.HANDSHAKE, message),
        )
        self.installed: set[int] = set()

    def configure(self) -> None:
        for number in self.gateway.peers:
            self.replace(number)

    def replace(self, number: int, /) -> None:
        self.receiver.change_peers([number], [number])
        self.receiver.routes.insert(IPv4Address(self.gateway.peers[number].inner).packed, 32, number)

    def attached(self, other: Role) -> None:
        if other is Role.EGRESS:
            self.receiver.tell_all_again()

    def handle(self, _sender: Role, message: m.Message, /) -> None:
        match message:
            case m.InstallReceive():
                self.receiver.install(message, self.world.now)
                self.installed.add(message.local_index)
                self.world.at(message.created + 180 * SECOND, self._expire)
            case m.ForgetSessions():
                self.receiver.forget_sessions(message.peer)
            case m.AwaitSessions():
                for part in self.receiver.snapshot():
                    self.send(Role.HANDSHAKE, part)

    def arrive(self, source: tuple[str, int], data: bytes) -> None:
        if self.alive:
            self.receiver.read(
                data, len(data), (source, b""), 0, self.world.now, lambda write: self.gateway.tun(bytes(write[SIZE:]))
            )

    def _expire(self) -> None:
        if self.alive:
            self.receiver.expire(self.world.now)


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
    activations: dict[int, set[Role]] = field(default_factory=dict)
    current: dict[tuple[int, int], int] = field(default_factory=dict)
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
            ingress = self.gateway.by_pipe(process.pipes[Role.INGRESS], Role.INGRESS)
            assert isinstance(ingress, IngressProcess)
            index = int.from_bytes(effect.data[4:8], "little")
            assert index in ingress.installed, "message 2 before ingress had the session"

    def is_served(self, session: int) -> None:
        """A session is in use: its identity was not retired long ago."""
        retired = self.retired.get(self.made_with[session])
        assert retired is None or self.gateway.world.now - retired < RETIRED_WITHIN, "a retired key is still in use"

    def activated(self, sender: Role, message: m.Activate) -> None:
        self.activations.setdefault(message.session, set()).add(sender)

    def data_leaves(self, egress: EgressProcess, peer: SendPeer, datagrams: list[bytes]) -> None:
        session = peer.slots.current
        assert session is not None
        self.is_served(session.number)
        # The responder sends only after its ingress has received on the session; the initiator after its order.
        by = Role.HANDSHAKE if session.initiator else Role.INGRESS
        assert by in self.activations[session.number], "data on an unconfirmed session"
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
    ) -> None:
        self.world = world
        self.name = name
        self.address = (host, 51820)
        self.inner = inner
        self.privates = [world.random.randbytes(32)]
        """The keys in the token that are served, the current one first."""
        self.times = times
        self.limits = limits
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
        self._processes: dict[Role, Process] = {}
        self._told: dict[Role, int] = {}
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
            if self._processes[role].alive:
                self._processes[role].replace(number)

    def unix(self) -> int:
        return EPOCH + self.world.now

    def add_peer(self, other: Gateway, *, endpoint: bool = True, keepalive: int = 0) -> None:
        where = m.Endpoint(other.address[0], other.address[1]) if endpoint else None
        self.peers[len(self.peers)] = Remote(other.public, other.inner, where, keepalive)

    def start(self) -> None:
        for role in CHILDREN:
            self._spawn(role)
        for pair in PAIRS:
            self._connect(pair)

    def kill(self, role: Role, away: int = 300 * MILLISECOND) -> None:
        """A child dies; its successor is there `away` later, at most one second more."""
        if self._processes[role].alive:
            self._processes[role].die()
            self.world.after(away, lambda: self._restart(role))

    def process(self, role: Role) -> Process:
        return self._processes[role]

    @property
    def handshake(self) -> HandshakeProcess:
        process = self._processes[Role.HANDSHAKE]
        assert isinstance(process, HandshakeProcess)
        return process

    @property
    def ingress(self) -> IngressProcess:
        process = self._processes[Role.INGRESS]
        assert isinstance(process, IngressProcess)
        return process

    @property
    def egress(self) -> EgressProcess:
        process = self._processes[Role.EGRESS]
        assert isinstance(process, EgressProcess)
        return process

    def by_pipe(self, pipe: Pipe, role: Role) -> Process:
        """The process of `role` at an end of `pipe`, dead or alive."""
        first, second = pipe.ends
        return first if first.role is role else second

    def arrive(self, source: tuple[str, int], data: bytes) -> None:
        self.ingress.arrive(source, data)

    def ping(self, number: int, peer: int = PEER) -> None:
        """Send a numbered packet to the peer."""
        self.sent.append(number)
        target = self.peers[peer].inner
        packet = struct.pack(
            ">BBHHHBBH4s4sQ", 0x45, 0, 28, 0, 0, 64, 17, 0, IPv4Address(self.inner).packed,
            IPv4Address(target).packed, number,
        )  # fmt: skip
        self.egress.read(packet)

    def tun(self, packet: bytes) -> None:
        self.received.append(int.from_bytes(packet[20:28], "big"))

    def counters(self) -> dict[Counter, int]:
        return self.stats.counters(Role.HANDSHAKE)

    def close(self) -> None:
        self.stats.close()

    def _spawn(self, role: Role) -> None:
        process = _PROCESSES[role](self, next(self._incarnations))
        self._processes[role] = process
        process.configure()

    def _connect(self, pair: tuple[Role, Role]) -> None:
        ends = (self._processes[pair[0]], self._processes[pair[1]])
        if not ends[0].alive or not ends[1].alive:
            return
        pipe = Pipe(self.world, ends)
        for end, other in ((ends[0], ends[1].role), (ends[1], ends[0].role)):
            self._hand_over(end, other, pipe)

    def _hand_over(self, end: Process, other: Role, pipe: Pipe) -> None:
        # The supervisor's own channel to each child is in order, too.
        delay = self.world.upto(self.world.conditions.channel_delay)
        when = self._told[end.role] = max(self._told.get(end.role, 0), self.world.now + delay)
        self.world.at(when, lambda: end.attach(other, pipe))

    def _restart(self, role: Role) -> None:
        self._spawn(role)
        for pair in PAIRS:
            if role in pair:
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
    seed: int, spokes: int, conditions: Conditions | None = None
) -> Iterator[tuple[World, Gateway, list[Gateway]]]:
    """A gateway in the middle, whose slot N is the spoke number N, started; every one has it as its only peer."""
    world = World(seed, conditions)
    hub = Gateway(world, "hub", "192.0.2.1", "10.0.0.1")
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
