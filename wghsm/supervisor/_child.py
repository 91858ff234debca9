"""One child process: started with a fresh channel to the supervisor, killed, let go of when it has ended.

Called by `_children`, which has all of them, and knows what follows from what happens to one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Self

from wghsm.ipc import Channel, ChannelKind, Role, role_of, socket_pair
from wghsm.process import privileges

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wghsm.ipc import Seat
    from wghsm.ipc import messages as m
    from wghsm.process import Timer

__all__ = ["ChildProcess"]


class ChildProcess:
    """One incarnation of a seat's process."""

    def __init__(self, seat: Seat, incarnation: int, popen: subprocess.Popen[bytes], channel: Channel) -> None:
        self.seat = seat
        self.incarnation = incarnation
        self.popen = popen
        self.pidfd = os.pidfd_open(popen.pid)
        self.channel = channel
        self.ready_at: int | None = None
        self.engine = ""
        self.fault: m.Fault | None = None
        self.killed_for = ""
        self.deadline: Timer | None = None
        self.unanswered = 0

    @classmethod
    def start(
        cls, seat: Seat, incarnation: int, command: Sequence[str], environment: Mapping[str, str]
    ) -> Self | OSError:
        """Fork and execute `command`, whose end of the channel is behind `--channel`; or say why that cannot be."""
        own, theirs = socket_pair()
        fd = theirs.fileno()
        # Before the child begins: its first words must not meet a child that has died of its own.
        channel = Channel(own, ChannelKind(f"{Role.SUPERVISOR}-{role_of(seat)}"), Role.SUPERVISOR)
        with theirs:
            # Until it ignores them itself: Ctrl-C is the supervisor's, also while Python begins there.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, privileges.TERMINAL_SIGNALS)
            try:
                popen = subprocess.Popen(  # noqa: S603
                    [*command, "--channel", str(fd)],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    pass_fds=[fd],
                    env=dict(environment),
                )
            except OSError as error:
                channel.close()
                return error
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return cls(seat, incarnation, popen, channel)

    def kill(self, reason: str) -> None:
        """End it now, if it has not ended; its death is noticed by its pidfd."""
        self.killed_for = self.killed_for or reason
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of what is kept for it here, once it has ended."""
        self.channel.close()
        os.close(self.pidfd)
        self.pidfd = -1
        if self.deadline is not None:
            self.deadline.cancel()
