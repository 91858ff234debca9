"""A command at a terminal of its own (a pty), answered by a script: what is asked is waited for, then answered."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import sys
import time
from typing import Self

_PATIENCE = 120.0


class Terminal:
    """`wghsm WORDS...` with a controlling terminal; `seen` is all that it has shown; SoftHSM is not configured."""

    def __init__(self, *words: str) -> None:
        self.seen = ""
        self._from = 0
        self.code: int | None = None
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execve(  # noqa: S606
                sys.executable,
                [sys.executable, "-m", "wghsm", *words],
                {**{name: value for name, value in os.environ.items() if name != "SOFTHSM2_CONF"}, "TERM": "dumb"},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            self.kill()
        os.close(self._terminal)

    def expect(self, pattern: str) -> str:
        """Wait until `pattern` is shown after what was expected before; give what stood before it."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = re.compile(pattern).search(self.seen, self._from)
            if found:
                before = self.seen[self._from : found.start()]
                self._from = found.end()
                return before
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not shown; last: {self.seen[-1500:]}"
            if not self._read(left):
                raise AssertionError(f"{pattern!r} was not shown before the end; last: {self.seen[-1500:]}")

    def answer(self, pattern: str, line: str = "") -> None:
        """Wait for a question, and type one line."""
        self.expect(pattern)
        os.write(self._terminal, line.encode() + b"\n")

    def press(self, key: bytes) -> None:
        """Type a key, such as b"\\n"."""
        os.write(self._terminal, key)

    def interrupt(self) -> int:
        """Press Ctrl-C until the command ends, as somebody at a slow machine does; give its exit status."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            # Its end closes the terminal's other side.
            with contextlib.suppress(OSError):
                os.write(self._terminal, b"\x03")
            while self._read(2.0):
                pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return self.code
        raise AssertionError(f"Ctrl-C did not end it; last: {self.seen[-1500:]}")

    def end(self) -> int:
        """Wait for the command's end; give its exit status."""
        while self._read(_PATIENCE):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def kill(self) -> None:
        """End it as a power cut does."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)

    def _read(self, patience: float) -> bool:
        if not select.select([self._terminal], [], [], patience)[0]:
            return False
        try:
            got = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.seen += got.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(got)
