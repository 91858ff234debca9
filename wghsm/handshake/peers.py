"""What the handshake process knows of a peer, and of the handshakes that are under way with it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wghsm.ipc import PeerField
from wghsm.ipc.messages import Endpoint

from .timers import Activity

if TYPE_CHECKING:
    from typing import Protocol

    from wghsm.ipc import Counter
    from wghsm.noise import CookieMaker, Response

    from .indices import Session
    from .timers import PeerTimers

    class Statistics(Protocol):
        """The statistics table as the core uses it; `wghsm.ipc.StatsFile` is one."""

        def get(self, peer: int, field: PeerField, /) -> int:
            """A field of the peer's row."""

        def set(self, peer: int, field: PeerField, value: int, /) -> None:
            """Write a field of the peer's row."""

        def add(self, peer: int, field: PeerField, value: int, /) -> None:
            """Add to a field of the peer's row."""

        def count(self, counter: Counter, /) -> None:
            """Count an event."""


__all__ = ["Answer", "Candidate", "Installation", "OwnInitiation", "Peer", "Statistics", "activity", "carried"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A response that may be the peer's: its fields, where it came from and when (CLOCK_BOOTTIME ns)."""

    message: Response
    source: Endpoint
    at: int


@dataclass(slots=True, eq=False)
class OwnInitiation:
    """An initiation of ours, made with our key `identity` (32 bytes), that waits for its response.

    `handle` names its secrets at the custodian; `trying` is the response that the custodian is asked about, `waiting`
    those that came meanwhile.
    """

    index: int
    handle: int
    identity: bytes
    trying: Candidate | None = None
    waiting: deque[Candidate] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Answer:
    """Message 2 without its macs, ready to leave once ingress has the session.

    `detour`: how much longer than usual (ns) to wait before an own initiation, because one was under way and is void.
    """

    message: Response
    detour: int


@dataclass(frozen=True, slots=True, eq=False)
class Installation:
    """A session that the custodian has derived and that waits for ingress; `answer` None if we are initiator."""

    peer: Peer
    session: Session
    answer: Answer | None


@dataclass(slots=True, eq=False)
class Peer:
    """A peer by slot number and static public key. `eq=False`: a slot that is given anew is another peer."""

    number: int
    public_key: bytes
    cookies: CookieMaker
    timers: PeerTimers
    keepalive: int = 0
    endpoint: Endpoint | None = None
    endpoint_at: int = 0
    free_at: int = 0
    """From when on an initiation may go to the peer, REKEY_TIMEOUT after the last handshake message."""
    responded: int = -1
    """When message 2 last went to the peer."""
    completed: int = 0
    """When a handshake was last complete here."""
    carried: int = 0
    """Bytes that had gone to the peer and come from it by then."""
    reported: int = -(2**63)
    """When the supervisor was last told of the endpoint."""
    unanswered: int = 0
    """Initiations sent since a handshake message of the peer was last proven."""
    made_with: dict[int, int] = field(default_factory=dict)
    """When a session was last derived with each of our identities, by its number; 0 is one that is not known."""
    creating: int | None = None
    """The request to the custodian that makes an initiation."""
    initiation: OwnInitiation | None = None
    responding: Installation | None = None
    """The newest session as responder whose message 2 has not left."""

    def forget_source(self) -> None:
        """Drop the own address that the peer was last reached from, keep the endpoint."""
        if self.endpoint is not None and (self.endpoint.local or self.endpoint.interface):
            self.endpoint = Endpoint(self.endpoint.host, self.endpoint.port, self.endpoint.scope)


def carried(stats: Statistics, number: int) -> int:
    """Bytes that have gone to the peer and come from it."""
    return stats.get(number, PeerField.TX_BYTES) + stats.get(number, PeerField.RX_BYTES)


def activity(stats: Statistics, number: int) -> Activity:
    """The peer's row of the table, as the timers read it."""
    return Activity(
        last_sent=max(stats.get(number, PeerField.LAST_SENT), stats.get(number, PeerField.LAST_HANDSHAKE_SENT)),
        last_received=max(
            stats.get(number, PeerField.LAST_RECEIVED), stats.get(number, PeerField.LAST_HANDSHAKE_RECEIVED)
        ),
        last_data_received=stats.get(number, PeerField.LAST_DATA_RECEIVED),
        first_data_unanswered=stats.get(number, PeerField.FIRST_DATA_UNANSWERED),
        first_data_unacknowledged=stats.get(number, PeerField.FIRST_DATA_UNACKNOWLEDGED),
    )
