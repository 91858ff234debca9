"""One change at a time, told to the processes in an order that is right at every moment (SEAMS.md "Allowed IPs").

A change is a list of stages, a stage a list of steps (a message to one process and the answer that ends it).
A stage begins when every step of the one before has been answered:

    ports       UdpSockets: ingress, egress, handshake
    less        peers leave the handshake process and the custodian
    prepare     new slots and the changed allowed IPs at ingress and egress, nothing in force
    ingress     commit: from here on the new owner's packets pass, the old owner's do not
    egress      commit
    more        slots leave the tunnel, peers come to the custodian
    last        peers come to the handshake process

So no process ever has two owners of a prefix, and nobody speaks to a peer that a process behind does not know.

A process that dies does not hold a change up: its successor is fed with the settings from before the change,
then with every step of it that was told to its role so far (`joined`). Only processes that have said Ready are
waited for: one that still opens its token reads its messages later, in the same order.

Pure; `plan` makes the stages, `Changes` runs them. Called by `_requests`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from wghsm.ipc import Role, all_seats
from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from wghsm.ipc import Seat

    from .model import Difference, Peer

__all__ = ["Changes", "Finished", "Step", "custodian_parts", "handshake_parts", "plan", "route_parts"]

PEERS_A_MESSAGE = 400
ROUTES_A_MESSAGE = 2000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Step:
    """A message to one process. `answer` is the kind and number of what it waits for, None for nothing.

    `replay` false: a successor gets it with its first settings anyway.
    """

    role: Seat
    message: m.Message
    answer: tuple[type[m.Message], int] | None
    replay: bool = True


@dataclass(frozen=True, slots=True)
class Finished:
    """The change is in force everywhere."""

    change: int


Stage = list[Step]


class Changes:
    """The change at work, if any. Every method gives the effects: steps to send now, in order, and the end."""

    def __init__(self) -> None:
        self._present: set[Seat] = set()
        self._ready: set[Seat] = set()
        self._change: int | None = None
        self._stages: list[Stage] = []
        self._told: list[Step] = []
        self._waiting: set[tuple[Seat, type[m.Message], int]] = set()

    @property
    def busy(self) -> bool:
        """Whether a change is at work; another one cannot begin."""
        return self._change is not None

    @property
    def waits_for(self) -> frozenset[Seat]:
        """The processes that have not answered yet."""
        return frozenset(role for role, _, _ in self._waiting)

    def begin(self, change: int, stages: Sequence[Sequence[Step]]) -> list[Step | Finished]:
        """Start a change; RuntimeError if another one is at work."""
        if self.busy:
            raise RuntimeError("a change is at work")
        self._change = change
        self._stages = [list(stage) for stage in stages]
        return self._advance()

    def answered(self, role: Seat, answer: m.Applied | m.Prepared) -> list[Step | Finished]:
        """An answer has come; one that nobody waits for changes nothing."""
        self._waiting.discard((role, type(answer), answer.change))
        return self._advance()

    def joined(self, role: Seat) -> list[Step]:
        """A process has been started and fed with the settings from before the change: what it must hear next."""
        self._present.add(role)
        return [step for step in self._told if step.role == role and step.replay]

    def ready(self, role: Seat) -> None:
        """The process serves, and will be waited for from now on."""
        self._ready.add(role)

    def left(self, role: Seat) -> list[Step | Finished]:
        """The process is gone; nothing waits for it any more."""
        self._present.discard(role)
        self._ready.discard(role)
        self._waiting = {item for item in self._waiting if item[0] != role}
        return self._advance()

    def _advance(self) -> list[Step | Finished]:
        effects: list[Step | Finished] = []
        while self._change is not None and not self._waiting:
            if not self._stages:
                effects.append(Finished(self._change))
                self._change = None
                self._told.clear()
                break
            for step in self._stages.pop(0):
                self._told.append(step)
                if step.role in self._present:
                    effects.append(step)
                if step.answer is not None and step.role in self._ready:
                    self._waiting.add((step.role, *step.answer))
        return effects


def plan(
    found: Difference,
    number: Callable[[], int],
    endpoints: Mapping[int, m.Endpoint],
    sockets: m.UdpSockets | None = None,
    workers: int = 1,
) -> list[Stage]:
    """The stages of a change. `number` gives fresh numbers, `endpoints` the newest known ones by slot.

    Every worker of the tunnel is told all of it, and picks its own peers.
    """
    ingress, egress = all_seats(Role.INGRESS, workers), all_seats(Role.EGRESS, workers)
    tunnel = (*ingress, *egress)
    added = [peer.slot for peer in found.added]
    stages: list[Stage] = []
    if sockets is not None:
        roles = (*tunnel, Role.HANDSHAKE)
        stages.append([Step(role, sockets, (m.Applied, sockets.change), replay=False) for role in roles])
    stages.append(
        [
            *_steps(Role.HANDSHAKE, handshake_parts((), number, {}, found.removed)),
            *_steps(Role.CUSTODIAN, custodian_parts((), number, found.removed)),
        ]
    )
    prepare: Stage = []
    if added:
        message = m.TunnelPeers(number(), added, [])
        prepare += [Step(role, message, (m.Applied, message.change)) for role in tunnel]
    commit: m.RoutesCommit | None = None
    if found.routes:
        parts = list(route_parts(found.routes, number()))
        commit = m.RoutesCommit(parts[0].change)
        for role in tunnel:
            prepare += [Step(role, part, (m.Prepared, part.change) if part.last else None) for part in parts]
    stages.append(prepare)
    if commit is not None:
        stages += [[Step(role, commit, (m.Applied, commit.change)) for role in roles] for roles in (ingress, egress)]
    more: Stage = []
    if found.removed:
        message = m.TunnelPeers(number(), [], list(found.removed))
        more += [Step(role, message, (m.Applied, message.change)) for role in tunnel]
    more += _steps(Role.CUSTODIAN, custodian_parts([*found.added, *found.psk_changed], number))
    stages.append(more)
    given = found.moved.union(added)
    named = {slot: endpoint for slot, endpoint in endpoints.items() if slot in given}
    stages.append(_steps(Role.HANDSHAKE, handshake_parts([*found.added, *found.handshake_changed], number, named)))
    return [stage for stage in stages if stage]


def route_parts(routes: Sequence[m.Route], change: int) -> Iterator[m.Routes]:
    """The changed prefixes in messages of bearable size; at least one, the last one marked."""
    pieces = list(_chunks(routes, ROUTES_A_MESSAGE)) or [[]]
    for position, piece in enumerate(pieces, 1):
        yield m.Routes(change, piece, position == len(pieces))


def custodian_parts(
    peers: Iterable[Peer], number: Callable[[], int], remove: Sequence[int] = ()
) -> list[m.CustodianPeers]:
    """Peers for the custodian, in messages of bearable size."""
    records = [m.CustodianPeer(peer.slot, peer.public_key, peer.psk, peer.migrate_from_none) for peer in peers]
    parts = [m.CustodianPeers(number(), [], list(remove))] if remove else []
    return parts + [m.CustodianPeers(number(), piece, []) for piece in _chunks(records, PEERS_A_MESSAGE)]


def handshake_parts(
    peers: Iterable[Peer],
    number: Callable[[], int],
    endpoints: Mapping[int, m.Endpoint],
    remove: Sequence[int] = (),
) -> list[m.HandshakePeers]:
    """Peers for the handshake process with the endpoints to set, in messages of bearable size."""
    records = [
        m.HandshakePeer(peer.slot, peer.public_key, endpoints.get(peer.slot), peer.persistent_keepalive)
        for peer in peers
    ]
    parts = [m.HandshakePeers(number(), [], list(remove))] if remove else []
    return parts + [m.HandshakePeers(number(), piece, []) for piece in _chunks(records, PEERS_A_MESSAGE)]


def _steps(role: Seat, messages: Iterable[m.HandshakePeers | m.CustodianPeers]) -> Stage:
    return [Step(role, message, (m.Applied, message.change)) for message in messages]


def _chunks(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
