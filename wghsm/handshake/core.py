"""The handshake process without sockets, clock and randomness: who may talk, what is due, what came and went.

    messages of the other processes --handle--> core --> exchange (handshakes), timers, indices
    their coming and going  --attached, detached-->  |
    time                                --expire-->  +--> effects: what is to be sent, in order

Called by the shell, and by the simulated network of the tests. Every method takes the time, CLOCK_BOOTTIME in
nanoseconds. It sees no key of a session, and no secret but the one that cookies are made of.
Sources: PROTOCOL.md section 8; SEAMS.md "Dying and restarting".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.ipc import Counter, PeerField, Role, role_of, worker_of
from wghsm.ipc import messages as m
from wghsm.noise import CookieMaker
from wghsm.noise.constants import NSEC_PER_SEC

from .exchange import Exchange
from .indices import HandshakeEntry, Session
from .peers import Peer, carried
from .schedule import Rekeys
from .snapshots import Snapshots
from .state import State
from .timers import Action, PeerTimers, Timer
from .times import Limits, Times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wghsm.ipc import Seat

    from .effects import Effect
    from .indices import IndexTable
    from .peers import Statistics

__all__ = ["HandshakeCore"]


class HandshakeCore:
    """All peers of one gateway.

    `entropy` gives that many random bytes, `wall_clock` Unix nanoseconds for the time of the last handshake, and
    `index_entropy` a random u32 for each index (from `entropy` if None). `workers`: pairs of egress and ingress.
    """

    def __init__(
        self,
        stats: Statistics,
        entropy: Callable[[int], bytes],
        wall_clock: Callable[[], int],
        times: Times | None = None,
        limits: Limits | None = None,
        index_entropy: Callable[[], int] | None = None,
        workers: int = 1,
    ) -> None:
        self._state = State(
            stats,
            entropy,
            times or Times(),
            limits or Limits(),
            index_entropy or (lambda: int.from_bytes(entropy(4), "little")),
            workers,
        )
        self._exchange = Exchange(self._state, self._queue_rekey, wall_clock)
        self._rekeys = Rekeys(self._exchange.pace)
        self._snapshots = [Snapshots() for _ in range(workers)]
        self._known: set[Seat] = set()

    # What the shell calls.

    def handle(self, sender: Seat, message: m.Message, now: int) -> list[Effect]:
        """A message of another process. TypeError for one that is not for this process."""
        match message:
            case m.Datagram():
                self._exchange.datagram(message, now)
            case m.DataSent():
                self._data_sent(message)
            case m.DataReceived():
                self._data_received(message)
            case m.HandshakeWanted():
                self._wanted(message, now)
            case m.InitiationAccepted():
                self._exchange.accepted(message, now)
            case m.InitiationCreated():
                self._exchange.created(message, now)
            case m.ResponseAccepted():
                self._exchange.finished(message, now)
            case m.Refused():
                self._exchange.refused(message, now)
            case m.Installed():
                self._exchange.installed(message, worker_of(sender), now)
            case m.SessionConfirmed():
                self._exchange.confirmed(message, now)
            case m.EndpointMoved():
                self._endpoint_moved(message, now)
            case m.SessionSnapshot():
                self._snapshot(sender, message, now)
            case m.Identity():
                self._identity(message, now)
            case m.HandshakePeers():
                self._change_peers(message, now)
            case m.LinkState():
                self._link(message, now)
            case m.Rekey():
                self._rekey(message, now)
            case _:
                raise TypeError(f"{type(message).__name__} is not for the handshake process")
        return self._state.take_effects()

    def attached(self, other: Seat, now: int) -> list[Effect]:
        """A fresh channel to the custodian, egress or ingress is there: another incarnation, or ours is the new one."""
        self._lose(other)
        replaced = other in self._known
        self._known.add(other)
        self._state.attached.add(other)
        if other in self._state.tunnel:
            worker = worker_of(other)
            peers = [peer for peer in self._state.peers.values() if self._state.worker(peer) == worker]
            self._state.tell(other, m.AwaitSessions())
            if role_of(other) is Role.EGRESS:
                self._brief_egress(peers, now)
            else:
                self._exchange.brief_ingress(now)
            if replaced:
                self._snapshots[worker].give_up()
                self._rekey_active(peers, now)
            self._resume(now)
        return self._state.take_effects()

    def detached(self, other: Seat, _now: int) -> list[Effect]:
        """The custodian, egress or ingress is gone."""
        self._state.attached.discard(other)
        self._lose(other)
        return self._state.take_effects()

    @property
    def indices(self) -> IndexTable:
        """The indices in use, to look at."""
        return self._state.indices

    def sockets_changed(self) -> None:
        """New UDP sockets: the own addresses that peers were reached from may not hold any more."""
        for peer in self._state.peers.values():
            peer.forget_source()

    def source_failed(self, number: int) -> list[Effect]:
        """The peer could not be sent to from the cached own address."""
        if (peer := self._state.peers.get(number)) is not None:
            self._state.forget_source(peer)
        return self._state.take_effects()

    def next_deadline(self) -> int | None:
        """When `expire` has something to do, or None."""
        deadlines = (
            self._state.timers.next(),
            self._state.reports.next(),
            self._rekeys.next(),
            self._exchange.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expire(self, now: int) -> list[Effect]:
        """Do everything whose time has come."""
        self._exchange.expire(now)
        while (number := self._state.timers.pop(now)) is not None:
            self._expire_timers(self._state.peers[number], now)
        while (rekey := self._rekeys.pop(now)) is not None:
            self._rekey_now(self._state.peers[rekey[0]], rekey[1], now)
        while (number := self._state.reports.pop(now)) is not None:
            self._state.report_endpoint(self._state.peers[number], now)
        return self._state.take_effects()

    # What the supervisor says.

    def _change_peers(self, message: m.HandshakePeers, now: int) -> None:
        for number in message.remove:
            self._remove(number)
        for told in message.upsert:
            peer = self._state.peers.get(told.peer)
            if peer is not None and peer.public_key != told.public_key:
                self._remove(told.peer)
                peer = None
            if peer is None:
                self._add(told, now)
                continue
            if told.endpoint is not None:
                self._state.move(peer, told.endpoint, now, report=False)
            if told.persistent_keepalive != peer.keepalive:
                turned_on = not peer.keepalive
                peer.keepalive = told.persistent_keepalive
                if self._state.up:
                    peer.timers.set_interval(peer.keepalive, now, self._state.activity(peer))
                    if turned_on:
                        self._state.tell_egress(peer, m.SendKeepalive(peer.number))
                    self._state.watch(peer)
        self._state.tell(Role.SUPERVISOR, m.Applied(message.change))

    def _add(self, told: m.HandshakePeer, now: int) -> None:
        timers = PeerTimers(self._state.times, self._state.limits)
        peer = Peer(told.peer, told.public_key, CookieMaker(told.public_key), timers, told.persistent_keepalive)
        if last := self._state.stats.get(peer.number, PeerField.LAST_HANDSHAKE_SENT):
            peer.free_at = last + self._state.times.rekey_timeout
        self._state.peers[peer.number] = peer
        if told.endpoint is not None:
            # Older than anything a worker may know: this process may have been restarted.
            self._state.move(peer, told.endpoint, 0, report=False)
        if self._state.up:
            self._start(peer, now)

    def _remove(self, number: int) -> None:
        if (peer := self._state.peers.pop(number, None)) is not None:
            self._exchange.drop(peer)
            self._state.indices.forget_sessions(number)
            self._state.timers.set(number, None)
            self._state.reports.set(number, None)
            self._rekeys.discard(number)
            self._state.waiting.discard(number)

    def _link(self, message: m.LinkState, now: int) -> None:
        if message.up == self._state.up:
            return
        self._state.up = message.up
        for peer in self._state.peers.values():
            if self._state.up:
                self._start(peer, now)
                if peer.keepalive:
                    self._state.tell_egress(peer, m.SendKeepalive(peer.number))
                continue
            peer.timers.stop()
            self._state.watch(peer)
            self._rekeys.discard(peer.number)
            self._exchange.drop(peer)
            self._state.tell_egress(peer, m.PurgeStaged(peer.number))
            self._state.forget_sessions(peer)
            peer.forget_source()
        self._state.waiting.clear()

    def _start(self, peer: Peer, now: int) -> None:
        peer.timers.start(peer.keepalive, now, self._state.activity(peer), self._state.jitter())
        self._state.watch(peer)

    def _rekey(self, message: m.Rekey, now: int) -> None:
        for number in message.peers:
            if (peer := self._state.peers.get(number)) is not None:
                self._queue_rekey(peer, now)

    # What comes and goes: the custodian and the workers.

    def _lose(self, other: Seat) -> None:
        role = role_of(other)
        if role is Role.CUSTODIAN:
            self._state.has_identity = False
            self._exchange.lose_custodian()
        elif role is Role.INGRESS:
            self._exchange.lose_ingress(worker_of(other))
        elif role is Role.EGRESS:
            self._exchange.lose_egress(worker_of(other))

    def _identity(self, message: m.Identity, now: int) -> None:
        self._state.identities = (message.public_key, message.previous) if message.previous else (message.public_key,)
        self._state.has_identity = True
        self._exchange.serve(self._state.identities, now)
        self._end_retired(self._state.peers.values(), now)
        self._resume(now)

    def _end_retired(self, peers: Iterable[Peer], now: int) -> None:
        """End what was made with a key that is not served any more, and begin anew with who has nothing else."""
        retired = [peer for peer in peers if self._state.holds_retired(peer, now)]
        for peer in retired:
            self._exchange.drop(peer)
        self._rekey_active([peer for peer in retired if self._state.forget_retired(peer)], now)

    def _resume(self, now: int) -> None:
        """Start what waited for a process to come back."""
        for number in sorted(self._state.waiting):
            peer = self._state.peers[number]
            if self._state.obstacle(peer) is None:
                self._queue_rekey(peer, now)
                self._state.waiting.discard(number)

    def _brief_egress(self, peers: Iterable[Peer], now: int) -> None:
        for peer in peers:
            if peer.endpoint is not None:
                self._state.tell_egress(peer, m.EndpointMoved(peer.number, peer.endpoint, peer.endpoint_at))
            if self._state.up and peer.keepalive:
                peer.timers.set_interval(peer.keepalive, now, self._state.activity(peer))
                self._state.watch(peer)

    def _rekey_active(self, peers: Iterable[Peer], now: int) -> None:
        """Queue those of `peers` that were active of late, the busiest first."""
        found = []
        for peer in peers:
            latest = self._state.activity(peer).latest
            if latest and now - latest < self._state.times.reject_after_time:
                found.append((self._bytes_a_second(peer, now), latest, peer))
        for _, _, peer in sorted(found, key=lambda entry: entry[:2], reverse=True):
            self._queue_rekey(peer, now)

    def _bytes_a_second(self, peer: Peer, now: int) -> int:
        """What the peer has sent and was sent since its last handshake; the table outlives us, its mark does not."""
        seconds = max(1, (now - peer.completed) // NSEC_PER_SEC)
        return (carried(self._state.stats, peer.number) - peer.carried) // seconds

    def _queue_rekey(self, peer: Peer, now: int) -> None:
        if self._state.up:
            self._rekeys.add(peer.number, now, now)

    def _rekey_now(self, peer: Peer, since: int, now: int) -> None:
        if peer.completed > since:
            return
        if (free := self._exchange.free_at(peer, now)) > now:
            self._rekeys.add(peer.number, since, free)
        else:
            self._exchange.pace.begin(peer.number, now)
            self._exchange.initiate(peer, now)

    def _snapshot(self, sender: Seat, message: m.SessionSnapshot, now: int) -> None:
        role = role_of(sender)
        for moved in message.endpoints:
            if (peer := self._state.peers.get(moved.peer)) is not None:
                self._state.move(peer, moved.endpoint, moved.at, tell=role is not Role.EGRESS)
        for info in message.sessions:
            peer = self._state.peers.get(info.peer)
            if peer is None:
                continue
            if role is Role.INGRESS:
                self._take_over(peer, info)
            if self._state.up:
                peer.timers.session_derived(info.created)
                self._state.watch(peer)
        halves = self._snapshots[worker_of(sender)].add(role, message)
        self._rekey_active((self._state.peers[number] for number in halves.lost if number in self._state.peers), now)
        for number in halves.unknown & self._state.peers.keys():
            self._state.peers[number].made_with[0] = now
        if self._state.identities:
            told = halves.unknown.union(info.peer for info in message.sessions)
            self._end_retired([self._state.peers[number] for number in told & self._state.peers.keys()], now)

    def _take_over(self, peer: Peer, info: m.SessionInfo) -> None:
        peer.made_with[info.identity] = max(info.created, peer.made_with.get(info.identity, 0))
        holder = self._state.indices.holder(info.index)
        if isinstance(holder, Session):
            return
        if isinstance(holder, HandshakeEntry) and holder.peer in self._state.peers:
            # One in 2^32: a handshake of this new process got an index that was in use.
            self._exchange.drop(self._state.peers[holder.peer])
        self._state.indices.take_over(
            Session(info.session, info.peer, info.index, info.initiator, info.created, info.identity), info.slot
        )

    # What egress and ingress tell of packets, and timers.

    def _wanted(self, message: m.HandshakeWanted, now: int) -> None:
        peer = self._state.peers.get(message.peer)
        if peer is None:
            return
        if peer.number in self._rekeys or self._exchange.pace.crowded:
            # Many want one at once, as after a worker's death: in turn, or none comes to its end.
            self._queue_rekey(peer, now)
        else:
            self._exchange.initiate(peer, now)

    def _endpoint_moved(self, message: m.EndpointMoved, now: int) -> None:
        if (peer := self._state.peers.get(message.peer)) is not None:
            self._state.move(peer, message.endpoint, min(message.at, now), tell=False)

    def _data_sent(self, message: m.DataSent) -> None:
        peer = self._state.peers.get(message.peer)
        if peer is not None and self._state.up and not peer.timers.pending(Timer.NEW_HANDSHAKE):
            peer.timers.data_sent(message.at, self._state.jitter())
            self._state.watch(peer)

    def _data_received(self, message: m.DataReceived) -> None:
        peer = self._state.peers.get(message.peer)
        if peer is not None and self._state.up and not peer.timers.pending(Timer.SEND_KEEPALIVE):
            peer.timers.data_received(message.at)
            self._state.watch(peer)

    def _expire_timers(self, peer: Peer, now: int) -> None:
        for timer in peer.timers.due(now):
            if peer.timers.pending(timer):
                happened = self._state.activity(peer)
                for action in peer.timers.expire(timer, now, happened, self._state.jitter()):
                    self._act(peer, action, now)
        self._state.watch(peer)

    def _act(self, peer: Peer, action: Action, now: int) -> None:
        if action is Action.FORGET_SOURCE:
            self._state.forget_source(peer)
        elif action in (Action.NEW_INITIATION, Action.RETRY_INITIATION):
            self._exchange.initiate(peer, now, retry=action is Action.RETRY_INITIATION)
        elif action is Action.SEND_KEEPALIVE:
            self._state.tell_egress(peer, m.SendKeepalive(peer.number))
        elif action is Action.GIVE_UP:
            self._state.stats.count(Counter.HANDSHAKE_GIVEN_UP)
            self._state.tell_egress(peer, m.PurgeStaged(peer.number))
        else:
            self._exchange.drop(peer)
            self._state.forget_sessions(peer)
