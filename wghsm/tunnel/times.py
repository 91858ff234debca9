"""The limits that the tunnel enforces itself, whatever it is told.

A test program may pass shorter ones to `egress.main` and `ingress.main`.
"""

from dataclasses import dataclass

from wghsm.noise import constants

__all__ = ["PROTOCOL_TIMES", "Times"]


@dataclass(frozen=True)
class Times:
    """Times in nanoseconds, counts in messages; PROTOCOL.md section 1."""

    rekey_after_time: int = constants.REKEY_AFTER_TIME
    rekey_after_time_recv: int = constants.REKEY_AFTER_TIME_RECV
    reject_after_time: int = constants.REJECT_AFTER_TIME
    zero_key_material: int = constants.ZERO_KEY_MATERIAL_TIME
    rekey_after_messages: int = constants.REKEY_AFTER_MESSAGES
    reject_after_messages: int = constants.REJECT_AFTER_MESSAGES
    handshake_wanted_again: int = constants.NSEC_PER_SEC
    """How long a HandshakeWanted of a peer stands before it is repeated."""
    first_data_told_again: int = constants.NSEC_PER_SEC
    """How long a DataSent or DataReceived of a peer stands: the timer it armed runs longer and reads the table."""
    endpoint_told_again: int = constants.KEEPALIVE_TIMEOUT
    """How often ingress repeats an unchanged endpoint of a peer that is heard: newest wins over a configured one."""


PROTOCOL_TIMES = Times()
"""What the protocol says; every gateway outside a test."""
