"""What no custodian can do without on this machine, in C: the mark that our own CPU time is held against.

Called by token_rate. `_least.c` does the system calls and the cryptography that a handshake needs outside the token,
at the rhythm that a token would give it, and nothing else: no rules, no checks, no interpreter.
"""

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["least_work"]

_SOURCE = Path(__file__).with_name("_least.c")

Measure = Callable[[int, int, int, int, float], float]
"""Of the delay of a call in milliseconds, derives, sessions, initiations under way and seconds: CPU milliseconds."""


@contextlib.contextmanager
def least_work() -> Iterator[Measure]:
    """Compile it, and give a function that runs it. Raises subprocess.CalledProcessError, with what it said."""
    with tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp") as name:
        program = Path(name) / "least"
        subprocess.run(["gcc", "-O2", "-o", program, _SOURCE, "-lcrypto", "-lpthread"], check=True)

        def measure(delay: int, derives: int, sessions: int, window: int, seconds: float) -> float:
            arguments = [str(one) for one in (delay, derives, sessions, window, seconds)]
            said = subprocess.run(
                [program, *arguments, Path(name) / "records"], stdout=subprocess.PIPE, text=True, check=True
            )
            return float(said.stdout)

        yield measure
