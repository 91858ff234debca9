"""Exit codes of every wghsm program: one list, so that scripts and systemd units can rely on it.

Codes 3 and 4 are final: trying again without an operator's change cannot help, and with a wrong PIN it
would lock the token. The systemd unit lists them under RestartPreventExitStatus.
"""

from enum import IntEnum, unique

__all__ = ["FINAL", "ExitCode"]


@unique
class ExitCode(IntEnum):
    """What a wghsm program's exit status says."""

    OK = 0
    FAILURE = 1
    BAD_CONFIG = 2
    PIN_REFUSED = 3
    TOKEN_UNUSABLE = 4
    ALREADY_RUNNING = 5
    NOT_RUNNING = 6
    NO_PRIVILEGE = 7
    SYSTEM = 8
    WOULD_CHANGE = 9
    """A plan: a reload would change something."""
    NEEDS_RESTART = 10
    """A plan or a reload: something has changed that only a restart brings into force."""
    ROTATION_DUE = 11
    """An inventory: a key or a pre-shared key is older than the policy allows."""
    DIFFERS = 12
    """A ceremony's transcript and the token of today do not agree."""
    UNPROVED = 13
    """An audit log whose records are in order, and nothing of it is sealed by a key that was given."""
    PROTOCOL = 70
    INTERRUPTED = 130


FINAL = frozenset({ExitCode.BAD_CONFIG, ExitCode.PIN_REFUSED, ExitCode.TOKEN_UNUSABLE})
"""Codes after which a restart without an operator's change cannot help."""
