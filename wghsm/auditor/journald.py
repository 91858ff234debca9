"""Records to journald, over its own socket and with fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    MESSAGE=the line   SYSLOG_IDENTIFIER=wghsm-audit   WGHSM_GATEWAY, WGHSM_KIND, WGHSM_SEQ   PRIORITY

A datagram a record, sent without waiting. What journald does not take now is kept for the next time, up to `room`
records; what has no room is counted. Called by `service`.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING

from .severity import severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wghsm.audit import Record

__all__ = ["Journald", "fields"]

_ROOM = 10_000


def fields(gateway: str, line: bytes, record: Record) -> bytes:
    """A record as journald takes it. The line holds no line feed, so every field is one line."""
    return b"MESSAGE=%s\nPRIORITY=%d\nSYSLOG_FACILITY=13\nSYSLOG_IDENTIFIER=wghsm-audit\n%s" % (
        line,
        severity(record),
        f"WGHSM_GATEWAY={gateway}\nWGHSM_KIND={record.kind}\nWGHSM_SEQ={record.seq}\n".encode(),
    )


class Journald:
    """The journald that listens at `path`. Where it is not `required`, it may be absent: that is no fault."""

    name = "journald"

    def __init__(self, path: str, gateway: str, *, required: bool, room: int = _ROOM) -> None:
        self._path = path
        self._gateway = gateway
        self._expected = required
        self._room = room
        self._waiting: deque[bytes] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.lost = 0
        """Records that had no room."""
        self.losing = False
        """Whether the last one had none."""
        self.state = "not used yet"

    def send(self, lines: Sequence[tuple[bytes, Record]]) -> None:
        """Hand the records over, and what waits, as far as they are taken."""
        for line, record in lines:
            self.losing = len(self._waiting) >= self._room
            if self.losing:
                self.lost += 1
            else:
                self._waiting.append(fields(self._gateway, line, record))
        try:
            while self._waiting:
                self._socket.sendto(self._waiting[0], self._path)
                self._waiting.popleft()
                self._expected = True
                self.state = "ok"
        except OSError as error:
            if not self._expected and isinstance(error, FileNotFoundError | ConnectionRefusedError):
                self._waiting.clear()
                self.state = "there is none"
            elif not isinstance(error, BlockingIOError):
                self.state = f"{self._path}: {error.strerror}"

    def close(self) -> None:
        """Hand over what waits, as far as it is taken, and close the socket."""
        self.send(())
        self._socket.close()
