"""How a child process of the supervisor begins, talks and ends (SEAMS.md "Processes").

    exec as root -> imports done -> Start -> the role opens what only root may open -> drop privileges
    -> Ready when it serves -> loop -> end of file, Shutdown or a fault -> exit code

The program of each room (`python -m wghsm.custodian --channel FD`) calls `run_child`; its main function
registers handlers with `on`, opens its files, calls `drop` and then `serve`. The other channels of the process
come later by Attach, and a fresh one each time that the process at the other end was restarted.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import socket
import sys
from typing import TYPE_CHECKING, TypeVar, cast

from wghsm.exits import ExitCode
from wghsm.ipc import Channel, ChannelClosed, ChannelKind, ProtocolError, Role, StatsFile, seat_of
from wghsm.ipc import messages as m

from . import privileges
from .log import configure_log
from .loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Child", "ChildFault", "run_child"]

_log = logging.getLogger(__name__)

_BEHIND = 10
"""How much nicer those are that make handshakes: a tenth of a processor is theirs whatever the packets take."""

_M = TypeVar("_M", bound=m.Message)

_End = tuple[ChannelKind, int]
"""A channel of this process: its kind, and the worker at the other end."""


class ChildFault(Exception):  # noqa: N818
    """Ends the child with this exit code; the one line goes to the supervisor, which shows it to the operator."""

    def __init__(self, exit_code: ExitCode, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.text = text


class Child:
    """One child process: its loop, its channel to the supervisor and the channels it is handed later.

    `worker` in its methods: whose process is at the other end, where each worker of the tunnel has one.
    """

    def __init__(self, role: Role, fd: int) -> None:
        """Take over `fd`, the child's end of its channel to the supervisor, and wait for Start."""
        self.role = role
        self.loop = Loop()
        self.home = ChannelKind(f"{Role.SUPERVISOR}-{role}")
        self._channels: dict[_End, Channel] = {
            (self.home, 0): Channel(socket.socket(fileno=fd), self.home, role),
        }
        self._handlers: dict[tuple[_End, type[m.Message]], Callable[[m.Message, list[int]], None]] = {}
        self._attached: dict[_End, Callable[[int], None]] = {}
        self._detached: dict[_End, Callable[[], None]] = {}
        self._stats: StatsFile | None = None
        self.start: m.Start = self.await_message(m.Start)[0]
        configure_log(self.start.gateway, seat_of(role, self.start.worker), self.start.log_level)
        self.on(self.home, m.Attach, self._attach)
        self.on(self.home, m.StatsTable, self._map_stats)
        self.on(self.home, m.Shutdown, lambda _message, _fds: self.loop.stop())

    @property
    def stats(self) -> StatsFile:
        """The statistics table; RuntimeError before the supervisor has sent it."""
        if self._stats is None:
            raise RuntimeError("the statistics table has not come yet")
        return self._stats

    def await_message(self, kind: type[_M]) -> tuple[_M, list[int]]:
        """Block until the supervisor's next message, which must be of type `kind`.

        StatsTable is taken on the way. Raises ChannelClosed and ProtocolError.
        """
        channel = self._channels[self.home, 0]
        while True:
            item = channel.receive()
            if item is None:
                select.select([channel], [], [])
            elif isinstance(item[0], kind):
                return cast("tuple[_M, list[int]]", item)
            elif isinstance(item[0], m.StatsTable):
                self._map_stats(item[0], item[1])
            else:
                raise ProtocolError(f"expected {kind.__name__} of the supervisor, got {type(item[0]).__name__}")

    def drop(self, keep_memory_lock: bool = False, behind: bool = False) -> None:
        """Give up root for good: become Start's uid and gid, and close every door behind (see privileges).

        `behind`: where processors are short, packets go before what this process does. Its threads begin after this.
        """
        if behind:
            os.nice(_BEHIND)
        privileges.drop(self.start.uid, self.start.gid, self.start.parent, keep_memory_lock=keep_memory_lock)

    def on(
        self, kind: ChannelKind, message: type[_M], handler: Callable[[_M, list[int]], None], worker: int = 0
    ) -> None:
        """Call `handler` with each message of this type on channels of `kind`, and its descriptors to own."""
        self._handlers[(kind, worker), message] = cast("Callable[[m.Message, list[int]], None]", handler)

    def on_attach(self, kind: ChannelKind, handler: Callable[[int], None], worker: int = 0) -> None:
        """Call `handler` with the incarnation of the other end whenever a fresh channel of `kind` is there."""
        self._attached[kind, worker] = handler

    def on_detach(self, kind: ChannelKind, handler: Callable[[], None], worker: int = 0) -> None:
        """Call `handler` when the other end of `kind` is gone."""
        self._detached[kind, worker] = handler

    def has(self, kind: ChannelKind, worker: int = 0) -> bool:
        """Whether there is a channel of `kind` now."""
        return (kind, worker) in self._channels

    def send(self, kind: ChannelKind, message: m.Message, fds: Sequence[int] = (), worker: int = 0) -> bool:
        """Send on the channel of `kind`, in order and without blocking; False if its other end is gone."""
        channel = self._channels.get((kind, worker))
        if channel is None:
            return False
        try:
            channel.send(message, fds)
            if channel.backlog:
                self.loop.flush(channel)
        except ChannelClosed:
            return False
        return True

    def try_send(self, kind: ChannelKind, message: m.Message) -> bool:
        """Send on the channel of `kind` now or not at all; False if it is full or its other end is gone."""
        channel = self._channels.get((kind, 0))
        if channel is None:
            return False
        try:
            return channel.try_send(message)
        except ChannelClosed:
            return False

    def catch_up(self, kind: ChannelKind) -> None:
        """Handle now what waits on the channel of `kind`, out of turn. That its other end is gone is found later."""
        end = (kind, 0)
        channel = self._channels.get(end)
        if channel is not None:
            with contextlib.suppress(ChannelClosed):
                for message, fds in channel.messages():
                    self._dispatch(end, message, fds)

    def report(self, message: m.Message, fds: Iterable[int] = ()) -> None:
        """Send to the supervisor."""
        self.send(self.home, message, tuple(fds))

    def serve(self) -> None:
        """Run the loop until the supervisor says Shutdown or goes away. ProtocolError is fatal and not caught."""
        end = (self.home, 0)
        self.loop.add_channel(
            self._channels[end], lambda message, fds: self._dispatch(end, message, fds), self.loop.stop
        )
        self.loop.run()

    def _dispatch(self, end: _End, message: m.Message, fds: list[int]) -> None:
        if isinstance(message, m.Ping):
            self.report(m.Pong())
            return
        handler = self._handlers.get((end, type(message)))
        if handler is None:
            raise ProtocolError(f"{self.role} has no use for {type(message).__name__} on {end[0]}")
        handler(message, fds)

    def _attach(self, message: m.Attach, fds: list[int]) -> None:
        end = (ChannelKind(message.kind), message.worker)
        self._detach(end)
        sock = socket.socket(fileno=fds[0])
        try:
            channel = Channel(sock, end[0], self.role)
        except ChannelClosed:
            # Whoever was at the other end is dead already; its successor comes with a pair of its own.
            sock.close()
            return
        self._channels[end] = channel
        self.loop.add_channel(
            channel,
            lambda received, received_fds: self._dispatch(end, received, received_fds),
            lambda: self._detach(end, channel),
        )
        if handler := self._attached.get(end):
            handler(message.incarnation)

    def _detach(self, end: _End, only: Channel | None = None) -> None:
        channel = self._channels.get(end)
        if channel is None or (only is not None and channel is not only):
            return
        del self._channels[end]
        self.loop.remove_channel(channel)
        channel.close()
        if handler := self._detached.get(end):
            handler()

    def _map_stats(self, _message: m.StatsTable, fds: list[int]) -> None:
        self._stats = StatsFile(fds[0], self.role, self.start.worker)
        os.close(fds[0])


