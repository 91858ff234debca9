"""The child processes: started, paired with each other, watched, restarted, ended.

    spawn(seat)   fresh channel -> fork+exec -> Start, its settings (feed), Attach of a fresh pair with each process
                  that lives; the other end of each pair goes to that process
    its end       the channel is read to its end (a Fault may be in it) -> restart.judge -> wait, spawn | end all
    renew(seat)   Shutdown -> its end -> spawn at once, as a trial: whether it serves, and nothing ends if it does not

No copy of a pair's ends is kept here: it would hide a process's end from its peer. Called by `_supervisor`, which
gets the messages and the events.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from wghsm.exits import ExitCode
from wghsm.ipc import (
    ENDS,
    TUNNEL,
    ChannelClosed,
    ChannelKind,
    ProtocolError,
    Role,
    all_seats,
    role_of,
    socket_pair,
    worker_of,
)
from wghsm.ipc import messages as m
from wghsm.process import boottime

from ._child import ChildProcess
from .restart import Backoff, EndGateway, Restart, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from wghsm.ipc import Seat
    from wghsm.process import Loop, Timer

    from .restart import Verdict

__all__ = ["ChildEvents", "Children", "Settings"]

_log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_KILL_AFTER = 3 * _SECOND
_OF_ONE_WORKER = ChannelKind.INGRESS_EGRESS


class ChildEvents(Protocol):
    """What the owner of the children is told and asked."""

    def feed(self, seat: Seat) -> Iterable[tuple[m.Message, Sequence[int]]]:
        """The settings of a fresh process, with descriptors that stay the owner's."""

    def received(self, seat: Seat, message: m.Message) -> None:
        """A message from a child, but Ready and Fault."""

    def serves(self, seat: Seat) -> None:
        """The child has said Ready."""

    def left(self, seat: Seat) -> None:
        """The child is gone."""

    def fell(self, seat: Seat, text: str) -> None:
        """Why a child has ended that nobody had told to."""

    def may_restart(self, seat: Seat) -> bool:
        """Whether to start it again; if not, it waits for an operator."""

    def ended(self, exit_code: ExitCode, text: str) -> None:
        """The gateway must end, and why."""


@dataclass(frozen=True)
class Settings:
    """How children are started. `deadline` gives the nanoseconds until Ready, None for no limit."""

    gateway: str
    entries: Mapping[Role, Sequence[str]]
    users: Mapping[Role, tuple[int, int]]
    environment: Callable[[Role], Mapping[str, str]]
    deadline: Callable[[Role], int | None]
    pairs: frozenset[ChannelKind]
    log_level: str = "info"
    workers: int = 1
    """Pairs of egress and ingress."""
    ask_every: int = 5 * _SECOND
    """Nanoseconds between two Pings to each child that serves."""
    patience: int = 6
    """Pings without an answer after which a child is killed. They are counted, and not the time: a machine that slept
    has not asked."""


@dataclass
class _Room:
    """What outlives the incarnations of a seat's process."""

    backoff: Backoff = field(default_factory=Backoff)
    process: ChildProcess | None = None
    starts: int = 0
    since_unix: int = 0
    timer: Timer | None = None
    renewing: bool = False
    """It was told to end, and another one is to follow at once."""
    tried: Callable[[Verdict | None], None] | None = None
    """Who waits to hear whether it comes to serve."""


