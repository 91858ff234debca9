"""The files of one stream in a folder: opened at their end, rotated, removed when retention says so.

    FOLDER/gateway.000001.jsonl, gateway.000002.jsonl, ...   the highest number is written to
    FOLDER/gateway.000002.torn                               what a crash left of a line, cut off
    FOLDER/gateway.lock                                      flock: one writer

The only module of the room that writes. Called by `AuditLog`. A folder may belong to a process with fewer rights than
the writer's, so files are opened relative to it and never through a link.
"""

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from .record import MAX_LINE, Record, decode, microseconds

__all__ = ["Limits", "LogBusyError", "LogError", "LogFile", "LogFiles", "list_files"]

_MODE = 0o640
_BLOCK = 1 << 16


class LogError(Exception):
    """The log's files cannot be used: one line for the operator."""


class LogBusyError(LogError):
    """Another process writes this log."""


@dataclass(frozen=True)
class Limits:
    """When a file is full and when it is old: bytes, and microseconds. `retention` None keeps all."""

    size: int = 64 << 20
    age: int = 7 * 86_400_000_000
    retention: int | None = 400 * 86_400_000_000


@dataclass(frozen=True)
class LogFile:
    """One file of a log; `number` counts from 1."""

    path: Path
    log: str
    number: int


_NAME = re.compile(r"([a-z]{1,16})\.([0-9]{6,12})\.jsonl")


def list_files(folder: Path) -> dict[str, list[LogFile]]:
    """The files in `folder` by log, in order. Raises OSError."""
    found: dict[str, list[LogFile]] = {}
    for path in folder.iterdir():
        if name := _NAME.fullmatch(path.name):
            found.setdefault(name[1], []).append(LogFile(path, name[1], int(name[2])))
    for files in found.values():
        files.sort(key=lambda file: file.number)
    return dict(sorted(found.items()))


class LogFiles:
    """A log's files, open for writing at their end. Raises LogError and OSError, here and in every method."""

    def __init__(self, folder: Path, log: str, *, wait: bool) -> None:
        """Take the lock (with `wait` when it is free, else LogBusyError if it is not) and find the end."""
        self.log = log
        self.last: Record | None = None
        """The last record, None in a new stream."""
        self.last_line = b""
        self.torn = ""
        """The file with what was cut off at the end when it was opened, `torn_bytes` long; "" where nothing was."""
        self.torn_bytes = 0
        self.size = 0
        """Bytes of the file that is written to."""
        self.began = 0
        """When it began, in us since 1970."""
        self.folder = folder
        self._number = 0
        self._file = -1
        self._dirty = False
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = -1
        try:
            self._lock = self._take_lock(wait=wait)
            self._find_end()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all, and give the lock back."""
        for descriptor in (self._file, self._lock, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = self._folder = -1

    def write(self, lines: list[bytes], now: int) -> None:
        """Have `lines` on the disk, all or none of them. `now` (us since 1970) is when a new file begins."""
        data = b"".join(line + b"\n" for line in lines)
        if not data:
            return
        if self._dirty:
            self._cut_back()
        if self._file < 0:
            self._create(now)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except BaseException:
            self._dirty = True
            with contextlib.suppress(OSError):
                self._cut_back()
            raise
        self.size += len(data)

    def rotate(self) -> None:
        """The next `write` begins a new file."""
        if self._dirty:
            self._cut_back()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def files(self) -> list[LogFile]:
        """All files of this log, in order."""
        return list_files(self.folder).get(self.log, [])

    def first_of(self, file: LogFile) -> Record | None:
        """The first record of a file; None where it has no whole line yet."""
        with os.fdopen(self._open(file.path.name, os.O_RDONLY), "rb") as stream:
            line = stream.readline(MAX_LINE + 1)
        return _record(line[:-1]) if line.endswith(b"\n") else None

    def last_of(self, file: LogFile) -> tuple[Record, bytes] | None:
        """The last record of a file with its line; None where there is none."""
        descriptor = self._open(file.path.name, os.O_RDONLY)
        try:
            found = _last(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        return None if found is None else found[:2]

    def remove(self, files: list[LogFile]) -> None:
        """Remove files, the oldest first: what is left is whole whenever this is interrupted."""
        for file in sorted(files, key=lambda one: one.number):
            os.unlink(file.path.name, dir_fd=self._folder)
        os.fsync(self._folder)

    def _named(self, number: int) -> str:
        return f"{self.log}.{number:06}.jsonl"

    def _take_lock(self, *, wait: bool) -> int:
        descriptor = self._open(f"{self.log}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            raise LogBusyError(f"{self.folder}: another process writes the {self.log} log") from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _find_end(self) -> None:
        for file in reversed(self.files()):
            self._number = max(self._number, file.number)
            descriptor = self._open(file.path.name, os.O_RDWR | os.O_APPEND)
            try:
                size = os.fstat(descriptor).st_size
                found = _last(descriptor, size)
                end = 0 if found is None else found[2]
                if end < size:
                    self._set_torn_aside(descriptor, file.number, end, size)
                if found is None:
                    continue
                self.last, self.last_line = found[0], found[1]
                if file.number == self._number:
                    first = self.first_of(file)
                    self.began = microseconds(first.time) if first is not None else 0
                    self._file, descriptor, self.size = descriptor, -1, end
                return
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _set_torn_aside(self, descriptor: int, number: int, end: int, size: int) -> None:
        name = f"{self.log}.{number:06}.torn"
        aside = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            at = end
            while at < size and (data := os.pread(descriptor, _BLOCK, at)):
                os.write(aside, data)
                at += len(data)
            os.fsync(aside)
        finally:
            os.close(aside)
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
        self.torn, self.torn_bytes = name, self.torn_bytes + size - end

    def _create(self, now: int) -> None:
        self._file = self._open(self._named(self._number + 1), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        self._number += 1
        self.size, self.began = 0, now
        os.fsync(self._folder)

    def _cut_back(self) -> None:
        os.ftruncate(self._file, self.size)
        self._dirty = False

    def _open(self, name: str, flags: int) -> int:
        try:
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, _MODE, dir_fd=self._folder)
        except OSError as fault:
            fault.filename = str(self.folder / name)
            raise
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1 or about.st_uid != os.geteuid():
            os.close(descriptor)
            raise LogError(f"{self.folder / name} is no plain file of uid {os.geteuid()}; move it away")
        return descriptor


def _record(line: bytes) -> Record | None:
    try:
        return decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _last(descriptor: int, size: int) -> tuple[Record, bytes, int] | None:
    """The last whole record of a file, its line and where it ends (after the line feed); None where there is none.

    A crash may leave half a line, and some file systems leave zeros: what is no record at the end does not count.
    """
    for line, end in _lines_backwards(descriptor, size):
        record = _record(line)
        if record is not None:
            return record, line, end
    return None


def _lines_backwards(descriptor: int, size: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines without their line feed, the last first, each with where it ends (after the line feed)."""
    rest, at = b"", size
    whole = False
    while at > 0:
        step = min(_BLOCK, at)
        at -= step
        rest = os.pread(descriptor, step, at) + rest
        while (feed := rest.rfind(b"\n", 0, len(rest) - whole)) >= 0:
            if whole:
                yield rest[feed + 1 : -1], at + len(rest)
            rest, whole = rest[: feed + 1], True
    if whole and rest:
        yield rest[:-1], len(rest)
