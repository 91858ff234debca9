"""Listening sockets and the connections of clients, for any line protocol.

    accept -> bytes in -> the protocol's `feed` -> later, `Connection.reply` -> bytes out

A client may be slow, silent or broken: nothing blocks, buffers are bounded, and too many clients at once are
turned away. One request of a connection is at work at a time; what comes after it waits in its buffer.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.process import Loop

__all__ = ["Connection", "Credentials", "Server"]

_log = logging.getLogger(__name__)

MAX_CLIENTS = 64
_CHUNK = 256 * 1024
_MAX_PENDING = 65 * 1024 * 1024


@dataclass(frozen=True)
class Credentials:
    """Who is at the other end of a UNIX socket, as the kernel says."""

    pid: int
    uid: int
    gid: int


class Connection:
    """One client. `feed(connection)` is called when there are new bytes in `received` and nothing is at work."""

    def __init__(
        self, loop: Loop, sock: socket.socket, feed: Callable[[Connection], None], closed: Callable[[Connection], None]
    ) -> None:
        self.received = bytearray()
        self.at_end = False
        self.busy = False
        self.credentials = _credentials(sock)
        self._loop = loop
        self._sock = sock
        self._feed = feed
        self._closed = closed
        self._out = bytearray()
        self._open = True
        self._last = False
        loop.add_reader(sock, self._read)

    def reply(self, data: bytes, *, last: bool = False) -> None:
        """Answer the request at work and go on to the next; `last` closes after it. Ignored once it is closed."""
        if not self._open:
            return
        self._out += data
        self._last = self._last or last
        self._write()
        if self._open and not self._last:
            self.busy = False
            self._pump()

    def close(self) -> None:
        """Drop the client."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self.received[:] = bytes(len(self.received))
            self._closed(self)

    def _read(self) -> None:
        # Not recv: it would leave an immutable copy behind of whatever pre-shared key is in there.
        chunk = bytearray(_CHUNK)
        try:
            size = self._sock.recv_into(chunk)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if size:
            self.received += memoryview(chunk)[:size]
            chunk[:size] = bytes(size)
        else:
            self.at_end = True
            self._loop.remove_reader(self._sock)
        if len(self.received) > _MAX_PENDING:
            self.close()
            return
        self._pump()

    def _pump(self) -> None:
        before = -1
        while self._open and not self.busy and len(self.received) != before:
            before = len(self.received)
            self._feed(self)
        if self._open and self.at_end and not self.busy and not self._out:
            self.close()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._out:
                try:
                    sent = self._sock.send(self._out)
                except BlockingIOError:
                    raise
                except OSError:
                    self.close()
                    return
                del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._sock, self._write)
            return
        self._loop.remove_writer(self._sock)
        if self._last or (self.at_end and not self.busy and not self.received):
            self.close()


class Server:
    """Accepts clients on a listening UNIX socket that it owns, and hands their bytes to `feed`."""

    def __init__(self, loop: Loop, listener: socket.socket, feed: Callable[[Connection], None]) -> None:
        self._loop = loop
        self._listener = listener
        self._feed = feed
        self._clients: set[Connection] = set()
        listener.setblocking(False)
        loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Stop listening and drop all clients."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for client in list(self._clients):
            client.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            _log.warning("turned a client away: %d are connected", len(self._clients))
            sock.close()
            return
        sock.setblocking(False)
        self._clients.add(Connection(self._loop, sock, self._feed, self._clients.discard))


def _credentials(sock: socket.socket) -> Credentials:
    size = struct.calcsize("3i")
    return Credentials(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
