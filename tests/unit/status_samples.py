"""A peer in a gateway's status, for tests of what is said of it."""

import msgspec

from wghsm.ipc.admin import PeerStatus

__all__ = ["peer_status"]

_PEER = PeerStatus(
    name="alice",
    public_key="",
    preshared_key="none",
    endpoint=None,
    allowed_ips=[],
    persistent_keepalive=0,
    latest_handshake=None,
    rx_bytes=0,
    tx_bytes=0,
)


def peer_status(**fields: object) -> PeerStatus:
    """Give a peer that has never been there, with these fields."""
    return msgspec.structs.replace(_PEER, **fields)
