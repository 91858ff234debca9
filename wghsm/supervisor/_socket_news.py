"""The file of the UAPI socket: whoever deletes it ends the gateway, as with wireguard-go (PROTOCOL.md section 14.1).

    inotify (a link of the file is gone, or it was moved) -> is it still there, and still ours? -> if not: `gone`, once

Called by `_run`. Python has no inotify of its own: two calls of the C library are all that is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.process import Loop

    from ._sockets import UnixListener

__all__ = ["SocketNews"]

_log = logging.getLogger(__name__)

_ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x4, 0x400, 0x800
_libc = ctypes.CDLL(None, use_errno=True)


class SocketNews:
    """Watches the file of `listener`. Without inotify nothing is watched, which is logged."""

    def __init__(self, loop: Loop, listener: UnixListener, gone: Callable[[], None]) -> None:
        self._loop = loop
        self._listener = listener
        self._gone = gone
        self._fd: int | None = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        path = os.fsencode(listener.path)
        if self._fd < 0 or _libc.inotify_add_watch(self._fd, path, _ATTRIB | _DELETE_SELF | _MOVE_SELF) < 0:
            _log.warning("%s is not watched: %s", listener.path, os.strerror(ctypes.get_errno()))
        if self._fd < 0:
            self._fd = None
        else:
            loop.add_reader(self._fd, self._look)

    def close(self) -> None:
        """Watch no more. May be called twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)

    def _look(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._fd is not None and os.read(self._fd, 4096):
                pass
        if not self._listener.is_there():
            self.close()
            self._gone()
