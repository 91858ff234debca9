"""The chain: each record carries the hash of the one before, and every so often a signature says where it stands.

    append(event) -> line ... due? -> statement -> (signed elsewhere) -> checkpoint -> line

Records may be appended while a statement is being signed: a checkpoint names the record that it is about. Pure: time
comes as an argument, in microseconds of the wall clock since 1970. Called by `AuditLog`.
"""

import base64
import hashlib
import re
from dataclasses import dataclass

from .record import FIRST_PREV, Event, encode, rfc3339
from .statement import Statement

__all__ = ["CHECKPOINT_EVERY", "CHECKPOINT_RECORDS", "Chain", "Head", "stream_name"]

CHECKPOINT_EVERY = 60_000_000
"""Microseconds between two checkpoints, when idle too."""
CHECKPOINT_RECORDS = 1000
"""Records after which a checkpoint is due before that."""

_NAME = re.compile(r"[A-Za-z0-9_=+.@-]{1,64}")


def stream_name(gateway: str, log: str, identity: bytes) -> str:
    """A stream's name: the gateway's, the log's (`gateway` or `commands`) and 16 random bytes. Raises ValueError."""
    if not _NAME.fullmatch(gateway) or not re.fullmatch(r"[a-z]{1,16}", log) or len(identity) != 16:
        raise ValueError("a stream has a gateway's name, a log's name and 16 bytes")
    return f"{gateway}/{log}/{identity.hex()}"


@dataclass(frozen=True)
class Head:
    """Where a chain ends: the last record's number (-1: there is none) and the hash of its line."""

    seq: int = -1
    hash: str = FIRST_PREV


class Chain:
    """The chain of one stream, at its end. A stream begins with a `start` record."""

    def __init__(self, stream: str, head: Head | None = None) -> None:
        self.stream = stream
        self.head = head or Head()
        self.sealed = -1
        """The last record that a checkpoint of this chain is about; -1 where none has been made since it was opened."""
        self._sealed_at: int | None = None

    @property
    def state(self) -> tuple[Head, int, int | None]:
        """All that changes; to be set again where a line could not be written."""
        return self.head, self.sealed, self._sealed_at

    @state.setter
    def state(self, state: tuple[Head, int, int | None]) -> None:
        self.head, self.sealed, self._sealed_at = state

    def append(self, event: Event, now: int) -> bytes:
        """The line of `event`, without a line feed. Raises ValueError where the first one is no `start`."""
        if self.head.seq < 0 and event.kind != "start":
            raise ValueError("a stream begins with a start record")
        seq = self.head.seq + 1
        line = encode(event, self.stream, seq, now, self.head.hash)
        self.head = Head(seq, hashlib.sha256(line).hexdigest())
        return line

    def due(self, now: int) -> bool:
        """Whether a checkpoint is due: none yet, one minute old, or 1,000 records behind."""
        if self.head.seq < 0:
            return False
        if self._sealed_at is None or not 0 <= now - self._sealed_at < CHECKPOINT_EVERY:
            return True
        return self.head.seq - self.sealed >= CHECKPOINT_RECORDS

    def statement(self, now: int) -> Statement:
        """What to sign for the last record. It changes nothing: `due` goes on until `checkpoint`. Raises ValueError."""
        return Statement(self.stream, self.head.seq, self.head.hash, rfc3339(now))

    def checkpoint(
        self, statement: Statement, signature: bytes, fingerprint: str, algorithm: str, now: int, *, token: str = ""
    ) -> bytes:
        """The checkpoint's line, without a line feed.

        `signature` (64 bytes) is over `statement.to_bytes()`, `fingerprint` and `algorithm` are the audit key's. Raises
        ValueError for the statement of another stream, or of a record that is not there yet.
        """
        if statement.stream != self.stream or statement.seq > self.head.seq:
            raise ValueError("the statement is not one of this chain")
        event = Event(
            kind="checkpoint",
            operation="sign",
            key=fingerprint,
            token=token,
            detail={
                "seq": statement.seq,
                "hash": statement.hash,
                "time": statement.time,
                "algorithm": algorithm,
                "signature": base64.b64encode(signature).decode("ascii"),
            },
        )
        line = self.append(event, now)
        self.sealed = max(self.sealed, statement.seq)
        self._sealed_at = now
        return line