class Children:
    """All children of one gateway."""

    def __init__(self, loop: Loop, settings: Settings, events: ChildEvents) -> None:
        self._loop = loop
        self._settings = settings
        self._events = events
        self._rooms: dict[Seat, _Room] = {
            seat: _Room() for role in settings.entries for seat in all_seats(role, settings.workers)
        }
        self._incarnations = 0
        self._stopping = False
        self._kill_timer: Timer | None = None
        self.served = False

    def start(self, roles: Sequence[Role]) -> None:
        """Spawn the processes of these roles in this order."""
        self._loop.call_later(self._settings.ask_every, self._ask)
        for role in roles:
            for seat in all_seats(role, self._settings.workers):
                self._spawn(seat)

    def send(self, seat: Seat, message: m.Message, fds: Sequence[int] = ()) -> bool:
        """Send to the seat's process; False if there is none, or it is about to be found dead."""
        process = self._rooms[seat].process
        if process is None:
            return False
        try:
            process.channel.send(message, fds)
        except ChannelClosed:
            return False
        self._loop.flush(process.channel)
        return True

    def incarnation(self, seat: Seat) -> int:
        """The number of the seat's process, 0 if there is none."""
        process = self._rooms[seat].process
        return process.incarnation if process else 0

    def all_ready(self) -> bool:
        """Whether every role serves now."""
        return all(room.process is not None and room.process.ready_at is not None for room in self._rooms.values())

    def views(self) -> list[m.ProcessView]:
        """The processes as status shows them."""
        views = []
        for seat, room in self._rooms.items():
            state: Literal["starting", "ready", "waiting"] = "waiting"
            if room.process is not None:
                state = "starting" if room.process.ready_at is None else "ready"
            pid, engine = (room.process.popen.pid, room.process.engine) if room.process else (0, "")
            views.append(m.ProcessView(seat, pid, state, max(0, room.starts - 1), room.since_unix, engine))
        return views

    def kill(self, seat: Seat, reason: str) -> None:
        """Kill the seat's process, which is then restarted like any that died."""
        if process := self._rooms[seat].process:
            process.kill(reason)

    def renew(self, seat: Seat, tried: Callable[[Verdict | None], None] | None = None) -> None:
        """End the seat's process in good order and start another one at once, with settings that are fed anew.

        `tried` hears once whether the new one serves: None, or what its end would mean. It then stays away, and nothing
        else follows from its end; call `renew` again, with settings that work.
        """
        room = self._rooms[seat]
        room.tried = tried
        if room.timer is not None:
            room.timer.cancel()
        process = room.process
        if process is None:
            self._spawn(seat)
            return
        room.renewing = True
        self.send(seat, m.Shutdown())
        self._loop.call_later(_KILL_AFTER, lambda: process.kill("it did not end by itself"))

    def stop(self) -> None:
        """Tell all to end; after three seconds they are killed. `gone` says when it is done."""
        if self._stopping:
            return
        self._stopping = True
        # The auditor's last words are signed by the custodian, which therefore waits for its end.
        sealed = Role.AUDITOR in self._rooms and self._rooms[Role.AUDITOR].process is not None
        for seat, room in self._rooms.items():
            if room.timer is not None:
                room.timer.cancel()
            if seat != Role.CUSTODIAN or not sealed:
                self.send(seat, m.Shutdown())
        self._kill_timer = self._loop.call_later(_KILL_AFTER, self._kill_all)

    @property
    def gone(self) -> bool:
        """Whether no child is left."""
        return all(room.process is None for room in self._rooms.values())

    def abandon(self) -> None:
        """Kill and reap whatever is left, without the loop."""
        for room in self._rooms.values():
            if process := room.process:
                process.kill("")
                process.popen.wait()
                self._forget(room, process)

    def _kill_all(self) -> None:
        for room in self._rooms.values():
            if room.process:
                _log.warning("%s did not end by itself and is killed", room.process.seat)
                room.process.kill("it did not end by itself")

    def _spawn(self, seat: Seat) -> None:
        room = self._rooms[seat]
        role = role_of(seat)
        room.timer = None
        self._incarnations += 1
        process = ChildProcess.start(
            seat, self._incarnations, self._settings.entries[role], self._settings.environment(role)
        )
        if isinstance(process, OSError):
            self._not_started(seat, process)
            return
        room.process = process
        room.starts += 1
        room.since_unix = time.time_ns()
        self._loop.add_reader(process.channel, lambda: self._read(process))
        self._loop.add_reader(process.pidfd, lambda: self._died(process))
        limit = self._settings.deadline(role)
        if limit is not None:
            late = f"it was not ready within {limit // _SECOND} s"
            process.deadline = self._loop.call_later(limit, lambda: process.kill(late))
        uid, gid = self._settings.users[role]
        level = self._settings.log_level
        worker, workers = worker_of(seat), self._settings.workers
        start = m.Start(
            self._settings.gateway, process.incarnation, uid, gid, os.getpid(), level, worker=worker, workers=workers
        )
        self.send(seat, start)
        for message, fds in self._events.feed(seat):
            self.send(seat, message, fds)
        self._pair(process)

    def _not_started(self, seat: Seat, error: OSError) -> None:
        text = f"{seat} cannot be started: {error.strerror}"
        if self._tell_tried(seat, Restart(text)):
            return
        if not self.served:
            self._events.ended(ExitCode.SYSTEM, text)
            return
        room = self._rooms[seat]
        delay = room.backoff.after(0)
        _log.error("%s; next try in %.1f s", text, delay / _SECOND)
        room.timer = self._loop.call_later(delay, lambda: self._spawn(seat))

    def _pair(self, process: ChildProcess) -> None:
        """Fresh pairs between the new process and each one that lives, one end to either."""
        own = role_of(process.seat)
        for kind in self._settings.pairs:
            ends = ENDS[kind]
            if own not in ends:
                continue
            for seat in all_seats(ends[0] if ends[1] is own else ends[1], self._settings.workers):
                # A role that this gateway has no use for has no room.
                other = self._rooms[seat].process if seat in self._rooms else None
                if other is not None and (kind is not _OF_ONE_WORKER or worker_of(seat) == worker_of(process.seat)):
                    self._join(kind, process, other)

    def _join(self, kind: ChannelKind, one: ChildProcess, other: ChildProcess) -> None:
        for_one, for_other = socket_pair()
        with for_one, for_other:
            for to, at, end in ((one, other, for_one), (other, one, for_other)):
                # A worker has one channel of each kind; who is there once has one for each worker.
                worker = 0 if role_of(to.seat) in TUNNEL else worker_of(at.seat)
                self.send(to.seat, m.Attach(kind, at.incarnation, worker), [end.fileno()])

    def _read(self, process: ChildProcess) -> None:
        try:
            for message, fds in process.channel.messages():
                for fd in fds:
                    os.close(fd)
                self._take(process, message)
        except ChannelClosed:
            # Its end is told by its pidfd; one that only closed its channel is of no use any more.
            self._loop.remove_channel(process.channel)
            self._loop.call_later(_KILL_AFTER, lambda: process.kill("it closed its channel"))
        except ProtocolError as error:
            self._loop.remove_channel(process.channel)
            process.kill(str(error))

    def _ask(self) -> None:
        """See whether each child still answers: one may be stopped, or in a loop of its own."""
        if self._stopping:
            return
        self._loop.call_later(self._settings.ask_every, self._ask)
        for seat, room in self._rooms.items():
            process = room.process
            if process is None or process.ready_at is None:
                continue
            if process.unanswered >= self._settings.patience:
                process.kill(
                    f"it has not answered for {self._settings.patience * self._settings.ask_every // _SECOND} s"
                )
            else:
                process.unanswered += 1
                self.send(seat, m.Ping())

    def _take(self, process: ChildProcess, message: m.Message) -> None:
        match message:
            case m.Pong():
                process.unanswered = 0
            case m.Ready():
                if process.ready_at is None:
                    process.ready_at = boottime()
                    process.engine = message.engine
                    if process.deadline is not None:
                        process.deadline.cancel()
                        process.deadline = None
                    _log.info("%s serves (pid %d)", process.seat, process.popen.pid)
                    self._events.serves(process.seat)
                    # One that was still starting when it was told to end is not the one that is tried.
                    if not self._rooms[process.seat].renewing:
                        self._tell_tried(process.seat, None)
            case m.Fault():
                process.fault = message
            case _:
                self._events.received(process.seat, message)

    def _died(self, process: ChildProcess) -> None:
        status = process.popen.wait()
        with contextlib.suppress(ChannelClosed, ProtocolError):
            # What it said last; nothing but a Fault matters any more.
            for message, fds in process.channel.messages(limit=100_000):
                for fd in fds:
                    os.close(fd)
                if isinstance(message, m.Fault):
                    process.fault = message
        room = self._rooms[process.seat]
        good_for = 0 if process.ready_at is None else boottime() - process.ready_at
        self._forget(room, process)
        self._events.left(process.seat)
        if self._stopping:
            if process.seat == Role.AUDITOR:
                self.send(Role.CUSTODIAN, m.Shutdown())
            if self.gone and self._kill_timer is not None:
                self._kill_timer.cancel()
            return
        if room.renewing:
            room.renewing = False
            self._spawn(process.seat)
            return
        verdict = judge(process.seat, status, process.fault, served=self.served, killed_for=process.killed_for)
        self._events.fell(process.seat, verdict.text)
        if self._tell_tried(process.seat, verdict):
            return
        if isinstance(verdict, EndGateway):
            self._events.ended(verdict.exit_code, verdict.text)
        elif self._events.may_restart(process.seat):
            delay = room.backoff.after(good_for)
            _log.error("%s; restart %d in %.1f s", verdict.text, room.starts, delay / _SECOND)
            room.timer = self._loop.call_later(delay, lambda: self._spawn(process.seat))
        else:
            _log.error("%s; it waits for the operator", verdict.text)

    def _tell_tried(self, seat: Seat, verdict: Verdict | None) -> bool:
        """Tell who waits for the outcome of a trial; False if nobody does."""
        tried, self._rooms[seat].tried = self._rooms[seat].tried, None
        if tried is not None:
            tried(verdict)
        return tried is not None

    def _forget(self, room: _Room, process: ChildProcess) -> None:
        self._loop.remove_channel(process.channel)
        self._loop.remove_reader(process.pidfd)
        process.close()
        room.process = None
        room.since_unix = time.time_ns()
