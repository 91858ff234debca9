"""What the custodian must not forget: two small files in `<state_directory>/custodian`.

    state.sqlite   the tables below
    state.journal  the latest timestamps, on their way into it (see `journal`): all that most handshakes write

    peer      greatest timestamp received of each public key
    psk       for each public key and kind of PSK: the epoch that the peer has proven, the file's, and since when
    identity  for each public key the own one that the peer last made a handshake with
    own       the last own timestamp

No secret is in them. Without them an old initiation could be replayed after a restart, and an own initiation could be
refused as old. A batch is on disk when `write` returns; answers leave after that. A file that is damaged, emptied, gone
from beside the other one or of another version is a StateFault and is never replaced: the operator decides whether
replays are to be risked.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wghsm.noise.constants import PUBLIC_KEY_LEN, TIMESTAMP_LEN

from .epochs import Record
from .journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Batch", "State", "StateFault", "make_folder"]

_APPLICATION = 0x77676873
_VERSION = 4
_PSK = f"""
CREATE TABLE psk (
    public_key BLOB NOT NULL CHECK (length(public_key) = {PUBLIC_KEY_LEN}),
    kind TEXT NOT NULL,
    confirmed INTEGER,
    newest INTEGER NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (public_key, kind)
) WITHOUT ROWID;
"""
_IDENTITY = f"""
CREATE TABLE identity (
    public_key BLOB PRIMARY KEY NOT NULL CHECK (length(public_key) = {PUBLIC_KEY_LEN}),
    own BLOB NOT NULL CHECK (length(own) = {PUBLIC_KEY_LEN})
) WITHOUT ROWID;
"""
_STEPS = {
    1: (
        _PSK,
        "INSERT INTO psk SELECT public_key, 'derived', psk_epoch, psk_epoch, 0 FROM peer WHERE psk_epoch IS NOT NULL;",
        "ALTER TABLE peer DROP COLUMN psk_epoch;",
    ),
    2: (_IDENTITY,),
    3: (),
}
"""How a file of each older version becomes one of the next."""
_SCHEMA = f"""
BEGIN;
CREATE TABLE peer (
    public_key BLOB PRIMARY KEY NOT NULL CHECK (length(public_key) = {PUBLIC_KEY_LEN}),
    timestamp BLOB CHECK (length(timestamp) = {TIMESTAMP_LEN})
) WITHOUT ROWID;
{_PSK}
{_IDENTITY}
CREATE TABLE own (id INTEGER PRIMARY KEY CHECK (id = 1), unix_ns INTEGER NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_OWN = bytes(PUBLIC_KEY_LEN)
"""Where a public key would stand, in the journal: the own timestamps. It is no peer's, being of low order."""


class StateFault(Exception):  # noqa: N818
    """The state cannot be used; `str()` is one line for the operator."""


@dataclass
class Batch:
    """What is to be written at once: timestamps of 12 bytes and own public keys by public key, PSK records, Unix ns."""

    greatest: dict[bytes, bytes] = field(default_factory=dict)
    psks: dict[tuple[bytes, str], Record] = field(default_factory=dict)
    own: int | None = None
    identities: dict[bytes, bytes] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.greatest or self.psks or self.identities or self.own is not None)


def make_folder(state_directory: Path, uid: int, gid: int) -> Path:
    """Make the custodian's own folder, 0700, for `uid` and `gid`; called as root, before privileges are dropped.

    Returns its path. Raises StateFault.
    """
    folder = state_directory / "custodian"
    try:
        state_directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateFault(
            f"state folder {folder}: {error.strerror}; it must be a folder that root can make and give away"
        ) from None
    return folder


