"""systemd's readiness protocol (sd_notify), as far as a gateway needs it. Called by `_run`."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["tell_systemd"]


def tell_systemd(*lines: str) -> None:
    """Send `lines`, such as READY=1, if systemd asked for it; errors do not matter."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
