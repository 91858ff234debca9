"""Which implementation of the two functions of the packet path runs: compiled if it was built, else pure Python.

Called by the programs at their start, and by tests, which try both. WGHSM_PURE=1 in the supervisor's environment
asks for pure Python.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wghsm.tunnel import open as pure_open
from wghsm.tunnel import seal as pure_seal
from wghsm.tunnel import sieve as pure_sieve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wghsm.tunnel.open import Opened
    from wghsm.tunnel.sieve import AnySieve

__all__ = ["COMPILED", "PURE", "Engine", "Opener", "Outgoing", "Sealer", "chosen"]


class Outgoing(Protocol):
    """See seal.Outgoing."""

    @property
    def count(self) -> int:
        """How many datagrams there are."""

    @property
    def segment(self) -> int:
        """Bytes of each datagram but the last."""

    @property
    def size(self) -> int:
        """Bytes of all of them."""

    @property
    def ecn(self) -> int:
        """The outer ECN bits."""

    @property
    def buffers(self) -> Sequence[bytes | memoryview]:
        """What sendmsg takes for all of them."""

    def datagrams(self) -> list[bytes]:
        """Each by itself."""

    def clear(self) -> None:
        """Hold nothing."""


class Sealer(Protocol):
    """See seal.Sealer."""

    counter: int

    @property
    def closed(self) -> bool:
        """Whether the key is gone."""

    def seal(self, read: bytes, mtu: int, out: Outgoing, /) -> int:
        """Seal the packets of a TUN read."""

    def seal_waiting(self, fd: int, last: bytes, mtu: int, most: int, out: Outgoing, /) -> tuple[int, bytes | None]:
        """Read on from a TUN, and seal what goes where `last` goes."""

    def close(self) -> None:
        """Drop the key."""


class Opener(Protocol):
    """See open.Opener."""

    @property
    def closed(self) -> bool:
        """Whether the key is gone."""

    def open(
        self, read: bytes, at: int, segment: int, ecn: int, merge: int, allowed: Callable[[bytes], bool], /
    ) -> Opened:
        """Open the datagrams of a UDP read that are for this session."""

    def close(self) -> None:
        """Drop the key and the window."""


@dataclass(frozen=True)
class Engine:
    """One implementation. `sealer` and `opener` take key, index and limit; `outgoing` takes what flushes it.

    `sieve` takes 32 random bytes, and how many workers have one.
    """

    name: str
    sealer: Callable[[bytes, int, int], Sealer]
    opener: Callable[[bytes, int, int], Opener]
    outgoing: Callable[[Callable[[], None]], Outgoing]
    sieve: Callable[[bytes, int], AnySieve]


PURE = Engine("pure", pure_seal.Sealer, pure_open.Opener, pure_seal.Outgoing, pure_sieve.Sieve)  # type: ignore[arg-type]
"""In Python; always there."""


def _compiled() -> Engine | None:
    try:
        from wghsm.tunnel import compiled, compiled_sieve
    except ImportError:
        return None
    outgoing, sieve = compiled.Outgoing, compiled_sieve.Sieve
    return Engine("compiled", compiled.Sealer, compiled.Opener, outgoing, sieve)  # type: ignore[arg-type]


COMPILED = _compiled()
"""In C, over libcrypto; None if the package was built without it."""


def chosen() -> Engine:
    """The fastest that there is, unless the environment asks for pure Python."""
    return PURE if COMPILED is None or os.environ.get("WGHSM_PURE") == "1" else COMPILED
