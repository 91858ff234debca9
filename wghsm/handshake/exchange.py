"""Handshakes under way, in both roles: from a datagram or a wish to a session that ingress has acknowledged.

    initiator   initiate -> CreateInitiation -> created: message 1 . . . message 2 -> intake -> AcceptResponse
                -> finished and installed -> Activate
    responder   message 1 -> intake -> AcceptInitiation -> accepted and installed -> message 2
                . . . first data -> confirmed

Each is made with one of the gateway's identities from its first message to its session's end: as responder the one
that mac1 was made for, as initiator the one that the custodian has chosen.

One half of the core; the other half, `core`, calls it. Pure: times are CLOCK_BOOTTIME in nanoseconds.
Sources: PROTOCOL.md sections 4, 7, 8.3; SEAMS.md "Installing a session".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.ipc import Counter, PeerField, Role, identity_number
from wghsm.ipc import messages as m
from wghsm.noise import Initiation, Response
from wghsm.noise.constants import HANDSHAKE_DSCP

from .effects import SendDatagram
from .indices import HandshakeEntry, Session
from .intake import Intake
from .load import Load
from .pace import Pace
from .peers import Answer, Candidate, Installation, OwnInitiation, Peer, carried
from .requests import Accepting, Creating, Finishing, Installs, Request, Requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from .state import State

__all__ = ["Exchange"]


class Exchange:
    """Handshakes with all peers. `rekey` queues one again; `wall_clock` gives Unix nanoseconds."""

    def __init__(self, state: State, rekey: Callable[[Peer, int], None], wall_clock: Callable[[], int]) -> None:
        self._state = state
        self._rekey = rekey
        self._wall_clock = wall_clock
        self._losses = 0
        # Of each worker, which of all losses of an egress process was its last.
        self._last_loss: dict[int, int] = {}
        self._requests = Requests(state.times.request_deadline)
        self._load = Load(self._requests, state.times, state.limits)
        self.pace = Pace(self._requests, state.times, state.limits)
        self._intake = Intake(state, self._load, self._receive_initiation, self._receive_response)
        self.datagram = self._intake.datagram
        self.brief_ingress = self._intake.brief_ingress
        self._installs = Installs(state.times.request_deadline, state.limits.early_installs)

    # What becomes of the other processes.

    def serve(self, identities: tuple[bytes, ...], now: int) -> None:
        """The custodian holds the static keys with these public ones: what was begun with another one is over."""
        self._intake.serve(identities, now)
        for peer in self._state.peers.values():
            if peer.initiation is not None and peer.initiation.identity not in identities:
                self._drop_initiation(peer)

    def lose_custodian(self) -> None:
        """Its handles are gone, and what was asked of it; the retransmit timers go on."""
        for request in self._requests.clear():
            self._release(request)
        for peer in self._state.peers.values():
            self._drop_initiation(peer)

    def lose_egress(self, worker: int) -> None:
        """No session whose send key went to the dead egress, or may have, is ever used."""
        self._losses += 1
        self._last_loss[worker] = self._losses
        for installation in self._installs.clear(lambda peer: self._state.worker(peer) == worker, worker):
            self._drop_installation(installation)

    def lose_ingress(self, worker: int) -> None:
        """Its sessions and acknowledgements are gone."""
        self._installs.forget_early(worker)
        self._state.indices.forget_all_sessions(worker)

    def drop(self, peer: Peer) -> None:
        """Nothing that is under way with the peer counts any more."""
        if peer.creating is not None and (request := self._requests.pop(peer.creating)) is not None:
            self._release(request)
        self._drop_initiation(peer)
        peer.responding = None

    def next_deadline(self) -> int | None:
        """When `expire` has something to do, or None."""
        deadlines = (self._requests.next_deadline(), self._installs.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expire(self, now: int) -> None:
        """Give up what the custodian or ingress did not answer in time."""
        for request in self._requests.expire(now):
            self._state.stats.count(Counter.CUSTODIAN_BUSY)
            self._give_up(request, now)
        for installation in self._installs.expire(now):
            self._drop_installation(installation)

    # Messages from the network, let in by the gate of the identity that they are meant for.

    def _receive_initiation(self, message: Initiation, identity: bytes, datagram: m.Datagram, now: int) -> None:
        if (obstacle := self._state.obstacle()) is not None:
            self._state.stats.count(obstacle)
        elif len(self._requests) >= self._state.limits.requests - self._state.limits.own_requests:
            self._state.stats.count(Counter.CUSTODIAN_BUSY)
        else:
            index = self._state.indices.reserve(None)
            size = len(datagram.data)
            request = self._requests.add(
                Accepting(identity, index, message.sender, datagram.source, datagram.at, size, self._losses),
                now,
            )
            fields = (message.ephemeral, message.static, message.timestamp)
            self._state.tell(Role.CUSTODIAN, m.AcceptInitiation(request, *fields, index, message.sender, identity))

    def _receive_response(self, message: Response, identity: bytes, datagram: m.Datagram, now: int) -> None:
        entry = self._state.indices.lookup(message.receiver)
        peer = (
            self._state.peers.get(entry.peer) if isinstance(entry, HandshakeEntry) and entry.peer is not None else None
        )
        initiation = peer.initiation if peer is not None else None
        if (
            peer is None
            or initiation is None
            or initiation.index != message.receiver
            or initiation.identity != identity
        ):
            self._state.stats.count(Counter.UNKNOWN_HANDSHAKE)
        elif (obstacle := self._state.obstacle(peer)) is not None:
            self._state.stats.count(obstacle)
        else:
            candidate = Candidate(message, datagram.source, datagram.at)
            if initiation.trying is None:
                self._try_response(peer, initiation, candidate, now)
            elif candidate.message == initiation.trying.message or candidate in initiation.waiting:
                pass
            elif len(initiation.waiting) < self._state.limits.responses_waiting:
                initiation.waiting.append(candidate)
            else:
                self._state.stats.count(Counter.CUSTODIAN_BUSY)

    # Our initiations.

    def initiate(self, peer: Peer, now: int, *, retry: bool = False) -> None:
        """Ask for an initiation, unless a handshake message went to the peer less than REKEY_TIMEOUT ago."""
        if not self._state.up:
            return
        if not retry:
            peer.timers.attempts = 0
        free = self.free_at(peer, now)
        if free > now:
            # The kernel lets a repetition fall that comes too soon after a response, until the next packet.
            if retry:
                peer.timers.initiation_sent(free - self._state.times.rekey_timeout, self._state.jitter())
                self._state.watch(peer)
            return
        peer.timers.initiation_sent(now, self._state.jitter())
        self._state.watch(peer)
        if peer.creating is not None:
            return
        if (obstacle := self._state.obstacle(peer)) is not None:
            self._state.waiting.add(peer.number)
        elif peer.endpoint is None:
            obstacle = Counter.NO_ENDPOINT
        elif len(self._requests) >= self._state.limits.requests:
            obstacle = Counter.CUSTODIAN_BUSY
        if obstacle is not None:
            self._state.stats.count(obstacle)
            return
        peer.free_at = now + self._state.times.rekey_timeout
        index = self._state.indices.reserve(peer.number)
        peer.creating = self._requests.add(Creating(peer, index, now), now)
        self._state.tell(Role.CUSTODIAN, m.CreateInitiation(peer.creating, peer.number, index, peer.unanswered))

    def created(self, message: m.InitiationCreated, now: int) -> None:
        """The custodian has made an initiation: send it."""
        request = self._answered(message.request, now)
        if not isinstance(request, Creating):
            return
        peer = request.peer
        if not self._state.is_known(peer) or peer.creating != message.request:
            self._state.indices.release(request.index)
            return
        peer.creating = None
        overtaken = peer.responding is not None or peer.responded >= request.at
        if overtaken or message.identity not in self._state.identities:
            # The peer was faster; two handshake messages at once would only cross.
            self._state.indices.release(request.index)
            return
        self._drop_initiation(peer)
        peer.initiation = OwnInitiation(request.index, message.handle, message.identity)
        fields = Initiation(request.index, message.ephemeral, message.static, message.timestamp)
        self._send(peer, fields, now, Counter.INITIATION_SENT)
        peer.unanswered += 1
        peer.timers.initiation_sent(now, self._state.jitter())
        self._state.watch(peer)

    def _try_response(self, peer: Peer, initiation: OwnInitiation, candidate: Candidate, now: int) -> None:
        if len(self._requests) >= self._state.limits.requests:
            self._state.stats.count(Counter.CUSTODIAN_BUSY)
            return
        initiation.trying = candidate
        message = candidate.message
        request = self._requests.add(Finishing(peer, initiation, candidate, self._losses), now)
        self._state.tell(
            Role.CUSTODIAN,
            m.AcceptResponse(request, initiation.handle, message.ephemeral, message.empty, message.sender),
        )

    def finished(self, message: m.ResponseAccepted, now: int) -> None:
        """The custodian has proven a response to our initiation."""
        request = self._answered(message.request, now)
        if not isinstance(request, Finishing):
            return
        peer, index = request.peer, request.initiation.index
        if peer.initiation is request.initiation:
            peer.initiation = None
        if not self._state.is_known(peer) or peer.number != message.peer or not self._state.up:
            self._state.indices.release(index)
            return
        self._received(
            peer, request.candidate.source, request.candidate.at, now, len(request.candidate.message.encode())
        )
        self._state.stats.count(Counter.RESPONSE_RECEIVED)
        identity = identity_number(request.initiation.identity)
        session = Session(message.session, peer.number, index, initiator=True, created=now, identity=identity)
        self._derived(Installation(peer, session, None), request.incarnation, now)

    def refused(self, message: m.Refused, now: int) -> None:
        """The custodian refuses, whatever the cause: for our own initiation the retransmit timer goes on."""
        request = self._answered(message.request, now)
        if request is not None:
            self._state.stats.count(Counter.CUSTODIAN_REFUSED)
            self._give_up(request, now)

    # Handshakes of peers.

    def accepted(self, message: m.InitiationAccepted, now: int) -> None:
        """The custodian has proven a peer's initiation; message 2 waits for ingress."""
        request = self._answered(message.request, now)
        if not isinstance(request, Accepting):
            return
        peer = self._state.peers.get(message.peer)
        if peer is None or not self._state.up:
            self._state.indices.release(request.index)
            return
        index = self._state.indices.assign(request.index, peer.number)
        crossed = peer.initiation is not None
        # The custodian has dropped the handle of our own initiation.
        self._drop_initiation(peer)
        self._received(peer, request.source, request.at, now, request.size)
        self._state.stats.count(Counter.INITIATION_RECEIVED)
        identity = identity_number(request.identity)
        session = Session(message.session, peer.number, index, initiator=False, created=now, identity=identity)
        response = Response(index, request.remote_index, message.ephemeral, message.empty)
        answer = Answer(response, self._detour(peer, request.identity) if crossed else 0)
        installation = Installation(peer, session, answer)
        peer.responding = installation
        self._derived(installation, request.incarnation, now)

    # Both roles: a session is derived, installed, confirmed.

    def _derived(self, installation: Installation, incarnation: int, now: int) -> None:
        peer = installation.peer
        peer.made_with[installation.session.identity] = now
        peer.timers.session_derived(now)
        self._state.watch(peer)
        if self._end_retired(installation, now):
            return
        if incarnation < self._last_loss.get(self._state.worker(peer), 0):
            self._drop_installation(installation)
            self._rekey(peer, now)
            return
        accepted = self._installs.derived(installation.session.number, installation, now)
        if accepted is not None:
            self._joined(installation, accepted, now)

    def installed(self, message: m.Installed, worker: int, now: int) -> None:
        """A worker's ingress has taken a session, or would not."""
        installation = self._installs.installed(message.session, message.accepted, now, worker)
        if installation is not None:
            self._joined(installation, message.accepted, now)

    def _joined(self, installation: Installation, accepted: bool, now: int) -> None:
        peer = installation.peer
        if not accepted or not self._state.is_known(peer) or not self._state.up:
            self._state.stats.count(Counter.KEY_REFUSED)
            self._drop_installation(installation)
            return
        if self._end_retired(installation, now):
            return
        self._state.indices.install(installation.session)
        if installation.answer is None:
            self._state.tell_egress(peer, m.Activate(installation.session.number, peer.number, confirm=True))
            self._complete(peer, now)
        elif peer.responding is installation:
            peer.responding = None
            peer.responded = now
            self._send(peer, installation.answer.message, now, Counter.RESPONSE_SENT)
            peer.free_at += installation.answer.detour

    def _end_retired(self, installation: Installation, now: int) -> bool:
        """Whether the session's identity was retired meanwhile. Its keys may have reached the workers only now."""
        if self._state.serves(installation.session.identity):
            return False
        self._drop_installation(installation)
        if self._state.forget_retired(installation.peer):
            self._rekey(installation.peer, now)
        return True

    def confirmed(self, message: m.SessionConfirmed, now: int) -> None:
        """First data on the session that we responded with."""
        if (peer := self._state.peers.get(message.peer)) is not None:
            self._state.indices.confirm(peer.number, message.session)
            self._state.tell(Role.CUSTODIAN, m.ConfirmSession(message.session, peer.number))
            self._complete(peer, now)

    def _complete(self, peer: Peer, now: int) -> None:
        peer.completed = now
        peer.carried = carried(self._state.stats, peer.number)
        self.pace.over(peer.number)
        peer.timers.handshake_complete()
        self._state.watch(peer)
        self._state.stats.set(peer.number, PeerField.LAST_HANDSHAKE_UNIX, self._wall_clock())
        self._state.stats.count(Counter.HANDSHAKE_COMPLETE)

    # What they share.

    def _send(self, peer: Peer, message: Initiation | Response, now: int, counter: Counter) -> None:
        peer.free_at = now + self._state.times.rekey_timeout
        data = peer.cookies.authenticate(message, now)
        self._state.stats.set(peer.number, PeerField.LAST_HANDSHAKE_SENT, now)
        if peer.endpoint is None:
            self._state.stats.count(Counter.NO_ENDPOINT)
            return
        self._state.stats.count(counter)
        self._state.stats.add(peer.number, PeerField.HANDSHAKE_TX_BYTES, len(data))
        self._state.effects.append(SendDatagram(peer.number, peer.endpoint, data, HANDSHAKE_DSCP))

    def _received(self, peer: Peer, source: m.Endpoint, at: int, now: int, size: int) -> None:
        """A handshake message of the peer was proven."""
        peer.unanswered = 0
        self._state.stats.add(peer.number, PeerField.HANDSHAKE_RX_BYTES, size)
        self._state.stats.set(peer.number, PeerField.LAST_HANDSHAKE_RECEIVED, now)
        self._state.move(peer, source, min(at, now))

    def free_at(self, peer: Peer, now: int) -> int:
        """From when on the peer may be sent an initiation: not while a response to it is in the making."""
        return peer.free_at if peer.responding is None else now + self._state.times.rekey_timeout

    def _detour(self, peer: Peer, identity: bytes) -> int:
        """How much longer than REKEY_TIMEOUT to wait after initiations that crossed: both responses are void then.

        Two gateways in step would cross again and again over a link that is slower than the jitter. The one with
        the greater public key lets the other one go first.
        """
        behind = identity > peer.public_key
        eighth = self._state.times.rekey_timeout // 8
        least = 4 * eighth if behind else eighth
        return least + (int.from_bytes(self._state.entropy(4), "little") * eighth >> 32)

    def _answered(self, number: int, now: int) -> Request | None:
        """The request that the custodian has answered, if it is still open."""
        asked = self._requests.asked(number)
        request = self._requests.pop(number)
        if asked is not None:
            self._load.answered(asked, now)
            if isinstance(request, Finishing):
                # The one answer that always takes the token.
                self.pace.answered(asked, now)
        return request

    def _give_up(self, request: Request, now: int) -> None:
        """A request was refused or not answered in time; our initiation may still find its true response."""
        self._release(request)
        if isinstance(request, Finishing):
            initiation = request.initiation
            if request.peer.initiation is initiation and initiation.waiting:
                self._try_response(request.peer, initiation, initiation.waiting.popleft(), now)

    def _release(self, request: Request) -> None:
        if isinstance(request, Creating):
            request.peer.creating = None
            self._state.indices.release(request.index)
        elif isinstance(request, Accepting):
            self._state.indices.release(request.index)
        else:
            request.initiation.trying = None
            if request.peer.initiation is not request.initiation:
                self._state.indices.release(request.initiation.index)

    def _drop_initiation(self, peer: Peer) -> None:
        initiation, peer.initiation = peer.initiation, None
        # A response that the custodian is asked about may still come out well: its answer releases the index.
        if initiation is not None and initiation.trying is None:
            self._state.indices.release(initiation.index)

    def _drop_installation(self, installation: Installation) -> None:
        self._state.indices.release(installation.session.index)
        if installation.peer.responding is installation:
            installation.peer.responding = None