def run_child(role: Role, main: Callable[[Child], None]) -> int:
    """The whole life of a child: arguments, Start, `main`, and an exit code (wghsm.exits).

    Faults are told to the supervisor in one line. An exception that nobody foresaw is logged by its type and
    place only: its text could hold a secret.
    """
    arguments = argparse.ArgumentParser(description=f"The {role} process of a wghsm gateway; started by it.")
    arguments.add_argument("--channel", type=int, required=True, help="descriptor of the supervisor's channel")
    fd: int = arguments.parse_args().channel
    privileges.ignore_terminal_signals()
    try:
        child = Child(role, fd)
    except (ChannelClosed, ProtocolError) as error:
        sys.stderr.write(f"wghsm {role}: {error}\n")
        return ExitCode.PROTOCOL
    try:
        main(child)
    except ChannelClosed:
        return ExitCode.OK
    except ChildFault as fault:
        code, text = fault.exit_code, fault.text
    except ProtocolError as error:
        code, text = ExitCode.PROTOCOL, str(error)
    except Exception as error:
        code, text = ExitCode.FAILURE, f"{role} failed: {_where(error)}"
        _log.error("%s", text)
    else:
        return ExitCode.OK
    with contextlib.suppress(ChannelClosed):
        child.report(m.Fault(int(code), text))
    return code


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "nowhere"  # noqa: PTH119
    return f"{type(error).__name__} at {place}"
