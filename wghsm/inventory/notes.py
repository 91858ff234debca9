"""What gateways have noted of their keys' and peers' past, for those whose token tells nothing.

    notes_of_state     <state_directory>/custodian/state.sqlite: since when a PSK is the file's, who was heard when
    notes_of_log       the audit log: who shook hands under which key, when the log was last sealed
    notes_of_exports   psk-exports.jsonl: when a PSK was first handed out
    Notes.saw_peer     what a running gateway tells

The state file belongs to the custodian, which may be running and then has it to itself: a copy is read. A peer's
greatest timestamp is that of its own clock.
"""

import base64
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wghsm.audit import Record

__all__ = ["Notes", "Seen", "first_export", "notes_of_exports", "notes_of_log", "notes_of_state"]

_APPLICATION = 0x77676873
_VERSIONS = (3, 4)
_WAL_HEADER = 32
_TRIES = 10
_TAI = 2**62 + 10


@dataclass(frozen=True)
class Seen:
    """A moment in Unix seconds, and who says so."""

    at: float
    source: str


@dataclass
class Notes:
    """Of one gateway. `psks`: by public key and kind the file's epoch and since when; `exports` as they were recorded.

    `peers`: when each public key was last heard, `keys`: when each own public key was last used, `sealed`: when the
    audit key was.
    """

    psks: dict[tuple[bytes, str], tuple[int, Seen]] = field(default_factory=dict)
    peers: dict[bytes, Seen] = field(default_factory=dict)
    keys: dict[bytes, Seen] = field(default_factory=dict)
    exports: list[Mapping[str, Any]] = field(default_factory=list)
    sealed: Seen | None = None

    def saw_peer(self, peer: bytes, own: bytes | None, seen: Seen) -> None:
        """A handshake with `peer` under the gateway's key `own` (32 bytes each), if that is known."""
        self.peers[peer] = _later(self.peers.get(peer), seen)
        if own is not None:
            self.keys[own] = _later(self.keys.get(own), seen)


def _later(one: Seen | None, other: Seen) -> Seen:
    return other if one is None or other.at > one.at else one


def notes_of_state(folder: Path, notes: Notes) -> None:
    """Add what the custodian's state file in `folder` knows; nothing where there is none that can be read."""
    with (
        contextlib.suppress(sqlite3.Error, OSError),
        tempfile.TemporaryDirectory(prefix="wghsm-") as place,
        contextlib.closing(sqlite3.connect(_copied(folder / "state.sqlite", Path(place)))) as database,
    ):
        found = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if found not in [[_APPLICATION, version] for version in _VERSIONS]:
            return
        for key, kind, newest, since in database.execute("SELECT public_key, kind, newest, since FROM psk"):
            if since:
                notes.psks[bytes(key), str(kind)] = int(newest), Seen(since / 1e9, "state file")
        own = {bytes(key): bytes(last) for key, last in database.execute("SELECT public_key, own FROM identity")}
        rows = database.execute("SELECT public_key, timestamp FROM peer WHERE timestamp IS NOT NULL")
        for key, timestamp in rows:
            at = int.from_bytes(bytes(timestamp)[:8], "big") - _TAI
            notes.saw_peer(bytes(key), own.get(bytes(key)), Seen(float(at), "peer's clock"))


def _copied(path: Path, place: Path) -> Path:
    """A copy of a database that another process may be writing, with its write-ahead log. Raises OSError.

    What a checkpoint writes meanwhile stands in the log as well, unless the log began anew, which its header tells.
    """
    log = path.with_name(f"{path.name}-wal")
    for _ in range(_TRIES):
        before = _header(log)
        shutil.copyfile(path, place / path.name)
        (place / log.name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(log, place / log.name)
        if _header(log) == before:
            return place / path.name
    raise OSError("the state file changes too fast to be read")


def _header(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            return file.read(_WAL_HEADER)
    except FileNotFoundError:
        return b""


def notes_of_log(records: Iterable[Record], notes: Notes) -> None:
    """Add the records of the gateway's audit log, as they stand there: whoever doubts them verifies the log first."""
    for record in records:
        if record.kind == "key.use" and record.result == "ok":
            peer = _key(record.peer)
            if peer is not None:
                notes.saw_peer(peer, _key(record.key), Seen(_moment(record.time), "audit log"))
        elif record.kind == "checkpoint":
            notes.sealed = _later(notes.sealed, Seen(_moment(record.time), "audit log"))


def _key(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) or None
    except ValueError:
        return None


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def notes_of_exports(records: Iterable[Mapping[str, Any]], notes: Notes) -> None:
    """Add the records of PSK exports."""
    notes.exports.extend(records)


def first_export(notes: Notes, wanted: Mapping[str, object]) -> Seen | None:
    """When a PSK with all of the `wanted` facts (kind, epoch, public_key, key, root, object) was first handed out."""
    times = [
        at
        for record in notes.exports
        if all(record.get(name) == value for name, value in wanted.items())
        and (at := _unix(record.get("time"))) is not None
    ]
    return Seen(min(times), "first export") if times else None


def _unix(text: object) -> float | None:
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
