"""The event loop of every process of a gateway: descriptors and timers, nothing else.

    epoll -> a descriptor's callback;   heap of deadlines (CLOCK_BOOTTIME) -> a timer's callback

One thread, no tasks and no futures: a callback runs to its end. Callers: the main function of each process.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from typing import TYPE_CHECKING, Protocol

from wghsm.ipc import ChannelClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.ipc import Channel
    from wghsm.ipc.messages import Message

__all__ = ["Loop", "Timer", "boottime"]

# Plain numbers: they are compared for each event.
_READ = ~select.EPOLLOUT
_WRITE = select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


def boottime() -> int:
    """CLOCK_BOOTTIME in nanoseconds: the clock between the processes; it goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Timer:
    """A deadline that can be cancelled. `when` is CLOCK_BOOTTIME in nanoseconds."""

    __slots__ = ("callback", "when")

    def __init__(self, when: int, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """The callback will not run any more."""
        self.callback = None


class Loop:
    """Runs callbacks until `stop`. Descriptors stay the property of whoever added them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._running = False
        self._worked = False
        self.eager = 0
        """How often to look again before going to sleep after work, while others may run: waking up takes longer."""

    def add_reader(self, source: int | _HasFileno, callback: Callable[[], None]) -> None:
        """Run `callback` whenever `source` is readable, at end of file or in error. Replaces an earlier one."""
        fd = _fd(source)
        self._readers[fd] = callback
        self._watch(fd)

    def remove_reader(self, source: int | _HasFileno) -> None:
        """Stop reading; call it before the descriptor is closed."""
        fd = _fd(source)
        if self._readers.pop(fd, None) is not None:
            self._watch(fd)

    def add_writer(self, source: int | _HasFileno, callback: Callable[[], None]) -> None:
        """Run `callback` whenever `source` is writable."""
        fd = _fd(source)
        self._writers[fd] = callback
        self._watch(fd)

    def remove_writer(self, source: int | _HasFileno) -> None:
        """Stop waiting until `source` is writable."""
        fd = _fd(source)
        if self._writers.pop(fd, None) is not None:
            self._watch(fd)

    def add_channel(
        self,
        channel: Channel,
        handler: Callable[[Message, list[int]], None],
        closed: Callable[[], None],
    ) -> None:
        """Hand every message of `channel` with its descriptors to `handler`, and send what `channel` had to keep.

        At end of file the channel is removed and `closed` runs once. ProtocolError leaves `run`.
        """

        def read() -> None:
            try:
                for message, fds in channel.messages():
                    handler(message, fds)
            except ChannelClosed:
                self.remove_channel(channel)
                closed()

        self.add_reader(channel, read)
        self.flush(channel)

    def flush(self, channel: Channel) -> None:
        """Send what `channel` kept, now or when its socket takes it. Call it after sends outside its handler."""
        if channel.backlog:

            def write() -> None:
                # A closed channel is found and told by its reader.
                with contextlib.suppress(ChannelClosed):
                    if not channel.flush():
                        return
                self.remove_writer(channel)

            self.add_writer(channel, write)

    def remove_channel(self, channel: Channel) -> None:
        """Forget `channel`; the caller closes it, after this call."""
        self.remove_reader(channel)
        self.remove_writer(channel)

    def call_at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Run `callback` once at `when` (CLOCK_BOOTTIME ns), at once if that is past."""
        timer = Timer(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay: int, callback: Callable[[], None]) -> Timer:
        """Run `callback` once after `delay` nanoseconds."""
        return self.call_at(boottime() + delay, callback)

    def stop(self) -> None:
        """Leave `run` after the callback at work."""
        self._running = False

    def run(self) -> None:
        """Run callbacks until `stop`. Their exceptions are not caught."""
        self._running = True
        while self._running:
            self.run_once()

    def run_once(self, longest: float | None = None) -> None:
        """Wait for events, `longest` seconds at most (None: no limit), and run their callbacks once."""
        for fd, events in self._poll(longest):
            if events & _READ and (reader := self._readers.get(fd)):
                reader()
            if events & _WRITE and (writer := self._writers.get(fd)):
                writer()
            if not self._running and longest is None:
                return
        self._run_timers()

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _poll(self, longest: float | None) -> list[tuple[int, int]]:
        if self._worked:
            poll, give_way = self._epoll.poll, os.sched_yield
            for _ in range(self.eager):
                if found := poll(0):
                    return found
                give_way()
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        wait = -1.0 if longest is None else longest
        if self._timers:
            # Rounded up to epoll's millisecond, so that a deadline never wakes the loop early again and again.
            due = max(0.0, (self._timers[0][0] - boottime()) / 1e9)
            wait = due if wait < 0 else min(wait, due)
        found = self._epoll.poll(wait)
        self._worked = bool(found)
        return found

    def _run_timers(self) -> None:
        if not self._timers:
            return
        now = boottime()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()

    def _watch(self, fd: int) -> None:
        events = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        try:
            if events:
                self._epoll.register(fd, events)
            else:
                self._epoll.unregister(fd)
        except FileExistsError:
            self._epoll.modify(fd, events)
        except FileNotFoundError:
            pass


def _fd(source: int | _HasFileno) -> int:
    return source if isinstance(source, int) else source.fileno()
