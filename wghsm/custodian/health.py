"""Whether the token is there: a small table of states, driven by `keeper`.

    READY -- suspect --> CHECKING -- good --> READY          one peer's data was at fault, the token works
                            |
                           bad --> AWAY                      if it was mended only a moment ago: the breaker
                            v
                        REPAIRING -- good --> READY          the recovery ladder helped
                            |
                           bad
                            v
                          AWAY -- due --> RETRYING           1, 2, 4 ... 30 s apart, until it is back

Pure: time is an argument. While the state is none of READY and CHECKING, requests are refused without asking the
token: the breaker is open.
"""

from dataclasses import dataclass
from enum import Enum, auto

from wghsm.noise.constants import NSEC_PER_SEC

__all__ = ["Action", "Event", "Health", "State", "TokenTimes"]


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """How long to wait for a token, in nanoseconds; a test may shorten them."""

    first_pause: int = 1 * NSEC_PER_SEC
    longest_pause: int = 30 * NSEC_PER_SEC
    settle: int = 10 * NSEC_PER_SEC
    """A token that fails this soon after it was mended is not repaired at once again."""
    stuck: int = 20 * NSEC_PER_SEC
    """A handshake's call that takes longer never returns: the process ends, the supervisor starts another."""
    stuck_repair: int = 90 * NSEC_PER_SEC
    """The same for a repair, which may wait for a network."""
    look_back: int = 60 * NSEC_PER_SEC
    """Between two looks for a token that stands earlier in the list than the one in use."""
    idle: int = 60 * NSEC_PER_SEC
    """A token that nobody has asked for so long is checked, so that one that has gone is known before it is needed."""
    watch: int = 1 * NSEC_PER_SEC
    """Between two looks for calls that are stuck."""


class State(Enum):
    """How far the token is trusted."""

    READY = auto()
    CHECKING = auto()
    REPAIRING = auto()
    AWAY = auto()
    RETRYING = auto()


class Event(Enum):
    """What was learnt."""

    SUSPECT = auto()
    """A request failed at the token, or there was none for a while."""
    GOOD = auto()
    """The check, or the repair and its check, went well."""
    BAD = auto()
    DUE = auto()
    """The pause is over."""


class Action(Enum):
    """What is to be done."""

    NOTHING = auto()
    CHECK = auto()
    """Use key and root on data known to be good."""
    REPAIR = auto()
    """Climb the whole recovery ladder, then check."""
    REPAIR_AGAIN = auto()
    """The ladder's last step, then check; with `elsewhere`, try the other tokens as well."""
    TELL_BACK = auto()
    TELL_AWAY = auto()
    """Tell, and send DUE after `pause`."""
    WAIT = auto()
    """Send DUE after `pause`."""


_TABLE = {
    (State.READY, Event.SUSPECT): (State.CHECKING, Action.CHECK),
    (State.CHECKING, Event.GOOD): (State.READY, Action.NOTHING),
    (State.CHECKING, Event.BAD): (State.REPAIRING, Action.REPAIR),
    (State.REPAIRING, Event.GOOD): (State.READY, Action.TELL_BACK),
    (State.REPAIRING, Event.BAD): (State.AWAY, Action.TELL_AWAY),
    (State.AWAY, Event.DUE): (State.RETRYING, Action.REPAIR_AGAIN),
    (State.RETRYING, Event.GOOD): (State.READY, Action.TELL_BACK),
    (State.RETRYING, Event.BAD): (State.AWAY, Action.WAIT),
}


class Health:
    """The state, and how long to wait before the next try."""

    def __init__(self, times: TokenTimes | None = None) -> None:
        self._times = times or TokenTimes()
        self._mended: int | None = None
        self._failed_tries = 0
        self.state = State.READY
        self.pause = self._times.first_pause
        """Nanoseconds until DUE."""

    @property
    def available(self) -> bool:
        """Whether requests may go to the token."""
        return self.state in (State.READY, State.CHECKING)

    @property
    def elsewhere(self) -> bool:
        """Whether the token has stayed away for so long that another one should take over."""
        return self._failed_tries > 0

    def begin_away(self) -> Action:
        """The token was not there at the start."""
        self.state, self._failed_tries = State.AWAY, 1
        return Action.TELL_AWAY

    def on(self, event: Event, now: int) -> Action:
        """Take `event` in at `now` (ns); a SUSPECT that says nothing new is ignored. KeyError if it is out of place."""
        if event is Event.SUSPECT and self.state is not State.READY:
            return Action.NOTHING
        before = self.state
        self.state, action = _TABLE[before, event]
        settled = self._mended is None or now - self._mended >= self._times.settle
        if action is Action.REPAIR and not settled:
            # Mended a moment ago, and the same again: no loop of repairs.
            self.state, action = State.AWAY, Action.TELL_AWAY
            self._lengthen()
        elif action is Action.TELL_AWAY:
            self.pause = self._times.first_pause
        elif action is Action.WAIT:
            self._lengthen()
            self._failed_tries += 1
        elif action is Action.TELL_BACK:
            self._mended = now
            self._failed_tries = 0
        return action

    def _lengthen(self) -> None:
        self.pause = min(2 * self.pause, self._times.longest_pause)
