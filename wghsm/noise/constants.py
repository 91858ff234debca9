"""WireGuard's constants by the kernel's names; times are in nanoseconds, sizes in bytes.

Read by every room that keeps a timer, a counter or a queue (PROTOCOL.md section 1).
"""

from typing import Final

NSEC_PER_SEC: Final = 1_000_000_000
NSEC_PER_MSEC: Final = 1_000_000

REKEY_AFTER_MESSAGES: Final = 2**60
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
REKEY_AFTER_TIME: Final = 120 * NSEC_PER_SEC
REJECT_AFTER_TIME: Final = 180 * NSEC_PER_SEC
REKEY_TIMEOUT: Final = 5 * NSEC_PER_SEC
REKEY_TIMEOUT_JITTER_MAX: Final = 333 * NSEC_PER_MSEC
"""Greatest jitter that is added to the retransmit and new-handshake timers, uniform from 0."""
REKEY_ATTEMPT_TIME: Final = 90 * NSEC_PER_SEC
MAX_TIMER_HANDSHAKES: Final = REKEY_ATTEMPT_TIME // REKEY_TIMEOUT
"""18; attempts are compared with `>`, so 20 initiations leave before giving up (section 8.3)."""
KEEPALIVE_TIMEOUT: Final = 10 * NSEC_PER_SEC
NEW_HANDSHAKE_TIMEOUT: Final = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
REKEY_AFTER_TIME_RECV: Final = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
"""165 s: age at which the initiator of a session re-keys on receive, once a session."""
ZERO_KEY_MATERIAL_TIME: Final = 3 * REJECT_AFTER_TIME

COOKIE_SECRET_MAX_AGE: Final = 120 * NSEC_PER_SEC
COOKIE_SECRET_LATENCY: Final = 5 * NSEC_PER_SEC
COOKIE_USABLE_TIME: Final = COOKIE_SECRET_MAX_AGE - COOKIE_SECRET_LATENCY

INITIATIONS_PER_SECOND: Final = 50
INITIATION_FLOOD_GUARD: Final = NSEC_PER_SEC // INITIATIONS_PER_SECOND
"""20 ms: a second valid initiation of one peer inside it is dropped."""

PACKETS_PER_SECOND: Final = 20
PACKETS_BURSTABLE: Final = 5
UNDER_LOAD_TIME: Final = NSEC_PER_SEC
"""How long a gateway stays "under load" after its queue has drained below the mark."""

MAX_STAGED_PACKETS: Final = 128
MAX_QUEUED_PACKETS: Final = 1024
MAX_QUEUED_INCOMING_HANDSHAKES: Final = 4096
MAX_PEERS: Final = 2**20

MESSAGE_PADDING_MULTIPLE: Final = 16
HANDSHAKE_DSCP: Final = 0x88
"""TOS byte of initiations and responses (AF41, not ECN); a cookie reply goes with 0."""
DEFAULT_MTU: Final = 1420
MINIMAL_OVERHEAD: Final = 80
"""Outer bytes at most: 40 IPv6, 8 UDP, 32 WireGuard."""

PUBLIC_KEY_LEN: Final = 32
PRIVATE_KEY_LEN: Final = 32
SYMMETRIC_KEY_LEN: Final = 32
HASH_LEN: Final = 32
TIMESTAMP_LEN: Final = 12
AUTHTAG_LEN: Final = 16
COOKIE_LEN: Final = 16
COOKIE_NONCE_LEN: Final = 24
MAC_LEN: Final = 16

COUNTER_BITS_TOTAL: Final = 8192
COUNTER_WINDOW_SIZE: Final = COUNTER_BITS_TOTAL - 64
"""8128: how far behind the greatest counter a packet is still judged."""

CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"
