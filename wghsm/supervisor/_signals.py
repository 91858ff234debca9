"""Signals as events of the loop. Called by `_run`, from the first moment, so that none ends the process half way."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from wghsm.process import Loop

__all__ = ["SignalWatch"]

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SignalWatch:
    """Catches SIGTERM, SIGINT and SIGHUP until `close`, for `handler`; those before the loop runs wait for it."""

    def __init__(self, loop: Loop) -> None:
        """Main thread only, as Python's signal handlers are."""
        self.handler: Callable[[signal.Signals], None] | None = None
        self._loop = loop
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._before = {number: signal.signal(number, _noted) for number in _WATCHED}
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        loop.add_reader(self._reader, self._read)

    def close(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._loop.remove_reader(self._reader)
        self._reader.close()
        self._writer.close()

    def _read(self) -> None:
        for number in self._reader.recv(64):
            if number in _WATCHED and self.handler is not None:
                self.handler(signal.Signals(number))


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Python has written the number to the wake-up descriptor already."""
