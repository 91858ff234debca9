"""TAI64N timestamps, 12 bytes: u64 big-endian 2^62 + 10 + Unix seconds, u32 big-endian nanoseconds.

WireGuard clears the low 24 bits of the nanoseconds (about 16.8 ms), so that an initiation does not tell the
sender's clock exactly. They compare as bytes. Called by the custodian. Source: PROTOCOL.md section 6.
"""

from typing import Final

from wghsm.noise.constants import NSEC_PER_SEC, TIMESTAMP_LEN

__all__ = ["WHITENING_STEP", "from_unix_ns", "is_later", "next_timestamp", "to_unix_ns"]

_BASE: Final = 0x400000000000000A
WHITENING_STEP: Final = 2**24
"""Nanoseconds in one step of a whitened timestamp."""


def from_unix_ns(unix_ns: int, *, whitened: bool = True) -> bytes:
    """Timestamp of `unix_ns` nanoseconds since 1970. Raises ValueError for a time that does not fit or is negative."""
    seconds, nanoseconds = divmod(unix_ns, NSEC_PER_SEC)
    if not 0 <= seconds < 2**63 - _BASE:
        raise ValueError(f"no TAI64N timestamp for {unix_ns} ns")
    if whitened:
        nanoseconds &= ~(WHITENING_STEP - 1)
    return (_BASE + seconds).to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")


def to_unix_ns(timestamp: bytes) -> int:
    """Nanoseconds since 1970 of any 12 bytes, also of senseless ones: negative, or with over 10^9 nanoseconds."""
    _require_length(timestamp)
    seconds = int.from_bytes(timestamp[:8], "big") - _BASE
    return seconds * NSEC_PER_SEC + int.from_bytes(timestamp[8:], "big")


def is_later(timestamp: bytes, than: bytes) -> bool:
    """Whether `timestamp` is strictly later than `than`, 12 bytes each, as every WireGuard compares them."""
    _require_length(timestamp)
    _require_length(than)
    return timestamp > than


def next_timestamp(now_unix_ns: int, last: bytes | int | None) -> bytes:
    """The timestamp to send: of max(now, last + 2^24 ns), so strictly later than `last`, whatever the clock does.

    `last` is the timestamp sent before, as 12 bytes or in Unix nanoseconds, None if there was none.
    """
    if last is None:
        return from_unix_ns(now_unix_ns)
    last_ns = to_unix_ns(last) if isinstance(last, bytes) else last
    return from_unix_ns(max(now_unix_ns, last_ns + WHITENING_STEP))


def _require_length(timestamp: bytes) -> None:
    if len(timestamp) != TIMESTAMP_LEN:
        raise ValueError(f"a timestamp has {TIMESTAMP_LEN} bytes, not {len(timestamp)}")
