"""What a stranger's message must pass before it may cost a token operation (PROTOCOL.md section 7).

                     mac1 bad    mac2 bad or absent    mac2 good, too many    else
    not under load   drop        pass                  pass                   pass
    under load       drop        cookie reply          drop                   pass

Cookie replies are the dearest part of a flood: a source gets no more of them than it could use.

While the gateway's key is rotated there are two identities: mac1 tells which one a message is meant for, and the
cookie reply is sealed for that one (SEAMS.md "Two identities").

Called by `intake` for initiations and responses. Pure: time and random numbers are arguments. The cookie secret,
the only secret of the handshake process, lives here; ingress is given a copy, to know who shows a cookie.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import CookieChecker, RateLimiter, source_bytes
from wghsm.noise.constants import COOKIE_NONCE_LEN, SYMMETRIC_KEY_LEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wghsm.ipc.messages import Endpoint
    from wghsm.noise import Initiation, Response

__all__ = ["CookieAnswer", "Dropped", "Gates"]


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

    def __init__(self, identity: bytes, limiter: RateLimiter, replies: RateLimiter) -> None:
        self.identity = identity
        self._checker = CookieChecker(identity)
        self._limiter = limiter
        self._replies = replies

    def is_meant(self, data: bytes) -> bool:
        """Whether mac1 of `data` was made for this identity."""
        return self._checker.mac1_valid(data)

    def judge(
        self,
        message: Initiation | Response,
        data: bytes,
        source: Endpoint,
        now: int,
        entropy: Callable[[int], bytes],
    ) -> Dropped | CookieAnswer | None:
        """None if `message`, meant for this identity and come from `source`, may pass under load."""
        try:
            address = socket.inet_pton(socket.AF_INET6 if ":" in source.host else socket.AF_INET, source.host)
        except OSError:
            return Dropped(Counter.MALFORMED)
        proof = source_bytes(address, source.port)
        if not self._checker.mac2_valid(data, proof, now):
            if not self._replies.allow(address, now):
                return Dropped(Counter.RATE_LIMITED)
            reply = self._checker.reply(message, proof, entropy(COOKIE_NONCE_LEN), entropy(SYMMETRIC_KEY_LEN), now)
            return CookieAnswer(reply.encode())
        if not self._limiter.allow(address, now):
            return Dropped(Counter.RATE_LIMITED)
        return None

    def told(self, now: int) -> m.Gate:
        """What ingress needs to judge alike."""
        return m.Gate(self.identity, *self._checker.secret(now))

    def close(self) -> None:
        """The identity is not served any more: wipe the cookie secret."""
        self._checker.wipe()


class Gates:
    """A gate for each identity that is served; sources are limited over all of them."""

    def __init__(self) -> None:
        self._gates: tuple[Gate, ...] = ()
        self._limiter = RateLimiter()
        # Where more sources come than can be told apart, all may be forged, and each is as good as the other.
        self._replies = RateLimiter(when_full=True)

    def serve(self, identities: Sequence[bytes]) -> None:
        """Serve these public keys, the current one first, and no other. Cookies of those that stay hold on."""
        known = {gate.identity: gate for gate in self._gates}
        self._gates = tuple(
            known.pop(one) if one in known else Gate(one, self._limiter, self._replies) for one in identities
        )
        for gone in known.values():
            gone.close()

    def told(self, now: int) -> m.Gates:
        """What ingress needs to drop early what would be dropped here."""
        return m.Gates(tuple(gate.told(now) for gate in self._gates))

    def judge(
        self,
        message: Initiation | Response,
        data: bytes,
        source: Endpoint,
        now: int,
        entropy: Callable[[int], bytes],
        *,
        under_load: bool,
    ) -> Dropped | CookieAnswer | bytes:
        """The identity that `message`, decoded from `data` and come from `source`, is meant for, if it may pass."""
        gate = next((gate for gate in self._gates if gate.is_meant(data)), None)
        if gate is None:
            return Dropped(Counter.BAD_MAC1)
        verdict = gate.judge(message, data, source, now, entropy) if under_load else None
        return gate.identity if verdict is None else verdict
