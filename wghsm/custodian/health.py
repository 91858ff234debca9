"""Whether the token is there: a small table of states, driven by `service`.

    READY -- suspect --> CHECKING -- good --> READY          one peer's data was at fault, the token works
                            |
                           bad
                            v
                        REPAIRING -- good --> READY          the recovery ladder helped
                            |
                           bad
                            v
                          AWAY -- due --> RETRYING           1, 2, 4 ... 30 s apart, until it is back

Pure: no clock. While the state is none of READY and CHECKING, requests are refused.
"""

from enum import Enum, auto

from wghsm.noise.constants import NSEC_PER_SEC

__all__ = ["Action", "Event", "Health", "State"]

_FIRST_PAUSE = 1 * NSEC_PER_SEC
_LONGEST_PAUSE = 30 * NSEC_PER_SEC


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
    """A request failed at the token."""
    GOOD = auto()
    """The check, or the repair and its check, went well."""
    BAD = auto()
    DUE = auto()
    """The pause is over."""


class Action(Enum):
    """What is to be done."""

    NOTHING = auto()
    CHECK = auto()
    """Derive with data known to be good."""
    REPAIR = auto()
    """Climb the whole recovery ladder, then check."""
    REPAIR_AGAIN = auto()
    """The ladder's last step, then check."""
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

    def __init__(self) -> None:
        self.state = State.READY
        self.pause = _FIRST_PAUSE
        """Nanoseconds until DUE."""

    @property
    def available(self) -> bool:
        """Whether requests may go to the token."""
        return self.state in (State.READY, State.CHECKING)

    def on(self, event: Event) -> Action:
        """Take `event` in; a SUSPECT where it says nothing new is ignored. KeyError for an event out of place."""
        if event is Event.SUSPECT and self.state is not State.READY:
            return Action.NOTHING
        self.state, action = _TABLE[self.state, event]
        if action is Action.TELL_AWAY:
            self.pause = _FIRST_PAUSE
        elif action is Action.WAIT:
            self.pause = min(2 * self.pause, _LONGEST_PAUSE)
        return action
