"""Records to journald, over its own socket and with fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    MESSAGE=the line   SYSLOG_IDENTIFIER=wghsm-audit   WGHSM_GATEWAY, WGHSM_KIND, WGHSM_SEQ   PRIORITY

A datagram a record, sent without waiting: what journald does not take is counted. Called by `service`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from .severity import severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wghsm.audit import Record

__all__ = ["Journald", "fields"]


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

    def __init__(self, path: str, gateway: str, *, required: bool) -> None:
        self._path = path
        self._gateway = gateway
        self._expected = required
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.lost = 0
        """Records that were not taken."""
        self.losing = False
        """Whether the last one was not."""
        self.state = "not used yet"

    def send(self, lines: Sequence[tuple[bytes, Record]]) -> None:
        """Hand the records over, as far as they are taken."""
        for line, record in lines:
            try:
                self._socket.sendto(fields(self._gateway, line, record), self._path)
            except OSError as error:
                if not self._expected and isinstance(error, FileNotFoundError | ConnectionRefusedError):
                    self.state = "there is none"
                    return
                self.lost += 1
                self.losing = True
                self.state = f"{self._path}: {error.strerror}"
            else:
                self._expected = True
                self.losing = False
                self.state = "ok"

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
