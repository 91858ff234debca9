"""Ctrl-C while a `wghsm` command is still being imported, or ends: no trace, and the exit code that a later one has.

A KeyboardInterrupt there would be nobody's to catch, and Python shows and forgets one in the callbacks of its imports.
So the process ends in the signal's handler, until the command's own work begins. At the very end, where Python has
taken its handlers back, Ctrl-C is ignored: the exit code is known by then. Called by `wghsm.__main__` before anything
else is imported, and by `wghsm.cli` once all is there.
"""

import atexit
import os

__all__ = ["STATUS", "begin", "end_at_once", "raise_as_usual"]

STATUS = 130
"""ExitCode.INTERRUPTED, before there are enums."""


def _end(*_: object) -> None:
    try:
        os.write(2, b"\nwghsm: interrupted\n")
    finally:
        os._exit(STATUS)


try:
    import signal
except KeyboardInterrupt:
    _end()


def begin() -> None:
    """The first thing that a program does."""
    end_at_once()
    atexit.register(_ignore)


def end_at_once() -> None:
    """From here on Ctrl-C ends the process at once: nothing may be under way. One that is ignored stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_as_usual() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, where `end_at_once` was called before."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _ignore() -> None:
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
