"""A software token and software peers around the custodian's machine, with jobs that run when a test says so."""

from __future__ import annotations

import hashlib
import os
from collections import Counter as Tally
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from wghsm.custodian.core import Core
from wghsm.custodian.deriving import derive_here
from wghsm.custodian.effects import (
    Answer,
    Derive,
    Effect,
    Install,
    Job,
    Landing,
    Remember,
    RememberIdentity,
    RememberOwn,
    RememberPsk,
    Report,
    ShowIdentity,
    ShowPsk,
    Submit,
    Suspect,
    Used,
)
from wghsm.custodian.rules import Rules, Times
from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import InitiationFields, Initiator, Rejected, Responder, SessionKeys, SoftwareCustody, tai64n
from wghsm.noise.curve import exchange, public_key
from wghsm.pkcs11_backend import PointRefused, TokenError, TokenFault

if TYPE_CHECKING:
    from wghsm.custodian.epochs import Record

SECOND = 10**9
START_UNIX = 1_760_000_000 * SECOND


class SoftwareVault:
    """Stands for the token: counts what it is asked, and fails when it is told to."""

    def __init__(
        self,
        private: bytes,
        psks: dict[tuple[bytes, m.PskSource], bytes] | None = None,
        previous: bytes | None = None,
    ) -> None:
        """`private`: the current key; `previous`: that of the identity before it, if it is still served."""
        self._privates = {public_key(key): key for key in (private, previous) if key is not None}
        self.psks = psks or {}
        self.asked_for: list[bytes] = []
        self.points: list[bytes] = []
        self.psk_uses = 0
        self.fault: TokenError | None = None

    @property
    def public_key(self) -> bytes:
        """The current one."""
        return self.identities[0]

    @property
    def identities(self) -> tuple[bytes, ...]:
        return tuple(self._privates)

    def derive(self, identity: bytes, public: bytes) -> bytearray:
        self.points.append(public)
        if self.fault is not None:
            raise self.fault
        result = exchange(self._privates[identity], public)
        if not any(result):
            raise PointRefused("low order")
        return result

    def psk(self, identity: bytes, source: m.PskDerived | m.PskObject | m.PskWrapped, peer_public: bytes) -> bytearray:
        self.psk_uses += 1
        self.asked_for.append(identity)
        if self.fault is not None:
            raise self.fault
        return bytearray(self.psks.get((peer_public, source)) or other_psk(source))


def other_psk(source: m.PskSource) -> bytes:
    """The PSK of a source that no test has given one to."""
    return hashlib.sha256(repr(source).encode()).digest()


def token_fault() -> TokenFault:
    return TokenFault(0x30, "deriving")


class SoftwarePeer:
    """A WireGuard peer in software, both roles."""

    def __init__(
        self,
        slot: int,
        gateway_public: bytes,
        psk: m.PskSource | None = None,
        secret: bytes = b"",
        *,
        migrate: bool = False,
    ) -> None:
        self.migrate = migrate
        self.slot = slot
        self.private = hashlib.sha256(b"peer %d" % slot).digest()
        self.public = public_key(self.private)
        self.gateway = gateway_public
        self.source: m.PskSource = psk or m.PskNone()
        self.secret = secret or bytes(32)
        self.custody = SoftwareCustody(self.private, {gateway_public: self.secret})
        self.initiator: Initiator | None = None
        self.ephemeral = b""
        self.last_initiation = 0
        """When its last initiation was answered, CLOCK_BOOTTIME ns."""

    @property
    def told(self) -> m.CustodianPeer:
        return m.CustodianPeer(self.slot, self.public, self.source, self.migrate)

    def initiation(self, request: int, unix_ns: int) -> m.AcceptInitiation:
        self.initiator = Initiator(self.custody, self.gateway)
        self.ephemeral = os.urandom(32)
        fields = self.initiator.write_initiation(bytearray(self.ephemeral), tai64n.from_unix_ns(unix_ns))
        assert isinstance(fields, InitiationFields)
        return m.AcceptInitiation(
            request, fields.ephemeral, fields.static, fields.timestamp, 1000 + request, 2000 + request, self.gateway
        )

    def finish(self, accepted: m.InitiationAccepted) -> SessionKeys | Rejected:
        assert self.initiator is not None
        return self.initiator.read_response(accepted.ephemeral, accepted.empty)

    def respond(self, request: int, created: m.InitiationCreated) -> tuple[m.AcceptResponse, SessionKeys, bytes]:
        assert created.identity == self.gateway
        responder = Responder(self.custody)
        assert responder.read_static(created.ephemeral, created.static) == self.gateway
        timestamp = responder.read_timestamp(created.timestamp)
        assert isinstance(timestamp, bytes)
        fields = responder.write_response(bytearray(os.urandom(32)))
        assert not isinstance(fields, Rejected)
        message = m.AcceptResponse(request, created.handle, fields.ephemeral, fields.empty, 3000 + request)
        return message, responder.session_keys(), timestamp


