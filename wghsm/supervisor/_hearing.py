"""Deaf sockets: while the interface is down, nothing may queue up for the moment when it is up again.

The kernel's WireGuard closes its sockets with the interface. Here three processes hold them, so they stay, with a
filter that drops whatever comes. It holds for all copies of a descriptor. Called by `_link_news` and `_requests`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["set_hearing"]

_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_DROP = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""One instruction of classic BPF: return 0, take no byte of the packet."""
_MOST_WAITING = 100_000


def set_hearing(descriptors: Iterable[int], hearing: bool) -> None:
    """Let the UDP sockets hear, or drop what comes and what waits. Twice the same does no harm."""
    for fd in descriptors:
        with contextlib.closing(socket.socket(fileno=os.dup(fd))) as sock:
            if hearing:
                # There is none if the socket was never made deaf.
                with contextlib.suppress(FileNotFoundError):
                    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            else:
                _deafen(sock)


def _deafen(sock: socket.socket) -> None:
    code = ctypes.create_string_buffer(_DROP)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))
    for _ in range(_MOST_WAITING):
        try:
            sock.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            # An ICMP error of something that was sent before.
            continue
