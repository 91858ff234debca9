"""What the core asks of its process: messages to send. Everything else it keeps to itself.

The shell (`shell.py`) carries them out in order; tests read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wghsm.ipc import Seat
    from wghsm.ipc.messages import Endpoint, Message

__all__ = ["Effect", "SendDatagram", "Tell"]


@dataclass(frozen=True, slots=True)
class Tell:
    """Send `message` to another process of the gateway."""

    to: Seat
    message: Message


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send a UDP payload to `endpoint` with this TOS byte; `peer` is None for a cookie reply."""

    peer: int | None
    endpoint: Endpoint
    data: bytes
    tos: int


Effect = Tell | SendDatagram
