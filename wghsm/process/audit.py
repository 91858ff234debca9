"""How a process tells the auditor what happened: at once, or from a short memory as soon as the auditor is there.

    event -> send -> taken by the channel
                  -> not: remembered (the first MEMORY of them), later ones counted -> flush, with the count

Nothing here waits. Called by the custodian, the control process and the supervisor.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.ipc.messages import AuditEvent

__all__ = ["MEMORY", "AuditSender"]

MEMORY = 1024
"""Events that are remembered for an auditor that is not there, or does not read."""


class AuditSender:
    """`send` sends a message without blocking and says whether it was taken. Without an auditor, none is kept."""

    def __init__(self, send: Callable[[AuditEvent], bool], *, wanted: bool) -> None:
        self._send = send
        self._wanted = wanted
        self._waiting: deque[AuditEvent] = deque()
        self._lost = 0

    def __call__(self, event: AuditEvent) -> None:
        """Tell `event`."""
        if not self._wanted:
            return
        if self.flush() and self._send(self._told(event)):
            self._lost = 0
        else:
            self._keep(event)

    def flush(self) -> bool:
        """Send what is remembered; whether nothing is left. Call it when an auditor has come."""
        while self._waiting:
            if not self._send(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def attached(self) -> None:
        """An auditor has come."""
        self.flush()

    def _told(self, event: AuditEvent) -> AuditEvent:
        return msgspec.structs.replace(event, lost=self._lost) if self._lost else event

    def _keep(self, event: AuditEvent) -> None:
        if len(self._waiting) < MEMORY:
            self._waiting.append(self._told(event))
            self._lost = 0
        else:
            self._lost += 1
