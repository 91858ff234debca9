"""Reading the log: its records in the order of their time, those that are wanted, and those that come later.

    LogReader.new() -> each record since the last call, over rotations -> Wanted.fits

Nothing is verified here. Called by `wghsm audit show`.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .files import LogFile, list_files
from .record import MAX_LINE, Record, decode

__all__ = ["LogReader", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """Which records: each field that is not empty must fit. Times as in a record, `since` included, `until` not."""

    peer: str = ""
    """A public key in base64 or its beginning."""
    key: str = ""
    """A label, a public key or a fingerprint, or its beginning."""
    kinds: frozenset[str] = frozenset()
    since: str = ""
    until: str = ""
    failures: bool = False
    """Only what did not end with "ok"."""

    def fits(self, record: Record) -> bool:
        """Whether a record is wanted."""
        return (
            record.peer.startswith(self.peer)
            and record.key.startswith(self.key)
            and (not self.kinds or record.kind in self.kinds)
            and self.since <= record.time
            and (not self.until or record.time < self.until)
            and (not self.failures or record.result != "ok")
        )


@dataclass
class LogReader:
    """The records in `folder`, of all its logs or of `log` alone. Methods raise OSError."""

    folder: Path
    log: str | None = None
    unreadable: int = 0
    """Lines that were no records."""
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def new(self) -> Iterator[tuple[bytes, Record]]:
        """Each line with its record, that has come since the last call; the first time all."""
        logs = {name: files for name, files in list_files(self.folder).items() if self.log in (None, name)}
        readers = [self._new_of(name, files) for name, files in logs.items()]
        yield from readers[0] if len(readers) == 1 else heapq.merge(*readers, key=lambda entry: entry[1].time)

    def _new_of(self, log: str, files: list[LogFile]) -> Iterator[tuple[bytes, Record]]:
        number, offset = self._places.get(log, (0, 0))
        for file in files:
            if file.number < number:
                continue
            at = offset if file.number == number else 0
            with file.path.open("rb") as stream:
                stream.seek(at)
                while (line := stream.readline(8 * MAX_LINE)).endswith(b"\n"):
                    at += len(line)
                    self._places[log] = file.number, at
                    try:
                        yield line[:-1], decode(line)
                    except (msgspec.MsgspecError, UnicodeDecodeError):
                        self.unreadable += 1
                if len(line) == 8 * MAX_LINE:
                    # Rubbish without line ends: on to what comes behind it.
                    self.unreadable += 1
                    self._places[log] = file.number, at + len(line)
