"""The times and limits of the handshake process, in one argument each, so that tests can shorten them.

Times are in nanoseconds; the defaults are PROTOCOL.md section 1's.
"""

from dataclasses import dataclass

from wghsm.noise import constants

__all__ = ["Limits", "Times"]


@dataclass(frozen=True, slots=True)
class Times:
    """How long things last, in nanoseconds."""

    rekey_timeout: int = constants.REKEY_TIMEOUT
    """Between two initiations to a peer, and from an initiation to its repetition."""
    jitter_max: int = constants.REKEY_TIMEOUT_JITTER_MAX
    keepalive_timeout: int = constants.KEEPALIVE_TIMEOUT
    new_handshake_timeout: int = constants.NEW_HANDSHAKE_TIMEOUT
    reject_after_time: int = constants.REJECT_AFTER_TIME
    zero_key_material: int = constants.ZERO_KEY_MATERIAL_TIME
    persistent_keepalive_unit: int = constants.NSEC_PER_SEC
    """What one unit of a peer's persistent keepalive interval lasts."""
    request_deadline: int = 10 * constants.NSEC_PER_SEC
    """How long the custodian, and then ingress, may take over a handshake before it is dropped."""
    under_load_time: int = constants.UNDER_LOAD_TIME
    slow_answer: int = constants.NSEC_PER_SEC
    """Age of the oldest request at the custodian, or of a datagram on arrival, that counts as load."""
    slow_percentile: int = constants.NSEC_PER_SEC // 2
    """Load, too: the custodian answers, at the 95th percentile, no sooner than this."""
    latency_window: int = 5 * constants.NSEC_PER_SEC
    """How old an answer of the custodian may be to count for that percentile."""
    queue_wait: int = constants.NSEC_PER_SEC // 50
    """Load, too: `Limits.load_mark` datagrams one after the other have waited for so long."""
    rekey_patience: int = constants.NSEC_PER_SEC
    """How long one of many re-keys, as after a worker's restart, may keep another one waiting."""
    rekey_latency: int = constants.NSEC_PER_SEC // 4
    """A proof of a response that takes longer has the custodian asked for fewer at once."""
    report_interval: int = constants.NSEC_PER_SEC
    """Between two reports of one peer's endpoint to the supervisor."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many there may be."""

    max_timer_handshakes: int = constants.MAX_TIMER_HANDSHAKES
    requests: int = 1024
    """Requests at the custodian; beyond, handshake messages are dropped and counted."""
    own_requests: int = 128
    """How many of these are kept free for our own initiations and for responses to them."""
    load_mark: int = 128
    """Requests at the custodian from which on the gateway is under load: strangers must show a cookie."""
    rekeys_first: int = 8
    """Re-keys that are under way at once, as long as nobody knows how fast the token is."""
    rekeys_most: int = 64
    """Re-keys that are under way at once, however fast the token is."""
    early_installs: int = 1024
    """Acknowledgements of ingress that wait for the custodian's answer."""
    responses_waiting: int = 4
    """Responses to one initiation that wait while another one is proven: the first to come may be forged."""
