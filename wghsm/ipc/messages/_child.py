"""Supervisor to every child, and back: beginning, pairs of channels, life signs, the end. A channel's first word."""

from __future__ import annotations

from ._base import Message

__all__ = ["Applied", "Attach", "Fault", "Hello", "Ping", "Pong", "Ready", "Shutdown", "Start", "StatsTable"]


# Every channel.


class Hello(Message, frozen=True, array_like=True, tag=1):
    """First message in each direction on each channel; another version ends the process."""

    version: int
    role: str


# Supervisor to every child, and back.


class Start(Message, frozen=True, array_like=True, tag=2):
    """Who a child is. `incarnation` counts the children of this gateway, so it never repeats.

    `worker` of `workers`: which pair of the tunnel's it belongs to, 0 for a process that is there once.
    """

    gateway: str
    incarnation: int
    uid: int
    gid: int
    parent: int
    log_level: str = "info"
    worker: int = 0
    workers: int = 1


class Attach(Message, frozen=True, array_like=True, tag=3):
    """One end of a fresh socket pair, as the message's only descriptor; replaces an earlier one of its kind.

    `worker`: whose process is at the other end, where there is one for each worker and the receiver is there once.
    """

    kind: str
    incarnation: int
    worker: int = 0


class StatsTable(Message, frozen=True, array_like=True, tag=4):
    """The statistics memfd, as the message's only descriptor."""

    slots: int


class Shutdown(Message, frozen=True, array_like=True, tag=5):
    """End in good order."""


class Ping(Message, frozen=True, array_like=True, tag=97):
    """Are you there? Answered with Pong, whatever else there is to do."""


class Pong(Message, frozen=True, array_like=True, tag=98):
    """The answer to Ping."""


class Ready(Message, frozen=True, array_like=True, tag=6):
    """The child has dropped its privileges and serves. `engine`: which implementation of its inner loop it runs."""

    engine: str = ""


class Fault(Message, frozen=True, array_like=True, tag=7):
    """Why the child is about to exit with `exit_code` (wghsm.exits), in one line for the operator."""

    exit_code: int
    text: str


class Applied(Message, frozen=True, array_like=True, tag=8):
    """The numbered change is in force here."""

    change: int
