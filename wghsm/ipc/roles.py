"""The processes of a gateway and the socket pairs between them (SEAMS.md "Channels").

Everything that names a process or a channel, in code, logs or status, uses these words. Egress and ingress may be there
several times, a pair for each worker of the tunnel: a seat names one process, "egress" the first and "egress-1" the
next.
"""

from enum import StrEnum, unique

__all__ = [
    "ENDS",
    "MAX_WORKERS",
    "TUNNEL",
    "ChannelKind",
    "Role",
    "Seat",
    "all_seats",
    "index_of",
    "role_of",
    "seat_of",
    "worker_bits",
    "worker_of",
    "worker_of_peer",
]

MAX_WORKERS = 32
"""Workers of one tunnel, each a pair of egress and ingress."""


@unique
class Role(StrEnum):
    """One process of a gateway."""

    SUPERVISOR = "supervisor"
    CUSTODIAN = "custodian"
    HANDSHAKE = "handshake"
    EGRESS = "egress"
    INGRESS = "ingress"
    CONTROL = "control"
    AUDITOR = "auditor"


TUNNEL = (Role.EGRESS, Role.INGRESS)
"""The roles that each worker has."""

Seat = str
"""A role where there is one process of it, or its first one; with a number behind it for those that follow."""


def seat_of(role: Role, worker: int = 0) -> Seat:
    """The seat of this worker's process."""
    return f"{role}-{worker}" if worker else role


def role_of(seat: Seat) -> Role:
    """The role of a seat; ValueError if it names none."""
    return Role(seat.partition("-")[0])


def worker_of(seat: Seat) -> int:
    """The worker that a seat belongs to, 0 for a role that is there once."""
    return int(seat.partition("-")[2] or 0)


def all_seats(role: Role, workers: int) -> tuple[Seat, ...]:
    """Every seat of a role."""
    return tuple(seat_of(role, worker) for worker in range(workers if role in TUNNEL else 1))


def worker_of_peer(peer: int, workers: int) -> int:
    """Who owns all sessions of the peer in this slot: their counters, windows and places in the statistics."""
    return peer % workers


def worker_bits(workers: int) -> int:
    """The low bits of a local index that name the worker, as a mask."""
    return (1 << (workers - 1).bit_length()) - 1


def index_of(index: int, peer: int, workers: int) -> int:
    """A local index of this peer: `index`, with the low bits that lead its datagrams to the peer's worker."""
    return index & ~worker_bits(workers) | worker_of_peer(peer, workers)


@unique
class ChannelKind(StrEnum):
    """One kind of socket pair, named after its two ends."""

    SUPERVISOR_CUSTODIAN = "supervisor-custodian"
    SUPERVISOR_HANDSHAKE = "supervisor-handshake"
    SUPERVISOR_EGRESS = "supervisor-egress"
    SUPERVISOR_INGRESS = "supervisor-ingress"
    SUPERVISOR_CONTROL = "supervisor-control"
    SUPERVISOR_AUDITOR = "supervisor-auditor"
    HANDSHAKE_CUSTODIAN = "handshake-custodian"
    HANDSHAKE_EGRESS = "handshake-egress"
    HANDSHAKE_INGRESS = "handshake-ingress"
    INGRESS_EGRESS = "ingress-egress"
    CUSTODIAN_EGRESS = "custodian-egress"
    CUSTODIAN_INGRESS = "custodian-ingress"
    CONTROL_CUSTODIAN = "control-custodian"
    CUSTODIAN_AUDITOR = "custodian-auditor"
    CONTROL_AUDITOR = "control-auditor"


def _ends(kind: ChannelKind) -> tuple[Role, Role]:
    first, second = kind.value.split("-")
    return Role(first), Role(second)


ENDS: dict[ChannelKind, tuple[Role, Role]] = {kind: _ends(kind) for kind in ChannelKind}
"""The two roles at the ends of each channel."""
