"""A socket pair for each worker's egress, into which the others' put what they have read for its peers.

The supervisor keeps both ends for processes that are restarted. Where there is one worker there is none. Called by
`_run` and `_state`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.ipc import messages as m
from wghsm.ipc import socket_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Inboxes"]


class Inboxes:
    """The pairs of `workers`: the end to read, and the end to write."""

    def __init__(self, workers: int) -> None:
        self._pairs = [socket_pair() for _ in range(workers if workers > 1 else 0)]

    def feed(self, worker: int) -> Iterator[tuple[m.Inbox, list[int]]]:
        """What this worker's egress is told: its own, and where to put what is for the others."""
        for owner, (read, write) in enumerate(self._pairs):
            yield m.Inbox(owner), [(read if owner == worker else write).fileno()]

    def close(self) -> None:
        """Close this process's descriptors."""
        for pair in self._pairs:
            for end in pair:
                end.close()