@dataclass
class Disk:
    """What outlives a custodian."""

    greatest: dict[bytes, bytes] = field(default_factory=dict)
    psks: dict[tuple[bytes, str], Record] = field(default_factory=dict)
    identities: dict[bytes, bytes] = field(default_factory=dict)
    own: int | None = None


class Driver:
    """One custodian's machine, with its jobs held back in `jobs` and `landings` until the test runs them."""

    def __init__(
        self,
        vault: SoftwareVault,
        disk: Disk | None = None,
        incarnation: int = 1,
        *,
        cache: bool = True,
        times: Times | None = None,
    ) -> None:
        self.disk = disk or Disk()
        self._vault = vault
        self.now = 1000 * SECOND
        self.unix = START_UNIX
        self.counts: Tally[Counter] = Tally()
        self.answers: list[m.Message] = []
        self.installs: list[Install] = []
        self.suspects: list[TokenError] = []
        self.reports: list[str] = []
        self.jobs: list[Job] = []
        self.landings: list[Landing] = []
        self.order: list[str] = []
        self.used: list[Used] = []
        rules = Rules(incarnation, self.disk.greatest, self.disk.own, times)
        self.shown: dict[int, int] = {}
        self.identities: dict[int, bytes] = {}
        self.core = Core(
            vault,
            rules,
            lambda n: bytearray(os.urandom(n)),
            self._count,
            cache_static_static=cache,
            psks=self.disk.psks,
            identities=self.disk.identities,
        )

    def _count(self, counter: Counter) -> None:
        self.counts[counter] += 1

    def add(self, *peers: SoftwarePeer) -> None:
        self.tell(m.CustodianPeers(0, [peer.told for peer in peers], []))

    def tell(self, message: m.CustodianPeers) -> None:
        self.perform(self.core.update_peers(message, self.now, self.unix))

    def advance(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.unix += nanoseconds

    def confirm(self, install: Install) -> None:
        """Data has come on a session that the custodian responded with."""
        self.perform(self.core.confirm_session(m.ConfirmSession(install.session, install.peer)))

    def send(self, message: m.AcceptInitiation | m.CreateInitiation | m.AcceptResponse) -> None:
        match message:
            case m.AcceptInitiation():
                self.perform(self.core.accept_initiation(message, self.now))
            case m.CreateInitiation():
                self.perform(self.core.create_initiation(message, self.now, self.unix))
            case m.AcceptResponse():
                self.perform(self.core.accept_response(message, self.now))

    def work(self, place: int = 0) -> None:
        """Run a job that waits, as a worker would."""
        self.landings.append(self.jobs.pop(place)())

    def land(self, place: int = 0) -> None:
        """Take a job's result in, as the main thread would."""
        self.perform(self.landings.pop(place)(self.now))

    def settle(self) -> None:
        """Run everything that waits."""
        while self.jobs or self.landings:
            if self.jobs:
                self.work()
            else:
                self.land()

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.order.append(type(effect).__name__)
            match effect:
                case Submit(job):
                    self.jobs.append(job)
                case Derive():
                    self.jobs.append(partial(derive_here, self._vault, effect))
                case Answer(message):
                    self.answers.append(message)
                case Install():
                    self.installs.append(effect)
                    self.answers.append(effect.answer)
                case Remember(public_key, timestamp):
                    assert timestamp > self.disk.greatest.get(public_key, b"")
                    self.disk.greatest[public_key] = timestamp
                case RememberOwn(unix_ns):
                    self.disk.own = max(unix_ns, self.disk.own or 0)
                case RememberPsk(public_key, kind, record):
                    self.disk.psks[public_key, kind] = record
                case RememberIdentity(public_key, identity):
                    self.disk.identities[public_key] = identity
                case ShowIdentity(slot, identity):
                    self.identities[slot] = identity
                case ShowPsk(slot, value):
                    self.shown[slot] = value
                case Suspect(error):
                    self.suspects.append(error)
                case Report(text):
                    self.reports.append(text)
                case Used():
                    self.used.append(effect)

    def ask(self, message: m.AcceptInitiation | m.CreateInitiation | m.AcceptResponse) -> m.Message:
        """Make one request, run everything, and give its one answer."""
        before = len(self.answers)
        self.send(message)
        self.settle()
        assert len(self.answers) == before + 1
        return self.answers[-1]
