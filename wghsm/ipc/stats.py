"""The statistics table: one memfd of 8-byte fields that all processes of a gateway map (SEAMS.md "Channels").

    header | a block of counters for each process | a row of fields for each peer

Every field has one writer; a write is one aligned 8-byte store, so readers see whole values. Egress and
ingress write on each packet, the handshake process reads it for its timers, the supervisor for wg(8) and
status. The table outlives the processes: a worker that is restarted goes on counting where the last one was.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum, StrEnum, unique

from .roles import MAX_WORKERS, TUNNEL, Role

__all__ = ["MAX_PEERS", "Counter", "PeerField", "StatsFile", "create_stats", "identity_number"]

MAX_PEERS = 65536
"""Rows in the table; pages of rows that nobody uses cost no memory."""


@unique
class PeerField(IntEnum):
    """Fields of a peer's row: who writes it, and its unit."""

    TX_BYTES = 0  # egress; bytes of transport messages
    TX_PACKETS = 1  # egress
    LAST_SENT = 2  # egress; CLOCK_BOOTTIME ns, anything authenticated, keepalives too
    LAST_DATA_SENT = 3  # egress; CLOCK_BOOTTIME ns
    FIRST_DATA_UNANSWERED = 4  # egress; CLOCK_BOOTTIME ns, first data sent since LAST_RECEIVED
    RX_BYTES = 5  # ingress
    RX_PACKETS = 6  # ingress
    LAST_RECEIVED = 7  # ingress; CLOCK_BOOTTIME ns, anything authenticated
    LAST_DATA_RECEIVED = 8  # ingress; CLOCK_BOOTTIME ns
    FIRST_DATA_UNACKNOWLEDGED = 9  # ingress; CLOCK_BOOTTIME ns, first data received since LAST_SENT
    HANDSHAKE_TX_BYTES = 10  # handshake
    HANDSHAKE_RX_BYTES = 11  # handshake
    LAST_HANDSHAKE_SENT = 12  # handshake; CLOCK_BOOTTIME ns
    LAST_HANDSHAKE_UNIX = 13  # handshake; wall clock ns of the last completed handshake
    LAST_HANDSHAKE_RECEIVED = 14  # handshake; CLOCK_BOOTTIME ns
    PSK_CONFIRMED = 15  # custodian; PSK of the last confirmed session: 0 not known, 1 none, else its epoch + 2
    IDENTITY = 16  # custodian; first 8 bytes, little-endian, of the own public key that the peer last used; 0 not known
    ENDPOINT_TOLD = 17  # ingress; CLOCK_BOOTTIME ns, of the last news to egress of where the peer is


@unique
class Counter(StrEnum):
    """What is counted, by each process for itself: drops by reason, and a few events. The order is the layout."""

    # Received datagrams (ingress).
    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown-type"
    UNKNOWN_INDEX = "unknown-index"
    EXPIRED_SESSION = "expired-session"
    AUTHENTICATION_FAILED = "authentication-failed"
    REPLAYED = "replayed"
    INNER_MALFORMED = "inner-malformed"
    SOURCE_NOT_ALLOWED = "source-not-allowed"
    HANDSHAKE_QUEUE_FULL = "handshake-queue-full"
    TUN_WRITE_FAILED = "tun-write-failed"
    # Packets to send (egress).
    NO_PEER = "no-peer"
    NO_ENDPOINT = "no-endpoint"
    STAGED_OVERFLOW = "staged-overflow"
    STAGED_PURGED = "staged-purged"
    SEND_FAILED = "send-failed"
    KEY_REPEATED = "key-repeated"
    KEY_REFUSED = "key-refused"
    HANDED_OVER = "handed-over"
    OTHER_WORKER_BUSY = "other-worker-busy"
    # Handshakes (handshake process).
    BAD_MAC1 = "bad-mac1"
    BAD_MAC2 = "bad-mac2"
    RATE_LIMITED = "rate-limited"
    COOKIE_SENT = "cookie-sent"
    COOKIE_RECEIVED = "cookie-received"
    COOKIE_REFUSED = "cookie-refused"
    UNKNOWN_HANDSHAKE = "unknown-handshake"
    NO_CUSTODIAN = "no-custodian"
    NO_WORKER = "no-worker"
    CUSTODIAN_REFUSED = "custodian-refused"
    CUSTODIAN_BUSY = "custodian-busy"
    INITIATION_SENT = "initiation-sent"
    INITIATION_RECEIVED = "initiation-received"
    RESPONSE_SENT = "response-sent"
    RESPONSE_RECEIVED = "response-received"
    HANDSHAKE_COMPLETE = "handshake-complete"
    HANDSHAKE_GIVEN_UP = "handshake-given-up"
    # Uses of keys (custodian).
    LOW_ORDER_POINT = "low-order-point"
    BAD_STATIC = "bad-static"
    UNKNOWN_PEER = "unknown-peer"
    BAD_TIMESTAMP = "bad-timestamp"
    OLD_TIMESTAMP = "old-timestamp"
    FLOOD = "flood"
    PEER_BUSY = "peer-busy"
    TOO_SOON = "too-soon"
    UNKNOWN_HANDLE = "unknown-handle"
    BAD_RESPONSE = "bad-response"
    TOKEN_FAULT = "token-fault"  # noqa: S105
    DERIVE = "derive"
    PSK_USE = "psk-use"
    # The token's health (custodian).
    TOKEN_CHECKED = "token-checked"  # noqa: S105
    TOKEN_REPAIRED = "token-repaired"  # noqa: S105
    TOKEN_AWAY = "token-away"  # noqa: S105
    TOKEN_SWITCHED = "token-switched"  # noqa: S105
    PSK_OUTDATED = "psk-outdated"
    UNKNOWN_IDENTITY = "unknown-identity"
    AUDIT_STOPPED = "audit-stopped"
    # The audit log (auditor).
    AUDIT_RECORDED = "audit-recorded"
    AUDIT_UNWRITTEN = "audit-unwritten"
    AUDIT_JOURNALD_LOST = "audit-journald-lost"
    AUDIT_SYSLOG_LOST = "audit-syslog-lost"


