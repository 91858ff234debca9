"""systemd's readiness protocol (sd_notify), as far as a gateway needs it. Called by `_run`.

    tell_systemd    READY=1, STATUS=..., STOPPING=1
    Watchdog        WATCHDOG=1 from the supervisor's loop, twice in each interval: a loop that hangs is silent

A child that hangs is the supervisor's own business (`_children`), so the supervisor's pulse stands for the gateway.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wghsm.process import Loop

__all__ = ["Watchdog", "tell_systemd"]


def tell_systemd(*lines: str) -> None:
    """Send `lines`, such as READY=1, if systemd asked for it; errors do not matter."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


class Watchdog:
    """Tells systemd that the loop goes round, if the unit has a WatchdogSec= (systemd.service(5))."""

    def __init__(self, loop: Loop) -> None:
        """The first pulse is sent at once. Without the service manager's wish nothing ever happens."""
        self._loop = loop
        self._pause = _asked_interval() * 1000 // 2
        if self._pause:
            self._tell()

    def _tell(self) -> None:
        tell_systemd("WATCHDOG=1")
        self._loop.call_later(self._pause, self._tell)


def _asked_interval() -> int:
    """The service manager's interval in microseconds; 0 if it wants none, or wants it of another process."""
    interval, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    mine = not pid or pid == str(os.getpid())
    return int(interval) if mine and interval.isascii() and interval.isdigit() else 0
