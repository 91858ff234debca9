"""Which datagrams may cost ingress and the handshake process more than a look, however many come.

    type 4, and an index that may be a session's     passes
    types 1 to 3, shape and mac1 good                passes while there is room:
        for whoever comes first                          `open`
        for initiations and responses with a cookie      `proven`
        for sources that had no turn of late             `fair`
    all else                                         is dropped, and the caller counts it under its reason

A flood from many addresses fills the first room and, if these are very many, the third; who has shown that a cookie
reached its address has the second for itself, whatever others put into mac2. The handshake process judges again all
that passes: it makes the cookies, and tells here what they are made of (the message `Gates`). Before it has, mac1 is
not looked at.

Called by the receiver. The compiled twin (`_sieve.c`) also reads, so that a flood is dropped without the interpreter.
Pure: times are CLOCK_BOOTTIME in nanoseconds. Source: PROTOCOL.md sections 3 and 7.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

from wghsm.noise.constants import MAC_LEN, NSEC_PER_SEC
from wghsm.noise.cookie import mac1_key, source_bytes
from wghsm.noise.messages import COOKIE_REPLY_SIZE, INITIATION_SIZE, NO_MAC, RESPONSE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wghsm.ipc import messages as m
    from wghsm.process.endpoints import Source

__all__ = [
    "BURST",
    "COST",
    "GATES",
    "INDICES",
    "SHUT",
    "SOURCES",
    "SPACING",
    "AnySieve",
    "Bucket",
    "Sieve",
    "Swept",
    "Verdict",
    "packed_host",
]

GATES: Final = 2
"""Identities that are served at once."""
SOURCES: Final = 4096
"""Buckets that sources (IPv4 /32, IPv6 /64) fall into, by a salted hash: a few neighbours share one."""
INDICES: Final = 65536
"""Buckets that receiver indices fall into, by their lower half: an index in an empty one is nobody's."""
COST: Final = {"open": NSEC_PER_SEC // 1000, "proven": NSEC_PER_SEC // 1000, "fair": NSEC_PER_SEC // 500}
"""Nanoseconds that a message takes of each room."""
BURST: Final = NSEC_PER_SEC // 4
"""As much room as nobody used, up to this many nanoseconds, is there at once."""
SPACING: Final = NSEC_PER_SEC
"""Between two turns of one source's bucket in the third room."""
SHUT: Final = NSEC_PER_SEC // 100
"""For so long after the queue to the handshake process was full only proven initiations pass."""

_SIZES: Final = {1: INITIATION_SIZE, 2: RESPONSE_SIZE, 3: COOKIE_REPLY_SIZE}
_INITIATION, _COOKIE_REPLY, _TRANSPORT = 1, 3, 4
_SMALLEST: Final = 32
_type_and_index = Struct("<II").unpack_from

Swept = tuple[bytes, int, "Source", int]
"""A read that was kept: data, bytes of each datagram but the last (0: one), where it came from, outer ECN."""


class Verdict(IntEnum):
    """What becomes of a datagram."""

    PASS = 0
    MALFORMED = 1
    UNKNOWN_TYPE = 2
    UNKNOWN_INDEX = 3
    BAD_MAC1 = 4
    NO_ROOM = 5
    CROWDED = 6
    """It passes, into one of the rooms that are not for all."""


class AnySieve(Protocol):
    """Either twin."""

    sweeps: bool
    """Whether it can read: else `sweep` is never called."""

    def serve(self, gates: Sequence[m.Gate]) -> None:
        """Mac1 is for one of these identities, the current one first, and cookies are made of these secrets."""

    def add_index(self, index: int) -> None:
        """A session receives on this index."""

    def remove_index(self, index: int) -> None:
        """It does so no more."""

    def shut(self, now: int) -> None:
        """The queue to the handshake process is full."""

    def judge(self, data: bytes, source: Source, now: int) -> int:
        """What becomes of a datagram; one that passes uses up its share. Gives a Verdict's number."""

    def sweep(self, fd: int, now: int, counts: list[int]) -> Swept | None:
        """Read until something passes; None when nothing is left, or enough has been dropped for one turn.

        `counts` gets how many datagrams were dropped, by the number of their Verdict. What is kept is not judged yet.
        """


class Bucket:
    """Room for a message in each `cost` nanoseconds, and for a burst of `depth` nanoseconds."""

    __slots__ = ("at", "cost", "depth")

    def __init__(self, cost: int, depth: int) -> None:
        self.cost = cost
        self.depth = depth
        self.at = 0

    def has_room(self, now: int) -> bool:
        """Whether a message may come now."""
        return max(self.at, now - self.depth) + self.cost <= now

    def use(self, now: int) -> None:
        """One has come."""
        self.at = max(self.at, now - self.depth) + self.cost


class Sieve:
    """In Python. `salt`: 32 random bytes, so that nobody can choose whose bucket to fill.

    `sieves` is how many there are: the room is for all of them together.
    """

    sweeps = False

    def __init__(self, salt: bytes, sieves: int = 1) -> None:
        self._salt = salt
        self._gates: list[tuple[bytes, bytes, int]] = []
        self._shut_until = 0
        self._open, self._proven, self._fair = (
            Bucket(COST[name] * sieves, BURST) for name in ("open", "proven", "fair")
        )
        self._sources: dict[int, int] = {}
        self._indices: dict[int, int] = {}

    def serve(self, gates: Sequence[m.Gate]) -> None:
        """As AnySieve.serve."""
        self._gates = [(mac1_key(gate.identity), gate.secret, gate.until) for gate in gates[:GATES]]

    def add_index(self, index: int) -> None:
        """As AnySieve.add_index."""
        self._indices[index % INDICES] = self._indices.get(index % INDICES, 0) + 1

    def remove_index(self, index: int) -> None:
        """As AnySieve.remove_index."""
        self._indices[index % INDICES] -= 1

    def shut(self, now: int) -> None:
        """As AnySieve.shut."""
        self._shut_until = now + SHUT

    def judge(self, data: bytes, source: Source, now: int) -> int:
        """As AnySieve.judge."""
        if len(data) < _SMALLEST:
            return Verdict.MALFORMED
        kind, index = _type_and_index(data)
        if kind == _TRANSPORT:
            return Verdict.PASS if self._indices.get(index % INDICES) else Verdict.UNKNOWN_INDEX
        size = _SIZES.get(kind)
        if size is None:
            return Verdict.UNKNOWN_TYPE
        if size != len(data):
            return Verdict.MALFORMED
        gate = None
        if kind != _COOKIE_REPLY and self._gates:
            gate = next((one for one in self._gates if _is_mac(one[0], data[:-MAC_LEN])), None)
            if gate is None:
                return Verdict.BAD_MAC1
        is_shut = now < self._shut_until and kind == _INITIATION
        if not is_shut and self._open.has_room(now):
            self._open.use(now)
            return Verdict.PASS
        address = packed_host(source)
        proven = gate is not None and _shows_cookie(gate, data, source_bytes(address, source[0][1]), now)
        if proven and self._proven.has_room(now):
            self._proven.use(now)
            return Verdict.CROWDED
        if proven or is_shut or not self._fair.has_room(now):
            return Verdict.NO_ROOM
        digest = hashlib.blake2s(address[:8], digest_size=MAC_LEN, key=self._salt).digest()
        bucket = int.from_bytes(digest[:2], "little") % SOURCES
        if now < self._sources.get(bucket, 0):
            return Verdict.NO_ROOM
        self._fair.use(now)
        self._sources[bucket] = now + SPACING
        return Verdict.CROWDED

    def sweep(self, fd: int, now: int, counts: list[int]) -> Swept | None:
        """It does not."""
        raise NotImplementedError


def packed_host(source: Source) -> bytes:
    """The address of a source, 4 or 16 bytes."""
    host = source[0][0]
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def _is_mac(key: bytes, data: bytes) -> bool:
    expected = hashlib.blake2s(data[:-MAC_LEN], digest_size=MAC_LEN, key=key).digest()
    return hmac.compare_digest(expected, data[-MAC_LEN:])


def _shows_cookie(gate: tuple[bytes, bytes, int], data: bytes, source: bytes, now: int) -> bool:
    _, secret, until = gate
    if now >= until or data.endswith(NO_MAC):
        return False
    return _is_mac(hashlib.blake2s(source, digest_size=MAC_LEN, key=secret).digest(), data)