_WORD = 8
_HEADER_WORDS = 512
_MAGIC = 0x7767_6873_6D04
_ROLES = (Role.SUPERVISOR, Role.CUSTODIAN, Role.HANDSHAKE, Role.EGRESS, Role.INGRESS, Role.CONTROL, Role.AUDITOR)
_BLOCK_WORDS = 128
_ROW_WORDS = 24
_BLOCKS = len(_ROLES) + len(TUNNEL) * (MAX_WORKERS - 1)
_PEERS_AT = _HEADER_WORDS + _BLOCK_WORDS * _BLOCKS
_COUNTERS = {counter: position for position, counter in enumerate(Counter)}


def _block(role: Role, worker: int) -> int:
    """Where the block of a process begins, in words: the roles, then the pairs of further workers."""
    number = _ROLES.index(role)
    if worker:
        number = len(_ROLES) + len(TUNNEL) * (worker - 1) + TUNNEL.index(role)
    return _HEADER_WORDS + _BLOCK_WORDS * number


def identity_number(public_key: bytes) -> int:
    """How an own public key (32 bytes) is named where a number must do: its first 8 bytes, little-endian."""
    return int.from_bytes(public_key[:8], "little")


def create_stats() -> int:
    """A new, empty table; returns its memfd, which the caller owns."""
    fd = os.memfd_create("wghsm-stats", os.MFD_CLOEXEC)
    os.ftruncate(fd, (_PEERS_AT + _ROW_WORDS * MAX_PEERS) * _WORD)
    os.pwrite(fd, _MAGIC.to_bytes(_WORD, "little"), 0)
    return fd


class StatsFile:
    """A mapping of the table for one process. Values are u64; writes wrap."""

    def __init__(self, fd: int, role: Role, worker: int = 0) -> None:
        """Map the memfd `fd`, which stays the caller's; ValueError if it is no statistics table."""
        self._map = mmap.mmap(fd, (_PEERS_AT + _ROW_WORDS * MAX_PEERS) * _WORD)
        self._words = memoryview(self._map).cast("Q")
        if self._words[0] != _MAGIC:
            raise ValueError("not a statistics table of this version")
        self._block = _block(role, worker)

    @property
    def words(self) -> memoryview[int]:
        """The table as u64 words, for the packet path: `words[row(peer) + PeerField.TX_BYTES] += n`."""
        return self._words

    @staticmethod
    def row(peer: int) -> int:
        """Where the peer's row begins, in words."""
        return _PEERS_AT + _ROW_WORDS * peer

    def get(self, peer: int, field: PeerField) -> int:
        """A field of a peer's row."""
        return self._words[_PEERS_AT + _ROW_WORDS * peer + field]

    def set(self, peer: int, field: PeerField, value: int) -> None:
        """Write a field of a peer's row; only its one writer may."""
        self._words[_PEERS_AT + _ROW_WORDS * peer + field] = value

    def add(self, peer: int, field: PeerField, value: int) -> None:
        """Add to a field of a peer's row; only its one writer may."""
        self._words[_PEERS_AT + _ROW_WORDS * peer + field] += value

    def clear(self, peer: int) -> None:
        """Zero a peer's row: the supervisor, before it gives the slot to another peer."""
        start = _PEERS_AT + _ROW_WORDS * peer
        for word in range(start, start + _ROW_WORDS):
            self._words[word] = 0

    def count(self, counter: Counter, number: int = 1) -> None:
        """Count an event in this process's own block."""
        self._words[self._block + _COUNTERS[counter]] += number

    def counters(self, role: Role, worker: int = 0) -> dict[Counter, int]:
        """What `role` has counted, without the zeros."""
        start = _block(role, worker)
        return {counter: value for counter, at in _COUNTERS.items() if (value := self._words[start + at])}

    def close(self) -> None:
        """Unmap the table."""
        self._words.release()
        self._map.close()
