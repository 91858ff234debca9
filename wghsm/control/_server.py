"""Listening sockets and the connections of clients, for any line protocol.

    accept -> bytes in -> the protocol's `feed` -> later, `Connection.reply` -> bytes out

A client may be slow, silent or broken: nothing blocks, and buffers are bounded, each and all together. Where too many
clients are there, the one that has been silent for longest goes. One request of a connection is at work at a time; what
comes after it waits in its buffer, until the answer has been read too.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
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
_MAX_PENDING_TOGETHER = 2 * _MAX_PENDING


@dataclass(frozen=True)
class Credentials:
    """Who is at the other end of a UNIX socket, as the kernel says."""

    pid: int
    uid: int
    gid: int


class Connection:
    """One client. `feed(connection)` is called when there are new bytes in `received` and nothing is at work.

    `searched` is for `feed`: how many of these bytes it has looked at in vain.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        feed: Callable[[Connection], None],
        closed: Callable[[Connection], None],
        grown: Callable[[], None] = lambda: None,
    ) -> None:
        """`grown` is called when more bytes wait here than before."""
        self.received = bytearray()
        self.searched = 0
        self.at_end = False
        self.busy = False
        self.active_at = time.monotonic()
        self.credentials = _credentials(sock)
        self._loop = loop
        self._sock = sock
        self._feed = feed
        self._closed = closed
        self._grown = grown
        self._out = bytearray()
        self._open = True
        self._last = False
        self._pumping = False
        loop.add_reader(sock, self._read)

    @property
    def pending(self) -> int:
        """Bytes that wait here, in either direction."""
        return len(self.received) + len(self._out)

    def reply(self, data: bytes, *, last: bool = False) -> None:
        """Answer the request at work and go on to the next; `last` closes after it. Ignored once it is closed."""
        if not self._open:
            return
        self._out += data
        self._last = self._last or last
        self.busy = False
        self._write()
        if self._open:
            self._grown()

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
        self.active_at = time.monotonic()
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
        if self._open:
            self._grown()

    def _pump(self) -> None:
        if self._pumping:
            # Answered from within `feed`: the loop below goes on when that has come back.
            return
        self._pumping = True
        before = -1
        while self._open and not self.busy and not self._out and not self._last and len(self.received) != before:
            before = len(self.received)
            self._feed(self)
        self._pumping = False
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
                self.active_at = time.monotonic()
                del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._sock, self._write)
            return
        self._loop.remove_writer(self._sock)
        if self._last:
            self.close()
        else:
            self._pump()


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
            silent = min(self._clients, key=lambda client: (client.busy, client.active_at))
            _log.warning("%d clients are connected: the one that has been silent for longest goes", len(self._clients))
            silent.close()
        sock.setblocking(False)
        self._clients.add(Connection(self._loop, sock, self._feed, self._clients.discard, self._bound))

    def _bound(self) -> None:
        """Drop the client for whom most waits when too much waits for all together."""
        if sum(client.pending for client in self._clients) > _MAX_PENDING_TOGETHER:
            _log.warning("too much waits for the clients: the one with most of it goes")
            max(self._clients, key=lambda client: client.pending).close()


def _credentials(sock: socket.socket) -> Credentials:
    size = struct.calcsize("3i")
    return Credentials(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
