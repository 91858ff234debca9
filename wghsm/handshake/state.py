"""What the two halves of the core share: the peers, what of the gateway is there, and what is to be sent.

`core` changes it by what the other processes say, `exchange` by handshakes. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.ipc import TUNNEL, Counter, Role, all_seats, identity_number, seat_of, worker_of_peer
from wghsm.ipc import messages as m

from .effects import Effect, Tell
from .indices import IndexTable
from .peers import Peer, activity
from .schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.ipc import Seat

    from .peers import Statistics
    from .timers import Activity
    from .times import Limits, Times

__all__ = ["State"]


class State:
    """Peers by slot number, and the means to reach the other processes.

    `workers`: pairs of egress and ingress; each peer is one pair's.
    """

    def __init__(
        self,
        stats: Statistics,
        entropy: Callable[[int], bytes],
        times: Times,
        limits: Limits,
        index_entropy: Callable[[], int],
        workers: int = 1,
    ) -> None:
        self.workers = workers
        self.tunnel = frozenset(seat for role in TUNNEL for seat in all_seats(role, workers))
        self.stats = stats
        self.entropy = entropy
        self.times = times
        self.limits = limits
        self.indices = IndexTable(index_entropy, workers)
        self.peers: dict[int, Peer] = {}
        self.up = False
        self.attached: set[Seat] = set()
        self.has_identity = False
        self.identities: tuple[bytes, ...] = ()
        """The public keys that the custodian serves, or the last one did, the current one first."""
        self.waiting: set[int] = set()
        """Peers whose handshake waits until the custodian and both processes of their worker are there."""
        self.effects: list[Effect] = []
        self.timers: Schedule[int] = Schedule()
        self.reports: Schedule[int] = Schedule()

    def take_effects(self) -> list[Effect]:
        """What is to be sent since the last call."""
        effects, self.effects = self.effects, []
        return effects

    def tell(self, to: Seat, message: m.Message) -> None:
        """Send to a process, if it is there: whoever comes later is told what it needs then."""
        if to == Role.SUPERVISOR or to in self.attached:
            self.effects.append(Tell(to, message))

    def worker(self, peer: Peer) -> int:
        """The worker that owns the peer's sessions."""
        return worker_of_peer(peer.number, self.workers)

    def tell_egress(self, peer: Peer, message: m.Message) -> None:
        """Send to the egress of the peer's worker."""
        self.tell(seat_of(Role.EGRESS, self.worker(peer)), message)

    def obstacle(self, peer: Peer | None = None) -> Counter | None:
        """Why no handshake can be made now: with `peer`, or if that is not known yet, with anybody."""
        if Role.CUSTODIAN not in self.attached or not self.has_identity:
            return Counter.NO_CUSTODIAN
        workers = range(self.workers) if peer is None else (self.worker(peer),)
        serves = any(all(seat_of(role, worker) in self.attached for role in TUNNEL) for worker in workers)
        return None if serves else Counter.NO_WORKER

    def serves(self, identity: int) -> bool:
        """Whether an own key is served, by its number (`wghsm.ipc.identity_number`)."""
        return any(identity_number(public_key) == identity for public_key in self.identities)

    def holds_retired(self, peer: Peer, now: int) -> bool:
        """Whether a worker may hold a session with the peer that was made with a key that is not served (any more)."""
        oldest = now - self.times.reject_after_time
        return any(when > oldest and not self.serves(identity) for identity, when in peer.made_with.items())

    def is_known(self, peer: Peer) -> bool:
        """Whether `peer` was neither removed nor replaced meanwhile."""
        return self.peers.get(peer.number) is peer

    def activity(self, peer: Peer) -> Activity:
        """The peer's row of the statistics table."""
        return activity(self.stats, peer.number)

    def jitter(self) -> int:
        """Uniform from 0 to the greatest jitter, in nanoseconds."""
        return int.from_bytes(self.entropy(4), "little") * self.times.jitter_max >> 32

    def watch(self, peer: Peer) -> None:
        """The peer's timers have changed."""
        self.timers.set(peer.number, peer.timers.next_deadline())

    def move(self, peer: Peer, endpoint: m.Endpoint, at: int, *, tell: bool = True, report: bool = True) -> None:
        """The peer is at `endpoint` since `at`: the newest news wins. Egress and the supervisor hear of it."""
        if at < peer.endpoint_at:
            return
        changed = endpoint != peer.endpoint
        peer.endpoint, peer.endpoint_at = endpoint, at
        if tell:
            self.tell_egress(peer, m.EndpointMoved(peer.number, endpoint, at))
        if changed and report and peer.number not in self.reports:
            self.reports.set(peer.number, max(at, peer.reported + self.times.report_interval))

    def report_endpoint(self, peer: Peer, now: int) -> None:
        """Tell the supervisor where the peer is."""
        if peer.endpoint is not None:
            peer.reported = now
            self.tell(Role.SUPERVISOR, m.EndpointMoved(peer.number, peer.endpoint, peer.endpoint_at))

    def forget_source(self, peer: Peer) -> None:
        """Drop the own address that the peer was last reached from, in case it is the cause of trouble."""
        peer.forget_source()
        self.tell_egress(peer, m.ForgetSource(peer.number))

    def forget_sessions(self, peer: Peer) -> None:
        """Destroy all the peer's sessions."""
        peer.made_with.clear()
        self._keep_sessions(peer, ())

    def forget_retired(self, peer: Peer) -> bool:
        """Destroy the peer's sessions with keys that are not served; whether it can no longer be sent to.

        Whatever a worker has that is not known here goes as well.
        """
        unknown = 0 in peer.made_with
        peer.made_with = {identity: when for identity, when in peer.made_with.items() if self.serves(identity)}
        kept = [one.number for one in self.indices.sessions(peer.number) if self.serves(one.identity)]
        self._keep_sessions(peer, tuple(kept))
        return unknown or self.indices.sent_on(peer.number) is None

    def _keep_sessions(self, peer: Peer, keep: tuple[int, ...]) -> None:
        self.indices.forget_sessions(peer.number, keep)
        for role in TUNNEL:
            self.tell(seat_of(role, self.worker(peer)), m.ForgetSessions(peer.number, keep))
