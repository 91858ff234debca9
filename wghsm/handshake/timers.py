"""The five timers of a peer, by the kernel's names, as a pure table of deadlines (PROTOCOL.md section 8).

    retransmit_handshake   no response: again, or give up        new_handshake         data sent, nothing came back
    send_keepalive         data came, nothing was sent since     zero_key_material     no new session for long
    persistent_keepalive   nothing sent or received for an interval

Packets do not touch them: egress and ingress write times into the statistics table and tell only of the first
data packet of a kind. Whether a timer was stopped or re-armed meanwhile is read off the table when it expires.
Called by the core. Times are CLOCK_BOOTTIME in nanoseconds, jitter is the caller's random number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .times import Limits, Times

__all__ = ["Action", "Activity", "PeerTimers", "Timer"]


@unique
class Timer(StrEnum):
    """The timers of a peer."""

    RETRANSMIT_HANDSHAKE = "retransmit_handshake"
    SEND_KEEPALIVE = "send_keepalive"
    NEW_HANDSHAKE = "new_handshake"
    ZERO_KEY_MATERIAL = "zero_key_material"
    PERSISTENT_KEEPALIVE = "persistent_keepalive"


class Action(Enum):
    """What an expired timer asks for."""

    FORGET_SOURCE = auto()
    RETRY_INITIATION = auto()
    NEW_INITIATION = auto()
    GIVE_UP = auto()
    SEND_KEEPALIVE = auto()
    ZERO_KEY_MATERIAL = auto()


@dataclass(frozen=True, slots=True)
class Activity:
    """When a peer was last sent or received what, from the statistics table; 0 is never.

    `last_sent` and `last_received` cover everything authenticated, handshakes too.
    """

    last_sent: int = 0
    last_received: int = 0
    last_data_received: int = 0
    first_data_unanswered: int = 0
    first_data_unacknowledged: int = 0

    @property
    def latest(self) -> int:
        """When anything authenticated last went either way."""
        return max(self.last_sent, self.last_received)


@dataclass(frozen=True, slots=True)
class _Armed:
    deadline: int
    since: int


class PeerTimers:
    """The timers of one peer. `attempts` counts repetitions of the present initiation."""

    __slots__ = ("_armed", "_interval", "_limits", "_times", "attempts")

    def __init__(self, times: Times, limits: Limits) -> None:
        self.attempts = 0
        self._times = times
        self._limits = limits
        self._interval = 0
        self._armed: dict[Timer, _Armed] = {}

    def pending(self, timer: Timer) -> bool:
        """Whether `timer` is armed, perhaps void."""
        return timer in self._armed

    def next_deadline(self) -> int | None:
        """When the next timer is due, or None."""
        return min((armed.deadline for armed in self._armed.values()), default=None)

    def due(self, now: int) -> list[Timer]:
        """Timers whose deadline has come, the earliest first."""
        expired = [(armed.deadline, timer) for timer, armed in self._armed.items() if armed.deadline <= now]
        return [timer for _, timer in sorted(expired)]

    def expire(self, timer: Timer, now: int, activity: Activity, jitter: int) -> tuple[Action, ...]:
        """Take a due `timer`: what to do, in order; nothing when it was void."""
        return _ON_EXPIRY[timer](self, self._armed.pop(timer), now, activity, jitter)

    def start(self, interval: int, now: int, activity: Activity, jitter: int) -> None:
        """Begin for a peer whose `activity` may come from before a restart of this process.

        `interval`: persistent keepalive in its units, 0 for none. A peer that never had a packet gets one at once.
        """
        self.stop()
        self.set_interval(interval, now, activity)
        for first, answered, arm in (
            (activity.first_data_unanswered, activity.last_received, Timer.NEW_HANDSHAKE),
            (activity.first_data_unacknowledged, activity.last_sent, Timer.SEND_KEEPALIVE),
        ):
            if first > answered and now - first < self._times.reject_after_time:
                self._arm(arm, first, jitter)

    def stop(self) -> None:
        """Disarm everything: the interface went down."""
        self._armed.clear()
        self.attempts = 0

    def set_interval(self, interval: int, now: int, activity: Activity) -> None:
        """Change the persistent keepalive interval; turned on from 0 it is due by the last packet either way."""
        self._interval = interval * self._times.persistent_keepalive_unit
        self._armed.pop(Timer.PERSISTENT_KEEPALIVE, None)
        if self._interval:
            due = max(now, activity.latest + self._interval) if activity.latest else now
            self._armed[Timer.PERSISTENT_KEEPALIVE] = _Armed(due, now)

    def data_sent(self, at: int, jitter: int) -> None:
        """Data went out at `at`, the first since anything was received."""
        # A timer that is void by now finds this packet in the table when it expires.
        if Timer.NEW_HANDSHAKE not in self._armed:
            self._arm(Timer.NEW_HANDSHAKE, at, jitter)

    def data_received(self, at: int) -> None:
        """Data came in at `at`, the first since anything was sent."""
        if Timer.SEND_KEEPALIVE not in self._armed:
            self._arm(Timer.SEND_KEEPALIVE, at)

    def initiation_sent(self, now: int, jitter: int) -> None:
        """An initiation went out, or was tried in vain."""
        self._arm(Timer.RETRANSMIT_HANDSHAKE, now, jitter)

    def handshake_complete(self) -> None:
        """Initiator: the response was accepted; responder: first data on the new session."""
        self._armed.pop(Timer.RETRANSMIT_HANDSHAKE, None)
        self.attempts = 0

    def session_derived(self, created: int) -> None:
        """A session came to be at `created`, in either role; the youngest counts."""
        armed = self._armed.get(Timer.ZERO_KEY_MATERIAL)
        if armed is None or created > armed.since:
            self._arm(Timer.ZERO_KEY_MATERIAL, created)

    def _arm(self, timer: Timer, since: int, jitter: int = 0) -> None:
        lasts = {
            Timer.RETRANSMIT_HANDSHAKE: self._times.rekey_timeout,
            Timer.SEND_KEEPALIVE: self._times.keepalive_timeout,
            Timer.NEW_HANDSHAKE: self._times.new_handshake_timeout,
            Timer.ZERO_KEY_MATERIAL: self._times.zero_key_material,
            Timer.PERSISTENT_KEEPALIVE: self._interval,
        }[timer]
        # Only the two timers that start a handshake have jitter.
        if timer not in (Timer.RETRANSMIT_HANDSHAKE, Timer.NEW_HANDSHAKE):
            jitter = 0
        self._armed[timer] = _Armed(since + lasts + jitter, since)

    def _expire_retransmit_handshake(
        self, _armed: _Armed, now: int, _activity: Activity, _jitter: int
    ) -> tuple[Action, ...]:
        if self.attempts > self._limits.max_timer_handshakes:
            self._armed.pop(Timer.SEND_KEEPALIVE, None)
            if Timer.ZERO_KEY_MATERIAL not in self._armed:
                self._arm(Timer.ZERO_KEY_MATERIAL, now)
            return (Action.GIVE_UP,)
        self.attempts += 1
        return (Action.FORGET_SOURCE, Action.RETRY_INITIATION)

    def _expire_send_keepalive(self, armed: _Armed, now: int, activity: Activity, _jitter: int) -> tuple[Action, ...]:
        if activity.last_sent >= armed.since:
            if activity.first_data_unacknowledged > activity.last_sent:
                self._arm(Timer.SEND_KEEPALIVE, activity.first_data_unacknowledged)
            return ()
        # The kernel's need_another_keepalive.
        if activity.last_data_received > armed.since:
            self._arm(Timer.SEND_KEEPALIVE, now)
        return (Action.SEND_KEEPALIVE,)

    def _expire_new_handshake(self, armed: _Armed, _now: int, activity: Activity, jitter: int) -> tuple[Action, ...]:
        if activity.last_received >= armed.since:
            if activity.first_data_unanswered > activity.last_received:
                self._arm(Timer.NEW_HANDSHAKE, activity.first_data_unanswered, jitter)
            return ()
        return (Action.FORGET_SOURCE, Action.NEW_INITIATION)

    def _expire_zero_key_material(
        self, _armed: _Armed, _now: int, _activity: Activity, _jitter: int
    ) -> tuple[Action, ...]:
        return (Action.ZERO_KEY_MATERIAL,)

    def _expire_persistent_keepalive(
        self, _armed: _Armed, now: int, activity: Activity, _jitter: int
    ) -> tuple[Action, ...]:
        if (due := activity.latest + self._interval) > now:
            self._armed[Timer.PERSISTENT_KEEPALIVE] = _Armed(due, now)
            return ()
        self._arm(Timer.PERSISTENT_KEEPALIVE, now)
        return (Action.SEND_KEEPALIVE,)


_ON_EXPIRY: Mapping[Timer, Callable[[PeerTimers, _Armed, int, Activity, int], tuple[Action, ...]]] = {
    Timer.RETRANSMIT_HANDSHAKE: PeerTimers._expire_retransmit_handshake,
    Timer.SEND_KEEPALIVE: PeerTimers._expire_send_keepalive,
    Timer.NEW_HANDSHAKE: PeerTimers._expire_new_handshake,
    Timer.ZERO_KEY_MATERIAL: PeerTimers._expire_zero_key_material,
    Timer.PERSISTENT_KEEPALIVE: PeerTimers._expire_persistent_keepalive,
}
