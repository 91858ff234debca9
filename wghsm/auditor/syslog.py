"""Records to a syslog server: RFC 5424 messages in the frames of RFC 5425, over TLS.

    send -> queue (bounded; what has no room is counted) -> a thread: connect -> frames -> the server
                                                              ^ fails: again after 1, 2, 4 ... 60 s

Frames that were being sent when a connection broke are sent again on the next one, so a server may have a record
twice; TCP has no way to tell. The server's name is resolved at each connection, by the thread. Called by `service`.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

from .severity import severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wghsm.audit import Record
    from wghsm.ipc.messages import SyslogServer

__all__ = ["Syslog", "frame", "tls_context"]

_FACILITY = 13  # log audit
_ROOM = 10_000
_FRAMES_AT_ONCE = 100
_TIMEOUT = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


def tls_context(server: SyslogServer) -> tuple[ssl.SSLContext | None, str]:
    """The TLS settings for a server, read from files that only root may read; None and why, where that fails."""
    path = server.ca
    try:
        context = ssl.create_default_context(cafile=path or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if path := server.certificate:
            context.load_cert_chain(server.certificate, server.key_file or None, password=_no_password)
    except (OSError, ValueError) as error:
        return None, f"{path}: {getattr(error, 'strerror', None) or error}"
    return context, ""


def _no_password() -> str:
    raise ValueError("the private key is encrypted; give one that is not")


def frame(hostname: str, line: bytes, record: Record) -> bytes:
    """A record as RFC 5424 has it, with its length in front (RFC 5425 section 4.3)."""
    priority = _FACILITY * 8 + severity(record)
    header = f"<{priority}>1 {record.time} {hostname} wghsm-audit {os.getpid()} {record.kind} - "
    message = header.encode() + line
    return b"%d %s" % (len(message), message)


class Syslog:
    """One server. Without `context`, for the reason `trouble`, every record counts as lost."""

    name = "syslog"

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        trouble: str = "",
        *,
        room: int = _ROOM,
        first_pause: float = _FIRST_PAUSE,
    ) -> None:
        """`room` is how many records wait for a server, `first_pause` the seconds before the second try."""
        self._address = (host, port)
        self._context = context
        self._queue: queue.Queue[bytes] = queue.Queue(room)
        self._hostname = socket.gethostname() or "-"
        self._first_pause = first_pause
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = 0
        """Records that had no room."""
        self.losing = context is None
        """Whether the last one had none."""
        self.state = trouble or "not connected yet"

    def send(self, lines: Sequence[tuple[bytes, Record]]) -> None:
        """Queue the records, as far as there is room."""
        if self._thread is None and self._context is not None:
            # Not before the first record: a thread that began as root would stay root.
            self._thread = threading.Thread(target=self._run, args=(self._context,), name="syslog", daemon=True)
            self._thread.start()
        for line, record in lines:
            self.losing = not self._put(frame(self._hostname, line, record))
            self.lost += self.losing

    def _put(self, data: bytes) -> bool:
        if self._context is None:
            return False
        try:
            self._queue.put_nowait(data)
        except queue.Full:
            return False
        return True

    def close(self, patience: float = 1.0) -> None:
        """Let the thread send what is queued, for at most `patience` seconds."""
        if self._thread is None:
            return
        deadline = time.monotonic() + patience
        while self._queue.unfinished_tasks and self.state == "ok" and time.monotonic() < deadline:
            time.sleep(0.01)
        self._ending.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, context: ssl.SSLContext) -> None:
        pause = self._first_pause
        pending: list[bytes] = []
        while not self._ending.is_set():
            try:
                with (
                    socket.create_connection(self._address, timeout=_TIMEOUT) as plain,
                    context.wrap_socket(plain, server_hostname=self._address[0]) as connection,
                ):
                    self.state, pause = "ok", self._first_pause
                    while not self._ending.is_set():
                        pending = pending or self._next()
                        _look(connection)
                        connection.sendall(b"".join(pending))
                        for _ in pending:
                            self._queue.task_done()
                        pending = []
            except (OSError, ValueError) as error:
                self.state = _text(error)
            self._ending.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _next(self) -> list[bytes]:
        """Frames to send; none after a second without any."""
        frames: list[bytes] = []
        try:
            frames.append(self._queue.get(timeout=1.0))
            while len(frames) < _FRAMES_AT_ONCE:
                frames.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return frames


def _look(connection: ssl.SSLSocket) -> None:
    """A syslog server says nothing: what comes is its end, or noise. Raises OSError when it has closed."""
    connection.settimeout(0.0)
    try:
        if not connection.recv(4096):
            raise ConnectionResetError("the server has closed the connection")
    except (ssl.SSLWantReadError, BlockingIOError):
        pass
    finally:
        connection.settimeout(_TIMEOUT)


def _text(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not good: {error.verify_message}"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
