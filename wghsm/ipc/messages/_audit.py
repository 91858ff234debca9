"""The audit log: what the auditor is told, and what it asks of the custodian."""

from __future__ import annotations

from typing import Literal

from ._base import Asker, Message

__all__ = [
    "AuditEvent",
    "AuditHealth",
    "AuditSettings",
    "AuditStatus",
    "CheckpointSigned",
    "SignCheckpoint",
    "SyslogServer",
]


class SyslogServer(Message, frozen=True, array_like=True):
    """A syslog server that is spoken to over TLS; `ca`, `certificate` and `key_file` are paths, empty if not set."""

    server: str
    port: int
    ca: str = ""
    certificate: str = ""
    key_file: str = ""


class AuditSettings(Message, frozen=True, array_like=True, tag=100):
    """How the log is kept: supervisor to auditor. Times in seconds, `rotate_size` in bytes.

    `journald` is the path of its socket, empty if the log does not go there; where that is not required, a machine
    without journald is no fault. `signed`: whether checkpoints can be had.
    """

    directory: str
    retention: int
    rotate_size: int
    rotate_age: int
    journald: str = ""
    journald_required: bool = False
    syslog: SyslogServer | None = None
    signed: bool = False


class AuditEvent(Message, frozen=True, array_like=True, tag=101):
    """Something that belongs into the audit log (docs/audit.md has the words): from whoever it happened to.

    `peer` and `key` are public keys of 32 bytes or empty; `token` is its label and serial number. `lost`: how many
    events before this one could not be sent.
    """

    kind: str
    operation: str
    result: str
    at_unix: int
    peer: bytes = b""
    key: bytes = b""
    token: str = ""
    latency_us: int = 0
    who: Asker | None = None
    detail: dict[str, str | int] = {}
    lost: int = 0


class SignCheckpoint(Message, frozen=True, array_like=True, tag=102):
    """Sign that record number `sequence` of the stream `stream` (hex) had the SHA-256 `hash` (hex) at `time`.

    The custodian makes the bytes that are signed from these, so that the key signs nothing but checkpoints. Answered
    with CheckpointSigned.
    """

    request: int
    stream: str
    sequence: int
    hash: str
    time: str


class CheckpointSigned(Message, frozen=True, array_like=True, tag=103):
    """The signature, 64 bytes, with the key's fingerprint and algorithm; empty and `text` why there is none."""

    request: int
    signature: bytes = b""
    key: str = ""
    algorithm: str = ""
    token: str = ""
    text: str = ""


class AuditHealth(Message, frozen=True, array_like=True, tag=104):
    """Whether the log is kept whole now: auditor to custodian, which may have to refuse handshakes."""

    whole: bool


class AuditStatus(Message, frozen=True, array_like=True, tag=105):
    """The state of the audit log, for status: auditor to supervisor.

    `unsealed`: records after the last signed checkpoint, which was at `sealed_unix` (0: none yet). `unwritten`: events
    that could not be written, so far. `sinks`: a word for each, by name.
    """

    state: Literal["ok", "failing"]
    since_unix: int
    detail: str
    directory: str
    records: int
    unsealed: int
    sealed_unix: int
    unwritten: int
    seal_detail: str = ""
    sinks: dict[str, str] = {}
