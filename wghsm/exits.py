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
    NEEDS_RESTART = 10
    ROTATION_DUE = 11
    DIFFERS = 12
    UNPROVED = 13
    PROTOCOL = 70
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One sentence for the manual."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "All is well.",
    ExitCode.FAILURE: "It failed; the line on standard error says why.",
    ExitCode.BAD_CONFIG: "The gateway file or the command line is wrong.",
    ExitCode.PIN_REFUSED: "The token refused the PIN, or it must not be tried again.",
    ExitCode.TOKEN_UNUSABLE: "The token or its key cannot be used.",
    ExitCode.ALREADY_RUNNING: "A gateway of this name runs already.",
    ExitCode.NOT_RUNNING: "No such gateway runs.",
    ExitCode.NO_PRIVILEGE: "It needs root, or another right.",
    ExitCode.SYSTEM: "The system refused something: an interface, a port, a route.",
    ExitCode.WOULD_CHANGE: "A plan: a reload would change something.",
    ExitCode.NEEDS_RESTART: "A plan or a reload: something has changed that only a restart brings into force.",
    ExitCode.ROTATION_DUE: "An inventory: a key or a pre-shared key is older than the policy allows.",
    ExitCode.DIFFERS: "A ceremony's transcript and the token of today do not agree.",
    ExitCode.UNPROVED: "An audit log whose records are in order, and nothing of it is sealed by a key that was given.",
    ExitCode.PROTOCOL: "A process of the gateway broke the rules between them: a defect.",
    ExitCode.INTERRUPTED: "Ended by Ctrl-C.",
}

FINAL = frozenset({ExitCode.BAD_CONFIG, ExitCode.PIN_REFUSED, ExitCode.TOKEN_UNUSABLE})
"""Codes after which a restart without an operator's change cannot help."""
