"""The log's files, and what becomes of events while they cannot be written.

    write(events) -> lines on the disk
                  -> the disk is full, the folder away or read-only: counted, `failing` says why
                     the next write that works begins with a `gap` record: how many are missing, and why

Nothing is raised. Called by `service`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from wghsm.audit import Event, LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wghsm.audit import AuditLog, Statement

__all__ = ["Writer"]


class Opener(Protocol):
    """Opens the log. Raises OSError and LogError."""

    def __call__(self, *, now: int) -> AuditLog: ...


class Writer:
    """`opener` opens the log; `trouble` is why its folder could not be made. Times are microseconds since 1970."""

    def __init__(self, opener: Opener, trouble: str = "") -> None:
        self._open = opener
        self._trouble = trouble
        self._log: AuditLog | None = None
        self._missing = 0
        self._began_at = -1
        self.failing = ""
        """Why the log cannot be written; empty while it can."""
        self.records = 0
        """Records written by this process."""
        self.unwritten = 0
        """Events that were not."""

    @property
    def unsealed(self) -> int:
        """Records of this process that no checkpoint is about yet."""
        log = self._log
        return 0 if log is None else log.chain.head.seq - max(log.chain.sealed, self._began_at)

    def write(self, events: Sequence[Event], now: int) -> list[bytes]:
        """Write the events; the lines that are on the disk now. No events: see whether the log can be written again."""
        lines: list[bytes] = []
        if not events and not self.failing:
            return lines

        def work() -> None:
            log = self._opened(lines, now)
            lines.extend(log.append([*self._gap(), *events], now))

        if self._try(work):
            self._missing, self.failing = 0, ""
        else:
            self._missing += len(events)
            self.unwritten += len(events)
        self.records += len(lines)
        return lines

    def due(self, now: int) -> bool:
        """Whether a checkpoint is due."""
        return self._log is not None and not self.failing and self._log.due(now)

    def statement(self, now: int) -> Statement | None:
        """What to sign; None where there is nothing yet."""
        return None if self._log is None or self._log.chain.head.seq < 0 else self._log.statement(now)

    def seal(
        self, statement: Statement, signature: bytes, key: str, algorithm: str, token: str, now: int
    ) -> list[bytes]:
        """Write a checkpoint."""
        lines: list[bytes] = []
        log = self._log
        if log is not None:
            self._try(lambda: lines.append(log.checkpoint(statement, signature, key, algorithm, now, token=token)))
        self.records += len(lines)
        return lines

    def tidy(self, now: int, *, sealing: bool) -> list[bytes]:
        """Do what retention asks for."""
        lines: list[bytes] = []
        log = self._log
        if log is not None:
            self._try(lambda: lines.extend(log.tidy(now, sealing=sealing)))
        self.records += len(lines)
        return lines

    def close(self) -> None:
        """Close the files."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _opened(self, lines: list[bytes], now: int) -> AuditLog:
        if self._log is None:
            self._log = self._open(now=now)
            lines.extend(self._log.opening)
            self._began_at = self._log.chain.head.seq - len(lines)
        return self._log

    def _gap(self) -> list[Event]:
        if not self._missing:
            return []
        return [Event(kind="gap", operation="unwritten", detail={"count": self._missing, "text": self.failing})]

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (OSError, LogError, ValueError) as error:
            self.failing = self._trouble or _text(error)
            return False
        self._trouble = ""
        return True


def _text(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return str(error)
