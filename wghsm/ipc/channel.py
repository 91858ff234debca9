"""One end of a socket pair between two processes: typed messages in, typed messages out.

    message -> msgpack -> SOCK_SEQPACKET -> msgpack, held to the table -> message

Called by every process of a gateway. A channel never blocks: `send` keeps what the kernel does not take
until `flush` (the loop calls it when the socket is writable), `try_send` gives up instead. Anything that the
table does not allow, a wrong version or a message of no known shape is a ProtocolError, which ends the process.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Union

import msgspec

from wghsm.wipe import wipe

from . import messages as m
from .roles import ENDS, ChannelKind, Role
from .table import accepted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["VERSION", "Channel", "ChannelClosed", "ProtocolError", "socket_pair"]

VERSION = 1
"""Version of the messages; both ends of a channel must have the same."""

MAX_MESSAGE = 208 * 1024
"""Greatest message in bytes; bulk tables go in parts (SEAMS.md "Channels")."""

MAX_QUEUED = 16384
"""Messages kept for a receiver that does not read before it counts as dead."""

_BUFFER = 4 * 1024 * 1024
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_MAX_FDS = 4
_ANCILLARY = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
# As plain integers: each operation on an enum of flags costs as much as a system call.
_RECEIVE, _SEND = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_NOSIGNAL)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_SECRET = (m.InstallSend, m.InstallReceive, m.PutPsk, m.Gates)


class ProtocolError(Exception):
    """The other end sent what the table does not allow; fatal for this process."""


class ChannelClosed(Exception):  # noqa: N818
    """The other end is gone."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """A fresh SOCK_SEQPACKET pair with room for thousands of small messages, neither end inheritable."""
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (first, second):
        for force, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                end.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
            except PermissionError:
                end.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
    return first, second


class Channel:
    """`role`'s end of a channel of `kind` over `sock`, which it owns from now on. Sends Hello at once."""

    def __init__(self, sock: socket.socket, kind: ChannelKind, role: Role) -> None:
        """Take over `sock`; ValueError if `role` has no end on `kind`."""
        if role not in ENDS[kind]:
            raise ValueError(f"{role} has no end on {kind}")
        self.kind = kind
        self.role = role
        self.other = next(end for end in ENDS[kind] if end != role)
        self._sock = sock
        self._sock.setblocking(False)
        types = accepted(kind, role)
        self._decoder: msgspec.msgpack.Decoder[m.Message] = msgspec.msgpack.Decoder(Union[types])  # noqa: UP007
        self._encoder = msgspec.msgpack.Encoder()
        self._out = bytearray(4096)
        self._in = bytearray(MAX_MESSAGE)
        self._queue: deque[tuple[bytearray, list[int]]] = deque()
        self._greeted = False
        self.send(m.Hello(VERSION, role))

    def __repr__(self) -> str:
        return f"Channel({self.kind}, {self.role})"

    def fileno(self) -> int:
        """The socket's descriptor, for the loop."""
        return self._sock.fileno()

    @property
    def backlog(self) -> int:
        """Messages kept because the kernel would not take them yet."""
        return len(self._queue)

    def send(self, message: m.Message, fds: Sequence[int] = ()) -> None:
        """Send now or, when the socket is full, keep for `flush`. Order is kept.

        The descriptors in `fds` are duplicated if the message has to wait; the caller keeps its own.
        Raises ChannelClosed when the other end is gone or has not read MAX_QUEUED messages.
        """
        if not self._queue and self._transmit(message, fds):
            return
        if len(self._queue) >= MAX_QUEUED:
            raise ChannelClosed(f"{self.other} does not read {self.kind}")
        self._queue.append((bytearray(self._encode(message)), [_duplicate(fd) for fd in fds]))
        self._clean(message)

    def try_send(self, message: m.Message) -> bool:
        """Send now or not at all; False when the socket is full. Raises ChannelClosed."""
        return not self._queue and self._transmit(message, ())

    def flush(self) -> bool:
        """Send what was kept; True when nothing is left. Raises ChannelClosed."""
        while self._queue:
            data, fds = self._queue[0]
            if not self._write(data, fds):
                return False
            self._queue.popleft()
            wipe(data)
            for fd in fds:
                os.close(fd)
        return True

    def receive(self) -> tuple[m.Message, list[int]] | None:
        """One message with its descriptors (which the caller owns), or None when nothing waits.

        Raises ChannelClosed at end of file and ProtocolError for anything the table does not allow.
        """
        while True:
            try:
                size, ancillary, flags, _ = self._sock.recvmsg_into([self._in], _ANCILLARY, _RECEIVE)
            except (BlockingIOError, InterruptedError):
                return None
            except ConnectionResetError:
                # The other end went without having read everything. The kernel says so once, before the messages
                # that it sent (its last words may be among them) and the end of file.
                continue
            except ConnectionError:
                raise ChannelClosed(f"{self.other} closed {self.kind}") from None
            fds = list(_descriptors(ancillary)) if ancillary else []
            if size == 0:
                raise ChannelClosed(f"{self.other} closed {self.kind}")
            if flags & _CUT:
                raise ProtocolError(f"a message of {self.other} on {self.kind} is too long")
            try:
                message = self._decoder.decode(memoryview(self._in)[:size])
            except msgspec.MsgspecError:
                raise ProtocolError(f"{self.other} sent a message that {self.kind} does not allow") from None
            if isinstance(message, _SECRET):
                self._in[:size] = bytes(size)
            if isinstance(message, m.Hello):
                self._greet(message)
                continue
            if not self._greeted:
                raise ProtocolError(f"{self.other} did not begin {self.kind} with Hello")
            return message, fds

    def messages(self, limit: int = 64) -> Iterator[tuple[m.Message, list[int]]]:
        """Up to `limit` waiting messages, as `receive` gives them."""
        for _ in range(limit):
            item = self.receive()
            if item is None:
                return
            yield item

    def close(self) -> None:
        """Close the socket and drop what was kept."""
        self._sock.close()
        while self._queue:
            data, fds = self._queue.popleft()
            wipe(data)
            for fd in fds:
                os.close(fd)

    def _greet(self, hello: m.Hello) -> None:
        if self._greeted or hello.version != VERSION or hello.role != self.other:
            raise ProtocolError(f"{self.other} speaks version {hello.version} as {hello.role} on {self.kind}")
        self._greeted = True

    def _encode(self, message: m.Message) -> bytearray:
        self._encoder.encode_into(message, self._out)
        if len(self._out) > MAX_MESSAGE:
            raise ValueError(f"{type(message).__name__} of {len(self._out)} bytes: send it in parts")
        return self._out

    def _transmit(self, message: m.Message, fds: Sequence[int]) -> bool:
        sent = self._write(self._encode(message), fds)
        self._clean(message)
        return sent

    def _clean(self, message: m.Message) -> None:
        if isinstance(message, _SECRET):
            wipe(self._out)

    def _write(self, data: bytearray, fds: Sequence[int]) -> bool:
        try:
            if fds:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                self._sock.sendmsg([data], rights, _SEND)
            else:
                self._sock.send(data, _SEND)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ChannelClosed(f"{self.other} closed {self.kind}: {error.strerror}") from None
        return True


def _duplicate(fd: int) -> int:
    return os.dup(fd)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            yield from fds
