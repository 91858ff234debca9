"""Children of the tests: started with their output in files, stopped for certain; and the one way to wait.

Called by every other module of this package.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, limit: float = 30.0, pause: float = 0.02) -> T:
    """Call `condition` until it gives something true, and return that; `limit` and `pause` in seconds.

    Raises TimeoutError naming `what` after the limit.
    """
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:g} s: {what}")
        time.sleep(pause)


class Process:
    """A child that is killed with its starter, whose standard output and error stand in files of `folder`."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        folder: Path,
        label: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `argv`. It dies with the thread that started it, so start it from one that lives as long."""
        self.label = label
        self.stdout_path = folder / f"{label}.out"
        self.stderr_path = folder / f"{label}.err"
        # setpriv and `ip netns exec` both replace themselves: the id is the command's own.
        full = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)]
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            self._popen = subprocess.Popen(
                full,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
            )
        self._read_to = 0

    @property
    def pid(self) -> int:
        """The process id of the command itself."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def stdout(self) -> str:
        """What it has written to its standard output so far."""
        return self.stdout_path.read_text(errors="replace")

    def stderr(self) -> str:
        """What it has written to its standard error so far."""
        return self.stderr_path.read_text(errors="replace")

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()

    def next_line(self, limit: float = 30.0) -> str:
        """Give the next whole line of its standard output; raises TimeoutError, or RuntimeError when it has ended."""

        def line() -> str | None:
            ended = self.returncode is not None
            text = self.stdout()[self._read_to :]
            if "\n" in text:
                return text[: text.index("\n") + 1]
            if ended:
                raise RuntimeError(f"{self.label} ended with {self.returncode}: {self.stderr()[-2000:]}")
            return None

        found = until(line, f"a line from {self.label}", limit)
        self._read_to += len(found)
        return found.rstrip("\n")

    def ask(self, request: object, limit: float = 30.0) -> object:
        """Send one line of JSON and give the line of JSON that answers it."""
        self.tell(json.dumps(request))
        answer: object = json.loads(self.next_line(limit))
        return answer

    def wait(self, limit: float = 60.0) -> int:
        """Wait for its end and give the exit code; raises subprocess.TimeoutExpired after `limit` seconds."""
        return self._popen.wait(limit)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def stop(self, limit: float = 10.0) -> None:
        """End it: standard input closed, SIGTERM, and SIGKILL after `limit` seconds."""
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        self.signal(signal.SIGTERM)
        try:
            self._popen.wait(limit)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(limit)

    def close(self) -> None:
        """End it, the laboratory's word for it."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
