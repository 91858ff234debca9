"""The keeper of the token's health: what `health` decides is done here, on the main thread.

    a request failed -> suspect -> check -> ladder -> away, tried again ... -> back
    no request for a while       -> check
    several tokens   -> the others are looked at once; later, whether a better one is back
    now and then     -> is a call stuck, has the process grown? Then it ends, and the supervisor starts another

Called by `service`. Checks and repairs run on the workers' thread beside; handshakes are not held up by them.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wghsm.exits import ExitCode
from wghsm.ipc import Counter
from wghsm.noise.constants import NSEC_PER_SEC
from wghsm.pkcs11_backend import PinRefused, TokenError
from wghsm.process import ChildFault, boottime

from .health import Action, Event, Health, TokenTimes
from .health import State as HealthState
from .latch import LatchFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.process import Loop

    from .deriving import Deriving
    from .effects import Effect, Landing
    from .vault import TokenVault
    from .workers import Workers

__all__ = ["AT_PINPAD", "Keeper"]

_log = logging.getLogger(__name__)

_PAGE = os.sysconf("SC_PAGE_SIZE")

LARGEST_GROWTH = 256 * 2**20
"""Bytes. SoftHSM 2.6.1 loses 370 of them with each derive, of memory that is locked: 700,000 derives."""
AT_PINPAD = "waiting for its PIN to be typed at the token's pinpad: an operator must be there"


class Keeper:
    """Main thread only. `changed` is called when `state`, `since_unix`, `detail` or `token` has changed.

    `note` is the detail while all is well: empty, or that somebody has to type a PIN after a restart.
    """

    def __init__(
        self,
        vault: TokenVault,
        workers: Workers,
        deriving: Deriving,
        loop: Loop,
        times: TokenTimes,
        count: Callable[[Counter], None],
        changed: Callable[[], None],
        note: str = "",
    ) -> None:
        self._vault = vault
        self._workers = workers
        self._deriving = deriving
        self._loop = loop
        self._times = times
        self._count = count
        self._changed = changed
        self._note = note
        self._health = Health(times)
        self._lost_aside = False
        self._asked = 0
        self._told_pinpad = False
        self._at_pinpad_until = 0
        self._began_with = resident()
        self.state: Literal["ready", "away"] = "ready"
        self.since_unix = time.time_ns()
        self.detail = note
        self.token = vault.token

    @property
    def available(self) -> bool:
        """Whether requests may go to the token."""
        return self._health.available

    def start(self, away: TokenError | None) -> None:
        """Begin; `away` is why no token could be opened. Raises nothing."""
        self._loop.call_later(self._times.watch, self._watch)
        self._loop.call_later(self._times.idle, self._look_idle)
        if away is not None:
            self._act(self._health.begin_away(), str(away))
        elif self._vault.several:
            self._workers.submit_aside(self._look_round)
        if self._vault.several:
            self._loop.call_later(self._times.look_back, self._look_back)

    def suspect(self, error: TokenError) -> None:
        """A request failed at the token, perhaps only on a peer's data."""
        action = self._health.on(Event.SUSPECT, boottime())
        if action is not Action.NOTHING:
            _log.warning("a request failed at the token: %s", error)
        self._act(action, str(error))

    def _act(self, action: Action, why: str = "") -> None:
        match action:
            case Action.CHECK:
                self._try_token(self._vault.check)
            case Action.REPAIR:
                self._try_token(lambda: self._vault.repair(all_steps=True, elsewhere=False))
            case Action.REPAIR_AGAIN:
                elsewhere = self._health.elsewhere
                self._try_token(lambda: self._vault.repair(all_steps=False, elsewhere=elsewhere))
            case Action.TELL_BACK:
                self._tell_back()
            case Action.TELL_AWAY:
                self._count(Counter.TOKEN_AWAY)
                self._set("away", why)
                _log.error("the token is away since %s: %s; trying again until it is back", _clock(), why)
                self._wait()
            case Action.WAIT:
                self._set("away", why)
                self._wait()
        self._changed()

    def _tell_back(self) -> None:
        before, now = self.token, self._vault.token
        self._count(Counter.TOKEN_REPAIRED)
        if before and now != before:
            self._count(Counter.TOKEN_SWITCHED)
            _log.warning("%s is in use in place of %s", now, before)
        elif self.state == "ready":
            _log.warning("the token was mended: %s", now)
        else:
            _log.warning("the token is back: %s", now)
        self._set("ready", self._note)

    def _set(self, state: Literal["ready", "away"], detail: str) -> None:
        if state != self.state:
            self.state, self.since_unix = state, time.time_ns()
        self.detail = detail
        if state == "ready":
            self.token = self._vault.token

    def _wait(self) -> None:
        self._loop.call_later(self._health.pause, lambda: self._act(self._health.on(Event.DUE, boottime())))

    def _try_token(self, attempt: Callable[[], None]) -> None:
        def job() -> Landing:
            try:
                attempt()
            except (TokenError, LatchFault) as error:
                fault = error.with_traceback(None)
                return lambda now: self._tried(fault, now)
            return lambda now: self._tried(None, now)

        self._workers.submit_aside(job)

    def _tried(self, error: TokenError | LatchFault | None, now: int) -> list[Effect]:
        if self._health.state is HealthState.CHECKING:
            self._count(Counter.TOKEN_CHECKED)
        if error is None:
            self._act(self._health.on(Event.GOOD, now))
            return []
        if isinstance(error, LatchFault):
            raise ChildFault(ExitCode.SYSTEM, str(error))
        if isinstance(error, PinRefused) and self._health.state is not HealthState.CHECKING:
            # For good: the next try could lock the token.
            raise ChildFault(error.exit_code, str(error))
        self._act(self._health.on(Event.BAD, now), str(error))
        return []

    def _look_idle(self) -> None:
        self._loop.call_later(self._times.idle, self._look_idle)
        before, self._asked = self._asked, self._workers.submitted + self._deriving.submitted
        if self._asked == before and not self._workers.running_aside():
            self._act(self._health.on(Event.SUSPECT, boottime()))

    # Several tokens.

    def _look_round(self) -> Landing:
        self._vault.look_round()
        return lambda _now: []

    def _look_back(self) -> None:
        self._loop.call_later(self._times.look_back, self._look_back)
        if self._health.state is not HealthState.READY or self._vault.at_best or self._workers.running_aside():
            return

        def job() -> Landing:
            before = self._vault.token
            went = self._vault.look_back()
            return lambda _now: self._looked_back(before) if went else []

        self._workers.submit_aside(job)

    def _looked_back(self, before: str) -> list[Effect]:
        self._count(Counter.TOKEN_SWITCHED)
        _log.warning("%s is back and in use again in place of %s", self._vault.token, before)
        self.token = self._vault.token
        self._changed()
        return []

    # Calls that never return, and memory that never comes back.

    def _watch(self) -> None:
        self._loop.call_later(self._times.watch, self._watch)
        if self._vault.at_pinpad:
            self._tell_pinpad()
            return
        self._told_pinpad = False
        # A person at the pinpad has all the time, and so had what waited for the login.
        counted = boottime() - self._at_pinpad_until
        limit = self._times.stuck if self.available else self._times.stuck_repair
        running = max(self._workers.longest_running(), self._deriving.longest_running())
        if min(running, counted) > limit:
            raise _stuck("a handshake's call", limit)
        if min(self._workers.running_aside(), counted) <= self._times.stuck_repair:
            self._lost_aside = False
        elif self._health.state is not HealthState.READY:
            raise _stuck("its check or repair", self._times.stuck_repair)
        elif not self._lost_aside:
            # The token in use is well: another one is not worth its sessions.
            self._lost_aside = True
            _log.error("a look at another token does not return; there are no more until the custodian starts again")
        self._end_if_grown()

    def _end_if_grown(self) -> None:
        # Not where somebody would have to type a PIN, and not in the middle of a repair.
        if self._note or self._health.state is not HealthState.READY:
            return
        grown = resident() - self._began_with
        if grown > LARGEST_GROWTH:
            raise ChildFault(
                ExitCode.FAILURE,
                f"the custodian has grown by {grown >> 20} MB, as some modules lose memory with each derive; it is "
                "started again, sessions go on",
            )

    def _tell_pinpad(self) -> None:
        """Who looks at status or log learns that a person is needed."""
        self._at_pinpad_until = boottime()
        if not self._told_pinpad:
            self._told_pinpad = True
            self._set("away", AT_PINPAD)
            _log.warning("the token is away: %s", AT_PINPAD)
            self._changed()


def resident() -> int:
    """How many bytes of memory this process holds; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def _stuck(what: str, limit: int) -> ChildFault:
    seconds = limit / NSEC_PER_SEC
    text = f"the token's module has not answered to {what} for {seconds:g} s; the custodian is started again"
    return ChildFault(ExitCode.FAILURE, text)


def _clock() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")
