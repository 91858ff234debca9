"""What a stranger's message must pass before it may cost a token operation (PROTOCOL.md section 7).

                     mac1 bad    mac2 bad or absent    mac2 good, too many    else
    not under load   drop        pass                  pass                   pass
    under load       drop        cookie reply          drop                   pass

Called by the core for initiations and responses. Pure: time and random numbers are arguments. The cookie secret,
the only secret of the handshake process, lives here.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from wghsm.ipc import Counter
from wghsm.noise import CookieChecker, RateLimiter, source_bytes
from wghsm.noise.constants import COOKIE_NONCE_LEN, SYMMETRIC_KEY_LEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.ipc.messages import Endpoint
    from wghsm.noise import Initiation, Response

__all__ = ["CookieAnswer", "Dropped", "Gate"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Not let in, and not answered."""

    reason: Counter


@dataclass(frozen=True, slots=True)
class CookieAnswer:
    """Not let in: this cookie reply, 64 bytes, goes back instead."""

    data: bytes


class Gate:
    """Judges messages to one identity, the static public key of 32 bytes."""

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self._checker = CookieChecker(identity)
        self._limiter = RateLimiter()

    def judge(
        self,
        message: Initiation | Response,
        data: bytes,
        source: Endpoint,
        now: int,
        entropy: Callable[[int], bytes],
        *,
        under_load: bool,
    ) -> Dropped | CookieAnswer | None:
        """None if `message`, decoded from `data` and come from `source`, may pass."""
        if not self._checker.mac1_valid(data):
            return Dropped(Counter.BAD_MAC1)
        if not under_load:
            return None
        try:
            address = ip_address(source.host).packed
        except ValueError:
            return Dropped(Counter.MALFORMED)
        proof = source_bytes(address, source.port)
        if not self._checker.mac2_valid(data, proof, now):
            reply = self._checker.reply(message, proof, entropy(COOKIE_NONCE_LEN), entropy(SYMMETRIC_KEY_LEN), now)
            return CookieAnswer(reply.encode())
        if not self._limiter.allow(address, now):
            return Dropped(Counter.RATE_LIMITED)
        return None
