"""What the processes of a gateway say to each other, and how: typed messages over socket pairs, and one table
of statistics. `messages` has the messages, `table` who may send which, `roles` the names of the ends.
"""

from .channel import Channel, ChannelClosed, ProtocolError, socket_pair
from .roles import (
    ENDS,
    MAX_WORKERS,
    TUNNEL,
    ChannelKind,
    Role,
    Seat,
    all_seats,
    index_of,
    role_of,
    seat_of,
    worker_bits,
    worker_of,
    worker_of_peer,
)
from .stats import MAX_PEERS, Counter, PeerField, StatsFile, create_stats, identity_number

__all__ = [
    "ENDS",
    "MAX_PEERS",
    "MAX_WORKERS",
    "TUNNEL",
    "Channel",
    "ChannelClosed",
    "ChannelKind",
    "Counter",
    "PeerField",
    "ProtocolError",
    "Role",
    "Seat",
    "StatsFile",
    "all_seats",
    "create_stats",
    "identity_number",
    "index_of",
    "role_of",
    "seat_of",
    "socket_pair",
    "worker_bits",
    "worker_of",
    "worker_of_peer",
]
