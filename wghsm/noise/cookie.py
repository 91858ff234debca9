"""mac1, mac2 and cookies: what keeps strangers from costing token operations.

CookieMaker, one for each peer, sends:    authenticate(message) - consume_reply(reply) - authenticate(next, with mac2)
CookieChecker, one for each identity, receives:    mac1_valid - under load: mac2_valid, or else reply

Called by the handshake process; neither needs a long-term secret. Times are CLOCK_BOOTTIME in nanoseconds.
Source: PROTOCOL.md section 7.
"""

import hmac

from wghsm.noise._kdf import Buffer, blake2s, mac
from wghsm.noise._xchacha import xchacha_open, xchacha_seal
from wghsm.noise.constants import (
    COOKIE_SECRET_MAX_AGE,
    COOKIE_USABLE_TIME,
    LABEL_COOKIE,
    LABEL_MAC1,
    MAC_LEN,
    SYMMETRIC_KEY_LEN,
)
from wghsm.noise.messages import NO_MAC, CookieReply, Initiation, Response, with_macs
from wghsm.noise.results import Reason, Rejected
from wghsm.wipe import wipe

__all__ = ["CookieChecker", "CookieMaker", "cookie_key", "mac1_key", "source_bytes"]


def mac1_key(public: bytes) -> bytes:
    """Key of mac1, 32 bytes, on messages to the holder of the static public key `public`, 32 bytes."""
    return bytes(blake2s(LABEL_MAC1, public))


def cookie_key(public: bytes) -> bytes:
    """Key of cookie replies, 32 bytes, from the holder of the static public key `public`, 32 bytes."""
    return bytes(blake2s(LABEL_COOKIE, public))


def source_bytes(address: bytes, port: int) -> bytes:
    """What a cookie vouches for: packed address, 4 or 16 bytes, and port in network order."""
    return address + port.to_bytes(2, "big")


class CookieMaker:
    """Puts macs on handshake messages to one peer, and remembers the cookie that the peer sends.

    Of a peer that is never talked to it keeps nothing but the key.
    """

    __slots__ = ("_cookie", "_cookie_time", "_last_mac1", "_mac1_key", "_peer_public")

    def __init__(self, peer_public: bytes) -> None:
        self._peer_public = peer_public
        self._mac1_key: bytes | None = None
        self._last_mac1: bytes | None = None
        self._cookie: bytes | None = None
        self._cookie_time = 0

    def authenticate(self, message: Initiation | Response, now: int) -> bytes:
        """The whole message with mac1, and with mac2 if a cookie came less than 115 s ago."""
        if self._mac1_key is None:
            self._mac1_key = mac1_key(self._peer_public)
        usable = now - self._cookie_time < COOKIE_USABLE_TIME
        data = with_macs(message, self._mac1_key, self._cookie if usable else None)
        self._last_mac1 = data[-2 * MAC_LEN : -MAC_LEN]
        return data

    def consume_reply(self, reply: CookieReply, now: int) -> Rejected | None:
        """Keep the cookie of `reply`. One reply for each message sent: a second one is refused."""
        if self._last_mac1 is None:
            return Rejected(Reason.UNEXPECTED_COOKIE)
        cookie = xchacha_open(cookie_key(self._peer_public), reply.nonce, reply.cookie, self._last_mac1)
        if cookie is None:
            return Rejected(Reason.AUTHENTICATION)
        self._cookie = cookie
        self._cookie_time = now
        self._last_mac1 = None
        return None


class CookieChecker:
    """Judges the macs of messages to the identity with the 32 bytes `public`, and hands out cookies."""

    def __init__(self, public: bytes) -> None:
        self._mac1_key = mac1_key(public)
        self._cookie_key = cookie_key(public)
        self._secret = bytearray(SYMMETRIC_KEY_LEN)
        self._secret_time: int | None = None

    def mac1_valid(self, message: Buffer) -> bool:
        """Whether mac1 of a whole initiation or response is right, in constant time."""
        expected = mac(self._mac1_key, message[: -2 * MAC_LEN])
        return hmac.compare_digest(expected, message[-2 * MAC_LEN : -MAC_LEN])

    def mac2_valid(self, message: Buffer, source: bytes, now: int) -> bool:
        """Whether mac2 of a whole initiation or response holds our present cookie for `source`, in constant time."""
        # Whoever has no cookie says so by zeros, as a flood of strangers does.
        if self._secret_expired(now) or message[-MAC_LEN:] == NO_MAC:
            return False
        expected = mac(self._cookie(source), message[:-MAC_LEN])
        return hmac.compare_digest(expected, message[-MAC_LEN:])

    def reply(self, message: Initiation | Response, source: bytes, nonce: bytes, fresh: bytes, now: int) -> CookieReply:
        """Cookie reply to `message`, whose mac1 is valid, for `source` (`source_bytes`).

        `nonce`: 24 random bytes. `fresh`: 32 random bytes, the next cookie secret if the present one is older than
        120 s, else unused.
        """
        if self._secret_expired(now):
            if len(fresh) != SYMMETRIC_KEY_LEN:
                raise ValueError(f"a cookie secret has {SYMMETRIC_KEY_LEN} bytes, not {len(fresh)}")
            self._secret[:] = fresh
            self._secret_time = now
        sealed = xchacha_seal(self._cookie_key, nonce, self._cookie(source), message.mac1)
        return CookieReply(receiver=message.sender, nonce=nonce, cookie=sealed)

    def secret(self, now: int) -> tuple[bytes, int]:
        """The cookie secret and until when (CLOCK_BOOTTIME ns) its cookies hold; nothing and 0 if there is none."""
        if self._secret_time is None or self._secret_expired(now):
            return b"", 0
        return bytes(self._secret), self._secret_time + COOKIE_SECRET_MAX_AGE

    def wipe(self) -> None:
        """Overwrite the cookie secret; every cookie handed out is worthless then."""
        wipe(self._secret)
        self._secret_time = None

    def _secret_expired(self, now: int) -> bool:
        return self._secret_time is None or now - self._secret_time >= COOKIE_SECRET_MAX_AGE

    def _cookie(self, source: bytes) -> bytes:
        return mac(self._secret, source)
