"""The four processes of a simulated gateway: the real machines of each, with everything else simulated.

CustodianProcess   custodian.core over keys in memory      HandshakeProcess   HandshakeCore
EgressProcess      Sender                                  IngressProcess     Receiver
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from wghsm.custodian.core import Core as CustodianCore
from wghsm.custodian.deriving import derive_here
from wghsm.custodian.effects import (
    Answer,
    Derive,
    Effect,
    Install,
    Landing,
    Remember,
    RememberIdentity,
    RememberOwn,
    ShowIdentity,
    ShowPsk,
    Submit,
    Used,
)
from wghsm.custodian.rules import Rules
from wghsm.handshake import Effect as HandshakeEffect
from wghsm.handshake import HandshakeCore, SendDatagram, Tell
from wghsm.ipc import TUNNEL, Role, role_of, seat_of, worker_of_peer
from wghsm.ipc import messages as m
from wghsm.noise import SoftwareCustody
from wghsm.tunnel.receiver import Receiver
from wghsm.tunnel.sender import Sender, SendPeer
from wghsm.tunnel.virtio import SIZE

from .world import MILLISECOND, SECOND, Process

if TYPE_CHECKING:
    from wghsm.ipc import Seat
    from wghsm.process.endpoints import Destination
    from wghsm.tunnel.engine import Outgoing

    from .sim import Gateway


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

    def __init__(self, gateway: Gateway, incarnation: int, worker: int = 0) -> None:
        super().__init__(gateway, incarnation, worker)
        rules = Rules(incarnation, gateway.greatest, gateway.last_own)
        self._vault = _Vault(*gateway.privates)
        self._busy_until: list[int] = []
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

    def attached(self, other: Seat) -> None:
        if other == Role.HANDSHAKE:
            self._core.new_handshake_process()
            self.send(Role.HANDSHAKE, m.Identity(*self._vault.identities))

    def handle(self, _sender: Seat, message: m.Message, /) -> None:
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

    def _land_later(self, landing: Landing) -> None:
        def land() -> None:
            if self.alive:
                self._perform(landing(self.world.now))

        self.world.at(self._token_is_done(), land)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Submit(job):
                    self._land_later(job())
                case Derive():
                    self._land_later(derive_here(self._vault, effect))
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
                case ShowIdentity() | ShowPsk() | Used():
                    pass
                case _:
                    raise AssertionError(effect)

    def _token_is_done(self) -> int:
        conditions = self.world.conditions
        if self.gateway.token_sessions is None:
            return self.world.now + self.world.upto(conditions.token_delay)
        # The session that is free first takes as long for every operation.
        self._busy_until = sorted(self._busy_until)[-self.gateway.token_sessions :]
        if len(self._busy_until) < self.gateway.token_sessions:
            self._busy_until.insert(0, 0)
        self._busy_until[0] = max(self._busy_until[0], self.world.now) + conditions.token_delay
        self.gateway.token_backlog = max(self.gateway.token_backlog, self._busy_until[0] - self.world.now)
        return self._busy_until[0]

    def _install(self, install: Install) -> None:
        self.gateway.watch.made_with[install.session] = install.identity
        again = self.world.random.random() < self.world.conditions.repeated_installs
        worker = worker_of_peer(install.peer, self.gateway.workers)
        ready = all(seat_of(role, worker) in self.pipes for role in TUNNEL)
        with install.keys:
            for repeat in range(2 if again else 1):
                receive, send = install.messages(self.gateway.workers)
                if ready:
                    self._deliver(worker, receive, send, repeat * self.world.upto(200 * MILLISECOND))
        self.send(Role.HANDSHAKE, install.answer if ready else self._core.refuse(install.request).message)

    def _deliver(self, worker: int, receive: m.InstallReceive, send: m.InstallSend, wait: int) -> None:
        def deliver() -> None:
            self.send(seat_of(Role.INGRESS, worker), receive)
            self.send(seat_of(Role.EGRESS, worker), send)

        if wait:
            self.world.after(wait, deliver)
        else:
            deliver()


class HandshakeProcess(Process):
    role = Role.HANDSHAKE

    def __init__(self, gateway: Gateway, incarnation: int, worker: int = 0) -> None:
        super().__init__(gateway, incarnation, worker)
        self.core = HandshakeCore(
            gateway.stats,
            self.world.random.randbytes,
            gateway.unix,
            gateway.times,
            gateway.limits,
            workers=gateway.workers,
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

    def attached(self, other: Seat) -> None:
        self.perform(self.core.attached(other, self.world.now))

    def lost(self, other: Seat) -> None:
        self.perform(self.core.detached(other, self.world.now))

    def handle(self, sender: Seat, message: m.Message, /) -> None:
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

    def __init__(self, gateway: Gateway, incarnation: int, worker: int = 0) -> None:
        super().__init__(gateway, incarnation, worker)
        self.sender = Sender(
            gateway.stats,
            self._transmit,
            lambda message: self.send(Role.HANDSHAKE, message),
            hand_over=self._hand_over,
        )
        self.sender.mtu = 1420

    def configure(self) -> None:
        for number in self.gateway.peers:
            self.replace(number)

    def replace(self, number: int, /) -> None:
        self.sender.change_peers([number] if self.owns(number) else [], [number])
        self.sender.routes.insert(IPv4Address(self.gateway.peers[number].inner).packed, 32, number)

    def read(self, packet: bytes) -> None:
        """A packet from the TUN."""
        if self.alive:
            self.sender.read(packet, self.world.now)

    def _hand_over(self, peer: int, read: bytes) -> bool:
        if self.owns(peer):
            return False
        self.gateway.egress_of(peer).take_over(read)
        return True

    def take_over(self, read: bytes) -> None:
        """A TUN read that another worker has handed over."""
        if self.alive:
            self.sender.take(read, self.world.now, handed=True)
            self.sender.flush()

    def handle(self, sender: Seat, message: m.Message, /) -> None:
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
                self.sender.forget_sessions(message)
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

    def __init__(self, gateway: Gateway, incarnation: int, worker: int = 0) -> None:
        super().__init__(gateway, incarnation, worker)
        self.receiver = Receiver(
            gateway.stats,
            lambda message: self.send(Role.HANDSHAKE, message),
            lambda message: self.send(seat_of(Role.EGRESS, worker), message),
            lambda message: self.send(Role.HANDSHAKE, message),
            salt=bytes(32),
        )
        self.installed: set[int] = set()

    def configure(self) -> None:
        for number in self.gateway.peers:
            self.replace(number)

    def replace(self, number: int, /) -> None:
        self.receiver.change_peers([number] if self.owns(number) else [], [number])
        self.receiver.routes.insert(IPv4Address(self.gateway.peers[number].inner).packed, 32, number)

    def attached(self, other: Seat) -> None:
        if role_of(other) is Role.EGRESS:
            self.receiver.tell_all_again()

    def handle(self, _sender: Seat, message: m.Message, /) -> None:
        match message:
            case m.InstallReceive():
                self.receiver.install(message, self.world.now)
                self.installed.add(message.local_index)
                self.world.at(message.created + 180 * SECOND, self._expire)
            case m.ForgetSessions():
                self.receiver.forget_sessions(message)
            case m.Gates():
                self.receiver.serve(message)
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
