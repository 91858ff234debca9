"""What the processes of a gateway say to each other, and how: typed messages over socket pairs, and one table
of statistics. `messages` has the messages, `table` who may send which, `roles` the names of the ends.
"""

from .channel import Channel, ChannelClosed, ProtocolError, socket_pair
from .roles import ENDS, ChannelKind, Role
from .stats import MAX_PEERS, Counter, PeerField, StatsFile, create_stats, identity_number

__all__ = [
    "ENDS",
    "MAX_PEERS",
    "Channel",
    "ChannelClosed",
    "ChannelKind",
    "Counter",
    "PeerField",
    "ProtocolError",
    "Role",
    "StatsFile",
    "create_stats",
    "identity_number",
    "socket_pair",
]
