"""The virtual clock of the simulated network, its datagrams, and processes that talk over channels with delays.

`processes` has the gateway's own, `sim` puts whole gateways together.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import seat_of, worker_of_peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.ipc import Role, Seat
    from wghsm.ipc import messages as m

    from .sim import Gateway

MILLISECOND = 10**6
SECOND = 10**9
START = 1000 * SECOND


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
        self._push(receiver, lambda: receiver.receive(sender.seat, self, message))

    def opened(self, end: Process) -> None:
        self._open.add(end)
        held, self._held[end] = self._held[end], []
        for action in held:
            self._later(end, action)

    def close(self, end: Process) -> None:
        """`end` died: the other one sees it after what was sent before."""
        other = self.ends[1] if end is self.ends[0] else self.ends[0]
        self._push(other, lambda: other.hang_up(end.seat, self))

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

    def __init__(self, gateway: Gateway, incarnation: int, worker: int = 0) -> None:
        self.gateway = gateway
        self.worker = worker
        self.seat = seat_of(self.role, worker)
        self.incarnation = incarnation
        self.world = gateway.world
        self.alive = True
        self.pipes: dict[Seat, Pipe] = {}

    def attach(self, other: Seat, pipe: Pipe) -> None:
        if self.alive:
            if other in self.pipes:
                self.lost(other)
            self.pipes[other] = pipe
            self.attached(other)
            pipe.opened(self)

    def receive(self, sender: Seat, pipe: Pipe, message: m.Message) -> None:
        if self.alive and self.pipes.get(sender) is pipe:
            self.handle(sender, message)

    def hang_up(self, other: Seat, pipe: Pipe) -> None:
        if self.alive and self.pipes.get(other) is pipe:
            del self.pipes[other]
            self.lost(other)

    def send(self, to: Seat, message: m.Message) -> bool:
        pipe = self.pipes.get(to)
        if pipe is None:
            return False
        pipe.send(self, message)
        return True

    def die(self) -> None:
        self.alive = False
        for pipe in self.pipes.values():
            pipe.close(self)

    def owns(self, peer: int) -> bool:
        """Whether the peer's sessions are this worker's."""
        return worker_of_peer(peer, self.gateway.workers) == self.worker

    def replace(self, number: int, /) -> None:
        """Another peer is in this slot."""
        raise NotImplementedError

    def attached(self, other: Seat) -> None:
        """A fresh channel is there."""

    def lost(self, other: Seat) -> None:
        """A channel is gone."""

    def handle(self, sender: Seat, message: m.Message, /) -> None:
        raise NotImplementedError
