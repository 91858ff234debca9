"""A log as its writer has it: chain and files together.

    open -> append(events) -> lines on the disk -> (the caller's sinks)
            due? -> statement -> signed elsewhere -> checkpoint -> line on the disk
            tidy: rotation; retention is written down, sealed, and only then carried out

Called by the auditor process (log `gateway`, held open) and by the commands (log `commands`, opened for each).
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from .chain import Chain, Head, stream_name
from .files import Limits, LogFile, LogFiles
from .record import Event, microseconds
from .statement import Statement

__all__ = ["AuditLog"]


class AuditLog:
    """One log in its folder. Methods raise LogError and OSError; then nothing of what was asked is in the log.

    `now` is the wall clock in microseconds since 1970. A line comes without its line feed, and is on the disk before it
    is returned, so a crash never takes from the files what a sink has.
    """

    def __init__(
        self,
        folder: Path,
        gateway: str,
        log: str,
        now: int,
        *,
        limits: Limits | None = None,
        wait: bool = False,
        identity: bytes | None = None,
    ) -> None:
        """Open the log at its end, or begin it with a `start` record; `wait` for another writer, or raise LogBusyError.

        A new stream has 16 random bytes in its name (`identity` in tests). What a crash has left at the end is set
        aside and said in a `recovery` record.
        """
        self.limits = limits or Limits()
        self._files = LogFiles(folder, log, wait=wait)
        self._announced: tuple[list[LogFile], int] | None = None
        last = self._files.last
        events: list[Event] = []
        try:
            if last is None:
                identity = os.urandom(16) if identity is None else identity
                self.chain = Chain(stream_name(gateway, log, identity))
                events.append(Event(kind="start", operation="begin_log", detail={"host": os.uname().nodename}))
            else:
                self.chain = Chain(last.stream, Head(last.seq, hashlib.sha256(self._files.last_line).hexdigest()))
            if self._files.torn:
                detail: dict[str, str | int] = {"file": self._files.torn, "bytes": self._files.torn_bytes}
                events.append(Event(kind="recovery", operation="cut_torn_end", detail=detail))
            self.opening = self.append(events, now)
            """The lines that opening it wrote, for the sinks."""
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and give the lock back."""
        self._files.close()

    def append(self, events: Sequence[Event], now: int) -> list[bytes]:
        """Write a record for each event, all or none of them, and return their lines."""
        before = self.chain.state
        try:
            lines = [self.chain.append(event, now) for event in events]
            self._write(lines, now)
        except BaseException:
            self.chain.state = before
            raise
        return lines

    def due(self, now: int) -> bool:
        """Whether a checkpoint is due. It stays so until `checkpoint`, also while a statement is being signed."""
        return self.chain.due(now)

    def statement(self, now: int) -> Statement:
        """What to sign for the last record."""
        return self.chain.statement(now)

    def statement_after(self, events: Sequence[Event], now: int) -> Statement:
        """What to sign for the last record once these events have been appended at `now`; nothing is written."""
        ahead = Chain(self.chain.stream, self.chain.head)
        for event in events:
            ahead.append(event, now)
        return ahead.statement(now)

    def checkpoint(
        self, statement: Statement, signature: bytes, fingerprint: str, algorithm: str, now: int, *, token: str = ""
    ) -> bytes:
        """Write the checkpoint that `signature` makes of `statement`, and return its line; as Chain.checkpoint."""
        before = self.chain.state
        try:
            line = self.chain.checkpoint(statement, signature, fingerprint, algorithm, now, token=token)
            self._write([line], now)
        except BaseException:
            self.chain.state = before
            raise
        return line

    def tidy(self, now: int, *, sealing: bool) -> list[bytes]:
        """Do what retention asks for; to be called now and then. Returns the lines written, for the sinks.

        The removal is announced in a `retention` record first. With `sealing` (checkpoints are made) the files go when
        a checkpoint is about that record, so that no verifier meets a removal that anybody could have claimed.
        """
        lines: list[bytes] = []
        if self.limits.retention is None:
            return lines
        if self._announced is None and (expired := self._expired(now - self.limits.retention)):
            last = self._files.last_of(expired[-1])
            if last is None:
                return lines
            detail: dict[str, str | int] = {
                "seq": last[0].seq,
                "hash": hashlib.sha256(last[1]).hexdigest(),
                "until": last[0].time,
                "files": len(expired),
            }
            lines = self.append([Event(kind="retention", operation="remove", detail=detail)], now)
            self._announced = expired, self.chain.head.seq
        if self._announced is not None and (not sealing or self.chain.sealed >= self._announced[1]):
            self._files.remove(self._announced[0])
            self._announced = None
        return lines

    def _expired(self, before: int) -> list[LogFile]:
        """The oldest files all of whose records are older than `before`: the next file had begun by then."""
        files = self._files.files()
        expired = 0
        for place, following in enumerate(files[1:]):
            first = self._files.first_of(following)
            if first is None or microseconds(first.time) >= before:
                break
            expired = place + 1
        return files[:expired]

    def _write(self, lines: list[bytes], now: int) -> None:
        if self._files.size >= self.limits.size or now - self._files.began >= self.limits.age:
            self._files.rotate()
        self._files.write(lines, now)
