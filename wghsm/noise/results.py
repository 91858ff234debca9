"""What the noise room answers when hostile input does not pass: a value, never an exception.

Exceptions are kept for faults of the caller (a wrong length of its own value, a method out of order).
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["OutOfOrderError", "Reason", "Rejected"]


class Reason(StrEnum):
    """Why something was refused; the names of the counters."""

    LENGTH = "length"
    """Not the exact length of its type, or shorter than 32 bytes for transport data."""
    TYPE = "type"
    """The first four bytes are no message type, or not the expected one; non-zero reserved bytes count here."""
    ZERO_DH = "zero_dh"
    """A Diffie-Hellman result was all zeros: the other side sent a point of low order."""
    AUTHENTICATION = "authentication"
    """An AEAD did not open."""
    UNEXPECTED_COOKIE = "unexpected_cookie"
    """A cookie reply without a message that it could answer."""
    SUPERSEDED = "superseded"
    """The handshake was wiped or finished while its token operation ran."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused for `reason`; the state it was offered to is as before."""

    reason: Reason


class OutOfOrderError(RuntimeError):
    """A handshake's method was called when its stage does not allow it: a fault of the caller."""
