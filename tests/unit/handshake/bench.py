"""One HandshakeCore on a bench: the test plays every other process and the network, message by message."""

from __future__ import annotations

import os
import random
from collections import Counter as Tally
from typing import TypeVar

from wghsm.handshake import Effect, HandshakeCore, Limits, SendDatagram, Tell, Times
from wghsm.handshake.gate import Gates
from wghsm.ipc import Counter, PeerField, Role
from wghsm.ipc import messages as m
from wghsm.noise import CookieMaker, Initiation, Response

SECOND = 10**9
MILLISECOND = 10**6
OURS = bytes(range(32))
ELSEWHERE = m.Endpoint("198.51.100.7", 7777, 0, "192.0.2.1", 2)

_M = TypeVar("_M", bound=m.Message)


def public(peer: int) -> bytes:
    """The public key of a peer."""
    return bytes([peer + 1] * 32)


def gates(*identities: bytes) -> Gates:
    """The gates of these public keys."""
    made = Gates()
    made.serve(identities)
    return made


def endpoint(peer: int) -> m.Endpoint:
    """Where a peer is configured to be."""
    return m.Endpoint(f"192.0.2.{100 + peer}", 51820)


class Table:
    """The statistics table as a dictionary."""

    def __init__(self) -> None:
        self.fields: Tally[tuple[int, PeerField]] = Tally()
        self.counts: Tally[Counter] = Tally()

    def get(self, peer: int, field: PeerField) -> int:
        return self.fields[peer, field]

    def set(self, peer: int, field: PeerField, value: int) -> None:
        self.fields[peer, field] = value

    def add(self, peer: int, field: PeerField, value: int) -> None:
        self.fields[peer, field] += value

    def count(self, counter: Counter) -> None:
        self.counts[counter] += 1


class Bench:
    """A core with `peers` peers. Effects gather in `effects` until `took` or `took_all` removes them."""

    def __init__(
        self, peers: int = 1, *, ready: bool = True, times: Times | None = None, limits: Limits | None = None
    ) -> None:
        chance = random.Random(1)
        self.now = 1000 * SECOND
        self.table = Table()
        self.core = HandshakeCore(
            self.table, chance.randbytes, lambda: 1_760_000_000 * SECOND + self.now, times, limits
        )
        self.effects: list[Effect] = []
        self.strangers = {peer: CookieMaker(OURS) for peer in range(peers)}
        self.configure(range(peers))
        self.says(Role.SUPERVISOR, m.LinkState(True))
        if ready:
            for role in (Role.CUSTODIAN, Role.EGRESS, Role.INGRESS):
                self.attach(role)
            self.says(Role.CUSTODIAN, m.Identity(OURS))
        self.effects.clear()

    def configure(self, peers: range, *, change: int = 1, keepalive: int = 0, where: bool = True) -> None:
        told = [m.HandshakePeer(peer, public(peer), endpoint(peer) if where else None, keepalive) for peer in peers]
        self.says(Role.SUPERVISOR, m.HandshakePeers(change, told, []))

    def says(self, sender: Role, message: m.Message) -> None:
        self.effects += self.core.handle(sender, message, self.now)

    def attach(self, other: Role) -> None:
        self.effects += self.core.attached(other, self.now)

    def detach(self, other: Role) -> None:
        self.effects += self.core.detached(other, self.now)

    def wait(self, nanoseconds: int) -> None:
        """Let time pass, deadline by deadline."""
        end = self.now + nanoseconds
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.effects += self.core.expire(self.now)
        self.now = end

    def told(self, to: Role, kind: type[_M]) -> list[_M]:
        """What was sent to a process; it is removed."""
        found = [
            effect.message
            for effect in self.effects
            if isinstance(effect, Tell) and effect.to is to and isinstance(effect.message, kind)
        ]
        self.effects = [
            effect
            for effect in self.effects
            if not (isinstance(effect, Tell) and effect.to is to and isinstance(effect.message, kind))
        ]
        return found

    def sent(self) -> list[SendDatagram]:
        """What was sent to the network; it is removed."""
        found = [effect for effect in self.effects if isinstance(effect, SendDatagram)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, SendDatagram)]
        return found

    # The peers' side.

    def datagram(self, data: bytes, source: m.Endpoint = ELSEWHERE, at: int | None = None) -> None:
        self.says(Role.INGRESS, m.Datagram(source, self.now if at is None else at, data))

    def initiation(self, peer: int = 0, index: int = 4242) -> bytes:
        """Message 1 of a peer, as far as the handshake process can tell."""
        fields = Initiation(index, os.urandom(32), os.urandom(48), os.urandom(28))
        return self.strangers[peer].authenticate(fields, self.now)

    def response(self, receiver: int, peer: int = 0, index: int = 4343) -> bytes:
        """Message 2 of a peer, as far as the handshake process can tell."""
        return self.strangers[peer].authenticate(Response(index, receiver, os.urandom(32), os.urandom(16)), self.now)

    # Whole steps.

    def accept(self, session: int = 1, peer: int = 0) -> m.AcceptInitiation:
        """An initiation comes, and the custodian accepts it."""
        self.datagram(self.initiation(peer))
        (request,) = self.told(Role.CUSTODIAN, m.AcceptInitiation)
        self.says(Role.CUSTODIAN, m.InitiationAccepted(request.request, peer, session, os.urandom(32), os.urandom(16)))
        return request

    def want(self, peer: int = 0) -> None:
        self.says(Role.EGRESS, m.HandshakeWanted(peer, "no-session"))

    def create(self, peer: int = 0, handle: int = 900) -> m.CreateInitiation:
        """A handshake is wanted, and the custodian makes the initiation."""
        self.want(peer)
        (request,) = self.told(Role.CUSTODIAN, m.CreateInitiation)
        self.made(request, handle)
        return request

    def made(self, request: m.CreateInitiation, handle: int = 900, identity: bytes = OURS) -> None:
        fields = (os.urandom(32), os.urandom(48), os.urandom(28))
        self.says(Role.CUSTODIAN, m.InitiationCreated(request.request, request.peer, handle, *fields, identity))

    def establish(self, session: int = 1, peer: int = 0) -> None:
        """A whole handshake as initiator."""
        request = self.create(peer)
        self.datagram(self.response(request.local_index, peer))
        (finish,) = self.told(Role.CUSTODIAN, m.AcceptResponse)
        self.says(Role.CUSTODIAN, m.ResponseAccepted(finish.request, peer, session))
        self.says(Role.INGRESS, m.Installed(session))
        self.effects.clear()
