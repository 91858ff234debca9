"""What a worker tells a new handshake process about its sessions, cut into messages that a channel takes."""

from collections.abc import Iterator, Sequence

from wghsm.ipc.messages import EndpointMoved, SessionInfo, SessionSnapshot

__all__ = ["snapshot_parts"]

_PART = 1000
"""Sessions and endpoints in one message: at most about 65 and 140 bytes each, so below 200 KB."""


def snapshot_parts(sessions: Sequence[SessionInfo], endpoints: Sequence[EndpointMoved]) -> Iterator[SessionSnapshot]:
    """At least one part; only the final one is marked `last`."""
    size = max(len(sessions), len(endpoints), 1)
    for start in range(0, size, _PART):
        end = start + _PART
        yield SessionSnapshot(list(sessions[start:end]), list(endpoints[start:end]), last=end >= size)
