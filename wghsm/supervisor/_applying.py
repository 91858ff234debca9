"""Changes to the running model, one at a time: those of control's clients, of resolved names, of a reload.

    submit(job)    when nothing is at work: job() -> Work, or None
    hold(begin)    when nothing is at work: begin(), and nothing else until `apply(work)` is in force, or `release`

    Work -> changes.plan -> steps to the processes, each answered -> the model is the state's -> done()

Called by `_requests` and `_reload`; `_supervisor` brings the processes' answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import Role
from wghsm.ipc import messages as m

from .changes import Changes, Finished, Step, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from wghsm.ipc import Seat
    from wghsm.process import Loop, Timer

    from ._audit import Audit
    from ._children import Children
    from ._state import State
    from .model import Difference, Model

__all__ = ["Applying", "Work"]

_ANSWER_WITHIN = 30 * 1_000_000_000


@dataclass(frozen=True)
class Work:
    """The next model and how it differs; `endpoints`: those to set, by slot; `sockets`: the state has other ones.

    `done` runs when it is in force. `cause` and `who` are for the audit log: whose decision it was, if anybody's.
    """

    model: Model
    found: Difference
    endpoints: Mapping[int, m.Endpoint]
    sockets: bool
    done: Callable[[], None]
    cause: str = ""
    who: m.Asker | None = None


@dataclass(frozen=True)
class _Waiting:
    """`client` is the incarnation of the control process that asks, 0 for one of our own."""

    begin: Callable[[], Work | None]
    holds: bool
    client: int


class Applying:
    """Brings one change after the other into force."""

    def __init__(self, state: State, children: Children, loop: Loop, audit: Audit, settled: Callable[[], None]) -> None:
        """`settled` runs whenever a change is in force, before its own `done`."""
        self._audit = audit
        self._state = state
        self._children = children
        self._loop = loop
        self._settled = settled
        self._changes = Changes()
        self._queue: deque[_Waiting] = deque()
        self._held = False
        self._work: Work | None = None
        self._watchdog: Timer | None = None

    def submit(self, job: Callable[[], Work | None], client: int = 0) -> None:
        """Do a change when its turn has come."""
        self._queue.append(_Waiting(job, holds=False, client=client))
        self._next()

    def hold(self, begin: Callable[[], None]) -> None:
        """Begin something that takes time when its turn has come; it ends with `apply` or `release`."""
        self._queue.append(_Waiting(lambda: begin(), holds=True, client=0))
        self._next()

    def apply(self, work: Work) -> None:
        """Bring the work of whoever holds the turn into force."""
        self._held = False
        self._begin(work)
        self._next()

    def release(self) -> None:
        """Give the turn back."""
        self._held = False
        self._next()

    def answered(self, role: Seat, answer: m.Applied | m.Prepared) -> None:
        """A process has done a step."""
        self._run(self._changes.answered(role, answer))

    def joined(self, role: Seat) -> list[m.Message]:
        """What a fresh process must hear of the change at work, after its settings."""
        return [step.message for step in self._changes.joined(role)]

    def serves(self, role: Seat) -> None:
        """A process has become ready."""
        self._changes.ready(role)

    def left(self, role: Seat) -> None:
        """A process is gone; what clients of a control process wanted goes with it."""
        if role == Role.CONTROL:
            self._queue = deque(waiting for waiting in self._queue if not waiting.client)
        self._run(self._changes.left(role))

    def _next(self) -> None:
        while self._queue and self._work is None and not self._held:
            waiting = self._queue.popleft()
            self._held = waiting.holds
            work = waiting.begin()
            if work is not None:
                self._begin(work)

    def _begin(self, work: Work) -> None:
        state, found = self._state, work.found
        for peer in found.added:
            # What is left of the slot's last owner, be it a late word of the handshake process.
            state.stats.clear(peer.slot)
            state.endpoints.pop(peer.slot, None)
        state.endpoints.update(work.endpoints)
        sockets = state.udp_message() if work.sockets else None
        self._work = work
        stages = plan(found, state.number, state.endpoints, sockets, state.workers)
        self._run(self._changes.begin(state.number(), stages))

    def _run(self, effects: Iterable[Step | Finished]) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        for effect in effects:
            if isinstance(effect, Finished):
                self._finish()
            else:
                fds = self._state.udp_descriptors(effect.role) if isinstance(effect.message, m.UdpSockets) else ()
                self._children.send(effect.role, effect.message, fds)
        if self._changes.busy:
            self._watchdog = self._loop.call_later(_ANSWER_WITHIN, self._late)
        self._next()

    def _finish(self) -> None:
        work, self._work = self._work, None
        if work is None:
            return
        before, self._state.model = self._state.model, work.model
        self._state.steering.change(work.found.routes)
        for slot in work.found.removed:
            self._state.forget(slot)
        self._settled()
        self._audit.changed(before, work.model, work.cause, work.who)
        work.done()

    def _late(self) -> None:
        for role in self._changes.waits_for:
            self._children.kill(role, f"it did not apply a change within {_ANSWER_WITHIN // 10**9} s")
