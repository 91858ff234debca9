"""What strangers cause, once a second and by cause: the statistics table's counters, now and a second ago.

One record for all processes and causes together, and none while nothing is counted. There are as many causes as
`Counter` has, so nobody without a key can make the log grow by more than a line a second. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.audit import Event
from wghsm.ipc import Counter, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CAUSES", "Aggregates"]

_EVERYDAY = frozenset(
    {
        # What has a record of its own, or happens without anybody's doing.
        Counter.INITIATION_SENT,
        Counter.INITIATION_RECEIVED,
        Counter.RESPONSE_SENT,
        Counter.RESPONSE_RECEIVED,
        Counter.HANDSHAKE_COMPLETE,
        Counter.DERIVE,
        Counter.PSK_USE,
        Counter.TOKEN_CHECKED,
        Counter.AUDIT_RECORDED,
        Counter.AUDIT_UNWRITTEN,
        Counter.AUDIT_JOURNALD_LOST,
        Counter.AUDIT_SYSLOG_LOST,
    }
)
CAUSES = frozenset(Counter) - _EVERYDAY
"""What is told of, if it was counted."""
_ROLES = tuple(role for role in Role if role not in (Role.SUPERVISOR, Role.CONTROL, Role.AUDITOR))


class Aggregates:
    """`counters` gives what a process has counted, since the gateway started."""

    def __init__(self, counters: Callable[[Role], Mapping[Counter, int]]) -> None:
        self._counters = counters
        self._before = self._look()

    def take(self) -> list[Event]:
        """What was counted since the last call: one event, or none."""
        now = self._look()
        detail: dict[str, str | int] = {
            f"{role}.{cause}": count - self._before.get((role, cause), 0)
            for (role, cause), count in now.items()
            if count != self._before.get((role, cause), 0)
        }
        self._before = now
        return [Event(kind="aggregate", operation="count", detail=detail)] if detail else []

    def _look(self) -> dict[tuple[Role, Counter], int]:
        return {
            (role, cause): count for role in _ROLES for cause, count in self._counters(role).items() if cause in CAUSES
        }
