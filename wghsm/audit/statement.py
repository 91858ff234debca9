"""What a checkpoint's signature is made over.

The statement is text, so that it can be checked without wghsm too (docs/audit.md has the openssl command):

    wghsm audit checkpoint v1
    stream wg0/gateway/6f1e...
    seq 4711
    hash 09af...
    time 2026-01-01T10:00:00.000000Z

Pure. Called by the chain, by the custodian (which builds the statement itself from its fields, so that it signs
nothing else) and by `public_key`.
"""

import re
from dataclasses import dataclass

__all__ = ["Statement"]

_STREAM = re.compile(r"[A-Za-z0-9_=+.@-]{1,64}/[a-z]{1,16}/[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@dataclass(frozen=True)
class Statement:
    """Record `seq` of `stream` has the hash `hash` (64 hex digits), said at `time`.

    Raises ValueError for fields of another form, so that nothing else can be put into what is signed.
    """

    stream: str
    seq: int
    hash: str
    time: str

    def __post_init__(self) -> None:
        if not (
            _STREAM.fullmatch(self.stream)
            and _HASH.fullmatch(self.hash)
            and _TIME.fullmatch(self.time)
            and 0 <= self.seq < 2**63
        ):
            raise ValueError("no statement of a checkpoint")

    def to_bytes(self) -> bytes:
        """The bytes to sign."""
        return (
            f"wghsm audit checkpoint v1\nstream {self.stream}\nseq {self.seq}\nhash {self.hash}\ntime {self.time}\n"
        ).encode("ascii")
