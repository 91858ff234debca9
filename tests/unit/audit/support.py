"""Real logs for the tests: written by `AuditLog` on a disk, signed by a key in software."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wghsm.audit import AuditLog, Event, Limits, PublicKey, Statement

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_767_261_600 * SECOND
"""2026-01-01T10:00:00Z."""


class Signer:
    """An audit key outside any token."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public = PublicKey(self.pem)

    def seal(self, log: AuditLog, now: int) -> bytes:
        """A checkpoint about the log's last record."""
        return self.sign(log, log.statement(now), now)

    def sign(self, log: AuditLog, statement: Statement, now: int) -> bytes:
        """A checkpoint of what was to be signed some time ago."""
        signature = self._key.sign(statement.to_bytes())
        return log.checkpoint(statement, signature, self.public.fingerprint, "ed25519", now)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of its own."""
    with TemporaryDirectory(prefix="wghsm-", dir="/tmp") as name:
        yield Path(name)


def use(number: int = 0, peer: str = "") -> Event:
    """One use of a key."""
    return Event(kind="key.use", operation="accept_initiation", peer=peer, latency_us=number)


def lines_of(path: Path) -> list[bytes]:
    """The lines of every file of every log in a folder, in order."""
    return [line for file in sorted(path.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def write_log(
    path: Path,
    signer: Signer | None,
    batches: list[int],
    *,
    gateway: str = "wg0",
    log: str = "gateway",
    size: int = 2000,
    retention: int | None = None,
    identity: bytes | None = None,
    now: int = NOW,
    step: int = SECOND,
) -> list[bytes]:
    """A log with as many records in a row as each batch says, a checkpoint after each; returns all lines in order."""
    limits = Limits(size=size, age=DAY, retention=retention)
    with AuditLog(path, gateway, log, now, limits=limits, identity=identity) as opened:
        lines = list(opened.opening)
        for batch in batches:
            for number in range(batch):
                now += step
                lines += opened.append([use(number)], now)
            lines += opened.tidy(now, sealing=signer is not None)
            if signer is not None:
                lines.append(signer.seal(opened, now))
                lines += opened.tidy(now, sealing=True)
    return lines
