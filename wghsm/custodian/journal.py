"""The latest timestamps, in a file beside the database of `state`, because every handshake waits for its own.

    head     64 bytes: what this is
    records  64 bytes each: public key (32), timestamp (12), zeros, CRC-32 of all that

The file has its whole length from the beginning, so that a record is one write to blocks that the disk has already:
half of what a transaction costs, or less. Of several records of a key the greatest counts. One that a crash has cut off
has a wrong checksum: it is passed over, as no answer has left for it. Called by `state`, which empties it.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

from wghsm.noise.constants import PUBLIC_KEY_LEN, TIMESTAMP_LEN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RECORDS", "Journal"]

RECORDS = 1023
"""As many timestamps as fit in."""

_RECORD = 64
_CHECKED = _RECORD - 4
_HEAD = b"wghsm timestamps, version 1\n".ljust(_RECORD, b"\0")
_BLANK = bytes(RECORDS * _RECORD)
_USED = PUBLIC_KEY_LEN + TIMESTAMP_LEN
_PADDING = bytes(_CHECKED - _USED)


class Journal:
    """The open file. Whatever fails is an OSError."""

    def __init__(self, path: Path) -> None:
        """Open it. ValueError, with what is wrong, if it is no whole journal."""
        self._file = os.open(path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC | os.O_NOFOLLOW)
        # Until it was emptied nothing may be written over.
        self._end = RECORDS
        if os.fstat(self._file).st_size != len(_HEAD) + len(_BLANK):
            wrong = "it is not whole"
        elif os.pread(self._file, len(_HEAD), 0) != _HEAD:
            wrong = "it is something else"
        else:
            return
        self.close()
        raise ValueError(wrong)

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty one, in place of one that is there."""
        unfinished = path.with_name(f"{path.name}.new")
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _write(file, _HEAD + _BLANK, 0)
            os.fsync(file)
        finally:
            os.close(file)
        unfinished.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended since it was emptied."""
        return self._end == 0

    def read(self) -> dict[bytes, bytes]:
        """The greatest timestamp, 12 bytes, of each key in it."""
        records = os.pread(self._file, len(_BLANK), len(_HEAD))
        greatest: dict[bytes, bytes] = {}
        for start in range(0, len(records), _RECORD):
            checked, checksum = records[start : start + _CHECKED], records[start + _CHECKED : start + _RECORD]
            if _checksum(checked) == checksum:
                key, timestamp = checked[:PUBLIC_KEY_LEN], checked[PUBLIC_KEY_LEN:_USED]
                greatest[key] = max(timestamp, greatest.get(key, b""))
        return greatest

    def append(self, timestamps: Mapping[bytes, bytes]) -> bool:
        """Have timestamps of 12 bytes by key on disk when this returns; False if there is no room for all of them."""
        if self._end + len(timestamps) > RECORDS:
            return False
        records = b""
        for key, timestamp in timestamps.items():
            checked = key + timestamp + _PADDING
            records += checked + _checksum(checked)
        _write(self._file, records, len(_HEAD) + self._end * _RECORD)
        self._end += len(timestamps)
        return True

    def clear(self) -> None:
        """Forget everything; afterwards there is room."""
        _write(self._file, _BLANK, len(_HEAD))
        self._end = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _checksum(record: bytes) -> bytes:
    return zlib.crc32(record).to_bytes(4, "little")


def _write(file: int, content: bytes, place: int) -> None:
    if os.pwrite(file, content, place) != len(content):
        raise OSError(0, "only a part could be written")
