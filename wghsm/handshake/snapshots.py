"""Compares what egress and ingress hold when this process begins: a worker may have died while it was away.

Called by the core with the parts of both snapshots, once; later a worker's death is seen by its fresh channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import Role

if TYPE_CHECKING:
    from wghsm.ipc.messages import SessionSnapshot

__all__ = ["Halves", "Snapshots"]


@dataclass(frozen=True, slots=True)
class Halves:
    """Peers, by slot number, of whose sessions a half is missing.

    `lost`: those that have sessions but none with both halves; `unknown`: those that are sent to on a session that
    ingress does not have, so that nobody knows which of our keys it was made with.
    """

    lost: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()


class Snapshots:
    """Sessions by worker until both have told all."""

    def __init__(self) -> None:
        self._sessions: dict[Role, set[tuple[int, int]]] = {Role.EGRESS: set(), Role.INGRESS: set()}
        self._sending: set[tuple[int, int]] = set()
        self._missing = {Role.EGRESS, Role.INGRESS}

    def add(self, sender: Role, part: SessionSnapshot) -> Halves:
        """Take a part; what is missing is known with the final one."""
        if sender not in self._missing:
            return Halves()
        for info in part.sessions:
            self._sessions[sender].add((info.peer, info.session))
            if sender is Role.EGRESS and info.slot == "current":
                self._sending.add((info.peer, info.session))
        if part.last:
            self._missing.discard(sender)
        if self._missing:
            return Halves()
        sends, receives = self._sessions[Role.EGRESS], self._sessions[Role.INGRESS]
        lost = {peer for peer, _ in sends ^ receives} - {peer for peer, _ in sends & receives}
        unknown = {peer for peer, _ in self._sending - receives}
        self.give_up()
        return Halves(frozenset(lost), frozenset(unknown))

    def give_up(self) -> None:
        """A worker was replaced meanwhile; its peers are re-keyed anyway."""
        self._missing.clear()
        self._sending.clear()
        for sessions in self._sessions.values():
            sessions.clear()
