"""WireGuard's Noise without I/O, clock, randomness or keys of its own.

    messages       wire messages, fields to bytes and back
    cookie         mac1, mac2, cookies; ratelimiter: who may ask how often
    initiator      both roles of the handshake, on fields; the static key and the pre-shared keys stay
    responder      with the `Custody` that the caller passes in
    tai64n         timestamps
    replay         the window of one receiving session
    curve          X25519 for ephemerals, points of low order
    constants      times in nanoseconds, by the kernel's names

Used by the custodian (handshakes), the handshake process (messages, cookies), the tunnel (messages, replay).
Hostile input gets a `Rejected`; exceptions are faults of the caller.
"""

from wghsm.noise.cookie import CookieChecker, CookieMaker, cookie_key, mac1_key, source_bytes
from wghsm.noise.curve import is_low_order
from wghsm.noise.custody import Custody, SoftwareCustody
from wghsm.noise.initiator import InitiationFields, Initiator
from wghsm.noise.messages import (
    CookieReply,
    Initiation,
    MessageType,
    Response,
    TransportHeader,
    message_type,
)
from wghsm.noise.ratelimiter import RateLimiter
from wghsm.noise.replay import ReplayWindow
from wghsm.noise.responder import Responder, ResponseFields
from wghsm.noise.results import OutOfOrderError, Reason, Rejected
from wghsm.noise.session import SessionKeys

__all__ = [
    "CookieChecker",
    "CookieMaker",
    "CookieReply",
    "Custody",
    "Initiation",
    "InitiationFields",
    "Initiator",
    "MessageType",
    "OutOfOrderError",
    "RateLimiter",
    "Reason",
    "Rejected",
    "ReplayWindow",
    "Responder",
    "Response",
    "ResponseFields",
    "SessionKeys",
    "SoftwareCustody",
    "TransportHeader",
    "cookie_key",
    "is_low_order",
    "mac1_key",
    "message_type",
    "source_bytes",
]