class State:
    """The open file. One process at a time; not for threads."""

    def __init__(self, folder: Path) -> None:
        """Open `state.sqlite` in `folder`, or make it if there is none. Raises StateFault."""
        self.path = folder / "state.sqlite"
        self._beside = folder / "state.journal"
        self.is_new = False
        try:
            if not self.path.exists():
                self._create()
            elif self.path.stat().st_size == 0:
                raise self._damaged("it is empty")
            self._database = self._connect(self.path)
            self._check()
            self._make_durable(self._database)
        except sqlite3.Error as error:
            raise self._fault(error) from None
        except OSError as error:
            raise StateFault(f"state file {self.path}: {error.strerror}; it belongs to the custodian's user") from None
        self._journal = self._open_journal()
        self.settle()

    def greatest(self) -> dict[bytes, bytes]:
        """The greatest timestamp, 12 bytes, of each public key that has sent one. Raises StateFault."""
        self.settle()
        rows = self._rows("SELECT public_key, timestamp FROM peer WHERE timestamp IS NOT NULL")
        return {bytes(public_key): bytes(timestamp) for public_key, timestamp in rows}

    def psks(self) -> dict[tuple[bytes, str], Record]:
        """What is known of PSKs, by public key and kind. Raises StateFault."""
        rows = self._rows("SELECT public_key, kind, confirmed, newest, since FROM psk")
        return {(bytes(key), str(kind)): Record(*known) for key, kind, *known in rows}

    def identities(self) -> dict[bytes, bytes]:
        """The own public key that each peer last made a handshake with, by public key. Raises StateFault."""
        rows = self._rows("SELECT public_key, own FROM identity")
        return {bytes(public_key): bytes(own) for public_key, own in rows}

    def last_own(self) -> int | None:
        """The last own timestamp in Unix nanoseconds, None before the first. Raises StateFault."""
        self.settle()
        return next((int(row[0]) for row in self._rows("SELECT unix_ns FROM own")), None)

    def write(self, batch: Batch) -> None:
        """Have `batch` on disk when this returns; no timestamp ever goes back. Raises StateFault."""
        if batch.psks or batch.identities:
            self._commit(batch)
            return
        timestamps = dict(batch.greatest)
        if batch.own is not None:
            timestamps[_OWN] = batch.own.to_bytes(TIMESTAMP_LEN, "big")
        try:
            if self._journal.append(timestamps):
                return
        except OSError as error:
            raise self._unwritten(error) from None
        self._commit(batch)
        self.settle()

    def settle(self) -> None:
        """Take what is in the journal into the database, where others look for it. Raises StateFault."""
        if self._journal.is_empty:
            return
        try:
            greatest = self._journal.read()
            own = greatest.pop(_OWN, None)
            if greatest or own is not None:
                self._commit(Batch(greatest, own=None if own is None else int.from_bytes(own, "big")))
            self._journal.clear()
        except OSError as error:
            raise self._unwritten(error) from None

    def _commit(self, batch: Batch) -> None:
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO peer (public_key, timestamp) VALUES (?, ?) ON CONFLICT (public_key) DO UPDATE "
                "SET timestamp = max(coalesce(timestamp, x''), excluded.timestamp)",
                batch.greatest.items(),
            )
            database.executemany(
                "INSERT INTO psk VALUES (?, ?, ?, ?, ?) ON CONFLICT (public_key, kind) DO UPDATE "
                "SET newest = excluded.newest, since = excluded.since, confirmed = CASE "
                "WHEN excluded.confirmed IS NULL OR excluded.confirmed < confirmed THEN confirmed "
                "ELSE excluded.confirmed END",
                [(key, kind, one.confirmed, one.newest, one.since) for (key, kind), one in batch.psks.items()],
            )
            database.executemany(
                "INSERT INTO identity VALUES (?, ?) ON CONFLICT (public_key) DO UPDATE SET own = excluded.own",
                batch.identities.items(),
            )
            if batch.own is not None:
                database.execute(
                    "INSERT INTO own VALUES (1, ?) ON CONFLICT (id) DO UPDATE "
                    "SET unix_ns = max(unix_ns, excluded.unix_ns)",
                    (batch.own,),
                )
            database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def forget(self, public_keys: Iterable[bytes]) -> None:
        """Have the greatest timestamps of these peers gone from the disk when this returns. Raises StateFault."""
        self.settle()
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM peer WHERE public_key = ?", [(key,) for key in public_keys])
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(StateFault):
            self.settle()
        self._journal.close()
        self._database.close()

    def _create(self) -> None:
        # Under another name until it is whole: an empty state.sqlite is then always damage.
        unfinished = self.path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        database = self._connect(unfinished)
        self._make_durable(database)
        database.executescript(_SCHEMA)
        database.close()
        Journal.create(self._beside)
        unfinished.rename(self.path)
        self.is_new = True

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=5, isolation_level=None)
        # One user only: no shared memory file, and a second custodian is kept out.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        return database

    @staticmethod
    def _make_durable(database: sqlite3.Connection) -> None:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")

    def _check(self) -> None:
        verdict = self._one("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise self._damaged(" ".join(str(verdict).split()))
        if self._one("PRAGMA application_id") != _APPLICATION:
            raise self._damaged("it is another program's")
        for old, step in _STEPS.items():
            if self._one("PRAGMA user_version") == old:
                if old + 1 == _VERSION:
                    Journal.create(self._beside)
                self._database.executescript("".join(("BEGIN;", *step, f"PRAGMA user_version = {old + 1};", "COMMIT;")))
        version = self._one("PRAGMA user_version")
        if version != _VERSION:
            raise StateFault(
                f"state file {self.path}: it has version {version}, this wghsm knows {_VERSION}; use the newer wghsm"
            )

    def _open_journal(self) -> Journal:
        try:
            return Journal(self._beside)
        except FileNotFoundError:
            raise self._damaged(f"{self._beside.name} beside it is missing") from None
        except ValueError as wrong:
            raise self._damaged(f"{self._beside.name} beside it: {wrong}") from None
        except OSError as error:
            raise self._unwritten(error) from None

    def _one(self, query: str) -> object:
        row: tuple[object, ...] | None = self._database.execute(query).fetchone()
        return None if row is None else row[0]

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def _fault(self, error: sqlite3.Error) -> StateFault:
        if isinstance(error, sqlite3.OperationalError):
            return StateFault(f"state file {self.path}: {error}; look at the disk and at the file's owner")
        return self._damaged(str(error))

    def _unwritten(self, error: OSError) -> StateFault:
        return StateFault(f"state file {self._beside}: {error.strerror}; look at the disk and at the file's owner")

    def _damaged(self, why: str) -> StateFault:
        return StateFault(
            f"state file {self.path} is damaged ({why}); restore it, or delete it to start afresh: "
            "old initiations can then be replayed once"
        )
