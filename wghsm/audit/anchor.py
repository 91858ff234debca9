"""The anchor: what a syslog server or the journal holds of the log, where root of the gateway's host cannot rewrite it.

    raw lines | RFC 5424 or older syslog lines | journalctl -o cat | journalctl -o json -> hash of each record

Pure. Called by verify, which looks for each of these records in the files.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

__all__ = ["Anchor", "read_anchor"]

_BEGIN = b'{"v":1,"stream":"'
_TRAILING = b" \t\r\n\0"


class _Place(msgspec.Struct):
    stream: str
    seq: int


class _Journal(msgspec.Struct):
    MESSAGE: str | list[int] | None = None


@dataclass
class Anchor:
    """The records of an anchor: their hashes (hex) by stream and number."""

    streams: dict[str, dict[int, str]] = field(default_factory=dict)
    conflicts: dict[str, set[int]] = field(default_factory=dict)
    """Records of which it holds two versions, by stream."""
    records: int = 0
    unreadable: int = 0
    """Lines that begin a record and are cut off or spoiled."""


_place = msgspec.json.Decoder(_Place)
_journal = msgspec.json.Decoder(_Journal)


def read_anchor(lines: Iterable[bytes]) -> Anchor:
    """The records in `lines`; whatever else stands there is passed over."""
    anchor = Anchor()
    for line in lines:
        raw = _record_in(line)
        if raw is None:
            continue
        try:
            place = _place.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            anchor.unreadable += 1
            continue
        anchor.records += 1
        found = anchor.streams.setdefault(place.stream, {})
        digest = hashlib.sha256(raw).hexdigest()
        if found.setdefault(place.seq, digest) != digest:
            anchor.conflicts.setdefault(place.stream, set()).add(place.seq)
    return anchor


def _record_in(line: bytes) -> bytes | None:
    begin = line.find(_BEGIN)
    if begin >= 0:
        return line[begin:].rstrip(_TRAILING)
    if not line.startswith(b"{") or b'"MESSAGE"' not in line:
        return None
    try:
        message = _journal.decode(line).MESSAGE
        text = bytes(message) if isinstance(message, list) else (message or "").encode()
    except (msgspec.MsgspecError, UnicodeError, ValueError):
        return None
    begin = text.find(_BEGIN)
    return text[begin:].rstrip(_TRAILING) if begin >= 0 else None
