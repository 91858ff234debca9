"""The two keys that a handshake ends in."""

from dataclasses import dataclass
from typing import Self

from wghsm.wipe import wipe

__all__ = ["SessionKeys"]


@dataclass(slots=True, eq=False, repr=False)
class SessionKeys:
    """Keys of one session, seen from this side: 32 bytes each, owned and wiped by whoever was given them."""

    send: bytearray
    receive: bytearray

    def wipe(self) -> None:
        """Overwrite both keys with zeros."""
        wipe(self.send)
        wipe(self.receive)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "SessionKeys(redacted)"
