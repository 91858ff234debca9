"""What a child's end means, and how long to wait before the next one (SEAMS.md "Dying and restarting").

    final exit code             the whole gateway ends with it; trying again cannot help
    before it first served      the whole gateway ends: the starter must hear why
    otherwise                   restart, after 0.1 s doubling to 10 s; 60 s of good life start over

Pure. Called by `_children`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.exits import FINAL, ExitCode
from wghsm.ipc import Role

if TYPE_CHECKING:
    from wghsm.ipc import Seat
    from wghsm.ipc import messages as m

__all__ = ["NOT_READY", "Backoff", "EndGateway", "Restart", "Verdict", "judge"]

_SECOND = 1_000_000_000
FIRST_DELAY = _SECOND // 10
LONGEST_DELAY = 10 * _SECOND
GOOD_LIFE = 60 * _SECOND
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
NOT_READY = "it was not ready within"
"""How `killed_for` begins where a child has taken too long to serve."""
# Nothing else that the custodian runs is in C but well-known libraries, and a little of our own that is sanitized.
_MODULE = ": the token's module {}; wghsm token doctor -c FILE says where"


@dataclass(frozen=True, slots=True)
class Restart:
    """The child is started again; `text` is for the log."""

    text: str


@dataclass(frozen=True, slots=True)
class EndGateway:
    """The gateway ends with this code; `text` is the one line for the operator."""

    exit_code: ExitCode
    text: str


Verdict = Restart | EndGateway


def judge(seat: Seat, status: int, fault: m.Fault | None, *, served: bool, killed_for: str = "") -> Verdict:
    """What follows from the end of the process at `seat`.

    `status` is its exit code, or a signal's number negated; `fault` what it said last; `killed_for` why the
    supervisor killed it, if so; `served` whether the gateway had been up before.
    """
    code = _exit_code(fault.exit_code if fault is not None else status)
    if fault is not None:
        # From a process that may have been taken over: no control characters on the operator's terminal.
        text = "".join(letter if letter.isprintable() else " " for letter in fault.text)
    elif killed_for:
        stuck = seat == Role.CUSTODIAN and killed_for.startswith(NOT_READY)
        text = f"{seat} was killed: {killed_for}" + (_MODULE.format("does not answer") if stuck else "")
    elif status < 0:
        crashed = seat == Role.CUSTODIAN and -status in _CRASHES
        text = f"{seat} ended by {_signal_name(-status)}" + (_MODULE.format("has crashed") if crashed else "")
    else:
        text = f"{seat} ended with exit code {status}"
    if code in FINAL:
        return EndGateway(code, text)
    if not served:
        return EndGateway(ExitCode.FAILURE if code == ExitCode.OK else code, text)
    return Restart(text)


class Backoff:
    """The waiting time of one role, in nanoseconds."""

    def __init__(self, first: int = FIRST_DELAY, longest: int = LONGEST_DELAY, good_life: int = GOOD_LIFE) -> None:
        self._first, self._longest, self._good_life = first, longest, good_life
        self._next = first

    def after(self, good_for: int) -> int:
        """The delay after a child that served for `good_for` nanoseconds."""
        if good_for >= self._good_life:
            self._next = self._first
        delay, self._next = self._next, min(self._next * 2, self._longest)
        return delay


def _exit_code(number: int) -> ExitCode:
    try:
        return ExitCode(number)
    except ValueError:
        return ExitCode.FAILURE


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
