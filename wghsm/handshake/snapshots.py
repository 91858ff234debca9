"""Compares what egress and ingress hold when this process begins: a worker may have died while it was away.

Called by the core with the parts of both snapshots, once; later a worker's death is seen by its fresh channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.ipc import Role

if TYPE_CHECKING:
    from wghsm.ipc.messages import SessionSnapshot

__all__ = ["Snapshots"]


class Snapshots:
    """Sessions by worker until both have told all."""

    def __init__(self) -> None:
        self._sessions: dict[Role, set[tuple[int, int]]] = {Role.EGRESS: set(), Role.INGRESS: set()}
        self._missing = {Role.EGRESS, Role.INGRESS}

    def add(self, sender: Role, part: SessionSnapshot) -> set[int]:
        """Take a part; with the final one, the peers that have sessions but none with both halves."""
        if sender not in self._missing:
            return set()
        self._sessions[sender].update((info.peer, info.session) for info in part.sessions)
        if part.last:
            self._missing.discard(sender)
        if self._missing:
            return set()
        sends, receives = self._sessions[Role.EGRESS], self._sessions[Role.INGRESS]
        lost = {peer for peer, _ in sends ^ receives} - {peer for peer, _ in sends & receives}
        self.give_up()
        return lost

    def give_up(self) -> None:
        """A worker was replaced meanwhile; its peers are re-keyed anyway."""
        self._missing.clear()
        for sessions in self._sessions.values():
            sessions.clear()
