"""Run a command and say what it left running: `_descendants_process.py COMMAND...`, started by the demo's tests.

This process adopts whatever its descendants leave behind (PR_SET_CHILD_SUBREAPER), so that a daemon that has cut
itself loose is found too. The command runs in a process group of its own, with Ctrl-C as a terminal would have it.

    standard error, first line:  the command's process group
    exit code:                   the command's, 128 + N for a signal; 99 when something is left, named on standard error
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LEFT = 99
GRACE = 10.0


def main() -> int:
    """Run the command, then look for children; kill those there are."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # A shell cannot trap a signal that was ignored when it began.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = subprocess.Popen(sys.argv[1:], process_group=0, stdin=subprocess.DEVNULL)
    print(command.pid, file=sys.stderr, flush=True)
    code = command.wait()
    # What was told to end may take a moment; only what stays counts.
    deadline = time.monotonic() + GRACE
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid, line in left.items():
        print(f"left running: {pid} {line}", file=sys.stderr)
        os.kill(pid, signal.SIGKILL)
    if left:
        return LEFT
    return code if code >= 0 else 128 - code


def children() -> dict[int, str]:
    """Command lines of this process's living children; dead ones are reaped."""
    found = {}
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if os.waitpid(int(pid), os.WNOHANG)[0] == 0:
            found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return found


if __name__ == "__main__":
    sys.exit(main())
